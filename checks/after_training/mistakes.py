"""How wrong a model is: altogether, beside chance, and where it is wrong most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_practice.checks.inspection.context import loss_name, task_of
from keras_practice.checks.inspection.forward_pass import Head
from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Split, Task
from keras_practice.rendering.tables import aligned

_BATCH = 256
_INK, _SOFT, _GRID, _WRONG = "#1f2430", "#5b6472", "#dfe3e8", "#b23a48"
_PALE = "#9aa2ad"
_MAX_COLUMNS = 8
_UNUSUAL = 3  # Features named for each sample: more would not be read.
_SEQUENCE_CHANNELS = 3  # Up to as many channels are drawn as curves; more side by side make a picture.


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The samples on which a model is most wrong, worst first.

    Attributes:
        indices: Their rows in the split, `(k,)`.
        truth: Labels, `(k,)` class numbers, or `(k, outputs)` for numbers and several labels.
        prediction: What the model says, in the same form.
        confidence: Probability that it gives to what it says, `(k,)`; for several
            labels that of its least sure decision; NaN for regression.
        loss: Cross-entropy, or squared error, of each, `(k,)`.
        inputs: The samples themselves, `(k, ...)`.
        task: What is predicted.
        samples: How many samples were looked at.
        wrong: How many of those were decided wrongly; for regression `samples`.
        unusual: For each one the features that are most unlike those of the class
            that it was taken for, such as `("petal length +3.1",)`, in standard
            deviations; empty for images and sequences.
    """

    indices: Array
    truth: Array
    prediction: Array
    confidence: Array
    loss: Array
    inputs: Array
    task: Task
    samples: int
    wrong: int
    unusual: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def heading(self) -> str:
        """One line that says what is listed."""
        if self.task.kind == "regression":
            return f"The {len(self)} largest errors in {self.samples:,} samples"
        return f"The {len(self)} highest losses; {self.wrong:,} of {self.samples:,} samples are wrong"

    def table(self) -> list[list[str]]:
        """The same in words: a row of headings, then a row for each sample."""
        sure = self.task.is_classification
        rows = [["row", "truth", "predicted", *(["confidence"] if sure else []), "loss"]]
        if self.unusual:
            rows[0].append("unlike the predicted class" if self._excludes else "unusual features")
        for i in range(len(self)):
            words = [str(self.indices[i]), self._word(self.truth[i]), self._word(self.prediction[i])]
            words += [f"{self.confidence[i]:.0%}"] if sure else []
            words += [f"{self.loss[i]:.3g}"]
            rows.append([*words, ", ".join(self.unusual[i])] if self.unusual else words)
        return rows

    def plot(self) -> Figure:
        """Pictures with the truth and the prediction for images and sequences, else a table.

        Returns:
            A figure that belongs to no window and no global state.
        """
        return _table_figure(self) if self.unusual or not _drawable(self.inputs) else _grid_figure(self)

    def __str__(self) -> str:
        return "\n".join([self.heading, *aligned(self.table())])

    @property
    def _excludes(self) -> bool:
        return self.task.kind in ("binary", "multiclass")

    def _word(self, value: Any) -> str:
        names = self.task.class_names
        if self._excludes and np.ndim(value) == 0:
            return names[int(value)] if names else str(int(value))
        values = np.ravel(value)
        if self.task.kind == "multilabel":
            carried = [names[i] if names else str(i) for i in np.flatnonzero(values)]
            return _shortened(carried) or "none"
        return _shortened([f"{v:.4g}" for v in values])


