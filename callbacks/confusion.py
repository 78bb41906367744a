"""The confusion matrix as a picture and the scores by class as a table."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_practice.core.types import Array
from keras_practice.data import Task

_MAX_NUMBERS = 20


def confusion_figure(counts: Array, task: Task) -> Figure:
    """A confusion matrix: colour shows the share of each true class, numbers count samples.

    Args:
        counts: `confusion_matrix`'s result, `(num_classes, num_classes)`.
        task: A binary or multiclass task, whose class names are the labels.

    Returns:
        A figure that belongs to no window and no global state.

    Source:
        A40.
    """
    classes = len(counts)
    names = [_short(name) for name in _names(task)]
    side = min(2.6 + 0.26 * classes, 12.0)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=110)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= _MAX_NUMBERS:
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "#1b2a41"
                axes.text(
                    column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, size=8
                )
        long = max(map(len, names)) > 3
        axes.set_xticks(range(classes), names, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(range(classes), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{right:.1%} of {counts.sum():,} samples right", fontsize=10, loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def confusion_png(counts: Array, task: Task) -> bytes:
    """`confusion_figure` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    confusion_figure(counts, task).savefig(buffer, format="png")
    return buffer.getvalue()


def report_markdown(each: dict[str, Any], task: Task) -> str:
    """Precision, recall, F1 and AUC of each class as a table, the weakest F1 first.

    Args:
        each: `scores(..., average=None)`.
        task: What is predicted.

    Returns:
        A table in Markdown; characters of class names that Markdown or HTML would
        read as their own are escaped.
    """
    lines = ["| class | precision | recall | F1 | AUC |", "|---|---:|---:|---:|---:|"]
    names = _names(task)
    for i in np.argsort(each["f1"], kind="stable"):
        numbers = " | ".join(f"{each[name][i]:.3f}" for name in ("precision", "recall", "f1", "auc"))
        lines.append(f"| {_escaped(names[i])} | {numbers} |")
    return "\n".join(lines)


def _names(task: Task) -> list[str]:
    return [str(name) for name in task.class_names or range(task.num_classes)]


def _short(name: str, most: int = 16) -> str:
    # A dollar sign would start mathematics in matplotlib.
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")


def _escaped(name: str) -> str:
    return "".join(f"&#{ord(letter)};" if letter in "|<>&*_`[]\\~#" else letter for letter in name)
