"""Where learning ends, told from the stages that learn and those that do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_practice.checks.after_training.stage_trainings import SOUND_RATE
from keras_practice.checks.after_training.stages import Fault, Stage
from keras_practice.checks.inspection.samples import Samples


def conclude(stages: Sequence[Stage], train: Samples) -> tuple[Fault, str]:
    """Where the fault is, and the same in words, with what to do next."""
    by_key = {stage.key: stage for stage in stages}

    def learned(*keys: str) -> bool:
        return any(by_key[key].learned is True for key in keys if key in by_key)

    def failed(*keys: str) -> bool:
        return any(by_key[key].learned is False for key in keys if key in by_key)

    if failed("two", "few"):
        return _blame_data(by_key, train)
    if learned("own_all"):
        return "none", _praise(by_key, failed("own_few", "model_few"))
    if failed("model_few", "model_two") and failed("own_few"):
        stage = by_key["model_two"] if failed("model_two") else by_key["model_few"]
        return "model", (
            f"Learning ends with your model: it does not learn {stage.data} by heart with a sound optimizer "
            f"({stage.measure} {stage.reached:.3g} after {stage.steps} steps), which a small net does. "
            "The loss, the output layer or the architecture is at fault; checks.preflight looks at these."
        )
    if failed("own_few") and learned("model_few"):
        stage = by_key["own_few"]
        return "optimizer", (
            f"Learning ends with your optimizer: your model learns {stage.data} by heart with Adam "
            f"{SOUND_RATE:g}, and not with {stage.optimizer} in {stage.steps} steps. {_rate_words(stage)}"
        )
    if failed("all") and not learned("own_all"):
        stage = by_key["all"]
        return "labels", (
            "Learning ends where something has to carry over: a small net learns a few samples by heart, "
            f"but on all of them it does no better than chance on validation data ({stage.measure} "
            f"{stage.reached:.3g}, chance {stage.chance:.3g}). The labels may have nothing to do with the "
            "inputs: look for a shuffle of one without the other, or for inputs that lack what is asked for."
        )
    if failed("own_all"):
        stage = by_key["own_all"]
        if learned("model_all"):
            return "optimizer", (
                f"Learning ends with your optimizer on the whole set: with Adam {SOUND_RATE:g} your model "
                f"learns it, with {stage.optimizer} it does not. {_rate_words(stage)}"
            )
        return "training", (
            f"Learning ends at the whole set: your model learns few samples by heart, but reaches "
            f"{stage.measure} {stage.reached:.3g} on validation data after {stage.steps} steps, "
            f"where a small net reaches {by_key['all'].reached:.3g}. Try less regularisation, or a "
            "model between the small net and yours."
        )
    return "unknown", "The time was over before it was clear; give more seconds, or a smaller model."


def _blame_data(by_key: dict[str, Stage], train: Samples) -> tuple[Fault, str]:
    stage = by_key["two"] if by_key.get("two") and not by_key["two"].learned else by_key["few"]
    arrays = keras.tree.flatten(train.x)
    broken = sum(int(np.sum(~np.isfinite(a))) for a in arrays if a.dtype.kind == "f")
    begin = f"Learning does not even begin: a small sound net does not learn {stage.data} by heart"
    if broken:
        return "data", f"{begin}, since {broken:,} input values are NaN or infinite. Remove or replace these."
    rows = np.concatenate([np.reshape(a, (len(a), -1)) for a in arrays], axis=1)
    distinct = len(np.unique(rows, axis=0))
    if distinct < len(rows) // 2:
        return "data", (
            f"{begin}: only {distinct:,} of {len(rows):,} inputs differ from each other. "
            "Look at how the inputs are read."
        )
    fault: Fault = "labels" if stage.key == "few" and "two" in by_key else "data"
    return fault, (
        f"{begin} ({stage.measure} {stage.reached:.3g}). Look at some samples and their labels: equal inputs "
        "with different labels, or inputs without a difference, cannot be learned."
    )


def _praise(by_key: dict[str, Stage], not_by_heart: bool) -> str:
    last = by_key["own_all"]
    words = (
        f"Your model learns: {last.measure} {last.reached:.3g} on validation data after {last.steps} steps, "
        f"where a small net has {by_key['all'].reached:.3g} and chance {last.chance:.3g}."
    )
    if not_by_heart:
        words += (
            " It does not learn few samples by heart: strong regularisation, or a rate that is slow there."
        )
    elif any(r.starts > 1 for r in by_key.values() if r.net == "your model" and r.learned):
        words += " Some rungs needed other initial weights: its present ones may be stuck."
    return words


def _rate_words(stage: Stage) -> str:
    if not math.isfinite(stage.last_loss) or stage.last_loss > stage.first_loss:
        return (
            f"The loss went from {stage.first_loss:.3g} to {stage.last_loss:.3g}: divide the learning rate "
            "by 10, and clip the gradient."
        )
    return (
        f"The loss went from {stage.first_loss:.3g} to {stage.last_loss:.3g}: find the learning rate by a "
        "range test, and begin with ten times as much if the loss still falls."
    )
