"""Hand-written losses: is the best output the best, is the gradient there, are the ends of the range safe."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_practice.checks.findings import Finding
from keras_practice.checks.inspection.context import CheckContext
from keras_practice.checks.inspection.loss_probe import sigmoid, softmax
from keras_practice.checks.inspection.own_loss import computed_loss
from keras_practice.checks.inspection.pairs import Pair
from keras_practice.checks.inspection.targets import tried_samples
from keras_practice.core.types import Array
from keras_practice.core.variables import restored

_SURE = 4.0  # Logits of a probability of 0.98: sure, and far from where anything overflows.
_UNSURE = 0.02  # The same as a probability.
# How far outputs without a bound are driven: ten times what the model puts out already.
_FURTHER = 10.0
_MIN_FURTHER = 20.0  # Logits of trained classifiers reach this.
_TWICE = 0.02  # How near to 2 the ratio of the losses of a doubled and a single batch must be.


def computable(pair: Pair, context: CheckContext) -> Finding | None:
    """Whether the loss can be computed, and is finite, on the very outputs of the model."""
    if not np.all(np.isfinite(pair.outputs)) or not np.all(np.isfinite(pair.sampled)):
        return None
    complaint = pair.probe.complaint(pair.sampled, pair.outputs)
    if complaint and not _raises_in_a_step(context):
        return None  # It is asked for in another way than the one that was tried.
    if complaint:
        # A hand-written loss may be made for one size of batch.
        return pair.finding(
            "output-loss",
            "warning" if pair.probe.own else "error",
            f"{pair.probe.name} raised on labels of shape {pair.sampled.shape} and outputs of shape "
            f"{pair.outputs.shape}, where a number is expected: {complaint}",
            "a loss that does not suit the output.",
            "call the loss on a batch of labels and outputs by hand.",
        )
    value = pair.probe.value(pair.sampled, pair.outputs)
    if value is not None and not np.isfinite(value):
        return pair.finding(
            "output-loss",
            "error",
            f"{pair.probe.name} is {value} for outputs from {pair.outputs.min():.4g} to "
            f"{pair.outputs.max():.4g}; a finite number is expected.",
            "a logarithm, root or division in the loss that the outputs or labels take out of its range.",
            "bound the argument, as in ops.log(ops.maximum(p, keras.config.epsilon())).",
        )
    return None


def _raises_in_a_step(context: CheckContext) -> bool:
    """Whether the model cannot compute its loss of the samples whose outputs are known."""
    samples = tried_samples(context)
    outputs = keras.tree.map_structure(tf.convert_to_tensor, context.forward_pass.outputs)
    with restored(context.model.metrics_variables):
        try:
            computed_loss(context.model, samples.fed, samples.y, outputs, samples.weight)
        except Exception:  # A loss of the user's own may raise anything.
            return True
    return False


def written_by_hand(pair: Pair) -> Iterator[Finding]:
    """Faults of a hand-written loss, the first that applies."""
    if not pair.probe.own or not np.all(np.isfinite(pair.outputs)) or not np.all(np.isfinite(pair.sampled)):
        return
    for rule in (_flat, _blind, _upside_down, _overflows):
        found = rule(pair)
        if found is not None:
            yield found
            return


def reduction(pair: Pair) -> Finding | None:
    """Whether the loss of a batch grows with the number of samples in it."""
    once = pair.probe.value(pair.sampled, pair.outputs)
    twice = pair.probe.value(np.concatenate([pair.sampled] * 2), np.concatenate([pair.outputs] * 2))
    if not once or twice is None or not np.isfinite(once) or not abs(twice / once - 2) < _TWICE:
        return None
    return pair.finding(
        "loss-reduction",
        "warning",
        f"a batch that holds every sample twice has {twice / once:.3g} times the loss of the batch; "
        "once is expected.",
        "a loss that adds up the samples, so that the batch size scales the learning rate.",
        "take the mean over the samples (reduction 'sum_over_batch_size').",
    )


def _flat(pair: Pair) -> Finding | None:
    """No gradient, or one that is zero whatever the output."""
    gradients = [pair.probe.gradient(pair.sampled, outputs) for outputs in (pair.outputs, *_legal(pair))]
    if pair.probe.value(pair.sampled, pair.outputs) is None:
        return None
    known = [gradient for gradient in gradients if gradient is not None]
    if known and any(gradient.any() for gradient in known):
        return None
    return pair.finding(
        "output-loss",
        "error",
        f"the gradient of {pair.probe.name} by the outputs is {'zero' if known else 'missing'} on "
        f"{len(gradients)} different sets of outputs; another number is expected.",
        "a loss that leaves the outputs out, or takes them through argmax, round or numpy.",
        "compute the loss from y_pred with operations that have a gradient.",
    )


def _blind(pair: Pair) -> Finding | None:
    """A gradient that is the same for every label, though the labels differ."""
    rows = pair.sampled.reshape(len(pair.sampled), -1)
    others = np.flatnonzero(np.any(rows != rows[0], axis=1))
    if not len(others):
        return None
    outputs = next(iter(_legal(pair)))
    # The same labels in another order: a loss of the whole batch, such as a correlation, needs all of them.
    reordered = np.roll(pair.sampled, len(rows) - others[0], axis=0)
    one, two = (pair.probe.gradient(y, outputs) for y in (pair.sampled, reordered))
    if one is None or two is None or not np.allclose(one, two, rtol=1e-5, atol=0):
        return None
    first, other = (np.repeat(pair.sampled[i : i + 1], len(rows), axis=0) for i in (0, others[0]))
    values = [pair.probe.value(y, outputs) for y in (first, other)]
    used = values[0] != values[1]
    pull, other_pull = (pair.probe.gradient(y, outputs) for y in (first, other))
    differs = (
        pull is not None and other_pull is not None and not np.allclose(pull, other_pull, rtol=1e-5, atol=0)
    )
    if used and differs:
        return pair.finding(
            "loss-reduction",
            "error",
            f"{pair.probe.name} stays the same when the labels of a batch change places; "
            "a loss that compares each sample with its own label is expected.",
            "a mean over the batch that is taken before labels and outputs are compared.",
            "compare first, sample by sample, and take the mean last.",
        )
    return pair.finding(
        "output-loss",
        "error" if used else "warning",
        f"{pair.probe.name} has the same gradient by the outputs whatever the labels; one that changes "
        "with them is expected.",
        "labels that cancel out, as in a mean of differences without a square."
        if used
        else "a loss that leaves the labels out.",
        "square the difference, or take its absolute value."
        if used
        else "compare y_pred with y_true, unless the labels are placeholders.",
    )


def _upside_down(pair: Pair) -> Finding | None:
    """A loss that is lower for wrong outputs than for right ones."""
    found = _right_and_wrong(pair)
    if found is None or pair.probe.family != "own":
        return None
    right, wrongs = found
    best = pair.probe.value(pair.sampled, right)
    worse = [pair.probe.value(pair.sampled, wrong) for wrong in wrongs]
    if best is None or not np.isfinite(best):
        return None
    known = [value for value in worse if value is not None and np.isfinite(value)]
    if len(known) < len(worse) or any(value >= best - 1e-6 * abs(best) for value in known):
        return None
    # A distance between two inputs is small for a pair that belongs together, and its loss is
    # never negative; a wrong sign turns a loss that is never negative below zero.
    negative = min(known) < 0
    if not negative and pair.last not in ("softmax", "sigmoid"):
        return None
    if negative and _is_linear(pair, right):
        return None  # A critic's score.
    return pair.finding(
        "output-loss",
        "error" if negative or pair.last == "softmax" else "warning",
        f"{pair.probe.name} is {best:.4g} for outputs that agree with the labels and {min(known):.4g} for "
        "others; the lower number is expected for those that agree.",
        "a missing minus sign, or a score in place of a loss.",
        "turn the sign of the loss." if negative else "use 1 minus the score, unless outputs are distances.",
    )


def _overflows(pair: Pair) -> Finding | None:
    bounded = pair.last in ("softmax", "sigmoid")
    for what, outputs in _extremes(pair):
        value, gradient = pair.probe.value(pair.sampled, outputs), pair.probe.gradient(pair.sampled, outputs)
        # Roots have no gradient at 0, which outputs without a bound never hit.
        slope = bounded and gradient is not None and not np.all(np.isfinite(gradient))
        if value is None or (np.isfinite(value) and not slope):
            continue
        shown = "gradient is not finite" if np.isfinite(value) else f"value is {value}"
        return pair.finding(
            "output-loss",
            "error" if bounded else "warning",
            f"the {shown} for {what}, which {pair.last or 'the last layer'} can put out in float32; "
            "a finite number is expected.",
            f"a logarithm, exponential or division in {pair.probe.name} without a bound.",
            "bound the argument, as in ops.log(ops.maximum(p, keras.config.epsilon())).",
        )
    return None


def _legal(pair: Pair) -> Iterator[Array]:
    """Outputs that the last activation can give, at random."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        raw: Array = np.asarray(rng.normal(size=pair.outputs.shape))
        spread = max(float(pair.outputs.std()), 1.0)
        if pair.last == "softmax":
            yield softmax(raw)
        elif pair.last == "sigmoid":
            yield sigmoid(raw)
        elif pair.last in ("relu", "softplus", "exponential", "relu6"):
            yield np.abs(raw) * spread
        elif pair.last in ("tanh", "softsign"):
            yield np.tanh(raw)
        else:
            yield raw * spread


