"""What is chosen from made-up facts about GPUs, and that it takes effect; on machines without any."""

import argparse
import json
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

from keras_practice import cli, recipes, training
from keras_practice.data import Task
from keras_practice.training.devices import GPU, Device, Facts, decide, gather, parse_and_place, select_device

T4 = GPU("Tesla T4", (7, 5))
V100 = GPU("Tesla V100-SXM2-16GB", (7, 0))
A100 = GPU("NVIDIA A100-SXM4-40GB", (8, 0))
L4 = GPU("NVIDIA L4", (8, 9))
H100 = GPU("NVIDIA H100 80GB HBM3", (9, 0))
P100 = GPU("Tesla P100-PCIE-16GB", (6, 0))
K80 = GPU("Tesla K80", (3, 7))
GTX1660 = GPU("NVIDIA GeForce GTX 1660 Ti", (7, 5))
APPLE = GPU("METAL")


@pytest.fixture(autouse=True)
def same_policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("gpu", "policy", "why"),
    [
        (T4, "mixed_float16", "Keras scales the loss"),
        (V100, "mixed_float16", "Keras scales the loss"),
        (A100, "mixed_bfloat16", "float32's range"),
        (L4, "mixed_bfloat16", "float32's range"),
        (H100, "mixed_bfloat16", "float32's range"),
        (P100, "float32", "no tensor cores"),
        (K80, "float32", "no tensor cores"),
        (GTX1660, "float32", "no tensor cores"),
        (GPU("NVIDIA T1000", (7, 5)), "float32", "no tensor cores"),
        (GPU("NVIDIA TITAN RTX", (7, 5)), "mixed_float16", "tensor cores"),
        (APPLE, "float32", "no tensor cores"),
    ],
    ids=lambda value: value.name if isinstance(value, GPU) else "",
)
def test_the_precision_is_that_of_the_hardware(gpu, policy, why):
    chosen = decide(Facts((gpu,)))
    assert (chosen.kind, chosen.policy, chosen.gpus) == ("gpu", policy, (gpu,))
    assert (chosen.jit_compile, chosen.memory_growth, chosen.strategy) == ("auto", True, None)
    assert why in str(chosen)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (Facts(), "CPU: TensorFlow sees no GPU; nothing to set, float32 and no XLA."),
        (
            Facts(driver=True),
            "CPU: TensorFlow sees no GPU though there is an NVIDIA driver, and "
            "keras-practice doctor says why; nothing to set, float32 and no XLA.",
        ),
        (
            Facts(hidden=2, policy="mixed_float16"),
            "CPU: 2 GPU(s) are hidden from TensorFlow; nothing to set, mixed_float16 and no XLA.",
        ),
        (
            Facts((T4,)),
            "GPU Tesla T4 (7.5): mixed_float16, fast on tensor cores, and Keras scales the loss; XLA but for "
            "recurrent layers, which cuDNN runs; memory as needed.",
        ),
        (
            Facts((A100, A100)),
            "2 GPUs NVIDIA A100-SXM4-40GB (8.0): MirroredStrategy, a share of each batch for each; "
            "mixed_bfloat16, fast on tensor cores, and has float32's range; no XLA, as Keras has none under "
            "a strategy; memory as needed.",
        ),
        (
            Facts((P100, A100)),
            "GPU NVIDIA A100-SXM4-40GB (8.0): alone, as the slowest of GPU Tesla P100-PCIE-16GB (6.0) and "
            "GPU NVIDIA A100-SXM4-40GB (8.0) would set the pace; mixed_bfloat16, fast on tensor cores, and "
            "has float32's range; XLA but for recurrent layers, which cuDNN runs; memory as needed.",
        ),
    ],
)
def test_one_line_says_what_and_why(facts, line):
    assert str(decide(facts)) == line


