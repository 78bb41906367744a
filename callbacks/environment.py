"""The settings that belong to every result."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import keras
import tensorflow as tf

_PACKAGES = ("keras-practice", "keras", "tensorflow", "keras-tuner", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Versions, back end, devices and float type, to be kept with a result.

    Returns:
        A dictionary of strings, lists and dictionaries, ready for JSON.

    Source:
        A45.
    """
    return {
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "devices": [_describe(device) for device in tf.config.list_physical_devices()],
        "float_type": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
    }


def _describe(device: Any) -> str:
    details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
    name = device.name.removeprefix("/physical_device:")
    return f"{name} ({details['device_name']})" if "device_name" in details else name
