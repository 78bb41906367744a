"""How each stage of `simplify` is trained, from which start, and for how long."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.after_training.judging import Judged, judge_outputs, outputs_of
from keras_practice.checks.after_training.stages import Stage
from keras_practice.checks.inspection.samples import Samples
from keras_practice.checks.trials.train_loop import TensorSamples, TrainLoop, copied_optimizer
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Scaling, Task
from keras_practice.recipes import compile_for, mlp

SOUND_RATE = 1e-3
_FEW = 20
_MAX_FEATURES = 4_096  # More inputs of the small net would take time and tell nothing new.
_UNITS = (64, 32)
_BY_HEART = {"regression": 0.95}  # R squared; elsewhere every sample must be right.
# Of what chance gets wrong, this share must be learned to say that there is something to learn.
_SIGNAL = 0.1
# A model that learns half of what the small net learns in as many steps is on its way.
_ON_ITS_WAY = 0.5
_STARTS = 3  # A sound net may fail from one start or two; a broken one fails from all.
_CHUNK = 25  # Steps between looks at the score.


class Climb:
    """All stages on one data set."""

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
        self._rest = 7  # Stages that share the time that is left.
        self._own = (train, val)
        self._plain = (_plain(train, train), _plain(val, train))
        self._tiny = {"few": _few(train.y, task, _FEW, seed)}
        if task.kind == "multiclass" and task.num_classes > 2:
            self._tiny["two"] = _few(train.y, task, _FEW, seed, classes=2)

    def stages(self) -> list[Stage]:
        """Climbs as far as it makes sense."""
        width = self._plain[0].x.shape[1]
        net = compile_for(mlp((width,), self._task, _UNITS, dropout=0.0, batch_norm=False), self._task)
        sound = _Learner(net, _sound_optimizer(), self._plain[0])
        stages = []
        for key in (name for name in ("two", "few") if name in self._tiny):
            stages.append(self._by_heart(key, "small net", sound, self._plain[0]))
            if stages[-1].learned is False:
                return stages  # Whatever comes after has no chance.
        stages.append(self._whole("all", "small net", sound, self._plain, None))
        target = stages[-1]
        steady = _Learner(self._model, _sound_optimizer(), self._own[0])
        own = _Learner(self._model, copied_optimizer(self._model), self._own[0])
        for key in (name for name in ("two", "few") if name in self._tiny):
            stages.append(self._by_heart(f"model_{key}", "your model", steady, self._own[0]))
        stages.append(self._by_heart("own_few", "your model", own, self._own[0]))
        if stages[-1].learned is False and stages[-2].learned is False:
            return stages
        stages.append(self._whole("own_all", "your model", own, self._own, target))
        if stages[-1].learned is False and target.learned:
            stages.insert(-1, self._whole("model_all", "your model", steady, self._own, target))
        return stages

    def _by_heart(self, key: str, net: str, learner: _Learner, samples: Samples) -> Stage:
        which = key.rpartition("_")[2]
        few = self._tiny[which]
        part = samples.take(few)
        enough = _BY_HEART.get(self._task.kind, 1.0)
        result, starts = self._from_several_starts(learner, few, part, enough)
        learned = True if result.score >= enough else None if result.cut_short else False
        classes = " of 2 classes" if which == "two" else " of all classes" * ("two" in self._tiny)
        return self._stage(key, net, f"{len(part)} samples{classes}", learner, result, starts, learned)

    def _whole(
        self, key: str, net: str, learner: _Learner, samples: tuple[Samples, Samples], target: Stage | None
    ) -> Stage:
        train, val = samples
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
        return self._stage(key, net, f"all {len(train):,} samples", learner, result, 1, learned)

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

    def _stage(
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
        """Seconds for the next stage: its part of what is left, and a half more, since most need less."""
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

    def __init__(self, model: keras.Model, optimizer: tuple[Any, Any], samples: Samples) -> None:
        self.model = model
        chosen, self._rate = optimizer
        self._name = type(chosen).__name__
        # One trace for few samples and for all.
        self._loop = TrainLoop(TensorSamples(model, samples), chosen, self._rate, gradient_ends=False)
        self._infer = tf.function(model, reduce_retracing=True)

    @property
    def optimizer_words(self) -> str:
        """Name and learning rate."""
        rate = self._rate
        return f"{self._name} {rate:.3g}" if isinstance(rate, float) else f"{self._name} with a schedule"

    def lent(self, samples: Samples, fresh: bool) -> _Lent:
        """Lends the model, with other initial weights where `fresh`."""
        return _Lent(self.model, samples, fresh)

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

    def __init__(self, model: keras.Model, samples: Samples, fresh: bool) -> None:
        self._model, self._fresh = model, fresh
        self._loan = preserved(model, samples.take(slice(0, 1)).x)

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
    return keras.optimizers.Adam(SOUND_RATE, clipnorm=1.0), SOUND_RATE


def _plain(samples: Samples, train: Samples) -> Samples:
    """All inputs side by side, `(samples, features)`, standardised by the training samples."""
    flat, known = (
        np.concatenate([np.reshape(a, (len(a), -1)) for a in keras.tree.flatten(part.x)], axis=1)
        for part in (samples, train)
    )
    if flat.shape[1] > _MAX_FEATURES:
        some = np.linspace(0, flat.shape[1] - 1, _MAX_FEATURES).astype(int)
        flat, known = flat[:, some], known[:, some]
    x = Scaling.fit(known, "standard").apply(flat)
    return Samples(x, samples.y, None, samples.total, samples.complete)


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
