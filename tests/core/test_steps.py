import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_practice.core.steps import (
    flat_gradient,
    hooked,
    layer_names,
    outputs_kept,
    tap_step,
    untap_step,
    usable_here,
)

X, Y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")


def net():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="d")])
    model.compile("sgd", "mse")
    return model


class Greeter:
    def greet(self, name):
        return f"hello {name}"


def loudly(greet, name):
    return greet(name).upper()


def twice(greet, name):
    return greet(name) + greet(name)


def test_a_hook_stands_around_a_method_and_goes_again():
    greeter = Greeter()
    with hooked(greeter, "greet", loudly):
        assert greeter.greet("a") == "HELLO A"
        with hooked(greeter, "greet", twice):
            assert greeter.greet("a") == "HELLO AHELLO A"
        assert greeter.greet("a") == "HELLO A"
    assert greeter.greet("a") == "hello a"
    assert vars(greeter) == {}


def test_a_hook_goes_after_an_error_too():
    greeter = Greeter()
    with pytest.raises(RuntimeError), hooked(greeter, "greet", loudly):
        raise RuntimeError
    assert vars(greeter) == {}


def test_threads_that_take_turns_do_not_see_each_others_hooks():
    greeter, said = Greeter(), {}
    inside, leave = threading.Event(), threading.Event()

    def other():
        with hooked(greeter, "greet", twice):
            inside.set()
            leave.wait()
            said["other"] = greeter.greet("a")

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    with hooked(greeter, "greet", loudly):
        said["ours"] = greeter.greet("a")
    said["after"] = greeter.greet("a")
    leave.set()
    thread.join()
    assert said == {"ours": "HELLO A", "after": "hello a", "other": "hello ahello a"}
    assert vars(greeter) == {}


def test_taps_stand_around_the_step_and_leave_the_model_as_it_was():
    model, seen = net(), []

    def first(step, data):
        seen.append("first")
        return step(data)

    def second(step, data):
        seen.append("second")
        return step(data)

    tap_step(model, "test_step", first)
    tap_step(model, "test_step", second)
    tap_step(model, "test_step", second)  # Once is enough.
    model.evaluate(X, Y, verbose=0)
    assert seen == ["second", "first"]
    untap_step(model, "test_step", first)
    seen.clear()
    model.evaluate(X, Y, verbose=0)
    assert seen == ["second"]
    untap_step(model, "test_step", second)
    untap_step(model, "test_step", second)
    seen.clear()
    model.evaluate(X, Y, verbose=0)
    assert seen == []
    assert "test_step" not in vars(model)


def test_what_was_traced_with_the_same_taps_is_taken_again_until_the_model_is_compiled_anew():
    model, traced = net(), []

    def tap(step, data):
        traced.append(1)
        return step(data)

    counts = []
    for compile_anew in (False, False, True):
        if compile_anew:
            model.compile("adam", "mse")
        tap_step(model, "train_step", tap)
        model.fit(X, Y, verbose=0)
        untap_step(model, "train_step", tap)
        model.fit(X, Y, verbose=0)
        counts.append(len(traced))
    assert 0 < counts[0] == counts[1] < counts[2]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a tap of every call"])
def test_a_tap_runs_in_those_calls_in_which_it_is_due(beside):
    model, runs, asked, ended = net(), tf.Variable(0), [], []

    def tap(step, data):
        runs.assign_add(1)
        return step(data)

    def due():
        asked.append(1)
        return len(asked) % 3 == 1

    def other(step, data):
        return step(data)

    weights = []
    for watched in (False, True):
        model.set_weights([np.ones((2, 1)), np.zeros(1)])
        if watched:
            tap_step(model, "train_step", tap, due, lambda: ended.append(len(asked)))
            if beside:
                tap_step(model, "train_step", other)
        model.fit(X, Y, batch_size=1, epochs=1, verbose=0)
        weights.append(model.get_weights())
    untap_step(model, "train_step", tap)
    untap_step(model, "train_step", other)
    assert len(asked) == 8
    assert ended == [1, 2, 3, 4, 5, 6, 7, 8]  # After each call, watched or not.
    assert runs == 3
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    model.fit(X, Y, verbose=0)
    assert len(asked) == 8
    assert runs == 3


def test_a_users_own_training_step_is_tapped_too():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            return {**super().train_step(data), "mine": 7.0}

    model, seen = Own(), []
    model.compile("sgd", "mse")
    tap_step(model, "train_step", lambda step, data: seen.append(1) or step(data))
    assert model.fit(X, Y, verbose=0).history["mine"] == [7.0]
    assert seen


def test_a_step_that_was_set_on_the_model_comes_back():
    model = net()
    own = type(model).test_step.__get__(model)
    model.test_step = own
    tap_step(model, "test_step", tap := lambda step, data: step(data))
    assert model.test_step is not own
    untap_step(model, "test_step", tap)
    assert model.test_step is own


def test_outputs_are_kept_in_the_order_of_the_calls():
    first, second = keras.layers.Dense(2), keras.layers.Dense(3)
    with outputs_kept([second, first]) as outputs:
        y = second(first(X))
        second(first(X))
    assert list(outputs) == [1, 0]
    assert outputs[0] is y
    assert vars(first).get("call") is None


def test_a_tensor_from_inside_a_loop_is_not_usable_outside():
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    usable = []

    @tf.function
    def step(x):
        with outputs_kept([layer]) as outputs:
            tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, layer(x)), [0, x])
        usable.append((list(outputs), list(usable_here(outputs))))
        with outputs_kept([layer]) as outputs:
            layer(x)
        usable.append((list(outputs), list(usable_here(outputs))))
        return x

    step(tf.constant(X))
    assert usable == [([0], []), ([0], [0])]


def test_rows_that_were_looked_up_twice_add_up():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([1, 0, 1]), tf.constant([3, 1]))
    assert flat_gradient(slices, 3).numpy().tolist() == [2.0, 5.0, 0.0]


def test_arrays_are_named_by_their_layer_and_by_their_path_where_names_repeat():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="same")], name="inner")
    inputs = keras.Input((2,))
    x = keras.layers.Dense(2, name="same")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="only")(inner(x)))
    names = list(layer_names(model).values())
    assert names[-2:] == ["only", "only"]
    assert len(set(names)) == 3
