"""Schedules: learning rates that change with the number of training steps.

Each function returns a `keras.optimizers.schedules.LearningRateSchedule` for the
`learning_rate` of any optimiser. They are made of Keras's own classes wherever
those have the formula, so that a model compiled with one loads in a program that
has Keras alone. Only `join`, and `warmup` of anything but a number or a cosine,
need this package imported when the model is loaded; without it,
`keras.models.load_model(path, compile=False)` gives the model and its weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeGuard

import keras
import numpy as np

from keras_practice.core.arguments import check_positive, check_positive_integer, check_share

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule
Rule = Literal["linear", "sqrt", "inverse"]


def linear_then_hold(start: float, end: float, steps: int) -> Schedule:
    """A learning rate that moves in a straight line from `start` to `end`, then stays there.

    At step k: `(1 - a) * start + a * end`, where `a = min(k / steps, 1)`.

    Args:
        start: Learning rate at step 0, `>= 0`.
        end: Learning rate from step `steps` on, `>= 0`. About 1 % of `start` is
            usual for annealing.
        steps: Training steps (batches, not epochs) until `end`, the lecture's tau.

    Raises:
        ValueError: If a rate is negative, or `steps` is not a positive integer.

    Example:
        >>> from keras_practice import recipes
        >>> schedule = recipes.linear_then_hold(0.1, 0.001, steps=100)
        >>> [round(float(schedule(k)), 4) for k in (0, 50, 100, 1000)]
        [0.1, 0.0505, 0.001, 0.001]

    Source:
        A22; Goodfellow, Bengio and Courville 2016, section 8.3.1.
    """
    _check_rate("start", start)
    _check_rate("end", end)
    steps = check_positive_integer("steps", steps)
    return keras.optimizers.schedules.PolynomialDecay(float(start), int(steps), float(end), power=1.0)


def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """A learning rate that falls along half a cosine wave, slowly at first and at last, then stays.

    At step k: `end + (start - end) * (1 + cos(pi * min(k / steps, 1))) / 2`.

    Args:
        start: Learning rate at step 0, `> 0`.
        steps: Training steps (batches, not epochs) until `end`.
        end: Learning rate from step `steps` on, in `[0, start]`. Defaults to `0.0`.

    Raises:
        ValueError: If `start` or `steps` is not positive, or `end` is outside `[0, start]`.

    Source:
        Loshchilov and Hutter 2017, "SGDR", without restarts.
    """
    check_positive("start", start)
    steps = check_positive_integer("steps", steps)
    _check_rate("end", end)
    if end > start:
        raise ValueError(f"end must be at most start, {start}; a cosine falls. Got {end}.")
    return keras.optimizers.schedules.CosineDecay(float(start), int(steps), alpha=float(end) / float(start))


def one_cycle(
    peak: float,
    steps: int,
    warmup_share: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> Schedule:
    """One cycle: up to a high learning rate in a straight line, then far down along a cosine.

    With `w = round(warmup_share * steps)`, at step k: up to w, the straight line
    from `peak / start_divisor` to `peak`; from w to `steps`, half a cosine wave
    from `peak` to `peak / end_divisor`, which then stays.

    Smith's own cycle comes down in a straight line too and drops at the very
    end; one cosine does both, as later practice has it. His cycle of the
    momentum is left out.

    Args:
        peak: Highest learning rate, `> 0`: the largest that does not diverge in a
            range test, or somewhat less.
        steps: Training steps (batches) of the whole run, at least 2.
        warmup_share: Share of the steps that go up, in `(0, 1)`. Defaults to `0.3`.
        start_divisor: `peak` over the first rate, at least 1. Defaults to `25.0`.
        end_divisor: `peak` over the last rate, at least 1. Defaults to `1e4`.

    Raises:
        ValueError: If an argument is outside its range, or either part would have no step.

    Source:
        Smith 2018, "A disciplined approach to neural network hyper-parameters";
        Smith and Topin 2018, "Super-convergence".
    """
    check_positive("peak", peak)
    steps = check_positive_integer("steps", steps)
    check_share("warmup_share", warmup_share)
    for name, divisor in (("start_divisor", start_divisor), ("end_divisor", end_divisor)):
        check_positive(name, divisor)
        if divisor < 1:
            raise ValueError(f"{name} must be at least 1. Got {divisor}.")
    up = round(warmup_share * steps)
    if not 0 < up < steps:
        raise ValueError(
            "warmup_share must leave at least one of the steps on each side of the peak. "
            f"Got {warmup_share} of {steps}."
        )
    return keras.optimizers.schedules.CosineDecay(
        peak / start_divisor,
        int(steps - up),
        alpha=1 / end_divisor,
        warmup_target=float(peak),
        warmup_steps=int(up),
    )


def warmup(schedule: float | Schedule, steps: int, start: float = 0.0) -> Schedule:
    """A learning rate that climbs in a straight line to where a schedule begins, then follows it.

    At step k: up to `steps`, the line from `start` to `schedule(0)`; from there on,
    `schedule(k - steps)`, so that the schedule begins when the climb is over.

    Args:
        schedule: What follows the climb: a schedule, or a positive number, which
            is held. Its own steps are counted from the end of the climb.
        steps: Training steps (batches) of the climb.
        start: Learning rate at step 0, `>= 0`. Defaults to `0.0`, so that the
            first step changes nothing.

    Raises:
        ValueError: If `schedule` is neither, `steps` is not a positive integer or
            `start` is negative.

    Example:
        >>> from keras_practice import recipes
        >>> schedule = recipes.warmup(recipes.cosine(0.1, steps=900), steps=100)
        >>> [round(float(schedule(k)), 4) for k in (0, 50, 100, 550, 1000)]
        [0.0, 0.05, 0.1, 0.05, 0.0]

    Source:
        Goyal et al. 2017, section 2.2 (gradual warm-up).
    """
    _check_schedule("schedule", schedule)
    steps = check_positive_integer("steps", steps)
    _check_rate("start", start)
    if not _is_schedule(schedule):
        return linear_then_hold(start, schedule, steps)
    if isinstance(schedule, keras.optimizers.schedules.CosineDecay) and schedule.warmup_target is None:
        # The same as the general case below, and loads without this package.
        return keras.optimizers.schedules.CosineDecay(
            float(start),
            schedule.decay_steps,
            alpha=schedule.alpha,
            warmup_target=schedule.initial_learning_rate,
            warmup_steps=int(steps),
        )
    return join([linear_then_hold(start, float(schedule(0)), steps), schedule], [steps])


def join(schedules: Sequence[float | Schedule], boundaries: Sequence[int]) -> Schedule:
    """Several schedules one after another, each with a step count of its own.

    At step k, where `boundaries[i - 1] <= k < boundaries[i]`:
    `schedules[i](k - boundaries[i - 1])`.

    Args:
        schedules: Schedules, or positive numbers, which are held.
        boundaries: Training steps at which the next one begins, rising: one
            fewer than `schedules`.

    Raises:
        ValueError: If the numbers of schedules and boundaries do not fit, or the
            boundaries are not rising positive integers.
    """
    if _is_schedule(schedules) or not isinstance(schedules, Sequence) or len(schedules) < 1:
        raise ValueError(f"schedules must be a sequence of at least one schedule. Got {schedules!r}.")
    for schedule in schedules:
        _check_schedule("Each of schedules", schedule)
    if not isinstance(boundaries, Sequence) or len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"boundaries must be a sequence of one step fewer than the {len(schedules)} schedules. "
            f"Got {boundaries!r}."
        )
    for boundary in boundaries:
        check_positive_integer("Each of boundaries", boundary)
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise ValueError(f"boundaries must rise. Got {list(boundaries)}.")
    return JoinedSchedule(
        [schedule if _is_schedule(schedule) else float(schedule) for schedule in schedules],
        [int(boundary) for boundary in boundaries],
    )


@keras.saving.register_keras_serializable(package="keras_practice")
class JoinedSchedule(Schedule):
    """What `join` returns: Keras has no schedule made of others.

    Args:
        schedules: Schedules or numbers.
        boundaries: Steps at which the next one begins.
    """

    def __init__(self, schedules: Sequence[float | Schedule], boundaries: Sequence[int]) -> None:
        super().__init__()
        self.schedules = list(schedules)
        self.boundaries = list(boundaries)

    def __call__(self, step: Any) -> Any:
        """The learning rate at `step`, an integer or a scalar tensor of integers."""
        step = keras.ops.convert_to_tensor(step)
        rate = _rate_at(self.schedules[0], step)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            # Every schedule is evaluated at every step; some have no value before their step 0.
            own_step = keras.ops.maximum(step - boundary, 0)
            rate = keras.ops.where(step < boundary, rate, _rate_at(schedule, own_step))
        return rate

    def get_config(self) -> dict[str, Any]:
        """Schedules in serialised form, and boundaries."""
        return {
            "schedules": [keras.saving.serialize_keras_object(schedule) for schedule in self.schedules],
            "boundaries": self.boundaries,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> JoinedSchedule:
        """The schedule that `get_config` describes."""
        schedules = [keras.saving.deserialize_keras_object(schedule) for schedule in config["schedules"]]
        return cls(schedules, config["boundaries"])


def scale_learning_rate(learning_rate: float, batch_from: int, batch_to: int, rule: Rule = "linear") -> float:
    """The learning rate for another batch size.

    With `X = batch_to / batch_from`: `"linear"` multiplies by X, `"sqrt"` by the
    square root of X, `"inverse"` divides by X.

    The lecture divides, by X or its root. Practice since Goyal et al. multiplies:
    a gradient over X times as many samples is as good as X steps, and less noisy.
    Linear scaling suits SGD, together with a warm-up, until X is large; the square
    root suits Adam and its relatives.

    Args:
        learning_rate: Learning rate that suits `batch_from`, `> 0`.
        batch_from: Samples a batch so far.
        batch_to: Samples a batch from now on.
        rule: `"linear"`, `"sqrt"` or `"inverse"`, the lecture's. Defaults to `"linear"`.

    Raises:
        ValueError: If a number is not positive or the rule is unknown.

    Example:
        >>> from keras_practice import recipes
        >>> recipes.scale_learning_rate(0.1, batch_from=256, batch_to=1024)
        0.4

    Source:
        A27; Goyal et al. 2017 (linear), Krizhevsky 2014 and Malladi et al. 2022
        (square root).
    """
    check_positive("learning_rate", learning_rate)
    batch_from = check_positive_integer("batch_from", batch_from)
    batch_to = check_positive_integer("batch_to", batch_to)
    ratio = batch_to / batch_from
    factors = {"linear": ratio, "sqrt": float(np.sqrt(ratio)), "inverse": 1 / ratio}
    if rule not in factors:
        raise ValueError(f"rule must be one of {', '.join(factors)}. Got {rule!r}.")
    return float(learning_rate * factors[rule])


def _rate_at(schedule: float | Schedule, step: Any) -> Any:
    return schedule(step) if _is_schedule(schedule) else keras.ops.convert_to_tensor(schedule)


def _is_schedule(value: Any) -> TypeGuard[Schedule]:
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def _check_rate(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
        raise ValueError(f"{name} must be zero or a positive number. Got {value!r}.")


def _check_schedule(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a schedule or a positive number."""
    if not _is_schedule(value):
        if not isinstance(value, (int, float, np.number)):
            raise ValueError(f"{name} must be a Keras schedule or a positive number. Got {value!r}.")
        check_positive(name, value)
