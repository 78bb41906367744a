"""TensorFlow's word on traced functions, held back where every model is new."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


def _is_news(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def quiet_tracing() -> Iterator[None]:
    """Suits a block that trains one model after another, each of which is traced once.

    TensorFlow takes that for one function that is traced again and again, and
    warns of it from the fifth model on.
    """
    logger = tf.get_logger()
    logger.addFilter(_is_news)
    try:
        yield
    finally:
        logger.removeFilter(_is_news)
