"""The filters of a network's first convolution as a picture."""

from __future__ import annotations

import keras
import numpy as np

from keras_practice.core.types import Array


def first_filters(model: keras.Model) -> Array | None:
    """The kernel that looks at the image itself: the first with four axes.

    Args:
        model: Any built model.

    Returns:
        `(height, width, channels, filters)`; `None` where there is none, or its
        input is no image of one channel or three.
    """
    for weight in model.trainable_variables:
        if len(weight.shape) == 4:
            return np.asarray(weight.numpy(), dtype=np.float32) if weight.shape[2] in (1, 3) else None
    return None


def filters_picture(kernel: Array, magnify: int = 8) -> Array:
    """Filters side by side, each stretched from black (its lowest weight) to white (its highest).

    Args:
        kernel: `(height, width, 1 or 3, filters)`; three channels are red, green
            and blue.
        magnify: Pixels a weight. Defaults to `8`.

    Returns:
        A picture, `(rows, columns, 3)`, uint8.

    Source:
        A43; Krizhevsky, Sutskever and Hinton 2012, figure 3.
    """
    height, width, channels, filters = kernel.shape
    low, high = kernel.min(axis=(0, 1, 2)), kernel.max(axis=(0, 1, 2))
    scaled = (kernel - low) / np.where(high > low, high - low, 1.0)
    tiles = np.repeat(scaled, 3, axis=2) if channels == 1 else scaled
    across = int(np.ceil(np.sqrt(filters)))
    down = -(-filters // across)
    border = max(1, magnify // 4)
    tall, wide = height * magnify + border, width * magnify + border
    picture = np.full((down * tall + border, across * wide + border, 3), 0.45, dtype=np.float32)
    for i in range(filters):
        top, left = border + i // across * tall, border + i % across * wide
        tile = np.kron(tiles[..., i], np.ones((magnify, magnify, 1)))
        picture[top : top + height * magnify, left : left + width * magnify] = tile
    return np.asarray(np.round(255 * np.nan_to_num(picture)), dtype=np.uint8)
