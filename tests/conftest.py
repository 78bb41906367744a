"""What every test runs under: one thread a worker, and a collector that leaves the libraries alone."""

import gc
import os

# Tests run side by side, one worker a core: more threads would only stand in each other's way. Set before
# TensorFlow starts, and so inherited by the processes that tests start.
for _name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_collection_finish():
    """Takes what was imported by now out of the collector's rounds, which tracing sets off by the dozen."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
