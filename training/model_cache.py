"""Trials that share what was traced.

Every trial's model is built by the user's own `build(hp)`, from the trial's own seed. If
a model that computes the same was built before (see `signature`), the trial is run on
that one: it gets the new one's weights, random states and numbers, and a fresh optimiser,
and so is the new one in everything but the graphs that it has already (see `epochs`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_practice.core.private_api.keras import learning_rate_schedule
from keras_practice.core.variables import all_variables, assign_unchecked, read_values
from keras_practice.training.batches import DeviceArrays
from keras_practice.training.epoch_fit import EpochFit
from keras_practice.training.signature import signature
from keras_practice.training.traced_numbers import places


class ModelCache:
    """Models of earlier trials, to run later ones on.

    Args:
        most: Number of models that are kept, those used last. Defaults to `8`.
        most_bytes: Size of all their variables together, which is kept to unless there
            is one model alone. Defaults to half a gigabyte.
    """

    def __init__(self, most: int = 8, most_bytes: int = 2**29) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._arrays = DeviceArrays()
        self._prepared: dict[str, _Prepared] = {}
        self._known: tuple[int, ...] = ()
        self._given_up = 0

    def has_models(self) -> bool:
        """Whether any model is kept."""
        return bool(self._prepared)

    def has_changed(self) -> bool:
        """Whether functions were traced, or models given up, since the last time that this was asked."""
        now = tuple(sorted(one.version for one in self._prepared.values()))
        changed, self._known = now != self._known, now
        return changed

    def has_given_up(self) -> bool:
        """Whether several models were given up since it last said so."""
        enough = self._given_up >= 4
        if enough:
            self._given_up = 0
        return enough

    @contextlib.contextmanager
    def model_for(self, built: keras.Model) -> Iterator[keras.Model]:
        """The model to train in the place of one that was just built.

        Yields:
            A model that gives the same results: one of an earlier trial, or, where there
            is none that computes the same, the built one.
        """
        key = signature(built)
        if key is None or (built.optimizer.built and int(np.array(built.optimizer.iterations))):
            yield built
            return
        # Out of the table for as long as it runs: what has failed half-way is not used again.
        prepared = self._prepared.pop(key, None)
        if prepared is None:
            prepared = _Prepared(built, self._arrays)
        else:
            prepared.become(built)
        yield prepared.model
        if not prepared.is_whole(key):
            self._given_up += 1
        else:
            self._prepared[key] = prepared
            while len(self._prepared) > 1 and (
                len(self._prepared) > self._most
                or sum(one.bytes for one in self._prepared.values()) > self._most_bytes
            ):
                del self._prepared[next(iter(self._prepared))]
                self._given_up += 1


class _Prepared:
    """A model that can become any other of its signature."""

    def __init__(self, model: keras.Model, arrays: DeviceArrays) -> None:
        self.model = model
        self._optimizer = model.optimizer
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._fresh = read_values(model.optimizer.variables)
        self.bytes = sum(int(np.prod(variable.shape)) * 8 for variable in all_variables(model))
        self._fit = EpochFit(model, arrays)

    @property
    def version(self) -> int:
        """A number that another model, or this one traced anew, does not have."""
        return self._fit.version

    def become(self, other: keras.Model) -> None:
        """Takes over everything by which two models of one signature differ."""
        mine, optimizer = self.model, self.model.optimizer
        assign_unchecked(mine.variables, (source.value for source in other.variables))
        for place, wanted in zip(places(mine), places(other), strict=True):
            place.set(wanted.get())
        fresh: list[Any] = self._fresh
        if other.optimizer.built:
            fresh = [variable.value for variable in other.optimizer.variables]
        assign_unchecked(optimizer.variables, fresh)
        if learning_rate_schedule(other.optimizer) is None:
            optimizer.learning_rate = float(np.array(other.optimizer.learning_rate))

    def is_whole(self, key: str) -> bool:
        """Whether the model is still what it was: compiled once, and of the same structure."""
        return self.model.optimizer is self._optimizer and signature(self.model) == key
