"""Imports Keras with TensorFlow's words held back where this package runs as a command, which shows them.

`python -m keras_practice.recipes` imports the package before its `__main__`, and with it TensorFlow.
"""

import os
import sys

from keras_practice.data.command import quiet_start

words: list[str] = []
# While Python looks for the module of -m, this is its first argument.
if sys.argv[:1] == ["-m"] and "keras_practice.recipes" in sys.orig_argv:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")  # All of them: what is missing is said at level 1.
    with quiet_start() as words:
        import keras  # noqa: F401
