"""The staged protocol: capacity, learning rate, overfitting, batch norm, dropout, in this order."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_practice import recipes
from keras_practice.callbacks import best_weights, scores
from keras_practice.core.arguments import check_integer
from keras_practice.data import Dataset, Split
from keras_practice.rendering.tables import aligned
from keras_practice.training.tracing import quiet_tracing
from keras_practice.tuning.search.oracles import derive_seed
from keras_practice.tuning.space.parameters import spelled
from keras_practice.tuning.space.parsing import kinds_of

_RISE = 1.05  # The validation loss has risen where it ends at so many times its lowest value.


@dataclass(frozen=True)
class Step:
    """One training of the protocol, with its evidence.

    Attributes:
        stage: `"capacity"`, `"rate"`, `"grow"`, `"batch norm"`, `"grow again"` or
            `"dropout"`.
        arguments: The builder's arguments.
        learning_rate: The learning rate.
        parameters: Number of trainable weights.
        train_loss, val_loss: Losses of the best epoch's weights, penalties left
            out; infinite where the training diverged.
        train_score, val_score: Scores of the same weights; NaN where it diverged.
        overfits: Whether the validation loss rose again by 5 % or more while the
            training loss fell below its lowest value; see `overfits`.
        kept: Whether the protocol went on from here.
    """

    stage: str
    arguments: Mapping[str, Any]
    learning_rate: float
    parameters: int
    train_loss: float
    val_loss: float
    train_score: float
    val_score: float
    overfits: bool
    kept: bool = False

    @property
    def label(self) -> str:
        """Its stage, and what distinguishes it in there, in a few letters."""
        widths = next((value for value in self.arguments.values() if isinstance(value, tuple)), ())
        what = {
            "rate": f"{self.learning_rate:.2g}",
            "dropout": f"{self.arguments.get('dropout', 0.0):.2g}",
        }.get(self.stage, spelled(widths))
        return f"{self.stage} {what}"


@dataclass(frozen=True)
class Staged:
    """What the protocol has found.

    Attributes:
        recipe: The recipe's name.
        dataset: The data set's name.
        samples: Number of training samples.
        score: Name of the score: `f1`, or `r2` for regression.
        steps: Every training, in order.
        notes: What each stage came to, a sentence each.
    """

    recipe: str
    dataset: str
    samples: int
    score: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Step:
        """The step with the best validation score among those that the protocol went on from."""
        return max((step for step in self.steps if step.kept), key=lambda step: _order(step.val_score))

    def __str__(self) -> str:
        head = ("", "step", "parameters", "rate", "train loss", "val loss", *_named(self.score), "overfits")
        rows = [head] + [
            (
                "*" if step.kept else "",
                step.label,
                f"{step.parameters:,}",
                f"{step.learning_rate:.2g}",
                *(f"{value:.4f}" for value in (step.train_loss, step.val_loss)),
                *(f"{value:.4f}" for value in (step.train_score, step.val_score)),
                "yes" if step.overfits else "no",
            )
            for step in self.steps
        ]
        best = self.best
        arguments = ", ".join(f"{name}={value!r}" for name, value in best.arguments.items())
        return "\n".join(
            [
                f"{self.recipe} on {self.dataset}, {self.samples:,} training samples; * is where it went on",
                *aligned(rows, right=range(2, len(head))),
                *self.notes,
                f"best: recipes.{self.recipe}(..., {arguments}), learning_rate={best.learning_rate:g}: "
                f"validation {self.score} {best.val_score:.4f}",
            ]
        )


def staged(
    dataset: Dataset,
    recipe: str = "mlp",
    *,
    rates: Sequence[float] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4),
    dropouts: Sequence[float] = (0.1, 0.2, 0.3, 0.5),
    growths: int = 5,
    epochs: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> Staged:
    """Finds a network's size and regularisation in the order of the lecture, one thing at a time.

    1. Capacity: the narrowest network of the recipe's shape with more weights
       than there are training samples, without any regularisation.
    2. Rate: each rate; the one with the lowest training loss is kept.
    3. Grow: the widths double until the network overfits.
    4. Batch norm is put in.
    5. Grow again: the widths double until the network overfits again.
    6. Dropout: each value; the best validation score is kept, none included.

    Every training starts from the same seed, runs all its epochs and is judged
    by the weights of its best epoch. The test split is not looked at.

    Args:
        dataset: The data set; training and validation splits are used.
        recipe: A recipe with widths: `"mlp"`, `"low_rank_mlp"`, `"convnet"`,
            `"conv1d"`, and, without batch norm, `"rnn"`, `"maxout_mlp"` or
            `"selu_mlp"`. Defaults to `"mlp"`.
        rates: Learning rates to try.
        dropouts: Shares of units dropped to try, each in `(0, 1)`.
        growths: Most doublings in each of the two stages, at least 1. Defaults to `5`.
        epochs: Epochs of every training, at least 2. Defaults to `30`.
        batch_size: Samples a batch. Defaults to `32`.
        seed: Fixes weights and orders. Defaults to `0`.

    Returns:
        Every step with its evidence; `print` shows it as a table, and
        `staged_figure` as a picture.

    Raises:
        ValueError: If the recipe has no widths, a number is outside its range, or
            every rate diverges.

    Source:
        A23, A54.
    """
    protocol = _Protocol(dataset, recipe, epochs, batch_size, seed)
    _check(rates, dropouts, growths, epochs)
    with quiet_tracing():
        protocol.capacity()
        protocol.rate(rates)
        protocol.grow(growths)
        protocol.batch_norm(growths)
        protocol.dropout(dropouts)
    return Staged(
        recipe,
        dataset.name,
        len(dataset.train),
        protocol.score,
        tuple(protocol.steps),
        tuple(protocol.notes),
    )


class _Protocol:
    """The stages, each of which goes on from the step that the one before has kept."""

    def __init__(self, dataset: Dataset, recipe: str, epochs: int, batch_size: int, seed: int) -> None:
        self.dataset, self.recipe, self.epochs = dataset, recipe, epochs
        self.batch_size, self.seed = batch_size, seed
        self.score = "f1" if dataset.task.is_classification else "r2"
        self.steps: list[Step] = []
        self.notes: list[str] = []
        kinds, builder = kinds_of(recipe), recipes.get(recipe)
        widths = [name for name in ("units", "filters") if kinds.get(name) == "widths"]
        if not widths or "dropout" not in kinds:
            raise ValueError(f"recipe must be one with widths and dropout, such as 'mlp'. Got {recipe!r}.")
        self._widths = widths[0]
        self._shape = tuple(inspect.signature(builder).parameters[self._widths].default)
        self._switch = {"batch_norm": False} if "batch_norm" in kinds else {}
        self._at: Step

    def capacity(self) -> None:
        """The narrowest network with more weights than training samples."""
        wanted, low, high = len(self.dataset.train), 0, 1
        while self._count(high) <= wanted:  # From below, since the widest would not fit into memory.
            low, high = high, 2 * high
        while high - low > 1:  # In steps of the first layer's width.
            middle = (low + high) // 2
            low, high = (low, middle) if self._count(middle) > wanted else (middle, high)
        arguments = {self._widths: self._scaled(high), **self._switch, "dropout": 0.0}
        self._at = self._train("capacity", arguments, 1e-3)
        self._keep(self._at)
        self.notes.append(
            f"capacity: {spelled(arguments[self._widths])} has {self._at.parameters:,} weights for "
            f"{wanted:,} training samples"
        )

    def rate(self, rates: Sequence[float]) -> None:
        """The rate with the lowest training loss."""
        tried = [self._train("rate", self._at.arguments, rate) for rate in rates]
        best = min(tried, key=lambda step: step.train_loss)
        if not math.isfinite(best.train_loss):
            raise ValueError(
                f"rates must hold one at which training does not diverge. Got {', '.join(map(str, rates))}."
            )
        self._keep(best)
        self.notes.append(f"rate: {best.learning_rate:g} brings the training loss lowest")
        if len(rates) > 1 and best.learning_rate in (min(rates), max(rates)):
            self.notes[-1] += ", at an end of those tried: try further ones"

    def grow(self, growths: int) -> None:
        """Doubles until it overfits."""
        self._grow("grow", growths)

    def batch_norm(self, growths: int) -> None:
        """Puts batch norm in, and doubles until it overfits again."""
        if self._switch:
            normed = self._train(
                "batch norm", {**self._at.arguments, "batch_norm": True}, self._at.learning_rate
            )
            gain = normed.val_score - self._at.val_score
            self.notes.append(f"batch norm: validation {self.score} {gain:+.4f}")
            self._keep(normed)  # The protocol has it whatever it does to this network: larger ones need it.
        else:
            self.notes.append(f"batch norm: {self.recipe} has none")
        self._grow("grow again", growths)

    def dropout(self, dropouts: Sequence[float]) -> None:
        """The share with the best validation score, none included."""
        tried = [
            self._train("dropout", {**self._at.arguments, "dropout": float(share)}, self._at.learning_rate)
            for share in dropouts
        ]
        best = max([self._at, *tried], key=lambda step: _order(step.val_score))
        if best is self._at:
            self.notes.append("dropout: no share is better than none")
        else:
            gain = best.val_score - self._at.val_score
            self.notes.append(f"dropout: {best.arguments['dropout']:g}, validation {self.score} {gain:+.4f}")
            self._keep(best)

    def _grow(self, stage: str, growths: int) -> None:
        for _ in range(growths):
            if self._at.overfits:
                break
            self._keep(self._train(stage, self._doubled(), self._at.learning_rate))
        told = "overfits" if self._at.overfits else f"does not overfit after {growths} doublings"
        self.notes.append(
            f"{stage}: {spelled(self._at.arguments[self._widths])} with {self._at.parameters:,} weights "
            f"{told}"
        )

    def _keep(self, step: Step) -> None:
        at = next(number for number, other in enumerate(self.steps) if other is step)
        self.steps[at] = self._at = replace(step, kept=True)

    def _scaled(self, first: int) -> tuple[int, ...]:
        """The recipe's shape with another width of its first layer."""
        return tuple(max(1, round(width * first / self._shape[0])) for width in self._shape)

    def _doubled(self) -> dict[str, Any]:
        widths = tuple(2 * width for width in self._at.arguments[self._widths])
        return {**self._at.arguments, self._widths: widths}

    def _count(self, first: int) -> int:
        arguments = {self._widths: self._scaled(first), **self._switch, "dropout": 0.0}
        try:
            return _trainable(self._build(arguments))
        except ValueError as error:
            if self.recipe == "low_rank_mlp" and first < self._shape[0]:
                return 0  # Too narrow for its rank to save anything.
            raise error

    def _build(self, arguments: Mapping[str, Any]) -> keras.Model:
        return recipes.get(self.recipe)(self.dataset.input_shape, self.dataset.task, **arguments)

    def _train(self, stage: str, arguments: Mapping[str, Any], rate: float) -> Step:
        step = train_step(self._build, self.dataset, arguments, rate, self.epochs, self.batch_size, self.seed)
        self.steps.append(replace(step, stage=stage))
        return self.steps[-1]