def worst_mistakes(
    model: keras.Model,
    split: Any,
    k: int = 16,
    *,
    task: Task | None = None,
    feature_names: Sequence[str] = (),
) -> Mistakes:
    """The samples with the highest loss: the most confident wrong answers first.

    Wrong labels, rare cases and bad inputs gather there, and a look at them says
    more than a score. The model is not changed.

    Args:
        model: A trained model with one output.
        split: A `data.Split`, or a pair `(x, y)` with inputs `(samples, ...)` and labels.
        k: How many samples. Defaults to `16`; all of them where there are fewer.
        task: What is predicted. Defaults to `None`: the split's, or what labels
            and loss say.
        feature_names: Names of the features, such as `dataset.feature_names`.
            Defaults to `()`: `x0`, `x1`, ...

    Returns:
        The samples, with a table (`print` it) and a picture (`.plot()`).

    Raises:
        ValueError: If `k` is not positive, there are several inputs or outputs, or
            data and task do not fit.

    Example:
        >>> mistakes = checks.worst_mistakes(model, digits.val)  # doctest: +SKIP
        >>> mistakes.plot().savefig("mistakes.png")  # doctest: +SKIP

    Source:
        A52.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a positive integer. Got {k!r}.")
    judged = judge(model, split, task)
    x = keras.tree.flatten(judged.rows.x)
    if len(x) != 1:
        raise ValueError(f"The model must have one input, whose samples are shown. Got {len(x)}.")
    # Among equal losses the more confident answer is the worse one.
    sure = np.nan_to_num(judged.confidence)
    chosen = np.lexsort((-sure, -np.nan_to_num(judged.losses, nan=np.inf)))[:k]
    excludes = judged.task.kind in ("binary", "multiclass")
    return Mistakes(
        chosen,
        judged.truth[chosen],
        judged.prediction[chosen],
        judged.confidence[chosen],
        judged.losses[chosen],
        x[0][chosen],
        judged.task,
        len(judged.rows),
        int(judged.wrong.sum()),
        _unusual(x[0], judged if excludes else None, chosen, feature_names),
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """What a model says to some samples, and how right it is.

    Attributes:
        rows: The samples.
        task: What is predicted, as wide as the model's output.
        truth, prediction: Classes, labels or numbers, `(samples, ...)`.
        confidence: Probability of the prediction, `(samples,)`; NaN for regression.
        losses: Cross-entropy or squared error, `(samples,)`.
        wrong: Whether a sample is wrong in any decision, `(samples,)`.
        error: Share of wrong decisions; for regression mean squared error over variance.
        chance: The same error of the best constant answer: the most common class,
            or the mean.
        doubt: Standard error of `error`, from the number of samples.
    """

    rows: Samples
    task: Task
    truth: Array
    prediction: Array
    confidence: Array
    losses: Array
    wrong: Array
    error: float
    chance: float
    doubt: float


def judge(model: keras.Model, split: Any, task: Task | None = None, most: int | None = None) -> Judged:
    """Runs a model on samples in inference, and compares what it says with the labels.

    Args:
        model: A model with one output.
        split: A `data.Split`, a pair `(x, y)`, or batches, as for `fit`.
        task: What is predicted. Defaults to `None`: the split's, or what labels and loss say.
        most: Most samples that are used, drawn at random. Defaults to `None`, all.

    Raises:
        ValueError: If data, model and task do not fit each other.
    """
    rows, task = samples_and_task(split, task)
    rows = rows if most is None else rows.spread(most)
    with preserved(model, _first(rows.x)):
        outputs = outputs_of(model, rows.x)
    return judge_outputs(model, outputs, rows, task)


def samples_and_task(split: Any, task: Task | None) -> tuple[Samples, Task | None]:
    """The samples of a split, a pair or batches, and their task where it is known."""
    if isinstance(split, Split):
        return samples_of(split.x, split.y), task or split.task
    if isinstance(split, (tuple, list)):
        if len(split) != 2:
            raise ValueError(f"Samples must be a data.Split or a pair (x, y). Got {len(split)} parts.")
        return samples_of(split[0], split[1]), task
    return samples_of(split, None), task


def outputs_of(model: Any, x: Any) -> Array:
    """What a model, or a graph of it, puts out in inference, `(samples, ..., outputs)`."""
    count = len(keras.tree.flatten(x)[0])
    parts = []
    for start in range(0, count, _BATCH):
        batch = keras.tree.map_structure(lambda a, s=start: a[s : s + _BATCH], x)
        part = model(batch, training=False)
        if len(keras.tree.flatten(part)) != 1:
            raise ValueError("The model must have one output. Got several.")
        parts.append(np.asarray(keras.tree.flatten(part)[0], dtype=np.float64))
    return np.concatenate(parts)


def judge_outputs(model: keras.Model, outputs: Array, rows: Samples, task: Task | None) -> Judged:
    """Compares outputs `(samples, ..., outputs)` with the labels of the same samples."""
    task = task_for(model, outputs, rows.y, task)
    task.check(rows.y)
    count = len(outputs)
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    flat = outputs.reshape(-1, outputs.shape[-1])
    # A channel of size 1 at the end of the labels is not an axis of its own.
    labels = np.asarray(rows.y).reshape(len(flat), -1)
    if task.kind == "regression":
        losses = np.mean((flat - labels) ** 2, axis=1).reshape(count, -1).mean(axis=1)
        error, chance, doubt = _relative_error(flat, labels)
        missing = np.full(count, np.nan)
        return Judged(
            rows,
            task,
            _by_sample(labels, count),
            _by_sample(flat, count),
            missing,
            losses,
            np.ones(count, dtype=bool),
            error,
            chance,
            doubt,
        )
    truth, prediction, confidence, losses = _decide(probabilities(model, flat, task), labels, task)
    missed = truth != prediction
    error = float(missed.mean())
    # Decisions of one sample are not independent of each other, so samples are what counts.
    doubt = math.sqrt(max(error * (1 - error), 1 / count) / count)
    return Judged(
        rows,
        task,
        _by_sample(truth, count),
        _by_sample(prediction, count),
        confidence.reshape(count, -1).min(axis=1),
        losses.reshape(count, -1).mean(axis=1),
        missed.reshape(count, -1).any(axis=1),
        error,
        chance_error(labels, task),
        doubt,
    )


def task_for(model: keras.Model, outputs: Array, y: Any, task: Task | None) -> Task:
    """The task, stated or read from labels and loss, as wide as the model's output."""
    if isinstance(y, (dict, list, tuple)):
        raise ValueError(f"There must be labels for one output. Got {len(y)}.")
    if task is None:
        task = task_of(Head("output", outputs, np.asarray(y), getattr(model, "loss", None), ()))
    if task is None:
        task = Task.infer(y)  # Raises, and says what is missing.
    width = outputs.shape[-1] if outputs.ndim > 1 else 1
    # Two softmax units for yes or no, or more units than the labels at hand have classes.
    if (task.kind == "binary" and width == 2) or (
        task.kind == "multiclass" and width > task.outputs and not task.one_hot
    ):
        names = task.class_names if len(task.class_names) == width else ()
        return Task.multiclass(width, names)
    if width != task.outputs:
        raise ValueError(f"The model must have {task.outputs} output(s) for {task}. Got {width}.")
    return task


