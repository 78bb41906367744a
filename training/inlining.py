"""A traced step, laid into the loop of another graph, in the form that TensorFlow would run it in.

TensorFlow optimises a function that is called, but not the body of a loop, and hands each
call of a function within a loop to another thread, which costs a small net as much time as
its arithmetic. So a step is optimised here and its operations are put into the loop
themselves. Mostly these compute the same bits as in a call; on a CPU, a large product of
matrices may be given to another library there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_practice.core.private_api.tensorflow import captured, optimized_graph

# For these TensorFlow has other kernels in a function than in the body of a loop, and a step
# with one of them takes so long that a call does not matter.
_OTHER_KERNELS = re.compile("Conv|Pool|FusedBatchNorm|BatchMatMul|Einsum|LRN")

# These run a function of their own, and an executor of one thread waits until another thread has done it.
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "RemoteCall", "SymbolicGradient", "MapDefun"}
_CALLS |= {"If", "StatelessIf", "Case", "StatelessCase"}
# It refuses a graph with these, to which TensorFlow lowers choices and loops for its other executor.
_LOWERED = {"Switch", "RefSwitch", "_SwitchN", "Merge", "RefMerge", "Enter", "RefEnter"}


def inlined(function: tf.types.experimental.ConcreteFunction) -> Callable[..., list[tf.Operation]] | None:
    """What puts a function's operations into the graph that is being traced.

    Args:
        function: A function that returns nothing.

    Returns:
        A function of the tensors that the function takes, flat, which returns the
        operations that must run, which one thread can run to their end; `None` where
        there are others, this version of TensorFlow cannot do it, or it would surely not
        compute the same.
    """
    if any(_OTHER_KERNELS.search(operation.type) for operation in function.graph.get_operations()):
        return None
    found = optimized_graph(function)
    if found is None or not _suits_one_thread(found):
        return None
    placeholders = [tensor.name for tensor in function.graph.inputs]
    # An input that the optimised graph no longer reads is not in it.
    present = {node.name for node in found.node}
    outputs = [operation.name for operation in function.graph.control_outputs]

    def put(*tensors: tf.Tensor) -> list[tf.Operation]:
        values = dict(zip(placeholders, captured([*tensors, *function.captured_inputs]), strict=True))
        used = {name: value for name, value in values.items() if name.partition(":")[0] in present}
        operations: list[tf.Operation] = tf.graph_util.import_graph_def(found, used, outputs, name="")
        return operations

    return put


def _suits_one_thread(graph: Any) -> bool:
    """Whether neither a graph nor the body of a loop in it calls a function or chooses what to run."""
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    ahead: list[Any] = [graph.node]
    met: set[str] = set()
    while ahead:
        for node in ahead.pop():
            if node.op in _CALLS or node.op in _LOWERED or node.op in functions:
                return False
            for name in {value.func.name for value in node.attr.values()} & functions.keys() - met:
                met.add(name)
                ahead.append(functions[name])
    return True