def train_step(
    build: Callable[[Mapping[str, Any]], keras.Model],
    dataset: Dataset,
    arguments: Mapping[str, Any],
    rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Step:
    """Trains once and measures: losses and scores of the best epoch's weights, and whether it overfits."""
    keras.utils.set_random_seed(derive_seed(seed, "staged"))
    model = recipes.compile_for(build(arguments), dataset.task, learning_rate=rate)
    history = model.fit(
        dataset.train.batches(batch_size, seed=seed),
        validation_data=dataset.val.batches(256),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[best_weights(patience=epochs, min_delta=0.0)],
    ).history
    (train_loss, train_score), (val_loss, val_score) = (
        _measured(model, split) for split in (dataset.train, dataset.val)
    )
    return Step(
        stage="",
        arguments=dict(arguments),
        learning_rate=rate,
        parameters=_trainable(model),
        train_loss=train_loss,
        val_loss=val_loss,
        train_score=train_score,
        val_score=val_score,
        overfits=overfits(history["loss"], history["val_loss"]),
    )


def overfits(train_loss: Sequence[float], val_loss: Sequence[float]) -> bool:
    """Whether validation loss has risen from its lowest by 5 % or more while training loss fell below that.

    Medians over a fifth of the epochs, at least three, are compared, since single ones jump.

    Args:
        train_loss: Losses by epoch.
        val_loss: Losses by epoch.
    """
    if not np.all(np.isfinite([*val_loss, *train_loss])):
        return False  # It diverged, which is another illness.
    width = min(len(val_loss), max(3, len(val_loss) // 5))
    usual = np.median(np.lib.stride_tricks.sliding_window_view(np.asarray(val_loss), width), axis=1)
    return bool(usual[-1] >= _RISE * usual.min() and np.median(train_loss[-width:]) < usual.min())


def _measured(model: keras.Model, split: Split) -> tuple[float, float]:
    """Loss, without penalties, and score of a split."""
    # Called as they are: a graph for a few batches would cost more than it saves.
    batches = [split.x[start : start + 1024] for start in range(0, len(split), 1024)]
    predictions = np.concatenate([model(batch, training=False).numpy() for batch in batches])
    found = scores(split.y, predictions, split.task)
    shaped = split.y if split.y.ndim > 1 or split.task.kind == "multiclass" else split.y[:, None]
    loss = float(recipes.loss_for(split.task)(shaped, predictions))
    return loss if math.isfinite(loss) else math.inf, found["f1" if split.task.is_classification else "r2"]


def _trainable(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _order(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _named(score: str) -> tuple[str, str]:
    return f"train {score}", f"val {score}"


def _check(rates: Sequence[float], dropouts: Sequence[float], growths: int, epochs: int) -> None:
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"rates must be at least one positive number. Got {rates!r}.")
    if not all(0 < share < 1 for share in dropouts):
        raise ValueError(f"dropouts must be in (0, 1). Got {dropouts!r}.")
    check_integer("growths", growths, least=1)
    check_integer("epochs", epochs, least=2)
