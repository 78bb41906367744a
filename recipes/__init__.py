"""What is built: blocks, heads and models, how they are compiled, and how they start."""

from keras_practice.core.lazy import attributes
from keras_practice.recipes.activations import initializer_for
from keras_practice.recipes.autoencoders import autoencoder, decoder, encoder
from keras_practice.recipes.blocks import dense_block, maxout_block, residual_dense_block
from keras_practice.recipes.calibration import Calibration, LayerScale, calibrate
from keras_practice.recipes.catalog import get, names
from keras_practice.recipes.classics import alexnet, googlenet, lenet5
from keras_practice.recipes.compiling import compile_for, loss_for, metrics_for
from keras_practice.recipes.convolutional import conv1d, conv_block, convnet
from keras_practice.recipes.dense import linear, low_rank_mlp, maxout_mlp, mlp, residual_mlp, selu_mlp
from keras_practice.recipes.heads import head
from keras_practice.recipes.multitask import compile_multi_task, multi_task
from keras_practice.recipes.optimizers import optimizer
from keras_practice.recipes.recurrent import rnn
from keras_practice.recipes.regularization import NONE, Regularization
from keras_practice.recipes.residual import residual_block, resnet
from keras_practice.recipes.schedules import (
    cosine,
    join,
    linear_then_hold,
    one_cycle,
    scale_learning_rate,
    warmup,
)

__all__ = [
    "NONE",
    "Calibration",
    "LayerScale",
    "Regularization",
    "alexnet",
    "autoencoder",
    "calibrate",
    "compile_for",
    "compile_multi_task",
    "conv1d",
    "conv_block",
    "convnet",
    "cosine",
    "decoder",
    "dense_block",
    "encoder",
    "get",
    "googlenet",
    "head",
    "initializer_for",
    "join",
    "lenet5",
    "linear",
    "linear_then_hold",
    "loss_for",
    "low_rank_mlp",
    "maxout_block",
    "maxout_mlp",
    "metrics_for",
    "mlp",
    "multi_task",
    "names",
    "one_cycle",
    "optimizer",
    "residual_block",
    "residual_dense_block",
    "residual_mlp",
    "resnet",
    "rnn",
    "scale_learning_rate",
    "selu_mlp",
    "warmup",
]

__getattr__ = attributes(
    __name__,
    {},
    moved={name: f"keras_practice.training.{name}" for name in ("Device", "Workers", "device", "workers")},
)
