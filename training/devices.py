"""Where a model trains: on the GPUs that TensorFlow sees, in the precision that suits them, or on the CPU."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_practice.core.command import DEVICES, device_option, quiet_start, refuse
from keras_practice.core.private_api.tensorflow import has_started

DOCTOR = "keras-practice doctor"
_RESTART = "call device first of all, and in a notebook restart the runtime"
_MIXED = ("mixed_float16", "mixed_bfloat16")
# These report 7.5, as their sisters with tensor cores do, and have none: the Turing chips TU116 and TU117.
_WITHOUT_TENSOR_CORES = re.compile(r"GTX 16\d\d|MX[45]50|\bT(4|5|6|10|12)00\b|\bT550\b")


@dataclass(frozen=True)
class GPU:
    """One GPU as TensorFlow describes it.

    Attributes:
        name: Such as `"Tesla T4"`.
        capability: NVIDIA's compute capability, such as `(7, 5)`; `None` where
            there is none, as on AMD's and Apple's.
    """

    name: str
    capability: tuple[int, int] | None = None

    @property
    def tensor_cores(self) -> bool:
        """Whether it multiplies float16 matrices in hardware made for them: Volta and newer."""
        return (
            self.capability is not None
            and self.capability >= (7, 0)
            and not _WITHOUT_TENSOR_CORES.search(self.name)
        )

    @property
    def bfloat16(self) -> bool:
        """Whether its tensor cores take bfloat16 too: Ampere and newer."""
        return self.tensor_cores and self.capability is not None and self.capability >= (8, 0)

    def __str__(self) -> str:
        capability = "" if self.capability is None else f" ({'.'.join(map(str, self.capability))})"
        return f"{self.name}{capability}"


@dataclass(frozen=True)
class Facts:
    """What a choice of device follows from.

    Attributes:
        gpus: The GPUs that TensorFlow may use.
        hidden: Number of GPUs that it sees and may not use.
        started: Whether it has opened its devices; some settings are then fixed.
        growing: Whether memory growth is on for each of `gpus`.
        divided: Whether one of `gpus` has been divided into logical devices.
        policy: Name of Keras's dtype policy.
        floatx: Keras's float type.
        driver: Whether there is an NVIDIA driver.
    """

    gpus: tuple[GPU, ...] = ()
    hidden: int = 0
    started: bool = False
    growing: bool = False
    divided: bool = False
    policy: str = "float32"
    floatx: str = "float32"
    driver: bool = False


@dataclass(frozen=True)
class Device:
    """What `device` chose; as text, one line that says what and why.

    Attributes:
        kind: `"gpu"` or `"cpu"`.
        gpus: The GPUs that are used.
        policy: Name of the dtype policy that models are now built with.
        jit_compile: For `compile_for` and `keras.Model.compile`: `True`, `False`,
            or `"auto"`, by which Keras compiles with XLA what cuDNN does not run.
        memory_growth: Whether TensorFlow takes the GPUs' memory as it needs it.
        strategy: The `tf.distribute.Strategy` to build and compile under, by
            `with chosen.scope():`, or `None`.
        reasons: What was chosen, and why, in words.
    """

    kind: str
    gpus: tuple[GPU, ...] = ()
    policy: str = "float32"
    jit_compile: bool | str = False
    memory_growth: bool = False
    strategy: Any = None
    reasons: tuple[str, ...] = ()

    def scope(self) -> AbstractContextManager[Any]:
        """The context to build and compile a model in: the strategy's, or one that does nothing."""
        scope: AbstractContextManager[Any] = nullcontext() if self.strategy is None else self.strategy.scope()
        return scope

    def __str__(self) -> str:
        return f"{_named(self.gpus) if self.gpus else 'CPU'}: {'; '.join(self.reasons)}."


