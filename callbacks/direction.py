"""Whether a score is better high or low."""

from __future__ import annotations

import re
from typing import Any, Literal

import keras

Direction = Literal["min", "max"]

# Spelled without capitals and underscores, so that `F1Score` and `f1_score` are one name.
_HIGHER_IS_BETTER = frozenset(
    (
        "acc accuracy binaryaccuracy categoricalaccuracy sparsecategoricalaccuracy topkcategoricalaccuracy "
        "sparsetopkcategoricalaccuracy f1 f1score fbetascore precision recall auc rocauc prauc "
        "precisionatrecall recallatprecision sensitivityatspecificity specificityatsensitivity "
        "truepositives truenegatives iou binaryiou meaniou onehotiou onehotmeaniou r2 r2score "
        "cosinesimilarity pearsoncorrelation concordancecorrelation"
    ).split(" ")
)
_LOWER_IS_BETTER = frozenset(
    (
        "loss mse mae mape msle rmse meansquarederror meanabsoluteerror meanabsolutepercentageerror "
        "meansquaredlogarithmicerror rootmeansquarederror logcosh logcosherror huber crossentropy ce "
        "binarycrossentropy categoricalcrossentropy sparsecategoricalcrossentropy hinge squaredhinge "
        "categoricalhinge kldivergence kullbackleiblerdivergence poisson falsepositives falsenegatives"
    ).split(" ")
)


def direction(score: str, model: keras.Model | None = None) -> Direction:
    """Whether a score in the epoch's logs is better high (`"max"`) or low (`"min"`).

    The score is looked up among the model's compiled metrics first, by the name
    that it was given, and then among the names of Keras's metrics and losses
    and of this package's scores. A `val_` in front, an output's name in front
    and a number behind make no difference.

    Args:
        score: Name in the logs, such as `"val_f1"`.
        model: A compiled model whose metrics may have names of their own.
            Defaults to `None`.

    Raises:
        ValueError: If the score is unknown, since a guess would turn a search
            upside down.
    """
    bare = score.removeprefix("val_")
    kind = _metric_classes(model).get(bare, bare) if model is not None else bare
    words = re.sub(r"_\d+$", "", kind).lower().split("_")
    for start in range(len(words)):
        spelled = "".join(words[start:])
        if spelled in _HIGHER_IS_BETTER:
            return "max"
        if spelled in _LOWER_IS_BETTER:
            return "min"
    raise ValueError(
        f"A score must be known to be better high or low; state it, such as "
        f"keras_tuner.Objective({score!r}, 'max') or mode='max'. Got {score!r}."
    )


def _metric_classes(model: keras.Model) -> dict[str, str]:
    """Class names of a compiled model's metrics by the name that each has in the logs."""
    classes: dict[str, str] = {}

    def visit(entry: Any) -> None:
        if isinstance(entry, dict) and "class_name" in entry:
            config = entry.get("config")
            if isinstance(config, dict) and "name" in config:
                classes[config["name"]] = entry["class_name"]
        elif isinstance(entry, dict):
            for part in entry.values():
                visit(part)
        elif isinstance(entry, (list, tuple)):
            for part in entry:
                visit(part)

    config = model.get_compile_config() if model.compiled else None
    for key in ("metrics", "weighted_metrics"):
        visit((config or {}).get(key))
    return classes
