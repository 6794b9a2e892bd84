"""Networks of layers: fused against the same layers one by one, Dropout and BatchNorm, parameters."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnet
from fastnet.layers import (
    ELU,
    GELU,
    Affine,
    BatchNorm,
    BinaryCrossEntropyWithLogits,
    Dropout,
    HuberLoss,
    IdentityWithLoss,
    L1Loss,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SoftmaxWithLoss,
    Step,
    Tanh,
)
from fastnet.networks.chain import chain_of
from layer_networks import affine, assert_same, batch_of, everything, snapshot

STEP = {"float64": 1e-4, "float32": 1e-2}
NAMES = ("identity", "step", "sigmoid", "tanh", "relu", "leaky_relu", "softplus", "silu", "gelu", "elu")


def is_chain(net):
    return chain_of(net) is not None


@pytest.fixture
def by_layers(monkeypatch):
    """No network is computed by the backend as a whole."""
    monkeypatch.setattr("fastnet.networks.network.is_stage", lambda _: False)


def layer_by_layer(net):
    """The same network, never fused."""
    twin = copy.deepcopy(net)
    twin._chain, twin._staged, twin._mixed = None, False, False
    assert not is_chain(twin)
    return twin


# Fused and layer by layer ---------------------------------------------------------------------------------


def chains(dtype):
    rng = np.random.default_rng(1)
    for kind in (None, Step, Sigmoid, Tanh, ReLU, LeakyReLU):
        for loss in (SoftmaxWithLoss, IdentityWithLoss):
            activation = [kind(0.3) if kind is LeakyReLU else kind()] if kind else []
            last = [] if loss is SoftmaxWithLoss else activation
            stack = [
                affine(rng, 6, 5, dtype),
                *activation,
                affine(rng, 5, 7, dtype, False),
                *map(copy.copy, activation),
            ]
            stack += [affine(rng, 7, 4, dtype), *map(copy.copy, last)]
            yield f"{kind and kind.__name__}, {loss.__name__}", stack, loss()


@pytest.mark.parametrize("decay", [0, 0.5])
def test_fused_and_layer_by_layer_agree(backend, dtype, decay):
    """Losses and gradients, of every activation and both losses."""
    x, t = batch_of()
    for name, stack, loss in chains(dtype):
        fused = fastnet.Network(stack, loss, weight_decay_lambda=decay)
        apart = layer_by_layer(fused)
        assert is_chain(fused), name
        # Sums of at most 20 terms, three layers of them, each of numbers near 1.
        tolerance = 200 * float(np.finfo(dtype).eps)
        for targets in (np.eye(4)[t],) if isinstance(loss, IdentityWithLoss) else (t, np.eye(4)[t]):
            assert apart.predict(x).dtype == dtype
            np.testing.assert_allclose(apart.predict(x), fused.predict(x), rtol=0, atol=tolerance, err_msg=name)
            assert apart.loss(x, targets) == pytest.approx(fused.loss(x, targets), rel=tolerance)
            assert apart.accuracy(x, targets, 7) == fused.accuracy(x, targets)
            losses, gradients = zip(*(net.loss_and_gradient(x, targets) for net in (apart, fused)), strict=True)
            assert losses[0] == pytest.approx(losses[1], rel=tolerance)
            assert list(gradients[0]) == list(gradients[1]) == list(fused.params)
            for key, gradient in gradients[0].items():
                assert gradient.dtype == dtype
                assert gradient.shape == fused.params[key].shape
                np.testing.assert_allclose(gradient, gradients[1][key], rtol=0, atol=tolerance, err_msg=f"{name} {key}")


def test_numerical_gradients_agree(backend, dtype):
    x, t = batch_of(7)
    t = np.eye(4)[t]
    h = STEP[dtype]
    for name, stack, loss in chains(dtype):
        fused = fastnet.Network(stack, loss, weight_decay_lambda=0.5)
        apart = layer_by_layer(fused)
        before = snapshot(apart)
        by_layers, by_loop = apart.numerical_gradient(x, t, h), fused.numerical_gradient(x, t, h, algorithm="loop")
        tolerance = 200 * float(np.finfo(dtype).eps) / h
        for key, gradient in by_layers.items():
            assert gradient.dtype == dtype
            np.testing.assert_allclose(gradient, by_loop[key], rtol=0, atol=tolerance, err_msg=f"{name} {key}")
        assert by_layers.diagnostics.loss == pytest.approx(
            by_loop.diagnostics.loss, rel=200 * float(np.finfo(dtype).eps)
        )
        assert by_layers.diagnostics.evaluations == by_loop.diagnostics.evaluations
        assert_same(apart, before)


def test_what_is_a_chain():
    rng = np.random.default_rng(0)

    def runs_as_chain(*stack, loss=None):
        return is_chain(fastnet.Network(stack, loss or SoftmaxWithLoss()))

    class OwnAffine(Affine):
        pass

    class OwnLoss(SoftmaxWithLoss):
        pass

    one, two = affine(rng, 6, 5), affine(rng, 5, 4)
    assert runs_as_chain(one)
    assert runs_as_chain(one, two, loss=IdentityWithLoss())
    assert runs_as_chain(one, Tanh(), two, Sigmoid())
    assert runs_as_chain(one, LeakyReLU(0.2), two, LeakyReLU(0.2))
    assert runs_as_chain(one, LeakyReLU(0.2), two, LeakyReLU(0.1))
    assert not runs_as_chain(ReLU(), one)
    assert not runs_as_chain(one, ReLU(), Tanh(), two)
    assert not runs_as_chain(one, BatchNorm(np.ones(5), np.zeros(5)), two)
    assert not runs_as_chain(one, Dropout(), two)
    assert not runs_as_chain(ReLU())
    assert not runs_as_chain(OwnAffine(one.W))
    assert not runs_as_chain(one, loss=OwnLoss())
    assert is_chain(fastnet.TwoLayerNet(3, 2, 2))
    for name in NAMES:
        assert is_chain(fastnet.MultiLayerNet(6, [5, 4], 3, activation=name))
    assert not is_chain(everything())


def test_a_chain_has_every_algorithm(backend):
    x, t = batch_of(5)
    net = fastnet.MultiLayerNet(6, [5, 4], 4, activation="leaky_relu", weight_decay_lambda=0.1, seed=0)
    exact = net.gradient(x, t)
    for algorithm in ("auto", *backend.algorithms):
        numerical = net.numerical_gradient(x, t, algorithm=algorithm)
        for name, gradient in exact.items():
            np.testing.assert_allclose(numerical[name], gradient, rtol=0, atol=1e-7)
    assert fastnet.check_gradient(net, net.gradient(x, t), (x, t)).passed


def test_layers_with_different_slopes(backend):
    """They are a chain: each layer has its own slope."""
    rng = np.random.default_rng(0)
    net = fastnet.Network([affine(rng, 6, 5), LeakyReLU(0.5), affine(rng, 5, 4), LeakyReLU(0.1)], IdentityWithLoss())
    assert [layer.constant for layer in chain_of(net).spec.layers] == [0.5, 0.1]
    x, t = batch_of()
    z = x @ net.params["W1"] + net.params["b1"]
    y = np.where(z > 0, z, 0.5 * z) @ net.params["W2"] + net.params["b2"]
    np.testing.assert_allclose(net.predict(x), np.where(y > 0, y, 0.1 * y), rtol=0, atol=1e-14)
    assert fastnet.check_gradient(net, net.gradient, (x, np.eye(4)[t])).passed


@pytest.mark.parametrize(
    "loss", [BinaryCrossEntropyWithLogits(), HuberLoss(0.5), L1Loss()], ids=lambda v: type(v).__name__
)
def test_losses_of_numbers(backend, loss):
    """A chain whose gradients agree, and the same numbers layer by layer."""
    rng = np.random.default_rng(0)
    net = fastnet.Network([affine(rng, 6, 5), ELU(0.5), affine(rng, 5, 4), GELU(), affine(rng, 4, 1)], loss)
    x, t = rng.standard_normal((20, 6)), rng.integers(0, 2, 20)
    assert [layer.constant for layer in chain_of(net).spec.layers] == [0.5, 0.0, 0.0]
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed
    expected = loss.forward(net.predict(x), t)
    assert net.loss(x, t) == pytest.approx(expected, rel=1e-14)
    if isinstance(loss, BinaryCrossEntropyWithLogits):
        for wrong in (t + 1, t - 0.5):
            with pytest.raises(ValueError, match="targets of a binary cross entropy are from 0 to 1"):
                net.gradient(x, wrong)


# Training and inference -----------------------------------------------------------------------------------


def test_batch_norm_infers_after_training_on_shuffled_batches(backend):
    """With the running statistics, inference is close to training on all rows, and learns what training learns."""
    x, t = fastnet.datasets.make_digits(300, seed=0)
    x = x * 3 + 2  # far from mean 0 and variance 1
    net = fastnet.MultiLayerNet(784, [30, 20], 10, use_batchnorm=True, seed=0)
    assert net.accuracy(x, t) < 0.5
    for epoch in range(6):
        order = np.random.default_rng(epoch).permutation(300)
        for rows in np.split(order, 6):
            for name, gradient in net.gradient(x[rows], t[rows]).items():
                net.params[name] -= 0.3 * gradient
    for _ in range(100):  # let the statistics settle on the last parameters
        rows = np.random.default_rng(0).permutation(300)[:100]
        net.training_loss(x[rows], t[rows])
    assert net.accuracy(x, t) > 0.95
    assert net.accuracy(x, t, batch_size=1) == net.accuracy(x, t)
    assert net.loss(x, t) == pytest.approx(net.training_loss(x, t), rel=0.3)


def test_inference_changes_nothing(backend):
    net, (x, t) = everything(), batch_of(classes=3)
    net.gradient(x, t)
    before = snapshot(net)
    expected = net.predict(x)
    for row, answer in zip(x, expected, strict=True):  # no row depends on its batch
        np.testing.assert_allclose(net.predict(row), answer, rtol=1e-13)
    net.loss(x, t)
    net.accuracy(x, t, 3)
    np.testing.assert_array_equal(net.predict(x), expected)
    assert_same(net, before)


def test_gradients_pass_the_check(backend):
    """BatchNorm, Dropout and weight decay together: the check sees the masks of the gradient that it is given."""
    net, (x, t) = everything(), batch_of(classes=3)
    for _ in range(2):
        check = fastnet.check_gradient(net, net.gradient(x, t), (x, t))
        assert check.passed, str(check)
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed
    # That of other masks is none.
    grads = net.gradient(x, t)
    net.gradient(x, t)
    assert not fastnet.check_gradient(net, grads, (x, t)).passed
    grads = net.gradient(x, t)
    grads["gamma1"][2] *= 1.01
    check = fastnet.check_gradient(net, grads, (x, t))
    assert (check.failed, check.worst[0].label) == (1, "gamma1[2]")


def test_gradients_in_float32_pass_the_check(backend):
    net = fastnet.MultiLayerNet(
        6,
        [5, 4],
        3,
        activation="tanh",
        weight_decay_lambda=0.1,
        use_batchnorm=True,
        dropout_ratio=0.3,
        dtype="float32",
        seed=0,
    )
    x, t = batch_of(classes=3)
    check = fastnet.check_gradient(net, net.gradient(x, t), (x, t))
    assert check.passed, str(check)
    assert all(g.dtype == np.float32 for g in net.gradient(x, t).values())


def test_the_numerical_gradient_repeats_the_last_pass():
    net, (x, t) = everything(), batch_of(classes=3)
    following = copy.deepcopy(net)
    base = net.numerical_gradient(x, t).diagnostics.loss  # of the pass to come
    before = snapshot(net)
    loss, _ = net.loss_and_gradient(x, t)
    assert loss == base == following.training_loss(x, t)
    assert not np.array_equal(net.state["masks1"], before["masks1"])
    assert not np.array_equal(net.state["running_mean2"], before["running_mean2"])
    before = snapshot(net)
    for _ in range(2):
        assert net.numerical_gradient(x, t).diagnostics.loss == loss
        net.loss(x, t)
        net.numerical_gradient(x[:5], t[:5])  # with as many rows of the masks
    assert_same(net, before)
    assert net.training_loss(x, t) != loss
    # A state from elsewhere: from there.
    net.state.update({name: before[name].copy() for name in net.state})
    assert net.numerical_gradient(x, t).diagnostics.loss == following.training_loss(x, t)


def test_each_pass_in_training_draws_new_masks():
    net, (x, t) = everything(), batch_of(classes=3)
    losses = {net.training_loss(x, t) for _ in range(10)}
    assert len(losses) == 10
    assert len({net.loss(x, t) for _ in range(3)}) == 1
    assert net.state["masks1"][2] == 10


def test_training_losses_of_a_chain(backend):
    net, (x, t) = fastnet.TwoLayerNet(6, 5, 4, seed=0), batch_of()
    assert net.training_loss(x, t) == net.loss(x, t) == net.loss_and_gradient(x, t)[0]
    assert net.state == {}


@pytest.mark.parametrize("make", [everything, lambda: fastnet.MultiLayerNet(6, [5], 3, seed=0)])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_go_on_alike(make, clone):
    net, (x, t) = make(), batch_of(classes=3)
    net.gradient(x, t)
    twin = clone(net)
    assert net.numerical_gradient(x, t)["W1"].tobytes() == twin.numerical_gradient(x, t)["W1"].tobytes()
    for _ in range(2):
        again = twin.gradient(x, t)
        for name, gradient in net.gradient(x, t).items():
            np.testing.assert_array_equal(gradient, again[name])
    twin.params["W1"] += 1
    assert not np.array_equal(twin.params["W1"], net.params["W1"])


# Parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batchnorm", [False, True])
def test_parameters_changed_or_replaced_are_seen(backend, batchnorm):
    net, (x, t) = fastnet.MultiLayerNet(6, [5], 3, use_batchnorm=batchnorm, seed=0), batch_of(classes=3)
    before = net.predict(x), net.gradient(x, t)
    net.params["W1"][0, 0] += 1
    assert not np.array_equal(net.predict(x), before[0])
    net.params["W1"] = 2 * net.params["W1"]
    net.params["b2"] = np.array([9.0, 0, 0])
    assert (net.predict(x).argmax(axis=1) == 0).all()
    assert not np.array_equal(net.gradient(x, t)["W2"], before[1]["W2"])
    assert net.layers[0].W is net.params["W1"]
    assert net.layers[-1].b is net.params["b2"]
    net.params = {name: p.astype(np.float32) for name, p in net.params.items()}
    assert net.predict(x).dtype == np.float32
    assert all(g.dtype == np.float32 for g in net.gradient(x, t).values())
    assert all(g.dtype == np.float32 for g in net.numerical_gradient(x, t, 1e-2).values())


def test_the_arrays_of_the_layers_are_the_parameters(by_layers):
    first, last = affine(np.random.default_rng(0), 6, 5), affine(np.random.default_rng(1), 5, 3)
    norm = BatchNorm(np.ones(5), np.zeros(5))
    net = fastnet.Network([first, norm, last], SoftmaxWithLoss())
    assert net.params["W2"] is last.W
    assert net.state["running_mean1"] is norm.running_mean
    x, t = batch_of(classes=3)
    grads = net.gradient(x, t)
    assert grads["gamma1"] is norm.dgamma
    assert net.state["running_mean1"] is norm.running_mean
    net.numerical_gradient(x, t)
    assert net.params["W1"] is first.W
    assert net.state["running_var1"] is norm.running_var


@pytest.mark.parametrize("layout", ["fortran", "strided", "byte-swapped", "read-only"])
def test_parameters_of_other_layouts(backend, layout):
    net, (x, t) = everything(), batch_of(classes=3)
    twin = copy.deepcopy(net)
    for name, p in net.params.items():
        p = np.asfortranarray(p) if layout == "fortran" else p.copy()
        p = np.repeat(p, 2, axis=-1)[..., ::2] if layout == "strided" else p
        net.params[name] = p.astype(">f8") if layout == "byte-swapped" else p
        net.params[name].flags.writeable = layout != "read-only"
    expected, found = ((n.gradient(x, t), n.numerical_gradient(x, t)) for n in (twin, net))
    for left, right in zip(expected, found, strict=True):
        for name, gradient in right.items():
            assert gradient.dtype == np.dtype("=f8")
            np.testing.assert_array_equal(gradient, left[name])


def test_a_single_row_is_a_batch_of_one(backend):
    net, (x, t) = everything(), batch_of(classes=3)
    net.gradient(x, t)
    np.testing.assert_array_equal(net.predict(x[3]), net.predict(x[3:4])[0])
    for target in (int(t[3]), np.eye(3)[t[3]], [int(t[3])]):
        assert net.loss(x[3], target) == net.loss(x[3:4], t[3:4])
        twin = copy.deepcopy(net)
        assert twin.loss_and_gradient(x[3], target)[0] == copy.deepcopy(net).training_loss(x[3:4], t[3:4])


def test_a_network_may_have_no_parameters():
    net = fastnet.Network([Tanh()], SoftmaxWithLoss())
    np.testing.assert_allclose(net.predict([0.0, 0.0]), [0.5, 0.5])
    assert net.gradient([0.0, 0.0], 1) == {}


# What only chains have ------------------------------------------------------------------------------------


def test_comparisons_take_chains_of_layers(backend):
    net, (x, t) = (
        fastnet.MultiLayerNet(6, [5, 4], 4, activation="sigmoid", weight_decay_lambda=0.1, seed=0),
        batch_of(5),
    )
    comparison = fastnet.compare_gradients(net, x, t, methods=["numpy loop", "incremental", "backprop"], repeat=1)
    assert comparison.network == "6-5-4-4"
    assert all(row.check is None or row.check.passed for row in comparison.rows)
    assert len(fastnet.compare_steps(net, x, t, steps=[1e-3], sample=5).rows) == 1


@pytest.mark.parametrize("compare", [fastnet.compare_gradients, fastnet.compare_steps])
def test_comparisons_refuse_other_networks(compare, by_layers):
    net, (x, t) = everything(), batch_of(classes=3)
    message = "^the .* backend does not compute net as a whole, .*: check_gradient checks every network$"
    with pytest.raises(TypeError, match=message):
        compare(net, x, t)
    with pytest.raises(TypeError, match="net must be a network of fastnet, as TwoLayerNet is, not function"):
        compare(batch_of, x, t)


def test_algorithms_of_other_networks(backend, by_layers):
    net, (x, t) = everything(), batch_of(3, classes=3)
    same = [net.numerical_gradient(x, t, algorithm=algorithm)["W1"] for algorithm in ("auto", "loop")]
    np.testing.assert_array_equal(*same)
    for algorithm in ("nodal", "incremental"):
        message = f"^algorithm '{algorithm}' is for layers and losses that the backend knows: .* by 'loop'$"
        with pytest.raises(ValueError, match=message):
            net.numerical_gradient(x, t, algorithm=algorithm)
    with pytest.raises(ValueError, match="algorithm must be one of 'auto', 'nodal', 'incremental', 'loop', not 'x'"):
        net.numerical_gradient(x, t, algorithm="x")


def test_the_numerical_gradient_starts_at_the_layer_of_the_parameter(dtype):
    """The same bits as from whole passes, also with masks, running statistics and layers that change their input."""
    passes = []

    class InPlace(Layer):
        def forward(self, x):
            passes.append(len(x))
            x *= 1.25
            return x

        def backward(self, dout):
            return 1.25 * dout

    rng = np.random.default_rng(0)
    stack = [affine(rng, 6, 5, dtype), BatchNorm(np.ones(5, dtype), np.zeros(5, dtype)), Tanh(), InPlace()]
    stack += [Dropout(0.3, seed=0), affine(rng, 5, 4, dtype), InPlace(), affine(rng, 4, 3, dtype)]
    net = fastnet.Network(stack, SoftmaxWithLoss(), 0.1)
    net._mixed = False  # Whole passes would be of other runs of layers, with other rounding.
    x, t = batch_of(classes=3)
    x = x.astype(dtype)
    net.gradient(x, t)
    before, rows = snapshot(net), x.copy()
    passes.clear()
    found = net.numerical_gradient(x, t, STEP[dtype])
    assert len(passes) < 3 + 4 * sum(p.size for p in net.params.values())
    np.testing.assert_array_equal(x, rows)
    assert_same(net, before)

    start, h = net._last_pass.start(net.state), np.dtype(dtype).type(STEP[dtype])
    for name, parameter in net.params.items():
        for at in np.ndindex(parameter.shape):
            losses = []
            for step in (h, -h):
                twin = copy.deepcopy(net)
                twin.state.update({key: array.copy() for key, array in start.items()})
                twin.params[name][at] += step
                losses.append(twin.training_loss(x, t))
            assert found[name][at] == np.dtype(dtype).type((losses[0] - losses[1]) / (2 * STEP[dtype]))
