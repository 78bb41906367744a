"""The random seed of a trial."""

from __future__ import annotations

import random

import keras
import tensorflow as tf
from tensorflow.python.eager import context


def set_random_seed(seed: int) -> None:
    """`keras.utils.set_random_seed`, after which TensorFlow need not prepare each graph anew.

    TensorFlow forgets all that it has prepared, lest a random operation that has drawn
    from this very seed before goes on where it was. It must not be called with a seed
    that was in use since `keras.utils.set_random_seed`.
    """
    whole = tf.random.set_seed

    def only_the_seed(seed: int) -> None:
        eager = context.context()
        if not {"_seed", "_rng"} <= vars(eager).keys():
            whole(seed)  # Another version's context; slower, and right.
            return
        eager._seed, eager._rng = seed, random.Random(seed)

    tf.random.set_seed = only_the_seed  # Keras finds it by this name.
    try:
        keras.utils.set_random_seed(seed)
    finally:
        tf.random.set_seed = whole
