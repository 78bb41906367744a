"""The check for people with a GPU: that it finds what is wrong, on the CPU in the GPU's place.

And what can be known of a GPU without one: that every operation of every recipe has a kernel for it.
"""

import functools
import io
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from tensorflow.python.framework import kernels

from keras_practice import cli, data, recipes, training
from keras_practice.callbacks import TrainingMonitor
from keras_practice.gpu_check import checking
from keras_practice.gpu_check.cases import CASES, Case, Mode
from keras_practice.gpu_check.command import main
from keras_practice.gpu_check.judging import FIGURES, distance, judge, judge_figures, judge_several
from keras_practice.gpu_check.measuring import build, measure, modes, samples
from keras_practice.training.devices import GPU, Facts

SMALL = Case("mlp", (20,), {"units": (8, 4), "dropout": 0.0})
FLOAT32, BFLOAT16 = Mode(), Mode("mixed_bfloat16")


def test_without_a_gpu_nothing_is_checked_and_it_is_no_pass(capfd):
    assert cli.main(["gpu-check"]) == 3
    said = capfd.readouterr()
    assert said.out.startswith("no GPU: nothing checked")
    assert said.out.count("\n") == 1
    assert said.err == ""


def test_every_recipe_is_checked_with_and_without_each_thing():
    assert {case.recipe for case in CASES.values()} == set(recipes.names())
    assert list(map(str, modes(Facts((GPU("Tesla T4", (7, 5)),))))) == [
        "float32",
        "float32, XLA",
        "mixed_float16",
        "mixed_float16, XLA",
    ]
    assert modes(Facts((GPU("NVIDIA A100", (8, 0)),)))[-1] == Mode("mixed_bfloat16", "auto")


@pytest.fixture(scope="module")
def measured():
    """One net measured on this CPU."""
    return measure(SMALL, FLOAT32, steps=3, batch=8)


def test_a_sound_measurement_passes_and_can_be_kept(measured):
    assert judge(SMALL, FLOAT32, "CPU:0", measured, measured) == []
    assert measured["losses"][1] < measured["losses"][0]
    assert measured["milliseconds"] > 0
    assert len(measured["predictions"]) == 8 * 10
    products = sum(count for name, _, count in measured["operations"] if "MatMul" in name)
    assert products == 8  # Three forward; the gradients of three weights, and of two inputs.


def test_on_another_device_than_wanted_it_fails(measured):
    wrong = judge(SMALL, FLOAT32, "GPU:0", measured, measured)
    assert wrong[0].startswith("not on GPU:0: ")
    assert "MatMul on CPU:0" in wrong[0]
    assert wrong[1] == "no MatMul ran on GPU:0"


GPU_RUN = {
    "losses": [2.0, 1.0],
    "operations": [["Cast", "CPU:0", 3], ["MatMul", "GPU:0", 2], ["CudnnRNNV3", "GPU:0", 1]],
    "xla": False,
    "predictions": [1.0, -2.0],
}
RECURRENT = CASES["rnn-lstm"]


@pytest.mark.parametrize(
    ("case", "mode", "change", "sentence"),
    [
        (RECURRENT, FLOAT32, {}, None),
        (RECURRENT, Mode(xla="auto"), {}, None),
        (SMALL, FLOAT32, {}, None),
        (SMALL, Mode(xla="auto"), {"xla": True}, None),
        (SMALL, FLOAT32, {"predictions": [1.0, -2.001]}, None),
        (SMALL, BFLOAT16, {"predictions": [1.0, -2.05]}, None),
        (
            SMALL,
            FLOAT32,
            {"predictions": [1.0, -2.01]},
            "predictions are 0.005 of the largest from the CPU's",
        ),
        (SMALL, BFLOAT16, {"predictions": [1.0, -2.3]}, "predictions are 0.15 of the largest"),
        (SMALL, FLOAT32, {"predictions": [1.0, math.nan]}, "predictions are nan"),
        (SMALL, FLOAT32, {"losses": [2.0, math.nan]}, "the loss must fall, and went from 2 to nan"),
        (SMALL, FLOAT32, {"losses": [2.0, 2.5]}, "the loss must fall, and went from 2 to 2.5"),
        (SMALL, Mode(xla="auto"), {}, "XLA must be on"),
        (SMALL, FLOAT32, {"xla": True}, "XLA must be off"),
        (RECURRENT, Mode(xla="auto"), {"xla": True}, "Keras must not use XLA where cuDNN"),
        (
            RECURRENT,
            FLOAT32,
            {"operations": [["MatMul", "GPU:0", 2]]},
            "no CudnnRNN ran on GPU:0",
        ),
        (
            RECURRENT,
            FLOAT32,
            {"operations": [["CudnnRNNV3", "GPU:0", 1], ["Conv2D", "CPU:0", 1]]},
            "not on GPU:0: Conv2D on CPU:0",
        ),
    ],
)
def test_each_fault_is_found_by_itself(case, mode, change, sentence):
    found = judge(case, mode, "GPU:0", {**GPU_RUN, **change}, GPU_RUN)
    assert len(found) == (0 if sentence is None else 1)
    assert all(sentence in wrong for wrong in found)


