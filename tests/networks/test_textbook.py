"""The classes that learners use: `SimpleNet` and `TwoLayerNet`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnet
from oracle import sampled_entries

STEP = {"float64": 1e-4, "float32": 1e-2}  # in float32 the notes' 1e-4 drowns in rounding


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((20, 6)), rng.integers(0, 4, 20)


def small_net(dtype="float64", seed=0):
    return fastnet.TwoLayerNet(6, 5, 4, weight_init_std=0.5, dtype=dtype, seed=seed)


def test_parameters_of_a_two_layer_net(dtype):
    net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
    assert {name: p.shape for name, p in net.params.items()} == {
        "W1": (784, 50),
        "b1": (50,),
        "W2": (50, 10),
        "b2": (10,),
    }
    assert all(p.dtype == dtype for p in net.params.values())
    assert not net.params["b1"].any()
    assert not net.params["b2"].any()
    # The sample standard deviation of n normal numbers is within 5 of its own standard errors, 1/sqrt(2n).
    assert net.params["W1"].std() == pytest.approx(0.01, rel=5 / np.sqrt(2 * 784 * 50))
    assert abs(net.params["W1"].mean()) < 5 * 0.01 / np.sqrt(784 * 50)


def test_a_seed_gives_the_same_weights_each_time():
    first, second = small_net(seed=7), small_net(seed=7)
    for name in first.params:
        np.testing.assert_array_equal(first.params[name], second.params[name])
    assert not np.array_equal(first.params["W1"], small_net(seed=8).params["W1"])
    assert not np.array_equal(fastnet.TwoLayerNet(6, 5, 4).params["W1"], fastnet.TwoLayerNet(6, 5, 4).params["W1"])
    np.testing.assert_array_equal(fastnet.SimpleNet(seed=7).W, fastnet.SimpleNet(seed=7).W)
    np.testing.assert_array_equal(small_net("float32", 7).params["W1"], first.params["W1"].astype("float32"))


def test_answers_of_a_two_layer_net(backend, oracle, dtype, batch):
    net, (x, t) = small_net(dtype), batch
    x32 = x.astype(dtype)
    exact = oracle.forward(net._spec(), x32)
    answer = net.predict(x)
    assert answer.dtype == dtype
    exact.assert_holds(answer)
    oracle.loss(net._spec(), x32, t).assert_holds(net.loss(x, t))
    for bounded, (name, gradient) in zip(oracle.gradient(net._spec(), x32, t), net.gradient(x, t).items(), strict=True):
        assert gradient.dtype == dtype
        assert gradient.shape == net.params[name].shape
        bounded.assert_holds(gradient, name)
    h = STEP[dtype]
    numerical = net.numerical_gradient(x, t, h=h, algorithm="loop")
    assert list(numerical) == list(net.params)
    flat = np.concatenate([gradient.ravel() for gradient in numerical.values()])
    for entry in sampled_entries(net._spec()).tolist():
        oracle.central_difference(net._spec(), x32, t, h, entry).assert_holds(flat[entry], f"entry {entry}")


def test_nothing_passed_in_is_modified(backend, dtype, batch):
    net = small_net(dtype)
    x, t = batch[0].astype(dtype), batch[1]
    before = [a.copy() for a in (x, t, *net.params.values())]
    net.predict(x)
    net.loss(x, t)
    net.accuracy(x, t, batch_size=3)
    net.gradient(x, t)
    net.numerical_gradient(x, t)
    for a, copy in zip((x, t, *net.params.values()), before, strict=True):
        np.testing.assert_array_equal(a, copy)


def test_read_only_arrays_will_do(backend, batch):
    net, (x, t) = small_net(), batch
    expected = net.gradient(x, t), net.numerical_gradient(x, t)
    for a in (x, t, *net.params.values()):
        a.flags.writeable = False
    for gradients, wanted in zip((net.gradient(x, t), net.numerical_gradient(x, t)), expected, strict=True):
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(gradient, wanted[name])
            assert gradient.flags.writeable


def test_parameters_changed_in_place_are_seen(backend, batch):
    net, x = small_net(), batch[0]
    before = net.predict(x)
    net.params["W1"][0, 0] += 1
    changed = net.predict(x)
    assert not np.array_equal(changed, before)
    net.params["W1"][0, 0] -= 1
    net.params["b2"] += 5  # the same for all classes: a softmax does not see it, but for rounding
    np.testing.assert_allclose(net.predict(x), before, rtol=1e-13)
    net.params["b2"][1] += 5
    assert (net.predict(x)[:, 1] > before[:, 1]).all()


def test_training_by_hand_lowers_the_loss(backend, batch):
    net, (x, t) = small_net(), batch
    losses = [net.loss(x, t)]
    for _ in range(20):
        for name, gradient in net.numerical_gradient(x, t).items():
            net.params[name] -= 0.5 * gradient
        losses.append(net.loss(x, t))
    assert all(after < before for before, after in itertools.pairwise(losses))


@pytest.mark.parametrize("layout", ["fortran", "strided", "byte-swapped"])
def test_replaced_parameters_of_other_layouts(backend, batch, layout):
    net, (x, t) = small_net(), batch
    expected = net.gradient(x, t), net.numerical_gradient(x, t), net.predict(x)
    for name, p in net.params.items():
        if layout == "fortran":
            net.params[name] = np.asfortranarray(p)
        elif layout == "strided":
            net.params[name] = np.repeat(p, 2, axis=-1)[..., ::2]
        else:
            net.params[name] = p.astype(">f8")
    for name in net.params:
        np.testing.assert_array_equal(net.gradient(x, t)[name], expected[0][name])
        np.testing.assert_array_equal(net.numerical_gradient(x, t)[name], expected[1][name])
        assert net.gradient(x, t)[name].dtype == np.dtype("=f8")
    np.testing.assert_array_equal(net.predict(x), expected[2])


def test_replaced_parameters_of_the_other_dtype(backend, batch):
    net, (x, t) = small_net(), batch
    for name, p in net.params.items():
        net.params[name] = p.astype(np.float32)
    assert net.predict(x).dtype == np.float32
    assert all(g.dtype == np.float32 for g in net.gradient(x, t).values())


def test_a_single_row_is_a_batch_of_one(backend, batch):
    net, (x, t) = small_net(), batch
    row, label = x[3], int(t[3])
    assert net.predict(row).shape == (4,)
    np.testing.assert_array_equal(net.predict(row), net.predict(x[3:4])[0])
    one_hot = np.eye(4)[label]
    for target in (label, np.int64(label), np.array(label), np.array([label])):
        assert net.loss(row, target) == net.loss(x[3:4], [label])
    for target in (one_hot, one_hot.astype(int).tolist(), one_hot[np.newaxis]):
        assert net.loss(row, target) == net.loss(x[3:4], one_hot[np.newaxis])
    np.testing.assert_array_equal(net.gradient(row, label)["W1"], net.gradient(x[3:4], [label])["W1"])
    np.testing.assert_array_equal(
        net.numerical_gradient(row, label)["W1"], net.numerical_gradient(x[3:4], [label])["W1"]
    )
    assert net.accuracy(row, int(net.predict(row).argmax())) == 1


@pytest.mark.parametrize("batch_size", [None, 1, 2, 7, 19, 20, 21, 1000, np.int64(3)])
def test_accuracy(backend, batch, batch_size):
    net, (x, _) = small_net(), batch
    answers = net.predict(x).argmax(axis=1)
    t = np.where(np.arange(20) < 13, answers, (answers + 1) % 4)
    assert net.accuracy(x, t, batch_size) == 13 / 20
    assert net.accuracy(x, np.eye(4)[t], batch_size) == 13 / 20


def test_inputs_of_other_dtypes(backend, batch):
    net, (x, t) = small_net(), batch
    for same in (x.tolist(), np.asfortranarray(x), x.astype(">f8"), x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(net.predict(same), net.predict(x))
    whole = np.rint(x * 3)
    np.testing.assert_array_equal(net.predict(whole.astype(int)), net.predict(whole))
    np.testing.assert_array_equal(net.predict(whole > 0), net.predict((whole > 0).astype(float)))
    assert net.loss(x, t.astype(np.uint8)) == net.loss(x, t.tolist()) == net.loss(x, t)


def test_simple_net(backend, dtype):
    net = fastnet.SimpleNet(dtype=dtype, seed=0)
    assert net.W is net.params["W"]
    assert net.W.shape == (2, 3)
    assert net.W.dtype == dtype
    x, t = np.array([[0.6, 0.9], [-0.3, 0.2]]), np.array([2, 0])
    scores = net.predict(x)  # the scores, not the probabilities
    expected = (x.astype(dtype).astype(np.longdouble) @ net.W.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=3 * np.finfo(dtype).eps * abs(net.W).max())
    assert net.predict(x[0]).shape == (3,)
    probabilities = fastnet.softmax(scores)
    assert net.loss(x, t) == pytest.approx(
        fastnet.cross_entropy_error(probabilities, t), rel=4 * float(np.finfo(dtype).eps)
    )
    replaced = np.zeros((2, 3), dtype)
    net.W = replaced
    assert net.params["W"] is replaced
    np.testing.assert_allclose(net.loss(x, t), -np.log(1 / 3 + 1e-7), rtol=4 * np.finfo(dtype).eps)
    replaced += 1
    assert not np.array_equal(net.predict(x), np.zeros((2, 3)))
    # Softmax gives each class a third: the accuracy is that of the first class.
    assert net.accuracy(x, [0, 1]) == 0.5


def test_numerical_gradient_of_any_function_perturbs_the_network_in_place(backend, batch):
    """The notes' idiom: the function ignores its argument, and reads the parameters where they are."""
    net, (x, t) = small_net(), batch
    by_network = net.numerical_gradient(x, t, algorithm="loop")
    for name, p in net.params.items():
        before = p.copy()
        by_function = fastnet.numerical_gradient(lambda _: net.loss(x, t), p)
        # Both are differences of the same two losses, which may round differently: by 20 units of 2^-53 each.
        np.testing.assert_allclose(by_function, by_network[name], rtol=0, atol=2 * 20 * 2 * 2**-53 / 2e-4)
        np.testing.assert_array_equal(p, before)
