"""What two runs of one search are compared by."""

import csv
import re

import pytest


def read(out):
    """The rows of a run's table by trial, without what differs between two runs."""
    with (out / "trials.csv").open() as file:
        return {row["trial"]: {**_numbers(row), "seconds": ""} for row in csv.DictReader(file)}


def _numbers(row):
    return {
        column: float(text) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) else text
        for column, text in row.items()
    }


def close_to(rows):
    """The same rows, whose numbers may differ in the last places: trials share graphs with those before."""
    return {
        name: {
            column: pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value
            for column, value in row.items()
        }
        for name, row in rows.items()
    }


def files_of(out):
    """The paths of a run's files, without the numbers in the names of TensorBoard's."""
    return sorted(
        re.sub(r"tfevents.*", "tfevents", path.relative_to(out).as_posix())
        for path in out.rglob("*")
        if path.is_file()
    )