def test_predictions_of_another_length_are_infinitely_far():
    assert distance([1.0], [1.0, 2.0]) == math.inf


def test_a_case_that_raises_is_wrong_and_the_others_are_still_measured(measured, monkeypatch):
    real = measure
    monkeypatch.setattr(
        checking, "measure", lambda case, *rest: measured if case is SMALL else real(case, *rest)
    )
    page = io.StringIO()
    cases = {"broken": replace(SMALL, arguments={"units": (-1,)}), "small": SMALL}
    expected = {key: {**measured, "milliseconds": 3 * measured["milliseconds"]} for key in cases}
    wrong = checking.check(cases, [FLOAT32], "CPU:0", expected, 3, Console(file=page, width=140))
    assert len(wrong) == 1
    assert wrong[0].startswith("broken, float32: ValueError: ")
    head, broken, small = (line.split() for line in page.getvalue().splitlines())
    assert head[0] == "recipe"
    assert (broken[0], broken[-1]) == ("broken", "1")
    assert (small[0], *small[-2:]) == ("small", "3.0", "-")  # Three times as fast, and nothing wrong.


def test_what_monitors_and_sweeps_say_is_compared():
    same = {name: [1.0, 2.0] for name in FIGURES}
    assert judge_figures(same, same) == []
    (wrong,) = judge_figures(same | {"sweep, rnn": [1.0, 2.2]}, same)
    assert wrong.startswith("sweep, rnn: 0.1 of the largest from the CPU's, at most 0.02")
    assert len(judge_figures(same | {"search": [math.nan, 1.0]}, same)) == 1


def test_a_device_that_stood_idle_is_named():
    operations = {("MatMul", "GPU:0"): 3, ("NoOp", "GPU:1"): 1}
    assert judge_several(operations, ["GPU:0", "GPU:1"]) == ["nothing heavy ran on GPU:1"]


@pytest.mark.parametrize("fault", ["", "recipe", "sweep", "idle", "raises"])
def test_only_if_all_of_it_held_the_exit_code_is_0(fault, monkeypatch, capsys):
    figures = {name: [1.0] for name in FIGURES}
    gpus = (GPU("Tesla T4", (7, 5)),) * 2
    monkeypatch.setattr(checking, "gather", lambda: Facts(gpus))
    monkeypatch.setattr(training, "device", lambda *args, **options: "GPU Tesla T4")
    monkeypatch.setattr(checking, "reference", lambda names, steps: {"cases": {}, "figures": figures})
    monkeypatch.setattr(checking, "check", lambda *args: ["mlp: slow"] if fault == "recipe" else [])
    monkeypatch.setattr(checking, "several", lambda devices: ["GPU:1 idle"] if fault == "idle" else [])
    seen = {} if fault == "raises" else figures | ({"sweep, mlp": [2.0]} if fault == "sweep" else {})
    monkeypatch.setattr(checking, "figures", lambda xla: seen)
    assert main(["--only", "mlp"]) == (1 if fault else 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == ("not all of it held: 1 wrong" if fault else "all of it held")
    assert sum(line.startswith("WRONG ") for line in lines) == bool(fault)


@pytest.mark.slow
def test_what_xla_compiles_is_seen_inside():
    found = measure(SMALL, Mode("float32", True), steps=3, batch=8)
    assert judge(SMALL, Mode("float32", True), "CPU:0", found, found) == []
    assert ["MatMul", "CPU:0", 8] in found["operations"]


@pytest.mark.slow
def test_several_devices():
    assert checking.several(["CPU:0"]) == []


@pytest.mark.slow
def test_the_reference_of_another_process_agrees_with_this_one():
    found = checking.reference(["linear"], 2)
    linear = CASES["linear"]
    assert judge(linear, FLOAT32, "CPU:0", measure(linear, FLOAT32, 2), found["cases"]["linear"]) == []
    assert judge_figures(found["figures"], found["figures"]) == []
    assert all(len(found["figures"][name]) >= 1 for name in FIGURES)
    assert len(set(found["figures"]["sweep, mlp"])) == 3  # Rates.


# What can be known without a GPU: TensorFlow's wheels for Linux hold the GPU's kernels, and list them.


@functools.cache
def registered(operation):
    """The kernels of an operation; private, as TensorFlow has no public list."""
    return kernels.get_registered_kernels_for_op(operation).kernel


def without_kernel(graph, half):
    """Operations of a graph, with their types, that have no kernel for a GPU with bfloat16 read as `half`."""
    read = {tf.bfloat16.as_datatype_enum: half.as_datatype_enum}
    functions = {function.signature.name for function in graph.library.function}
    found = set()
    for node in nodes(graph):
        known = registered(node.op)
        types = {name: read.get(value.type, value.type) for name, value in node.attr.items()}
        fits = any(
            kernel.device_type in ("GPU", "DEFAULT")
            and all(types[c.name] in c.allowed_values.list.type for c in kernel.constraint)
            for kernel in known
        )
        if known and not fits and node.op not in functions:
            found.add((node.op, *sorted({tf.dtypes.as_dtype(one).name for one in types.values() if one})))
    return found


def nodes(graph):
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def traced(model, x, y):
    step = tf.function(lambda x, y: model.train_step((x, y)))
    return step, step.get_concrete_function(tf.constant(x), tf.constant(y)).graph.as_graph_def()


def pretend(monkeypatch):
    """Keras traces what it would on a GPU, cuDNN's recurrent layers among it; they cannot run here."""
    listed = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind=None: ["GPU"] if kind == "GPU" else listed(kind)
    )


