"""Penalties and constraints on weights, bundled so that blocks can share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Regularization:
    """What keeps the weights of a layer small. Biases and batch-norm scales are never touched.

    Attributes:
        l1: Factor of the L1 penalty on the kernel, `>= 0`. Defaults to `0.0`.
        l2: Factor of the L2 penalty on the kernel, `>= 0`. Defaults to `0.0`.
        max_norm: Largest Euclidean norm of the weights into one unit, `> 0`.
            Defaults to `None`, no limit.
        activity_l1: Factor of the L1 penalty on the block's activations, `>= 0`,
            which makes representations sparse. Keras takes its mean over the
            batch; the versions that Python 3.10 can have take the sum. Defaults
            to `0.0`.

    Raises:
        ValueError: If a factor is negative or `max_norm` is not positive.

    Source:
        A4, A5, A6; Srivastava et al. 2014, "Dropout", section 5.1 (max norm).
    """

    l1: float = 0.0
    l2: float = 0.0
    max_norm: float | None = None
    activity_l1: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "activity_l1"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be zero or a positive number. Got {getattr(self, name)}.")
        if self.max_norm is not None and not 0 < self.max_norm < float("inf"):
            raise ValueError(f"max_norm must be a positive number or None. Got {self.max_norm}.")

    def kernel_options(self, axis: int | tuple[int, ...] = 0) -> dict[str, Any]:
        """Keyword arguments for a Keras layer with a kernel.

        Args:
            axis: The kernel's axes that lead into one unit, over which the norm
                is taken: `0` for dense layers, `(0, 1, 2)` for 2-D convolutions.
        """
        options: dict[str, Any] = {}
        if self.l1 or self.l2:
            options["kernel_regularizer"] = keras.regularizers.L1L2(l1=self.l1, l2=self.l2)
        if self.max_norm is not None:
            options["kernel_constraint"] = keras.constraints.MaxNorm(
                self.max_norm, axis=list(axis) if isinstance(axis, tuple) else axis
            )
        return options

    def activity_options(self) -> dict[str, Any]:
        """Keyword arguments for the layer whose output is the block's activation."""
        if not self.activity_l1:
            return {}
        # A float16 penalty cannot be added to a float32 loss.
        return {"activity_regularizer": keras.regularizers.L1(self.activity_l1), "dtype": "float32"}


NONE = Regularization()
