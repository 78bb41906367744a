"""The random seed of a trial."""

from __future__ import annotations

import keras

from keras_practice.core.private_api.tensorflow import graphs_stay_prepared


def set_random_seed(seed: int) -> None:
    """`keras.utils.set_random_seed`, after which TensorFlow need not prepare each graph anew.

    It must not be called with a seed that was in use since `keras.utils.set_random_seed`, from
    which a random operation would go on where it was.
    """
    with graphs_stay_prepared():
        keras.utils.set_random_seed(seed)
