"""Compares building `resnet(depth=110)` with the same layers written out in plain Keras.

Run `python benchmarks/build_speed.py [turns]`. The two take turns, so that a busy
machine slows both alike. The goal is a ratio of the medians of at most 1.2.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from keras_practice.data import Task
from keras_practice.recipes.residual import resnet

GOAL = 1.2


def by_recipe() -> keras.Model:
    """The recipe."""
    return resnet((32, 32, 3), Task.multiclass(10), depth=110)


def by_hand() -> keras.Model:
    """The same network without any of this project's code."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    for filters in (16, 32, 64):
        for block in range(18):
            strides = 2 if filters > 16 and block == 0 else 1
            shortcut = x
            x = layers.Conv2D(
                filters, 3, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
            )(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x)
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization()(x)
            if strides == 2:
                shortcut = layers.MaxPooling2D(1, strides=2)(shortcut)
                shortcut = layers.ZeroPadding2D(((0, 0), (0, filters // 2)), data_format="channels_first")(
                    shortcut
                )
            x = layers.Add()([x, shortcut])
            x = layers.Activation("relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10)(x)
    return keras.Model(inputs, layers.Activation("softmax", dtype="float32")(x))


def seconds(build: Callable[[], keras.Model]) -> float:
    """Wall-clock time of one build, from a clean state."""
    keras.backend.clear_session()
    start = time.perf_counter()
    build()
    return time.perf_counter() - start


def main(turns: int) -> None:
    """Prints the medians of `turns` turns and their ratio."""
    recipe, hand = by_recipe(), by_hand()
    assert [type(layer) for layer in recipe.layers] == [type(layer) for layer in hand.layers]
    assert recipe.count_params() == hand.count_params()
    times: dict[Callable[[], keras.Model], list[float]] = {by_recipe: [], by_hand: []}
    for turn in range(turns):
        for build in (by_recipe, by_hand) if turn % 2 else (by_hand, by_recipe):
            times[build].append(seconds(build))
    medians = {build: statistics.median(values) for build, values in times.items()}
    ratio = medians[by_recipe] / medians[by_hand]
    print(f"python {sys.version.split()[0]}, keras {keras.__version__}, tensorflow {tf.__version__}")
    print(f"resnet(depth=110), {recipe.count_params():,} parameters, median of {turns} turns:")
    print(f"recipe {medians[by_recipe]:.3f} s, by hand {medians[by_hand]:.3f} s")
    print(f"ratio {ratio:.3f} (goal: at most {GOAL})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
