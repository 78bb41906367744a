"""What goes on inside a network while it trains."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from tensorboard.plugins.histogram import metadata as histogram_metadata

from keras_practice.callbacks.filters import filters_picture, first_filters
from keras_practice.callbacks.probe import BINS, Probe, Sample
from keras_practice.callbacks.symptoms import HEALTHY_UPDATE, symptoms
from keras_practice.core.arguments import check_positive_integer
from keras_practice.core.steps import innermost, layer_names, no_longer, tap_step, untap_step, when_built
from keras_practice.core.types import Array
from keras_practice.rendering.figures import Line, Panel, figure


@dataclass
class _Clock:
    """Times the calls of the training function, since the last reading.

    Attributes:
        seconds: Of the calls and between them, within an epoch.
        steps: The probe's count at the last reading.
        began: When each call began.
        ended: When the last one ended; NaN where the next one begins an epoch.
    """

    seconds: float = 0.0
    steps: int = 0
    began: list[float] = field(default_factory=list)
    ended: float = math.nan

    def begin(self) -> None:
        """A call begins."""
        now = time.time()
        if not math.isnan(self.ended):
            self.seconds += now - self.ended
        self.began.append(now)

    def end(self) -> None:
        """It ends."""
        self.ended = time.time()
        self.seconds += self.ended - self.began[-1]


class TrainingMonitor(keras.callbacks.Callback):
    """Samples gradients, updates, activations and speed in the training step itself.

    Every so many steps, the step that Keras runs anyway also measures itself, on
    its own batch and with its own gradients. This goes on inside calls of many
    steps (`steps_per_execution`) and under XLA, and costs a few per cent of the
    time; the weights that come out are the same as without it.

    Where a figure leaves the healthy range, it says so once, in plain words.

    On several replicas, norms of gradients are means of the replicas' own, each
    of its share of the batch. Under XLA (`jit_compile=True`) the wait for input
    cannot be told from the step and is NaN. Within loops over time, inside
    recurrent layers, nothing is seen; what such layers return is.

    Args:
        every: Steps from one sample to the next; the first step of a `fit` is one.
            Defaults to `50`.
        log_dir: Folder for TensorBoard, where `monitor/` under it gets every
            figure, the histograms of weights, gradients and activations, and the
            filters of the first convolution as pictures. Defaults to `None`.
        sink: Called with each sentence when something is noticed. Defaults to
            `print`.

    Attributes:
        history: The figures as arrays, `(samples,)` each, by name:
            `step`, `learning_rate`; `gradient_norm` (before clipping) and
            `gradient_norm/<layer>`; `weight_norm/<layer>`; `update_ratio` and
            `update_ratio/<layer>` (norm of the weights' true change in the step
            over their norm, of arrays with at least two axes; about 1e-3 is
            usual); `dead/<layer>` (share of ReLU units that are zero for the whole
            batch, NaN for fewer than 16 samples); `saturated/<layer>` (share of
            outputs within 2.5 % of an end of a sigmoid's or tanh's range);
            `clipped` (1 if clipping changed the gradient; NaN without clipping);
            `norm_to_clip` (the norm that clipping looks at: the largest of a single
            array for `clipnorm`); `seconds_per_step`, `examples_per_second`,
            `input_wait` (share of the time from the end of one step until the next
            one has its batch; the millisecond that it takes to call a step is in it).
        histograms: `(samples, 32)` arrays by name, `weights/<array>`,
            `gradients/<array>` and `activations/<layer>`: lowest value, highest
            value, and counts in 30 bins between them; of a larger array, of about
            4,096 evenly chosen values.
        notes: The sentences so far.

    Raises:
        ValueError: If `every` is not a positive integer.

    Source:
        A41, A42, A43, A48.
    """

    def __init__(
        self, every: int = 50, log_dir: str | Path | None = None, sink: Callable[[str], Any] = print
    ) -> None:
        super().__init__()
        self.every = check_positive_integer("every", every)
        self.log_dir = log_dir
        self.sink = sink
        self.notes: list[str] = []
        self._probe: Probe | None = None
        self._begin()

    def _begin(self) -> None:
        self.notes = []
        self._noticed: list[str] = []
        self._figures: dict[str, list[float]] = {}
        self._histograms: dict[str, list[Array]] = {}
        self._writer: Any = None
        self._clock = _Clock()
        self._epoch_began = self._calls_in_epoch = 0

    @property
    def history(self) -> dict[str, Array]:
        """The figures by name, `(samples,)` each."""
        return {name: np.asarray(values) for name, values in self._figures.items()}

    @property
    def histograms(self) -> dict[str, Array]:
        """Lowest value, highest value and counts by name, `(samples, 32)` each."""
        return {name: np.stack(values) for name, values in self._histograms.items()}

    @property
    def clipped_share(self) -> float:
        """Share of the sampled steps that clipping changed; NaN without clipping."""
        values = np.asarray(self._figures.get("clipped", [np.nan]))
        return float(values.mean())

    @property
    def suggested_clipnorm(self) -> float:
        """A limit that would clip one step in ten: the 90th percentile of the norm that clipping looks at."""
        norms = np.asarray(self._figures.get("norm_to_clip", []))
        norms = norms[np.isfinite(norms)]
        return float(np.percentile(norms, 90)) if len(norms) else float("nan")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins a new history."""
        self._begin()
        if self._probe is not None and not self._probe.fits(self.model):
            self._probe = None
        when_built(self.model, self._watch)

    def _watch(self) -> None:
        """Puts the probe around the step of a model that has its weights."""
        if not self.model.trainable_variables:
            return  # Keras warns of it, and makes no update.
        if self._probe is None:
            self._probe = Probe(self.model, self.every)
            paths = [weight.path for weight in self._probe.weights]
            self._histogram_names = (
                [f"weights/{path}" for path in paths]
                + [f"gradients/{path}" for path in paths]
                + [f"activations/{activation.name}" for activation in self._probe.activations]
            )
            self._matrices = [i for i, weight in enumerate(self._probe.weights) if len(weight.shape) > 1]
            self._layers: dict[str, list[int]] = {}
            for i, layer in enumerate(layer_names(self.model).values()):
                self._layers.setdefault(layer, []).append(i)
        self._probe.reset()
        self._epoch_began = self._probe.steps()
        tap_step(self.model, "train_step", self._probe.tap, self._begin_call, self._end_call)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes the steps so far, since each epoch may end with a shorter call."""
        self._clock.ended = math.nan
        self._calls_in_epoch = 0
        if self._probe is not None:
            self._epoch_began = self._probe.steps()

    def _begin_call(self) -> bool:
        """Before each call of the training function: whether the probe is wanted in it."""
        assert self._probe is not None
        self._clock.begin()
        return self._probe.due()

    def _end_call(self) -> None:
        """After each call: takes the new samples, where there are some."""
        assert self._probe is not None
        self._clock.end()
        self._calls_in_epoch += 1
        length = (self.params or {}).get("steps")
        exact = self._probe.steps_per_call == 1 or length is not None
        steps = self._epoch_began + min(self._calls_in_epoch * self._probe.steps_per_call, length or math.inf)
        self._probe.went_on(int(steps) if exact else None)
        if self._probe.first_of_its_kind:
            self._read(timed=False)  # That call also traced and compiled.
            self._restart_clock()
        elif self._probe.has_news(steps):
            self._read()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes what is left, so that other callbacks see it."""
        self._read()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model's step as it was."""
        no_longer(self.model, self._watch)
        if self._probe is None:
            return
        self._read()
        untap_step(self.model, "train_step", self._probe.tap)
        if self._writer is not None:
            self._draw_filters()
            self._writer.close()
            self._writer = None

    def panels(self) -> Sequence[Panel]:
        """The curves so far, for a picture or a report."""
        figures = self.history
        if not figures:
            return []
        steps = figures["step"]

        def lines(prefix: str) -> tuple[Line, ...]:
            return tuple(
                Line(name.removeprefix(f"{prefix}/"), steps, values)
                for name, values in figures.items()
                if name.startswith(f"{prefix}/") and not np.all(np.isnan(values))
            )

        total = (Line("all weights", steps, figures["gradient_norm"], "dashed"),)
        rate, speed = figures["learning_rate"], figures["examples_per_second"]
        panels = [
            Panel(
                "Gradient norm", lines("gradient_norm") + total, "step", log=True, note=self._clipping_note()
            ),
            Panel(
                "Update over weight",
                lines("update_ratio"),
                "step",
                log=True,
                healthy=HEALTHY_UPDATE,
                note="norm of a step's change over norm of the weights; about 0.001 is usual",
            ),
            Panel(
                "Dead units",
                lines("dead"),
                "step",
                "share",
                note="ReLU units that are zero for a whole batch",
            ),
            Panel("Saturated outputs", lines("saturated"), "step", "share", note="at an end of their range"),
            Panel("Learning rate", (Line("learning rate", steps, rate),), "step", log=True),
            Panel("Speed", (Line("examples a second", steps, speed),), "step", "examples / s"),
        ]
        return [panel for panel in panels if panel.lines]

    def plot(self) -> Figure:
        """The figures so far as one picture.

        Returns:
            A figure that belongs to no window and no global state.
        """
        return figure(self.panels(), f"Training of {self.model.name}" if self.model else "Training")

    def _clipping_note(self) -> str:
        share = self.clipped_share
        if np.isnan(share):
            return f"a clipnorm of {self.suggested_clipnorm:.2g} would clip one step in ten"
        return f"{share:.0%} of the steps clipped; {self.suggested_clipnorm:.2g} would clip one in ten"

    def _restart_clock(self) -> None:
        assert self._probe is not None
        self._clock = _Clock(steps=self._probe.steps(), began=self._clock.began[-1:])

    def _read(self, timed: bool = True) -> None:
        """Takes the samples of the probe into the history, and writes and judges them."""
        if self._probe is None:
            return
        begin = time.time()
        news = self._probe.news()  # Waits for what a device has yet to do.
        if not news:
            return
        self._clock.seconds += time.time() - begin
        seconds = self._seconds_per_step() if timed else float("nan")
        samples = self._probe.read()
        for sample in samples:
            figures = self._name(sample) | self._speed(sample, seconds)
            for name, value in figures.items():
                self._figures.setdefault(name, []).append(value)
            histograms = dict(zip(self._histogram_names, sample.histograms, strict=True))
            for name, row in histograms.items():
                self._histograms.setdefault(name, []).append(row)
            if self.log_dir is not None:
                self._write(sample.step, figures, histograms)
            for name, words in symptoms(self._figures):
                if name not in self._noticed:
                    self._noticed.append(name)
                    self.notes.append(words)
                    self.sink(words)
        self._restart_clock()

    def _seconds_per_step(self) -> float:
        """Since the last reading."""
        assert self._probe is not None
        steps = self._probe.steps() - self._clock.steps
        return self._clock.seconds / steps if steps > 0 else float("nan")

    def _speed(self, sample: Sample, seconds: float) -> dict[str, float]:
        # In the first step of a call the time between the calls is not the input's.
        began = self._clock.began
        call = bisect.bisect_right(began, sample.began) - 1
        ready = max(sample.ended, began[call]) if call >= 0 else sample.ended
        waiting = max(0.0, sample.began - ready) if np.isfinite(sample.began) else float("nan")
        return {
            "seconds_per_step": seconds,
            "examples_per_second": sample.examples / seconds,
            "input_wait": min(waiting / seconds, 1.0) if np.isfinite(waiting) else float("nan"),
        }

    def _name(self, sample: Sample) -> dict[str, float]:
        """A sample's figures by their name in the history."""
        assert self._probe is not None
        figures = {
            "step": float(sample.step),
            "learning_rate": sample.learning_rate,
            "gradient_norm": _norm(sample.gradients),
            "update_ratio": _ratio(sample, self._matrices),
        }
        for layer, arrays in self._layers.items():
            figures[f"gradient_norm/{layer}"] = _norm([sample.gradients[i] for i in arrays])
            figures[f"weight_norm/{layer}"] = _norm([sample.weights[i] for i in arrays])
            inside = [i for i in arrays if i in self._matrices]
            if inside:
                figures[f"update_ratio/{layer}"] = _ratio(sample, inside)
        for activation, share in zip(self._probe.activations, sample.faults, strict=True):
            if activation.fault is not None:
                figures[f"{activation.fault}/{activation.name}"] = float(share)
        figures["norm_to_clip"], figures["clipped"] = self._clipping(sample)
        return figures

    def _clipping(self, sample: Sample) -> tuple[float, float]:
        optimizer = innermost(self.model.optimizer)
        total = _norm(sample.gradients)
        largest = max((norm for norm in sample.gradients if not math.isnan(norm)), default=math.nan)
        if (limit := optimizer.clipnorm) is not None:
            return largest, float(largest > limit)
        if (limit := optimizer.global_clipnorm) is not None:
            return total, float(total > limit)
        if (limit := optimizer.clipvalue) is not None:
            return total, float(sample.largest_gradient > limit)
        return largest, float("nan")

    def _write(self, step: int, figures: dict[str, float], histograms: dict[str, Array]) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(Path(str(self.log_dir)) / "monitor"))
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                if name not in ("step", "norm_to_clip") and not np.isnan(value):
                    tf.summary.scalar(name, value)
            for name, row in histograms.items():
                if row[2:].sum():
                    _write_histogram(name, row)
        samples = len(self._figures["step"])
        if samples & (samples - 1) == 0:
            self._draw_filters()
        self._writer.flush()

    def _draw_filters(self) -> None:
        kernel = first_filters(self.model)
        if kernel is not None:
            step = int(self.model.optimizer.iterations.numpy())
            with self._writer.as_default(step=step):
                tf.summary.image("first_filters", filters_picture(kernel)[None])


def _norm(parts: Sequence[float]) -> float:
    """The norm of arrays whose norms are given; those without a gradient do not count."""
    known = [part for part in parts if not math.isnan(part)] or parts
    return math.sqrt(sum(part * part for part in known))


def _ratio(sample: Sample, arrays: Sequence[int]) -> float:
    size = _norm([sample.weights[i] for i in arrays])
    return _norm([sample.updates[i] for i in arrays]) / size if size > 0 else float("nan")


def _write_histogram(name: str, row: Array) -> None:
    low, high = float(row[0]), float(row[1])
    edges = np.linspace(low, high if high > low else low + 1e-12, BINS + 1)
    buckets = np.stack([edges[:-1], edges[1:], row[2:]], axis=1)
    tf.summary.write(
        name,
        tf.constant(buckets, tf.float64),
        metadata=histogram_metadata.create_summary_metadata(display_name=None, description=None),
    )
