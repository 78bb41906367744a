"""Several processes that train one model: who they are, what each learns from, and sums over all of them."""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_practice.core.files import replacing
from keras_practice.core.types import Array

# TensorFlow numbers its own groups and operations from 1 upwards.
_GROUPS = {"CPU": 8_000_001, "GPU": 8_000_002}
_keys = itertools.count(8_000_000)

_joined: list[Workers] = []


class Workers:
    """This process among those that train together; made by `workers`.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    def __init__(self, rank: int, size: int, timeout: float = 600.0, communication: str = "auto") -> None:
        self.rank = rank
        self.size = size
        self._timeout = timeout
        self._communication = communication
        self._first_batch = -1

    @property
    def chief(self) -> bool:
        """Whether this is worker 0: the one that writes files, prints, and decides."""
        return self.rank == 0

    def share(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The part of each batch that this worker is to learn from.

        Worker 0 takes the first rows of each batch, worker 1 the next ones, and so on.
        A batch that cannot be split evenly, as the last one may be, is taken whole by
        every worker: the average of equal gradients is the gradient, so that no sample is
        left out and none weighs more. (In training metrics, those count once for every worker.)

        Args:
            batches: The same batches, in the same order, in every worker; seed what is shuffled.

        Returns:
            As many batches, each `size` times smaller.
        """
        if self.size == 1:
            return batches

        def mine(*batch: Any) -> Any:
            rows = tf.shape(keras.tree.flatten(batch)[0])[0]
            part = rows // self.size
            whole = part * self.size != rows
            first = tf.where(whole, 0, part * self.rank)
            last = tf.where(whole, rows, first + part)
            parts = keras.tree.map_structure(lambda tensor: tensor[first:last], batch)
            return parts if len(parts) > 1 else parts[0]

        def seen(number: tf.Tensor, batch: Any) -> Any:
            arrays = [tf.io.serialize_tensor(tensor) for tensor in keras.tree.flatten(batch)]
            first = tf.cond(
                number == 0,
                lambda: tf.numpy_function(self._remember, arrays, tf.int64),
                lambda: tf.constant(0, tf.int64),
            )
            with tf.control_dependencies([first]):
                return keras.tree.map_structure(tf.identity, batch)

        return batches.enumerate().map(seen, num_parallel_calls=1).map(mine, num_parallel_calls=1)

    def _remember(self, *arrays: bytes) -> int:
        self._first_batch = zlib.crc32(b"".join(arrays))
        return self._first_batch

    def check_order(self) -> None:
        """Whether all workers have drawn the same first batch; to be called by all after a step.

        Raises:
            ValueError: If not.
        """
        if len(set(self.gather(self._first_batch))) > 1:
            raise ValueError(
                "All workers must draw the same batches in the same order; seed the shuffling, and call "
                "keras.utils.set_random_seed with one number in all. Got different first batches."
            )

    def file(self, path: str | Path) -> Path:
        """This worker's own place for a file that worker 0 goes on from.

        Worker 0 gets `path` itself. Another gets a path beside it, and in that place
        what worker 0 has now, so that all go on from the same state whether or not they share
        a disk: `callbacks.resumable(group.file("runs/first.npz"))`. To be called by all.

        Args:
            path: The file. There need be none yet.

        Returns:
            `path`, or `first.worker1.npz` beside it in worker 1.
        """
        path = Path(path)
        if self.size == 1:
            return path
        content = path.read_bytes() if self.chief and path.exists() else b""
        length = int(self.from_chief([np.array([len(content)])])[0][0])
        padded = np.zeros(-(-length // 4) * 4, np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        if length:
            padded = self.from_chief([padded.view(np.int32)])[0].view(np.uint8)
        if self.chief:
            return path
        own = path.with_name(f"{path.stem}.worker{self.rank}{path.suffix}")
        own.parent.mkdir(parents=True, exist_ok=True)
        if length:
            with replacing(own) as part:
                part.write_bytes(padded[:length].tobytes())
        else:
            own.unlink(missing_ok=True)
        return own

    def sum(self, tensor: tf.Tensor, key: int | None = None) -> tf.Tensor:
        """The sum of a tensor over all workers, in each of them; to be called by all in the same order.

        Args:
            tensor: One of the same shape in every worker, of a float type, `int32` or `int64`.
            key: Number of the operation, from `new_key`; wanted inside a `tf.function`, which
                is not traced as often in every worker. Defaults to `None`: a new one.

        Raises:
            tf.errors.OpError: If a worker has ended, or not come here in time.
        """
        if self.size == 1:
            return tensor
        device = "CPU" if key is None or not tf.config.list_logical_devices("GPU") else "GPU"
        with tf.device(f"{device}:0"):
            return tf.raw_ops.CollectiveReduceV2(
                input=tensor,
                group_size=self.size,
                group_key=_GROUPS[device],
                instance_key=new_key() if key is None else key,
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                communication_hint=self._hint(device),
                timeout_seconds=self._timeout,
            )

    def _hint(self, device: str) -> str:
        if device == "CPU":
            return "ring"
        return "nccl" if self._communication == "auto" else self._communication

    def sums(self, arrays: Sequence[Array]) -> list[Array]:
        """The sums of arrays over all workers; to be called by all with arrays of the same shapes."""
        results = [np.asarray(array) for array in arrays]
        carriers = [_carrier(array.dtype) for array in results]
        for carrier in sorted(set(carriers), key=str):
            chosen = [index for index, each in enumerate(carriers) if each == carrier]
            flat = np.concatenate([results[index].astype(carrier).ravel() for index in chosen])
            if not flat.size:
                continue
            total = np.asarray(self.sum(tf.constant(flat)))
            ends = np.cumsum([results[index].size for index in chosen])[:-1]
            for index, part in zip(chosen, np.split(total, ends), strict=True):
                results[index] = part.reshape(results[index].shape).astype(results[index].dtype)
        return results

    def from_chief(self, arrays: Sequence[Array]) -> list[Array]:
        """Worker 0's arrays, in every worker; to be called by all with arrays of the same shapes."""
        return self.sums(arrays if self.chief else [np.zeros_like(array) for array in arrays])

    def gather(self, number: float) -> list[float]:
        """Every worker's number, in the workers' order; to be called by all."""
        numbers = np.zeros(self.size)
        numbers[self.rank] = number
        return [float(each) for each in self.sums([numbers])[0]]

    def say(self, text: str) -> str:
        """Worker 0's text, in every worker; to be called by all."""
        content = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        length = int(self.from_chief([np.array([content.size])])[0][0])
        mine = content if self.chief else np.zeros(length, np.int32)
        return bytes(self.from_chief([mine])[0].astype(np.uint8)).decode()

    def __repr__(self) -> str:
        return f"Workers(rank={self.rank}, size={self.size})"


def new_key() -> int:
    """A number for an operation of `Workers.sum`, the same in every worker that has made as many."""
    return next(_keys)


def _carrier(dtype: Any) -> Any:
    """The type in which numbers travel: exact, and one that TensorFlow adds up between processes."""
    if tf.as_dtype(dtype).is_floating:
        return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    return np.dtype(np.int32) if dtype == np.int32 else np.dtype(np.int64)


def workers(
    addresses: Sequence[str] | None = None,
    rank: int | None = None,
    *,
    timeout: float = 600.0,
    communication: str = "auto",
) -> Workers:
    """Joins the processes that train one model together; the first thing that a script does.

    Who they are is taken from the arguments; else from `TF_CONFIG`, as
    `tf.distribute` reads it; else from Slurm, where `srun` has started several tasks. Where there
    is none of these, the process is alone, everything here does nothing, and the
    same script is that of one process. It waits until all have come.

    The rest is in `fit`, which each process runs by itself:

        group = training.workers()
        ...
        model.fit(group.share(train), callbacks=training.lockstep(group, [...]))

    The processes are joined by `tf.distribute.MultiWorkerMirroredStrategy`, whose
    servers find out when one of them dies; the model is not in its scope, since Keras 3's
    `fit` fails there, and clips each worker's gradient instead of their average.
    Each process uses one device: with several GPUs, start one process for each, and show
    it that one alone (`CUDA_VISIBLE_DEVICES`, `srun --gpus-per-task=1`).

    Args:
        addresses: `host:port` of every worker, in order. Defaults to `None`: see above.
        rank: Which of them this is. Defaults to `None`.
        timeout: Seconds that a worker waits for the others at one step before
            it ends with an error: longer than worker 0 takes to validate, save and the like.
            The death of a process is noticed sooner. Defaults to `600`.
        communication: `"nccl"` or `"ring"`, between GPUs. Defaults to `"auto"`: NCCL.

    Returns:
        This process's place among the workers; the same object at every call.

    Raises:
        ValueError: If addresses and rank do not go together, or an argument is out of its range.
        RuntimeError: If TensorFlow has computed something before.

    Source:
        Goyal et al. 2017, section 3: the average of the workers' gradients is that of the joint batch.
    """
    if timeout <= 0:
        raise ValueError(f"timeout must be positive. Got {timeout}.")
    if communication not in ("auto", "nccl", "ring"):
        raise ValueError(f"communication must be 'auto', 'nccl' or 'ring'. Got {communication!r}.")
    addresses, rank = _place(addresses, rank)
    if _joined:
        return _joined[0]
    if len(addresses) > 1:
        _join(addresses, rank, timeout)
    _joined.append(Workers(rank, max(1, len(addresses)), timeout, communication))
    return _joined[0]


def _place(addresses: Sequence[str] | None, rank: int | None) -> tuple[list[str], int]:
    """The addresses of all and the number of this one, wherever they are to be found."""
    if (addresses is None) != (rank is None):
        raise ValueError(f"addresses and rank must be given together. Got {addresses} and {rank}.")
    if addresses is not None and rank is not None:
        source, found = "rank", list(addresses)
    elif os.environ.get("TF_CONFIG"):
        source = "the index of TF_CONFIG"
        found, rank = _tf_config(os.environ["TF_CONFIG"])
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        source = "SLURM_PROCID"
        found, rank = _slurm(os.environ)
    else:
        return [], 0
    if len(set(found)) < len(found):
        raise ValueError(f"The addresses of the workers must differ. Got {found}.")
    if not 0 <= rank < len(found):
        raise ValueError(f"{source} must be in [0, {len(found)}), for as many workers. Got {rank}.")
    return found, rank


def _tf_config(text: str) -> tuple[list[str], int]:
    config = json.loads(text)
    cluster, task = config.get("cluster", {}), config.get("task", {})
    if set(cluster) - {"chief", "worker"} or task.get("type", "worker") not in ("chief", "worker"):
        raise ValueError(f"TF_CONFIG must have workers, with or without a chief, alone. Got {text}.")
    chief = list(cluster.get("chief", []))
    offset = 0 if task.get("type") == "chief" else len(chief)
    return chief + list(cluster.get("worker", [])), offset + int(task.get("index", 0))


def _slurm(environment: Any) -> tuple[list[str], int]:
    """From what `srun` sets. `SlurmClusterResolver` sorts host names, and node10 is then before node2."""
    nodes = subprocess.run(
        ["scontrol", "show", "hostnames", environment["SLURM_STEP_NODELIST"]],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    counts: list[int] = []
    for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):  # Such as 2(x3),1.
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or 1)
    # Two jobs on one node must not meet.
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 5_000 * 4
    tasks_of = zip(nodes, counts, strict=True)
    addresses = [f"{node}:{port + task}" for node, count in tasks_of for task in range(count)]
    return addresses, int(environment["SLURM_PROCID"])


def _join(addresses: Sequence[str], rank: int, timeout: float) -> None:
    """Starts this process's server and waits for those of the others."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}), task_type="worker", task_id=rank
    )
    on_terminate = signal.getsignal(signal.SIGTERM)
    # TensorFlow waits without end, and holds Python's lock meanwhile; nothing else can still end the process.
    faulthandler.dump_traceback_later(timeout, exit=True, file=sys.__stderr__ or 2)
    try:
        tf.distribute.MultiWorkerMirroredStrategy(resolver)
    finally:
        faulthandler.cancel_dump_traceback_later()
        if threading.current_thread() is threading.main_thread():
            # TensorFlow has taken the signal over, to note it and go on: nobody could end a worker by it.
            signal.signal(signal.SIGTERM, on_terminate or signal.SIG_DFL)
