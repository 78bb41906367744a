"""Why is no GPU seen? Versions, devices, driver, CUDA libraries, and the usual reasons that fit them."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_practice.training.devices import GPU

_PACKAGES = ("keras-practice", "keras", "tensorflow", "keras-tuner", "numpy")
INSTALL = "pip install 'keras-practice[gpu]'"
# NVIDIA's CUDA compatibility guide: the first Linux driver that runs programs of a CUDA major version.
_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
# Where a library's number is not CUDA's own, by CUDA's major version.
_NUMBERS = {
    12: {"cufft": 11, "cusolver": 11, "cusparse": 12},
    13: {"cufft": 12, "cusolver": 12, "cusparse": 12},
}
# Answers of cuInit in cuda.h that a user can do something about.
_CU_INIT = {
    100: "The driver finds no GPU: see whether nvidia-smi lists one.",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there.",
    802: "The driver is not ready yet; on machines with NVSwitch start nvidia-fabricmanager.",
    803: "The driver's kernel module and its libraries are of two versions: restart the machine.",
    804: "CUDA's forward compatibility package does not go with this GPU: remove cuda-compat.",
    999: "The driver is in an unknown state, as after the machine slept: restart it, or reload nvidia_uvm.",
}


@dataclass(frozen=True)
class SeenGPU:
    """A GPU as the driver's own tool, nvidia-smi, sees it; memory in MiB, 0 where it does not say."""

    name: str
    capability: str
    total: int
    used: int


@dataclass(frozen=True)
class Machine:
    """What was found on the machine.

    Attributes:
        versions: Version by package, and Python's.
        system: `sys.platform`: `"linux"`, `"win32"` or `"darwin"`.
        place: `"colab"`, `"wsl"`, `"container"` or `""`.
        cuda: Version of CUDA that TensorFlow was built with; `""`: for the CPU alone.
        cudnn: Version of cuDNN that it was built with.
        capabilities: Compute capabilities that it holds compiled kernels for.
        visible: The variable CUDA_VISIBLE_DEVICES; `None` where there is none.
        driver: Version of the NVIDIA driver's kernel module; `""` for none.
        device_files: Whether there are the files by which programs reach a GPU.
        libcuda: Whether the driver's library loads.
        cu_init: Its answer to cuInit, 0 for well; `None` without the library.
        smi: GPUs as nvidia-smi lists them.
        libraries: By CUDA library, where it was found; `""` where it was not.
        xla: Where XLA's libdevice was found; `""` where it was not.
        gpus: GPUs that TensorFlow sees.
        hidden: How many of them it may not use.
        words: What TensorFlow wrote on its start about CUDA and GPUs.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    system: str = "linux"
    place: str = ""
    cuda: str = ""
    cudnn: str = ""
    capabilities: tuple[str, ...] = ()
    visible: str | None = None
    driver: str = ""
    device_files: bool = False
    libcuda: bool = False
    cu_init: int | None = None
    smi: tuple[SeenGPU, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    xla: str = ""
    gpus: tuple[GPU, ...] = ()
    hidden: int = 0
    words: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The CUDA libraries that were not found."""
        return [name for name, where in self.libraries.items() if not where]


