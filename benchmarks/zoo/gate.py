"""What must not get worse: a part of the programs, beside the verdicts on record.

A record is `{"kind", "group", "verdict", "errors", "seconds"}` by the program's name: the verdict with
seed 0, the first two errors, and how long the checks took.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

COUNT = 60
Record = Mapping[str, Any]


class Outcome(Protocol):
    """What of a result is kept and compared."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def group(self) -> str: ...  # noqa: D102
    @property
    def verdict(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    def checks(self, *severities: str) -> list[str]: ...  # noqa: D102


def records_of(results: Iterable[Outcome]) -> str:
    """The file of records, a line each."""
    lines = []
    for result in sorted(results, key=lambda result: result.name):
        record = {
            "kind": result.kind,
            "group": result.group,
            "verdict": result.verdict,
            "errors": result.checks("error")[:2],
            "seconds": round(result.seconds, 1),
        }
        lines.append(f" {json.dumps(result.name)}: {json.dumps(record)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def quick_part(records: Mapping[str, Record], count: int = COUNT) -> list[str]:
    """Names of the quickest programs, in turn of each kind and group, that are judged rightly on record."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in sorted(records, key=lambda name: (records[name]["seconds"], name)):
        if records[name]["verdict"] == "ok":
            groups.setdefault((records[name]["kind"], records[name]["group"]), []).append(name)
    names: list[str] = []
    for turn in range(max(map(len, groups.values()))):
        names += [groups[key][turn] for key in sorted(groups) if turn < len(groups[key])]
    return names[:count]


def worse(records: Mapping[str, Record], results: Iterable[Outcome]) -> list[str]:
    """What is worse than on record: false alarms, and faults that were found and no longer are."""
    sentences = []
    for result in results:
        was, found = records[result.name], result.checks("error")[:2]
        if result.verdict != "ok" and (result.kind == "healthy" or was["verdict"] == "ok"):
            sentences.append(
                f"{result.name}: {result.verdict}, where it was {was['verdict']}; errors "
                f"{', '.join(found) or 'none'}, where they were {', '.join(was['errors']) or 'none'}"
            )
    return sentences


def changed(records: Mapping[str, Record], results: Iterable[Outcome]) -> list[str]:
    """Programs with the verdict on record, whose first two errors are others."""
    return [
        result.name
        for result in results
        if result.verdict == records[result.name]["verdict"]
        and result.checks("error")[:2] != records[result.name]["errors"]
    ]
