"""What can be wrong with the data that a model is to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import sklearn.ensemble

from keras_practice.checks.anatomy import Call, Head, anatomy_of
from keras_practice.checks.report import Finding, Severity
from keras_practice.checks.rows import Rows
from keras_practice.checks.subject import Check, Subject, loss_name, task_of
from keras_practice.data import Task

Array = np.ndarray[Any, Any]

_ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}

# Figures of scale and of duplicates settle long before this many rows.
_LOOK = 2_000
# Tables this wide are images laid flat, counts of words and the like, where some columns never move.
_WIDE = 32
# Below this many rows a share or a correlation says little.
_FEW_ROWS = 20

# He-normal weights pass a unit scale on as 1.4, and features of deviation 10 as 14; units beyond this
# start where a sigmoid is shut (e^-15).
_LOUD = 15.0
# Here a softmax is sure of its guess, and its gradient (e^-45) is below what float32 resolves beside 1.
_DEAFENING = 45.0
# With plain gradient descent, how far a unit moves grows with the square of the input; 0.1 is what a bold
# rate of 0.1 does on standardised inputs.
_BOLD_STEP = 10.0
# The length of a sample's deviation from the mean: a unit output needs weights of one over this, and
# weights start below 1.
_FAINT, _SILENT = 0.1, 0.01
# A mean this many deviations from 0 makes the loss surface as many squared times longer than wide.
_OFFSET, _FAR_OFFSET = 30.0, 300.0
# Columns of deviation 0.1 and 10 are healthy side by side.
_UNEVEN = 100.0
# A row this loud beside ordinary rows is an outlier or a code for "missing".
_OUTLIER = 100.0

_LINEAR_LOSSES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh", "mse", "mae")
_STRETCHED_BY_ERROR = ("mean_squared_error", "mse")
_BOUNDED = ("sigmoid", "tanh", "softmax", "softsign", "hard_sigmoid", "relu6")
# A target within ten units of 0 is within reach of any head.
_NEAR = 10.0
# Epochs spent on finding the scale alone: more than a short fit has, and more than a long one has.
_SHORT_FIT, _LONG_FIT = 20, 100
_FEWEST_STEPS = 100
_LONG_STEPS = 2_000

# Neighbours, linear and forest each need this many standard errors to count as signal (p = 0.01) ...
_SIGNAL = 2.33
# ... and all below this (p = 0.2) to count as chance.
_CHANCE = 0.84
_FEWEST_TO_JUDGE = 100
_ENOUGH_TO_BE_SURE = 500

_SCALE_SOURCE = "A38; LeCun, Bottou, Orr and Mueller 1998, 'Efficient BackProp'; He et al. 2015"
_SCALE_FIX = (
    "standardise the columns with the training set's mean and deviation, or adapt a "
    "keras.layers.Normalization and put it first (pixels: keras.layers.Rescaling(1 / 255))."
)


@dataclass(frozen=True)
class _Target(Head):
    """An output with what it predicts: stated by the user for the first, else as its labels say."""

    task: Task | None


def _targets(subject: Subject) -> list[_Target]:
    first, *others = subject.heads
    return [_Target(**vars(first), task=subject.task), *(_Target(**vars(h), task=task_of(h)) for h in others)]


# ---- NaN and infinity


def non_finite_data(subject: Subject) -> Iterable[Finding]:
    """NaN or infinity among inputs, labels and sample weights, in every row.

    A model that replaces NaN itself, before any layer with weights, is left alone.

    Source:
        A53.
    """
    found = []
    for where, array, is_input, rows in _all_arrays(subject):
        bad = _bad_entries(array)
        if bad is None or (is_input and _replaced_by_the_model(subject, rows, bad)):
            continue
        flat = _flat(bad)
        lines: Array = np.any(flat, axis=1)
        column = f", column {int(flat.any(axis=0).argmax())}" if flat.shape[1] > 1 else ""
        own_loss = not is_input and any(h.loss is not None and not _of_keras(h.loss) for h in subject.heads)
        found.append(
            Finding(
                "non-finite-data",
                "warning" if own_loss else "error",
                where + column,
                f"{int(flat.sum()):,} NaN or infinite values in {int(lines.sum()):,} of {len(lines):,} rows, "
                f"the first in row {int(lines.argmax())}, where 0 are expected.",
                "missing values, or a division by zero or a logarithm of zero when the data were prepared.",
                "drop or fill in these rows before training; one NaN turns every weight into NaN.",
                "A53; Karpathy 2019, 'A recipe for training neural networks'",
            )
        )
    return _sorted(found)


def _all_arrays(subject: Subject) -> Iterator[tuple[str, Array, bool, Rows]]:
    for role, rows in (("training", subject.train), ("validation", subject.val)):
        if rows is None:
            continue
        for name, array in rows.inputs.items():
            yield f"{role} {name}", array, True, rows
        for name, array in _named(rows.y, "y").items():
            yield f"{role} {name}", array, False, rows
        if rows.weight is not None:
            yield f"{role} sample weights", rows.weight, False, rows


def _bad_entries(array: Array) -> Array | None:
    """Where an array is not finite; `None` if it is everywhere."""
    if array.dtype.kind not in "fc":
        return None
    with np.errstate(all="ignore"):
        # One sum finds NaN and infinity in a pass; only its own overflow needs the second look.
        total = array.sum(dtype=np.float32 if array.dtype.itemsize == 2 else None)
    if np.isfinite(total):
        return None
    bad: Array = np.logical_not(np.isfinite(array))
    return bad if bad.any() else None


def _replaced_by_the_model(subject: Subject, rows: Rows, bad: Array) -> bool:
    lines = np.flatnonzero(_flat(bad).any(axis=1))[:4]
    calls = anatomy_of(subject.model, rows.take(lines).x).calls
    weighted = [call for call in calls if call.layer.weights]
    return bool(weighted) and all(np.isfinite(a).all() for call in weighted for a in _numbers(call.inputs))


def _of_keras(loss: Any) -> bool:
    function = getattr(loss, "fn", loss)
    owner = function if hasattr(function, "__name__") else type(function)
    return isinstance(loss, str) or str(owner.__module__).partition(".")[0] == "keras"


# ---- the scale of inputs


@dataclass(frozen=True)
class _Reading:
    """What a layer with weights reads of the data, and what its fresh weights make of it."""

    where: str
    layer: keras.layers.Layer
    values: Array
    gain: float
    softened: bool  # A normalising layer comes next and cancels the scale.


@dataclass(frozen=True)
class _Fault:
    severity: Severity
    evidence: str
    cause: str


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def input_scale(subject: Subject) -> Iterable[Finding]:
    """Inputs on a scale on which fresh weights cannot work, as the first layer with weights meets them.

    Fan-in scaled weights pass a unit scale on as a unit scale; the bounds follow from
    what the units of the first layer then start from. What embeddings, lookups and
    normalising layers take, and what the model rescales itself, is not judged.

    Source:
        A38; LeCun et al. 1998, "Efficient BackProp"; He et al. 2015.
    """
    found = []
    for reading in _readings(subject):
        faults = list(_scale_faults(subject, reading))
        if not faults:
            continue
        fault = min(faults, key=lambda f: _ORDER[f.severity])
        severity: Severity = "info" if reading.softened and fault.severity != "info" else fault.severity
        found.append(
            Finding(
                "input-scale", severity, reading.where, fault.evidence, fault.cause, _SCALE_FIX, _SCALE_SOURCE
            )
        )
    if subject.val is not None:
        found += _other_scale_in_validation(subject.train, subject.val)
    return _sorted(found)


def _readings(subject: Subject) -> Iterator[_Reading]:
    calls, sample = subject.anatomy.calls, _tried(subject)
    arrays = {name: a for name, a in sample.inputs.items() if a.dtype.kind in "biuf"}
    wide = _some_rows(subject.train, subject.seed).inputs
    weighted = [c for c in calls if c.layer.weights and not isinstance(c.layer, keras.layers.Normalization)]
    first = True
    seen: set[tuple[int, str]] = set()
    for i, call in enumerate(weighted):
        numbers = _numbers(call.inputs)
        sources = {name: a for name, a in arrays.items() for b in numbers if _holds(b, a)}
        leads, first = first, False
        # A frozen layer was trained for the scale that it is given.
        frozen = not call.layer.trainable_variables
        if frozen or _normalises(call.layer) or _takes_ids(call.layer) or not numbers:
            continue
        softened = i + 1 < len(weighted) and _normalises(weighted[i + 1].layer)
        gain = _gain(call)
        for name in sources:
            if (id(call.layer), name) not in seen:
                seen.add((id(call.layer), name))
                values = next(b for b in numbers if _holds(b, arrays[name]))
                whole = values.size == arrays[name].size or values.shape[-1] == arrays[name].shape[-1]
                yield _Reading(
                    f"{name} into {call.name}",
                    call.layer,
                    wide[name] if whole else values,
                    gain,
                    softened,
                )
        if leads and not sources:
            yield _Reading(f"input of {call.name}", call.layer, numbers[0], gain, softened)


def _scale_faults(subject: Subject, reading: _Reading) -> Iterator[_Fault]:
    array = reading.values
    if array.size == 0 or (array.ndim < 2 and len(array) < 2):
        return
    rows = _flat(array).astype(np.float64)
    if not np.isfinite(rows).all():
        return
    loudness = np.sqrt(np.mean(rows**2, axis=1))
    typical = float(np.median(loudness))
    yield from _too_loud(subject, reading, typical)
    if len(rows) < _FEW_ROWS:
        return
    if typical * reading.gain <= _LOUD and float(loudness.max()) > _OUTLIER * max(1.0, typical):
        many = int(np.sum(loudness > _OUTLIER * max(1.0, typical)))
        yield _Fault(
            "warning",
            f"{many} of {len(rows):,} rows have values up to {np.abs(rows).max():.3g}, "
            f"where a typical row has {typical:.3g}.",
            "outliers, or a number such as -999 that stands for a missing value.",
        )
    yield from _too_faint(subject, rows)
    yield from _uneven_columns(array)


def _too_loud(subject: Subject, reading: _Reading, typical: float) -> Iterator[_Fault]:
    start = typical * reading.gain
    # A model of one linear layer finds the weights for any scale, slowly.
    deep = len(_layers_with_kernels(subject)) > 1
    if start <= (_LOUD if deep else _DEAFENING):
        return
    optimizer = subject.model.optimizer
    descends = isinstance(optimizer, keras.optimizers.SGD) and not _clips(optimizer)
    diverges = descends and _learning_rate(subject) * typical**2 >= _BOLD_STEP
    severity: Severity = "error" if (start > _DEAFENING and deep) or diverges else "warning"
    yield _Fault(
        severity,
        f"a typical value is {typical:.3g}, so that the first units start at about {start:.3g}, "
        f"where about 1 is expected.",
        "raw values (pixels from 0 to 255, prices, counts) that were not scaled"
        + (
            ", or a Normalization layer that was not adapted."
            if any(isinstance(c.layer, keras.layers.Normalization) for c in subject.anatomy.calls)
            else "."
        ),
    )


def _too_faint(subject: Subject, rows: Array) -> Iterator[_Fault]:
    mean = rows.mean(axis=0)
    spread = float(np.sqrt(np.sum(np.mean((rows - mean) ** 2, axis=0))))
    offset = float(np.linalg.norm(mean))
    if spread <= 1e-7 * max(offset, 1e-30):
        return  # Constant; another check's matter.
    deep = len(_layers_with_kernels(subject)) > 1
    if spread < _FAINT:
        yield _Fault(
            "error" if spread < _SILENT and deep else "warning",
            f"samples differ by {spread:.2g} only (all columns together), where about the square root of "
            f"the number of columns, {math.sqrt(rows.shape[1]):.2g}, is expected.",
            "values in too large a unit, or scaled twice.",
        )
    if offset > _OFFSET * spread:
        yield _Fault(
            "error" if offset > _FAR_OFFSET * spread and deep else "warning",
            f"the mean is {offset / spread:.3g} deviations away from 0, where about 0 to 3 are expected.",
            "values that vary little around a large number, such as years, which were not centred.",
        )


def _uneven_columns(array: Array) -> Iterator[_Fault]:
    if array.ndim > 3:
        return  # The channels of an image share a unit.
    columns = _columns(array).astype(np.float64)
    middle = np.median(columns, axis=0)
    deviations = columns.std(axis=0)
    # A column that is nearly always the same, as a pixel at the border, has no scale to speak of.
    varies = np.mean(columns != middle, axis=0) >= 0.1
    reach = np.abs(columns - middle).max(axis=0)
    if varies.sum() < 2:
        return
    small = int(np.flatnonzero(varies)[reach[varies].argmin()])
    large = int(deviations.argmax())
    ratio = float(deviations[large] / reach[small]) if reach[small] > 0 else 0.0
    if ratio > _UNEVEN:
        yield _Fault(
            "warning",
            f"column {large} has a deviation of {deviations[large]:.3g} and column {small} never moves "
            f"by more than {reach[small]:.3g}: {ratio:.3g} times less, where up to 100 is harmless.",
            "columns in different units side by side; the small ones are not heard.",
        )


def _other_scale_in_validation(train: Rows, val: Rows) -> Iterator[Finding]:
    for name, theirs in val.inputs.items():
        ours = train.inputs.get(name)
        if ours is None or ours.dtype.kind not in "biuf" or theirs.dtype.kind not in "biuf":
            continue
        a, b = _columns(_some(ours)).astype(np.float64), _columns(_some(theirs)).astype(np.float64)
        if a.shape[1] != b.shape[1] or min(len(a), len(b)) < _FEW_ROWS or not _finite(a, b):
            continue
        fault = _shifted(a, b)
        if fault is not None:
            yield Finding(
                "input-scale",
                fault.severity,
                f"validation {name}",
                fault.evidence,
                fault.cause,
                "put validation data through the same scaling, with the training set's figures.",
                "A38, A39; LeCun, Bottou, Orr and Mueller 1998, 'Efficient BackProp'",
            )


def _shifted(train: Array, val: Array) -> _Fault | None:
    deviation = train.std(axis=0)
    varies = deviation > 1e-7 * np.maximum(np.abs(train.mean(axis=0)), 1e-30)
    if not varies.any():
        return None
    train, val, deviation = train[:, varies], val[:, varies], deviation[varies]
    stretch = float(np.median(val.std(axis=0) / deviation))
    shift = float(np.median(np.abs(val.mean(axis=0) - train.mean(axis=0)) / deviation))
    outside = float(np.mean((val < train.min()) | (val > train.max())))
    cause = "validation data that did not go through the scaling that the training data went through."
    seen = (
        f"validation columns have {stretch:.3g} times the training columns' deviation and a mean "
        f"{shift:.3g} deviations away, and {outside:.0%} of their values are outside the training range, "
        f"where about 1, 0 and 0% are expected."
    )
    # Data of another day may drift by a deviation or two; a factor of ten is another unit.
    if stretch > 10 or (0 < stretch < 0.1) or shift > 10:
        return _Fault("error", seen, cause)
    # Among 50 rows of the same source, an extreme one lies outside now and then, not one value in ten.
    if shift > 3 or (outside > 0.1 and len(train) >= 50):
        return _Fault("warning", seen, cause)
    return None


def _holds(read: Array, raw: Array) -> bool:
    """Whether what a layer read is the raw data: all of them, or a part in another shape."""
    if len(read) != len(raw):
        return False
    a, b = _flat(read), _flat(raw).astype(np.float32)
    if a.shape == b.shape:
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    for one, other in zip(a[:4], b[:4], strict=True):
        told = one[one != 0]
        if len(told) and np.isin(told.astype(np.float32), other).mean() < 0.95:
            return False
    return bool(np.any(a[:4] != 0))


def _normalises(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.Normalization):
        return False  # It is followed by what it does.
    return any(v.name in ("gamma", "moving_mean") for v in layer.variables) or isinstance(
        layer, (keras.layers.BatchNormalization, keras.layers.LayerNormalization)
    )


def _takes_ids(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Embedding) or any(v.name == "embeddings" for v in layer.variables)


def _gain(call: Call) -> float:
    """How much louder a layer's units are than its input, by its weights."""
    for variable in call.layer.trainable_variables:
        if "kernel" in variable.name and len(variable.shape) > 1:
            kernel = np.asarray(variable, dtype=np.float64)
            fan_in = kernel.size / kernel.shape[-1]
            gain = math.sqrt(fan_in * float(np.mean(kernel**2)))
            return gain if gain > 0 and math.isfinite(gain) else 1.0
    came, went = _numbers(call.inputs), _numbers(call.outputs)
    loud = max((float(np.sqrt(np.mean(a.astype(np.float64) ** 2))) for a in came), default=0.0)
    return float(np.sqrt(np.mean(went[0].astype(np.float64) ** 2))) / loud if loud and went else 1.0