def inspect(
    words: Sequence[str] = (),
    *,
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    packages: Sequence[str] = tuple(sys.path),
    load: Callable[[str], Any] = ctypes.CDLL,
    run: Callable[[list[str]], str] | None = None,
) -> Machine:
    """Looks around; opens no device through TensorFlow.

    Args:
        words: Lines that TensorFlow wrote on its start. Defaults to none.
        root: Folder in which `/proc` and `/dev` are. Defaults to `/`.
        environ: Environment variables. Defaults to the process's own.
        packages: Folders in which Python packages are. Defaults to `sys.path`.
        load: Loads a shared library by name or path, or raises `OSError`.
            Defaults to `ctypes.CDLL`.
        run: Output of a command. Defaults to `None`, run for 10 seconds at most.
    """
    build = tf.sysconfig.get_build_info()
    cuda = str(build.get("cuda_version", "")) if build.get("is_cuda_build") else ""
    cudnn = str(build.get("cudnn_version", "")) if cuda else ""
    libcuda, answer = _driver_library(load)
    version = root / "proc/driver/nvidia/version"
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", version.read_text()) if version.is_file() else None
    visible = tf.config.get_visible_devices("GPU")
    return Machine(
        versions={"Python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        system=sys.platform,
        place=_place(root, environ),
        cuda=cuda,
        cudnn=cudnn,
        capabilities=tuple(build.get("cuda_compute_capabilities", ())) if cuda else (),
        visible=environ.get("CUDA_VISIBLE_DEVICES"),
        driver=found.group(1) if found else "",
        device_files=any((root / "dev" / name).exists() for name in ("nvidia0", "nvidiactl", "dxg")),
        libcuda=libcuda,
        cu_init=answer,
        smi=_smi(run or _output),
        libraries={name: _find(name, packages, load) for name in _sonames(cuda, cudnn)},
        xla=_libdevice(packages, root) if cuda else "",
        gpus=tuple(_describe(gpu) for gpu in visible),
        hidden=len(tf.config.list_physical_devices("GPU")) - len(visible),
        words=tuple(line for line in map(_bare, words) if re.search(r"cuda|gpu|dlopen|dlerror", line, re.I)),
    )


def reasons(machine: Machine) -> list[tuple[str, str]]:
    """The usual reasons why a GPU is not seen, or not well used, that fit what was found: reason and remedy.

    The first is what to begin with: what comes later often follows from it.
    """
    if machine.gpus:
        return _drawbacks(machine)
    found = []
    if machine.hidden:
        found.append(
            (f"This program hides {machine.hidden} GPU(s).", "Leave out --device cpu or device('cpu').")
        )
    if machine.system == "win32":
        found.append(
            (
                "On Windows itself, TensorFlow has had no GPU since 2.11.",
                f"Install WSL2 (wsl --install), and there {INSTALL}.",
            )
        )
        return found
    if machine.system == "darwin":
        found.append(
            (
                "macOS has no CUDA.",
                "Train on the CPU, in Colab, or on Linux with an NVIDIA GPU.",
            )
        )
        return found
    if machine.place == "colab" and not (machine.driver or machine.libcuda or machine.smi):
        remedy = "Runtime > Change runtime type > T4 GPU, then run all cells again."
        return [*found, ("This Colab runtime has no GPU.", remedy)]
    if not machine.cuda:
        found.append(("This TensorFlow was built for the CPU alone.", f"{INSTALL}, in a fresh environment."))
    if machine.visible is not None and not re.match(r"\d|GPU-|MIG-", machine.visible.strip()):
        found.append((f"CUDA_VISIBLE_DEVICES is {machine.visible!r}, which hides all GPUs.", "Unset it."))
    found += _driver_reasons(machine)
    if machine.missing and machine.cuda:
        found.append(
            (
                f"TensorFlow needs CUDA libraries that were not found: {', '.join(machine.missing)}.",
                INSTALL if machine.place != "colab" else "Restart the runtime, with Colab's own TensorFlow.",
            )
        )
    too_old = [gpu for gpu in machine.smi if _below(gpu.capability, machine.capabilities)]
    if too_old:
        least = ".".join(map(str, min(map(_number, machine.capabilities))))
        found.append(
            (
                f"{too_old[0].name} has compute capability {too_old[0].capability}; this TensorFlow needs "
                f"{least} or more.",
                "Use an older TensorFlow, or a newer GPU.",
            )
        )
    return found + _crowding(machine)


def _driver_reasons(machine: Machine) -> list[tuple[str, str]]:
    """What is wrong with the driver: one reason, as each would explain the next."""
    there = machine.driver or machine.libcuda or machine.smi
    if machine.place == "wsl" and not there:
        return [("WSL sees no NVIDIA driver.", "Install NVIDIA's driver in Windows, and none inside WSL.")]
    if machine.place == "container" and not (there and machine.device_files):
        return [
            (
                "This container was started without its host's GPUs, or the host has none.",
                "docker run --gpus all, with the NVIDIA Container Toolkit on the host.",
            )
        ]
    if not there:
        return [
            (
                "There is no NVIDIA driver.",
                "If there is an NVIDIA GPU (lspci | grep -i nvidia), install its driver and restart.",
            )
        ]
    least = _LEAST_DRIVER.get(int(machine.cuda.split(".")[0])) if machine.cuda else None
    if least and machine.driver and int(machine.driver.split(".")[0]) < least:
        return [
            (
                f"The driver {machine.driver} is too old for CUDA {machine.cuda}.",
                f"Install driver {least} or newer.",
            )
        ]
    if not machine.libcuda:
        return [("The driver's library libcuda.so.1 does not load.", "Install the whole driver again.")]
    if machine.cu_init:
        text = _CU_INIT.get(machine.cu_init, "See NVIDIA's CUresult for this number.")
        return [(f"The driver does not start: cuInit answers {machine.cu_init}.", text)]
    return []


def _drawbacks(machine: Machine) -> list[tuple[str, str]]:
    """What keeps GPUs that are seen from doing their best."""
    found = []
    if machine.cuda and not machine.xla and machine.system == "linux":
        found.append(
            ("XLA's libdevice.10.bc was not found, so XLA may fail.", f"{INSTALL}, or device(xla=False).")
        )
    if len(machine.gpus) > 1 and "libnccl.so.2" in machine.missing:
        found.append(("Several GPUs work together by libnccl.so.2, which was not found.", INSTALL))
    majors = {_number(capability)[0] for capability in machine.capabilities}
    for gpu in machine.gpus:
        if majors and gpu.capability and gpu.capability[0] not in majors:
            found.append(
                (
                    f"This TensorFlow has no compiled kernels for {gpu}.",
                    "The first run compiles them, for minutes; CUDA_CACHE_MAXSIZE=4294967296 keeps them.",
                )
            )
            break
    return found + _crowding(machine)


def _crowding(machine: Machine) -> list[tuple[str, str]]:
    return [
        (
            f"Other programs hold {gpu.used:,} of {gpu.total:,} MiB of {gpu.name}.",
            "nvidia-smi lists them; end those that are yours, such as another notebook.",
        )
        for gpu in machine.smi
        if gpu.used > 0.5 * gpu.total
    ]


def _place(root: Path, environ: Mapping[str, str]) -> str:
    if "COLAB_RELEASE_TAG" in environ or "COLAB_GPU" in environ:
        return "colab"
    release = root / "proc/sys/kernel/osrelease"
    if release.is_file() and "microsoft" in release.read_text().lower():
        return "wsl"
    if any((root / name).exists() for name in (".dockerenv", "run/.containerenv")):
        return "container"
    return "container" if "KUBERNETES_SERVICE_HOST" in environ else ""


def _sonames(cuda: str, cudnn: str) -> list[str]:
    """File names of the libraries that TensorFlow opens, as far as their numbers are known."""
    if not cuda:
        return []
    major = int(cuda.split(".")[0])
    numbers = {"cudart": major, "cublas": major, "cublasLt": major, **_NUMBERS.get(major, {})}
    names = [f"lib{name}.so.{number}" for name, number in numbers.items()]
    return [*names, *([f"libcudnn.so.{cudnn.split('.')[0]}"] if cudnn else []), "libnccl.so.2"]


def _find(soname: str, packages: Sequence[str], load: Callable[[str], Any]) -> str:
    """The wheel that brings a library, or "system" where the loader finds it."""
    for folder in packages:
        for path in sorted(Path(folder or ".").glob(f"nvidia/*/lib/{soname}")):
            return f"nvidia/{path.parts[-3]}"
    try:
        load(soname)
    except OSError:
        return ""
    return "system"


def _libdevice(packages: Sequence[str], root: Path) -> str:
    wheels = (Path(folder or ".") / "nvidia/cuda_nvcc" for folder in packages)
    for home in (*wheels, *sorted((root / "usr/local").glob("cuda*"))):
        if (home / "nvvm/libdevice/libdevice.10.bc").is_file():
            return str(home)
    return ""


def _driver_library(load: Callable[[str], Any]) -> tuple[bool, int | None]:
    try:
        return True, int(load("libcuda.so.1").cuInit(0))
    except OSError:
        return False, None


def _smi(run: Callable[[list[str]], str]) -> tuple[SeenGPU, ...]:
    told = ""
    for query in ("name,memory.total,memory.used,compute_cap", "name,memory.total,memory.used"):
        # Old drivers do not know the last.
        told = told or run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"])
    gpus = []
    for line in told.splitlines():
        name, *numbers = (cell.strip() for cell in line.split(","))
        if len(numbers) >= 2:
            total, used = (int(number) if number.isdigit() else 0 for number in numbers[:2])
            gpus.append(SeenGPU(name, numbers[2] if len(numbers) > 2 else "", total, used))
    return tuple(gpus)


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # tensorflow-cpu and others install the same module under another name.
        return "of another name" if util.find_spec(package.replace("-", "_")) else "not installed"


def _describe(gpu: Any) -> GPU:
    details = tf.config.experimental.get_device_details(gpu)
    return GPU(details.get("device_name", "of unknown name"), details.get("compute_capability"))


def _bare(line: str) -> str:
    """A line of TensorFlow's log without its date, thread and place."""
    return re.sub(r"^(\d{4}-\S+ \S+ )?[IWEF]?\d{0,4} ?[\d:. ]*\S+\.cc:\d+\] ", "", line).strip()


def _number(capability: str) -> tuple[int, int]:
    """(8, 9) for "sm_89", "compute_89" or "8.9"."""
    digits = capability.rsplit("_", 1)[-1].replace(".", "")
    return int(digits[:-1]), int(digits[-1])


def _below(capability: str, built: Sequence[str]) -> bool:
    if not built or not re.fullmatch(r"\d+\.\d", capability):
        return False
    return _number(capability) < min(map(_number, built))
