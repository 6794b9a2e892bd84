"""The networks of the book: as a whole and layer by layer, with what programs may change of them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import fastnet
from fastnet.book.ch04.two_layer_net import TwoLayerNet as PlainTwoLayerNet
from fastnet.book.ch05.two_layer_net import TwoLayerNet
from fastnet.book.common.layers import Affine, Dropout, Relu, Sigmoid
from fastnet.book.common.multi_layer_net import MultiLayerNet
from fastnet.book.common.multi_layer_net_extend import MultiLayerNetExtend

RNG = np.random.default_rng(0)
X, T = RNG.random((9, 6)), np.arange(9) % 3

NETS = {
    "two layers": lambda: TwoLayerNet(6, 5, 3, weight_init_std=0.5),
    "many layers": lambda: MultiLayerNet(6, [5, 4], 3, activation="sigmoid"),
    "weight decay": lambda: MultiLayerNet(6, [5, 4], 3, weight_decay_lambda=0.1),
    "batch normalisation": lambda: MultiLayerNetExtend(6, [5, 4], 3, use_batchnorm=True, weight_decay_lambda=0.1),
}


def make(name):
    np.random.seed(0)
    return NETS[name](), X, T


def largest(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


def unfuse(net):
    """Put an equal layer in place of one, so that the network runs layer by layer."""
    key = next(key for key, layer in reversed(net.layers.items()) if isinstance(layer, Affine))
    net.layers[key] = Affine(net.layers[key].W, net.layers[key].b)
    assert net._fitting() is None


@pytest.mark.parametrize("name", NETS)
def test_as_a_whole_and_layer_by_layer(name):
    net, x, t = make(name)
    other, _, _ = make(name)
    unfuse(other)
    assert net._fitting() is not None
    assert net.params.keys() == other.params.keys()
    for labels in (t, t.astype(np.uint8), t[:, np.newaxis], np.eye(3)[t]):
        gradient, numerical = net.gradient(x, labels), net.numerical_gradient(x, labels)
        assert largest(gradient, numerical) < 1e-7
        assert largest(gradient, other.gradient(x, labels)) < 1e-12
        assert largest(numerical, other.numerical_gradient(x, labels)) < 1e-8
        assert net.loss(x, labels) == pytest.approx(other.loss(x, labels), rel=1e-12)
        assert net.accuracy(x, labels) == other.accuracy(x, labels)
    np.testing.assert_allclose(net.predict(x), other.predict(x), rtol=1e-12, atol=1e-14)
    assert largest(net.params, other.params) == 0


@pytest.mark.parametrize("name", NETS)
def test_the_layers_give_what_the_network_gives(name):
    net, x, t = make(name)
    net.gradient(x, t)
    y = x
    for key, layer in net.layers.items():
        y = layer.forward(y, train_flg=False) if key.startswith("BatchNorm") else layer.forward(y)
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-10)
    last = net.lastLayer if name == "two layers" else net.last_layer
    penalty = sum(np.sum(net.params[key] ** 2) for key in net.params if key[0] == "W") * net.weight_decay_lambda / 2
    assert net.loss(x, t) == pytest.approx(last.forward(y, t) + penalty, rel=1e-12)
    assert net.accuracy(x, t) == np.mean(y.argmax(axis=1) == t)


def test_names_of_layers():
    names = {
        "two layers": "Affine1 Relu1 Affine2",
        "many layers": "Affine1 Activation_function1 Affine2 Activation_function2 Affine3",
        "batch normalisation": "Affine1 BatchNorm1 Activation_function1 "
        "Affine2 BatchNorm2 Activation_function2 Affine3",
    }
    for name, expected in names.items():
        net, _, _ = make(name)
        assert isinstance(net.layers, OrderedDict)
        assert " ".join(net.layers) == expected
    net = MultiLayerNetExtend(6, [5], 3, use_dropout=True, use_batchnorm=True)
    assert " ".join(net.layers) == "Affine1 BatchNorm1 Activation_function1 Dropout1 Affine2"
    assert (net.input_size, net.hidden_size_list, net.output_size, net.hidden_layer_num) == (6, [5], 3, 1)
    assert net.layers["Dropout1"].dropout_ratio == 0.5


def test_the_layers_share_the_gradients():
    net, x, t = make("two layers")
    gradient = net.gradient(x, t)
    assert net.layers["Affine2"].dW is gradient["W2"]


# The weights ----------------------------------------------------------------------------------------------


def test_weights_are_those_of_the_book_for_the_same_seed():
    np.random.seed(3)
    expected = {"W1": np.random.randn(6, 5), "b1": np.zeros(5), "W2": np.random.randn(5, 3), "b2": np.zeros(3)}
    for net, scales in (
        (lambda: PlainTwoLayerNet(6, 5, 3), (0.01, 0.01)),
        (lambda: TwoLayerNet(6, 5, 3, 0.2), (0.2, 0.2)),
        (lambda: MultiLayerNet(6, [5], 3), (np.sqrt(2 / 6), np.sqrt(2 / 5))),
        (lambda: MultiLayerNet(6, [5], 3, weight_init_std="Xavier"), (np.sqrt(1 / 6), np.sqrt(1 / 5))),
        (lambda: MultiLayerNetExtend(6, [5], 3, weight_init_std=0.5), (0.5, 0.5)),
    ):
        np.random.seed(3)
        found = net().params
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array * (scales[int(key[1]) - 1]), rtol=1e-14)


def test_a_new_array_in_params_reaches_its_layer_and_the_reverse():
    net, x, t = make("two layers")
    before = net.loss(x, t)
    net.params["W1"] = 2 * net.params["W1"]
    assert net.loss(x, t) != before
    assert net.layers["Affine1"].W is net.params["W1"]
    net.layers["Affine1"].W = 0.5 * net.layers["Affine1"].W
    assert net.loss(x, t) == pytest.approx(before, rel=1e-14)
    assert net.layers["Affine1"].W is net.params["W1"]
    net.params["W1"], net.layers["Affine1"].W = np.ones((6, 5)), np.zeros((6, 5))
    with pytest.raises(ValueError, match=r"params\['W1'\] and layers\['Affine1'\].W are two new arrays: set one"):
        net.loss(x, t)


def test_arrays_that_do_not_fit():
    net, x, t = make("two layers")
    net.params["W1"] = np.ones((6, 4))
    with pytest.raises(ValueError, match=r"params\['W1'\] must have shape \(6, 5\), not \(6, 4\)"):
        net.loss(x, t)
    del net.params["W1"]
    with pytest.raises(KeyError, match="params has no 'W1'"):
        net.gradient(x, t)


# Other layers ---------------------------------------------------------------------------------------------


class Swish:
    """A layer as readers of the book write one: no base class."""

    def forward(self, x):
        self.x, self.y = x, x / (1 + np.exp(-x))
        return self.y

    def backward(self, dout):
        return dout * (self.y + (1 - self.y) / (1 + np.exp(-self.x)))


def test_a_layer_may_be_replaced_inserted_and_removed():
    net, x, t = make("two layers")
    before = net.loss(x, t)
    net.layers["Relu1"] = Swish()
    affine = net.layers["Affine1"].W, net.layers["Affine2"].W
    hidden = x @ affine[0]
    np.testing.assert_allclose(net.predict(x), hidden / (1 + np.exp(-hidden)) @ affine[1], rtol=1e-12)
    net.layers["Relu1"].forward = lambda x: x * 0
    np.testing.assert_array_equal(net.predict(x), np.zeros((9, 3)))
    net.layers["Relu1"] = Relu()
    assert net.loss(x, t) == pytest.approx(before, rel=1e-14)
    net.layers["Sigmoid"] = Sigmoid()
    np.testing.assert_allclose(net.predict(x), 1 / (1 + np.exp(-np.maximum(hidden, 0) @ affine[1])), rtol=1e-12)
    assert largest(net.gradient(x, t), net.numerical_gradient(x, t)) < 1e-8
    del net.layers["Sigmoid"], net.layers["Relu1"]
    np.testing.assert_allclose(net.predict(x), hidden @ affine[1], rtol=1e-12)
    assert largest(net.gradient(x, t), net.numerical_gradient(x, t)) < 1e-8
    del net.layers["Affine1"]
    with pytest.raises(ValueError, match="params has 'W1', but layers has no 'Affine1' with 'W' any more"):
        net.predict(x)


def test_a_method_of_a_layer_may_be_replaced(monkeypatch):
    net, x, t = make("two layers")
    monkeypatch.setattr(Relu, "forward", lambda self, x: 0 * x)
    np.testing.assert_array_equal(net.predict(x), np.zeros((9, 3)))
    assert net.loss(x, t) == pytest.approx(np.log(3), abs=1e-6)


def test_another_loss():
    class Square:
        def forward(self, x, t):
            self.d = x - np.eye(3)[t]
            return 0.5 * np.sum(self.d**2)

        def backward(self, dout):
            return dout * self.d

    net, x, t = make("many layers")
    net.last_layer = Square()
    assert net.loss(x, t) == pytest.approx(0.5 * np.sum((net.predict(x) - np.eye(3)[t]) ** 2))
    assert largest(net.gradient(x, t), net.numerical_gradient(x, t)) < 1e-7


def test_dropout_in_a_network_without_train_flg():
    net, x, t = make("two layers")
    before = net.predict(x)
    net.layers["Dropout"] = Dropout(0.5)
    np.testing.assert_allclose(net.predict(x), 0.5 * before, rtol=1e-12)  # inference
    net.layers["Relu1"] = Sigmoid()  # without kinks
    numerical = net.numerical_gradient(x, t)
    assert largest(net.gradient(x, t), numerical) < 1e-8


# Training and inference -----------------------------------------------------------------------------------


def test_batch_normalisation_keeps_its_running_statistics_in_the_layers():
    net, x, t = make("batch normalisation")
    other, _, _ = make("batch normalisation")
    unfuse(other)
    norm = net.layers["BatchNorm1"]
    for _ in range(3):
        net.gradient(x, t)
        other.gradient(x, t)
    units = x @ net.params["W1"] + net.params["b1"]
    np.testing.assert_allclose(norm.running_mean, (1 - 0.9**3) * units.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(norm.running_var, (1 - 0.9**3) * units.var(axis=0), rtol=1e-10)
    for same in ("BatchNorm1", "BatchNorm2"):
        np.testing.assert_allclose(net.layers[same].running_var, other.layers[same].running_var, rtol=1e-10)
    before = norm.running_mean
    for one in (net, other):
        one.numerical_gradient(x, t)
        one.predict(x)
        one.loss(x, t)
    np.testing.assert_array_equal(norm.running_mean, before)
    np.testing.assert_allclose(net.predict(x), other.predict(x), rtol=1e-10)
    np.testing.assert_allclose(other.layers["BatchNorm1"].running_mean, before, rtol=1e-10)
    for one in (net, other):
        one.layers["BatchNorm1"].momentum = 0.5
        one.gradient(x, t)
    np.testing.assert_allclose(norm.running_mean, 0.5 * before + 0.5 * units.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(net.predict(x), other.predict(x), rtol=1e-10)
    norm.running_mean = np.zeros(5)
    assert np.abs(net.predict(x) - other.predict(x)).max() > 1e-3
    assert net.loss(x, t, train_flg=True) == pytest.approx(other.loss(x, t, train_flg=True), rel=1e-10)


def make_dropout():
    np.random.seed(0)
    return MultiLayerNetExtend(6, [5, 4], 3, activation="sigmoid", use_dropout=True, use_batchnorm=True)


def test_dropout_numerical_gradients_have_the_masks_of_backprop():
    net = make_dropout()
    numerical = net.numerical_gradient(X, T)
    gradient = net.gradient(X, T)
    assert largest(gradient, numerical) < 1e-7
    assert largest(gradient, net.numerical_gradient(X, T)) < 1e-7
    assert largest(gradient, net.gradient(X, T)) > 1e-3  # new masks
    np.random.seed(5)
    expected = net.numerical_gradient(X, T)
    np.random.seed(5)
    assert largest(net.gradient(X, T), expected) < 1e-7
    np.random.seed(5)
    one = net.loss(X, T, train_flg=True)
    np.random.seed(5)
    assert one == net.loss(X, T, True)
    assert one != net.loss(X, T)
    assert net.loss(X, T) == net.loss(X, T, train_flg=False)


def test_dropout_as_a_whole_and_layer_by_layer():
    """The same masks of the same random numbers, of which as many are drawn."""
    net, other = make_dropout(), make_dropout()
    unfuse(other)
    assert net._fitting() is not None
    found, moved, masks = [], [], []
    for one in (net, other):
        np.random.seed(7)
        found.append([one.gradient(X, T), one.numerical_gradient(X, T), one.gradient(X[:4], T[:4])])
        moved.append(np.random.rand())
        masks.append(one.layers["Dropout1"].mask)
    assert moved[0] == moved[1]
    assert masks[0].shape == (4, 5)
    np.testing.assert_array_equal(*masks)
    for mine, theirs in zip(*found, strict=True):
        assert largest(mine, theirs) < 1e-8
    np.testing.assert_allclose(net.predict(X), other.predict(X), rtol=1e-12)
    for one in (net, other):
        one.layers["Dropout1"].dropout_ratio = 0.2
    np.testing.assert_allclose(net.predict(X), other.predict(X), rtol=1e-12)


def test_a_batch_that_is_refused_draws_no_masks():
    net = make_dropout()
    expected = np.random.get_state()[1:3]
    for x, t in ((X, T[:8]), (X, T + 1), (X[:, :5], T)):
        for call in (net.gradient, net.numerical_gradient):
            with pytest.raises(ValueError, match=r"8 labels|not a label|5 columns"):
                call(x, t)
            np.testing.assert_equal(np.random.get_state()[1:3], expected)


def test_dropout_inference_is_that_of_the_book():
    net = MultiLayerNetExtend(6, [5], 3, use_dropout=True, dropout_ration=0.2)
    p = net.params
    hidden = 0.8 * np.maximum(X @ p["W1"] + p["b1"], 0)
    np.testing.assert_allclose(net.predict(X), hidden @ p["W2"] + p["b2"], rtol=1e-12)
    assert net.accuracy(X, T, batch_size=4) == net.accuracy(X, T)


@pytest.mark.parametrize("name", ["many layers", "batch normalisation"])
def test_the_verdict_on_their_gradients(name):
    net, x, t = make(name)
    fastnet.check_gradient(net, net.gradient, (x, t), raise_exception=True)


# Subclasses -----------------------------------------------------------------------------------------------


class Doubled(TwoLayerNet):
    def predict(self, x):
        return 2 * super().predict(x)


def test_a_subclass_with_its_own_predict():
    np.random.seed(0)
    net = Doubled(6, 5, 3, 0.5)
    scores = 2 * (np.maximum(X @ net.params["W1"], 0) @ net.params["W2"])
    assert net.loss(X, T) == pytest.approx(net.lastLayer.forward(scores, T), rel=1e-12)
    net.params["W2"] *= 2
    expected = TwoLayerNet.numerical_gradient
    doubled = expected(net, X, T)["b1"]
    net.params["W2"] /= 2
    with pytest.raises(TypeError, match="Doubled has its own predict, and backprop"):
        net.gradient(X, T)
    assert net.numerical_gradient(X, T)["b1"].shape == doubled.shape
    same = TwoLayerNet(6, 5, 3)
    same.params.update(W1=net.params["W1"], b1=net.params["b1"], W2=2 * net.params["W2"], b2=2 * net.params["b2"])
    np.testing.assert_allclose(net.numerical_gradient(X, T)["W1"], same.gradient(X, T)["W1"], atol=1e-8)


# Wrong arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TwoLayerNet(0, 5, 3), ValueError, "input_size must be at least 1, not 0"),
        (lambda: PlainTwoLayerNet(6, 2.5, 3), TypeError, "hidden_size must be an integer, not float"),
        (lambda: MultiLayerNet(6, [], 3), ValueError, "hidden_size_list is empty"),
        (lambda: MultiLayerNet(6, [5], 3, "tanh"), ValueError, "activation must be one of 'sigmoid', 'relu'"),
        (lambda: MultiLayerNet(6, [5], 3, weight_init_std="great"), ValueError, "weight_init_std must be one of"),
        (lambda: MultiLayerNet(6, [5], 3, weight_decay_lambda=-1), ValueError, "weight_decay_lambda"),
        (lambda: MultiLayerNetExtend(6, [5], 3, dropout_ration=1), ValueError, "dropout_ration"),
        (lambda: MultiLayerNetExtend(6, [5], 3, use_batchnorm="yes"), TypeError, "use_batchnorm must be True or False"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("fused", [True, False])
def test_wrong_batches(fused):
    net, x, t = make("two layers")
    if not fused:
        unfuse(net)
    for call in (net.loss, net.gradient, net.numerical_gradient, net.accuracy):
        with pytest.raises(ValueError, match=r"t has 8 labels|8 row"):
            call(x, t[:8])
        with pytest.raises(ValueError, match="not a label of 3 classes"):
            call(x, t + 1)
        with pytest.raises(ValueError, match="x has 5 columns"):
            call(x[:, :5], t)
