"""What was built, as text: two models with the same signature compute the same but for some numbers.

Those numbers are the learning rate and the `places` of `numbers`; the initial weights are
not part of it either. A model of which not everything is known has no signature.
"""

from __future__ import annotations

import json
import re
from typing import Any

import keras

from keras_practice.core.private_api.keras import excludes_weights
from keras_practice.training.traced_numbers import NumberSlot, hidden, places

# State outside variables and configs, or code that a config does not tell.
_OPAQUE = {
    "Lambda",
    "TFSMLayer",
    "JaxLayer",
    "FlaxLayer",
    "TorchModuleWrapper",
    "Normalization",
    "Discretization",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
    "__lambda__",
    "function",
}
_OVERRIDABLE = (
    "call",
    "train_step",
    "test_step",
    "compute_loss",
    "compute_metrics",
    "make_train_function",
    "make_test_function",
    "train_function",
    "test_function",
)


def signature(model: keras.Model) -> str | None:
    """Everything about a compiled model that a trained graph depends on.

    Returns:
        Text that is the same for models that can share a graph; `None` for a model that
        is unbuilt or not compiled, runs eagerly, on several devices or in another float
        type than float32, or has parts that are neither Keras's own nor of this package.

    Source:
        Keras's own serialisation.
    """
    try:
        if not _is_plain(model):
            return None
        found = places(model)
        with hidden(found):
            parts = {
                "model": keras.saving.serialize_keras_object(model),
                "optimizer": keras.saving.serialize_keras_object(model.optimizer),
                "compiled": {
                    key: value for key, value in model.get_compile_config().items() if key != "optimizer"
                },
            }
            # Compiling is told apart from the model, and the optimiser's rate is a variable.
            parts["model"].pop("compile_config", None)
            if isinstance(parts["optimizer"]["config"]["learning_rate"], float):
                parts["optimizer"]["config"]["learning_rate"] = "a variable"
            # The optimiser's own name has no effect, and grows with every one that is made.
            parts["optimizer"]["config"].pop("name", None)
            if not _is_known(parts):
                return None
            parts = _renamed(parts, _counted_names(parts["model"]))
            parts |= {
                "numbers": [(type(place.owner).__name__, place.attribute) for place in found],
                "who has which": _owned(model, found),
                "variables": [(tuple(v.shape), str(v.dtype), bool(v.trainable)) for v in model.variables],
                "jit_compile": bool(model.jit_compile),
                # By these, data and losses may be told which output they are for.
                "names": [names for names in _names_of_ends(model) if len(names) > 1],
                "keras": (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()),
            }
            return json.dumps(parts, sort_keys=True)
    except Exception:  # Anyone's `get_config` may raise anything: then the model is not understood.
        return None


def _counted_names(part: Any) -> dict[str, str]:
    """Names such as `dense_7`, in which Keras counts layers ever made, by the layer's place in this model."""
    found: dict[str, str] = {}

    def look(part: Any) -> None:
        for inner in part.values() if isinstance(part, dict) else part:
            if isinstance(inner, (dict, list, tuple)):
                look(inner)
        if isinstance(part, dict) and isinstance(part.get("config"), dict):
            name, kind = part["config"].get("name"), _snake_case(str(part.get("class_name")))
            if isinstance(name, str) and re.fullmatch(rf"{kind}(_\d+)?", name):
                found.setdefault(name, f"{kind} {len(found)}")

    look(part)
    return found


def _snake_case(name: str) -> str:
    """A class's name as Keras makes layers' names of it."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _renamed(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, dict):
        return {names.get(key, key): _renamed(value, names) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_renamed(value, names) for value in part]
    return names.get(part, part) if isinstance(part, str) else part


def _names_of_ends(model: keras.Model) -> list[list[str]]:
    inputs = [str(tensor.name) for tensor in keras.tree.flatten(model.inputs)]
    return [inputs, list(map(str, getattr(model, "output_names", ())))]


def _owned(model: keras.Model, found: list[NumberSlot]) -> list[int]:
    """Which penalty, by its place, each weight and layer has: one may serve several."""
    owners = [id(place.owner) for place in found]
    penalties = [variable.regularizer for variable in model.trainable_variables]
    penalties += [getattr(layer, "activity_regularizer", None) for layer in model.layers]
    return [owners.index(id(penalty)) if id(penalty) in owners else -1 for penalty in penalties]


def _is_plain(model: keras.Model) -> bool:
    return bool(
        model.built
        and model.compiled
        and not model.run_eagerly
        and isinstance(model.optimizer, keras.optimizers.Optimizer)
        and model.distribute_strategy.num_replicas_in_sync == 1
        and not excludes_weights(model.optimizer)
        and all(vars(model).get(name) is None for name in _OVERRIDABLE)
        and all(
            variable.dtype in ("float32", "int32", "int64", "uint32", "bool") for variable in model.variables
        )
        and all(layer.compute_dtype == "float32" for layer in model.layers)
    )


def _is_known(part: Any) -> bool:
    """Whether every object of a config is Keras's own or of this package, and tells all of itself."""
    if isinstance(part, (list, tuple)):
        return all(map(_is_known, part))
    if not isinstance(part, dict):
        return True
    if "class_name" in part:
        home, registered = str(part.get("module") or ""), str(part.get("registered_name") or "")
        ours = registered.startswith("keras_practice>")
        keras_own = home == "keras" or home.startswith("keras.") or home == "builtins"
        internal = str(part["class_name"]).startswith("__")
        if part["class_name"] in _OPAQUE or not (ours or keras_own or internal):
            return False
    return not part.get("stateful") and all(map(_is_known, part.values()))