def probabilities(model: keras.Model, outputs: Array, task: Task) -> Array:
    """Outputs as probabilities `(decisions, outputs)`, also of a model that gives logits."""
    loss = getattr(model, "loss", None)
    within = bool(np.all((outputs >= 0) & (outputs <= 1)))
    if task.kind == "multiclass":
        # Keras finds the logits behind a softmax by itself, whatever from_logits says.
        if not within or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return outputs
    if not within and (getattr(loss, "from_logits", False) or "hinge" in loss_name(loss)):
        return np.asarray(1 / (1 + np.exp(-np.clip(outputs, -500, 500))))
    return np.clip(outputs, 0, 1)


def chance_error(labels: Array, task: Task) -> float:
    """Share of decisions that the best constant answer gets wrong."""
    if task.kind == "multilabel":
        shares = labels.mean(axis=0)
        return float(np.mean(np.minimum(shares, 1 - shares)))
    counts = np.bincount(task.class_indices(labels))
    return float(1 - counts.max() / counts.sum())


def _decide(p: Array, labels: Array, task: Task) -> tuple[Array, Array, Array, Array]:
    """Truth, decision, confidence and cross-entropy of each decision."""
    least = keras.config.epsilon()  # What Keras's own cross-entropy takes for zero.
    if task.kind == "multiclass":
        truth, decided = task.class_indices(labels), p.argmax(axis=1)
        given = p[np.arange(len(p)), truth]
        # A comparison with NaN decides nothing, so it is wrong.
        decided = np.where(np.isfinite(p).all(axis=1), decided, -1)
        return truth, decided, p.max(axis=1), -np.log(np.clip(given, least, 1))
    truth, decided = labels.astype(np.int64), (p > 0.5).astype(np.int64)
    decided = np.where(np.isfinite(p), decided, -1)
    losses = -np.log(np.clip(np.where(truth == 1, p, 1 - p), least, 1)).mean(axis=1)
    sure = np.maximum(p, 1 - p).min(axis=1)
    if task.kind == "binary":
        return truth[:, 0], decided[:, 0], sure, losses
    return truth, decided, sure, losses


