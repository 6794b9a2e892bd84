"""What makes no network, and no pass through one: a clear exception each, and nothing changed."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet.layers import (
    Add,
    Affine,
    BatchNorm,
    Dropout,
    IdentityWithLoss,
    Layer,
    LossLayer,
    Mul,
    ReLU,
    SoftmaxWithLoss,
    Tanh,
)

T, V, K = TypeError, ValueError, KeyError


def affine(inputs, outputs, dtype="float64"):
    return Affine(np.ones((inputs, outputs), dtype), np.ones(outputs, dtype))


def norm(columns):
    return BatchNorm(np.ones(columns), np.zeros(columns))


def with_names(params=(), state=()):
    layer = Layer()
    layer.params = {name: np.ones(2) for name in params}
    layer.state = {name: np.ones(2) for name in state}
    return layer


def loss_with_params():
    loss = SoftmaxWithLoss()
    loss.params = {"W": np.ones(3)}
    return loss


def twice(layer):
    return [affine(2, 2), layer, affine(2, 2), layer]


SHARED = np.ones((2, 2))
STACKS = [
    ([], V, "layers is empty"),
    (iter(()), V, "layers is empty"),
    (affine(2, 2), T, "layers must be a list of layers, not Affine"),
    ("relu", T, "layers must be a list of layers, not str"),
    (None, T, "layers must be a list of layers, not NoneType"),
    ({"Affine1": affine(2, 2)}, T, "layers[0] must be a Layer, not str"),
    ([affine(2, 2), fastnet.relu], T, "layers[1] must be a Layer, not function"),
    ([affine(2, 2), ReLU], T, "layers[1] is the class ReLU: pass a layer, ReLU(…)"),
    ([affine(2, 2), SoftmaxWithLoss(), affine(2, 2)], T, "layers[1] is a loss, SoftmaxWithLoss: pass it as Network("),
    ([IdentityWithLoss()], T, "layers[0] is a loss, IdentityWithLoss: pass it as Network(layers, loss)"),
    ([affine(2, 2), Add()], T, "layers[1] is Add, which has two inputs: in a list, a layer has one"),
    ([Mul()], T, "layers[0] is Mul, which has two inputs"),
    (twice(affine(2, 2)), V, "layers[1] and layers[3] are the same object: each needs its own Affine"),
    (twice(ReLU()), V, "layers[1] and layers[3] are the same object: each needs its own ReLU"),
    ([Affine(SHARED), Affine(SHARED)], V, "W1 and W2 share memory: an update of one would change both; pass a copy"),
    ([Affine(SHARED), Affine(SHARED.T)], V, "W1 and W2 share memory"),
    ([Affine(SHARED, SHARED[0])], V, "W1 and b1 share memory"),
    ([affine(2, 3), affine(2, 2)], V, "layers[1], Affine, takes 2 columns, but 3 come from the layers before it"),
    ([affine(2, 3), ReLU(), Dropout(), norm(4)], V, "layers[3], BatchNorm, takes 4 columns, but 3 come from the"),
    ([norm(4), Tanh(), affine(3, 2)], V, "layers[2], Affine, takes 3 columns, but 4 come from the layers before it"),
    ([affine(2, 3), affine(3, 2, "float32")], T, "params['W2'] is float32, but params['W1'] is float64"),
    (
        [with_names(["W1"])],
        V,
        "layers[0], Layer, has an array named 'W1': it must be an identifier that does not end in",
    ),
    ([with_names(["a b"])], V, "layers[0], Layer, has an array named 'a b': it must be an identifier"),
    ([with_names([1])], V, "layers[0], Layer, has an array named 1: it must be an identifier"),
    ([with_names(["a"], ["a"])], V, "layers[0], Layer, has one name in both params and state: 'a', 'a'"),
]

LOSSES = [
    (SoftmaxWithLoss, T, "loss must be a loss, such as SoftmaxWithLoss(), not type"),
    (ReLU(), T, "loss must be a loss, such as SoftmaxWithLoss(), not ReLU"),
    ("softmax", T, "loss must be a loss, such as SoftmaxWithLoss(), not str"),
    (None, T, "loss must be a loss, such as SoftmaxWithLoss(), not NoneType"),
    (loss_with_params(), V, "loss, SoftmaxWithLoss, has params, but a loss is not trained"),
]

DECAYS = [
    (-0.1, V, "weight_decay_lambda must be at least 0, not -0.1"),
    (np.nan, V, "weight_decay_lambda must be finite, not nan"),
    ("0.1", T, "weight_decay_lambda must be a number, not str"),
    (None, T, "weight_decay_lambda must be a number, not NoneType"),
]

ARGUMENTS = [
    ({"input_size": 0}, V, "input_size must be at least 1, not 0"),
    ({"input_size": 6.0}, T, "input_size must be an integer, not float"),
    ({"output_size": -3}, V, "output_size must be at least 1, not -3"),
    ({"output_size": None}, T, "output_size must be an integer, not NoneType"),
    ({"hidden_size_list": []}, V, "hidden_size_list is empty: for no hidden layer, use Network("),
    ({"hidden_size_list": 5}, T, "hidden_size_list must be a list of numbers, as in [50], not int"),
    ({"hidden_size_list": "55"}, T, "hidden_size_list must be a list of numbers, as in [50], not str"),
    ({"hidden_size_list": [5, 0]}, V, "hidden_size_list[1] must be at least 1, not 0"),
    ({"hidden_size_list": [5.0]}, T, "hidden_size_list[0] must be an integer, not float"),
    ({"hidden_size_list": [[5]]}, T, "hidden_size_list[0] must be an integer, not list"),
    (
        {"activation": "swish"},
        V,
        "activation must be one of 'relu', 'leaky_relu', 'sigmoid', 'tanh', 'softplus', 'silu', 'gelu', 'elu', 'step'",
    ),
    ({"activation": ReLU}, V, "activation must be one of 'relu', "),
    ({"activation": None}, V, "activation must be one of 'relu', "),
    ({"loss": "hinge"}, V, "'huber_loss', 'mean_absolute_error', not 'hinge'"),
    ({"loss": SoftmaxWithLoss()}, V, "loss must be one of 'cross_entropy', 'mean_squared_error', "),
    ({"weight_init_std": "lecun"}, V, "weight_init_std must be one of 'he', 'xavier', 'relu', 'sigmoid', not 'lecun'"),
    ({"weight_init_std": -0.01}, V, "weight_init_std must be at least 0, not -0.01"),
    ({"weight_init_std": np.inf}, V, "weight_init_std must be finite, not inf"),
    ({"weight_init_std": None}, T, "weight_init_std must be a number, not NoneType"),
    *(({"weight_decay_lambda": decay}, error, message) for decay, error, message in DECAYS),
    ({"use_batchnorm": 1}, T, "use_batchnorm must be True or False, not int"),
    ({"use_batchnorm": "no"}, T, "use_batchnorm must be True or False, not str"),
    ({"running_mean": [0.0]}, V, "running_mean is given, but use_batchnorm is False"),
    ({"use_batchnorm": True, "running_mean": [0.0]}, V, "running_mean is given, but running_var is not: give both"),
    (
        {"use_batchnorm": True, "running_mean": 0.0},
        T,
        "running_mean must be a list with an entry for each hidden layer",
    ),
    ({"use_batchnorm": True, "running_var": [1, 1]}, V, "running_var has 2 entries for 1 hidden layer(s)"),
    (
        {"use_batchnorm": True, "running_var": [np.ones(3)]},
        V,
        "running_var[0] must be a number or have shape (5,), not",
    ),
    ({"use_batchnorm": True, "running_mean": [0], "running_var": [-1]}, V, "running_var has a negative number, -1"),
    ({"use_batchnorm": True, "running_mean": ["a"]}, T, "running_mean[0] must"),
    ({"dropout_ratio": -0.5}, V, "dropout_ratio must be from 0 to 1, not -0.5"),
    ({"dropout_ratio": 1.5}, V, "dropout_ratio must be from 0 to 1, not 1.5"),
    ({"dropout_ratio": 1}, V, "dropout_ratio must be at least 0 and less than 1, not 1"),
    ({"dropout_ratio": True}, T, "dropout_ratio must be a number, not bool"),
    ({"dtype": "float16"}, V, "dtype must be 'float32' or 'float64', not 'float16'"),
    ({"dtype": "double precision"}, T, "dtype must be 'float32' or 'float64', not 'double precision'"),
    ({"seed": -1}, V, "seed must be at least 0, not -1"),
    ({"seed": 0.5}, T, "seed must be an integer, not float"),
]


def test_an_option_that_is_not_a_number_has_its_name():
    net, x, t = fastnet.TwoLayerNet(6, 5, 4, seed=0), np.ones((3, 6)), [0, 1, 2]
    calls = (
        lambda: fastnet.MultiLayerNet(6, [5], 4, "relu"),
        lambda: fastnet.TwoLayerNet(6, 5, 4, 0.01, "float32"),
        lambda: fastnet.SimpleNet("float32"),
        lambda: net.numerical_gradient(x, t, 1e-4, "loop"),
        lambda: net.numerical_input_gradient(x, t, 1e-4, "loop"),
        lambda: fastnet.matmul(x, x, True),
        lambda: fastnet.EarlyStopping(3, "loss"),
    )
    for call in calls:
        with pytest.raises(TypeError, match="positional"):
            call()


COLUMNS = "x has 5 columns for a network of 6 inputs"
ROWS = "for 9 row(s) of x and 4 classes: it must be labels of shape (9,) or targets of shape (9, 4)"
BATCHES = [
    (lambda x, t: (x[:0], t[:0]), V, "x of shape (0, 6) is an empty batch"),
    (lambda x, t: (x[:, :5], t), V, COLUMNS),
    (lambda x, t: (x[None], t), V, "x must have shape (batch, 6) or (6,), not (1, 9, 6)"),
    (lambda x, t: (x * 1j, t), T, "x must contain real numbers, not ndarray of dtype complex"),
    (lambda x, t: (x, t[:8]), V, "t has 8 labels for 9 rows of x"),
    (lambda x, t: (x, t * 0 + 4), V, "t[0] is 4, which is not a label of 4 classes"),
    (lambda x, t: (x, t * 1.0), T, "t has labels of dtype float64: class labels must be integers"),
    (lambda x, t: (x, np.eye(5)[t]), V, "t has shape (9, 5) " + ROWS),
    (lambda x, t: (x, None), T, "t must contain real numbers, not NoneType"),
]

PARAMETERS = [
    ({"W1": np.zeros((5, 6))}, V, "params['W1'] must have shape (6, 5), not (5, 6)"),
    ({"W1": np.zeros((7, 5))}, V, "params['W1'] must have shape (6, 5), not (7, 5)"),
    ({"W2": np.zeros((5, 3)), "b2": np.zeros(3)}, V, "params['W2'] must have shape (5, 4), not (5, 3)"),
    ({"b1": np.zeros((1, 5))}, V, "params['b1'] must have shape (5,), not (1, 5): write params['b1'].ravel()"),
    ({"W1": np.zeros((6, 5), int)}, T, "params['W1'] must be float32 or float64, not int64"),
    ({"W2": np.zeros((5, 4), "f4")}, T, "params['W2'] is float32, but params['W1'] is float64"),
    ({"b2": [0.0] * 4}, T, "params['b2'] must be a NumPy array, not list"),
    ({"b2": None}, T, "params['b2'] must be a NumPy array, not NoneType"),
]


def raises(error, message, call, *arguments, **named):
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert caught.type is error
    assert message in str(caught.value)


@pytest.mark.parametrize(("stack", "error", "message"), STACKS, ids=[row[2] for row in STACKS])
def test_layers(stack, error, message):
    raises(error, message, fastnet.Network, stack, SoftmaxWithLoss())


@pytest.mark.parametrize(("loss", "error", "message"), LOSSES, ids=[row[2] for row in LOSSES])
def test_losses(loss, error, message):
    raises(error, message, fastnet.Network, [affine(2, 2)], loss)


@pytest.mark.parametrize(("decay", "error", "message"), DECAYS, ids=[row[2] for row in DECAYS])
def test_weight_decay(decay, error, message):
    raises(error, message, fastnet.Network, [affine(2, 2)], SoftmaxWithLoss(), decay)


@pytest.mark.parametrize(("arguments", "error", "message"), ARGUMENTS, ids=[row[2] for row in ARGUMENTS])
def test_arguments(arguments, error, message):
    good = {"input_size": 6, "hidden_size_list": [5], "output_size": 3}
    raises(error, message, fastnet.MultiLayerNet, **(good | arguments))


def networks():
    yield fastnet.MultiLayerNet(6, [5], 4, seed=0)
    yield fastnet.MultiLayerNet(6, [5], 4, use_batchnorm=True, dropout_ratio=0.5, seed=0)


@pytest.mark.parametrize(("make", "error", "message"), BATCHES, ids=[row[2] for row in BATCHES])
def test_batches(backend, make, error, message):
    x, t = make(np.random.default_rng(0).standard_normal((9, 6)), np.arange(9) % 4)
    for net in networks():
        before = {name: a.copy() for name, a in (net.params | net.state).items()}
        for method in ("loss", "accuracy", "gradient", "numerical_gradient", "training_loss", "loss_and_gradient"):
            raises(error, message, getattr(net, method), x, t)
        for name, array in (net.params | net.state).items():
            np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(("params", "error", "message"), PARAMETERS, ids=[row[2] for row in PARAMETERS])
def test_parameters(backend, params, error, message):
    x, t = np.ones((9, 6)), np.arange(9) % 4
    for net in networks():
        net.params |= params
        for method in (net.loss, net.gradient, net.numerical_gradient):
            raises(error, message, method, x, t)
        raises(error, message, net.predict, x)


@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        (0, V, "h must be positive, not 0"),
        (-1e-4, V, "h must be positive, not -0.0001"),
        ("1", T, "h must be a number"),
        (1e-300, V, "h must be positive and finite in float32, not 1e-300"),
    ],
)
def test_steps(h, error, message):
    net = fastnet.MultiLayerNet(6, [5], 4, use_batchnorm=True, dtype="float32", seed=0)
    raises(error, message, net.numerical_gradient, np.ones((9, 6)), np.arange(9) % 4, h)


def test_arrays_that_are_not_there():
    x, t = np.ones((9, 6)), np.arange(9) % 4
    for net in networks():
        del net.params["b1"]
        raises(K, "params has no 'b1'", net.gradient, x, t)
        net.params["b1"] = np.zeros(5)
    state = net.state.pop("running_mean1")
    raises(K, "state has no 'running_mean1'", net.predict, x)
    net.state["running_mean1"] = state[:1]
    raises(V, "state['running_mean1'] must have shape (5,), not (1,)", net.gradient, x, t)


# Layers of one's own that do not keep to the rules --------------------------------------------------------


class Own(Layer):
    def __init__(self, out=None, grads=None):
        self.params = {"a": np.ones(6)}
        self.out, self.new_grads = out, grads

    def forward(self, x):
        return x if self.out is None else self.out

    def backward(self, dout):
        if self.new_grads is not None:
            self.grads = self.new_grads
        return dout


class OwnLoss(LossLayer):
    def __init__(self, value):
        self.value = value

    def forward(self, x, t):
        return self.value

    def backward(self, dout):
        return np.zeros((9, 6))


OWN = [
    (Own(np.ones((8, 6))), V, "layers[0], Own, gave shape (8, 6) for a batch of 9 row(s)"),
    (Own(1.0), V, "layers[0], Own, gave shape () for a batch of 9 row(s)"),
    (Own(np.ones((9, 6)) * 1j), T, "what layers[0], Own, gave must contain real numbers, not ndarray of dtype complex"),
    (Own("text"), T, "what layers[0], Own, gave must contain real numbers, not str"),
    (Own(np.ones((9, 2, 3))), V, "layers[0], Own, gave shape (9, 2, 3), where (batch, classes) is needed"),
    (Own(), V, "layers[0], Own, has no 'a' in its grads after backward"),
    (Own(grads={"b": np.ones(6)}), V, "layers[0], Own, has no 'a' in its grads after backward"),
    (Own(grads={"a": np.ones(5)}), V, "layers[0], Own, gave a gradient of shape (5,) for params['a1'] of shape (6,)"),
    (Own(grads={"a": None}), T, "the gradient with respect to a1 must contain real numbers, not NoneType"),
    (Layer(), NotImplementedError, "Layer has no forward"),
]


@pytest.mark.parametrize(("layer", "error", "message"), OWN, ids=[row[2] for row in OWN])
def test_layers_of_ones_own(layer, error, message):
    net = fastnet.Network([layer], SoftmaxWithLoss())
    raises(error, message, net.gradient, np.ones((9, 6)), np.zeros(9, int))


def test_a_gradient_of_an_earlier_pass_is_none():
    layer = Own(grads={"a": np.ones(6)})
    net = fastnet.Network([layer], SoftmaxWithLoss())
    x, t = np.ones((9, 6)), np.zeros(9, int)
    net.gradient(x, t)
    layer.new_grads = None
    raises(V, "layers[0], Own, has no 'a' in its grads after backward", net.gradient, x, t)


@pytest.mark.parametrize("value", [None, "1", np.ones(2), 1j, [1.0]], ids=repr)
def test_losses_of_ones_own(value):
    net = fastnet.Network([Own(grads={"a": np.ones(6)})], OwnLoss(value))
    raises(T, "loss, OwnLoss, must give one number, not ", net.gradient, np.ones((9, 6)), np.zeros(9, int))


def test_x_where_the_first_layer_takes_anything():
    net = fastnet.Network([Own()], SoftmaxWithLoss())
    for x in (np.ones((0, 6)), np.ones((3, 0)), 1.0):
        raises(V, "x must have shape (batch, …), no dimension 0, not ", net.predict, x)


def test_names_of_own_arrays_that_are_no_arrays():
    layer = Own()
    layer.params = {"a": [1.0]}
    raises(T, "params['a1'] must be a NumPy array, not list", fastnet.Network, [layer], SoftmaxWithLoss())