# ---- the scale of targets


def target_scale(subject: Subject) -> Iterable[Finding]:
    """Regression targets that a linear head cannot reach in the steps that a fit takes.

    Adam moves a weight by about the learning rate a step. With the widths of the
    layers that follows how many steps the output needs to come to the targets' scale.
    Plain gradient descent moves by the error itself and leaps too far instead.

    Source:
        A38; Kingma and Ba 2015.
    """
    found: list[Finding] = []
    for head in _targets(subject):
        task = head.task
        name = loss_name(head.loss)
        if task is None or task.kind != "regression" or name not in _LINEAR_LOSSES or head.activations:
            continue
        y = _flat(head.labels) if head.labels.ndim < 3 else _columns(head.labels)
        if head.outputs.size == 0 or len(y) < 2:
            continue
        y = _some(y).astype(np.float64)
        outputs = _columns(head.outputs).astype(np.float64)
        found += _out_of_reach(subject, head, y, outputs, name)
        found += _unequal_targets(head, y, name)
    return _sorted(found)


def _out_of_reach(subject: Subject, head: _Target, y: Array, outputs: Array, loss: str) -> Iterator[Finding]:
    gap = float(max(np.abs(y.mean(axis=0)).max(), y.std(axis=0).max()))
    if outputs.shape[1] == y.shape[1]:
        gap = float(max(np.abs(y.mean(axis=0) - outputs.mean(axis=0)).max(), y.std(axis=0).max()))
    path = _growing_layers(subject)
    if not path or not path[-1].outputs or not math.isfinite(gap):
        return
    stretched = max(1.0, _loudness(outputs) / max(_loudness(path[-1].outputs[0]), 1e-30))
    gap /= stretched if not np.array_equal(path[-1].outputs[0], head.outputs) else 1.0
    rate = _learning_rate(subject)
    figures = f"targets have mean {y.mean():.3g} and deviation {y.std(axis=0).max():.3g}"
    source = "A38; Kingma and Ba 2015, 'Adam'"
    fix = "standardise the targets with the training set's mean and deviation, and turn predictions back."
    descends = isinstance(subject.model.optimizer, keras.optimizers.SGD)
    if gap > _NEAR and descends and loss in _STRETCHED_BY_ERROR:
        # The error goes back through a layer of unit scale, so that its weights move by rate times error.
        leap = 2 * rate * gap
        if len(_layers_with_kernels(subject)) > 1 and leap > 1 and not _clips(subject.model.optimizer):
            yield Finding(
                "target-scale",
                "error",
                f"y of {head.name}",
                f"{figures}; at a learning rate of {rate:.2g} the first step moves weights by about "
                f"{leap:.2g}, where less than 0.1 is expected.",
                "targets in their own unit, with a squared error and plain gradient descent.",
                fix,
                source,
            )
        return
    steps = _steps_to_reach(path, gap, rate)
    epoch = math.ceil((subject.train.total or len(subject.train)) / subject.batch_size)
    if gap > _NEAR and steps > max(_SHORT_FIT * epoch, _FEWEST_STEPS):
        too_long = steps > max(_LONG_FIT * epoch, _LONG_STEPS)
        yield Finding(
            "target-scale",
            "error" if too_long else "warning",
            f"y of {head.name}",
            f"{figures}; at a learning rate of {rate:.2g} the output needs about {steps:,.0f} steps "
            f"({steps / epoch:,.0f} epochs) to come to that scale, where less than one epoch is expected.",
            "targets in their own unit, far from what a fresh linear output gives (about 1).",
            fix,
            source,
        )
    elif (
        0 < y.std(axis=0).max() < 1e-3
        and y.std(axis=0).max() < rate
        and len(_layers_with_kernels(subject)) > 1
    ):
        yield Finding(
            "target-scale",
            "warning",
            f"y of {head.name}",
            f"{figures}; one step at a learning rate of {rate:.2g} moves the output further than that, "
            f"where a deviation of about 1 is expected.",
            "targets in too large a unit.",
            fix,
            source,
        )