def _relative_error(outputs: Array, targets: Array) -> tuple[float, float, float]:
    """Mean squared error over variance, that of the mean, and the standard error of the first."""
    variance = float(np.mean((targets - targets.mean(axis=0)) ** 2))
    squares = np.mean((outputs - targets) ** 2, axis=1)
    scale = variance or 1.0
    doubt = float(squares.std()) / scale / math.sqrt(len(squares))
    return float(squares.mean()) / scale, 1.0, doubt


def _by_sample(values: Array, count: int) -> Array:
    """`(samples,)` where there is one value a sample, else `(samples, values)`."""
    values = values.reshape(count, -1)
    return values[:, 0] if values.shape[1] == 1 else values


def _first(x: Any) -> Any:
    return keras.tree.map_structure(lambda a: a[:1], x)


def _unusual(
    x: Array, judged: Judged | None, chosen: Array, names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """The features in which each sample is least like the class that it was taken for.

    Without classes it is compared with all samples.
    """
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        return ()
    if names and len(names) != x.shape[1]:
        raise ValueError(f"There must be one name for each of {x.shape[1]} features. Got {len(names)}.")
    found = []
    for row in chosen:
        like = x
        if judged is not None and np.ndim(judged.prediction[row]) == 0:
            members = x[judged.truth == judged.prediction[row]]
            like = members if len(members) > 1 else x
        spread = like.std(axis=0)
        spread = np.where(spread > 0, spread, np.inf)  # What never varies is no measure.
        far = np.nan_to_num((x[row] - like.mean(axis=0)) / spread)
        order = np.argsort(-np.abs(far))[:_UNUSUAL]
        found.append(tuple(f"{names[i] if names else f'x{i}'} {far[i]:+.1f}" for i in order))
    return tuple(found)


def _drawable(x: Array) -> bool:
    return x.dtype.kind in "biuf" and (x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3, 4)))


def _grid_figure(mistakes: Mistakes) -> Figure:
    """Each cell has a picture, the truth above it and the prediction below, all placed in inches."""
    below = "the truth above, the prediction below" + (
        " with its confidence" if mistakes.task.is_classification else ""
    )
    columns = min(_MAX_COLUMNS, max(2, math.ceil(math.sqrt(len(mistakes)))))
    rows = math.ceil(len(mistakes) / columns)
    side, gap, caption, heading, edge = 1.4, 0.2, 0.25, 0.62, 0.2
    width = max(2 * edge + columns * (side + gap) - gap, 0.1 * len(mistakes.heading) + 2 * edge)
    height = heading + rows * (side + 2 * caption + gap) + 0.02
    whole = Figure(figsize=(width, height), dpi=150, facecolor="white")
    _title(whole, mistakes.heading)
    _title(whole, below, top=0.34, fontsize=9, fontweight="normal", color=_SOFT)
    pictures = _pictures(mistakes.inputs)
    for i in range(len(mistakes)):
        row, column = divmod(i, columns)
        left = edge + column * (side + gap)
        bottom = height - heading - row * (side + 2 * caption + gap) - caption - side
        axes = whole.add_axes((left / width, bottom / height, side / width, side / height))
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        _draw_sample(axes, pictures[i])
        _caption(axes, mistakes, i)
    return whole


