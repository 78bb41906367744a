"""The two checks that the lectures put before every training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_practice.checks.findings import Finding, Report, Severity
from keras_practice.checks.inspection.context import loss_name, task_of
from keras_practice.checks.inspection.forward_pass import (
    ForwardPass,
    ForwardPassError,
    Head,
    built,
    fixed_batch,
    heads_of,
)
from keras_practice.checks.inspection.lookups import lookups_kept_inside
from keras_practice.checks.inspection.loss_probe import probe_of
from keras_practice.checks.inspection.own_loss import (
    compares_labels,
    computes_loss_itself,
    trains_itself,
)
from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.checks.looking import Looking
from keras_practice.checks.rules.lookup import index_range
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.constant_answer import constant_loss, data_loss
from keras_practice.checks.trials.few_samples import learn_by_heart, tiny_rows
from keras_practice.checks.trials.first_loss import FirstLoss, judge_first_loss
from keras_practice.checks.trials.own_step import OwnTraining, plain_step_findings
from keras_practice.checks.trials.train_loop import copied_optimizer
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.types import Array
from keras_practice.core.variables import preserved
from keras_practice.data import Task

_MAX_SAMPLES = 1024
_MAX_BATCHES = 64  # Of a generator, which may have no end.
# Of a start that a training may make up for, as `preflight` tells it.
_SEVERITY: Mapping[FirstLoss, Severity] = MappingProxyType({FirstLoss.HIGH: "info", FirstLoss.FAR: "warning"})


def initial_loss(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    task: Task | None = None,
    tolerance: float | None = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> Report:
    """Whether the loss of an untrained model is what chance gives.

    Chance is a model that says the same for every sample and knows nothing of the
    classes: cross-entropy ln(C) for C classes and ln(2) a yes/no decision. For
    other losses it is the loss of a constant output, halfway for probabilities
    and 0 for regression. Penalties on the weights are not counted.

    A start far above it means that the model is sure of what it cannot know:
    initial weights or inputs on a wrong scale, or a loss at odds with the output.
    A start well below it, and below that of the best constant answer, means that
    the model knows the labels already.

    The bounds are those of `preflight`: from 1.5 times chance on (for regression 5
    times) a start is a remark, from twice that on a warning. Here no training can
    make up for it, so that there is an end to that: what is above `tolerance` is
    an error.

    The model is not changed.

    Args:
        model: A compiled model, not yet trained.
        x: Inputs, or batches with their labels: whatever `preflight` takes. At most 1,024
            samples are used.
        y: Labels, `(samples,)` or `(samples, outputs)`, or several of them; left out beside a
            data set, and for a model whose own loss needs none.
        task: What is predicted. Defaults to `None`, read from labels and loss.
        sample_weight: Weights, as for `preflight`. Defaults to `None`.
        class_weight: The weight of each class. Defaults to `None`.
        tolerance: How far above chance the loss may be, as a share of it.
            Defaults to `None`: 3 for classes, where fresh nets on a few features give
            up to 3 times ln(C), and 4 for regression, where the scatter of the fresh
            outputs adds to the targets' own. A start too low is an error either way.

    Returns:
        A report with the figures `loss` and `expected`. Where it is not known what chance
        gives, as for a loss of a model's own without labels, `report.unlooked` says so.

    Raises:
        ValueError: If the model is not compiled, or data and task do not fit.

    Source:
        A46; Karpathy 2019, "A recipe for training neural networks".
    """
    train = _samples(model, x, y, sample_weight, class_weight, task)
    train = train.take(np.random.default_rng(0).permutation(len(train))[: fixed_batch(model) or _MAX_SAMPLES])
    looking, figures = Looking(), dict[str, float]()
    findings: list[Finding] = []
    training = OwnTraining(model, train, 32)
    findings += _beyond_tables(model, train)
    if findings:
        return Report(tuple(findings))
    with looking.part("the first loss"):
        _build(model, train)
        with preserved(model):
            if trains_itself(model) and (model.loss is None or train.y is None):
                if training.raised() is None:
                    with training.lent():
                        figures["loss"] = float(training.run(1, 0.0)[0])
                    findings += _not_finite(figures["loss"])
                    looking.leave_out("the first loss", _UNKNOWN)
            else:
                findings += _first_loss_findings(model, train, task, tolerance, figures, looking)
    if looking.problems or (trains_itself(model) and not figures):
        findings += plain_step_findings(training, looking)
    return Report(tuple(findings), MappingProxyType(figures), tuple(looking.unlooked))


_UNKNOWN = "what chance gives is not known for a loss of the model's own; it is a finite number."


def _first_loss_findings(
    model: keras.Model,
    train: Samples,
    task: Task | None,
    tolerance: float | None,
    figures: dict[str, float],
    looking: Looking,
) -> Iterator[Finding]:
    outputs = model(train.fed, training=False)
    arrays = keras.tree.map_structure(np.asarray, outputs)
    heads = heads_of(model, ForwardPass((), (), (), arrays), train.y)
    loss = _data_loss(model, train, heads, outputs)
    figures["loss"] = loss
    if train.y is None:
        yield from _not_finite(loss)
        looking.leave_out("the first loss", _UNKNOWN)
        return
    tasks = [task if task is not None and len(heads) == 1 else task_of(head) for head in heads]
    chance = [_chance(head, each) for head, each in zip(heads, tasks, strict=True)]
    expected = _data_loss(model, train, heads, keras.tree.pack_sequence_as(arrays, chance))
    figures["expected"] = expected
    few = train.take(slice(0, fixed_batch(model) or 2)).fed
    constant = constant_loss(model, heads, (train.fed, train.y, train.weight), outputs, few)
    classes = all("crossentropy" in loss_name(head.loss) for head in heads if head.loss is not None)
    if tolerance is None:
        tolerance = 3.0 if all(each is None or each.is_classification for each in tasks) else 4.0
    severity, cause, fix = _first_loss(
        loss,
        expected,
        # Where it is not known what a constant answer can do, chance is all there is.
        expected if constant is None else constant,
        classes=classes,
        most=expected * (1 + tolerance),
    )
    if severity is not None:
        seen = f"the first loss is {loss:.4g}, chance gives {expected:.4g}."
        yield Finding("initial-loss", severity, "output", seen, cause, fix, "A46")


def _not_finite(loss: float) -> list[Finding]:
    if np.isfinite(loss):
        return []
    cause, fix = "a loss or an input that overflows.", "look for NaN or huge values in x and y."
    return [
        Finding("initial-loss", "error", "output", f"the first loss is {loss:.4g}.", cause, fix, "A46"),
    ]


def _first_loss(
    loss: float, expected: float, constant: float, *, classes: bool, most: float
) -> tuple[Severity | None, str, str]:
    """How bad the first loss is, its likely cause and what to try; `None` for what is as it should be."""
    if not np.isfinite(loss):
        return "error", "a loss or an input that overflows.", "look for NaN or huge values in x and y."
    judged = judge_first_loss(loss, expected, constant, classes=classes)
    if judged is FirstLoss.LOW and classes:  # Numbers may be near their targets by the shape of the net.
        return (
            "error",
            "a model that is trained already, labels among the inputs, or a loss that does not suit them.",
            "start from a fresh model, and check that y is not part of x.",
        )
    severity: Severity | None = _SEVERITY.get(judged)
    return (
        "error" if loss > most else severity,
        "inputs or initial weights on too large a scale, or a loss that does not suit the output.",
        "standardise x, use He-normal weights for ReLU, and let recipes.compile_for choose the loss.",
    )


def overfit_tiny(
    model: keras.Model,
    x: Any,
    y: Any = None,
    n: int = 20,
    *,
    task: Task | None = None,
    steps: int = 500,
    seed: int = 0,
    budget_s: float = 60.0,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> Report:
    """Whether the model can learn a few samples by heart.

    The model trains on `n` samples as one batch, with its own loss and a fresh
    copy of its optimiser, until every one is right (for regression: until the
    squared error is under 5 % of the targets' variance) or `steps` are over. A
    model that cannot do this will not learn the whole set either, and something
    is broken: the loss, the labels, the output layer, or the gradient's path.

    The model is not changed: weights, statistics, random seeds, optimiser and
    compile state are the same afterwards, bit for bit.

    Args:
        model: A compiled model.
        x: Inputs, or batches with their labels: whatever `preflight` takes.
        y: Labels, `(samples,)` or `(samples, outputs)`, or several of them; left out beside a
            data set, and for a model whose own loss needs none.
        n: How many samples, taken from all classes in turn. Defaults to `20`.
        task: What is predicted. Defaults to `None`, read from labels and loss.
        steps: Most updates of the weights. Defaults to `500`.
        seed: Fixes the choice of samples. Defaults to `0`.
        budget_s: Seconds that the training may take; where they end it, `report.unlooked` says
            so, and nothing is found. Defaults to `60.0`.
        sample_weight: Weights, as for `preflight`. Defaults to `None`.
        class_weight: The weight of each class. Defaults to `None`.

    Returns:
        A report with the figures `accuracy` (of the `n` samples; for regression `r2`; of
        several outputs the lowest), `steps` taken and the last `loss`. Where a sample has a
        label at each step or pixel it is `accuracy of steps`, without what is masked or weighs
        nothing, and a tenth of a constant answer's mistakes may stay; where the labels do not
        say what is right it is `fall`, that of the loss as a share of the first.

    Raises:
        ValueError: If the model is not compiled, its optimizer cannot be copied,
            `n` or `steps` is not positive, or data and task do not fit.

    Source:
        A47; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    _check_compiled(model)
    n, steps = check_positive_integer("n", n), check_positive_integer("steps", steps)
    if not budget_s > 0:
        raise ValueError(f"budget_s must be a positive number of seconds. Got {budget_s!r}.")
    budget = Budget(time.monotonic() + budget_s)
    train = _samples(model, x, y, sample_weight, class_weight, task)
    if not trains_itself(model):
        copied_optimizer(model)
    looking = Looking()
    report = Report(tuple(_beyond_tables(model, train)))
    if report.findings:
        return report
    with looking.part("the training on a few samples"):
        _build(model, train)
        train = train.take(tiny_rows(model, train, task, fixed_batch(model) or n, seed))
        with preserved(model):
            learned = learn_by_heart(model, train, task, steps, budget)
        report = learned.report(len(train), steps)
    findings = report.findings
    if looking.problems:
        findings += tuple(plain_step_findings(OwnTraining(model, train, len(train)), looking))
    return Report(findings, report.figures, (*report.unlooked, *looking.unlooked))


def _check_compiled(model: keras.Model) -> None:
    if not model.compiled:
        raise ValueError("The model must be compiled, since its loss is checked. Got an uncompiled model.")


def _samples(
    model: keras.Model,
    x: Any,
    y: Any,
    weight: Any,
    class_weight: Mapping[int, float] | None,
    task: Task | None,
) -> Samples:
    """What `fit` would train on, as `preflight` reads it."""
    _check_compiled(model)
    steps = _MAX_BATCHES if isinstance(x, Iterator) else None
    alone = not compares_labels(model)
    train = samples_of(x, y, weight, class_weight=class_weight, steps=steps, alone=alone)
    if task is not None and len(train.labels) == 1:
        task.check(train.labels[0])
    return train


def _beyond_tables(model: keras.Model, train: Samples) -> list[Finding]:
    """Lookups that raise, with which there is nothing else to be seen."""
    with lookups_kept_inside(model, train) as lookups:
        return [found for found in index_range(lookups, train) if found.severity == "error"]


def _build(model: keras.Model, train: Samples) -> None:
    """Makes a model's variables; one that trains by a step of its own need not be callable for that."""
    try:
        built(model, train.take(slice(0, 1)).fed)
    except ForwardPassError as problem:
        if not trains_itself(model):
            raise problem.problem from problem


def _data_loss(model: keras.Model, train: Samples, heads: tuple[Head, ...], outputs: Any) -> float:
    """The compiled loss alone, so that no penalty can hide it, however large."""
    if len(heads) == 1 and train.weight is None and not computes_loss_itself(model) and train.y is not None:
        output = np.asarray(keras.tree.flatten(outputs)[0])
        probe = probe_of(heads[0].loss, heads[0].labels, output)
        value = None if probe is None else probe.value(heads[0].labels, output)
        if value is not None:
            return value
    return data_loss(model, train.fed, train.y, keras.tree.map_structure(_tensor, outputs), train.weight)


def _tensor(values: Any) -> Any:
    return keras.ops.convert_to_tensor(values)


def _chance(head: Head, task: Task | None) -> Array:
    """What a model would put out that knows nothing."""
    probabilities = any(word in loss_name(head.loss) for word in ("crossentropy", "focal", "dice", "poisson"))
    regression = task.kind == "regression" if task is not None else not probabilities
    if regression or bool(getattr(head.loss, "from_logits", False)):
        return np.zeros_like(head.outputs)
    shared = head.units > 1 and _one_of_many(head, task)
    return np.full_like(head.outputs, 1 / head.units if shared else 0.5)


def _one_of_many(head: Head, task: Task | None) -> bool:
    """Whether the units share one probability."""
    return task.kind == "multiclass" if task is not None else "categorical" in loss_name(head.loss)
