"""The notes' own examples, by their numbers, on every implementation."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from chains import spec_of

# Two predictions for the digit "2": the first is right.
T = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
Y1 = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
Y2 = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]


@pytest.mark.parametrize("t", [T, 2, np.array(T, np.float32)], ids=["one-hot", "label", "float32"])
@pytest.mark.parametrize(
    ("error", "y", "expected"),
    [
        (fastnet.mean_squared_error, Y1, 0.0975),
        (fastnet.mean_squared_error, Y2, 0.5975),
        (fastnet.cross_entropy_error, Y1, 0.5108),
        (fastnet.cross_entropy_error, Y2, 2.3026),
    ],
)
def test_losses_of_the_two_predictions(backend, error, y, t, expected):
    for answer in (y, np.array(y), np.array(y, np.float32)):
        assert error(answer, t) == pytest.approx(expected, abs=5e-5)  # the notes print four decimals
        loss = error(np.array([answer, answer]), np.array([t, t]))
        assert loss == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("gate", "answers"),
    [
        (fastnet.AND, [0, 0, 0, 1]),
        (fastnet.NAND, [1, 1, 1, 0]),
        (fastnet.OR, [0, 1, 1, 1]),
        (fastnet.XOR, [0, 1, 1, 0]),
    ],
)
def test_gates(gate, answers):
    assert [gate(x1, x2) for x1 in (0, 1) for x2 in (0, 1)] == answers


def test_xor_is_made_of_the_other_gates():
    for x1 in (0, 1):
        for x2 in (0, 1):
            assert fastnet.XOR(x1, x2) == fastnet.AND(fastnet.NAND(x1, x2), fastnet.OR(x1, x2)) == x1 ^ x2


@pytest.mark.parametrize(("x", "slope"), [(5, 0.2), (10, 0.3)])
def test_derivative_of_a_parabola(backend, x, slope):
    # A parabola's central difference is exact but for rounding: below 2 units of 2^-53 of f(x), over 2h.
    assert fastnet.derivative(lambda x: 0.01 * x**2 + 0.1 * x, x) == pytest.approx(slope, abs=4 * 2**-53 / 2e-4)


@pytest.mark.parametrize(("x", "gradient"), [((3, 4), (6, 8)), ((0, 2), (0, 4)), ((3, 0), (6, 0))])
def test_numerical_gradient_of_a_bowl(backend, x, gradient):
    at = np.array(x, dtype=float)
    # f is at most 25: three roundings of it, twice, over 2h.
    bound = 6 * 25 * 2**-53 / 2e-4
    np.testing.assert_allclose(
        fastnet.numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, at), gradient, rtol=0, atol=bound
    )
    assert at.tolist() == list(x)


def test_gradient_descent_ends_at_the_origin(backend):
    start = np.array([3.0, 4.0])
    end = fastnet.gradient_descent(lambda x: x[0] ** 2 + x[1] ** 2, start, lr=0.1, step_num=100)
    assert np.abs(end).max() < 1e-9
    # Each step multiplies by 0.8; what rounding adds on the way (8e-12 in the first step, less in each) shrinks alike.
    np.testing.assert_allclose(end, 0.8**100 * start, rtol=1e-10)
    assert start.tolist() == [3, 4]


def test_gradient_descent_with_the_wrong_learning_rates(backend):
    """The notes' warning: too large a step diverges, too small a one goes nowhere."""
    f, start = lambda x: x[0] ** 2 + x[1] ** 2, [-3.0, 4.0]
    assert np.abs(fastnet.gradient_descent(f, start, lr=10.0, step_num=100)).max() > 1e10
    assert np.abs(fastnet.gradient_descent(f, start, lr=1e-10, step_num=100) - start).max() < 1e-6


def simple_net_closed_form(oracle, W, x, label):
    """x^T (softmax(xW) - t), times R = y_t / (y_t + 1e-7) for the 1e-7 inside the logarithm."""
    scores = x.astype(np.longdouble) @ W.astype(np.longdouble)
    y = np.exp(scores - scores.max())
    y /= y.sum()
    return np.outer(x, y - np.eye(3)[label]) * (y[label] / (y[label] + oracle.EPSILON))


