"""A traced step, laid into the loop of another graph, in the form that TensorFlow would run it in.

TensorFlow optimises a function that is called, but not the body of a loop, and hands each
call of a function within a loop to another thread, which costs a small net as much time as
its arithmetic. So a step is optimised here and its operations are put into the loop
themselves. Mostly these compute the same bits as in a call; on a CPU, a large product of
matrices may be given to another library there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

# For these TensorFlow has other kernels in a function than in the body of a loop, and a step
# with one of them takes so long that a call does not matter.
_OTHER_KERNELS = re.compile("Conv|Pool|FusedBatchNorm|BatchMatMul|Einsum|LRN")


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


def inlined(function: tf.types.experimental.ConcreteFunction) -> Callable[..., list[tf.Operation]] | None:
    """What puts a function's operations into the graph that is being traced.

    Args:
        function: A function that returns nothing.

    Returns:
        A function of the tensors that the function takes, flat, which returns the
        operations that must run; `None` where this version of TensorFlow cannot do it,
        or it would surely not compute the same.
    """
    if any(_OTHER_KERNELS.search(operation.type) for operation in function.graph.get_operations()):
        return None
    found = _optimized(function)
    if found is None:
        return None
    placeholders = [tensor.name for tensor in function.graph.inputs]
    # An input that the optimised graph no longer reads is not in it.
    present = {node.name for node in found.node}
    outputs = [operation.name for operation in function.graph.control_outputs]

    def put(*tensors: tf.Tensor) -> list[tf.Operation]:
        graph = tf.compat.v1.get_default_graph()
        values = dict(
            zip(placeholders, map(graph.capture, [*tensors, *function.captured_inputs]), strict=True)
        )
        used = {name: value for name, value in values.items() if name.partition(":")[0] in present}
        operations: list[tf.Operation] = tf.graph_util.import_graph_def(found, used, outputs, name="")
        return operations

    return put


def _optimized(function: tf.types.experimental.ConcreteFunction) -> Any:
    """A function's graph as TensorFlow's own optimiser of graphs leaves it.

    TensorFlow has no public way to ask for it.
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