def _one_hot(pair: Pair) -> Array | None:
    """The right answer as zeros and ones in the outputs' shape; `None` if the labels are no classes."""
    labels = pair.matched
    if labels is not None:
        rows = pair.last != "softmax" or np.all(labels.sum(axis=-1) == 1)
        return labels.astype(np.float32) if rows and np.all((labels == 0) | (labels == 1)) else None
    classes = pair.sampled[..., 0] if pair.sampled.ndim == pair.outputs.ndim else pair.sampled
    if classes.shape != pair.outputs.shape[:-1] or not np.all(classes == np.round(classes)):
        return None
    if classes.min() < 0 or classes.max() >= pair.units:
        return None
    return np.asarray(np.eye(pair.units, dtype=np.float32)[classes.astype(int)])


def _right_and_wrong(pair: Pair) -> tuple[Array, list[Array]] | None:
    one_hot = _one_hot(pair)
    if one_hot is None:
        labels = pair.matched
        if labels is None or pair.last in ("softmax", "sigmoid"):
            return None
        right = labels.astype(np.float32)
        if not np.ptp(right):
            return None
        return right, [2 * right.mean(axis=0) - right]
    rolled = np.roll(one_hot, 1, axis=-1) if pair.units > 1 and pair.matched is None else 1 - one_hot
    if pair.last == "softmax":
        rolled = np.roll(one_hot, 1, axis=-1)
    if pair.last in ("softmax", "sigmoid"):
        return _sure(one_hot, rolled)
    if pair.last is not None:
        return None
    return _SURE * (2 * one_hot - 1), [_SURE * (2 * rolled - 1)]