@pytest.mark.parametrize("how", ["method", "loop", "function"])
def test_simple_net_against_the_closed_form(backend, oracle, how):
    net, x, t = fastnet.SimpleNet(seed=3), np.array([0.6, 0.9]), np.array([0, 0, 1])
    before = net.W.copy()
    if how == "function":  # the notes' own call: the function ignores its argument
        gradient = fastnet.numerical_gradient(lambda W: net.loss(x, t), net.W)
    elif how == "loop":
        gradient = net.numerical_gradient(x, t, algorithm="loop")["W"]
    else:
        gradient = net.numerical_gradient(x, t)["W"]
    # Truncation: h^2/6 times the third derivative of the log of a sum of exponentials, below 0.1 |x|^3.
    # Rounding: 10 units of a loss below 8, twice, over 2h.
    bound = 1e-8 / 6 * 0.1 + 2 * 10 * 8 * 2**-53 / 2e-4
    exact = simple_net_closed_form(oracle, net.W, x, 2)
    np.testing.assert_allclose(gradient, exact.astype(float), rtol=0, atol=bound)
    np.testing.assert_array_equal(net.W, before)
    np.testing.assert_allclose(net.gradient(x, t)["W"], exact.astype(float), rtol=1e-13)


def test_simple_net_scores_and_loss(backend):
    net = fastnet.SimpleNet()
    net.W = np.array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])
    x = np.array([0.6, 0.9])
    np.testing.assert_allclose(net.predict(x), [1.05414809, 0.63071653, 1.1328074], rtol=0, atol=5e-9)
    assert int(np.argmax(net.predict(x))) == 2
    # The notes printed these without the 1e-7 inside the logarithm: it divides the loss's argument and the gradient
    # by 1 + 1e-7 / y_t. W is known to eight decimals.
    y_t = np.exp(-0.92806853663411326)
    assert net.loss(x, np.array([0, 0, 1])) == pytest.approx(-np.log(y_t + 1e-7), abs=2e-8)
    printed = np.array([[0.21924763, 0.14356247, -0.36281009], [0.32887144, 0.2153437, -0.54421514]])
    gradient = net.numerical_gradient(x, np.array([0, 0, 1]))["W"]
    np.testing.assert_allclose(gradient, printed / (1 + 1e-7 / y_t), rtol=0, atol=2e-8)


def synthetic_digits(rows):
    """Rows like handwritten digits: 784 columns from 0 to 1, four fifths of them 0."""
    rng = np.random.default_rng(0)
    x = rng.random((rows, 784))
    x[rng.random(x.shape) < 0.8] = 0
    return x, rng.integers(0, 10, rows)


@pytest.fixture(params=[pytest.param("mnist", marks=pytest.mark.mnist), "synthetic"])
def digits(request):
    """A test set to pass through a network."""
    if request.param == "mnist":
        return request.getfixturevalue("mnist_test_set")
    return synthetic_digits(1000)


def random_net(hidden, dtype="float64"):
    """The notes' network, with N(0, 1) parameters."""
    net = fastnet.TwoLayerNet(784, hidden, 10, weight_init_std=1, dtype=dtype, seed=1)
    rng = np.random.default_rng(2)
    for name in ("b1", "b2"):
        net.params[name][:] = rng.standard_normal(net.params[name].shape)
    return net


def test_inference_in_batches_is_inference_in_one_call(backend, oracle, digits, dtype):
    """Bit for bit; in the reference, whose BLAS adds up as the batch's size suggests, as far as rounding goes."""
    x, t = digits
    x = x.astype(dtype)
    net = random_net(50, dtype)
    whole = net.predict(x)
    pieces = np.concatenate([net.predict(x[first : first + 100]) for first in range(0, len(x), 100)])
    if backend.name == "numpy":
        exact = oracle.forward(spec_of(net), x[::50])
        exact.assert_holds(whole[::50])
        exact.assert_holds(pieces[::50])
    else:
        np.testing.assert_array_equal(pieces, whole)
    assert net.accuracy(x, t, batch_size=100) == net.accuracy(x, t) == np.mean(whole.argmax(axis=1) == t)
    assert whole.dtype == dtype


