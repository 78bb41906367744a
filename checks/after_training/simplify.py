"""It does not learn: from the simplest case that must work to the user's own, one step at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.after_training.mistakes import (
    Judged,
    judge_outputs,
    outputs_of,
    samples_and_task,
    task_for,
)
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.trials.train_loop import TensorSamples, TrainLoop, copied_optimizer
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Dataset, Scaling, Task
from keras_practice.recipes import compile_for, mlp
from keras_practice.rendering.tables import aligned

Fault = Literal["none", "data", "labels", "model", "optimizer", "training", "unknown"]

_FEW = 20
_MAX_SAMPLES = 4_096
_MAX_FEATURES = 4_096  # More inputs of the small net would take time and tell nothing new.
_UNITS = (64, 32)
_SOUND_RATE = 1e-3
_BY_HEART = {"regression": 0.95}  # R squared; elsewhere every sample must be right.
# Of what chance gets wrong, this share must be learned to say that there is something to learn.
_SIGNAL = 0.1
# A model that learns half of what the small net learns in as many steps is on its way.
_ON_ITS_WAY = 0.5
_STARTS = 3  # A sound net may fail from one start or two; a broken one fails from all.
_CHUNK = 25  # Steps between looks at the score.


@dataclass(frozen=True)
class Stage:
    """One try: a net, an optimiser and some data.

    Attributes:
        key: Which one it is, such as `"few"`.
        net: `"small net"` or `"your model"`.
        data: What it was trained on, in words.
        optimizer: What it was trained by, in words.
        measure: `"accuracy"`, or `"r2"` for regression.
        reached: Accuracy or R squared: of the few samples, or of validation data; NaN
            where the loss was not finite.
        chance: The same of the best constant answer.
        steps: Updates of the weights, in the last start.
        starts: From how many initial weights it was tried.
        first_loss, last_loss: Training loss at both ends of the last start.
        learned: Whether it learned; `None` where the time was over before.
    """

    key: str
    net: str
    data: str
    optimizer: str
    measure: str
    reached: float
    chance: float
    steps: int
    starts: int
    first_loss: float
    last_loss: float
    learned: bool | None

    @property
    def words(self) -> str:
        """Net, optimiser and data in one phrase."""
        return f"{self.net} with {self.optimizer} on {self.data}"


@dataclass(frozen=True)
class SimplificationResult:
    """All tries, from the simplest to the user's own, and what they say together.

    Attributes:
        rungs: The tries, in order; those after a broken one may be missing.
        fault: Where the fault is: `"data"`, `"labels"`, `"model"`, `"optimizer"`,
            `"training"` (a large set, but not a small one), `"none"` or `"unknown"`.
        conclusion: The same in words, with what to do next.
    """

    rungs: tuple[Stage, ...]
    fault: Fault
    conclusion: str

    @property
    def ends_at(self) -> Stage | None:
        """The first rung at which nothing is learned; `None` where all learn."""
        return next((rung for rung in self.rungs if rung.learned is False), None)

    @property
    def begins_at(self) -> Stage | None:
        """The first rung at which something is learned; `None` where none learns."""
        return next((rung for rung in self.rungs if rung.learned), None)

    def __str__(self) -> str:
        rows = [["", "net", "optimizer", "data", "reached", "chance", "steps", ""]]
        for number, rung in enumerate(self.rungs, start=1):
            verdict = {True: "learns", False: "does not learn", None: "out of time"}[rung.learned]
            reached = "not finite" if math.isnan(rung.reached) else f"{rung.measure} {rung.reached:.3f}"
            row = [str(number), rung.net, rung.optimizer, rung.data, reached, f"{rung.chance:.3f}"]
            rows.append([*row, str(rung.steps), verdict])
        return "\n".join([*aligned(rows), self.conclusion])


def simplify(
    model: keras.Model,
    dataset: Any,
    *,
    task: Task | None = None,
    steps: int = 500,
    batch_size: int = 32,
    seconds: float = 20.0,
    seed: int = 0,
) -> SimplificationResult:
    """Finds the step at which learning ends, on the way from the simplest case to the user's own.

    A small sound net (two hidden layers, ReLU, He-normal weights, standardised
    inputs, Adam at 1e-3) shows what the data allow: two classes by heart, all classes by
    heart, then the whole set. Then the user's model climbs: few samples with Adam at
    1e-3, with its own optimiser, then the whole set. The model trains with its own loss
    and a fresh copy of its optimiser, from the weights that it has; where it fails, from
    two other starts as well, if Keras can clone it.

    The model is not changed: weights, statistics, optimiser and compile state are the
    same afterwards.

    Args:
        model: A compiled model with one output.
        dataset: A `data.Dataset`, a `data.Split`, a pair `(x, y)`, or batches; without a
            validation split a fifth is held out. At most 4,096 samples are used.
        task: What is predicted. Defaults to `None`: the data set's, or what labels and loss say.
        steps: Most updates of the weights on one rung. Defaults to `500`.
        batch_size: Samples a batch on the whole set; few samples are one batch. Defaults to `32`.
        seconds: Time for the steps of all rungs; those that it cuts short say so. Defaults to `20.0`.
        seed: Fixes samples and order. Defaults to `0`.

    Returns:
        The rungs and the conclusion; `print` it.

    Raises:
        ValueError: If the model is not compiled, its optimizer cannot be copied, the inputs are
            not numbers, there is not one row of labels a sample, or an argument is not positive.

    Example:
        >>> print(checks.simplify(model, digits))  # doctest: +SKIP

    Source:
        A53, A47, A54; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    if not getattr(model, "compiled", False):
        raise ValueError("The model must be compiled, since its loss is used. Got an uncompiled model.")
    for name, value in (("steps", steps), ("batch_size", batch_size), ("seconds", seconds)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value > 0:
            raise ValueError(f"{name} must be a positive number. Got {value!r}.")
    train, val, task = _samples(dataset, task, seed)
    with preserved(model, train.take(slice(0, 1)).x):
        task = task_for(model, outputs_of(model, train.take(slice(0, 2)).x), train.y, task)
        task.check(train.y)
        climb = _Climb(model, train, val, task, int(steps), int(batch_size), float(seconds), seed)
        rungs = climb.rungs()
    fault, conclusion = _conclude(rungs, train, task)
    return SimplificationResult(tuple(rungs), fault, conclusion)


class _Climb:
    """All rungs on one data set."""

    def __init__(
        self,
        model: keras.Model,
        train: Samples,
        val: Samples,
        task: Task,
        steps: int,
        batch_size: int,
        seconds: float,
        seed: int,
    ) -> None:
        self._model, self._task, self._steps, self._batch_size = model, task, steps, batch_size
        self._left = seconds  # For steps; tracing a net takes what it takes.
        self._rest = 7  # Rungs that share the time that is left.
        self._own = (train, val)
        self._plain = (_plain(train, train), _plain(val, train))
        self._tiny = {"few": _few(train.y, task, _FEW, seed)}
        if task.kind == "multiclass" and task.num_classes > 2:
            self._tiny["two"] = _few(train.y, task, _FEW, seed, classes=2)

    def rungs(self) -> list[Stage]:
        """Climbs as far as it makes sense."""
        width = self._plain[0].x.shape[1]
        net = compile_for(mlp((width,), self._task, _UNITS, dropout=0.0, batch_norm=False), self._task)
        sound = _Learner(net, _sound_optimizer(), self._plain[0])
        rungs = []
        for key in (name for name in ("two", "few") if name in self._tiny):
            rungs.append(self._by_heart(key, "small net", sound, self._plain[0]))
            if rungs[-1].learned is False:
                return rungs  # Whatever comes after has no chance.
        rungs.append(self._whole("all", "small net", sound, self._plain, None))
        target = rungs[-1]
        steady = _Learner(self._model, _sound_optimizer(), self._own[0])
        own = _Learner(self._model, copied_optimizer(self._model), self._own[0])
        for key in (name for name in ("two", "few") if name in self._tiny):
            rungs.append(self._by_heart(f"model_{key}", "your model", steady, self._own[0]))
        rungs.append(self._by_heart("own_few", "your model", own, self._own[0]))
        if rungs[-1].learned is False and rungs[-2].learned is False:
            return rungs
        rungs.append(self._whole("own_all", "your model", own, self._own, target))
        if rungs[-1].learned is False and target.learned:
            rungs.insert(-1, self._whole("model_all", "your model", steady, self._own, target))
        return rungs

    def _by_heart(self, key: str, net: str, learner: _Learner, rows: Samples) -> Stage:
        which = key.rpartition("_")[2]
        few = self._tiny[which]
        part = rows.take(few)
        enough = _BY_HEART.get(self._task.kind, 1.0)
        result, starts = self._from_several_starts(learner, few, part, enough)
        learned = True if result.score >= enough else None if result.cut_short else False
        classes = " of 2 classes" if which == "two" else " of all classes" * ("two" in self._tiny)
        return self._rung(key, net, f"{len(part)} samples{classes}", learner, result, starts, learned)

    def _whole(
        self, key: str, net: str, learner: _Learner, rows: tuple[Samples, Samples], target: Stage | None
    ) -> Stage:
        train, val = rows
        size = min(self._batch_size, len(train))
        with learner.lent(train, fresh=False):
            result = learner.learn(
                np.arange(len(train)), val, self._task, size, self._steps, self._share(), math.inf, 1
            )
            self._left -= result.seconds
        judged = result.judged
        share = 1 - judged.error / judged.chance if judged.chance else 1.0
        if target is None or not target.learned:
            needed = max(_SIGNAL, 2 * judged.doubt / (judged.chance or 1.0))
        else:
            needed = _ON_ITS_WAY * (target.reached - target.chance) / (1 - target.chance or 1.0)
        learned = True if share >= needed else None if result.cut_short else False
        return self._rung(key, net, f"all {len(train):,} samples", learner, result, 1, learned)

    def _from_several_starts(
        self, learner: _Learner, few: Array, part: Samples, enough: float
    ) -> tuple[_Result, int]:
        seconds = self._share()
        result: _Result | None = None
        for start in range(_STARTS):
            with learner.lent(part, fresh=start > 0) as lent:
                if not lent and result is not None:
                    return result, start  # No other start can be had.
                if seconds <= 0 and result is not None:
                    return result, start
                tried = learner.learn(few, part, self._task, len(part), self._steps, seconds, enough, start)
                seconds, self._left = seconds - tried.seconds, self._left - tried.seconds
            if tried.cut_short and result is not None:
                return result, start  # A whole start says more than a part of one.
            result = tried
            if result.score >= enough or result.cut_short:
                break
        assert result is not None
        return result, start + 1

    def _rung(
        self,
        key: str,
        net: str,
        data: str,
        learner: _Learner,
        result: _Result,
        starts: int,
        learned: bool | None,
    ) -> Stage:
        measure = "accuracy" if self._task.is_classification else "r2"
        chance = 1 - result.judged.chance
        ends = (result.first_loss, result.last_loss)
        optimizer = learner.optimizer_words
        return Stage(
            key, net, data, optimizer, measure, result.score, chance, result.steps, starts, *ends, learned
        )

    def _share(self) -> float:
        """Seconds for the next rung: its part of what is left, and a half more, since most need less."""
        share = 1.5 * self._left / max(1, self._rest)
        self._rest -= 1
        return share


@dataclass(frozen=True, eq=False)
class _Result:
    score: float
    judged: Judged
    steps: int
    first_loss: float
    last_loss: float
    cut_short: bool
    seconds: float


class _Learner:
    """A model with an optimiser, which can be trained again and again from the same start."""

    def __init__(self, model: keras.Model, optimizer: tuple[Any, Any], rows: Samples) -> None:
        self.model = model
        chosen, self._rate = optimizer
        self._name = type(chosen).__name__
        # One trace for few samples and for all.
        self._loop = TrainLoop(TensorSamples(model, rows.x, rows.y), chosen, self._rate, gradient_ends=False)
        self._infer = tf.function(model, reduce_retracing=True)

    @property
    def optimizer_words(self) -> str:
        """Name and learning rate."""
        rate = self._rate
        return f"{self._name} {rate:.3g}" if isinstance(rate, float) else f"{self._name} with a schedule"

    def lent(self, rows: Samples, fresh: bool) -> _Lent:
        """Lends the model, with other initial weights where `fresh`."""
        return _Lent(self.model, rows, fresh)

    def learn(
        self,
        rows: Array,
        val: Samples,
        task: Task,
        size: int,
        steps: int,
        seconds: float,
        enough: float,
        seed: int,
    ) -> _Result:
        """Trains on some rows until the score on `val` is enough, or steps or time are over."""
        picks = _picks(len(rows), size, seed)
        losses: list[float] = []
        begin = math.inf
        while True:
            chunk = np.stack([next(picks) for _ in range(min(_CHUNK, steps - len(losses)))])
            losses += self._loop.run(rows[chunk], fresh=not losses).penalized.tolist()
            # The first steps are traced, which takes as long for a net that learns as for another.
            begin = min(begin, time.monotonic())
            broken = not np.all(np.isfinite(losses))
            over = len(losses) >= steps or time.monotonic() > begin + seconds
            if enough <= 1.0 or over or broken:
                judged = judge_outputs(self.model, outputs_of(self._infer, val.x), val, task)
                score = 1 - judged.error
                if broken:
                    score = math.nan
                if over or broken or score >= enough:
                    cut = not broken and score < enough and len(losses) < steps
                    return _Result(
                        score, judged, len(losses), losses[0], losses[-1], cut, time.monotonic() - begin
                    )


class _Lent:
    """A model whose variables are put back at the end; says whether it got the start asked for."""

    def __init__(self, model: keras.Model, rows: Samples, fresh: bool) -> None:
        self._model, self._fresh = model, fresh
        self._loan = preserved(model, rows.take(slice(0, 1)).x)

    def __enter__(self) -> bool:
        self._loan.__enter__()
        return not self._fresh or _restart(self._model)

    def __exit__(self, *error: Any) -> None:
        self._loan.__exit__(*error)


def _restart(model: keras.Model) -> bool:
    """Gives a model other initial weights, as its layers' initializers draw them."""
    try:
        weights = keras.models.clone_model(model).get_weights()
    except (ValueError, TypeError, NotImplementedError):  # A subclassed model that has no config.
        return False
    if [w.shape for w in weights] != [tuple(w.shape) for w in model.get_weights()]:
        return False
    model.set_weights(weights)
    return True


def _sound_optimizer() -> tuple[keras.optimizers.Optimizer, float]:
    return keras.optimizers.Adam(_SOUND_RATE, clipnorm=1.0), _SOUND_RATE


def _samples(dataset: Any, task: Task | None, seed: int) -> tuple[Samples, Samples, Task | None]:
    if isinstance(dataset, Dataset):
        train, task = samples_and_task(dataset.train, task)
        val, _ = samples_and_task(dataset.val, task)
    else:
        rows, task = samples_and_task(dataset, task)
        if len(rows) < 2:
            raise ValueError(f"There must be at least two samples. Got {len(rows)}.")
        order = np.random.default_rng(seed).permutation(len(rows))
        held = max(1, len(rows) // 5)
        val, train = rows.take(order[:held]), rows.take(order[held:])
    train, val = train.spread(_MAX_SAMPLES, seed), val.spread(_MAX_SAMPLES, seed)
    for values in keras.tree.flatten(train.x):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"Inputs must be numbers. Got dtype {values.dtype}.")
    y = keras.tree.flatten(train.y)
    if len(y) != 1 or y[0].ndim > 2:
        raise ValueError("There must be one output, with one row of labels a sample.")
    return train, val, task


def _plain(rows: Samples, train: Samples) -> Samples:
    """All inputs side by side, `(samples, features)`, standardised by the training samples."""
    flat, known = (
        np.concatenate([np.reshape(a, (len(a), -1)) for a in keras.tree.flatten(part.x)], axis=1)
        for part in (rows, train)
    )
    if flat.shape[1] > _MAX_FEATURES:
        some = np.linspace(0, flat.shape[1] - 1, _MAX_FEATURES).astype(int)
        flat, known = flat[:, some], known[:, some]
    x = Scaling.fit(known, "standard").apply(flat)
    return Samples(x, rows.y, None, rows.total, rows.complete)


def _few(y: Any, task: Task, count: int, seed: int, classes: int | None = None) -> Array:
    """Rows of a few samples, from all classes in turn, or from the most common ones."""
    order = np.random.default_rng(seed).permutation(len(y))
    if task.kind not in ("binary", "multiclass"):
        return order[:count]
    labels = task.class_indices(y)[order]
    counts = np.bincount(labels)
    kept = np.argsort(-counts, kind="stable")[:classes]
    turn = np.full(len(order), len(order))
    for c in kept:
        turn[labels == c] = np.arange(np.sum(labels == c))
    count = max(count, 2 * len(kept)) if classes is None else count
    return order[np.argsort(turn, kind="stable")][: min(count, int(np.sum(turn < len(order))))]


def _picks(count: int, size: int, seed: int) -> Iterator[Array]:
    """Rows of one batch after the other, each epoch in a new order."""
    rng = np.random.default_rng(seed)
    if size >= count:
        while True:
            yield np.arange(count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _conclude(rungs: list[Stage], train: Samples, task: Task) -> tuple[Fault, str]:
    by_key = {rung.key: rung for rung in rungs}

    def learned(*keys: str) -> bool:
        return any(by_key[key].learned is True for key in keys if key in by_key)

    def failed(*keys: str) -> bool:
        return any(by_key[key].learned is False for key in keys if key in by_key)

    if failed("two", "few"):
        return _blame_data(by_key, train)
    if learned("own_all"):
        return "none", _praise(by_key, failed("own_few", "model_few"))
    if failed("model_few", "model_two") and failed("own_few"):
        rung = by_key["model_two"] if failed("model_two") else by_key["model_few"]
        return "model", (
            f"Learning ends with your model: it does not learn {rung.data} by heart with a sound optimizer "
            f"({rung.measure} {rung.reached:.3g} after {rung.steps} steps), which a small net does. "
            "The loss, the output layer or the architecture is at fault; checks.preflight looks at these."
        )
    if failed("own_few") and learned("model_few"):
        rung = by_key["own_few"]
        return "optimizer", (
            f"Learning ends with your optimizer: your model learns {rung.data} by heart with Adam "
            f"{_SOUND_RATE:g}, and not with {rung.optimizer} in {rung.steps} steps. {_rate_words(rung)}"
        )
    if failed("all") and not learned("own_all"):
        rung = by_key["all"]
        return "labels", (
            "Learning ends where something has to carry over: a small net learns a few samples by heart, "
            f"but on all of them it does no better than chance on validation data ({rung.measure} "
            f"{rung.reached:.3g}, chance {rung.chance:.3g}). The labels may have nothing to do with the "
            "inputs: look for a shuffle of one without the other, or for inputs that lack what is asked for."
        )
    if failed("own_all"):
        rung = by_key["own_all"]
        if learned("model_all"):
            return "optimizer", (
                f"Learning ends with your optimizer on the whole set: with Adam {_SOUND_RATE:g} your model "
                f"learns it, with {rung.optimizer} it does not. {_rate_words(rung)}"
            )
        return "training", (
            f"Learning ends at the whole set: your model learns few samples by heart, but reaches "
            f"{rung.measure} {rung.reached:.3g} on validation data after {rung.steps} steps, "
            f"where a small net reaches {by_key['all'].reached:.3g}. Try less regularisation, or a "
            "model between the small net and yours."
        )
    return "unknown", "The time was over before it was clear; give more seconds, or a smaller model."


def _blame_data(by_key: dict[str, Stage], train: Samples) -> tuple[Fault, str]:
    rung = by_key["two"] if by_key.get("two") and not by_key["two"].learned else by_key["few"]
    arrays = keras.tree.flatten(train.x)
    broken = sum(int(np.sum(~np.isfinite(a))) for a in arrays if a.dtype.kind == "f")
    begin = f"Learning does not even begin: a small sound net does not learn {rung.data} by heart"
    if broken:
        return "data", f"{begin}, since {broken:,} input values are NaN or infinite. Remove or replace these."
    rows = np.concatenate([np.reshape(a, (len(a), -1)) for a in arrays], axis=1)
    distinct = len(np.unique(rows, axis=0))
    if distinct < len(rows) // 2:
        return "data", (
            f"{begin}: only {distinct:,} of {len(rows):,} inputs differ from each other. "
            "Look at how the inputs are read."
        )
    fault: Fault = "labels" if rung.key == "few" and "two" in by_key else "data"
    return fault, (
        f"{begin} ({rung.measure} {rung.reached:.3g}). Look at some samples and their labels: equal inputs "
        "with different labels, or inputs without a difference, cannot be learned."
    )


def _praise(by_key: dict[str, Stage], not_by_heart: bool) -> str:
    rung = by_key["own_all"]
    words = (
        f"Your model learns: {rung.measure} {rung.reached:.3g} on validation data after {rung.steps} steps, "
        f"where a small net has {by_key['all'].reached:.3g} and chance {rung.chance:.3g}."
    )
    if not_by_heart:
        words += (
            " It does not learn few samples by heart: strong regularisation, or a rate that is slow there."
        )
    elif any(r.starts > 1 for r in by_key.values() if r.net == "your model" and r.learned):
        words += " Some rungs needed other initial weights: its present ones may be stuck."
    return words


def _rate_words(rung: Stage) -> str:
    if not math.isfinite(rung.last_loss) or rung.last_loss > rung.first_loss:
        return (
            f"The loss went from {rung.first_loss:.3g} to {rung.last_loss:.3g}: divide the learning rate "
            "by 10, and clip the gradient."
        )
    return (
        f"The loss went from {rung.first_loss:.3g} to {rung.last_loss:.3g}: find the learning rate by a "
        "range test, and begin with ten times as much if the loss still falls."
    )
