"""Why no GPU is seen: made-up machines, one reason each; a made-up file system; and this machine's report."""

import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import tensorflow as tf
from rich.console import Console

from keras_practice.training import doctor_report as command
from keras_practice.training.devices import GPU
from keras_practice.training.doctor import Machine, SeenGPU, inspect, reasons

LIBRARIES = {"libcudart.so.12": "nvidia/cuda_runtime", "libcudnn.so.9": "nvidia/cudnn"}
# All is well, but for TensorFlow, which sees no GPU.
SOUND = Machine(
    cuda="12.5.1",
    cudnn="9",
    capabilities=("sm_60", "sm_70", "sm_80", "sm_89", "compute_90"),
    driver="550.54.15",
    device_files=True,
    libcuda=True,
    cu_init=0,
    smi=(SeenGPU("Tesla T4", "7.5", 15360, 3),),
    libraries=LIBRARIES,
    xla="/usr/local/cuda",
)
BARE = {"driver": "", "device_files": False, "libcuda": False, "cu_init": None, "smi": ()}
WELL = replace(SOUND, gpus=(GPU("Tesla T4", (7, 5)),))


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ({"system": "win32"}, "no GPU since 2.11", "WSL2"),
        ({"system": "darwin", "cuda": ""}, "macOS has no CUDA", "Colab"),
        ({"cuda": "", "libraries": {}}, "built for the CPU alone", "pip install 'keras-practice[gpu]'"),
        ({"visible": ""}, "CUDA_VISIBLE_DEVICES is ''", "Unset it"),
        ({"visible": "-1"}, "CUDA_VISIBLE_DEVICES is '-1'", "Unset it"),
        ({"hidden": 2}, "hides 2 GPU(s)", "--device cpu"),
        (BARE, "There is no NVIDIA driver", "install its driver"),
        (BARE | {"place": "colab"}, "Colab runtime has no GPU", "Change runtime type"),
        (BARE | {"place": "colab", "cuda": "", "libraries": {}}, "Colab runtime has no GPU", "runtime type"),
        (BARE | {"place": "wsl"}, "WSL sees no NVIDIA driver", "in Windows"),
        (BARE | {"place": "container"}, "without its host's GPUs", "--gpus all"),
        (
            {"place": "container", "device_files": False, "libcuda": False, "smi": ()},
            "without its host's GPUs",
            "--gpus all",
        ),
        ({"driver": "470.82.01"}, "driver 470.82.01 is too old for CUDA 12.5.1", "driver 525 or newer"),
        ({"libcuda": False, "cu_init": None}, "libcuda.so.1 does not load", "Install the whole driver"),
        ({"cu_init": 803}, "cuInit answers 803", "two versions"),
        ({"cu_init": 101}, "cuInit answers 101", "CUDA_VISIBLE_DEVICES"),
        ({"libraries": LIBRARIES | {"libcudnn.so.9": ""}}, "not found: libcudnn.so.9", "keras-practice[gpu]"),
        (
            {"smi": (SeenGPU("Tesla K80", "3.7", 11441, 0),)},
            "Tesla K80 has compute capability 3.7; this TensorFlow needs 6.0 or more",
            "older TensorFlow",
        ),
        ({"smi": (SeenGPU("Tesla T4", "7.5", 15360, 15000),)}, "hold 15,000 of 15,360 MiB", "nvidia-smi"),
    ],
)
def test_each_reason_is_found_and_comes_first(change, reason, remedy):
    first, *_ = reasons(replace(SOUND, **change))
    assert reason in first[0]
    assert remedy in first[1]


def test_a_sound_machine_has_no_reason_and_a_gpu_that_is_seen_none_either():
    assert reasons(SOUND) == []
    assert reasons(replace(SOUND, visible="0,1")) == []
    assert reasons(replace(SOUND, visible="GPU-8f2e")) == []
    assert reasons(WELL) == []


def test_without_a_driver_the_missing_libraries_come_after_it():
    found = reasons(replace(SOUND, **BARE, libraries=dict.fromkeys(LIBRARIES, "")))
    assert [sentence.split()[0] for sentence, _ in found] == ["There", "TensorFlow"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"xla": ""}, "XLA's libdevice.10.bc was not found"),
        ({"gpus": WELL.gpus * 2, "libraries": LIBRARIES | {"libnccl.so.2": ""}}, "libnccl.so.2"),
        ({"gpus": (GPU("NVIDIA GeForce RTX 5090", (12, 0)),)}, "no compiled kernels for NVIDIA GeForce RTX"),
        ({"smi": (SeenGPU("Tesla T4", "7.5", 15360, 9000),)}, "hold 9,000 of 15,360 MiB"),
    ],
)
def test_what_keeps_a_gpu_from_its_best_is_told(change, reason):
    (found,) = reasons(replace(WELL, **change))
    assert reason in found[0]
    assert reasons(replace(WELL, gpus=(GPU("NVIDIA H100", (9, 0)),))) == []


class Driver:
    """A library whose cuInit answers as it is told."""

    def __init__(self, answer):
        self.cuInit = lambda flags: answer