def third_derivative_bound(net):
    """Bounds the third derivative of one row's loss by one parameter, for inputs from 0 to 1.

    Hidden unit j moves the scores along row j of W2, whose range is R. Along it, the log of the answer (a softmax) has
    derivatives of at most R, R^2/4 and 0.1 R^3, and -log(e^s + 1e-7) those of 1, 1/4 and 0.1 in s: together R, R^2/2
    and 0.48 R^3. The sigmoid's are at most 1/4, 0.0963 and 1/8.
    """
    W2 = net.params["W2"]
    R = float((W2.max(axis=1) - W2.min(axis=1)).max())
    through_sigmoid = 0.48 * R**3 / 64 + 3 * R**2 / 2 * 0.25 * 0.0963 + R / 8
    return max(through_sigmoid, 0.48)  # and the second layer's own parameters, where R is 1


def test_two_descent_steps_with_the_numerical_gradient(backend, oracle, digits):
    """The notes' program: one image, two steps at learning rate 0.06, N(0, 1) parameters.

    The reference backend, which is slow by design, does it with 5 hidden units instead of 50.
    """
    x, t = digits[0][:1], digits[1][:1]
    net = random_net(5 if backend.name == "numpy" else 50)
    h, losses = 1e-4, [net.loss(x, t)]
    for _ in range(2):
        numerical, exact = net.numerical_gradient(x, t, h=h, algorithm="loop"), net.gradient(x, t)
        # The loss's rounding hardly changes with a parameter: twice its bound is generous for both sides.
        rounding = 2 * 2 * float(oracle.loss(spec_of(net), x, t).error) / (2 * h)
        bound = h**2 / 6 * third_derivative_bound(net) + rounding
        for name, gradient in numerical.items():
            np.testing.assert_allclose(gradient, exact[name], rtol=1e-9, atol=bound, err_msg=name)
            net.params[name] -= 0.06 * gradient
        assert any(np.any(gradient != 0) for gradient in numerical.values())
        losses.append(net.loss(x, t))
    assert losses[0] > losses[1] > losses[2]


def test_gradients_of_a_batch_agree(core, oracle, digits):
    """A batch of 100 through the full network, on a spread sample of its parameters."""
    x, t = digits[0][:100], digits[1][:100]
    net = random_net(50)
    spec, h = spec_of(net), 1e-4
    exact = np.concatenate([g.ravel() for g in core.loss_and_gradient(spec, x, t)[1]])
    entries = np.linspace(0, exact.size - 1, 500).astype(np.int64)
    numerical = core.loop(spec, x, t, h, entries)
    bound = h**2 / 6 * third_derivative_bound(net) + 2 * float(oracle.loss(spec, x, t).error) / h
    np.testing.assert_allclose(numerical, exact[entries], rtol=1e-9, atol=bound)
    assert np.count_nonzero(numerical) > 100


@pytest.mark.parametrize(("kind", "units", "iterations"), [("gradient", 20, 80), ("numerical_gradient", 5, 4)])
def test_a_loop_of_ones_own_that_keeps_the_best_parameters(backend, kind, units, iterations):
    """The notes' deep network with the mean squared error: mini-batches, updates in place, the best test accuracy."""
    x_train, t_train = fastnet.datasets.make_digits(300, seed=0)
    x_test, t_test = fastnet.datasets.make_digits(100, seed=1)
    one_hot, random = np.eye(10)[t_train], np.random.default_rng(0)
    net = fastnet.MultiLayerNet(784, [units] * 6, 10, loss="mean_squared_error", seed=0)
    best, best_params, losses = -1.0, {}, [net.loss(x_train, one_hot)]
    for _ in range(iterations):
        mask = random.choice(len(x_train), 30)
        grad = getattr(net, kind)(x_train[mask], one_hot[mask])
        for key in net.params:
            net.params[key] -= 0.1 * grad[key]
        accuracy = net.accuracy(x_test, t_test)
        assert accuracy == net.accuracy(x_test, np.eye(10)[t_test]) == np.mean(net(x_test).argmax(axis=1) == t_test)
        if accuracy > best:
            best, best_params = accuracy, {key: value.copy() for key, value in net.params.items()}
        losses.append(net.loss(x_train, one_hot))
    assert losses[-1] < losses[0]
    net.params = best_params
    assert net.accuracy(x_test, t_test) == best
    assert kind == "numerical_gradient" or best > 0.3