def _unequal_targets(head: _Target, y: Array, loss: str) -> Iterator[Finding]:
    deviations = y.std(axis=0)
    moving = np.flatnonzero(deviations > 1e-7 * np.maximum(np.abs(y).max(axis=0), 1e-30))
    if len(moving) < 2 or loss not in _STRETCHED_BY_ERROR:
        return
    # Pixels and other outputs in one unit may be near-constant; a few numbers side by side should not.
    if len(moving) > 16:
        return
    small, large = (int(moving[f(deviations[moving])]) for f in (np.argmin, np.argmax))
    ratio = float(deviations[large] / deviations[small])
    if ratio > 30:  # Its share of the squared error is below one in a thousand.
        yield Finding(
            "target-scale",
            "warning",
            f"y of {head.name}",
            f"target {large} has a deviation of {deviations[large]:.3g} and target {small} one of "
            f"{deviations[small]:.3g}, {ratio:.3g} times less, where about as much is expected.",
            "targets in different units in one squared error, which then hears only the largest.",
            "standardise each target with the training set's mean and deviation.",
            "A38",
        )


def _growing_layers(subject: Subject) -> list[Call]:
    """The last layers of the net, from the output back to the first whose input has a fixed scale."""
    path: list[Call] = []
    for call in reversed(subject.anatomy.calls):
        if _normalises(call.layer) or (path and call.activation in _BOUNDED):
            break
        if not any("kernel" in v.name for v in call.layer.trainable_variables):
            continue
        recurrent = isinstance(call.layer, (keras.layers.RNN, keras.layers.Bidirectional))
        if recurrent and path:
            break
        path.insert(0, call)
        if recurrent:
            break
    return path


