"""What the monitor's figures mean when they leave the healthy range, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

HEALTHY_UPDATE = (1e-4, 1e-2)

_IN_A_ROW = 3
_ENOUGH = 10
_REMEMBERED = 50
_LARGE_UPDATE, _SMALL_UPDATE = 0.1, 1e-6
_FADED = 1e-4
_JUMP = 100.0
_HALF = 0.5
_WAITING = 0.3
_CALLING = 5e-3  # Below these seconds it is the calling of a step that takes its time, not the input.

Figures = Mapping[str, Sequence[float]]
Symptom = tuple[str, str]


def symptoms(figures: Figures) -> Iterator[Symptom]:
    """What the latest samples show: a name for each symptom, and a sentence or two.

    Args:
        figures: The monitor's history: one number a sample by name.

    Yields:
        `(name, words)`: what was seen, the likely cause, and what to try. Except for
        jumps of the gradient and for clipping, three samples in a row must be
        outside the healthy range.

    Source:
        A41 to A43, A48; Glorot and Bengio 2010 (saturation), Pascanu, Mikolov and
        Bengio 2013 (exploding gradients).
    """
    for look in (_gradient, _dead, _saturated, _updates, _fading, _clipping, _input):  # Causes first.
        for name, words in look(figures):
            yield name, f"step {figures['step'][-1]:.0f}: {words}"


def _gradient(figures: Figures) -> Iterator[Symptom]:
    norms = figures["gradient_norm"]
    # A single one is the search for a scale in mixed precision.
    if len(norms) >= _IN_A_ROW and not np.any(np.isfinite(norms[-_IN_A_ROW:])):
        yield (
            "gradient-not-finite",
            "the gradient is not finite. Either the data hold NaN or infinity, or the training has "
            "exploded: check the data, lower the learning rate, clip the gradient (clipnorm=1.0).",
        )
    if len(norms) > _ENOUGH:
        usual = float(np.nanmedian(norms[-_REMEMBERED:-1]))
        if _JUMP * usual < norms[-1] < math.inf and norms[-1] > max(norms[:_IN_A_ROW]):
            yield (
                "exploding-gradient",
                f"the norm of the gradient jumped to {norms[-1]:.3g}, from {usual:.3g} as a rule. Some steps "
                "are far too large: clip the gradient (clipnorm=1.0), or lower the learning rate.",
            )


def _fading(figures: Figures) -> Iterator[Symptom]:
    layers = [name.partition("/")[2] for name in figures if name.startswith("update_ratio/")]
    if len(layers) < 2:
        return
    first, last = (figures[f"gradient_norm/{layer}"][-_IN_A_ROW:] for layer in (layers[0], layers[-1]))
    share = _most([low / high if high > 0 else math.nan for low, high in zip(first, last, strict=True)])
    if share < _FADED:
        yield (
            "vanishing-gradient",
            f"the gradient of {layers[0]!r} is {share:.1g} times that of {layers[-1]!r}, and the first "
            "layers learn next to nothing. Use relu with he_normal, batch normalisation, or residual "
            "connections.",
        )


def _updates(figures: Figures) -> Iterator[Symptom]:
    ratios = figures["update_ratio"]
    if _least(ratios) > _LARGE_UPDATE:
        yield (
            "large-updates",
            f"a step changes the weights by {ratios[-1]:.0%} of their size, where about 0.1 % is usual. "
            "The learning rate is too high: divide it by 10.",
        )
    # Later on, a learning rate that has run down or a goal that is reached makes them small.
    elif len(ratios) <= _IN_A_ROW and _most(ratios) < _SMALL_UPDATE:
        yield (
            "small-updates",
            f"a step changes the weights by {ratios[-1]:.1g} of their size, where about 1e-3 is usual. "
            "The learning rate is too low (multiply it by 10), or no gradient reaches the weights.",
        )


def _dead(figures: Figures) -> Iterator[Symptom]:
    layer, share = _worst(figures, "dead")
    if share > _HALF:
        yield (
            "dead-units",
            f"at least {share:.0%} of the units of {layer!r} are dead: zero for the whole batch, with no "
            "gradient, and as a rule for good. Lower the learning rate, use he_normal, put batch "
            "normalisation before the activation, or use leaky_relu or elu.",
        )


def _saturated(figures: Figures) -> Iterator[Symptom]:
    layer, share = _worst(figures, "saturated")
    if share > _HALF:
        yield (
            "saturated-units",
            f"at least {share:.0%} of the outputs of {layer!r} are at an end of their range, where the "
            "gradient is next to zero. Scale the inputs, use smaller initial weights (glorot_uniform), "
            "put batch normalisation before the activation, or use relu.",
        )


def _clipping(figures: Figures) -> Iterator[Symptom]:
    clipped = np.asarray(figures["clipped"][-_REMEMBERED:])
    if len(clipped) >= _ENOUGH and clipped.mean() > _HALF:  # False for NaN: there is no clipping.
        limit = np.nanpercentile(figures["norm_to_clip"], 90)
        yield (
            "clipping-most-steps",
            f"{clipped.mean():.0%} of the sampled steps were clipped, so that clipping sets the size of "
            f"the step. It is meant for rare large gradients: a limit of {limit:.2g} would clip one step "
            "in ten.",
        )


def _input(figures: Figures) -> Iterator[Symptom]:
    share = _least(figures["input_wait"])
    if share > _WAITING and share * _least(figures["seconds_per_step"]) > _CALLING:
        yield (
            "waiting-for-input",
            f"at least {share:.0%} of the time goes into waiting for the next batch. Put "
            ".prefetch(tf.data.AUTOTUNE) at the end of the pipeline, .cache() after what is slow, and "
            "map with num_parallel_calls=tf.data.AUTOTUNE.",
        )


def _worst(figures: Figures, fault: str) -> tuple[str, float]:
    """The layer in which a fault is most common, and its share."""
    shares = {
        name.partition("/")[2]: _least(values)
        for name, values in figures.items()
        if name.startswith(f"{fault}/")
    }
    return max(shares.items(), key=lambda pair: np.nan_to_num(pair[1]), default=("", math.nan))


def _least(values: Sequence[float]) -> float:
    """The lowest of the last samples; NaN, outside no range, if one is NaN or they are too few."""
    return min(_last(values))


def _most(values: Sequence[float]) -> float:
    """The highest of the last samples; NaN as in `_least`."""
    return max(_last(values))


def _last(values: Sequence[float]) -> Sequence[float]:
    last = values[-_IN_A_ROW:]
    return [math.nan] if len(last) < _IN_A_ROW or any(map(math.isnan, last)) else last
