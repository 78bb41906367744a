"""Symptoms: what a model's outputs, gradients and first loss show, before and after a short training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from keras_practice.checks.findings import Finding, Severity
from keras_practice.checks.trials.baseline import Baseline
from keras_practice.checks.trials.first_loss import FirstLoss, judge_first_loss
from keras_practice.checks.trials.short_training import Evaluation, Run, ShortTraining
from keras_practice.checks.trials.train_loop import LossCurve
from keras_practice.core.types import Array

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

AT_THE_START, AFTERWARDS = "at the start", "after a short training"


def expected_loss(baseline: Baseline) -> str:
    """What the first loss should be, in words."""
    if baseline.uninformed is None:
        return "a finite loss"
    knowing, informed = (
        ("knowing nothing", "knowing how frequent each class is")
        if baseline.classes
        else ("answering 0", "answering the targets' mean")
    )
    return f"{baseline.uninformed:.3g} ({knowing}) to {baseline.constant:.3g} ({informed})"


def overflowing_start(baseline: Baseline) -> Finding:
    """A first loss or output that is no number."""
    return Finding(
        "initial-loss",
        "error",
        "output",
        f"the first loss or output is not a finite number, where {expected_loss(baseline)} is expected.",
        "NaN or huge values in x or y, or a logarithm, root or division in a layer or in the loss.",
        "look for NaN and infinite values in x and y, then at the outputs of each layer.",
        "A46",
    )


def initial_loss(training: ShortTraining, baseline: Baseline, run: Run | None) -> Iterator[Finding]:
    """Far off at the start is an error only where the training does not make up for it.

    Without a run nothing is known against it. A model that was trained before is not judged.
    """
    made_up = run is None or baseline.learned(run) or run.end < 0.5 * baseline.first
    uninformed, constant = baseline.uninformed, baseline.constant
    if uninformed is None or constant is None or int(training.model.optimizer.iterations) > 0:
        return
    found = judge_first_loss(baseline.first, uninformed, constant, classes=baseline.classes)
    seen = (
        f"the first loss is {baseline.first:.3g}, where {expected_loss(baseline)} is expected from these "
        "labels."
    )
    if found in (FirstLoss.HIGH, FirstLoss.FAR):
        yield Finding(
            "initial-loss",
            "error" if not made_up else "warning" if found is FirstLoss.FAR else "info",
            "output",
            seen,
            "initial weights or inputs on too large a scale, or a loss that does not suit the output.",
            "standardise x, use He-normal weights for ReLU, and let recipes.compile_for choose the loss.",
            "A46; Karpathy 2019",
        )
    elif found is FirstLoss.LOW and baseline.classes:  # A sound autoencoder may begin near its targets.
        yield Finding(
            "initial-loss",
            "warning",
            "output",
            seen,
            "the model was trained before, or the labels are among its inputs.",
            "check that no column of x gives y away, unless the model was trained before.",
            "A46; Karpathy 2019",
        )


def dead_units(
    training: ShortTraining, evaluation: Evaluation, severity: Severity, when: str = AT_THE_START
) -> Iterator[Finding]:
    """The first layer most of whose ReLU units are 0 for every sample."""
    for name, (share, units) in evaluation.dead.items():
        if share >= _DEAD and units >= _MIN_UNITS:
            yield Finding(
                "dead-units",
                severity,
                name,
                f"{share:.0%} of the {units} ReLU units are 0 for all of {len(training.seen)} samples "
                f"{when}, where less than half is expected.",
                "weights that start at 0, biases or inputs far below 0, or steps so large that they "
                "pushed the units there.",
                "start biases at 0, use He-normal weights and standardised inputs, or a leaky ReLU.",
                "A2, A14; Lu et al. 2019",
            )
            return


def _influence(training: ShortTraining, baseline: Baseline, curve: LossCurve) -> list[tuple[str, float]]:
    """How far a relative change of each layer's weights moves the loss, in the order of the calls."""
    owners: dict[int, tuple[int, str]] = {}
    for call in training.context.forward_pass.calls:
        for variable in call.layer.trainable_variables:
            owners.setdefault(id(variable), (len(owners), call.name))
    norms = curve.gradients[np.isfinite(curve.gradients).all(axis=1)]
    if not len(norms) or baseline.reference == 0:
        return []
    found = []
    for variable, norm in zip(training.model.trainable_variables, norms.mean(axis=0), strict=True):
        if len(variable.shape) >= 2 and id(variable) in owners:
            position, name = owners[id(variable)]
            weight = float(np.linalg.norm(np.asarray(variable.numpy(), np.float64)))
            found.append((position, name, float(norm) * weight / abs(baseline.reference)))
    return [(name, influence) for _, name, influence in sorted(found)]