def test_several_gpus():
    assert decide(Facts((T4, T4))).strategy is True
    assert decide(Facts((T4, T4))).jit_compile is False
    alone = decide(Facts((T4, T4)), strategy=False)
    assert (alone.strategy, alone.gpus, alone.jit_compile) == (None, (T4,), "auto")
    # All of them, where it is asked for: the precision must suit the oldest.
    together = decide(Facts((A100, T4)), strategy=True)
    assert (together.gpus, together.strategy, together.policy) == ((A100, T4), True, "mixed_float16")
    assert decide(Facts((A100, P100)), strategy=True).policy == "float32"
    # Once TensorFlow has opened them, none can be left out: it is the first that a model lands on.
    late = decide(Facts((P100, A100), started=True, growing=True))
    assert (late.gpus, late.policy, late.strategy) == ((P100,), "float32", None)
    given = tf.distribute.get_strategy()
    assert decide(Facts((T4,)), strategy=given).strategy is given


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        (Facts((T4,)), {"mixed_precision": False}, {"policy": "float32"}),
        (Facts((T4,), policy="mixed_float16"), {"mixed_precision": False}, {"policy": "float32"}),
        (Facts((T4,)), {"mixed_precision": "mixed_bfloat16"}, {"policy": "mixed_bfloat16"}),
        (Facts((A100,)), {"mixed_precision": "mixed_float16"}, {"policy": "mixed_float16"}),
        (Facts((P100,)), {"mixed_precision": True}, {"policy": "mixed_float16"}),
        (Facts((A100,)), {"mixed_precision": True}, {"policy": "mixed_bfloat16"}),
        (Facts((A100,), policy="float64", floatx="float64"), {}, {"policy": "float64"}),
        (Facts((T4,)), {"xla": False}, {"jit_compile": False}),
        (Facts((T4, T4)), {"xla": True}, {"jit_compile": True, "strategy": True}),
        (Facts((T4,)), {"memory_growth": False}, {"memory_growth": False}),
        (Facts((T4,), divided=True), {}, {"memory_growth": False}),
        (Facts((T4,), started=True, growing=True), {"memory_growth": True}, {"memory_growth": True}),
        (Facts((T4,), started=True), {}, {"memory_growth": False}),
        (Facts((T4,)), {"kind": "cpu"}, {"kind": "cpu", "policy": "float32", "jit_compile": False}),
        (Facts(), {"mixed_precision": True, "xla": True}, {"policy": "mixed_bfloat16", "jit_compile": True}),
        (Facts(policy="mixed_float16"), {"mixed_precision": False}, {"policy": "float32"}),
        (Facts(), {"memory_growth": True}, {"kind": "cpu", "memory_growth": False}),
    ],
)
def test_each_choice_can_be_switched(facts, options, expected):
    chosen = decide(facts, **options)
    assert {name: getattr(chosen, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("facts", "options", "error", "sentence"),
    [
        (
            Facts(),
            {"kind": "gpu"},
            ValueError,
            "A GPU must be there that TensorFlow sees. Got none; see keras-practice doctor",
        ),
        (Facts(hidden=1), {"kind": "gpu"}, ValueError, "Got 1 that are hidden from it."),
        (Facts(), {"kind": "tpu"}, ValueError, "kind must be one of 'auto', 'gpu', 'cpu'. Got 'tpu'."),
        (Facts(), {"mixed_precision": 1}, ValueError, "mixed_precision must be one of .* Got 1."),
        (Facts(), {"mixed_precision": "float16"}, ValueError, "'mixed_bfloat16'. Got 'float16'."),
        (Facts(), {"xla": "always"}, ValueError, "xla must be one of 'auto', True, False. Got 'always'."),
        (Facts(), {"strategy": "mirrored"}, ValueError, "strategy must be one of .* Got 'mirrored'."),
        (Facts((T4,)), {"strategy": True}, ValueError, "strategy=True needs several GPUs. Got 1."),
        (Facts((T4, T4)), {"kind": "cpu", "strategy": True}, ValueError, "needs several GPUs. Got 0."),
        (Facts((T4,)), {"memory_growth": "no"}, ValueError, "memory_growth must be one of .* Got 'no'."),
        (Facts((T4,), divided=True), {"memory_growth": True}, ValueError, "Got one divided into logical"),
        (
            Facts((T4,), started=True),
            {"memory_growth": True},
            RuntimeError,
            "memory_growth=True must be set before TensorFlow opens its devices; .* Got memory growth off.",
        ),
        (
            Facts((T4,), started=True, growing=True),
            {"kind": "cpu"},
            RuntimeError,
            r"device\('cpu'\) must be called before .* Got GPU Tesla T4 \(7.5\) in use.",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(facts, options, error, sentence):
    with pytest.raises(error, match=sentence):
        decide(facts, **options)


def test_on_a_cpu_it_changes_nothing_and_says_so(capsys):
    before = keras.config.dtype_policy().name
    chosen = training.device()
    assert chosen == Device("cpu", policy=before, reasons=chosen.reasons)
    assert capsys.readouterr().out == f"{chosen}\n"
    assert "no GPU" in str(chosen)
    assert keras.config.dtype_policy().name == before
    with chosen.scope():
        model = recipes.mlp((3,), Task.binary(), units=(4,))
    recipes.compile_for(model, Task.binary(), jit_compile=chosen.jit_compile)
    assert model.jit_compile is False
    training.device("cpu", verbose=False)
    assert capsys.readouterr().out == ""


def test_a_gpu_that_is_not_there_is_refused(capsys):
    with pytest.raises(ValueError, match=r"^A GPU must be there that TensorFlow sees\. Got none"):
        training.device("gpu")
    with pytest.raises(SystemExit, match="2"):
        select_device("gpu")
    error = capsys.readouterr().err
    assert error.startswith("error: A GPU must be there")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["tune", "check", "doctor"])
def test_every_command_takes_it_and_refuses_in_one_sentence(command, capsys, tmp_path):
    arguments = {"tune": ["--out", str(tmp_path / "run")], "check": ["absent.keras", "absent.npz"]}
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, *arguments.get(command, []), "--device", "gpu"])
    error = capsys.readouterr().err
    assert error.startswith("error: A GPU must be there")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, *arguments.get(command, []), "--device", "tpu"])
    assert "argument --device: invalid choice: 'tpu'" in capsys.readouterr().err


