"""Which algorithm computes which parameter, by what stages couple; and where they may meet a kink."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet.backends.spec import Activation, Couples, Loss, NetworkSpec, Output, StageKind, Windows
from fastnet.layers import BatchNorm, Convolution, Dropout, Flatten, IdentityWithLoss, ReLU, SoftmaxWithLoss, Tanh
from layer_networks import affine as affine_layer
from stages import activation, affine, batch_norm, convolution, dropout, pooling

RNG = np.random.default_rng(0)
IMAGE = Windows(2, 3, 3, 2, 2)


def test_what_stages_couple():
    units, positions, rows, nothing = Couples.UNITS, Couples.POSITIONS, Couples.ROWS, Couples.NOTHING
    for stage, coupled in (
        (affine(RNG, 3, 2), units),
        (activation(3), nothing),
        (dropout(3), nothing),
        (batch_norm(RNG, 4), rows),
        (batch_norm(RNG, 8, 4), rows | positions),
        (convolution(RNG, IMAGE, 2), units | positions),
        (pooling(StageKind.MAX_POOLING, IMAGE), positions),
        (pooling(StageKind.AVERAGE_POOLING, IMAGE), positions),
    ):
        assert stage.couples == coupled, stage.kind


def test_which_stages_may_meet_a_kink():
    kinked = [
        *(activation(3, kind) for kind in (Activation.STEP, Activation.RELU, Activation.LEAKY_RELU)),
        activation(3, Activation.ELU, 0.5),
        pooling(StageKind.MAX_POOLING, IMAGE),
    ]
    smooth = [
        *(activation(3, kind) for kind in (Activation.TANH, Activation.GELU, Activation.SOFTPLUS)),
        activation(3, Activation.ELU, 1.0),  # only its second derivative jumps
        pooling(StageKind.AVERAGE_POOLING, IMAGE),
        affine(RNG, 3, 3),
        batch_norm(RNG, 3),
        dropout(3),
    ]
    for stages, expected in ((kinked, True), (smooth, False)):
        for stage in stages:
            assert stage.may_meet_kink is expected, stage
            assert NetworkSpec((stage,)).may_meet_kink is expected
    for loss in Loss:
        spec = NetworkSpec((affine(RNG, 3, 3),), Output.IDENTITY, loss)
        assert spec.may_meet_kink is (loss == Loss.ABSOLUTE_ERROR)


def test_every_backend_counts_the_kinks_of_the_absolute_error():
    """In a network of stages as in a chain. The slope of the Huber loss does not jump, so it has none."""
    stages = affine(RNG, 6, 8), activation(8), dropout(8), affine(RNG, 8, 3)
    x, t = RNG.standard_normal((6, 6)), RNG.standard_normal((6, 3))
    for loss, some in ((Loss.ABSOLUTE_ERROR, True), (Loss.HUBER, False)):
        spec = NetworkSpec(stages, Output.IDENTITY, loss, loss_constant=0.1)
        found = [backends.get(name).incremental(spec, x, t, 0.3)[1] for name in backends.available()]
        assert (found[0].kinks > 0) is some
        for other in found[1:]:
            assert other.kinks == found[0].kinks
            np.testing.assert_equal(other.kinked, found[0].kinked)


def norm(units):
    return BatchNorm(np.ones(units), np.zeros(units))


NETWORKS = {  # and the parameters whose moves `nodal` interpolates
    "dropout": (
        lambda: [affine_layer(RNG, 5, 4), Tanh(), Dropout(0.3, seed=0), affine_layer(RNG, 4, 3)],
        "W1 b1 W2 b2",
    ),
    "norm": (lambda: [affine_layer(RNG, 5, 4), norm(4), Tanh(), affine_layer(RNG, 4, 3)], "W1 b1 W2 b2"),
    "two norms": (
        lambda: [affine_layer(RNG, 5, 4), norm(4), affine_layer(RNG, 4, 4), norm(4), affine_layer(RNG, 4, 3)],
        "W2 b2 W3 b3",
    ),
    "norm first": (lambda: [norm(5), affine_layer(RNG, 5, 3)], "W1 b1"),
    "norm last": (lambda: [affine_layer(RNG, 5, 3), ReLU(), norm(3)], ""),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_takes_what_serves_each_parameter(backend, name):
    make, known = NETWORKS[name]
    net, x, t = fastnet.Network(make(), SoftmaxWithLoss()), RNG.standard_normal((6, 5)), np.arange(6) % 3
    found = net.numerical_gradient(x, t, 1e-7)
    nodal = "nodal" in backend.algorithms
    expected = {p: "nodal" if nodal and p in known.split() else "incremental" for p in net.params}
    assert found.algorithms == expected
    evaluations = net.numerical_gradient(x, t, 1e-7, algorithm="incremental").diagnostics.evaluations
    assert (found.diagnostics.evaluations == evaluations) is (not nodal or not known)
    exact = net.gradient(x, t)
    assert max(np.abs(found[p] - exact[p]).max() for p in exact) < 1e-11


def test_auto_of_a_convolution(backend):
    layers = [Convolution(RNG.standard_normal((2, 1, 2, 2)) / 2), Tanh(), Flatten(), affine_layer(RNG, 8, 3)]
    net = fastnet.Network(layers, SoftmaxWithLoss())
    x, t = RNG.standard_normal((4, 1, 3, 3)), np.arange(4) % 3
    best = backend.algorithms[0]
    assert net.numerical_gradient(x, t).algorithms == {"W1": "incremental", "W2": best, "b2": best}
    assert net.numerical_gradient(x, t, algorithm="loop", names=["W2"]).algorithms == {"W2": "loop"}


# Infinite inputs ------------------------------------------------------------------------------------------------------

INPUTS = {
    "chain": lambda: [affine_layer(RNG, 4, 3), Tanh(), affine_layer(RNG, 3, 2)],
    "dropout": lambda: [affine_layer(RNG, 4, 3), Tanh(), Dropout(0.4, seed=0), affine_layer(RNG, 3, 2)],
    "activation first": lambda: [Tanh(), affine_layer(RNG, 4, 3), Dropout(0.4, seed=0), affine_layer(RNG, 3, 2)],
    "rows that are coupled": lambda: [Tanh(), affine_layer(RNG, 4, 3), norm(3), affine_layer(RNG, 3, 2)],
    "no finite loss": lambda: [affine_layer(RNG, 4, 3), ReLU(), affine_layer(RNG, 3, 2)],
}


@pytest.mark.parametrize("name", INPUTS)
def test_infinite_inputs_have_the_differences_of_the_plain_loop(backend, name):
    """A step does not move an infinite input, and the other rows know nothing of it."""
    net = fastnet.Network(INPUTS[name](), IdentityWithLoss())
    x, t = RNG.standard_normal((5, 4)), RNG.standard_normal((5, 2))
    x[1, 2], x[3, 0] = np.inf, -np.inf
    before = dict(net.state)
    with np.errstate(all="ignore"):
        loss = net.training_loss(x, t)
        net.state.update(before)
        backprop = net.input_gradient(x, t)
        plain = np.empty_like(x)
        for at in np.ndindex(x.shape):
            moved, losses = x.copy(), []
            for step in (1e-4, -1e-4):
                moved[at] = x[at] + step
                net.state.update(before)
                losses.append(net.training_loss(moved, t))
            plain[at] = (losses[0] - losses[1]) / 2e-4
        net.state.update(before)
        found = [net.numerical_input_gradient(x, t, 1e-4, algorithm=a) for a in ("auto", *backend.algorithms)]
    assert np.isfinite(loss) == np.isfinite(plain).all() == (name != "no finite loss")
    for each in found:
        np.testing.assert_allclose(each, plain, rtol=0, atol=1e-8)  # the truncations differ
    if np.isfinite(loss):
        np.testing.assert_allclose(backprop, plain, rtol=0, atol=1e-6)
        assert plain[1, 2] == plain[3, 0] == 0


def test_an_infinite_parameter_without_weight_decay(backend):
    """The plain loop of a stage does not multiply it by a weight decay of 0."""
    net = fastnet.Network(INPUTS["dropout"](), IdentityWithLoss())
    net.params["W1"][0, 1] = np.inf
    x, t = np.abs(RNG.standard_normal((5, 4))), RNG.standard_normal((5, 2))
    for algorithm in backend.algorithms:
        assert net.numerical_gradient(x, t, algorithm=algorithm)["W1"][0, 1] == 0, algorithm


def test_rows_of_a_large_batch_keep_their_masks(backend):
    """Rows go through some at a time, each with the mask of its place in the batch."""
    net = fastnet.Network(INPUTS["dropout"](), IdentityWithLoss())
    x, t = RNG.standard_normal((140, 4)), RNG.standard_normal((140, 2))
    exact = net.input_gradient(x, t)
    for algorithm in ("auto", "incremental"):
        found = net.numerical_input_gradient(x, t, 1e-7, algorithm=algorithm)
        assert np.abs(found - exact).max() < 1e-13
