"""What TensorFlow keeps to itself."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import ops


def has_started() -> bool:
    """Whether TensorFlow has opened its devices; it has no public word for this."""
    return bool(context.context()._initialized)


@contextlib.contextmanager
def graphs_stay_prepared() -> Iterator[None]:
    """Within the block, `tf.random.set_seed` does not have TensorFlow prepare each graph anew.

    TensorFlow forgets all that it has prepared, lest a random operation that has drawn from
    this very seed before goes on where it was, and cannot be told that none has.
    """
    whole = tf.random.set_seed

    def only_the_seed(seed: int) -> None:
        eager = context.context()
        if not {"_seed", "_rng"} <= vars(eager).keys():
            whole(seed)  # Another version's context; slower, and right.
            return
        eager._seed, eager._rng = seed, random.Random(seed)

    tf.random.set_seed = only_the_seed  # Keras finds it by this name.
    try:
        yield
    finally:
        tf.random.set_seed = whole


def traced(function: tf.types.experimental.GenericFunction, *spec: Any) -> Any:
    """`function.get_concrete_function(*spec)`, whose graph goes when nobody has the function any more.

    TensorFlow keeps each one that it gives to its users for as long as the process lives, as it
    does with what is needed for derivatives of the graph.
    """
    trace = getattr(function, "_get_concrete_function_garbage_collected", function.get_concrete_function)
    with _without_later_derivatives():
        return trace(*spec)


@contextlib.contextmanager
def _without_later_derivatives() -> Iterator[None]:
    """Forgets how to differentiate what is traced within the block, once that is done."""
    registry = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    before = set(registry)
    try:
        yield
    finally:
        for name in registry.keys() - before:
            if name.startswith("CustomGradient-"):
                del registry[name]


def optimized_graph(function: tf.types.experimental.ConcreteFunction) -> Any:
    """A function's graph as TensorFlow's own optimiser of graphs leaves it.

    TensorFlow has no public way to ask for it. `None` where this version has none.
    """
    try:
        from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
        from tensorflow.python.grappler import tf_optimizer
        from tensorflow.python.training.saver import export_meta_graph
    except ImportError:
        return None
    graph = function.graph
    found = export_meta_graph(graph_def=graph.as_graph_def(), graph=graph)
    for name in list(found.collection_def):
        del found.collection_def[name]
    found.collection_def["train_op"].node_list.value.extend(
        operation.name for operation in graph.control_outputs
    )
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
    config.graph_options.rewrite_options.min_graph_nodes = -1
    return tf_optimizer.OptimizeGraph(config, found)


def captured(tensors: Sequence[Any]) -> list[tf.Tensor]:
    """Tensors from outside as inputs of the graph that is being traced.

    TensorFlow does so by itself where an operation takes one, but has no public way to ask for it.
    """
    return list(map(tf.compat.v1.get_default_graph().capture, tensors))


def graphs_run_by(run: Callable[[], Any]) -> Any:
    """The graphs that are run for the first time while `run()` runs, laid out over the devices.

    TensorFlow's public tools only log them.
    """
    eager = context.context()
    eager.ensure_initialized()
    eager.enable_run_metadata()
    try:
        eager.export_run_metadata()  # Of what ran before.
        run()
        return eager.export_run_metadata().partition_graphs
    finally:
        eager.disable_run_metadata()
