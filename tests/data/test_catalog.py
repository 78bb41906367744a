import keras
import numpy as np
import pytest

from keras_practice import data


def images(rng, count, bright=0):
    return rng.integers(bright, 256, size=(count, 6, 6), dtype=np.uint8)


@pytest.fixture
def mnist_file(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "mnist.npz"
    y = np.arange(200, dtype=np.uint8) % 10
    np.savez(path, x_train=images(rng, 200), y_train=y, x_test=images(rng, 50), y_test=y[:50])
    return path


def test_names_lists_offline_sets_first():
    assert data.names()[:2] == ("digits", "iris")
    assert data.names()[-3:] == ("mnist", "fashion_mnist", "cifar10")


@pytest.mark.parametrize(("wrong", "near"), [("digit", "digits"), ("mnists", "mnist"), ("IRIS", "iris")])
def test_an_unknown_name_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"Unknown data set '{wrong}'; did you mean '{near}'"):
        data.load(wrong)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_local_file_stands_in_for_the_download(name, mnist_file):
    dataset = data.load(name, path=mnist_file)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (160, 40, 50)
    assert dataset.input_shape == (6, 6, 1)
    assert dataset.train.x.max() == 1.0
    assert len(dataset.task.class_names) == 10


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(OSError, match="Connect to the internet, or give the path"):
        data.load("mnist")


def test_a_file_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 3)
    dataset = data.load(str(tmp_path / "mine.npz"))
    assert dataset.name == "mine"
    assert dataset.task.outputs == 3


def test_wrong_files_are_refused_by_one_sentence(tmp_path, mnist_file):
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "flat.npz", x_train=np.zeros((9, 2)), y_train=[0], x_test=[0], y_test=[0])
    for load, kind, message in [
        (lambda: data.load("mnist", path=tmp_path / "absent.npz"), FileNotFoundError, "must exist"),
        (lambda: data.load(str(tmp_path / "text.npz")), ValueError, "must be an .npz file"),
        (lambda: data.load("mnist", path=tmp_path / "text.npz"), ValueError, "must be an .npz file"),
        (lambda: data.load(str(tmp_path / "other.npz")), ValueError, "must hold arrays x and y"),
        (lambda: data.load("mnist", path=tmp_path / "other.npz"), ValueError, "Missing: x_train"),
        (lambda: data.load("mnist", path=tmp_path / "flat.npz"), ValueError, "Images must have shape"),
        (lambda: data.load("iris", path=mnist_file), ValueError, "iris needs none"),
        (lambda: data.load("mnist", path=tmp_path), IsADirectoryError, "must be a file"),
        (lambda: data.load("iris", seed=-1), ValueError, "seed must be"),
    ]:
        with pytest.raises(kind, match=message) as error:
            load()
        assert "\n" not in str(error.value)


def test_a_file_may_not_run_code(tmp_path):
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object), y=np.array([0]))
    with pytest.raises(ValueError, match="plain arrays"):
        data.load(str(tmp_path / "pickled.npz"))
