"""The samples on which a model is most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_practice.checks.after_training.judging import Judged, judge
from keras_practice.checks.after_training.mistakes_figure import Caption, drawable, grid_figure, table_figure
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.data import Task
from keras_practice.rendering.tables import aligned

_UNUSUAL = 3  # Features named for each sample: more would not be read.


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
        if self.unusual or not drawable(self.inputs):
            return table_figure(self.heading, self.table())
        captions = [self._caption(i) for i in range(len(self))]
        return grid_figure(self.heading, self.inputs, captions)

    def __str__(self) -> str:
        return "\n".join([self.heading, *aligned(self.table())])

    @property
    def _excludes(self) -> bool:
        return self.task.kind in ("binary", "multiclass")

    def _caption(self, i: int) -> Caption:
        classifies = self.task.is_classification
        return Caption(
            self._word(self.truth[i]),
            int(self.indices[i]),
            self._word(self.prediction[i]),
            f"{self.confidence[i]:.0%}" if classifies else "",
            classifies and not np.array_equal(self.truth[i], self.prediction[i]),
        )

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
    k = check_positive_integer("k", k)
    judged = judge(model, split, task)
    x = keras.tree.flatten(judged.samples.x)
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
        len(judged.samples),
        int(judged.wrong.sum()),
        _unusual(x[0], judged if excludes else None, chosen, feature_names),
    )


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


def _shortened(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")