def machine(tmp_path, monkeypatch, *, loads=(), environ=None, smi="", build=None, words=(), answer=0):
    def load(name):
        if name not in loads:
            raise OSError(name)
        return Driver(answer)

    build = build or {"is_cuda_build": True, "cuda_version": "12.5.1", "cudnn_version": "9"}
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    return inspect(
        words,
        root=tmp_path,
        environ=environ or {},
        packages=[str(tmp_path / "site-packages")],
        load=load,
        run=lambda command: smi if "compute_cap" in command[1] else "",
    )


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_driver_devices_libraries_and_words_are_read(tmp_path, monkeypatch):
    write(
        tmp_path / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC\n",
    )
    write(tmp_path / "dev/nvidia0")
    write(tmp_path / "site-packages/nvidia/cudnn/lib/libcudnn.so.9")
    write(tmp_path / "site-packages/nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc")
    found = machine(
        tmp_path,
        monkeypatch,
        loads=("libcuda.so.1", "libcudart.so.12"),
        smi="Tesla T4, 15360, 3, 7.5\nNVIDIA A100 MIG 1g.5gb, [N/A], [N/A], 8.0\n",
        words=[
            "I0000 00:00:1795.898    6159 port.cc:153] oneDNN custom operations are on.",
            "I0000 00:00:1795.898    6159 cudart_stub.cc:31] Could not find cuda drivers on your machine.",
            "2026-11-24 22:00:00.1: W tensorflow/core/gpu_device.cc:2] Cannot dlopen some GPU libraries.",
        ],
    )
    assert (found.driver, found.device_files, found.libcuda, found.cu_init) == ("550.54.15", True, True, 0)
    assert found.smi == (SeenGPU("Tesla T4", "7.5", 15360, 3), SeenGPU("NVIDIA A100 MIG 1g.5gb", "8.0", 0, 0))
    assert found.libraries["libcudnn.so.9"] == "nvidia/cudnn"
    assert found.libraries["libcudart.so.12"] == "system"
    assert {"libcublas.so.12", "libcufft.so.11", "libnccl.so.2"} <= set(found.missing)
    assert found.xla.endswith("nvidia/cuda_nvcc")
    assert found.words == (
        "Could not find cuda drivers on your machine.",
        "Cannot dlopen some GPU libraries.",
    )
    assert found.versions["tensorflow"] == tf.__version__


@pytest.mark.parametrize(
    ("file", "text", "environ", "place"),
    [
        (".dockerenv", "", {}, "container"),
        ("run/.containerenv", "", {}, "container"),
        ("proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n", {}, "wsl"),
        (".dockerenv", "", {"COLAB_RELEASE_TAG": "release-colab"}, "colab"),
        ("proc/sys/kernel/osrelease", "6.8.0-generic\n", {}, ""),
    ],
)
def test_the_place_is_known(file, text, environ, place, tmp_path, monkeypatch):
    write(tmp_path / file, text)
    found = machine(tmp_path, monkeypatch, environ=environ)
    assert found.place == place
    assert (found.driver, found.libcuda, found.cu_init, found.smi) == ("", False, None, ())


def test_a_build_for_the_cpu_needs_no_libraries(tmp_path, monkeypatch):
    found = machine(
        tmp_path, monkeypatch, build={"is_cuda_build": False}, environ={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert (found.cuda, found.libraries, found.capabilities) == ("", {}, ())
    assert [sentence.split()[0] for sentence, _ in reasons(found)][:2] == ["This", "CUDA_VISIBLE_DEVICES"]


def shown(machine, choice="training.device() chooses: CPU.", width=80):
    page = io.StringIO()
    command.show(machine, choice, Console(file=page, width=width, highlight=False))
    return page.getvalue()


def test_the_report_fits_a_terminal_and_keeps_brackets():
    text = shown(replace(SOUND, libraries=dict.fromkeys(LIBRARIES, "")))
    assert max(map(len, text.splitlines())) <= 80
    assert "pip install 'keras-practice[gpu]'" in text
    assert "Tesla T4, compute capability 7.5, 3 of 15,360 MiB in use" in text
    assert "Why no GPU is seen, most likely cause first:" in text
    better = shown(replace(WELL, xla=""))
    assert re.search(r"TensorFlow sees +Tesla T4 \(7\.5\)", better)
    assert "What could be better:\n1. XLA's libdevice" in better
    assert "None of the usual reasons fits" in shown(SOUND)
    assert "CUDA_VISIBLE_DEVICES   '3'" in shown(replace(SOUND, visible="3"))


@pytest.mark.slow
def test_the_command_reports_on_this_machine_and_refuses_a_gpu_that_is_not_there():
    done = subprocess.run(
        [sys.executable, "-m", "keras_practice", "doctor", "--device", "gpu"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: A GPU must be there that TensorFlow sees. Got none")
    assert done.stderr.count("\n") == 1  # And none of TensorFlow's own words.
    assert re.search(rf"versions +Python .*, tensorflow {re.escape(tf.__version__)}", done.stdout)
    assert re.search(r"TensorFlow sees +no GPU", done.stdout)
    assert not re.search(r" $|\.cc:\d+\]", done.stdout, re.MULTILINE)


def test_in_this_process_it_ends_well(capsys):
    assert command.main(["--device", "cpu"]) == 0
    assert "training.device('cpu') chooses: CPU: as asked" in capsys.readouterr().out
