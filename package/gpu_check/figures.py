"""What monitors, scores, sweeps and the search say: numbers that no device may change."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_practice import callbacks, data, recipes, tuning


def figures(xla: bool | str = False) -> dict[str, list[float]]:
    """Each figure in float32, by the names of `judging.FIGURES`."""
    digits, waves = data.load("digits"), data.load("waves")
    found: dict[str, list[float]] = {}
    nets: dict[str, tuple[Any, Any]] = {
        "mlp": (digits, lambda: recipes.mlp(digits.input_shape, digits.task, units=(32,), dropout=0.0)),
        "rnn": (waves, lambda: recipes.rnn(waves.input_shape, waves.task, units=(16,))),
    }
    for name, (dataset, make) in nets.items():

        def compiled(make: Any = make, dataset: Any = dataset) -> keras.Model:
            return recipes.compile_for(make(), dataset.task, jit_compile=xla)

        keras.utils.set_random_seed(0)
        monitor, scores = (
            callbacks.TrainingMonitor(every=1, sink=list),
            callbacks.ValidationScores(dataset.val),
        )
        history = compiled().fit(
            dataset.train.x[:256],
            dataset.train.y[:256],
            batch_size=64,
            shuffle=False,
            validation_data=(dataset.val.x, dataset.val.y),
            verbose=0,
            callbacks=[monitor, scores],
        )
        found[f"monitor, {name}"] = [float(norm) for norm in monitor.history["gradient_norm"]]
        if name == "mlp":
            found[f"scores, {name}"] = [float(history.history["val_auc"][-1])]
        swept = tuning.learning_rate_sweep(
            compiled, dataset.train, dataset.val, rates=[1e-4, 1e-3, 3e-3], epochs=1, batch_size=64
        )
        found[f"sweep, {name}"] = swept.val_loss.ravel().tolist()
    with tempfile.TemporaryDirectory() as folder:
        settings = tuning.Settings(data="iris", trials=2, epochs=3, learning_rate=(1e-3, 1e-2))
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            tuning.tune(settings, folder)
        found["search"] = [json.loads((Path(folder) / "best.json").read_text())["validation"]["val_auc"]]
    return found
