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
from collections.abc import Sequence

from keras_practice.checks.findings import Finding, gravest_first
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.own_loss import fits_itself, trains_itself
from keras_practice.checks.looking import Looking
from keras_practice.checks.trials import symptoms
from keras_practice.checks.trials.baseline import baseline_of
from keras_practice.checks.trials.budget import Budget
from keras_practice.checks.trials.case import STEPS, Case
from keras_practice.checks.trials.causes import NOT_LEARNED, POOR
from keras_practice.checks.trials.hypotheses import conclude
from keras_practice.checks.trials.modes import SETTLE_STEPS, batch_leak, train_eval_gap
from keras_practice.checks.trials.own_step import OwnTraining, own_step_findings, plain_step_findings
from keras_practice.checks.trials.short_training import Evaluation, ShortTraining
from keras_practice.checks.trials.suspicions import confirmed, learned_by_heart_alone, pushed_to_death
from keras_practice.checks.trials.symptoms import AFTERWARDS, AT_THE_START
from keras_practice.checks.trials.train_loop import LossCurve, TrainLoop, own_optimizer

# Tracing a training step takes about this many times as long as tracing the forward pass.
_TRACING = 4.0
NO_TIME = "there was no time for it; give more with budget_s."
# Forward passes that a comparison of batches takes, and a training step; steps before any is timed.
_COMPANIES, _STEP, _FEW_STEPS = 4.0, 3.0, 6
# A loss that is still above this share of a constant answer's is worth asking why.
_POOR = 0.5


def behaviour(
    context: CheckContext,
    deadline: float,
    known: Sequence[Finding] = (),
    looking: Looking | None = None,
) -> list[Finding]:
    """Runs the model and trains it for a moment, to see whether it learns, and if not, why.

    Where it does not learn, and neither another rate nor another optimiser would make
    it, what was suspected before is confirmed: a warning in `known` comes back as an error.

    Looks for `initial-loss`, `vanishing-gradient`, `exploding-gradient`, `dead-units`,
    `ignores-input`, `batch-leak`, `learning-rate-high`, `learning-rate-low`,
    `optimizer-config`, `tiny-overfit`, `loss-diverges`, `loss-stuck` and
    `train-eval-gap`; `raises` where the model itself raises an exception in a
    plain training step. A cause that was found is reported without what follows from it.

    Variables, metrics included, are put back after each part. A model that brings its own
    `train_step` is trained by that, with copies of its optimisers.

    Args:
        context: What to look at; the model's variables must be lent before.
        deadline: When to be done, as `time.monotonic()` tells it. The later, costlier parts
            are left out once it is near.
        known: What was found without running. Defaults to none.
        looking: Takes what could not be looked at. Defaults to `None`, nothing does.

    Returns:
        Findings, the most severe first.

    Source:
        A3, A23, A24, A46, A47, A48, A49; Goodfellow, Bengio and Courville 2016, section 11.5.
    """
    looking = Looking() if looking is None else looking
    found: list[Finding] = []
    model, budget = context.model, Budget(deadline)
    own_step = trains_itself(model)
    if fits_itself(model):
        looking.leave_out("fit", f"{type(model).__name__} brings its own, of which the steps alone are run.")
    # What a step of its own makes of labels need not be what the compiled loss makes of them.
    if not own_step or (model.loss is not None and context.train.y is not None):
        with looking.part("the outputs" if own_step else "the short training"):
            training = ShortTraining(context, hold_out=True)
            with training.preserved():
                _examine(training, budget, known, found, looking)
    if own_step:
        own = OwnTraining(model, context.train, context.batch_size, context.seed)
        found += own_step_findings(own, budget, looking)
    elif looking.problems:
        found += plain_step_findings(
            OwnTraining(model, context.train, context.batch_size, context.seed), looking
        )
    return gravest_first(found)