def device(
    kind: str = "auto",
    *,
    mixed_precision: bool | str = "auto",
    xla: bool | str = "auto",
    strategy: Any = "auto",
    memory_growth: bool | str = "auto",
    verbose: bool = True,
) -> Device:
    """Sets TensorFlow and Keras up for the GPUs there are; on a CPU it changes nothing and says so.

    Call it first, before data and models, since TensorFlow fixes some settings
    when it opens its devices. It can be called again, as a notebook's cell is.

        chosen = training.device()
        with chosen.scope():
            model = recipes.convnet(digits.input_shape, digits.task)
            recipes.compile_for(model, digits.task, jit_compile=chosen.jit_compile)

    Args:
        kind: `"auto"`, a GPU if TensorFlow sees one; `"gpu"`, which is an error
            without; or `"cpu"`, which hides the GPUs. Defaults to `"auto"`.
        mixed_precision: `"auto"`: on GPUs with tensor cores `"mixed_bfloat16"`
            from compute capability 8.0 (Ampere) on, as it has float32's range and
            needs no loss scaling, else `"mixed_float16"` (Volta, Turing); float32
            on others and on the CPU. `True` is the same, and `"mixed_bfloat16"`
            on the CPU; `False` undoes a mixed policy; or one of the two names.
            Defaults to `"auto"`.
        xla: `"auto"`: on one GPU what Keras decides for each model, which is XLA
            but for recurrent layers that cuDNN runs; none on the CPU, where it
            did not pay, and under a strategy, where Keras has none. `True` or
            `False` is passed on. Takes effect by `jit_compile`, see above.
            Defaults to `"auto"`.
        strategy: `"auto"`: `tf.distribute.MirroredStrategy` on several GPUs of
            one model; of different ones, the most capable alone, as the slowest
            would set the pace. `True`: all of them. `False`: one GPU. Or a
            `tf.distribute.Strategy`. Defaults to `"auto"`.
        memory_growth: Whether TensorFlow takes a GPU's memory as it needs it, in
            place of nearly all at once. `"auto"`: yes, if it is not too late.
            Defaults to `"auto"`.
        verbose: Whether to print the line that `str` gives. Defaults to `True`.

    Returns:
        A `Device`: what was chosen and why.

    Raises:
        ValueError: If an argument is not one of those above, a GPU is asked for
            and there is none, or all GPUs and there is one.
        RuntimeError: If it is too late for what was asked for, since TensorFlow
            has opened its devices.

    Source:
        Micikevicius et al. 2018, "Mixed Precision Training"; Kalamkar et al. 2019,
        "A Study of BFLOAT16 for Deep Learning Training"; NVIDIA 2017, 2018 and
        2020, white papers on Volta, Turing and Ampere.
    """
    facts = gather()
    chosen = decide(
        facts, kind, mixed_precision=mixed_precision, xla=xla, strategy=strategy, memory_growth=memory_growth
    )
    chosen = _apply(chosen, facts)
    if verbose:
        print(chosen)  # noqa: T201
    return chosen


def select_device(kind: str) -> Device:
    """Puts a command where its `--device` says, without mixed precision or a strategy, so that results stay.

    Ends the command with exit code 2 and one sentence where that cannot be had.
    """
    chosen, refusal = None, ""
    with quiet_start():
        try:
            chosen = device(kind, mixed_precision=False, strategy=False, verbose=False)
        except (ValueError, RuntimeError) as error:
            refusal = str(error)
    return chosen or refuse(refusal)


