"""What is trained: each recipe at a size at which it is used, and in which modes. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_practice.data.task import Task

TEN = Task.multiclass(10)


@dataclass(frozen=True)
class Case:
    """A recipe at a size at which it is used, and the operations that its training must run.

    Attributes:
        recipe: Its name.
        shape: Shape of one sample.
        arguments: More arguments of the recipe.
        task: What is predicted.
        heavy: Operations that must be on the device.
        cudnn: Whether cuDNN must run it, so that XLA must not.
    """

    recipe: str
    shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    task: Task = TEN
    heavy: tuple[str, ...] = ("MatMul",)
    cudnn: bool = False


CONVOLUTIONS = ("Conv2D", "MatMul")
CASES = {
    "linear": Case("linear", (784,)),
    "mlp": Case("mlp", (784,), {"units": (512, 256)}),
    "residual_mlp": Case("residual_mlp", (784,), {"depth": 10}),
    "selu_mlp": Case("selu_mlp", (784,), {"units": (512, 256)}),
    "maxout_mlp": Case("maxout_mlp", (784,), {"units": (256, 128)}),
    "low_rank_mlp": Case("low_rank_mlp", (784,), {"units": (512, 256), "rank": 32}),
    "lenet5": Case("lenet5", (32, 32, 1), heavy=CONVOLUTIONS),
    "alexnet": Case("alexnet", (32, 32, 3), {"variant": "small"}, heavy=CONVOLUTIONS),
    "googlenet": Case("googlenet", (64, 64, 3), heavy=CONVOLUTIONS),
    "resnet": Case("resnet", (32, 32, 3), {"depth": 20}, heavy=CONVOLUTIONS),
    "convnet": Case("convnet", (28, 28, 1), heavy=CONVOLUTIONS),
    "conv1d": Case("conv1d", (128, 8), heavy=CONVOLUTIONS),
    "rnn-lstm": Case("rnn", (64, 16), heavy=("CudnnRNN",), cudnn=True),
    "rnn-gru": Case("rnn", (64, 16), {"cell": "gru", "bidirectional": True}, heavy=("CudnnRNN",), cudnn=True),
    "rnn-masked": Case("rnn", (64, 16), {"mask_value": 0.0}, heavy=("CudnnRNN",), cudnn=True),
    "rnn-simple": Case("rnn", (64, 16), {"cell": "simple"}),
    "rnn-dropout": Case("rnn", (64, 16), {"recurrent_dropout": 0.2}),
    "autoencoder": Case("autoencoder", (784,), {"units": (256,), "code": 32}, Task.regression(784)),
}


@dataclass(frozen=True)
class Mode:
    """A float type and whether Keras may use XLA."""

    policy: str = "float32"
    xla: bool | str = False

    def __str__(self) -> str:
        return f"{self.policy}{', XLA' if self.xla else ''}"
