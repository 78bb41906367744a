"""What a program of the zoo is, and the list of all of them."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np

from keras_practice.checks.catalog import CATALOG, Group

Kind = Literal["faulty", "advisory", "healthy"]

_GROUP_OF = {check.name: check.group for check in CATALOG if check.group != "curves"}
GROUPS = tuple(group for group in get_args(Group) if group in _GROUP_OF.values())
FIRST_HELD_OUT_SEED = 100


@dataclass(frozen=True)
class Samples:
    """Training samples, and clean ones that tell what was learned.

    Attributes:
        x, y: What `fit` gets.
        x_test, y_test: Other samples, to score on.
        measure: `"classes"` (balanced accuracy), `"labels"` (the same for each of several
            labels) or `"numbers"` (coefficient of determination).
    """

    x: Any
    y: Any
    x_test: Any
    y_test: Any
    measure: Literal["classes", "labels", "numbers"] = "classes"

    def with_x(self, change: Callable[[Any], Any]) -> Samples:
        """The inputs changed, for training and for the test."""
        return Samples(change(self.x), self.y, change(self.x_test), self.y_test, self.measure)

    def with_y(self, change: Callable[[Any], Any]) -> Samples:
        """The labels changed, for training and for the test."""
        return Samples(self.x, change(self.y), self.x_test, change(self.y_test), self.measure)

    def trained_on(self, x: Any, y: Any) -> Samples:
        """Other training samples; the test stays."""
        return Samples(x, y, self.x_test, self.y_test, self.measure)


@dataclass(frozen=True)
class Program:
    """A compiled model, its data, and what else `fit` would be given."""

    model: keras.Model
    samples: Samples
    validation_data: Any = None
    validation_split: float = 0.0
    batch_size: int = 32
    shuffle: bool = True
    task: Any = None
    epochs: int = 20

    def preflight_arguments(self) -> dict[str, Any]:
        """What the checks are given beside model, x and y."""
        return {
            "validation_data": self.validation_data,
            "validation_split": self.validation_split,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "task": self.task,
        }


@dataclass(frozen=True)
class Entry:
    """A program on the list.

    Attributes:
        name: The builder's name with hyphens.
        kind: `"faulty"` (does not learn what it should), `"advisory"` (learns, and has
            something that deserves a warning) or `"healthy"`.
        group: Where it is counted: the group of its first cause, or the kind of healthy program.
        causes: The checks that name the true cause; any of them will do.
        builder: `(seed) -> Program`; faulty ones also take `fault=False`, for the repaired twin.
    """

    name: str
    kind: Kind
    group: str
    causes: tuple[str, ...]
    builder: Callable[..., Program]

    @property
    def about(self) -> str:
        """One line on what it is."""
        return (inspect.getdoc(self.builder) or "").splitlines()[0]

    @property
    def held_out(self) -> bool:
        """Whether it is kept from those who choose thresholds: a third of all names, by a checksum."""
        return zlib.crc32(self.name.encode()) % 3 == 0

    def part(self, seed: int) -> str:
        """`"blind"`, `"held-out"` or `"tuning"`; high seeds of the latter are always held out."""
        if self.builder.__module__.startswith("zoo.blind"):
            return "blind"
        return "held-out" if self.held_out or seed >= FIRST_HELD_OUT_SEED else "tuning"

    @property
    def has_twin(self) -> bool:
        """Whether it can be built without its fault."""
        return "fault" in inspect.signature(self.builder).parameters

    def build(self, seed: int, **options: Any) -> Program:
        """Builds it from a clean state; equal seeds give equal programs."""
        keras.config.set_dtype_policy("float32")
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        return self.builder(seed, **options)


ENTRIES: dict[str, Entry] = {}
Builder = Callable[..., Program]


def faulty(*causes: str) -> Callable[[Builder], Builder]:
    """Lists a program that does not learn; `causes` are the checks that would name the reason."""
    return _listed("faulty", _GROUP_OF[causes[0]], causes)


def advisory(*causes: str) -> Callable[[Builder], Builder]:
    """Lists a program that learns and yet deserves a warning by one of `causes`."""
    return _listed("advisory", _GROUP_OF[causes[0]], causes)


def healthy(group: str) -> Callable[[Builder], Builder]:
    """Lists a program without a fault."""
    return _listed("healthy", group, ())


def _listed(kind: Kind, group: str, causes: tuple[str, ...]) -> Callable[[Builder], Builder]:
    if unknown := [cause for cause in causes if cause not in _GROUP_OF]:
        raise ValueError(f"Causes must be names of checks. Got {', '.join(unknown)}.")

    def add(builder: Builder) -> Builder:
        name = builder.__name__.replace("_", "-")
        if name in ENTRIES:
            raise ValueError(f"Each program must have a name of its own. Got {name} twice.")
        ENTRIES[name] = Entry(name, kind, group, causes, builder)
        return builder

    return add


def score(program: Program) -> float:
    """What the model has learned, on samples that it was not trained on: 1 is all, chance is less.

    Balanced accuracy for classes and labels, the coefficient of determination (at least -1) for numbers.
    """
    samples = program.samples
    predicted = program.model.predict(samples.x_test, batch_size=program.batch_size, verbose=0)
    return scored(samples, predicted)


def scored(samples: Samples, predicted: Any) -> float:
    """The score of predictions of the test samples."""
    y = samples.y_test
    if isinstance(y, dict):
        return float(np.mean([_numbers(y[name], predicted[name]) for name in y]))
    predicted = np.asarray(predicted, dtype=np.float64)
    if samples.measure == "numbers":
        return _numbers(y, predicted)
    # Logits and tanh decide at 0, probabilities at 1/2.
    middle = 0.5 if np.all((predicted >= 0) & (predicted <= 1)) else 0.0
    if samples.measure == "labels":
        flat, decided = y.reshape(-1, y.shape[-1]), predicted.reshape(-1, y.shape[-1]) > middle
        return float(np.mean([_balanced(flat[:, i] > 0, decided[:, i]) for i in range(flat.shape[-1])]))
    if predicted.ndim > 1 and predicted.shape[-1] > 1:
        truth = y.argmax(axis=-1) if y.shape == predicted.shape else y
        return _balanced(np.ravel(truth), np.ravel(predicted.argmax(axis=-1)))
    if len(np.unique(y)) > 2:  # Class numbers as a quantity.
        return _balanced(np.ravel(y), np.round(np.ravel(predicted)))
    return _balanced(np.ravel(y) > 0, np.ravel(predicted) > middle)


def guessing(samples: Samples) -> float:
    """The score of knowing nothing of the input."""
    if samples.measure == "numbers" or isinstance(samples.y_test, dict):
        return 0.0
    if samples.measure == "labels" or (len(np.unique(samples.y_test)) == 2 and samples.y_test.ndim == 1):
        return 0.5
    y = samples.y_test
    return 1 / (y.shape[-1] if y.ndim > 1 and y.shape[-1] > 1 else len(np.unique(y)))


def _balanced(truth: Any, decided: Any) -> float:
    """Mean over the classes of the share of each that is found."""
    return float(np.mean([np.mean(decided[truth == one] == one) for one in np.unique(truth)]))


def _numbers(y: Any, predicted: Any) -> float:
    predicted = np.asarray(predicted, dtype=np.float64)
    if not np.all(np.isfinite(predicted)):
        return -1.0
    if predicted.ndim == y.ndim + 1 and predicted.shape[-1] == 1:
        predicted = predicted[..., 0]
    if predicted.ndim > y.ndim or predicted.shape[0] != y.shape[0]:
        return -1.0  # Not even one prediction a sample.
    y = np.asarray(y, dtype=np.float64)
    return max(-1.0, float(1 - np.mean((y - predicted) ** 2) / np.mean((y - y.mean(axis=0)) ** 2)))
