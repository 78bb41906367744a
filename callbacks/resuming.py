"""Training that goes on where the death of its process broke it off."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.files import replacing
from keras_practice.core.private_api.keras import (
    batch_spec_of_fit,
    batches_of_fit,
    begin_fit_at,
    move_to_front,
    siblings,
)
from keras_practice.core.steps import build_for
from keras_practice.core.types import Array
from keras_practice.core.variables import all_variables

Arrays = dict[str, Array]
Json = Any

_FORMAT = "keras_practice.resumable 1"
# Keras turns the sign of `min_delta` when it first reads the score, and will do so again.
_NOT_MEMORY = frozenset(("params", "min_delta"))

_finished_fits: Counter[Path] = Counter()


def resumable(
    path: str | Path, *, replay: bool = True, sink: Callable[[str], Any] = print
) -> keras.callbacks.Callback:
    """Lets a `fit` that was killed, at whatever moment, go on when its script is run again.

    After every epoch the whole state of training is written to `path`. The same
    script run again takes it from there, trains the epochs that are missing, and
    ends as the undisturbed run does: with the same weights, history and early
    stopping. When `fit` ends well, early stopping included, the file is deleted,
    and the script run once more trains anew; after an error or Ctrl-C it stays.

    Brought back are the model's variables (weights, batch-norm statistics, seeds
    of dropout), the optimizer's (its step, learning rate and slots), Python's and
    numpy's global random states, the order of the data, and the memory of the other
    callbacks in the list: attributes that have changed since `fit` began and are
    numbers, strings, booleans, `None`, numpy arrays, or lists, tuples and
    dictionaries of these.

    Not brought back are the place within an epoch (a broken epoch is trained
    again), random operations of TensorFlow that have no seed, other optimizers
    than the compiled one, validation data that are drawn from the generator
    of the training data, and the clock of a `TimeBudget`. Files that other callbacks
    write are theirs: a `CSVLogger` needs `append=True`. On a GPU the rest of the
    training differs from the undisturbed run as any two runs on it do.

    When a process calls `fit` several times with one path, the second writes
    to `run-2.npz` beside `run.npz`, and so on: the script run again finds for each
    `fit` its own. A tuner skips trials that it has finished, so that this count fails:
    give each trial a path of its own.

    Args:
        path: File for the state, such as `"runs/first.npz"`. Folders are made.
        replay: Whether the batches of the finished epochs are drawn once more,
            without training, so that a data pipeline comes to the state in which it was.
            That is exact for every pipeline whose randomness is seeded, and
            costs the time of reading the data. Without it the pipeline begins
            anew: the orders of the first epochs come again, and a generator starts
            at its beginning. Defaults to `True`.
        sink: Called with a sentence when training goes on from the file. Defaults
            to `print`.

    Returns:
        A callback for `fit`, at any place in the list.

    Raises:
        ValueError: If `path` is a folder; at the beginning of `fit`, if the file is
            damaged or of another model, in which case it is left as it is, or if the
            model is not built and cannot be from the shapes of a batch.

    Source:
        A55 (a pipeline that is whole); `keras.callbacks.BackupAndRestore`, which
        brings back the variables and the epoch alone.
    """
    if Path(path).is_dir():
        raise ValueError(f"path must be that of a file. Got the folder {str(path)!r}.")
    return _Resumable(path, replay, sink)


class _Resumable(keras.callbacks.Callback):
    """Saves the state at the end of every epoch, and restores it at the beginning of `fit`."""

    def __init__(self, path: str | Path, replay: bool, sink: Callable[[str], Any]) -> None:
        super().__init__()
        self._path_of_first = Path(path)
        self._replay = replay
        self._sink = sink
        self._forget()

    def _forget(self) -> None:
        self._saved: tuple[Json, Arrays] | None = None
        self._fresh: dict[str, Json] | None = None
        self._finished = 0

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras with the model; moves this callback to the head of its list.

        There, the beginning of an epoch is the exact end of the one before.
        """
        super().set_model(model)
        move_to_front(self)
        self._beside = siblings(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the file, if there is one, and has `fit` begin at its epoch."""
        self._forget()
        # Else there is nothing to restore.
        if not build_for(self.model, batch_spec_of_fit(self.model)):
            raise ValueError(
                "A resumable model must be built before fit, as by keras.Input, where it cannot be built "
                "from the shapes of a batch. Got an unbuilt one."
            )
        self._path = _path_of_this_fit(self._path_of_first)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _delete_parts(self._path)
        if self._path.exists():
            self._saved = _read(self._path)
            _check_variables(self._path, *self._saved, self.model)
        begin_fit_at(self.model, self._saved[0]["epoch"] if self._saved else None)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restores what was read, once all callbacks have begun; later, saves the epoch before."""
        if self._fresh is not None:
            self._finished += 1
            self._save(epoch)
            return
        begin_fit_at(self.model, None)
        self._fresh = {name: _memory(callback)[0] for name, callback in self._others()}
        if self._saved is None:
            return
        state = self._saved[0]
        if epoch != state["epoch"]:
            raise RuntimeError(f"Keras's fit must go on at epoch {state['epoch']}. Got epoch {epoch}.")
        self._sink(f"Going on at epoch {epoch + 1} from {self._path}; delete that file to train anew.")
        if self._replay:
            _replay(self.model, state["finished"])
        self._restore()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Deletes the file."""
        if self._saved is not None:  # All epochs were done before.
            self._restore()
        begin_fit_at(self.model, None)
        self._path.unlink(missing_ok=True)
        _finished_fits[self._path_of_first.resolve()] += 1

    def _others(self) -> list[tuple[str, keras.callbacks.Callback]]:
        """The other callbacks, named by class and place among their class."""
        names: Counter[str] = Counter()
        others = []
        for callback in self._beside:
            if not isinstance(callback, _Resumable):
                name = f"{type(callback).__module__}.{type(callback).__qualname__}"
                names[name] += 1
                others.append((f"{name} {names[name]}", callback))
        return others

    def _save(self, epoch: int) -> None:
        fresh = self._fresh or {}
        arrays: Arrays = {}
        state = {
            "format": _FORMAT,
            "epoch": epoch,
            "finished": self._finished,
            "variables": [
                [name, _encode(variable.numpy(), arrays)] for name, variable in _variables(self.model)
            ],
            "callbacks": {},
            "random": _encode(random.getstate(), arrays),
            "numpy": _encode(np.random.get_state(), arrays),
        }
        for name, callback in self._others():
            memory, memory_arrays = _memory(callback, unlike=fresh.get(name))
            state["callbacks"][name] = memory
            arrays.update(memory_arrays)
        _write(self._path, state, arrays)

    def _restore(self) -> None:
        assert self._saved is not None
        (state, arrays), self._saved = self._saved, None
        for (_, variable), (_, value) in zip(_variables(self.model), state["variables"], strict=True):
            variable.assign(tf.cast(_decode(value, arrays), variable.dtype))
        for name, callback in self._others():
            memory = state["callbacks"].get(name, {})
            vars(callback).update({attribute: _decode(value, arrays) for attribute, value in memory.items()})
        random.setstate(_decode(state["random"], arrays))
        np.random.set_state(_decode(state["numpy"], arrays))
        self._finished = state["finished"]


def _replay(model: keras.Model, epochs: int) -> None:
    """Draws the batches of whole epochs just as `fit` draws them, without training.

    Nothing less is exact: a data set that repeats has one iterator for all epochs, a
    generator and a cache change as they are read, and a `PyDataset` counts its epochs.
    """
    batches = batches_of_fit(model)
    if batches is None:
        raise RuntimeError("Batches can be drawn again in Keras's own fit alone, else with replay=False.")
    for _ in range(epochs):
        with batches.catch_stop_iteration():
            for *_, iterator in batches:
                if sum(1 for _ in itertools.islice(iterator, model.steps_per_execution)) == 0:
                    raise StopIteration  # As the training function does at an early end.


def _variables(model: keras.Model) -> list[tuple[str, tf.Variable]]:
    """All that training changes in a model and its optimizer; metrics begin every epoch at zero.

    On several devices each has an entry of its own: their batch-norm statistics differ.
    """
    on_devices = model.distribute_strategy.experimental_local_results
    return [
        (_name(variable), part) for variable in all_variables(model) for part in on_devices(variable.value)
    ]


def _name(variable: keras.Variable) -> str:
    """A variable's path without the numbers that Keras counts up when a model is built once more."""
    return re.sub(r"_\d+(?=[_/]|$)", "", variable.path)


def _check_variables(path: Path, state: Json, arrays: Arrays, model: keras.Model) -> None:
    saved = [(name, _decode(value, arrays).shape) for name, value in state["variables"]]
    present = [(name, tuple(variable.shape)) for name, variable in _variables(model)]
    for theirs, ours in itertools.zip_longest(saved, present):
        if theirs != ours:
            raise ValueError(
                f"{path} must be of this model and optimizer; delete it to train anew. "
                f"Got {theirs} for {ours}."
            )


def _memory(
    callback: keras.callbacks.Callback, unlike: dict[str, Json] | None = None
) -> tuple[dict[str, Json], Arrays]:
    """A callback's plain attributes, encoded; without those that are just as in `unlike`."""
    memory: dict[str, Json] = {}
    arrays: Arrays = {}
    for attribute in vars(callback).keys() - _NOT_MEMORY:
        found: Arrays = {}
        with suppress(TypeError):
            code = _encode(vars(callback)[attribute], found)
            if unlike is None or attribute not in unlike or unlike[attribute] != code:
                memory[attribute] = code
                arrays.update(found)
    return memory, arrays


def _encode(value: Any, arrays: Arrays) -> Json:
    """A plain value for JSON, its arrays put into `arrays` under names that stand for their content.

    Equal values have equal codes, and an array that occurs twice is stored once.

    Raises:
        TypeError: If the value is not plain.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_encode(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [_encode(item, arrays) for item in value]}
    if type(value) is dict:
        return {"dict": [[_encode(key, arrays), _encode(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        array = np.asarray(value)
        if array.dtype.kind == "V":  # bfloat16 and its like, which files of numpy do not know.
            array = array.astype(np.float32)
        content = f"{array.dtype.str} {array.shape}".encode() + array.tobytes()
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        arrays[name] = array
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    raise TypeError(f"A plain value must be a number, text, array or collection. Got {type(value).__name__}.")


def _decode(code: Json, arrays: Arrays) -> Any:
    """The value that `_encode` was given."""
    if isinstance(code, list):
        return [_decode(item, arrays) for item in code]
    if not isinstance(code, dict):
        return code
    [(kind, content)] = code.items()
    if kind == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    if kind == "dict":
        return {_decode(key, arrays): _decode(item, arrays) for key, item in content}
    return arrays[content].copy() if kind == "array" else arrays[content][()]


def _write(path: Path, state: Json, arrays: Arrays) -> None:
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)
    contents: dict[str, Any] = {"state": text, **arrays}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **contents)


def _read(path: Path) -> tuple[Json, Arrays]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as contents:
            arrays = {name: contents[name] for name in contents.files}
        state = json.loads(arrays.pop("state").tobytes())
        if state["format"] != _FORMAT:
            raise ValueError(f"format {state['format']!r}")
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a whole file of a resumable fit; delete it to train anew. Got {error}."
        ) from error
    return state, arrays


def _path_of_this_fit(path: Path) -> Path:
    """The path for the first `fit` of the process; for each that follows a finished one, one of its own."""
    finished = _finished_fits[path.resolve()]
    return path.with_name(f"{path.stem}-{finished + 1}{path.suffix}") if finished else path


def _delete_parts(path: Path) -> None:
    """Deletes what processes that were killed while they wrote the file have left of it."""
    for part in path.parent.glob(f".{escape(path.stem)}.*.part{escape(path.suffix)}"):
        part.unlink(missing_ok=True)