def _steps_to_reach(path: list[Call], gap: float, rate: float) -> float:
    """Steps after which weights that all grow by `rate` a step put out `gap`."""
    came = _numbers(path[0].inputs)
    rows = np.abs(came[0].reshape(-1, came[0].shape[-1]).astype(np.float64)) if came else np.ones((1, 1))
    pushed = float(np.mean(rows.sum(axis=1))) + 1
    for call in path[1:]:
        kernel = next(v for v in call.layer.trainable_variables if "kernel" in v.name)
        pushed *= max(1.0, math.prod(kernel.shape[:-1]) / 2)  # A ReLU passes half of its units on.
    return float((gap / pushed) ** (1 / len(path)) / max(rate, 1e-30))


# ---- features that never change


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def constant_feature(subject: Subject) -> Iterable[Finding]:
    """Columns that have the same value in every row.

    Source:
        A38.
    """
    found = []
    inputs = subject.train.inputs
    for name, array in inputs.items():
        if (
            array.dtype.kind not in "biuf"
            or len(array) < _FEW_ROWS
            or _fed_to_embedding(subject, array, name)
        ):
            continue
        flat = _flat(array)
        # In a wide table some columns never move, which is no more than a remark: a part of it will do.
        flat = _some(flat) if flat.shape[1] > _WIDE else flat
        constant = _constant_columns(flat)
        if len(constant) == flat.shape[1] and len(flat) < len(array):
            flat = _flat(array)
            constant = _constant_columns(flat)
        count, width = len(constant), flat.shape[1]
        if not count:
            continue
        severity, cause = _judge_constant(count, width, array.ndim, len(inputs))
        found.append(
            Finding(
                "constant-feature",
                severity,
                f"{name}, column {int(constant[0])}" if count == 1 else name,
                f"{count:,} of {width:,} features have one value in all {len(flat):,} rows looked at"
                + (f" (first {', '.join(map(str, constant[:5]))})" if 1 < count < width else "")
                + ", where 0 are expected.",
                cause,
                "leave out what never changes; look at how it was read."
                if count < width
                else "look at how x is loaded: nothing can be learnt from it.",
                "A38",
            )
        )
    return _sorted(found)


def _constant_columns(flat: Array) -> Array:
    some = flat[np.linspace(0, len(flat) - 1, min(len(flat), 256)).astype(int)]
    candidates = np.flatnonzero(_still(some))
    if not len(candidates):
        return candidates
    # Few rows at a time: a column that moves is mostly found out by the first thousand.
    for start in range(0, len(flat), 4_096):
        block = flat[start : start + 4_096]
        part = block if len(candidates) == flat.shape[1] else block[:, candidates]
        candidates = candidates[_still(part) & _same(part[0], flat[0, candidates])]
        if not len(candidates):
            break
    return candidates


def _still(block: Array) -> Array:
    low, high = block.min(axis=0), block.max(axis=0)
    return _same(low, high)


def _same(a: Array, b: Array) -> Array:
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    # Rounding when a constant is centred and scaled is no change.
    return np.asarray(np.abs(a - b) <= np.finfo(a.dtype).eps * 4 * np.maximum(np.abs(a), np.abs(b)))


def _judge_constant(count: int, width: int, ndim: int, inputs: int) -> tuple[Severity, str]:
    if count == width:
        if inputs == 1:
            return "error", "inputs that were overwritten, cut off or read from the wrong place."
        return "warning", "an input that was not filled, or one that is not needed."
    if ndim > 2 or width > _WIDE or count > max(2, width / 10):
        return "info", "borders of images, padding or rare words, which is normal."
    return "warning", "a column that carries nothing, or that lost its values when it was read."


# ---- the same rows, or the labels themselves, on both sides


@np.errstate(all="ignore")  # Infinities are the matter of `non_finite_data`.
def leakage(subject: Subject) -> Iterable[Finding]:
    """Training rows that are in the validation data too, and labels that are among the inputs.

    How many rows occur twice within the training set tells how many to expect.

    Source:
        A39; Kaufman et al. 2012, "Leakage in data mining".
    """
    train, val = _splits(subject)
    found: list[Finding] = []
    if val is not None:
        found += _shared_rows(subject, train, val)
    for head in _targets(subject):
        found += _labels_among_inputs(subject, head)
    return _sorted(found)


def _shared_rows(subject: Subject, train: Rows, val: Rows) -> Iterator[Finding]:
    if min(len(train), len(val)) < 10 or set(train.inputs) != set(val.inputs):
        return
    sizes = [(a.shape[1:], val.inputs[name].shape[1:]) for name, a in train.inputs.items()]
    if any(a != b for a, b in sizes) or _covers_its_domain(train):
        return
    asked = val.spread(_LOOK, subject.seed)
    ours, theirs = _keys(train, asked)
    known, first, counts = np.unique(ours, return_index=True, return_counts=True)
    place = np.clip(np.searchsorted(known, theirs), 0, len(known) - 1)
    shared = known[place] == theirs
    twice = float(np.sum(counts[counts > 1])) / len(ours)
    share, count = float(np.mean(shared)), int(np.sum(shared))
    noise = 3 * math.sqrt(max(twice, 1 / len(ours)) / len(asked))
    if count < 3 or share <= twice + max(0.01, noise):
        return
    agree = _same_labels(train.y, asked.y, first[place[shared]], np.flatnonzero(shared))
    yield Finding(
        "leakage",
        "warning",
        "validation x",
        f"{share:.1%} of the validation rows looked at ({count:,} of {len(asked):,}) are training rows too, "
        f"where {twice:.1%} is expected from rows that occur twice in the training set; "
        f"{agree:.0%} of them have the same label in both.",
        "a split after rows were repeated or augmented, or the same data passed twice."
        if agree > 0.5
        else "the same rows with other labels: one of the two sets has its labels out of step.",
        "split by distinct rows (data.from_arrays does) before anything is repeated or augmented.",
        "A39; Kaufman et al. 2012, 'Leakage in data mining'",
    )


def _keys(train: Rows, val: Rows) -> tuple[Array, Array]:
    """A number for each row, equal for equal rows: over a few columns, then all where these agree."""
    few = _hashes(train, val, 16)
    ours, theirs = few
    mine = np.flatnonzero(np.isin(ours, theirs))
    yours = np.flatnonzero(np.isin(theirs, ours))
    spare = np.flatnonzero(_repeated(ours))
    again = np.union1d(mine, spare)
    if len(again):
        full_ours, full_theirs = _hashes(train.take(again), val.take(yours), None)
        ours, theirs = ours.copy(), theirs.copy()
        ours[again], theirs[yours] = full_ours, full_theirs
    return ours, theirs


def _repeated(keys: Array) -> Array:
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse.reshape(-1)] > 1)


