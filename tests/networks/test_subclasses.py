"""Networks of one's own: a subclass's predict, loss and gradient are used everywhere, and never passed over."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import fastnet
from layer_networks import batch_of


class OwnPredict(fastnet.TwoLayerNet):
    """A ReLU instead of the sigmoid."""

    def predict(self, x):
        p = self.params
        return fastnet.softmax(np.maximum(np.asarray(x) @ p["W1"] + p["b1"], 0) @ p["W2"] + p["b2"])


class OwnLoss(fastnet.TwoLayerNet):
    """With a penalty."""

    def loss(self, x, t):
        return super().loss(x, t) + 0.5 * float((self.params["W1"] ** 2).sum())


class OwnTrainingLoss(fastnet.TwoLayerNet):
    def training_loss(self, x, t):
        return 2 * self.loss(x, t)


class OwnGradient(OwnLoss):
    def gradient(self, x, t):
        gradient = super().gradient(x, t)
        gradient["W1"] = gradient["W1"] + self.params["W1"]
        return gradient


class OwnLossAndGradient(OwnLoss):
    def loss_and_gradient(self, x, t):
        _, gradient = super().loss_and_gradient(x, t)
        return self.loss(x, t), gradient | {"W1": gradient["W1"] + self.params["W1"]}


def wrapped(kind):
    """A method that says it is the library's, as functools.wraps makes it."""

    class Wrapped(kind):
        @functools.wraps(kind.loss)
        def loss(self, x, t):
            return 3 * kind.loss(self, x, t)

    return Wrapped


def net_of(kind, dtype="float64"):
    return kind(6, 5, 4, weight_init_std=0.5, dtype=dtype, seed=0)


def differences(net, f, h):
    """By the notes' loop."""
    gradients = {}
    for name, p in net.params.items():
        gradients[name] = np.empty(p.shape)
        for at in np.ndindex(p.shape):
            value = p[at]
            p[at] = value + h
            above = f()
            p[at] = value - h
            gradients[name][at] = (above - f()) / (2 * h)
            p[at] = value
    return gradients


SUBCLASSES = [OwnPredict, OwnLoss, OwnTrainingLoss, OwnGradient, OwnLossAndGradient, wrapped(fastnet.TwoLayerNet)]


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_the_numerical_gradient_is_that_of_the_subclass(backend, kind):
    net, (x, t) = net_of(kind), batch_of(9)
    expected = differences(net, lambda: net.training_loss(x, t), 1e-4)
    before = {name: p.copy() for name, p in net.params.items()}
    found = net.numerical_gradient(x, t)
    base = fastnet.TwoLayerNet.numerical_gradient(net_of(fastnet.TwoLayerNet), x, t)
    assert max(abs(found[name] - base[name]).max() for name in base) > 1e-2
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(net.params[name], before[name])
    assert found.diagnostics.loss == net.training_loss(x, t)
    inputs = net.numerical_input_gradient(x, t)
    x[2, 3] += 1e-4
    above = net.training_loss(x, t)
    x[2, 3] -= 2e-4
    assert inputs[2, 3] == pytest.approx((above - net.training_loss(x, t)) / 2e-4, abs=1e-9)
    with pytest.raises(ValueError, match=f"'nodal' computes another loss than {kind.__name__}'s own"):
        net.numerical_gradient(x, t, algorithm="nodal")


def test_loss_and_accuracy_are_of_the_subclass_s_predict(backend, dtype):
    net, (x, t) = net_of(OwnPredict, dtype), batch_of(50)
    y = net.predict(x)
    assert net.loss(x, t) == pytest.approx(fastnet.cross_entropy_error(y, t), rel=1e-6)
    assert net.training_loss(x, t) == net.loss(x, t)
    assert net.accuracy(x, t) == net.accuracy(x, t, 7) == float(np.mean(y.argmax(axis=1) == t))
    assert net.accuracy(x, t) != net_of(fastnet.TwoLayerNet, dtype).accuracy(x, t)


@pytest.mark.parametrize("kind", [OwnPredict, OwnLoss, OwnTrainingLoss, wrapped(fastnet.TwoLayerNet)])
def test_backprop_of_another_function_is_refused(kind):
    net, (x, t) = net_of(kind), batch_of()
    for method in (net.gradient, net.loss_and_gradient, net.input_gradient):
        with pytest.raises(TypeError, match=rf"{kind.__name__} has its own \w+, and backprop would be the gradient of"):
            method(x, t)
    with pytest.raises(TypeError, match=f"net, {kind.__name__}, has its own"):
        fastnet.compare_gradients(net, x, t)
    with pytest.raises(TypeError, match="has its own"):
        fastnet.Trainer(net, x, t, batch_size=5, epochs=1).fit()


