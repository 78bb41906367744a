"""What the searches of one process share: models that trials were run on, and what was traced for them."""

import gc

import pytest

from keras_practice.training.model_cache import ModelCache
from keras_practice.tuning.search import reusing_tuner

_CACHE = ModelCache(most=12)


@pytest.fixture(scope="module", autouse=True)
def shared_graphs():
    """Has every search find the models of the searches before it: tracing takes most of a small one's time.

    A module that looks at what one search shares overrides it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reusing_tuner, "ModelCache", lambda: _CACHE)
        yield
    # A search has the collector look through all of TensorFlow again once it is over.
    gc.freeze()