def test_a_script_takes_it_too(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "3", "--device", "cpu"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    options = parse_and_place(parser)
    assert (options.epochs, options.device) == (3, "cpu")
    monkeypatch.setattr(sys, "argv", ["train.py", "--device", "gpu"])
    with pytest.raises(SystemExit, match="2"):
        parse_and_place(argparse.ArgumentParser())


def test_a_policy_that_is_asked_for_takes_effect_and_is_undone():
    training.device(mixed_precision="mixed_float16", verbose=False)
    assert keras.config.dtype_policy().name == "mixed_float16"
    select_device("auto")
    assert keras.config.dtype_policy().name == "float32"


def test_a_strategy_that_is_given_is_the_scope():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with training.device(strategy=strategy, verbose=False).scope():
        assert tf.distribute.get_strategy() is strategy


class FakeConfig:
    """TensorFlow's own word on which settings were made, for two GPUs that are not there."""

    def __init__(self, monkeypatch, names, started=False):
        self.calls, self.visible = [], list(names)
        self.growth = dict.fromkeys(names, False)
        config = recipes.compiling.tf.config
        monkeypatch.setattr(config, "list_physical_devices", lambda kind=None: list(names))
        monkeypatch.setattr(config, "get_visible_devices", lambda kind=None: list(self.visible))
        monkeypatch.setattr(config, "set_visible_devices", self.show)
        monkeypatch.setattr(config, "get_logical_device_configuration", lambda gpu: None)
        monkeypatch.setattr(config.experimental, "get_memory_growth", lambda gpu: self.growth[gpu])
        monkeypatch.setattr(config.experimental, "set_memory_growth", self.grow)
        monkeypatch.setattr(
            config.experimental,
            "get_device_details",
            lambda gpu: {"device_name": gpu.rstrip("0123456789"), "compute_capability": names[gpu]},
        )
        module = sys.modules["keras_practice.training.devices"]
        monkeypatch.setattr(module, "has_started", lambda: started)
        monkeypatch.setattr(
            tf.distribute, "MirroredStrategy", lambda: self.calls.append("strategy") or "made"
        )

    def show(self, gpus, kind):
        self.calls.append(("show", *gpus))
        self.visible = list(gpus)

    def grow(self, gpu, on):
        self.calls.append(("grow", gpu, on))
        self.growth[gpu] = on


def test_settings_are_made_before_devices_are_opened(monkeypatch):
    fake = FakeConfig(monkeypatch, {"A0": (8, 0), "A1": (8, 0)})
    chosen = training.device(verbose=False)
    assert fake.calls == [("grow", "A0", True), ("grow", "A1", True), "strategy"]
    assert chosen.strategy == "made"
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert gather().growing


def test_of_different_gpus_the_best_alone_is_shown(monkeypatch):
    fake = FakeConfig(monkeypatch, {"P0": (6, 0), "A1": (8, 0)})
    assert training.device(verbose=False).gpus == (GPU("A", (8, 0)),)
    assert fake.calls == [("show", "A1"), ("grow", "A1", True)]
    assert gather().hidden == 1


def test_cpu_hides_the_gpus_and_nothing_is_compiled_for_them(monkeypatch):
    fake = FakeConfig(monkeypatch, {"A0": (8, 0)})
    chosen = training.device("cpu", verbose=False)
    assert fake.calls == [("show",)]
    assert str(chosen) == "CPU: as asked, 1 GPU(s) hidden; nothing to set, float32 and no XLA."
    # Keras looks at the GPUs that there are, hidden or not, and would use XLA.
    model = recipes.compile_for(recipes.linear((3,), Task.binary()), Task.binary())
    assert model.jit_compile is False
    with pytest.raises(ValueError, match="hidden from it"):
        training.device("gpu")


def test_a_second_call_after_the_start_changes_the_policy_alone(monkeypatch):
    fake = FakeConfig(monkeypatch, {"T0": (7, 5)}, started=True)
    fake.growth["T0"] = True
    assert training.device(verbose=False).policy == "mixed_float16"
    assert training.device(mixed_precision=False, verbose=False).policy == "float32"
    assert fake.calls == []


FRESH = """
import json, sys
import tensorflow as tf
from keras_practice import data, recipes, training
from keras_practice.training.devices import gather
import keras_practice.tuning.study
before = gather().started
training.device()
training.device("cpu")
hidden = gather().started
tf.zeros(1)
print(json.dumps([before, hidden, gather().started]))
"""


@pytest.mark.slow
def test_nothing_opens_the_devices_before_device_is_called():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("CPU: TensorFlow sees no GPU")
    assert json.loads(lines[-1]) == [False, False, True]
