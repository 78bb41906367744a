"""What a model does with its data: its first outputs, its gradients, and a short training.

A short training of the model with its own loss, optimiser and learning rate
comes first. A model that learns in it is cleared of most of what is looked for
here, however unusual it looks; what looks odd then is a warning at most. Only
for one that does not learn are causes looked for, from the surest evidence to
the least: what its outputs and gradients show, then whether another learning
rate, another optimiser, or a few samples alone would do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext, loss_name
from keras_practice.checks.trials.short_training import (
    Evaluation,
    LossCurve,
    ShortTraining,
    TrainLoop,
    fresh_weights,
    own_optimizer,
)
from keras_practice.core.types import Array

# A short training is as long as a few epochs of a small data set, if time allows;
# after fewer steps nothing is said of a model that has not learned yet.
_STEPS = 300
_MIN_STEPS = 100
# Tracing a training step takes about this many times as long as tracing the forward pass.
_TRACING = 4.0
# Share of the remaining time that one training may take, so that others can follow.
_SHARE_OF_TIME = 0.3
# A loss this far below that of the best constant answer needs the inputs: noise does not get there.
_LEARNED = 0.1
# Standard errors; by chance one of a million tries gets there.
_SURE = 5.0
# Fresh weights scatter the outputs: up to 1.4 times ln(C) is seen in sound nets.
_ABOVE_CHANCE = 1.5
# Targets that were not centred start at their mean's square; that is the uninformed loss itself.
_ABOVE_ZERO = 5.0
# Beyond that by this factor a start that training makes up for is still worth a warning.
_FAR_ABOVE = 2.0
_BELOW_CHANCE = 0.5
# In a net without vanishing gradients each layer bears on the loss in the same order of size; a
# sigmoid passes on a quarter at most, so that this is where six or more of them lead.
_VANISHED = 1e-4
# How far the loss (over that of a constant answer) moves for a relative change of a layer's weights:
# around 1 in sound nets, which leaves room for nets with large logits and many time steps.
_EXPLODED = 1e3
_DEAD = 0.8
# Of few units all may be dead by bad luck.
_MIN_UNITS = 8
# Outputs this close together, as a share of their size, differ by rounding alone.
_SAME = 1e-6
_LEAK = {"float16": 2e-2, "bfloat16": 1e-1}
_LEAK_FLOAT32 = 1e-3
_LOWER_RATES = (0.1, 0.01, 0.001)
_HIGHER_RATES = (10.0, 100.0, 1e3, 1e5)
# Epochs and steps that a long fit takes; what needs more is out of reach.
_LONG_FIT = (300, 20_000)
_USUAL_FIT = (10, 2_000)
_SETTLE_STEPS = 50
_OWN_STEPS = 3
_FEW, _MANY = 16, 64
# Where so few samples cannot even be told apart by a fifth of the loss, nothing is learned.
_BY_HEART = 0.2
# Half of what can be learned, or was.
_HALF = 0.5
# With so few weights a correct net can start where it cannot learn.
_TINY_NET = 1_000
_RESTARTS = 4
# What structure and data only make likely, and a training that fails makes the most likely cause.
_SUSPECTS = (
    "label-range",
    "label-encoding",
    "label-scale",
    "label-task",
    "output-units",
    "output-loss",
    "output-range",
    "double-activation",
    "disconnected",
    "frozen",
    "initial-weights",
    "no-nonlinearity",
    "batch-norm-batch",
    "dropout-rate",
    "over-regularized",
    "saturating-activation",
    "capacity",
    "input-scale",
    "target-scale",
    "ignores-input",
    "optimizer-config",
    "uninformative-input",
    "class-imbalance",
)
# Standard errors; less is what chance gives.
_NOTHING_KNOWN = 2.0
_MIN_OF_A_CLASS = 8
# Layers that leave the numbers in proportion, or come last.
_PASSES_ON = (
    keras.layers.InputLayer,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Activation,
    keras.layers.Softmax,
)
_SHOWN_BY_TRAINING = ("learning-rate-high", "learning-rate-low", "optimizer-config")
_NEIGHBOURS = 5
_MAX_NUMBERS_COMPARED = 2_000


def behaviour(context: CheckContext, deadline: float, known: Sequence[Finding] = ()) -> list[Finding]:
    """Runs the model and trains it for a moment, to see whether it learns, and if not, why.

    Where it does not learn, and neither another rate nor another optimiser would make
    it, what was suspected before is confirmed: a warning in `known` comes back as an error.

    Looks for `initial-loss`, `vanishing-gradient`, `exploding-gradient`, `dead-units`,
    `ignores-input`, `batch-leak`, `learning-rate-high`, `learning-rate-low`,
    `optimizer-config`, `tiny-overfit`, `loss-diverges`, `loss-stuck` and
    `train-eval-gap`; `raises` where the model itself raises an exception in a
    training step. A cause that was found is reported without what follows from it.

    Variables, metrics included, are put back after each part. A model that brings its own
    `train_step` is not trained here, as its training is not known.

    Args:
        context: What to look at; the model's variables must be lent before.
        deadline: When to be done, as `time.monotonic()` tells it. The later, costlier parts
            are left out once it is near.
        known: What was found without running. Defaults to none.

    Returns:
        Findings, the most severe first.

    Source:
        A3, A23, A24, A46, A47, A48, A49; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    examination = _Examination(context, deadline, known)
    found: list[Finding] = []
    try:
        with examination.trial.preserved():
            found.extend(examination.findings())
    except Exception as error:  # Whatever a user's layer, loss or optimiser raises.
        if examination.own_training:
            return gravest_first(examination.found)
        return gravest_first([*examination.found, _raised(error)])
    return gravest_first(found)