def parse_and_place(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of a script, with `--device` among them and in effect; see `select_device`."""
    device_option(parser)
    options = parser.parse_args()
    select_device(options.device)
    return options


def gather() -> Facts:
    """What TensorFlow, Keras and the system say; opens no device."""
    visible = tf.config.get_visible_devices("GPU")
    return Facts(
        gpus=tuple(_describe(gpu) for gpu in visible),
        hidden=len(tf.config.list_physical_devices("GPU")) - len(visible),
        started=has_started(),
        growing=bool(visible) and all(tf.config.experimental.get_memory_growth(gpu) for gpu in visible),
        divided=any(tf.config.get_logical_device_configuration(gpu) is not None for gpu in visible),
        policy=keras.config.dtype_policy().name,
        floatx=keras.config.floatx(),
        driver=Path("/proc/driver/nvidia/version").exists()
        or Path("/dev/dxg").exists()
        or shutil.which("nvidia-smi") is not None,
    )


def decide(
    facts: Facts,
    kind: str = "auto",
    *,
    mixed_precision: bool | str = "auto",
    xla: bool | str = "auto",
    strategy: Any = "auto",
    memory_growth: bool | str = "auto",
) -> Device:
    """What suits the facts: `device` without its effects; `strategy` is `True` where one is to be made."""
    _check("kind", kind, DEVICES)
    _check("mixed_precision", mixed_precision, ("auto", True, False, *_MIXED))
    _check("xla", xla, ("auto", True, False))
    _check("memory_growth", memory_growth, ("auto", True, False))
    if not isinstance(strategy, tf.distribute.Strategy):
        _check("strategy", strategy, ("auto", True, False))
    if kind == "gpu" and not facts.gpus:
        why = f"{facts.hidden} that are hidden from it" if facts.hidden else f"none; see {DOCTOR}"
        raise ValueError(f"A GPU must be there that TensorFlow sees. Got {why}.")
    if strategy is True and (kind == "cpu" or len(facts.gpus) < 2):
        raise ValueError(f"strategy=True needs several GPUs. Got {0 if kind == 'cpu' else len(facts.gpus)}.")
    if kind == "cpu" or not facts.gpus:
        return _decide_for_cpu(facts, kind, mixed_precision, xla, strategy)

    gpus, reasons = facts.gpus, []
    if strategy == "auto":
        strategy = len(gpus) > 1 and len(set(gpus)) == 1
        if len(set(gpus)) > 1 and not facts.started:
            gpus = (max(gpus, key=lambda gpu: gpu.capability or (0, 0)),)
            reasons.append(f"alone, as the slowest of {_named(facts.gpus)} would set the pace")
    if strategy is True:
        reasons.append("MirroredStrategy, a share of each batch for each")
    elif strategy is not False:
        reasons.append(f"{type(strategy).__name__}, as asked")
    elif len(gpus) > 1:
        gpus = gpus[:1]
        reasons.append(f"the first of {len(facts.gpus)}, without a strategy")
    policy, why = _precision(gpus, facts, mixed_precision)
    reasons.append(f"{policy}, {why}")
    jit_compile, why = _xla(xla, strategy is not False)
    reasons.append(why)
    growth, why = _growth(facts, memory_growth)
    reasons.append(why)
    return Device("gpu", gpus, policy, jit_compile, growth, strategy or None, tuple(reasons))


def _decide_for_cpu(facts: Facts, kind: str, mixed_precision: Any, xla: Any, strategy: Any) -> Device:
    if kind == "cpu":
        number = len(facts.gpus) + facts.hidden
        if facts.gpus and facts.started:
            raise RuntimeError(
                f"device('cpu') must be called before TensorFlow opens its devices; {_RESTART}. "
                f"Got {_named(facts.gpus)} in use."
            )
        reason = f"as asked, {number} GPU(s) hidden" if number else "as asked"
    elif facts.hidden:
        reason = f"{facts.hidden} GPU(s) are hidden from TensorFlow"
    elif facts.driver:
        reason = f"TensorFlow sees no GPU though there is an NVIDIA driver, and {DOCTOR} says why"
    else:
        reason = "TensorFlow sees no GPU"
    policy, asked = facts.policy, []
    if mixed_precision in (True, *_MIXED):
        policy = "mixed_bfloat16" if mixed_precision is True else str(mixed_precision)
        asked.append(f"{policy}, as asked")
    elif mixed_precision is False and policy in _MIXED:
        policy = facts.floatx
        asked.append(f"{policy}, as asked")
    if xla is True:
        asked.append("XLA, as asked")
    if strategy not in ("auto", False):
        asked.append(f"{type(strategy).__name__}, as asked")
    if not asked:
        asked = [f"nothing to set, {policy} and no XLA"]
    return Device(
        "cpu",
        policy=policy,
        jit_compile=xla is True,
        strategy=None if strategy in ("auto", False) else strategy,
        reasons=(reason, *asked),
    )


def _precision(gpus: Sequence[GPU], facts: Facts, asked: bool | str) -> tuple[str, str]:
    """The dtype policy, and why; on several GPUs one that suits all."""
    if asked in _MIXED:
        return str(asked), "as asked"
    plain = facts.floatx if facts.policy in _MIXED else facts.policy
    if asked is False:
        return plain, "as asked"
    if asked == "auto" and plain != "float32":
        return plain, "as set before"
    if all(gpu.bfloat16 for gpu in gpus):
        return "mixed_bfloat16", "fast on tensor cores, and has float32's range"
    if all(gpu.tensor_cores for gpu in gpus):
        return "mixed_float16", "fast on tensor cores, and Keras scales the loss"
    if asked is True:
        return "mixed_float16", "as asked, though without tensor cores it saves memory more than time"
    return plain, "no tensor cores for mixed precision"


def _xla(asked: bool | str, strategy: bool) -> tuple[bool | str, str]:
    if asked is True:
        return True, "XLA, as asked"
    if asked is False:
        return False, "no XLA, as asked"
    if strategy:
        return False, "no XLA, as Keras has none under a strategy"
    return "auto", "XLA but for recurrent layers, which cuDNN runs"


def _growth(facts: Facts, asked: bool | str) -> tuple[bool, str]:
    if facts.divided:
        if asked is True:
            raise ValueError(
                "memory_growth=True is for a whole GPU. Got one divided into logical devices with limits."
            )
        return False, "memory as its logical devices have it"
    wanted = asked is not False
    if facts.started and wanted != facts.growing:
        if asked != "auto":
            raise RuntimeError(
                f"memory_growth={asked} must be set before TensorFlow opens its devices; {_RESTART}. "
                f"Got memory growth {'on' if facts.growing else 'off'}."
            )
        return False, "nearly all memory is taken, too late for memory growth: call device first"
    return wanted, "memory as needed" if wanted else "nearly all memory is taken, as asked"


def _apply(chosen: Device, facts: Facts) -> Device:
    """Sets what was chosen, in TensorFlow's order: visibility, memory, then what opens devices."""
    gpus = tf.config.get_visible_devices("GPU")
    if not facts.started:
        if chosen.kind == "cpu":
            tf.config.set_visible_devices([], "GPU")
        elif len(chosen.gpus) == 1 and chosen.gpus[0] != facts.gpus[0]:
            # Else models would land on the first.
            gpus = [gpus[facts.gpus.index(chosen.gpus[0])]]
            tf.config.set_visible_devices(gpus, "GPU")
        if chosen.kind == "gpu" and not facts.divided:
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, chosen.memory_growth)
    if chosen.policy != facts.policy:
        keras.config.set_dtype_policy(chosen.policy)
    return replace(chosen, strategy=tf.distribute.MirroredStrategy()) if chosen.strategy is True else chosen


def _describe(gpu: Any) -> GPU:
    details = tf.config.experimental.get_device_details(gpu)
    return GPU(details.get("device_name", "of unknown name"), details.get("compute_capability"))


def _named(gpus: Sequence[GPU]) -> str:
    """`GPU Tesla T4 (7.5)`, `2 GPUs NVIDIA A100 (8.0)`, or different ones joined by "and"."""
    kinds = {gpu: list(gpus).count(gpu) for gpu in gpus}
    return " and ".join(f"{f'{n} GPUs' if n > 1 else 'GPU'} {gpu}" for gpu, n in kinds.items())


def _check(name: str, value: Any, words: tuple[Any, ...]) -> None:
    # By type too: 1 == True, and a strategy may not compare.
    if not any(type(value) is type(word) and value == word for word in words):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}. Got {value!r}.")
