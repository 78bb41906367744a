"""What is wrong with a measurement, beside the CPU's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_practice.gpu_check.cases import Case, Mode

HEAVY = re.compile(r"MatMul|Conv\dD|CudnnRNN|FusedBatchNorm|MaxPool|AvgPool")
# Of predictions, to the largest of them. float32 has 24 bits, and its sums are made in another order; float16
# has 11 bits and bfloat16 8, whose errors of 1/2048 and 1/256 add up from layer to layer.
APART = {"float32": 1e-3, "mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}
# What is compared of monitors and sweeps, and how far it may be apart, as in `distance`. The search ends
# after some epochs of training, in which differences of the last digit grow.
FIGURES = {
    "monitor, mlp": 1e-2,
    "monitor, rnn": 1e-2,
    "scores, mlp": 5e-2,
    "sweep, mlp": 2e-2,
    "sweep, rnn": 2e-2,
    "search": 1e-1,
}


def judge(
    case: Case, mode: Mode, device: str, seen: Mapping[str, Any], reference: Mapping[str, Any]
) -> list[str]:
    """What is wrong with a measurement on `device`, in sentences; empty where all of it holds."""
    wrong = []
    first, last = seen["losses"]
    if not (math.isfinite(first) and math.isfinite(last) and last < first):
        wrong.append(f"the loss must fall, and went from {first:.3g} to {last:.3g}")
    heavy = [(name, place) for name, place, _ in seen["operations"] if HEAVY.search(name)]
    if elsewhere := sorted({f"{name} on {place or 'no device'}" for name, place in heavy if place != device}):
        wrong.append(f"not on {device}: {', '.join(elsewhere)}")
    for wanted in case.heavy:
        if not any(wanted in name for name, place in heavy if place == device):
            wrong.append(f"no {wanted} ran on {device}")
    if case.cudnn and seen["xla"]:
        wrong.append("Keras must not use XLA where cuDNN runs the net")
    elif not case.cudnn and bool(mode.xla) != seen["xla"]:
        wrong.append(f"XLA must be {'on' if mode.xla else 'off'}")
    apart = distance(seen["predictions"], reference["predictions"])
    if not apart <= APART[mode.policy]:
        wrong.append(
            f"predictions are {apart:.2g} of the largest from the CPU's, at most {APART[mode.policy]:g}"
        )
    return wrong


def distance(one: list[float], other: list[float]) -> float:
    """The largest difference of two lists over the largest number in the second; NaN for NaN."""
    if len(one) != len(other):
        return math.inf
    return float(np.abs(np.subtract(one, other)).max() / max(1e-6, np.abs(other).max()))


def judge_figures(seen: Mapping[str, list[float]], reference: Mapping[str, list[float]]) -> list[str]:
    """Which monitors, sweeps and searches say something else than on the CPU."""
    wrong = []
    for name, most in FIGURES.items():
        apart = distance(seen[name], reference[name])
        if not apart <= most:
            wrong.append(f"{name}: {apart:.2g} of the largest from the CPU's, at most {most:g}")
    return wrong


def judge_several(operations: Mapping[tuple[str, str], int], devices: list[str]) -> list[str]:
    """On which of several devices a training under a strategy ran no heavy operation."""
    busy = {place for name, place in operations if HEAVY.search(name)}
    return [f"nothing heavy ran on {device}" for device in devices if device not in busy]