def _raised(error: Exception) -> Finding:
    about_trace = ("Graph execution error", "Detected at", "<stack", "File ", "Arguments received", "\t")
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(about_trace)]
    lines = lines or ["no message"]
    return Finding(
        "raises",
        "error",
        "model",
        f"a step raises {type(error).__name__} ({lines[0].strip()[:200]}), which should give a loss.",
        "an error in a layer's call or in the loss, or labels of a shape or range that the loss cannot take.",
        "call model.train_on_batch(x[:2], y[:2]) and follow the traceback.",
        "A53",
    )


@dataclass(frozen=True)
class _Run:
    """A short training and what the model was like at its end."""

    factor: float
    course: LossCurve
    view: Evaluation

    @property
    def end(self) -> float:
        """The lower of the losses in training mode (penalised by dropout) and in inference (by lag)."""
        return min(self.course.end, self.view.loss) if self.course.finite and self.view.finite else math.inf


@dataclass(frozen=True)
class _ByHeart:
    """Whether some samples could be learned by heart, and how near it came."""

    samples: int
    learned: bool
    best: float
    goal: float
    of_first: bool  # Whether the goal is the first loss, for want of a constant answer's.
    failed_starts: int


class _Examination:
    """One model on its data, its short trainings and what they showed."""

    def __init__(self, context: CheckContext, deadline: float, known: Sequence[Finding]) -> None:
        self.context = context
        self.known = known
        self.model = context.model
        self.deadline = deadline
        self.trial = ShortTraining(context, hold_out=True)
        self.own_training = type(self.model).train_step is not keras.Model.train_step
        self.found: list[Finding] = []
        self.step_time = 0.0

    def findings(self) -> list[Finding]:
        """Everything found, in the order in which it was looked for."""
        trial = self.trial
        classes = all("crossentropy" in loss_name(head.loss) for head in self.context.heads)
        self.classes = classes
        compares = self.model.loss is not None or not self.own_training
        if not compares or self.model.optimizer is None:
            return self.found
        self.constant = trial.constant_loss(trial.seen)
        self.uninformed = trial.constant_loss(trial.seen, uninformed=True)
        begin = time.monotonic()
        self.start = trial.evaluate()
        looking = time.monotonic() - begin
        if not self.start.finite:
            self.found += [self._overflowing_start()]
            return self.found
        self.found += self._batch_leak("at the start")
        if self.own_training and self.model.trainable_variables:
            self.found += self._own_steps()
        if self.own_training or not self.model.trainable_variables or time.monotonic() > self.deadline:
            return self.found
        optimizer = own_optimizer(self.model)
        if optimizer is None:
            return self.found
        if time.monotonic() + _TRACING * looking > self.deadline:
            self.first = self.start.loss
            self.found += self._initial_loss(None)
            return self.found
        self.learner = TrainLoop(trial, *optimizer)
        with trial.preserved():
            self.probe = self.learner.run(trial.order(4), 0.0)
        # One constant answer is what every loss is held against; the start is second best.
        batches = float(self.probe.losses.mean())
        self.first, self.highest_start = sorted((self.start.loss, batches))
        self.reference = self.first if self.constant is None else self.constant
        if not math.isfinite(self.probe.losses[0]):
            self.found += [self._overflowing_start()]
            return self.found
        self._train()
        return self.found

    def _own_steps(self) -> Iterator[Finding]:
        """Whether the model's own training step changes anything at all."""
        model, own = self.model, own_optimizer(self.model)
        if own is None or not hasattr(model, "train_step"):
            return
        weights, theirs = model.trainable_variables, model.optimizer
        before = [np.array(weight.numpy()) for weight in weights]
        rows = self.trial.order(1)[0]
        y, weight = self.trial.targets(rows)
        with self.trial.preserved():
            model.optimizer = own[0]
            try:
                for _ in range(_OWN_STEPS):
                    model.train_step(
                        (self.trial.inputs(rows), y)
                        if weight is None
                        else (self.trial.inputs(rows), y, weight)
                    )
            finally:
                model.optimizer = theirs
            same = all(np.array_equal(a, np.array(w.numpy())) for a, w in zip(before, weights, strict=True))
        if same:
            yield Finding(
                "loss-stuck",
                "error",
                "train_step",
                f"{_OWN_STEPS} calls of the model's own train_step change 0 of {len(weights)} trainable "
                "arrays; all of them are expected to change.",
                "a training step that does not apply its gradients.",
                "call self.optimizer.apply(gradients, self.trainable_variables) at its end.",
                "A42, A53",
            )

    def _train(self) -> None:
        trial = self.trial
        steps = self._affordable()
        if steps < 1:
            self.found += self._initial_loss(None)
            self.found += self._dead_units(None, "warning")
            return
        order = trial.order(steps)
        with trial.preserved():
            run = self._run(self.learner, order, 1.0)
            learned = self._learned(run)
            unheard = trial.evaluate(trial.held) if len(trial.held) and run.view.finite else None
            if run.view.finite and not any(f.check == "batch-leak" for f in self.found):
                self.found += self._batch_leak("after a short training")
            if learned and self._time_for(_SETTLE_STEPS):
                self.found += self._train_eval_gap()
            with trial.preserved():
                after = self.learner.run(trial.order(1), 0.0) if run.course.finite else None
        self.found += self._initial_loss(run)
        if steps >= _MIN_STEPS:
            self.found += self._known_by_heart_alone(unheard, run, steps)
        if learned:
            self.found += self._dead_units(run, "warning")
            if run.end > 0.5 * abs(self.reference) and steps >= _MIN_STEPS and self._time_for(steps):
                poor = list(self._hampered(order, run))
                if not poor and (poor := list(self._too_small())):
                    poor += self._confirmed(run, steps)
                self.found += poor
            self.found += self._pushed_to_death(run)
            return
        cause = [
            *self._dead_units(None, "error"),
            *self._exploding_gradient(),
        ]
        cause = cause or list(self._ignored_input(run))
        if steps >= _MIN_STEPS:
            cause = cause or list(self._vanishing_gradient(run, after))
        self.found += cause
        if all(finding.severity != "error" for finding in cause):
            self._explain(run, order)
        failed = any(f.severity == "error" and f.check != "initial-loss" for f in self.found)
        if steps >= _MIN_STEPS and (failed or self._diverged(run) or not self._moved(run)):
            self.found += self._confirmed(run, steps)
        if all(finding.severity != "error" for finding in self.found):
            self.found += self._dead_units(run, "warning")
            self.found += self._pushed_to_death(run)

    def _known_by_heart_alone(self, unheard: Evaluation | None, run: _Run, steps: int) -> Iterator[Finding]:
        """Labels that the inputs do not seem to tell, where training bears that out on other samples."""
        if unheard is None or not unheard.finite:
            return
        knows, error = unheard.knowledge
        labels = np.unique(self._first_labels(self.trial.held), return_counts=True)[1]
        rare = self.classes and labels.min() < _MIN_OF_A_CLASS  # Of these chance alone decides.
        if knows > _NOTHING_KNOWN * error or rare:
            return
        for finding in self.known:
            if finding.check == "uninformative-input" and finding.severity == "warning":
                yield replace(
                    finding,
                    severity="error",
                    evidence=f"{finding.evidence} A short training bears it out: after {steps} steps the "
                    f"loss of its own samples is {run.end:.3g}, and that of {len(self.trial.held)} others, "
                    f"{unheard.loss:.3g}, is no lower than with shuffled labels "
                    f"({float(unheard.shuffled.mean()):.3g}).",
                )

    def _pushed_to_death(self, run: _Run) -> Iterator[Finding]:
        """A high rate that has killed units which were alive at the start."""
        if not any(self._dead_units(run, "warning")) or any(self._dead_units(None, "warning")):
            return
        (name, (share, _)) = max(run.view.dead.items(), key=lambda item: item[1][0])
        for finding in self.known:
            if finding.check == "learning-rate-high" and finding.severity == "warning":
                seen = (
                    f" After a short training {share:.0%} of the units of {name} are dead; before, few were."
                )
                yield replace(finding, severity="error", evidence=finding.evidence + seen)

    def _confirmed(self, run: _Run, steps: int) -> Iterator[Finding]:
        """The suspicions that remain, where no training of another kind has shown the cause."""
        if any(f.check in _SHOWN_BY_TRAINING and f.severity == "error" for f in self.found):
            return
        end = f"is {run.end:.3g}" if math.isfinite(run.end) else "is not a finite number"
        seen = (
            f" A short training bears it out: after {steps} steps the loss {end}, "
            f"where a constant answer gives {self.reference:.3g}."
        )
        for finding in self.known:
            if finding.severity == "warning" and finding.check in _SUSPECTS:
                yield replace(finding, severity="error", evidence=finding.evidence + seen)

    def _explain(self, run: _Run, order: Array) -> None:
        """Looks for a cause in rate and optimiser, and falls back to the symptom."""
        diverged, enough = self._diverged(run), len(order) >= _MIN_STEPS
        moved = self._moved(run)
        if diverged or (enough and not moved):
            for factor in _LOWER_RATES:
                if not self._time_for(len(order)):
                    return  # A lower rate might do; nothing more is known.
                lower = self._kept_run(self.learner, order, factor)
                calm = diverged and lower.end < 0.5 * run.end and not self._diverged(lower)
                if self._learned(lower) or calm:
                    self._drop("initial-loss")
                    self.found += [self._rate_high(run, lower, len(order))]
                    return
                # No smaller step makes up for one that is too small to show anything.
                if not self._diverged(lower) and not moved and not diverged:
                    break
        if diverged:
            self.found += [self._diverges(run)]
            return
        if not enough:
            return
        found, learned = self._rate_low(order)
        self.found += found
        if learned:
            return
        self._without_rate(run, order, moved)

    def _without_rate(self, run: _Run, order: Array, moved: bool) -> None:
        if not self._time_for(len(order)):
            return
        adam = self._adam()
        for rate in (1.0, 10.0):
            other = self._kept_run(adam, order, rate)
            if self._learned(other):
                # A rate that is too low by any measure is the simpler explanation.
                if not moved and not any(f.check == "learning-rate-low" for f in self.known):
                    self.found += [self._optimizer_config(run, other, adam.rate(rate), len(order))]
                return
        if moved:
            return
        by_heart = self._by_heart(adam)
        others = [call.layer for call in self._calls if not call.layer.trainable_weights]
        line = len(self._calls) == len(others) + 1 and all(isinstance(one, _PASSES_ON) for one in others)
        if line and self._informative():
            self.found += [self._straight_line(run, len(order))]
        elif by_heart is not None:
            self.found += [by_heart]
        elif self._informative():
            self.found += list(self._too_small()) or [self._stuck(run, len(order))]

    def _drop(self, check: str) -> None:
        self.found = [finding for finding in self.found if finding.check != check]

    # The trainings.

    def _run(self, learner: TrainLoop, order: Array, factor: float) -> _Run:
        course = learner.run(order, factor)
        return _Run(factor, course, self.trial.evaluate())

    def _kept_run(self, learner: TrainLoop, order: Array, factor: float) -> _Run:
        with self.trial.preserved():
            return self._run(learner, order, factor)

    def _adam(self) -> TrainLoop:
        optimizer = keras.optimizers.Adam(1e-3, clipnorm=1.0)
        if hasattr(self.model.optimizer, "inner_optimizer"):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        return TrainLoop(self.trial, optimizer, 1e-3)

    def _affordable(self) -> int:
        """Steps that fit a share of the time that is left, `_STEPS` at most."""
        times = [time.monotonic()]
        with self.trial.preserved():
            for steps in (1, 1, 9):  # The first call after tracing takes longer; each has its own costs.
                self.learner.run(self.trial.order(steps), 0.0)
                times.append(time.monotonic())
        _, call, calls = np.diff(times)
        self.step_time = max((calls - call) / 8, 1e-5)
        left = _SHARE_OF_TIME * (self.deadline - times[-1])
        return min(_STEPS, int(left / self.step_time)) if left > call else 0

    def _time_for(self, steps: int) -> bool:
        return time.monotonic() + steps * self.step_time < self.deadline

    def _learned(self, run: _Run) -> bool:
        """Whether the loss shows knowledge of the inputs: well below that of any constant answer."""
        if not math.isfinite(run.end):
            return False
        goal = self.reference - _LEARNED * abs(self.reference)
        return run.end <= goal and (self.constant is not None or self._moved(run))

    def _moved(self, run: _Run) -> bool:
        """Whether it surely knows more of its samples at the end than at the start."""
        if not math.isfinite(run.end):
            return False
        (before, error_before), (after, error) = self.start.knowledge, run.view.knowledge
        if self.constant is None and self.first - run.course.end > _LEARNED * abs(self.first):
            return True
        return after - before > _SURE * math.hypot(error_before, error)

    def _diverged(self, run: _Run) -> bool:
        return not math.isfinite(run.end) or run.end > 2 * max(abs(self.highest_start), abs(self.reference))

    # What shows at the start.

    def _overflowing_start(self) -> Finding:
        return Finding(
            "initial-loss",
            "error",
            "output",
            f"the first loss or output is not a finite number, where {self._expected()} is expected.",
            "NaN or huge values in x or y, or a logarithm, root or division in a layer or in the loss.",
            "look for NaN and infinite values in x and y, then at the outputs of each layer.",
            "A46",
        )

    def _expected(self) -> str:
        if self.uninformed is None:
            return "a finite loss"
        if self.classes:
            return (
                f"{self.uninformed:.3g} (knowing nothing) to {self.constant:.3g} (knowing how frequent each "
                "class is)"
            )
        return f"{self.uninformed:.3g} (answering 0) to {self.constant:.3g} (answering the targets' mean)"

    def _initial_loss(self, run: _Run | None) -> Iterator[Finding]:
        """Far off at the start is an error only where the training does not make up for it."""
        makes_up = run is None or self._learned(run) or run.end < 0.5 * self.first
        if self.uninformed is None or self.constant is None or int(self.model.optimizer.iterations) > 0:
            return
        highest = max(self.uninformed, self.constant) * (_ABOVE_CHANCE if self.classes else _ABOVE_ZERO)
        seen = f"the first loss is {self.first:.3g}, where {self._expected()} is expected from these labels."
        if self.first > highest > 0:
            far = self.first > _FAR_ABOVE * highest
            yield Finding(
                "initial-loss",
                "error" if not makes_up else "warning" if far else "info",
                "output",
                seen,
                "initial weights or inputs on too large a scale, or a loss that does not suit the output.",
                "standardise x, use He-normal weights for ReLU, and let recipes.compile_for choose the loss.",
                "A46; Karpathy 2019",
            )
        elif self.classes and self.first < _BELOW_CHANCE * min(self.constant, self.uninformed):
            yield Finding(
                "initial-loss",
                "warning",
                "output",
                seen,
                "the model was trained before, or the labels are among its inputs.",
                "check that no column of x gives y away, unless the model was trained before.",
                "A46; Karpathy 2019",
            )

    def _dead_units(self, run: _Run | None, severity: Severity) -> Iterator[Finding]:
        view, when = (self.start, "at the start") if run is None else (run.view, "after a short training")
        for name, (share, units) in view.dead.items():
            if share >= _DEAD and (units >= _MIN_UNITS):
                yield Finding(
                    "dead-units",
                    severity,
                    name,
                    f"{share:.0%} of the {units} ReLU units are 0 for all of {len(self.trial.seen)} samples "
                    f"{when}, where less than half is expected.",
                    "weights that start at 0, biases or inputs far below 0, or steps so large that they "
                    "pushed the units there.",
                    "start biases at 0, use He-normal weights and standardised inputs, or a leaky ReLU.",
                    "A2, A14; Lu et al. 2019",
                )
                return

    def _influence(self, course: LossCurve) -> list[tuple[str, float]]:
        """How far a relative change of each layer's weights moves the loss, in the order of the calls."""
        owners: dict[int, tuple[int, str]] = {}
        for call in self.context.forward_pass.calls:
            for variable in call.layer.trainable_variables:
                owners.setdefault(id(variable), (len(owners), call.name))
        norms = course.gradients[np.isfinite(course.gradients).all(axis=1)]
        if not len(norms) or self.reference == 0:
            return []
        found = []
        for variable, norm in zip(self.model.trainable_variables, norms.mean(axis=0), strict=True):
            if len(variable.shape) >= 2 and id(variable) in owners:
                position, name = owners[id(variable)]
                weight = float(np.linalg.norm(np.asarray(variable.numpy(), np.float64)))
                found.append((position, name, float(norm) * weight / abs(self.reference)))
        return [(name, influence) for _, name, influence in sorted(found)]

    def _exploding_gradient(self) -> Iterator[Finding]:
        influence = self._influence(self.probe)
        inputs = [np.asarray(a, np.float64) for a in self.context.train.take(slice(0, 512)).inputs.values()]
        # Inputs on a large scale make gradients large without any help from the layers.
        scale = max((float(np.sqrt(np.mean(a**2))) for a in inputs if a.dtype.kind == "f"), default=1.0)
        # Strong penalties have large gradients of their own, and beside tiny targets any output is large.
        tiny = any(finding.check == "target-scale" for finding in self.known)
        if not influence or self.constant is None or tiny or self.trial.penalty > abs(self.reference):
            return
        name, largest = max(influence, key=lambda pair: pair[1])
        if largest > _EXPLODED * max(1.0, scale) ** 2:
            yield Finding(
                "exploding-gradient",
                "error",
                name,
                f"changing this layer's weights by 1 % changes the loss by about {largest / 100:.2g} times "
                f"the loss of a constant answer, where 0.01 is usual; the first loss is {self.first:.3g}.",
                "initial weights so large that the signal grows from layer to layer or step to step.",
                "use He-normal weights for ReLU and Glorot for others, batch norm, and clipnorm=1.0.",
                "A2, A21, A48; Glorot and Bengio 2010",
            )

    def _vanishing_gradient(self, run: _Run, after: LossCurve | None) -> Iterator[Finding]:
        ratios = []
        start = self._influence(self.probe)
        for influence in (start, [] if after is None else self._influence(after)):
            largest = max((value for _, value in influence), default=0.0)
            if len(influence) >= 3 and largest > 0:
                front = [value for _, value in influence[: max(1, len(influence) // 4)]]
                ratios.append(max(front) / largest)
        if len(ratios) == 2 and max(ratios) < _VANISHED:
            yield Finding(
                "vanishing-gradient",
                "error",
                start[0][0],
                f"the first layers bear on the loss {ratios[0]:.1g} times as much as the strongest layer, "
                f"where 0.01 to 1 is usual, and the loss stays at {run.end:.3g} in a short training.",
                "many saturating layers (sigmoid, tanh) in a row, or initial weights that are too small.",
                "use ReLU with He-normal weights, batch norm or skip connections, as recipes.mlp does.",
                "A2, A7, A48; Glorot and Bengio 2010",
            )

    def _ignored_input(self, run: _Run) -> Iterator[Finding]:
        rows = self.trial.seen
        inputs = [np.asarray(a)[rows] for a in self.trial.rows.inputs.values()]
        if all((a == a[:1]).all() for a in inputs) or not run.view.finite:
            return
        if all(_alike(view.outputs) for view in (self.start, run.view)):
            yield Finding(
                "ignores-input",
                "error",
                "output",
                f"the output is the same for all of {len(rows)} different samples, before and after a short "
                "training, where it should differ.",
                "a layer that loses its input: a product with 0, units that are all dead or saturated, or a "
                "wrong tensor passed on.",
                "follow the layers from the input on, and find the first whose output is constant.",
                "A53",
            )

    def _batch_leak(self, when: str) -> Iterator[Finding]:
        rows = self.trial.seen[:32]
        half = len(rows) // 2
        others = self.trial.seen[-half:]
        if half < 2 or len(self.trial.seen) < 3 * half or self.trial.batch is not None:
            return
        mine, mixed = rows[:half], np.concatenate([others, rows[:half]])
        first, again = self.trial.outputs(rows), self.trial.outputs(rows)
        variation = max(_distance(a[:half], b[:half]) for a, b in zip(first, again, strict=True))
        tolerance = _LEAK.get(self.model.compute_dtype, _LEAK_FLOAT32)
        if variation > tolerance:
            if when == "at the start" and not any(getattr(c.layer, "stateful", False) for c in self._calls):
                yield self._random_inference(variation)
            return
        other, alone = self.trial.outputs(mixed), self.trial.outputs(mine)
        pairs = zip(first, other, alone, strict=True)
        leak = max(max(_distance(a[:half], b[half:]), _distance(a[:half], c)) for a, b, c in pairs)
        if leak > tolerance:
            yield Finding(
                "batch-leak",
                "error",
                "output",
                f"{when}, in inference, a sample's output changes by {leak:.2g} of the outputs' size with "
                f"the other samples of its batch, where at most {tolerance:g} is expected.",
                "a softmax, mean or other operation over axis 0, a reshape that mixes samples, or batch "
                "statistics used in inference.",
                "let operations work on axis -1, keep the batch axis in reshapes, and pass training on.",
                "Karpathy 2019",
            )

    @property
    def _calls(self) -> tuple[Any, ...]:
        return self.context.forward_pass.calls

    def _random_inference(self, variation: float) -> Finding:
        x = self.trial.inputs(self.trial.seen[:32])
        with self.trial.preserved():
            one, other = (keras.tree.flatten(self.model(x, training=True)) for _ in range(2))
        turned_round = all(
            np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True)
        )
        return Finding(
            "train-eval-gap",
            "error" if turned_round else "warning",
            "output",
            f"in inference the output for the same samples changes by {variation:.2g} of its size from one "
            "call to the next"
            + (", and in training it does not" if turned_round else "")
            + ", where no change "
            "is expected.",
            "dropout or noise with its flag turned round."
            if turned_round
            else "dropout or noise that is switched on for good, with training=True.",
            "pass the training argument on as it is"
            + ("." if turned_round else ", unless the outputs are meant to be drawn at random."),
            "A37",
        )

    # What shows after the short training.

    def _hampered(self, order: Array, run: _Run) -> Iterator[Finding]:
        lower = self._kept_run(self.learner, order, 0.1)
        if self._learned(lower) and lower.end < 0.5 * run.end:
            yield Finding(
                "learning-rate-high",
                "warning",
                "optimizer",
                f"after {len(order)} steps the loss is {run.end:.3g} with learning rate "
                f"{self.learner.rate():.2g}, and {lower.end:.3g} with {self.learner.rate(0.1):.2g}.",
                "steps so large that they pass by the minimum.",
                f"try learning_rate={self.learner.rate(0.1):.2g}.",
                "A23, A24, A49",
            )

    def _rate_high(self, run: _Run, lower: _Run, steps: int) -> Finding:
        end = "is not a finite number" if not math.isfinite(run.end) else f"is {run.end:.3g}"
        return Finding(
            "learning-rate-high",
            "error",
            "optimizer",
            f"after {steps} steps the loss {end} with learning rate {self.learner.rate():.2g}, and "
            f"{lower.end:.3g} with {self.learner.rate(lower.factor):.2g}; a constant answer gives "
            f"{self.reference:.3g}.",
            "a learning rate so high that each step overshoots.",
            f"set learning_rate={self.learner.rate(lower.factor):.2g}.",
            "A23, A24, A49",
        )

    def _rate_low(self, order: Array) -> tuple[list[Finding], bool]:
        """Whether much larger steps learn, and if so, how long the user's own would take."""
        for factor in _HIGHER_RATES:
            if not self._time_for(len(order)):
                return [], True  # Unknown; nothing more is said.
            higher = self._kept_run(self.learner, order, factor)
            if self._learned(higher):
                return self._too_low(higher, order), True
            if self._diverged(higher):
                return [], False
        return [], False

    def _too_low(self, higher: _Run, order: Array) -> list[Finding]:
        goal = self.reference - _LEARNED * abs(self.reference)
        smooth = np.convolve(higher.course.losses, np.full(10, 0.1), "valid")
        below = np.flatnonzero(smooth <= goal)
        needed = (int(below[0]) + 10 if len(below) else len(order)) * higher.factor
        epoch = -(-(self.context.train.total or len(self.context.train)) // self.context.batch_size)
        if needed <= max(_USUAL_FIT[0] * epoch, _USUAL_FIT[1]) or self._rises(len(order)):
            return []
        # An epoch of few steps says nothing of how many there will be.
        hopeless = needed > max(_LONG_FIT[0] * epoch, _LONG_FIT[1]) and epoch >= 10
        rate, better = self.learner.rate(), self.learner.rate(higher.factor)
        return [
            Finding(
                "learning-rate-low",
                "error" if hopeless else "warning",
                "optimizer",
                f"after {len(order)} steps the loss is {higher.end:.3g} with learning rate {better:.2g}; "
                f"with {rate:.2g} it would take about {needed:.1g} steps, {needed / epoch:.2g} epochs, to "
                f"get 10 % below the {self.reference:.3g} of a constant answer.",
                "a learning rate that is too low for a training of usual length.",
                f"set learning_rate={better:.2g}.",
                "A23, A24, A49",
            )
        ]

    def _rises(self, steps: int) -> bool:
        """Whether the rate follows a schedule that has yet to warm up."""
        schedule = self.learner.schedule
        if schedule is None:
            return False
        rates = [float(schedule(step)) for step in (0, steps, 3 * steps, 10 * steps, 100 * steps)]
        return max(rates[2:]) > 2 * max(rates[:2])

    def _optimizer_config(self, run: _Run, other: _Run, rate: float, steps: int) -> Finding:
        return Finding(
            "optimizer-config",
            "error",
            "optimizer",
            f"after {steps} steps the loss is {run.end:.3g} with this optimizer, whatever the learning rate, "
            f"and {other.end:.3g} with Adam({rate:.2g}, clipnorm=1.0); a constant answer gives "
            f"{self.reference:.3g}.",
            "an extreme setting of the optimizer: clipping, momentum, epsilon or weight decay.",
            'use keras.optimizers.Adam(1e-3, clipnorm=1.0), as recipes.optimizer("adam") makes it.',
            "A20, A21",
        )

    def _diverges(self, run: _Run) -> Finding:
        end = "is not a finite number" if not math.isfinite(run.end) else f"has grown to {run.end:.3g}"
        return Finding(
            "loss-diverges",
            "error",
            "model",
            f"after {len(run.course.losses)} steps the loss {end}, starting from {self.first:.3g}, and "
            f"learning rates down to {self.learner.rate(_LOWER_RATES[-1]):.1g} do not help.",
            "inputs or targets on a huge scale, or an operation in the model or the loss that overflows.",
            "standardise x and the targets, and set clipnorm=1.0.",
            "A21, A38, A49",
        )

    def _straight_line(self, run: _Run, steps: int) -> Finding:
        return Finding(
            "capacity",
            "error",
            "model",
            f"after {steps} steps the loss of this single layer is {run.end:.3g}, where a constant answer "
            f"gives {self.reference:.3g}, at each learning rate and with Adam too; samples with like inputs "
            "have like labels, so that a loss well below is expected.",
            "labels that no weighted sum of the inputs tells apart.",
            "give it a hidden layer, as recipes.mlp does.",
            "A54, A55; Goodfellow, Bengio and Courville 2016, section 6.1",
        )

    def _stuck(self, run: _Run, steps: int) -> Finding:
        return Finding(
            "loss-stuck",
            "error",
            "model",
            f"after {steps} steps the loss is {run.end:.3g}, a constant answer gives {self.reference:.3g}, "
            "at each learning rate and with Adam too, although samples with like inputs have like labels.",
            "a layer or a step of preprocessing that scrambles what the inputs say, or too much noise.",
            "train recipes.linear or recipes.mlp on the same data, and change it to this model step by step.",
            "A47, A49, A53",
        )

    def _train_eval_gap(self) -> Iterator[Finding]:
        """Compares the loss in both modes once running statistics have settled; weights stay."""
        trial = self.trial
        if self.constant is None:
            return
        with trial.preserved():
            before = {id(v): np.array(v.numpy()) for v in self.model.non_trainable_variables}
            course = self.learner.run(trial.order(_SETTLE_STEPS), 0.0)
            if not course.finite:
                return
            lagging = trial.evaluate()
            unknown = trial.settle(before, len(course.losses))
            settled = trial.evaluate()
        training, lowest = float(course.losses.mean()), min(lagging.loss, settled.loss)
        if not math.isfinite(lowest) and not settled.finite:
            lowest = math.inf
        slowest = max((layer.momentum for layer in trial.normalizers), default=0.0)
        if self.constant <= 0:
            return  # No loss to speak of, as where all sample weights are 0.
        # On the same samples dropout can only make the loss of training mode the higher one.
        lost = lowest >= self.constant - _HALF * (self.constant - training)
        if training <= 0.7 * self.constant and lost and not unknown:
            yield Finding(
                "train-eval-gap",
                "error",
                "model",
                f"the same weights give a loss of {training:.3g} in training mode and {lowest:.3g} in "
                f"inference, where a constant answer gives {self.constant:.3g}.",
                "a layer that does something else in inference than in training.",
                "look at what each layer makes of the training argument.",
                "A37; Ioffe and Szegedy 2015",
            )
        elif training <= 0.7 * self.constant <= self.constant <= lagging.loss and self._lags(
            slowest, _USUAL_FIT
        ):
            hopeless = self._lags(slowest, _LONG_FIT)
            yield Finding(
                "train-eval-gap",
                "error" if hopeless else "warning",
                "batch norm",
                f"the loss is {training:.3g} in training mode and {lagging.loss:.3g} in inference, and with "
                f"momentum {slowest:g} the running statistics take about "
                f"{1 / (1 - min(slowest, 1 - 1e-9)):.1g} steps to follow.",
                "a momentum of batch norm that is too high for a training of usual length.",
                "set momentum=0.99 or 0.9 in BatchNormalization.",
                "Ioffe and Szegedy 2015",
            )
        elif training > 2 * self.constant and settled.loss < (1 - _LEARNED) * self.constant:
            yield Finding(
                "train-eval-gap",
                "warning",
                "model",
                f"the same weights give a loss of {training:.3g} in training mode and {settled.loss:.3g} in "
                f"inference, where a constant answer gives {self.constant:.3g}.",
                "dropout or noise on the output itself, or far too much of it.",
                "drop units of hidden layers only, and not more than half of them.",
                "A37",
            )

    def _lags(self, momentum: float, fit: tuple[int, int]) -> bool:
        """Whether statistics would still be half initial after so many epochs, or steps."""
        epoch = -(-(self.context.train.total or len(self.context.train)) // self.context.batch_size)
        return momentum ** max(fit[0] * epoch, fit[1]) > 0.5

    def _by_heart(self, adam: TrainLoop) -> Finding | None:
        """Whether a few samples cannot be learned by heart, from any of several starts."""
        tried = self._learn_by_heart(adam, _FEW)
        if tried is None or tried.learned:
            return self._unlucky(tried.failed_starts) if tried and tried.failed_starts else None
        against = "the first loss" if tried.of_first else "a constant answer"
        return Finding(
            "tiny-overfit",
            "error",
            "model",
            f"{tried.samples} samples alone cannot be learned by heart: after {_STEPS} steps the loss "
            f"is {tried.best:.3g}, where {against} gives {tried.goal:.3g} and near 0 is expected, with Adam "
            "too.",
            "a loss or labels that do not suit the output, weights that are all the same, a penalty that is "
            "far too strong, or a gradient that does not reach the weights.",
            "look at the loss and the output layer first, then at penalties and initial weights.",
            "A47, A53; Goodfellow, Bengio and Courville 2016, section 11.5",
        )

    def _too_small(self) -> Iterator[Finding]:
        """Whether a net of few units cannot even learn some samples by heart, so that it must stay poor."""
        weights = self._weights
        hidden = [call for call in self._calls if call.layer.trainable_weights]
        # A single layer is a choice of its own, and numbers have noise.
        if weights > len(self.trial.rows) or weights > _TINY_NET or len(hidden) < 2 or not self.classes:
            return
        tried = self._learn_by_heart(self._adam(), _MANY, _HALF)
        if tried is None or tried.learned:
            return
        yield Finding(
            "capacity",
            "error",
            "model",
            f"{weights} weights learn from {self.context.train.total or len(self.context.train):,} samples; "
            f"{tried.samples} of them alone cannot be learned by heart from any of {1 + _RESTARTS} starts: "
            f"the loss stays at {tried.best:.3g} of {tried.goal:.3g}, where near 0 is expected.",
            "too few units for what has to be told apart.",
            "begin with about as many weights as there are samples.",
            "A54",
        )

    @property
    def _weights(self) -> int:
        return sum(math.prod(v.shape) for v in self.model.trainable_variables)

    def _learn_by_heart(self, adam: TrainLoop, count: int, share: float = _BY_HEART) -> _ByHeart | None:
        """Whether a share of the loss can be taken off; `None` where nothing is to learn, or no time."""
        trial = self.trial
        rows = trial.few(count)
        if len(rows) < 2 or (trial.batch or 0) > len(rows) or len(np.unique(self._first_labels(rows))) < 2:
            return None
        reference = trial.constant_loss(rows)
        best = math.inf
        for failed_starts in range(1 + (_RESTARTS if self._weights <= _TINY_NET else 0)):
            for learner, factor in ((adam, 1.0), (adam, 10.0), (self.learner, 1.0)):
                if not self._time_for(_STEPS):
                    return None
                with trial.preserved():
                    if failed_starts:
                        self._restart()
                    first = trial.evaluate(rows).loss
                    course = learner.run(trial.order(_STEPS, rows), factor)
                    end = min(course.end, trial.evaluate(rows).loss) if course.finite else math.inf
                goal = first if reference is None else reference
                best = min(best, end)
                if end <= goal - share * abs(goal):
                    return _ByHeart(len(rows), True, best, goal, reference is None, failed_starts)
        return _ByHeart(len(rows), False, best, goal, reference is None, failed_starts)

    def _first_labels(self, rows: Array) -> Array:
        labels = keras.tree.flatten(self.trial.rows.y)[0]
        return np.unique(np.asarray(labels)[rows].reshape(len(rows), -1), axis=0, return_inverse=True)[1]

    def _restart(self) -> None:
        values = fresh_weights(self.model)
        if values is not None:
            for variable, value in zip(self.model.trainable_variables, values, strict=True):
                variable.assign(value)

    def _unlucky(self, failed: int) -> Finding:
        return Finding(
            "tiny-overfit",
            "warning",
            "model",
            f"a few samples cannot be learned by heart from this start, but from another after {failed} "
            "that failed.",
            "so few units that bad initial weights leave no way out.",
            "use more units, a leaky activation, or another seed.",
            "A47; Goodfellow, Bengio and Courville 2016, section 6.1",
        )

    def _informative(self) -> bool:
        """Whether samples with like inputs have like labels, beyond chance."""
        rows = self.trial.seen
        inputs = [np.asarray(a)[rows].reshape(len(rows), -1) for a in self.trial.rows.inputs.values()]
        if any(a.dtype.kind not in "biuf" for a in inputs):
            return False
        x = np.concatenate([a.astype(np.float64) for a in inputs], axis=1)
        labels = np.asarray(keras.tree.flatten(self.trial.rows.y)[0])[rows].reshape(len(rows), -1)
        if (
            x.shape[1] > _MAX_NUMBERS_COMPARED
            or len(rows) < 8 * _NEIGHBOURS
            or labels.dtype.kind not in "biuf"
        ):
            return False
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-12)
        squares = (x**2).sum(axis=1)
        distance = squares[:, None] + squares - 2 * x @ x.T
        np.fill_diagonal(distance, np.inf)
        near = np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        if self.classes and labels.shape[1] == 1:
            labels = (labels == np.unique(labels)).astype(np.float64)
        centred = labels - labels.mean(axis=0)
        agreement = np.mean(centred[near].mean(axis=1) * centred, axis=1)
        error = float(agreement.std()) / math.sqrt(len(rows))
        return float(agreement.mean()) > _SURE * error and float(agreement.mean()) > 0.1 * float(
            np.mean(centred**2)
        )


def _alike(outputs: list[Array]) -> bool:
    """Whether all samples have the same outputs."""
    return all(
        float(np.max(np.ptp(out, axis=0), initial=0.0)) <= _SAME * max(float(np.max(np.abs(out))), 1e-30)
        for out in outputs
    )


def _distance(one: Array, other: Array) -> float:
    """The largest difference of two outputs, as a share of their size."""
    return float(np.max(np.abs(one - other))) / max(float(np.max(np.abs(one))), 1e-30)
