import keras
import pytest

from keras_practice.core.layers import activation_name, all_layers, every_layer, inner_layers

Dense = keras.layers.Dense


class Pair(keras.layers.Layer):
    """Holds layers in an attribute, a list and a dictionary, one of them twice."""

    def __init__(self):
        super().__init__(name="pair")
        self.first = Dense(1, name="first")
        self.more = [Dense(1, name="second"), {"third": Dense(1, name="third")}]
        self.again = self.first


def names(layers):
    return [layer.name for layer in layers]


def nested():
    inmost = keras.Sequential([keras.Input((2,)), Dense(2, name="deep")], name="inmost")
    inner = keras.Sequential([keras.Input((2,)), inmost, Dense(2, name="after")], name="inner")
    return keras.Sequential([keras.Input((2,)), Dense(2, name="before"), inner, Dense(1, name="last")])


def test_models_within_models_are_walked_in_order():
    assert names(every_layer(nested())) == ["before", "inner", "inmost", "deep", "after", "last"]
    assert names(inner_layers(nested())) == ["before", "deep", "after", "last"]


def test_layers_of_layers_are_found_once():
    assert sorted(names(all_layers(Pair()))) == ["first", "pair", "second", "third"]
    wrapped = keras.layers.Bidirectional(keras.layers.LSTM(1, name="one"), name="both")
    assert {"both", "forward_one", "backward_one", "lstm_cell"} <= set(names(all_layers(wrapped)))


def test_a_closed_kind_of_layer_is_not_looked_into():
    wrapped = keras.layers.TimeDistributed(Dense(1, name="inside"), name="outside")
    model = keras.Sequential([keras.Input((3, 2)), wrapped])
    assert "inside" in names(all_layers(model))
    closed = names(all_layers(model, (keras.layers.TimeDistributed,)))
    assert "outside" in closed
    assert "inside" not in closed


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (keras.layers.LeakyReLU(), "leaky_relu"),
        (keras.layers.PReLU(), "prelu"),
        (keras.layers.ReLU(), "relu"),
        (keras.layers.ELU(), "elu"),
        (keras.layers.Softmax(), "softmax"),
        (keras.layers.Activation("tanh"), "tanh"),
        (Dense(1, "selu"), "selu"),
        (Dense(1, keras.layers.LeakyReLU()), "leakyrelu"),
        (Dense(1), None),
        (Dense(1, "linear"), None),
        (keras.layers.Dropout(0.5), None),
    ],
)
def test_the_activation_that_a_layer_ends_in(layer, name):
    assert activation_name(layer) == name
