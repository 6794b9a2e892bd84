"""`SimpleConvNet` and `DeepConvNet`: their layers, their inputs, and what every network does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnet
from fastnet import DeepConvNet, SimpleConvNet
from fastnet.layers import Affine, Convolution, Dropout, Flatten, MaxPooling, ReLU, Reshape, SoftmaxWithLoss

THREE = {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}
KINDS = ["simple", "deep"]


def small(kind, seed=0, **options):
    """Two channels of 8×9 pixels, and 4 classes."""
    if kind == "simple":
        return SimpleConvNet((2, 8, 9), THREE, 5, 4, "he", seed=seed, **options)
    few = {"filter_num": 2, "filter_size": 2, "pad": 1, "stride": 1}
    return DeepConvNet((2, 8, 9), *[few] * 6, hidden_size=3, output_size=4, seed=seed, **options)


def batch(rows=6, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 2, 8, 9)).astype(dtype), rng.integers(0, 4, rows)


# Their layers ---------------------------------------------------------------------------------------------


def test_the_network_of_chapter_7(dtype):
    net = SimpleConvNet(dtype=dtype, seed=0)
    assert {name: p.shape for name, p in net.params.items()} == {
        "W1": (30, 1, 5, 5),
        "b1": (30,),
        "W2": (4320, 100),
        "b2": (100,),
        "W3": (100, 10),
        "b3": (10,),
    }
    kinds = [Reshape, Convolution, ReLU, MaxPooling, Flatten, Affine, ReLU, Affine]
    assert [type(layer) for layer in net.layers] == kinds
    assert type(net.last_layer) is SoftmaxWithLoss
    assert net.state == {}
    for name, p in net.params.items():
        assert p.dtype == dtype
        if name[0] == "b":
            np.testing.assert_array_equal(p, 0)
        elif p.size > 1000:
            assert p.std() == pytest.approx(0.01, rel=0.1)


def test_the_network_of_chapter_8(dtype):
    net = DeepConvNet(dtype=dtype, seed=0)
    shapes = {name: p.shape for name, p in net.params.items() if name[0] == "W"}
    assert shapes == {
        "W1": (16, 1, 3, 3),
        "W2": (16, 16, 3, 3),
        "W3": (32, 16, 3, 3),
        "W4": (32, 32, 3, 3),
        "W5": (64, 32, 3, 3),
        "W6": (64, 64, 3, 3),
        "W7": (1024, 50),
        "W8": (50, 10),
    }
    twice = [Convolution, ReLU, Convolution, ReLU, MaxPooling]
    kinds = [Reshape, *twice * 3, Flatten, Affine, ReLU, Dropout, Affine, Dropout]
    assert [type(layer) for layer in net.layers] == kinds
    pads = [layer.pad for layer in net.layers if isinstance(layer, Convolution)]
    assert pads == [(1, 1), (1, 1), (1, 1), (2, 2), (1, 1), (1, 1)]
    assert list(net.state) == ["masks1", "masks2"]
    for name, shape in shapes.items():
        inputs = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        assert net.params[name].std() == pytest.approx(np.sqrt(2 / inputs), rel=0.2)
        assert net.params[name].dtype == dtype


@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
@pytest.mark.parametrize("pad", [0, (2, 1)])
@pytest.mark.parametrize("size", [3, (2, 4)])
def test_any_size(size, pad, stride):
    for height, width in itertools.product((7, 10), repeat=2):
        param = {"filter_num": 2, "filter_size": size, "pad": pad, "stride": stride}
        net = SimpleConvNet((3, height, width), param, 4, 5, seed=0)
        assert net(np.ones((2, 3, height, width))).shape == (2, 5)


def test_seeds():
    one, same, other, single = (
        small("deep", seed, dtype=dtype)
        for seed, dtype in [(1, "float64"), (1, "float64"), (2, "float64"), (1, "float32")]
    )
    for name, p in one.params.items():
        np.testing.assert_array_equal(p, same.params[name])
        np.testing.assert_array_equal(p.astype(np.float32), single.params[name])
        assert name[0] == "b" or not np.array_equal(p, other.params[name])
    for name, p in one.state.items():
        np.testing.assert_array_equal(p, same.state[name])
    assert not np.array_equal(one.state["masks1"][:2], one.state["masks2"][:2])


# What every network does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_flat_rows(dtype, kind):
    net, (x, t) = small(kind, dtype=dtype), batch(dtype=dtype)
    flat = x.reshape(6, -1)
    y = net(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(net(flat), y)
    np.testing.assert_array_equal(net(flat[0]), net(flat[:1])[0])
    assert net.loss(flat, t) == net.loss(x, t)
    assert net.loss(flat[0], t[0]) == net.loss(x[:1], t[:1])
    twin = small(kind, dtype=dtype)
    for name, gradient in net.gradient(x, t).items():
        assert gradient.shape == net.params[name].shape
        assert gradient.dtype == dtype
    for left, right in zip(net.gradient(x, t).values(), [*twin.gradient(flat, t).values()], strict=True):
        assert left.shape == right.shape
    assert net.input_gradient(x, t).shape == x.shape
    assert net.input_gradient(flat, t).shape == flat.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_are_the_network(kind):
    net, (x, _) = small(kind), batch()
    y = x
    for layer in net.layers:
        y = layer.forward(y, train_flg=False) if isinstance(layer, Dropout) else layer.forward(y)
    np.testing.assert_allclose(net(x), fastnet.softmax(y), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_the_check(dtype, kind):
    net, (x, t) = small(kind, dtype=dtype), batch(3, dtype)
    assert fastnet.check_gradient(net, net.gradient, (x.reshape(3, -1), t), raise_exception=True).passed


@pytest.mark.parametrize("kind", KINDS)
def test_numerical_gradients_agree(kind):
    net, (x, t) = small(kind), batch(3)
    expected = net.gradient(x, t)
    for name, gradient in net.numerical_gradient(x, t, h=1e-6, names=("W1", "b1", "b3")).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_files(tmp_path, kind):
    (x, t), net, other = batch(), small(kind), small(kind, seed=1)
    net.gradient(x, t)
    net.save_params(tmp_path / "net.npz")
    other.load_params(tmp_path / "net.npz")
    np.testing.assert_array_equal(net(x), other(x))
    for left, right in zip(net.gradient(x, t).values(), other.gradient(x, t).values(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_accuracy_is_in_parts_and_the_same(monkeypatch):
    net, (x, t) = small("simple"), batch(205)
    seen = []
    answers = net._answers
    monkeypatch.setattr(
        net, "_answers", lambda rows, computation: [seen.append(len(rows)), answers(rows, computation)][1]
    )
    assert net.accuracy(x, t) == net.accuracy(x, np.eye(4)[t], batch_size=None) == np.mean(net(x).argmax(axis=1) == t)
    assert seen == [100, 100, 5, 205]


@pytest.mark.parametrize("images", [True, False])
def test_training(images):
    x, t = fastnet.datasets.make_digits(200, seed=0)
    small_images = x.reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5))
    x = small_images if images else small_images.reshape(200, -1)
    net = SimpleConvNet((1, 14, 14), {**THREE, "filter_num": 8}, 20, 10, "he", dtype="float32", seed=0)
    trainer = fastnet.Trainer(net, x, t, optimizer=fastnet.optimizers.Adam(0.01), epochs=20, batch_size=50)
    trainer.fit()
    assert net.accuracy(x, t) > 0.9


# Mistakes -------------------------------------------------------------------------------------------------

V, T = ValueError, TypeError
MISTAKES = [
    (lambda: SimpleConvNet((28, 28)), V, "input_dim must be (channels, height, width), not (28, 28)"),
    (lambda: SimpleConvNet(784), T, "input_dim must be a tuple of integers, not int"),
    (lambda: SimpleConvNet((1, 28, 0)), V, "input_dim[2] must be at least 1, not 0"),
    (lambda: SimpleConvNet((1, 28.0, 28)), T, "input_dim[1] must be an integer, not float"),
    (lambda: SimpleConvNet(conv_param=30), T, "conv_param must be a dict, not int"),
    (lambda: SimpleConvNet(conv_param={"filter_num": 30}), V, "conv_param has no 'filter_size'"),
    (lambda: SimpleConvNet(conv_param={**THREE, "dilation": 1}), V, "conv_param has 'dilation': it must have 'filter_"),
    (lambda: SimpleConvNet(conv_param={**THREE, "filter_num": 0}), V, "conv_param['filter_num'] must be at least 1"),
    (lambda: SimpleConvNet(conv_param={**THREE, "stride": 0}), V, "conv_param['stride'] must be at least 1, not 0"),
    (lambda: SimpleConvNet(conv_param={**THREE, "pad": -1}), V, "conv_param['pad'] must be at least 0, not -1"),
    (lambda: SimpleConvNet(conv_param={**THREE, "filter_size": "5"}), T, "conv_param['filter_size'] must be an int"),
    (
        lambda: SimpleConvNet((1, 4, 28)),
        V,
        "input_dim is too small: a filter of conv_param of 5×5 does not fit into 4×28 with pad (0, 0)",
    ),
    (
        lambda: SimpleConvNet((1, 5, 28)),
        V,
        "input_dim is too small: the pooling of 2×2 does not fit into 1×24 with pad (0, 0)",
    ),
    (lambda: DeepConvNet((1, 3, 3)), V, "input_dim is too small: the pooling of 2×2 does not fit into "),
    (lambda: DeepConvNet(conv_param_4=None), T, "conv_param_4 must be a dict, not NoneType"),
    (lambda: DeepConvNet(hidden_size=0), V, "hidden_size must be at least 1, not 0"),
    (lambda: SimpleConvNet(output_size=1.5), T, "output_size must be an integer, not float"),
    (lambda: SimpleConvNet(weight_init_std=-1), V, "weight_init_std must be at least 0, not -1"),
    (lambda: SimpleConvNet(weight_init_std="lecun"), V, "weight_init_std must be one of 'he', 'xavier', "),
    (lambda: SimpleConvNet(dtype="float16"), V, "dtype must be 'float32' or 'float64', not 'float16'"),
    (lambda: SimpleConvNet(seed=-1), V, "seed must be at least 0, not -1"),
    (lambda: small("simple")(np.ones((2, 143))), V, "x must have shape (batch, 144) or (batch, 2, 8, 9), not (2, 143)"),
    (lambda: small("deep")(np.ones((2, 8, 9))), V, "x must have shape (batch, 144) or (batch, 2, 8, 9), not (2, 8, 9)"),
    (lambda: small("deep")(np.ones((2, 2, 9, 8))), V, "x must have shape (batch, 144) or (batch, 2, 8, 9), not (2, 2,"),
    (lambda: small("simple").loss(batch()[0], [4] * 6), V, "t[0] is 4, which is not a label of 4 classes"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_mistakes(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert message in str(caught.value)