def _hashes(train: Rows, val: Rows, most: int | None) -> tuple[Array, Array]:
    sums: list[Array] = [np.zeros(len(train), np.uint64), np.zeros(len(val), np.uint64)]
    rng = np.random.default_rng(0)
    for name, array in train.inputs.items():
        pair = [_flat(a) for a in (array, val.inputs[name])]
        columns = _most_telling(pair[0], most)
        odd = rng.integers(0, 2**63, size=len(columns), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for i, flat in enumerate(pair):
            for start in range(0, len(flat), 8_192):
                block = flat[start : start + 8_192]
                part = block if len(columns) == flat.shape[1] else block[:, columns]
                sums[i][start : start + 8_192] += (_bits(part) * odd).sum(axis=1, dtype=np.uint64)
    return sums[0], sums[1]


def _most_telling(flat: Array, most: int | None) -> Array:
    if most is None or flat.shape[1] <= most:
        return np.arange(flat.shape[1])
    some = flat[np.linspace(0, len(flat) - 1, min(len(flat), 64)).astype(int)]
    if some.dtype.kind not in "biuf":
        return np.linspace(0, flat.shape[1] - 1, most).astype(int)
    return np.sort(np.argsort(-some.astype(np.float64).std(axis=0), kind="stable")[:most])


def _bits(part: Array) -> Array:
    if part.dtype.kind in "biuf":
        # Adding 0 joins 0.0 and -0.0; the product spreads the bits that differ.
        bits = (np.ascontiguousarray(part, dtype=np.float32) + np.float32(0)).view(np.uint32)
        mixed = bits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.asarray(mixed ^ (mixed >> np.uint64(29)))
    return np.asarray([[hash(str(v)) & (2**63 - 1) for v in row] for row in part], dtype=np.uint64)


def _same_labels(ours: Any, theirs: Any, at: Array, there: Array) -> float:
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    same = np.ones(len(at), bool)
    for a, b in pairs:
        a, b = _flat(a[at]), _flat(b[there])
        same &= (a == b).all(axis=1) if a.shape == b.shape else False
    return float(np.mean(same))


def _covers_its_domain(rows: Rows) -> bool:
    """Whether the rows are most of the rows there can be, as with a few yes-or-no columns."""
    domain = 1.0
    if any(math.prod(array.shape[1:]) > _WIDE for array in rows.inputs.values()):
        return False
    some = rows.spread(_LOOK)
    for array in some.inputs.values():
        flat = _flat(array)
        for column in flat.T:
            domain *= len(np.unique(column))
            if domain > 8 * len(rows):
                return False
    distinct = len(np.unique(_hashes(some, some.take(slice(0, 1)), None)[0]))
    return distinct >= domain / 8


def _labels_among_inputs(subject: Subject, head: _Target) -> Iterator[Finding]:
    y = head.labels
    if y.dtype.kind not in "biuf" or y.ndim > 2 or len(y) < _FEW_ROWS or not _finite(y):
        return
    width = sum(math.prod(array.shape[1:]) for array in subject.train.inputs.values())
    count = min(len(y), _enough_rows(width))
    rows = np.sort(np.random.default_rng(subject.seed).choice(len(y), count, replace=False))
    targets = _label_columns(head, y[rows])
    classes = not _is_regression(head)
    for name, array in subject.train.inputs.items():
        flat = _flat(array[rows])
        # An autoencoder's labels are its inputs, and a single column may well decide alone.
        if array.dtype.kind not in "biuf" or flat.shape[1] < 2 or array.size == y.size or not _finite(flat):
            continue
        if _fed_to_embedding(subject, array, name):
            continue
        column = _copy_of(flat, targets, _flat(y[rows]), classes)
        if column is not None:
            yield Finding(
                "leakage",
                "warning",
                f"{name}, column {column}",
                f"this column is a copy of the labels of {head.name} in all {len(rows):,} rows looked at, "
                f"where 0 such columns are expected.",
                "labels left among the inputs, or a column that is known only after the fact.",
                "leave the column out, unless it will be known when the model is used.",
                "A39; Kaufman et al. 2012, 'Leakage in data mining'",
            )


def _copy_of(flat: Array, targets: Array, plain: Array, classes: bool) -> int | None:
    """The column that equals a label, also on another scale."""
    x, t = _unit(flat), _unit(np.concatenate([targets, plain], axis=1) if classes else plain)
    # The correlation of float32 copies is 1 up to about 1e-13. Steps of a series, which are no copies,
    # get close to 1 as well, and classes of few rows do not.
    with np.errstate(all="ignore"):
        copies = np.flatnonzero((np.abs(x.T @ t) > 1 - (1e-5 if classes else 1e-10)).any(axis=1))
    return int(copies[0]) if len(copies) else None


def _unit(columns: Array) -> Array:
    centred = columns.astype(np.float64) - columns.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-9, length, np.inf))


# ---- the order of the rows


def ordered_data(subject: Subject) -> Iterable[Finding]:
    """Rows sorted by label where `fit` would not mix them, or would split before it does.

    Source:
        A39; Bengio 2012, "Practical recommendations".
    """
    found: list[Finding] = []
    for head in _targets(subject)[:1]:
        labels = _one_label_a_row(head)
        if labels is None or len(labels) < _FEW_ROWS:
            continue
        regression = _is_regression(head)
        end = len(_splits(subject)[0])
        if not subject.shuffle:
            found += _unmixed_batches(subject, head, labels[:end], regression)
        if end < len(labels) and subject.val is None:
            split = _other_targets if regression else _other_classes
            found += split(head, labels[:end], labels[end:])
    return _sorted(found)


def _unmixed_batches(subject: Subject, head: _Target, labels: Array, regression: bool) -> Iterator[Finding]:
    size = max(subject.batch_size, 16)
    whole = len(labels) // size * size
    if whole < 2 * size:
        return
    batches = labels[:whole].reshape(-1, size)
    if regression:
        place = np.corrcoef(np.argsort(np.argsort(labels)), np.arange(len(labels)))[0, 1]
        within = float(np.mean(batches.var(axis=1)) / max(float(labels.var()), 1e-30))
        severity: Severity | None = "warning" if abs(place) > 0.95 and within < 0.2 else None
        runs = ""
    else:
        _, codes = np.unique(labels, return_inverse=True)
        codes = codes.reshape(-1)
        classes = int(codes.max()) + 1
        blocks = codes[:whole].reshape(-1, size)
        mixed = 1 - sum(np.mean(blocks == c, axis=1) ** 2 for c in range(classes)) if classes < 200 else None
        chance = (1 - float(np.sum((np.bincount(codes) / len(codes)) ** 2))) * (1 - 1 / size)
        if mixed is None or chance <= 0:
            return
        within = float(np.mean(mixed)) / chance
        changes = int(np.sum(codes[1:] != codes[:-1]))
        runs = f" (the class changes {changes:,} times in {len(codes):,} rows)"
        # Classes that alternate in long stretches may be a recording; one stretch a class is a sorted file.
        severity = None
        if within < 0.5:
            severity = "error" if within < 0.2 and changes < 2 * classes else "warning"
    if severity is not None:
        yield Finding(
            "ordered-data",
            severity,
            f"y of {head.name}",
            f"a batch of {size} holds {within:.0%} of the variety of labels that a random order gives{runs}, "
            f"where about 100% is expected, and shuffle is off.",
            "rows sorted by label, which fit takes as they come: each batch unlearns the one before.",
            "pass shuffle=True, or mix the rows once before training.",
            "A39; Bengio 2012, 'Practical recommendations for gradient-based training'",
        )


