"""What is built: blocks, heads and models, and how they are compiled."""

from keras_practice.recipes.activations import initializer_for
from keras_practice.recipes.blocks import dense_block
from keras_practice.recipes.catalog import get, names
from keras_practice.recipes.compiling import compile_for, loss_for, metrics_for
from keras_practice.recipes.dense import mlp
from keras_practice.recipes.heads import head
from keras_practice.recipes.optimizers import optimizer
from keras_practice.recipes.regularization import NONE, Regularization

__all__ = [
    "NONE",
    "Regularization",
    "compile_for",
    "dense_block",
    "get",
    "head",
    "initializer_for",
    "loss_for",
    "metrics_for",
    "mlp",
    "names",
    "optimizer",
]
