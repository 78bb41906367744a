"""Checks of the order of the rows and the shares of the classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from keras_practice.checks.findings import Finding, Severity, gravest_first
from keras_practice.checks.inspection.context import CheckContext, loss_name
from keras_practice.checks.inspection.counted import counted_labels
from keras_practice.checks.inspection.targets import (
    FEW_ROWS,
    Target,
    all_finite,
    class_codes,
    is_categorical,
    is_constant,
    is_multilabel,
    is_regression,
    one_label_a_row,
    targets_of,
)
from keras_practice.checks.rules.leakage import splits_of
from keras_practice.checks.rules.row import of_keras
from keras_practice.core.types import Array


def ordered_data(context: CheckContext) -> Iterable[Finding]:
    """Rows sorted by label where `fit` would not mix them, or would split before it does.

    Source:
        A39; Bengio 2012, "Practical recommendations".
    """
    found: list[Finding] = []
    for head in targets_of(context)[:1]:
        labels = one_label_a_row(head)
        if labels is None or len(labels) < FEW_ROWS:
            continue
        regression = is_regression(head)
        end = len(splits_of(context)[0])
        if not context.shuffle:
            found += _unmixed_batches(context, head, labels[:end], regression)
        if end < len(labels) and context.val is None:
            split = _other_targets if regression else _other_classes
            found += split(head, labels[:end], labels[end:])
    return gravest_first(found)


def _unmixed_batches(
    context: CheckContext, head: Target, labels: Array, regression: bool
) -> Iterator[Finding]:
    size = max(context.batch_size, 16)
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
            sorted_file = within < 0.2 and changes < 2 * classes and not context.train.by_batch
            severity = "error" if sorted_file else "warning"
    if severity is not None:
        yield Finding(
            "ordered-data",
            severity,
            f"y of {head.name}",
            f"a batch of {size} holds {within:.0%} of the variety of labels that a random order gives{runs}, "
            f"where about 100% is expected, and {_how(context)}.",
            "rows sorted by label, which fit takes as they come: each batch unlearns the one before.",
            "mix the rows once, before they are put into batches."
            if context.train.by_batch
            else "pass shuffle=True, or mix the rows once before training.",
            "A39; Bengio 2012, 'Practical recommendations for gradient-based training'",
        )


def _how(context: CheckContext) -> str:
    if context.train.by_batch:
        return "of a PyDataset fit reorders batches, not the rows in them"
    return "shuffle is off"


def _other_classes(head: Target, train: Array, val: Array) -> Iterator[Finding]:
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
        evidence = f"{_count(unseen)} ({names}) in the validation split, never in training"
    elif gone.any():
        names = ", ".join(f"{c:g}" for c in classes[gone][:5])
        evidence = f"{_count(gone)} ({names}) in the training split, never in validation"
    elif apart > 0.3 and far > 5:
        evidence = (
            f"the shares of the classes differ by {apart:.0%} between the training and the validation split"
        )
    else:
        return
    yield Finding(
        "ordered-data",
        "error" if unseen.any() else "warning",
        f"y of {head.name}",
        f"{evidence}, where about 0 is expected of a split at random.",
        "rows sorted by label: validation_split takes the last rows, before any shuffling.",
        "mix x and y together before fit, or pass validation_data from a stratified split.",
        "A39",
    )


def _count(classes: Array) -> str:
    count = int(classes.sum())
    return "1 class" if count == 1 else f"{count} classes"


def _other_targets(head: Target, train: Array, val: Array) -> Iterator[Finding]:
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


def class_imbalance(context: CheckContext) -> Iterable[Finding]:
    """Classes that are rare, missing, or alone.

    Source:
        A40; He and Garcia 2009, "Learning from imbalanced data".
    """
    found: list[Finding] = []
    for head in targets_of(context):
        if head.loss is None or head.labels.dtype.kind not in "biuf" or not all_finite(head.labels):
            continue
        labels = head.labels
        if is_constant(labels):
            found += _one_value(context, head, labels)
        elif not is_regression(head):
            columns = is_multilabel(head)
            found += _rare_labels(head, labels) if columns else _rare_classes(context, head)
    return gravest_first(found)


def _one_value(context: CheckContext, head: Target, labels: Array) -> Iterator[Finding]:
    classes = any(word in loss_name(head.loss) for word in ("crossentropy", "hinge", "focal"))
    if not classes and (not of_keras(head.loss) or len(labels) < 2):
        return  # A loss of one's own may not look at its labels.
    # Not everything of a stream was read, and the rest may hold the other classes.
    sure = classes and context.train.complete and len(labels) >= 2
    yield Finding(
        "class-imbalance",
        "error" if sure else "warning",
        f"y of {head.name}",
        f"all {len(labels):,} labels are the same, where at least 2 different ones are expected.",
        "labels that were overwritten or filtered, or rows sorted by class and cut short.",
        "look at how y is loaded: nothing can be learnt from one class.",
        "A40",
    )


def _rare_classes(context: CheckContext, head: Target) -> Iterator[Finding]:
    one_hot = head.task is not None and head.task.one_hot
    labels, weights = counted_labels(context, head, one_hot)
    codes = class_codes(head, labels)
    if codes is None or not len(codes):
        return
    known = max(int(codes.max()) + 1, head.units if is_categorical(head) else 2)
    numbers = np.bincount(codes, minlength=known)
    counts = numbers if weights is None else np.bincount(codes, weights, minlength=known)
    present = numbers > 0
    absent = np.flatnonzero(~present)
    # With 20 rows a class, a class of ordinary share is missing once in e^20.
    if len(absent) and len(codes) >= 20 * known and context.train.complete:
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


def _rare_labels(head: Target, labels: Array) -> Iterator[Finding]:
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
    head: Target, which: str, count: int, total: int, share: float, fair: float, known: int
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