def _other_classes(head: _Target, train: Array, val: Array) -> Iterator[Finding]:
    classes = np.union1d(train, val)
    if len(classes) > 1_000:
        return
    counts = np.array([[np.sum(part == c) for c in classes] for part in (train, val)])
    share = len(val) / (len(train) + len(val))
    per_class = counts.sum(axis=0)
    # By chance, all k samples of a class fall on one side with probability share ** k: one in a million.
    unseen = (counts[0] == 0) & (per_class * math.log(share) < math.log(1e-6))
    gone = (counts[1] == 0) & (per_class * math.log(1 - share) < math.log(1e-6))
    expected = per_class * share
    spread = np.sqrt(np.maximum(expected * (1 - share), 1e-9))
    far = float(np.max(np.abs(counts[1] - expected) / spread))
    apart = float(np.abs(counts[0] / len(train) - counts[1] / len(val)).sum()) / 2
    if unseen.any():
        names = ", ".join(f"{c:g}" for c in classes[unseen][:5])
        seen = f"{_count(unseen)} ({names}) in the validation split, never in training"
    elif gone.any():
        names = ", ".join(f"{c:g}" for c in classes[gone][:5])
        seen = f"{_count(gone)} ({names}) in the training split, never in validation"
    elif apart > 0.3 and far > 5:
        seen = (
            f"the shares of the classes differ by {apart:.0%} between the training and the validation split"
        )
    else:
        return
    yield Finding(
        "ordered-data",
        "error" if unseen.any() else "warning",
        f"y of {head.name}",
        f"{seen}, where about 0 is expected of a split at random.",
        "rows sorted by label: validation_split takes the last rows, before any shuffling.",
        "mix x and y together before fit, or pass validation_data from a stratified split.",
        "A39",
    )


def _count(classes: Array) -> str:
    count = int(classes.sum())
    return "1 class" if count == 1 else f"{count} classes"


def _other_targets(head: _Target, train: Array, val: Array) -> Iterator[Finding]:
    labels = np.concatenate([train, val])
    place = abs(float(np.corrcoef(np.argsort(np.argsort(labels)), np.arange(len(labels)))[0, 1]))
    beyond = float(np.mean((val > train.max()) | (val < train.min())))
    if train.std() > 0 and place > 0.95 and beyond > 0.5:
        yield Finding(
            "ordered-data",
            "warning",
            f"y of {head.name}",
            f"{beyond:.0%} of the validation split's targets are outside the range of the training split's, "
            f"where about 0% is expected (rank correlation of target and row {place:.2f}).",
            "rows sorted by target, or a trend in time: validation_split takes the last rows.",
            "mix x and y together before fit; with a trend in time, predict the change instead.",
            "A39",
        )


# ---- rare classes


def class_imbalance(subject: Subject) -> Iterable[Finding]:
    """Classes that are rare, missing, or alone.

    Source:
        A40; He and Garcia 2009, "Learning from imbalanced data".
    """
    found: list[Finding] = []
    for head in _targets(subject):
        if head.loss is None or head.labels.dtype.kind not in "biuf" or not _finite(head.labels):
            continue
        labels = head.labels
        if _is_constant(labels):
            found += _one_value(subject, head, labels)
        elif not _is_regression(head):
            columns = _is_multilabel(head)
            found += _rare_labels(head, labels) if columns else _rare_classes(subject, head, labels)
    return _sorted(found)


def _one_value(subject: Subject, head: _Target, labels: Array) -> Iterator[Finding]:
    classes = any(word in loss_name(head.loss) for word in ("crossentropy", "hinge", "focal"))
    if not classes and (not _of_keras(head.loss) or len(labels) < 2):
        return  # A loss of one's own may not look at its labels.
    # Not everything of a stream was read, and the rest may hold the other classes.
    sure = classes and subject.train.complete and len(labels) >= 2
    yield Finding(
        "class-imbalance",
        "error" if sure else "warning",
        f"y of {head.name}",
        f"all {len(labels):,} labels are the same, where at least 2 different ones are expected.",
        "labels that were overwritten or filtered, or rows sorted by class and cut short.",
        "look at how y is loaded: nothing can be learnt from one class.",
        "A40",
    )


def _rare_classes(subject: Subject, head: _Target, labels: Array) -> Iterator[Finding]:
    codes = _class_codes(head, labels)
    if codes is None:
        return
    known = max(int(codes.max()) + 1, head.units if _is_categorical(head) else 2)
    weight = subject.train.weight
    weights = None
    if weight is not None and weight.ndim == 1 and labels.ndim <= 2 and len(weight) >= len(codes):
        weights = weight[: len(codes)]
    numbers = np.bincount(codes, minlength=known)
    counts = numbers if weights is None else np.bincount(codes, weights, minlength=known)
    present = numbers > 0
    absent = np.flatnonzero(~present)
    # With 20 rows a class, a class of ordinary share is missing once in e^20.
    if len(absent) and len(codes) >= 20 * known and subject.train.complete:
        yield Finding(
            "class-imbalance",
            "warning",
            f"y of {head.name}",
            f"{len(absent)} of the {known} classes that the output knows "
            f"({', '.join(map(str, absent[:5]))}) never occur in {len(codes):,} labels, where all should.",
            "classes numbered from 1 instead of 0, an output with too many units, or rows left out.",
            "number the classes from 0 to C - 1 and give the output C units.",
            "A15, A40",
        )
    share = counts / max(float(counts.sum()), 1e-30)
    rare = int(np.where(present, share, np.inf).argmin())
    fair = 1 / int(present.sum())
    if share[rare] < fair / 10:  # Ten times rarer than an equal share.
        yield _rare_finding(head, f"class {rare}", int(numbers[rare]), len(codes), share[rare], fair, known)


def _rare_labels(head: _Target, labels: Array) -> Iterator[Finding]:
    columns = labels.reshape(-1, labels.shape[-1])
    shares = columns.mean(axis=0, dtype=np.float64)
    rarest = np.minimum(shares, 1 - shares)
    still = np.flatnonzero(rarest == 0)
    if len(still):
        yield Finding(
            "class-imbalance",
            "warning",
            f"y of {head.name}, label {int(still[0])}",
            f"{len(still)} of {len(shares)} labels are never or always set in {len(columns):,} rows, "
            f"where 0 are expected.",
            "labels that no sample carries, or a column that was not filled.",
            "leave these outputs out, or add samples that carry the label.",
            "A40",
        )
    moving = np.where(rarest > 0, rarest, np.inf)
    rare = int(moving.argmin())
    if math.isfinite(moving[rare]) and moving[rare] < 0.01:  # Of a hundred samples, not one.
        count = round(float(moving[rare]) * len(columns))
        yield _rare_finding(head, f"label {rare}", count, len(columns), moving[rare], 0.5, len(shares))


def _rare_finding(
    head: _Target, which: str, count: int, total: int, share: float, fair: float, known: int
) -> Finding:
    return Finding(
        "class-imbalance",
        "warning" if known <= 100 else "info",  # Long tails are the rule among words and species.
        f"y of {head.name}, {which}",
        f"{count:,} of {total:,} labels are {which} (share {share:.2%} with sample weights counted), "
        f"where equal shares would be {fair:.2%}.",
        "a class that is rare by nature, or was lost when the data were prepared.",
        "pass class_weight or sample_weight to fit, or draw the class more often; judge by F1, not accuracy.",
        "A40; He and Garcia 2009, 'Learning from imbalanced data'",
    )


# ---- labels that the inputs do not tell apart


