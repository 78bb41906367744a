"""One dense net on digits, trained by several processes that go on after a kill; see docs/several_workers.md.

    python examples/several_workers.py --workers 2

starts them on this machine, and again when one dies. Under Slurm, or with TF_CONFIG set, it is one of them.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

from keras_practice.core.command import device_option


def train(device: str) -> None:
    """What each process does; alone, it is an ordinary training."""
    import keras

    from keras_practice import callbacks, data, recipes, training
    from keras_practice.training.devices import select_device

    select_device(device)
    group = training.workers()
    keras.utils.set_random_seed(0)
    digits = data.load("digits", seed=0)
    model = recipes.mlp(digits.input_shape, digits.task, units=(128, 64), dropout=0.2)
    recipes.compile_for(model, digits.task, learning_rate=1e-2)
    batches, val = group.share(digits.train.batches(64)), digits.val.batches(64)
    on_chief = callbacks.standard(digits.val, "runs/workers", resumable=False)
    everywhere = [callbacks.resumable(group.file("runs/workers/resume.npz"))]
    watch, verbose = training.lockstep(group, on_chief, everywhere), 2 * group.chief
    model.fit(batches, validation_data=val, epochs=10, verbose=verbose, shuffle=False, callbacks=watch)
    if group.chief:
        print(callbacks.scores(digits.test.y, model.predict(digits.test.x, verbose=0), digits.task))


def start_all(count: int) -> list[int]:
    """Starts as many processes on free ports, waits for all, and returns their exit codes."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses, processes = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets], []
    for index, each in enumerate(sockets):
        each.close()
        task = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        processes.append(subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "TF_CONFIG": task}))
    return [process.wait() for process in processes]


if __name__ == "__main__":
    device_option(parser := argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if "TF_CONFIG" in os.environ or "SLURM_PROCID" in os.environ or options.workers == 1:
        train(options.device)
    else:
        while any(codes := start_all(options.workers)):
            print(f"The processes ended with {codes}, and start again.", flush=True)
