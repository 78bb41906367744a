"""The checks that a person runs before every training."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import keras

from keras_practice.checks.catalog import rank_of
from keras_practice.checks.findings import SEVERITIES, Finding, Report
from keras_practice.checks.inspection.context import CheckContext, context_of, validation_of
from keras_practice.checks.inspection.forward_pass import ForwardPassError, built
from keras_practice.checks.inspection.gradients import problems_of
from keras_practice.checks.inspection.lookups import (
    looks_up_elsewhere,
    lookups_in_graph,
    lookups_kept_inside,
)
from keras_practice.checks.inspection.own_loss import compares_labels, trains_itself
from keras_practice.checks.inspection.samples import Samples, samples_of
from keras_practice.checks.looking import Looking, first_line
from keras_practice.checks.rules.all import RULES
from keras_practice.checks.rules.array_type import refused_by_fit
from keras_practice.checks.rules.lookup import index_range
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.examination import NO_TIME, behaviour
from keras_practice.checks.trials.own_step import OwnTraining, own_step_findings, plain_step_findings
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.variables import preserved
from keras_practice.data import Task

# Rules that take a gradient, and what that takes beside a forward pass.
_WITH_GRADIENT = ("disconnected", "ignores-input", "initial-weights")
_BACKWARD = 4.0


def preflight(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    steps: int | None = None,
    validation_data: Any = None,
    validation_steps: int | None = None,
    validation_split: float = 0.0,
    batch_size: int = 32,
    shuffle: bool = True,
    task: Task | None = None,
    budget_s: float = 20.0,
    run: bool = True,
    seed: int = 0,
) -> Report:
    """Looks for what would keep a network from learning, before it is trained.

    Looks at the data, at the labels against the output and its loss, at the layers
    and their first weights, at the optimiser, and then trains a little, each time
    from the same start. The arguments are those of `fit`.

    Weights, batch-norm statistics, the optimiser's slots, the random state of Python
    and NumPy and the order in which a data set goes on are the same afterwards, bit
    for bit. A model that waits for its first batch is built. Only a generator is gone on
    by the batches that were read from it, `steps` at most.

    A model with a `train_step` of its own is trained by that, with copies of its optimisers.
    What could not be looked at, for want of time or by a fault of ours, is said first, in
    `report.unlooked`; then `report.passed` is `None` and not `True`.

    Args:
        model: A compiled model: sequential, functional or subclassed.
        x: Inputs, `(samples, ...)`, or several of them in a list or dict; or a
            `tf.data.Dataset`, `PyDataset` or generator of batches. Ragged and sparse ones are
            handed on as such.
        y: Labels, `(samples,)` or `(samples, outputs)`; left out beside a data set, and for a
            model whose own loss (`add_loss`, `compute_loss`, `train_step`) needs none.
        sample_weight: Weights, `(samples,)` or `(samples, steps)`, or one such array an output.
            Defaults to `None`.
        class_weight: The weight of each class, by its number. Defaults to `None`.
        steps: Batches that are an epoch, `steps_per_epoch` of `fit`; needed for a generator.
            Defaults to `None`, all there are.
        validation_data: A pair `(x, y)`, `(x, y, weights)` or a data set. Defaults to `None`.
        validation_steps: Batches of it that are looked at in `fit`. Defaults to `None`, all.
        validation_split: Share of the last rows that `fit` would hold out, in
            `[0, 1)`. Defaults to `0.0`.
        batch_size: Samples a batch. Defaults to `32`.
        shuffle: Whether `fit` would shuffle. Defaults to `True`.
        task: What is predicted. Defaults to `None`, read from labels and loss.
        budget_s: Seconds that the trainings may take; those that find no time are
            left out. Defaults to `20.0`.
        run: Whether to train at all; structure and data alone are looked at in a
            fraction of a second. Defaults to `True`.
        seed: Fixes the samples chosen. Defaults to `0`.

    Returns:
        A report, most likely root cause first, errors before warnings.

    Raises:
        ValueError: If the model is not compiled, an argument is outside its range, or
            x, y and the weights do not have the same number of samples.

    Source:
        A3, A38, A46, A47, A48, A53; Karpathy 2019, "A recipe for training neural
        networks".
    """
    started = time.monotonic()
    if not model.compiled:
        raise ValueError("The model must be compiled, since its loss is checked. Got an uncompiled model.")
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1). Got {validation_split!r}.")
    batch_size = check_positive_integer("batch_size", batch_size)
    if not budget_s > 0:
        raise ValueError(f"budget_s must be a positive number of seconds. Got {budget_s!r}.")
    alone = not compares_labels(model)
    train = samples_of(x, y, sample_weight, class_weight=class_weight, steps=steps, alone=alone)
    val = validation_of(model, validation_data, validation_steps)
    looking, budget = Looking(), Budget(started + budget_s)
    findings: list[Finding] = list(refused_by_fit(train))
    if findings:  # `fit` itself goes no further.
        return Report(in_order(findings), MappingProxyType({"samples": float(len(train))}))
    try:
        with lookups_kept_inside(model, train) as lookups:
            findings += index_range(lookups, train)
            built(model, train.take(slice(0, 1)).fed)
            with preserved(model):
                context = context_of(
                    model,
                    train,
                    None,
                    validation_data=val,
                    validation_split=validation_split,
                    batch_size=batch_size,
                    shuffle=shuffle,
                    task=task,
                    seed=seed,
                )
                if not lookups and looks_up_elsewhere(context.forward_pass):
                    findings += index_range(lookups_in_graph(model, train), train)
                findings += _without_training(context, budget, looking)
                if run and not _ends_here(findings):
                    findings += behaviour(context, budget.deadline, findings, looking)
                elif looking.problems:
                    findings += plain_step_findings(OwnTraining(model, train, batch_size, seed), looking)
    except ForwardPassError as problem:
        findings += _unseen(model, train, batch_size, seed, budget, problem, looking, run)
    figures = {"samples": float(len(train)), "seconds": time.monotonic() - started}
    return Report(in_order(findings), MappingProxyType(figures), tuple(looking.unlooked))


def _without_training(context: CheckContext, budget: Budget, looking: Looking) -> list[Finding]:
    found: list[Finding] = []
    late: list[str] = []
    # Of as many samples as the forward pass had.
    gradient = _BACKWARD * context.forward_pass.seconds
    for rule in RULES:
        name = rule.__name__.replace("_", "-")
        if not budget.spares(gradient if name in _WITH_GRADIENT else 0.0):
            late.append(name)
            continue
        with looking.part(name):
            found += rule(context)
    if late:
        looking.leave_out(", ".join(late), NO_TIME)
    for problem in problems_of(context):
        looking.problems["the gradient of a batch"] = problem
    return found


def _ends_here(findings: Iterable[Finding]) -> bool:
    """Whether a training would say nothing that is not said already."""
    return any(
        finding.check == "non-finite-data" or (finding.check, finding.severity) == ("index-range", "error")
        for finding in findings
    )


def _unseen(
    model: keras.Model,
    train: Samples,
    batch_size: int,
    seed: int,
    budget: Budget,
    problem: ForwardPassError,
    looking: Looking,
    run: bool,
) -> list[Finding]:
    """What can be said of a model whose forward pass could not be looked at: how its own step goes."""
    training = OwnTraining(model, train, train.batch or batch_size, seed)
    found = list(index_range(lookups_in_graph(model, train), train))
    if not trains_itself(model):
        looking.problems["the forward pass"] = problem.problem
        return found + plain_step_findings(training, looking)
    why = f"the model cannot be called: {first_line(problem.problem)}."
    looking.leave_out("layers and outputs", f"{why} Its own train_step is run." if run else why)
    return found + (own_step_findings(training, budget, looking) if run else [])


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, and among them causes before their symptoms; of one fault the gravest finding.

    Of two that are as grave the last stands: what a training has shown, for what was only
    to be expected. The same fault in more than two layers is one finding.
    """

    def rank(finding: Finding) -> tuple[int, int]:
        return SEVERITIES.index(finding.severity), rank_of(finding.check)

    gravest: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        place = finding.check, finding.where
        if place not in gravest or rank(finding) <= rank(gravest[place]):
            gravest[place] = finding
    return tuple(sorted(_joined(gravest.values()), key=rank))


def _joined(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One finding in place of more than two that differ in their layer alone."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.check, finding.severity, finding.cause), []).append(finding)
    for group in groups.values():
        if len(group) <= 2:
            yield from group
            continue
        where = f"{', '.join(finding.where for finding in group[:3])}" + (
            f" and {len(group) - 3} more" if len(group) > 3 else ""
        )
        yield replace(group[0], where=where, evidence=f"In {group[0].where}: {group[0].evidence}")
