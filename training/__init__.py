"""How it runs: devices, workers, an epoch in one graph, many models in one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_practice.core.lazy import attributes

if TYPE_CHECKING:
    from keras_practice.training.devices import Device, device
    from keras_practice.training.lockstep import lockstep
    from keras_practice.training.workers import Workers, workers

__all__ = ["Device", "Workers", "device", "lockstep", "workers"]

__getattr__ = attributes(
    __name__,
    {
        "Device": "devices",
        "Workers": "workers",
        "device": "devices",
        "lockstep": "lockstep",
        "workers": "workers",
    },
)