is_cuda_build = pytest.mark.skipif(
    not tf.sysconfig.get_build_info()["is_cuda_build"], reason="this TensorFlow holds no kernels for GPUs"
)


@is_cuda_build
@pytest.mark.parametrize(
    "name",
    [name if name == "rnn-lstm" else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_under_mixed_precision_each_operation_has_a_kernel_and_a_step_trains(name, monkeypatch):
    case = CASES[name]
    with monkeypatch.context() as patch:
        pretend(patch)
        model = build(case, BFLOAT16)
        step, graph = traced(model, *samples(case, 4))
    for half in (tf.bfloat16, tf.float16):
        assert without_kernel(graph, half) <= {("Const", "string")}  # Of an assertion's words.
    operations = {node.op for node in nodes(graph)}
    assert ("CudnnRNNV3" in operations) == ("CudnnRNNBackpropV3" in operations) == case.cudnn
    if case.cudnn:  # Here it can run as a loop alone.
        model = build(case, BFLOAT16)
        step, _ = traced(model, *samples(case, 4))
    assert model.compute_dtype == "bfloat16"
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    assert model.output.dtype == "float32"
    before = [np.array(weight) for weight in model.trainable_weights]
    assert np.isfinite(step(*map(tf.constant, samples(case, 4)))["loss"])
    assert any(not np.array_equal(b, a) for b, a in zip(before, model.trainable_weights, strict=True))


@is_cuda_build
def test_an_operation_without_a_kernel_is_found():
    normalise = tf.function(lambda x: tf.nn.local_response_normalization(x))
    graph = normalise.get_concrete_function(tf.TensorSpec((1, 2, 2, 8), tf.bfloat16)).graph.as_graph_def()
    assert without_kernel(graph, tf.float16) == {("LRN", "float16")}
    assert without_kernel(graph, tf.float32) == set()


def test_keras_leaves_xla_to_what_cudnn_does_not_run(monkeypatch):
    pretend(monkeypatch)
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: [tf.config.PhysicalDevice("x", "GPU")]
    )
    for name, xla in (("rnn-lstm", False), ("rnn-gru", False), ("rnn-simple", True), ("linear", True)):
        model = build(CASES[name], Mode("float32", "auto"))
        assert model.jit_compile is xla, name


def test_the_monitors_step_is_traced_around_cudnn(monkeypatch):
    pretend(monkeypatch)
    waves = data.load("waves")
    model = recipes.compile_for(recipes.rnn(waves.input_shape, waves.task, units=(4,)), waves.task)
    with pytest.raises(tf.errors.InvalidArgumentError, match="No OpKernel was registered .* 'CudnnRNNV3'"):
        model.fit(waves.train.x[:8], waves.train.y[:8], verbose=0, callbacks=[TrainingMonitor(sink=list)])
    keras.backend.clear_session()
