import os
import socket

import pytest

from keras_practice.tuning.engines import ray_cluster
from keras_practice.tuning.engines.base import EngineError


@pytest.mark.parametrize(
    ("gpus", "at_once", "share"),
    [(0, 4, 0), (1, 1, 1), (1, 2, 0.5), (1, 3, 0.3333), (2, 2, 1), (2, 3, 0.5), (3, 4, 0.5), (8, 2, 1)],
)
def test_gpus_are_shared_evenly(gpus, at_once, share):
    found = ray_cluster.share_of(gpus, at_once)
    assert found == share
    if gpus:
        assert gpus * int(1 / found) >= at_once  # All that are wanted run at a time.


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    with ray_cluster.environment(ray_cluster.own_cluster()):
        assert (os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_MODE"]) == ("mine", "token")
    assert dict(os.environ) == before


def test_a_cluster_that_is_not_there_is_not_waited_for():
    with socket.socket() as taken:  # And not listened on.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"A Ray cluster must be at {address}. Got Connection refused."):
            ray_cluster._knock(address)
    ray_cluster._knock("auto")  # Ray knows.
