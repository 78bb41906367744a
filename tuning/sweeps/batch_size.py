"""The batch size, judged by how soon a score is reached, and how large it can be."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.callbacks.direction import direction as direction_of
from keras_practice.checks.inspection.samples import Samples
from keras_practice.core.arguments import check_positive, check_positive_integer
from keras_practice.core.steps import innermost
from keras_practice.core.variables import all_variables, snapshot
from keras_practice.recipes import scale_learning_rate
from keras_practice.tuning.sweeps.batch_size_results import BatchSizeCurve, BatchSizeResult
from keras_practice.tuning.sweeps.rates import batches_of, built, samples_in, tensors_of

Rule = Literal["linear", "sqrt"]

_USUAL = (10, 500)  # The lecture's range.
_VALIDATED_AT_ONCE = 256
# Of the way from the untrained score to the best of all sizes, the target is this far.
_FAR = 0.95
_NO_END = 1_000_000  # epochs
_OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


def batch_size_sweep(
    build: Callable[[], keras.Model],
    train: Any,
    val: Any,
    sizes: Sequence[int] | None = None,
    *,
    rule: Rule | None = "sqrt",
    base: int = 32,
    epochs: int = 10,
    seconds: float | None = None,
    score: str | None = None,
    target: float | None = None,
    probe: bool = True,
    seed: int = 0,
) -> BatchSizeResult:
    """Trains a model with several batch sizes, and says which reaches a score first.

    Epochs are no fair measure, since a small batch makes more steps in each: what counts
    is the score over seconds of training. All sizes start from the same weights and see the
    samples in the same order; the learning rate follows the batch size by a rule. Tracing
    and validation do not count.

    Doubling goes on beyond the sizes, one step each, until a batch does not fit in memory
    or holds all the data. On a GPU that is an error that can be caught. On a CPU the
    operating system may end the program instead: where a batch of all the data might not
    fit, leave that out by `probe=False`.

    Sets the global random seed.

    Args:
        build: Makes a compiled model; called once for each size.
        train: A `data.Split`, or a pair `(x, y)` of arrays.
        val: Validation data in one of these forms.
        sizes: Samples a batch. Defaults to `None`, the powers of two in the usual range
            of 10 to 500: 16, 32, 64, 128 and 256, as far as there are samples.
        rule: How the learning rate follows the size, as in `recipes.scale_learning_rate`:
            `"linear"` suits SGD, `"sqrt"` Adam, and `None` leaves it. Defaults to `"sqrt"`.
        base: The size that the compiled learning rate suits. Defaults to `32`.
        epochs: Passes over the training data. Defaults to `10`.
        seconds: Time of each training, in whole epochs, in place of `epochs`. Defaults to
            `None`.
        score: Name in the logs. Defaults to `None`: `"val_accuracy"` if the model is
            compiled with accuracy, else `"val_loss"`.
        target: The score that the sizes race to. Defaults to `None`: 95 % of the way from
            the untrained model's to the best of all sizes.
        probe: Whether to look for the largest size that fits beyond `sizes`. Defaults to `True`.
        seed: Fixes initial weights and orders. Defaults to `0`.

    Returns:
        The trainings; `print` it, read its `.sweet_spot` and `.largest`, draw its `.figure()`.

    Raises:
        ValueError: If an argument is not positive, a size is above the number of samples, the
            score is not in the logs, or the learning rate to be scaled is a schedule.
        MemoryError: If not even the smallest size fits.

    Example:
        >>> result = tuning.batch_size_sweep(build, digits.train, digits.val)  # doctest: +SKIP
        >>> result.sweet_spot  # doctest: +SKIP
        64

    Source:
        A26, A27; Goyal et al. 2017, Krizhevsky 2014 (the rules).
    """
    base = check_positive_integer("base", base)
    epochs = check_positive_integer("epochs", epochs)
    if seconds is not None:
        check_positive("seconds", seconds)
    if rule not in ("linear", "sqrt", None):
        raise ValueError(f"rule must be 'linear', 'sqrt' or None. Got {rule!r}.")
    rows, held = samples_in("train", train), samples_in("val", val)
    chosen = _check_sizes(sizes, len(rows))
    study = _Study(build, rows, held, rule, base, epochs, seconds, score, seed)
    too_large = None
    for size in chosen:
        if not study.train(size):
            too_large = size
            break
    if not study.curves:
        raise MemoryError(f"Not even a batch of {chosen[0]} fits in memory.")
    largest = study.curves[-1].size
    while probe and too_large is None and largest < len(rows):
        size = min(2 * largest, len(rows))
        if study.fits(size):
            largest = size
        else:
            too_large = size
    better = direction_of(study.score, study.model)
    if target is None:
        target = _default_target(study.curves, 1 if better == "max" else -1)
    return BatchSizeResult(tuple(study.curves), study.score, better, float(target), largest, too_large)


class _Study:
    """Trainings of fresh models on the same data."""

    def __init__(
        self,
        build: Callable[[], keras.Model],
        rows: Samples,
        held: Samples,
        rule: Rule | None,
        base: int,
        epochs: int,
        seconds: float | None,
        score: str | None,
        seed: int,
    ) -> None:
        self._build, self._rows, self._rule, self._base = build, rows, rule, base
        self._epochs, self._seconds, self._seed = epochs, seconds, seed
        self._samples = tensors_of(rows)
        self._val = batches_of(tensors_of(held), tf.range(len(held)), _VALIDATED_AT_ONCE)
        self._score = score
        self.model: keras.Model | None = None
        self.curves: list[BatchSizeCurve] = []

    @property
    def score(self) -> str:
        """Name of the score; known once a model was evaluated."""
        assert self._score is not None
        return self._score

    def train(self, size: int) -> bool:
        """Trains a fresh model; whether the batches fit in memory."""
        keras.utils.set_random_seed(self._seed)
        self.model = model = built(self._build, self._rows)
        rate = self._scale(model, size)
        start = snapshot(all_variables(model))
        if not self.fits(size):  # Which traces too.
            return False
        start.restore()
        untrained = self._named(model.evaluate(self._val, return_dict=True, verbose=0))
        order = tf.Variable(tf.range(len(self._rows), dtype=tf.int64), trainable=False)
        clock = _Clock(order, self._seed, self.score, untrained, self._seconds)
        try:
            model.fit(
                batches_of(self._samples, order, size),
                validation_data=self._val,
                epochs=self._epochs if self._seconds is None else _NO_END,
                callbacks=[clock],
                shuffle=False,  # The order is set.
                verbose=0,
            )
        except _OUT_OF_MEMORY:
            return self._failed()
        self.curves.append(BatchSizeCurve(size, rate, np.array(clock.seconds), np.array(clock.scores)))
        return True

    def fits(self, size: int) -> bool:
        """Whether a step with a batch of this size goes into memory; it changes the model."""
        assert self.model is not None
        try:
            self.model.fit(
                batches_of(self._samples, tf.range(size), size),
                validation_data=self._val,
                shuffle=False,
                verbose=0,
            )
        except _OUT_OF_MEMORY:
            return self._failed()
        return True

    def _failed(self) -> bool:
        gc.collect()  # What the failed step held is free before anything else is tried.
        return False

    def _scale(self, model: keras.Model, size: int) -> float:
        optimizer = innermost(model.optimizer)
        rate = optimizer.get_config()["learning_rate"]
        if not isinstance(rate, (int, float)):
            if self._rule is None:
                return float(optimizer.learning_rate)
            raise ValueError(
                "The learning rate must be a number for a rule to scale it; pass rule=None. Got a schedule."
            )
        if self._rule is not None:
            rate = scale_learning_rate(float(rate), self._base, size, self._rule)
            optimizer.learning_rate = rate
        return float(rate)

    def _named(self, logs: dict[str, float]) -> float:
        """The score in the logs of an evaluation; chooses which one it is, where that is open."""
        if self._score is None:
            self._score = "val_accuracy" if "accuracy" in logs else "val_loss"
        name = self._score.removeprefix("val_")
        if name not in logs:
            known = ", ".join(f"val_{key}" for key in logs)
            raise ValueError(f"score must be one of {known}. Got {self._score!r}.")
        return float(logs[name])


class _Clock(keras.callbacks.Callback):
    """Draws the order of each epoch, and takes the time of its training alone."""

    def __init__(
        self, order: tf.Variable, seed: int, score: str, untrained: float, most: float | None
    ) -> None:
        super().__init__()
        self._order, self._rng, self._score, self._most = order, np.random.default_rng(seed), score, most
        self._since, self._spent = 0.0, 0.0
        self.seconds, self.scores = [0.0], [untrained]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._order.assign(self._rng.permutation(int(self._order.shape[0])))
        self._since = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._spent += time.perf_counter() - self._since

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(self._spent)
        self.scores.append(float((logs or {})[self._score]))
        if self._most is not None and self._spent >= self._most:
            self.model.stop_training = True


def _check_sizes(sizes: Sequence[int] | None, most: int) -> list[int]:
    if sizes is None:
        powers = [2**power for power in range(4, 9)]
        return [size for size in powers if _USUAL[0] <= size <= min(_USUAL[1], most)] or [most]
    if not isinstance(sizes, Sequence) or not len(sizes):
        raise ValueError(f"sizes must be a sequence of at least one batch size. Got {sizes!r}.")
    for size in sizes:
        check_positive_integer("Each of sizes", size)
        if size > most:
            raise ValueError(f"Each of sizes must be at most the {most} training samples. Got {size}.")
    return sorted({int(size) for size in sizes})


def _default_target(curves: Sequence[BatchSizeCurve], sign: int) -> float:
    scores = [sign * curve.scores[np.isfinite(curve.scores)] for curve in curves]
    best = max((float(part.max()) for part in scores if len(part)), default=math.nan)
    start = sign * float(curves[0].scores[0])
    return sign * (start + _FAR * (best - start))