def _examine(
    training: ShortTraining,
    budget: Budget,
    known: Sequence[Finding],
    found: list[Finding],
    looking: Looking,
) -> None:
    """Adds to what was found, in the order in which it is looked for."""
    model, own_step = training.model, trains_itself(training.model)
    if model.optimizer is None:
        return
    # The forward pass was eager and of few samples; what follows is no faster on a large model.
    forward = model_seconds(training.context, len(training.seen))
    if not budget.spares(2 * forward):
        looking.leave_out("the short training", NO_TIME)
        return
    baseline = baseline_of(training)
    if not baseline.start.finite:
        found.append(symptoms.overflowing_start(baseline))
        return
    company = _COMPANIES * model_seconds(training.context, len(training.seen[:32]))
    if not budget.spares(company):
        looking.leave_out("the short training", NO_TIME)
        return
    found += batch_leak(training, AT_THE_START)
    if own_step or not model.trainable_variables:
        return
    optimizer = own_optimizer(model)
    if optimizer is None:
        kind = type(model.optimizer).__name__
        looking.leave_out("the short training", f"{kind} cannot be made anew from its get_config().")
        return
    step = _STEP * model_seconds(training.context, training.batch_size)
    if not budget.allows(_TRACING * baseline.seconds) or not budget.spares(_FEW_STEPS * step):
        found += symptoms.initial_loss(training, baseline, None)
        looking.leave_out("the short training", NO_TIME)
        return
    loop = TrainLoop(training.samples, *optimizer)
    baseline = baseline.probed(training, loop)
    if not math.isfinite(baseline.probe.losses[0]):
        found.append(symptoms.overflowing_start(baseline))
        return
    with training.preserved():
        steps = budget.affordable_steps(lambda count: loop.run(training.order(count), 0.0), STEPS)
    if steps < 1:
        found += symptoms.initial_loss(training, baseline, None)
        found += symptoms.dead_units(training, baseline.start, "warning")
        looking.leave_out("the short training", NO_TIME)
        return
    order = training.order(steps)
    with training.preserved():
        case = Case(training, baseline, budget, loop, order, training.run(loop, order), known)
        others, after = _look_afterwards(case, found)
    found += symptoms.initial_loss(training, baseline, case.run)
    if case.enough:
        found += learned_by_heart_alone(case, others)
    if case.learned:
        _learned(case, found)
    else:
        _not_learned(case, after, found)


def model_seconds(context: CheckContext, rows: int) -> float:
    """About what the model takes for so many samples in inference, by its first forward pass."""
    return context.forward_pass.seconds * rows / max(1, len(context.heads[0].outputs))


def _look_afterwards(case: Case, found: list[Finding]) -> tuple[Evaluation | None, LossCurve | None]:
    """The model as it is after the training: on samples held out, and in a step that changes nothing."""
    training, finite = case.training, case.run.evaluation.finite
    seconds = model_seconds(training.context, len(training.held))
    spared = finite and case.budget.spares(seconds)
    others = training.evaluate(training.held) if len(training.held) and spared else None
    company = _COMPANIES * model_seconds(training.context, len(training.seen[:32]))
    leaks = any(finding.check == "batch-leak" for finding in found)
    if finite and not leaks and case.budget.spares(company):
        found += batch_leak(training, AFTERWARDS)
    if case.learned and case.budget.time_for(SETTLE_STEPS):
        found += train_eval_gap(training, case.baseline, case.loop)
    with training.preserved():
        after = case.loop.run(training.order(1), 0.0) if case.run.curve.finite else None
    return others, after


def _learned(case: Case, found: list[Finding]) -> None:
    """What may be odd with a model that learns, and why it does not learn better."""
    after = case.run.evaluation
    found += symptoms.dead_units(case.training, after, "warning", AFTERWARDS)
    if case.enough and case.run.end > _POOR * abs(case.baseline.reference):
        conclusion = conclude(case, POOR)
        found += conclusion.findings
        if any(finding.check == "capacity" for finding in conclusion.findings):
            found += list(confirmed(case, found))
    found += pushed_to_death(case)


def _not_learned(case: Case, after: LossCurve | None, found: list[Finding]) -> None:
    """Why a model does not learn, from the surest evidence to the least."""
    training, baseline, run = case.training, case.baseline, case.run
    shown = [
        *symptoms.dead_units(training, baseline.start, "error"),
        *symptoms.exploding_gradient(training, baseline, case.known),
    ]
    shown = shown or list(symptoms.ignored_input(training, baseline, run))
    if case.enough:
        shown = shown or list(symptoms.vanishing_gradient(training, baseline, run, after))
    found += shown
    if not _errors(shown):
        conclusion = conclude(case, NOT_LEARNED)
        found[:] = [finding for finding in found if finding.check not in conclusion.replaces]
        found += conclusion.findings
    failed = any(finding.check != "initial-loss" for finding in _errors(found))
    if case.enough and (failed or case.diverged or not case.moved):
        found += list(confirmed(case, found))
    if not _errors(found):
        found += symptoms.dead_units(training, run.evaluation, "warning", AFTERWARDS)
        found += pushed_to_death(case)


def _errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