def exploding_gradient(
    training: ShortTraining, baseline: Baseline, known: Sequence[Finding]
) -> Iterator[Finding]:
    """Weights of which a small change moves the loss out of all proportion."""
    influence = _influence(training, baseline, baseline.probe)
    samples = training.context.train.take(slice(0, 512))
    inputs = [np.asarray(a) for a in samples.inputs.values()]
    # Inputs on a large scale make gradients large without any help from the layers.
    floats = [a.astype(np.float64) for a in inputs if a.dtype.kind == "f"]
    scale = max((float(np.sqrt(np.mean(a**2))) for a in floats), default=1.0)
    # Strong penalties have large gradients of their own, and beside tiny targets any output is large.
    tiny = any(finding.check == "target-scale" for finding in known)
    if not influence or baseline.constant is None or tiny or baseline.penalty > abs(baseline.reference):
        return
    name, largest = max(influence, key=lambda pair: pair[1])
    if largest > _EXPLODED * max(1.0, scale) ** 2:
        yield Finding(
            "exploding-gradient",
            "error",
            name,
            f"changing this layer's weights by 1 % changes the loss by about {largest / 100:.2g} times "
            f"the loss of a constant answer, where 0.01 is usual; the first loss is {baseline.first:.3g}.",
            "initial weights so large that the signal grows from layer to layer or step to step.",
            "use He-normal weights for ReLU and Glorot for others, batch norm, and clipnorm=1.0.",
            "A2, A21, A48; Glorot and Bengio 2010",
        )


def vanishing_gradient(
    training: ShortTraining, baseline: Baseline, run: Run, after: LossCurve | None
) -> Iterator[Finding]:
    """First layers that bear next to nothing on the loss, before the training and after it.

    Args:
        training: The model and its samples.
        baseline: What was seen before.
        run: The short training.
        after: A step after it that changes no weight; `None` where the training overflowed.
    """
    ratios = []
    start = _influence(training, baseline, baseline.probe)
    for influence in (start, [] if after is None else _influence(training, baseline, after)):
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


def ignored_input(training: ShortTraining, baseline: Baseline, run: Run) -> Iterator[Finding]:
    """Outputs that are the same for samples that differ."""
    rows = training.seen
    inputs = [np.asarray(a)[rows] for a in training.rows.inputs.values()]
    if all((a == a[:1]).all() for a in inputs) or not run.evaluation.finite:
        return
    if all(_alike(one.outputs) for one in (baseline.start, run.evaluation)):
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


def diverges(baseline: Baseline, run: Run, lowest_rate: float) -> Finding:
    """A loss that grows at every rate that was tried."""
    end = "is not a finite number" if not math.isfinite(run.end) else f"has grown to {run.end:.3g}"
    return Finding(
        "loss-diverges",
        "error",
        "model",
        f"after {len(run.curve.losses)} steps the loss {end}, starting from {baseline.first:.3g}, and "
        f"learning rates down to {lowest_rate:.1g} do not help.",
        "inputs or targets on a huge scale, or an operation in the model or the loss that overflows.",
        "standardise x and the targets, and set clipnorm=1.0.",
        "A21, A38, A49",
    )


def stuck(baseline: Baseline, run: Run, steps: int) -> Finding:
    """A loss that no training moves, although the inputs tell of the labels."""
    return Finding(
        "loss-stuck",
        "error",
        "model",
        f"after {steps} steps the loss is {run.end:.3g}, a constant answer gives {baseline.reference:.3g}, "
        "at each learning rate and with Adam too, although samples with like inputs have like labels.",
        "a layer or a step of preprocessing that scrambles what the inputs say, or too much noise.",
        "train recipes.linear or recipes.mlp on the same data, and change it to this model step by step.",
        "A47, A49, A53",
    )


def _alike(outputs: list[Array]) -> bool:
    """Whether all samples have the same outputs."""
    return all(
        float(np.max(np.ptp(out, axis=0), initial=0.0)) <= _SAME * max(float(np.max(np.abs(out))), 1e-30)
        for out in outputs
    )