@pytest.mark.parametrize("kind", [OwnGradient, OwnLossAndGradient])
def test_a_gradient_of_its_own_is_used_and_checked(backend, kind):
    net, (x, t) = net_of(kind), batch_of(9)
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed
    loss, gradient = net.loss_and_gradient(x, t)
    assert loss == net.loss(x, t)
    for name, array in net.gradient(x, t).items():
        np.testing.assert_array_equal(array, gradient[name])
    base = fastnet.TwoLayerNet.gradient(net_of(fastnet.TwoLayerNet), x, t)
    assert not fastnet.check_gradient(net, base, (x, t)).passed  # that of the base network is wrong here
    trained, by_hand = net_of(kind), net_of(kind)
    fastnet.Trainer(trained, x, t, batch_size=9, iterations=1, optimizer=fastnet.optimizers.SGD(lr=0.1)).fit()
    order = np.random.default_rng((0, 0)).permutation(9)
    for name, array in by_hand.gradient(x[order], t[order]).items():
        np.testing.assert_allclose(trained.params[name], by_hand.params[name] - 0.1 * array, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", [OwnPredict, OwnLoss])
def test_a_subclass_is_trained_by_its_own_differences(backend, kind):
    net, (x, t) = net_of(kind), batch_of()
    before = net.loss(x, t)
    trainer = fastnet.Trainer(net, x, t, batch_size=20, iterations=5, gradient="numerical")
    assert trainer.fit().losses[0] == pytest.approx(before)
    assert net.loss(x, t) < before


def test_a_subclass_with_masks_is_differentiated_with_the_same_masks():
    class Penalised(fastnet.MultiLayerNet):
        def training_loss(self, x, t):
            return super().training_loss(x, t) + 0.5 * float((self.params["W1"] ** 2).sum())

        def gradient(self, x, t):
            gradient = super().gradient(x, t)
            return gradient | {"W1": gradient["W1"] + self.params["W1"]}

    net, (x, t) = Penalised(6, [5, 4], 4, dropout_ratio=0.4, use_batchnorm=True, seed=0), batch_of()
    state = {name: array.copy() for name, array in net.state.items()}
    numerical = net.numerical_gradient(x, t)
    for name, array in net.state.items():
        np.testing.assert_array_equal(array, state[name])
    gradient = net.gradient(x, t)  # the first training pass, as of the numerical gradient
    for name in gradient:
        np.testing.assert_allclose(numerical[name], gradient[name], rtol=0, atol=1e-6)


def test_methods_set_on_an_object_or_a_layer_are_used():
    net, (x, t) = net_of(fastnet.TwoLayerNet), batch_of()
    net.loss = lambda x, t: 7.0
    assert not any(g.any() for g in net.numerical_gradient(x, t).values())
    layers = [fastnet.layers.Affine(np.ones((6, 4)), np.zeros(4)), fastnet.layers.ReLU()]
    layers[1].forward = lambda x: 0 * x
    net = fastnet.Network([layers[0], layers[1], fastnet.layers.Affine(np.eye(4))], fastnet.layers.SoftmaxWithLoss())
    np.testing.assert_allclose(net.predict(x), 0.25)


def test_scores_instead_of_probabilities_are_noticed():
    class Scores(fastnet.MultiLayerNet):
        def predict(self, x):
            return np.log(super().predict(x))

    net, (x, t) = Scores(6, [5], 4, seed=0), batch_of()
    with pytest.raises(ValueError, match=r"predict gave -.*, but the loss is the cross entropy of probabilities: let"):
        net.loss(x, t)
    scores = type("OwnScores", (fastnet.SimpleNet,), {"predict": lambda self, x: 2 * np.asarray(x) @ self.W})(seed=0)
    rows = np.array([[0.6, 0.9], [0.1, 0.3]])
    expected = fastnet.cross_entropy_error(fastnet.softmax(2 * rows @ scores.W), [2, 0])
    assert scores.loss(rows, [2, 0]) == pytest.approx(expected)


def test_some_parameters_alone(backend):
    """As the notes' loop over the keys asks for them."""
    x, t = batch_of(7)
    for net in (net_of(fastnet.TwoLayerNet), fastnet.MultiLayerNet(6, [5], 4, use_batchnorm=True, seed=0)):
        whole = net.numerical_gradient(x, t)
        for algorithm in ("auto", "loop"):
            some = net.numerical_gradient(x, t, algorithm=algorithm, names=("b2", "W1"))
            assert list(some) == ["W1", "b2"]
            for name, array in some.items():
                np.testing.assert_allclose(array, whole[name], rtol=0, atol=1e-9)
        with pytest.raises(ValueError, match=r"names has 'W7': the parameters are 'W1', 'b1'"):
            net.numerical_gradient(x, t, names=["W7"])
        with pytest.raises(TypeError, match=r"names must be a tuple of names, not the string 'W1': write"):
            net.numerical_gradient(x, t, names="W1")
