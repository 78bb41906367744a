"""What a user of the installed wheel does first; run from a folder that is not the repository."""

import os
from importlib import metadata

import keras

import keras_practice as kp
from keras_practice import callbacks, checks, data, recipes, tuning

assert kp.recipes.mlp is recipes.mlp
assert kp.__version__ == metadata.version("keras-practice")
files = {str(file) for file in metadata.files("keras-practice") or ()}
for room in ("", "core/", "data/", "recipes/", "rendering/", "callbacks/", "training/", "checks/", "tuning/"):
    assert {f"keras_practice/{room}__init__.py", f"keras_practice/{room}py.typed"} <= files, room

keras.utils.set_random_seed(0)
iris = data.load("iris")
model = recipes.compile_for(recipes.mlp(iris.input_shape, iris.task), iris.task)
checks.preflight(model, iris.train.x, iris.train.y).raise_if_failed()
model.fit(
    iris.train.batches(16),
    validation_data=iris.val.batches(16),
    epochs=2,
    shuffle=False,
    verbose=0,
    callbacks=callbacks.standard(iris.val, "run"),
)
assert os.path.getsize("run/report.html") > 10_000
model.save("iris.keras")
assert keras.models.load_model("iris.keras").predict(iris.test.x, verbose=0).shape == (30, 3)
assert tuning.RandomSearch.__module__ == "keras_practice.tuning.search.random_search"
assert "site-packages" in (tuning.__file__ or ""), tuning.__file__
print("library: ok")
