"""Convolutions: layers, helpers and networks of chapters 7 and 8, and small programs in their manner."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fastnet.book.ch07.simple_convnet import SimpleConvNet
from fastnet.book.ch08.deep_convnet import DeepConvNet
from fastnet.book.common import gradient, layers, util
from fastnet.book.common.layers import Affine, Dropout

RNG = np.random.default_rng(0)
IMAGES, T = RNG.random((5, 1, 8, 8)), np.arange(5) % 3
SMALL = {"filter_num": 2, "filter_size": 3, "pad": 0, "stride": 1}


def convolve(x, W, b, stride, pad):
    """The sum over each window, one by one."""
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    rows, columns = ((n - size) // stride + 1 for n, size in zip(x.shape[2:], W.shape[2:], strict=True))
    y = np.empty((len(x), len(W), rows, columns))
    for i, j in np.ndindex(rows, columns):
        window = x[:, :, i * stride : i * stride + W.shape[2], j * stride : j * stride + W.shape[3]]
        y[:, :, i, j] = np.einsum("nckl,fckl->nf", window, W) + b
    return y


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), (3, 2)])
def test_convolution(stride, pad):
    x, W, b = RNG.standard_normal((2, 3, 7, 6)), RNG.standard_normal((4, 3, 3, 2)), RNG.standard_normal(4)
    convolution, expected = layers.Convolution(W, b, stride, pad), convolve(x, W, b, stride, pad)
    assert convolution.x is None
    np.testing.assert_allclose(convolution.forward(x), expected, rtol=1e-10, atol=1e-12)
    d = RNG.standard_normal(expected.shape)
    dx = convolution.backward(d)
    np.testing.assert_array_equal(convolution.x, x)
    for array, found in ((x, dx), (W, convolution.dW), (b, convolution.db)):
        slopes = gradient.numerical_gradient(lambda _: np.sum(d * convolve(x, W, b, stride, pad)), array)
        np.testing.assert_allclose(found, slopes, atol=1e-8)


def test_one_bias_for_all_filters():
    """As in chapter 7, where a filter is shown on a picture of float32."""
    x, W = RNG.random((1, 1, 6, 6), np.float32), RNG.standard_normal((1, 1, 5, 5))
    np.testing.assert_allclose(layers.Convolution(W, 0).forward(x), convolve(x, W, 0, 1, 0), rtol=1e-6)
    assert layers.Convolution(W, 0.5).b.tolist() == [0.5]


def test_pooling():
    x = RNG.standard_normal((2, 3, 5, 4))
    pooling = layers.Pooling(pool_h=2, pool_w=2, stride=2)
    expected = np.array([[x[n, c, :4].reshape(2, 2, 2, 2).max(axis=(1, 3)) for c in range(3)] for n in range(2)])
    np.testing.assert_array_equal(pooling.forward(x), expected)
    d = RNG.standard_normal(expected.shape)
    dx = pooling.backward(d)
    at = dx != 0
    assert at.sum() == d.size
    np.testing.assert_array_equal(np.sort(x[at]), np.sort(expected.ravel()))
    assert dx.sum() == pytest.approx(d.sum())


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1)])
def test_im2col_and_col2im(stride, pad):
    x, W = RNG.standard_normal((2, 3, 7, 6)), RNG.standard_normal((4, 3, 3, 2))
    col = util.im2col(x, 3, 2, stride, pad)
    y = convolve(x, W, 0, stride, pad)
    np.testing.assert_allclose(col @ W.reshape(4, -1).T, y.transpose(0, 2, 3, 1).reshape(-1, 4), atol=1e-12)
    other = RNG.standard_normal(col.shape)
    assert np.sum(other * col) == pytest.approx(np.sum(x * util.col2im(other, x.shape, 3, 2, stride, pad)))
    assert util.conv_output_size(7, 3, stride, pad) == y.shape[2]
    with pytest.raises(ValueError, match="col must have shape"):
        util.col2im(other[1:], x.shape, 3, 2, stride, pad)
    with pytest.raises(ValueError, match="does not fit"):
        util.im2col(x, 30, 2)


# Networks -----------------------------------------------------------------------------------------------


def make():
    np.random.seed(0)
    return SimpleConvNet((1, 8, 8), SMALL, hidden_size=5, output_size=3, weight_init_std=0.5), IMAGES, T


def largest(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


def test_simple_convnet_as_a_whole_and_layer_by_layer():
    net, x, t = make()
    other, _, _ = make()
    assert list(net.layers) == ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]
    other.layers["Affine2"] = Affine(other.layers["Affine2"].W, other.layers["Affine2"].b)
    assert net._fitting() is not None
    assert other._fitting() is None
    gradient, numerical = net.gradient(x, t), net.numerical_gradient(x, t)
    assert largest(gradient, numerical) < 1e-7
    assert net.layers["Conv1"].dW is gradient["W1"]
    assert largest(gradient, other.gradient(x, t)) < 1e-12
    assert largest(numerical, other.numerical_gradient(x, t)) < 1e-8
    y = x
    for layer in net.layers.values():
        y = layer.forward(y)
    for one in (net, other):
        np.testing.assert_allclose(one.predict(x), y, rtol=1e-12)
        assert one.loss(x, t) == pytest.approx(one.last_layer.forward(y, t), rel=1e-12)
        assert one.accuracy(x, t) == np.mean(y.argmax(axis=1) == t)


def test_weights_are_those_of_the_book_for_the_same_seed():
    np.random.seed(3)
    first = np.random.randn(30, 1, 5, 5)
    np.random.seed(3)
    net = SimpleConvNet()
    np.testing.assert_allclose(net.params["W1"], 0.01 * first)
    assert net.params["W2"].shape == (4320, 100)
    np.random.seed(3)
    np.testing.assert_allclose(DeepConvNet().params["W1"], np.sqrt(2 / 9) * np.random.RandomState(3).randn(16, 1, 3, 3))


def test_deep_convnet_of_small_images():
    small = {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 1}
    np.random.seed(0)
    net = DeepConvNet((1, 8, 8), *[small] * 6, hidden_size=4, output_size=3)
    assert [type(layer).__name__ for layer in net.layers] == [
        *(["Convolution", "Relu", "Convolution", "Relu", "Pooling"] * 3),
        *["Affine", "Relu", "Dropout", "Affine", "Dropout"],
    ]
    for number in range(1, 9):  # away from the kinks at 0
        net.params[f"b{number}"] += 0.1 * np.random.randn(net.params[f"b{number}"].size)
    x, t = IMAGES, T
    numerical = net.numerical_gradient(x, t)
    assert largest(net.gradient(x, t), numerical) < 1e-6
    y = x
    for layer in net.layers:
        y = layer.forward(y, False) if isinstance(layer, Dropout) else layer.forward(y)
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-12)
    assert net.accuracy(x, t) == net.accuracy(x, t, batch_size=2) == np.mean(y.argmax(axis=1) == t)
    np.random.seed(1)
    loss = net.loss(x, t)
    np.random.seed(1)
    assert loss == net.loss(x, t)
    assert loss != net.loss(x, t)  # new masks
    np.random.seed(1)
    whole = net.gradient(x, t)
    net.layers[-2] = Affine(net.layers[-2].W, net.layers[-2].b)
    assert net._fitting() is None
    np.random.seed(1)
    assert largest(whole, net.gradient(x, t)) < 1e-12


def test_deep_convnet_has_the_shapes_of_the_book():
    shapes = {name: array.shape for name, array in DeepConvNet().params.items() if name[0] == "W"}
    filters = [(16, 1), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64)]
    assert list(shapes.values()) == [*((*pair, 3, 3) for pair in filters), (1024, 50), (50, 10)]


def test_half_precision():
    """As in chapter 8: images of float16, and parameters rounded to float16."""
    net, x, t = make()
    before = net.predict(x)
    for param in net.params.values():
        param[...] = param.astype(np.float16)
    np.testing.assert_allclose(net.predict(x.astype(np.float16)), before, atol=2e-2)
    assert net.accuracy(x.astype(np.float16), t) in {n / 5 for n in range(6)}


def test_a_batch_that_the_size_does_not_divide_counts_as_well():
    net, x, _ = make()
    assert net.accuracy(x, net.predict(x).argmax(axis=1), batch_size=2) == 1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SimpleConvNet((28, 28)), ValueError, r"input_dim must be \(channels, height, width\)"),
        (lambda: SimpleConvNet((1, 5, 5)), ValueError, "too small"),
        (lambda: SimpleConvNet(conv_param={"filter_num": 3}), ValueError, "conv_param must be a dict with"),
        (lambda: SimpleConvNet(conv_param={**SMALL, "stride": 0}), ValueError, r"conv_param\['stride'\]"),
        (lambda: DeepConvNet((1, 1, 1)), ValueError, "nothing is left after conv_param_2"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Programs -------------------------------------------------------------------------------------------------


def test_chapter_7_training_files_and_filters(mnist, plt, tmp_path, monkeypatch):
    from fastnet.book.common.trainer import Trainer
    from fastnet.book.dataset.mnist import load_mnist

    monkeypatch.chdir(tmp_path)
    (x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)
    np.random.seed(0)
    settings = {"filter_num": 4, "filter_size": 5, "pad": 0, "stride": 1}
    network = SimpleConvNet(input_dim=(1, 28, 28), conv_param=settings, hidden_size=20, weight_init_std=0.05)
    trainer = Trainer(
        network,
        x_train,
        t_train,
        x_test,
        t_test,
        epochs=8,
        mini_batch_size=50,
        optimizer="Adam",
        optimizer_param={"lr": 0.01},
        evaluate_sample_num_per_epoch=100,
        verbose=False,
    )
    trainer.train()
    assert trainer.train_loss_list[-1] < 0.5 * trainer.train_loss_list[0]
    accuracy = network.accuracy(x_test, t_test)
    assert accuracy > 0.7
    network.save_params("params.pkl")
    assert os.listdir() == ["params.pkl"]

    other = SimpleConvNet(input_dim=(1, 28, 28), conv_param=settings, hidden_size=20)
    other.load_params("params.pkl")
    assert other.accuracy(x_test, t_test) == accuracy
    image = x_test[:1]
    for filters in other.params["W1"]:
        shown = layers.Convolution(filters[np.newaxis], 0).forward(image)
        assert shown.shape == (1, 1, 24, 24)
        plt.imshow(shown[0, 0], cmap=plt.cm.gray_r, interpolation="nearest")
    plt.show()


def test_chapter_7_gradient_check():

    settings = {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}
    np.random.seed(0)
    network = SimpleConvNet((1, 10, 10), settings, hidden_size=5, output_size=10, weight_init_std=0.01)
    x, t = np.random.rand(100).reshape((1, 1, 10, 10)), np.array([1]).reshape((1, 1))
    numerical, backprop = network.numerical_gradient(x, t), network.gradient(x, t)
    for key in numerical:
        assert np.abs(numerical[key] - backprop[key]).mean() < 1e-6


def test_chapter_8_half_precision_and_misclassified_images(mnist, tmp_path, monkeypatch):
    from fastnet.book.dataset.mnist import load_mnist

    monkeypatch.chdir(tmp_path)
    np.random.seed(0)
    DeepConvNet().save_params("deep_convnet_params.pkl")
    network = DeepConvNet()
    network.load_params("deep_convnet_params.pkl")
    _, (x, t) = load_mnist(flatten=False)
    x, t = x[:40], t[:40]
    y = np.concatenate([network.predict(x[n : n + 20], train_flg=False).argmax(axis=1) for n in (0, 20)])
    assert np.mean(y == t) == network.accuracy(x, t)
    for param in network.params.values():
        param[...] = param.astype(np.float16)
    half = network.accuracy(x.astype(np.float16), t)
    assert half == pytest.approx(np.mean(y == t), abs=0.1)
