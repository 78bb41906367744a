"""What tests of several rooms share: the bundled data, and models that are built and traced once."""

import contextlib
import functools
import inspect

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_practice import data

dataset = functools.cache(data.load)


def reused(build):
    """A model builder whose models serve every test of a process that asks for the same one.

    Tracing takes most of a small training's time. A model comes back as it was first built: weights,
    statistics, seeds and optimizer; what was traced for it stays. Global seeds are set to 0 before it is
    built and each time it is given. Arguments that are objects, such as an optimizer, make a model anew.
    """
    known = {}

    @functools.wraps(build)
    def get(*args, **options):
        values = [*args, *options.values()]
        plain = all(isinstance(value, (str, int, float, bool, tuple, type(None))) for value in values)
        key = repr((args, sorted(options.items())))
        if plain and key in known:
            model, before = known[key]
            for variable, value in zip(variables_of(model), before, strict=True):
                variable.assign(value)
            model.stop_training = False
            model.history = None
        else:
            keras.utils.set_random_seed(0)
            model = build(*args, **options)
            if model.optimizer is not None and model.built:
                model.optimizer.build(model.trainable_variables)
            if plain:
                known[key] = model, [np.array(variable) for variable in variables_of(model)]
        keras.utils.set_random_seed(0)
        return model

    get.__signature__ = inspect.signature(build)
    return get


def variables_of(model):
    """Weights, statistics and seeds, then the optimizer's; metrics begin anew with every epoch."""
    return [*model.variables, *(model.optimizer.variables if model.optimizer is not None else ())]


@contextlib.contextmanager
def blank_pictures(*formats):
    """Within the block pictures are made, but drawn empty: drawing takes longer than a small training.

    Those of some formats, where these are given; a picture is a PNG where its format is not said.
    """
    draw = Figure.savefig

    def draw_blank(self, *place, **options):
        wanted = not formats or options.get("format", "png") in formats
        draw(Figure((0.1, 0.1)) if wanted else self, *place, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", draw_blank)
        yield