def _sure(right: Array, wrong: Array) -> tuple[Array, list[Array]]:
    """Probabilities that are sure of the right answer, and of the wrong one."""
    low, high = _UNSURE, 1 - _UNSURE
    return np.clip(right, low, high), [np.clip(wrong, low, high)]


def _is_linear(pair: Pair, outputs: Array) -> bool:
    none, once, twice = (pair.probe.value(pair.sampled, factor * outputs) for factor in (0, 1, 2))
    if none is None or once is None or twice is None:
        return False
    return bool(np.isclose(twice - none, 2 * (once - none), rtol=1e-3))


def _extremes(pair: Pair) -> Iterator[tuple[str, Array]]:
    """The ends of what the output can reach, right and wrong."""
    if pair.last in ("softmax", "sigmoid"):
        one_hot = _one_hot(pair)
        if one_hot is None:
            return
        yield "sure and right outputs, exactly 0 and 1", one_hot
        wrong = np.roll(one_hot, 1, axis=-1) if pair.last == "softmax" else 1 - one_hot
        yield "sure and wrong outputs, exactly 0 and 1", wrong
    elif pair.linear:
        far = max(_MIN_FURTHER, _FURTHER * float(np.abs(pair.outputs).max()))
        signs = np.where(np.indices(pair.outputs.shape).sum(axis=0) % 2, 1.0, -1.0)
        for outputs in (far * signs, -far * signs):
            yield f"outputs of {far:.3g} and {-far:.3g}", outputs