def uninformative_input(subject: Subject) -> Iterable[Finding]:
    """Labels that three quick learners cannot tell from the inputs: noise, or rows out of step.

    Nearest neighbours, ridge regression and a small forest predict each half of up to
    2,000 rows from the other; how well is compared with what permuted labels give.

    Source:
        A53; Ojala and Garriga 2010, "Permutation tests for studying classifier performance".
    """
    found: list[Finding] = []
    for head in _targets(subject)[:2]:
        found += _judge_information(subject, head)
    return _sorted(found)


def _judge_information(subject: Subject, head: _Target) -> Iterator[Finding]:
    y = head.labels
    if y.dtype.kind not in "biuf" or y.ndim > 2 or len(y) < _FEWEST_TO_JUDGE or head.loss is None:
        return
    targets = _label_columns(head, y)
    if not _finite(targets) or _is_constant(targets) or _covers_its_domain(subject.train):
        return
    kinds = [a.dtype.kind for a in subject.train.inputs.values()]
    if any(kind not in "biuf" for kind in kinds):
        return
    rng = np.random.default_rng(subject.seed)
    order = _balanced(targets, _is_regression(head), rng)
    width = sum(math.prod(a.shape[1:]) for a in subject.train.inputs.values())
    # Neighbours need many rows, and many columns cost as much as many rows.
    most = 2_000 if width <= 64 else 1_000
    scores, used = _evidence(subject, targets, order[:most], rng)
    if not scores or max(scores.values()) > _SIGNAL:
        return
    # Chance alone leaves one learner between "chance" and "signal" now and then: ask other rows.
    if max(scores.values()) > _CHANCE and len(order) >= 2 * most:
        scores, used = _evidence(subject, targets, order[most : 2 * most], rng)
        if not scores or max(scores.values()) > _SIGNAL:
            return
    sure = (
        max(scores.values()) <= _CHANCE
        and used >= _ENOUGH_TO_BE_SURE
        and _sees_what_the_model_sees(subject)
        and not _is_discrete(subject.train)
    )
    told = ", ".join(f"{name} {score:+.1f}" for name, score in scores.items())
    yield Finding(
        "uninformative-input",
        "error" if sure else "warning",
        f"x and y of {head.name}",
        f"quick learners tell the labels of {used:,} rows from their inputs no better than "
        f"from shuffled rows (standard errors above chance: {told}), where a signal gives "
        f"more than {_SIGNAL:g}.",
        "labels out of step with their rows (one of x and y shuffled or filtered alone), or random labels.",
        "look at some rows beside their labels, and go back to where x and y were last together.",
        "A53; Ojala and Garriga 2010, 'Permutation tests for studying classifier performance'",
    )


def _evidence(
    subject: Subject, targets: Array, rows: Array, rng: np.random.Generator
) -> tuple[dict[str, float], int]:
    """Standard errors above chance by learner, stopping at the first that is sure; and the rows used."""
    features = _features(subject, subject.train.take(rows))
    if features is None:
        return {}, 0
    wanted = targets[rows].astype(np.float64)
    keep = wanted.std(axis=0) > 0
    if not keep.any() or _is_constant(features):
        return {}, 0
    wanted = (wanted[:, keep] - wanted[:, keep].mean(axis=0)) / wanted[:, keep].std(axis=0)
    wanted = np.clip(wanted, -4, 4)  # No single row decides.
    half = rng.permutation(len(rows)) < len(rows) // 2
    scores: dict[str, float] = {}
    learners: tuple[tuple[str, Callable[[Array, Array], Array]], ...] = (
        ("neighbours", lambda a, b: _neighbours(features, wanted, a, b)),
        ("linear", lambda a, b: _ridge(features, wanted, a, b)),
        ("forest", lambda a, b: _forest(features, wanted, a, b, subject.seed)),
    )
    for name, predict in learners:
        zs = [_above_chance(predict(a, ~a), wanted[~a]) for a in (half, ~half)]
        # The halves are not independent: their mean spreads at most as one of them does.
        scores[name] = float(sum(zs) / 2)
        if scores[name] > 4:
            break
    return scores, len(rows)


def _above_chance(predicted: Array, wanted: Array) -> float:
    """How far agreement is above that of permuted labels, in standard errors of the permutation."""
    p, w = predicted - predicted.mean(axis=0), wanted - wanted.mean(axis=0)
    variance = float(np.sum((p.T @ p) * (w.T @ w))) / max(len(p) - 1, 1)
    return float(np.sum(p * w)) / math.sqrt(variance) if variance > 1e-12 else 0.0


def _neighbours(features: Array, wanted: Array, known: Array, asked: Array, count: int = 7) -> Array:
    there = features[known]
    near = np.sum(there**2, axis=1) - 2 * (features[asked] @ there.T)
    count = min(count, near.shape[1] - 1)
    chosen = np.argpartition(near, count, axis=1)[:, :count]
    return np.asarray(wanted[known][chosen].mean(axis=1))


def _ridge(features: Array, wanted: Array, known: Array, asked: Array) -> Array:
    x, y = features[known], wanted[known]
    wide = x.shape[1] > len(x)
    moments = (x @ x.T if wide else x.T @ x).astype(np.float64)
    # As many columns as rows could learn the rows by heart; the penalty grows with the columns.
    penalty = max(float(np.trace(moments)) * 0.1 / math.sqrt(len(x)), 1e-9)
    moments[np.diag_indices(len(moments))] += penalty
    weights = x.T @ np.linalg.solve(moments, y) if wide else np.linalg.solve(moments, x.T @ y)
    return np.asarray(features[asked] @ weights)


def _forest(features: Array, wanted: Array, known: Array, asked: Array, seed: int) -> Array:
    forest = sklearn.ensemble.ExtraTreesRegressor(
        16, min_samples_leaf=5, max_features="sqrt", random_state=seed, n_jobs=1
    )
    forest.fit(features[known], wanted[known] if wanted.shape[1] > 1 else wanted[known, 0])
    return np.asarray(forest.predict(features[asked])).reshape(int(asked.sum()), -1)


def _features(subject: Subject, rows: Rows) -> Array | None:
    """The inputs as columns of unit scale: numbers as they are, ids counted, sequences summed up too."""
    parts = []
    for name, array in rows.inputs.items():
        if _fed_to_embedding(subject, array, name):
            parts.append(_counted(array))
            continue
        parts.append(_flat(array).astype(np.float32))
        if array.ndim >= 3:
            parts.append(_summed_up(array))
    if any(not _finite(part) for part in parts):
        return None
    return np.concatenate([_standardised(part) for part in parts], axis=1)


def _standardised(columns: Array) -> Array:
    deviation = columns.std(axis=0)
    # A column that hardly ever moves, as a pixel at the border, must not drown the others.
    floor = 0.1 * float(np.median(deviation[deviation > 0])) if np.any(deviation > 0) else 1.0
    scaled = (columns - columns.mean(axis=0)) / np.maximum(deviation, max(floor, 1e-30))
    return np.asarray(np.clip(scaled, -5, 5), dtype=np.float32)


def _summed_up(array: Array) -> Array:
    """What does not depend on where in a sequence or an image it is."""
    values = array.reshape(len(array), -1, array.shape[-1]).astype(np.float32)
    if values.shape[2] > 64:
        values = values.reshape(len(values), -1, 1)
    change = np.diff(values, axis=1) if values.shape[1] > 1 else values
    deviation = values.std(axis=1)
    parts = [
        values.mean(axis=1),
        deviation,
        values.max(axis=1),
        values.min(axis=1),
        np.abs(change).mean(axis=1),
        np.abs(change).max(axis=1),
        change.std(axis=1) / np.maximum(deviation, 1e-6),
        (np.abs(values).max(axis=1)) / np.maximum(deviation, 1e-6),
    ]
    return np.concatenate(parts, axis=1)