def _pictures(x: Array) -> Array:
    """Images on a common scale from 0 to 1; sequences as they are."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 3 and x.shape[-1] <= _SEQUENCE_CHANNELS:
        return x
    finite = x[np.isfinite(x)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return np.asarray(np.nan_to_num((x - low) / ((high - low) or 1.0)))


def _draw_sample(axes: Axes, picture: Array) -> None:
    if picture.ndim == 2 and picture.shape[-1] <= _SEQUENCE_CHANNELS:
        axes.plot(picture, linewidth=1.2)
        axes.axhline(0, color=_GRID, linewidth=0.8, zorder=0)
        return
    if picture.ndim == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _caption(axes: Axes, mistakes: Mistakes, i: int) -> None:
    truth, predicted = (mistakes._word(part[i]) for part in (mistakes.truth, mistakes.prediction))
    classifies = mistakes.task.is_classification
    sure = f" {mistakes.confidence[i]:.0%}" if classifies else ""
    wrong = classifies and not np.array_equal(mistakes.truth[i], mistakes.prediction[i])
    place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 9, "parse_math": False}
    axes.text(0, 1.04, _cut(truth, 12), color=_INK, ha="left", va="bottom", **place)
    axes.text(1, 1.04, f"row {mistakes.indices[i]}", color=_PALE, ha="right", va="bottom", **place)
    axes.text(
        0,
        -0.04,
        f"\N{RIGHTWARDS ARROW} {_cut(predicted, 14)}{sure}",
        color=_WRONG if wrong else _SOFT,
        ha="left",
        va="top",
        **place,
    )


def _table_figure(mistakes: Mistakes) -> Figure:
    rows = mistakes.table()
    widths = [0.074 * max(len(row[c]) for row in rows) + 0.28 for c in range(len(rows[0]))]
    width, line = sum(widths) + 0.3, 0.27
    height = 0.62 + line * len(rows)
    title = mistakes.heading
    whole = Figure(figsize=(max(width, 0.105 * len(title) + 0.4), height), dpi=150, facecolor="white")
    width = float(whole.get_figwidth())
    _title(whole, title)
    axes = whole.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    numeric = {"row", "confidence", "loss"}
    for at, row in enumerate(rows):
        y = height - 0.62 - line * at
        left = 0.2
        for c, (word, column) in enumerate(zip(row, widths, strict=True)):
            right = rows[0][c] in numeric
            axes.text(
                left + (column - 0.28 if right else 0),
                y,
                word,
                ha="right" if right else "left",
                va="center",
                fontsize=9,
                color=_SOFT if at == 0 else _INK,
                parse_math=False,
            )
            left += column
        axes.plot([0.2, width - 0.2], [y - line / 2] * 2, color=_GRID, linewidth=1.2 if at == 0 else 0.6)
    return whole


def _title(whole: Figure, text: str, top: float = 0.12, **font: Any) -> None:
    width, height = whole.get_size_inches()
    font = {"fontsize": 11, "fontweight": "bold", "color": _INK, **font}
    whole.text(0.2 / width, 1 - top / height, text, va="top", parse_math=False, **font)


def _cut(word: str, most: int) -> str:
    return word if len(word) <= most else word[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _shortened(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")