def _counted(array: Array) -> Array:
    """How often each id occurs in a row; with few ids, also where."""
    ids = _flat(array).astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")[:300]]
    if len(values) * ids.shape[1] <= 300:
        placed = ids[:, :, None] == values
        return np.asarray(placed.reshape(len(ids), -1), dtype=np.float32)
    by_value = np.argsort(values)
    place = np.clip(np.searchsorted(values[by_value], ids), 0, len(values) - 1)
    hit = values[by_value][place] == ids
    table = np.zeros((len(ids), len(values)), np.float32)
    lines = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    np.add.at(table, (lines[hit], place[hit]), 1)
    return np.sqrt(table)


def _balanced(targets: Array, regression: bool, rng: np.random.Generator) -> Array:
    """Rows in random order, those of rare classes first in turn with the others."""
    order = rng.permutation(len(targets))
    if regression or targets.shape[1] < 1:
        return order
    keys = targets[order].argmax(axis=1) if targets.shape[1] > 1 else targets[order, 0]
    turn = np.empty(len(order))
    for key in np.unique(keys):
        chosen = np.flatnonzero(keys == key)
        turn[chosen] = np.arange(len(chosen))
    return np.asarray(order[np.argsort(turn, kind="stable")])


def _sees_what_the_model_sees(subject: Subject) -> bool:
    """Whether a model has no way to find what columns side by side do not show, as a shape that moves."""
    plain = (keras.layers.Dense, keras.layers.BatchNormalization, keras.layers.Normalization)
    return all(
        isinstance(call.layer, plain) for call in subject.anatomy.calls if call.layer.trainable_variables
    )


def _is_discrete(rows: Rows) -> bool:
    """Whether every column has a few values only, which may hide a parity that no sample shows."""
    for array in rows.spread(500).inputs.values():
        flat = _flat(array)
        if any(len(np.unique(column)) > 4 for column in flat.T[:: max(1, flat.shape[1] // 32)]):
            return False
    return True


# ---- what the checks share


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def _named(nest: Any, letter: str) -> dict[str, Array]:
    if isinstance(nest, dict):
        return {f"{letter}[{name!r}]": values for name, values in nest.items()}
    arrays = keras.tree.flatten(nest)
    return {letter: arrays[0]} if len(arrays) == 1 else {f"{letter}[{i}]": a for i, a in enumerate(arrays)}


def _splits(subject: Subject) -> tuple[Rows, Rows | None]:
    """What `fit` trains on and what it validates on, once `validation_split` has taken its rows."""
    train = subject.train
    end = math.floor(len(train) * (1 - subject.validation_split))
    if subject.val is not None or not train.complete or not 0 < end < len(train):
        return train, subject.val
    return train.take(slice(0, end)), train.take(slice(end, None))


def _tried(subject: Subject) -> Rows:
    """The rows that the anatomy shows."""
    return subject.train.spread(len(subject.heads[0].outputs), subject.seed)


def _enough_rows(width: int) -> int:
    """Rows that settle the figures of each column, fewer where there are many columns."""
    return max(256, min(_LOOK, 400_000 // max(width, 1)))


def _some_rows(rows: Rows, seed: int) -> Rows:
    width = sum(math.prod(array.shape[1:]) for array in rows.inputs.values())
    return rows.spread(_enough_rows(width), seed)


def _some(array: Array) -> Array:
    count = _enough_rows(math.prod(array.shape[1:]))
    if len(array) <= count:
        return array
    return np.asarray(array[np.sort(np.random.default_rng(0).choice(len(array), count, replace=False))])


def _flat(array: Array) -> Array:
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _columns(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)


def _numbers(arrays: Iterable[Array]) -> list[Array]:
    return [a for a in arrays if a.dtype.kind in "biuf" and a.ndim > 0]


def _finite(*arrays: Array) -> bool:
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in arrays)


def _is_constant(array: Array) -> bool:
    return array.size == 0 or bool(np.all(array == array[:1]))


def _loudness(array: Array) -> float:
    return float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))


def _learning_rate(subject: Subject) -> float:
    rate = getattr(subject.model.optimizer, "learning_rate", 1e-3)
    return float(np.asarray(rate))


def _clips(optimizer: Any) -> bool:
    return any(getattr(optimizer, name, None) for name in ("clipnorm", "clipvalue", "global_clipnorm"))


def _layers_with_kernels(subject: Subject) -> set[int]:
    return {
        id(call.layer)
        for call in subject.anatomy.calls
        if any("kernel" in variable.name for variable in call.layer.trainable_variables)
    }


def _fed_to_embedding(subject: Subject, array: Array, name: str) -> bool:
    """Whether an input holds ids that an embedding looks up."""
    raw = _tried(subject).inputs[name]
    if raw.dtype.kind not in "biuf" or not np.array_equal(raw, np.round(raw)):
        return False
    readers = [c for c in subject.anatomy.calls if any(_holds(a, raw) for a in _numbers(c.inputs))]
    return any(_takes_ids(call.layer) for call in readers)


def _is_regression(head: _Target) -> bool:
    task = head.task
    if task is not None:
        return task.kind == "regression"
    return not any(word in loss_name(head.loss) for word in ("crossentropy", "hinge", "focal"))


def _is_multilabel(head: _Target) -> bool:
    task = head.task
    return task is not None and task.kind == "multilabel"


def _is_categorical(head: _Target) -> bool:
    return "categorical" in loss_name(head.loss)


def _class_codes(head: _Target, labels: Array) -> Array | None:
    """The class of each label as an integer; `None` where labels are no classes."""
    task, name = head.task, loss_name(head.loss)
    if "sparse_categorical" in name or (task is not None and task.kind == "binary"):
        codes = labels.reshape(-1)
    elif task is not None and task.kind == "multiclass":
        codes = labels.reshape(-1, labels.shape[-1]).argmax(axis=1) if task.one_hot else labels.reshape(-1)
    elif not _is_regression(head) and labels.size == len(labels):
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)  # Such as -1 and 1 for a hinge.
    else:
        return None
    whole = codes.astype(np.int64)
    return whole if np.array_equal(whole, codes) and whole.min() >= 0 else None


def _one_label_a_row(head: _Target) -> Array | None:
    labels = head.labels
    if labels.dtype.kind not in "biuf" or labels.ndim > 2 or not _finite(labels):
        return None
    if labels.ndim == 1 or labels.shape[1] == 1:
        return labels.reshape(-1)
    task = head.task
    return labels.argmax(axis=1) if task is not None and task.one_hot else None


def _label_columns(head: _Target, labels: Array) -> Array:
    """Labels as columns to predict: one a class, at most 20, or the numbers themselves."""
    columns = _flat(labels)
    codes = None if columns.shape[1] > 1 else _class_codes(head, labels)
    if codes is None or codes.max() < 2:
        return columns[:, :20]
    values, counts = np.unique(codes, return_counts=True)
    values = values[np.argsort(-counts, kind="stable")[:20]]
    return np.asarray(codes[:, None] == values, dtype=np.float32)


CHECKS: tuple[Check, ...] = (
    non_finite_data,
    uninformative_input,
    input_scale,
    target_scale,
    class_imbalance,
    ordered_data,
    leakage,
    constant_feature,
)
