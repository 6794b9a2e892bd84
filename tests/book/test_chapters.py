"""Small programs in the manner of each chapter of the book, with the imports that its programs need."""

from __future__ import annotations

import pickle as python

import numpy as np
import pytest

from fastnet import datasets


def test_chapter_3_a_network_from_a_file(mnist, tmp_path, monkeypatch):
    from fastnet.book import pickle
    from fastnet.book.common.functions import sigmoid, softmax
    from fastnet.book.dataset.mnist import load_mnist

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sizes = [784, 50, 100, 10]
    weights = {f"W{n}": rng.standard_normal(sizes[n - 1 : n + 1]).astype("f4") for n in (1, 2, 3)}
    weights |= {f"b{n}": rng.standard_normal(sizes[n]).astype("f4") for n in (1, 2, 3)}
    with open("sample_weight.pkl", "wb") as file:
        python.dump(weights, file, 3)

    (_, _), (x, t) = load_mnist(normalize=True, flatten=True, one_hot_label=False)
    with open("sample_weight.pkl", "rb") as file:
        network = pickle.load(file)
    z = x
    for n in (1, 2):
        z = sigmoid(np.dot(z, network[f"W{n}"]) + network[f"b{n}"])
    y = softmax(np.dot(z, network["W3"]) + network["b3"])
    assert y.shape == (200, 10)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    one = softmax(np.dot(z[0], network["W3"]) + network["b3"])
    np.testing.assert_allclose(one, y[0], rtol=1e-4)

    hidden = [x.astype(float)]
    for n in (1, 2):
        hidden.append(1 / (1 + np.exp(-(hidden[-1] @ weights[f"W{n}"] + weights[f"b{n}"]))))
    scores = hidden[-1] @ weights["W3"] + weights["b3"]
    assert np.mean(y.argmax(axis=1) == t) == pytest.approx(np.mean(scores.argmax(axis=1) == t), abs=0.01)


def test_chapter_3_images(mnist):
    from fastnet.book.dataset.mnist import img_dim, img_size, load_mnist

    (x, t), (x_test, t_test) = load_mnist(flatten=True, normalize=False)
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((400, img_size), np.uint8, (400,), np.uint8)
    assert (len(x_test), len(t_test)) == (200, 200)
    (x, t), _ = load_mnist(False, False, True)
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((400, *img_dim), np.uint8, (400, 10), np.float64)
    (x, _), _ = load_mnist()
    assert (x.dtype, x.max()) == (np.float32, 1.0)


def test_chapter_4_derivatives_and_descent(plt):
    from fastnet.book.ch04.gradient_1d import function_1, numerical_diff, tangent_line
    from fastnet.book.ch04.gradient_2d import function_2, numerical_gradient
    from fastnet.book.ch04.gradient_method import gradient_descent

    assert numerical_diff(function_1, 5) == pytest.approx(0.2)
    tangent = tangent_line(function_1, 5)
    x = np.arange(0.0, 20.0, 0.1)
    np.testing.assert_allclose(tangent(x), 0.2 * x - 0.25)
    plt.plot(x, tangent(x))
    plt.show()

    grid = np.array([axis.ravel() for axis in np.meshgrid(np.arange(-2, 2.5, 0.5), np.arange(-2, 2.5, 0.5))])
    np.testing.assert_allclose(numerical_gradient(function_2, grid), 2 * grid, atol=1e-9)
    np.testing.assert_allclose(numerical_gradient(function_2, grid[:, 0]), 2 * grid[:, 0], atol=1e-9)
    np.testing.assert_allclose(function_2(grid), (grid**2).sum(axis=1))

    start = np.array([-3.0, 4.0])
    x, history = gradient_descent(lambda x: x[0] ** 2 + x[1] ** 2, start, lr=0.1, step_num=20)
    np.testing.assert_allclose(history, [np.array([-3.0, 4.0]) * 0.8**n for n in range(20)], rtol=1e-7)
    np.testing.assert_allclose(x, np.array([-3.0, 4.0]) * 0.8**20, rtol=1e-7)
    np.testing.assert_array_equal(start, [-3.0, 4.0])


def test_chapter_4_the_smallest_network():
    from fastnet.book.ch04.gradient_simplenet import simpleNet
    from fastnet.book.common.functions import cross_entropy_error, softmax
    from fastnet.book.common.gradient import numerical_gradient

    np.random.seed(0)
    net, x, t = simpleNet(), np.array([0.6, 0.9]), np.array([0, 0, 1])
    np.random.seed(0)
    np.testing.assert_array_equal(net.W, np.random.randn(2, 3))
    np.testing.assert_allclose(net.predict(x), x @ net.W, rtol=1e-14)
    assert net.loss(x, t) == pytest.approx(cross_entropy_error(softmax(x @ net.W), t))
    slopes = numerical_gradient(lambda w: net.loss(x, t), net.W)
    np.testing.assert_allclose(slopes, np.outer(x, softmax(x @ net.W) - t), atol=1e-5)


def train(network, x, t, iterations=150, lr=0.1):
    """The loop of chapters 4 and 5."""
    losses = []
    for _ in range(iterations):
        rows = np.random.choice(len(x), 50)
        gradient = network.gradient(x[rows], t[rows])
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= lr * gradient[key]
        losses.append(network.loss(x[rows], t[rows]))
    return losses


def test_chapter_4_and_5_training(mnist, plt):
    from fastnet.book.ch04.two_layer_net import TwoLayerNet as OfSigmoids
    from fastnet.book.ch05.two_layer_net import TwoLayerNet as OfLayers
    from fastnet.book.dataset.mnist import load_mnist

    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)
    for kind, lr in ((OfSigmoids, 1.0), (OfLayers, 0.3)):
        runs = []
        for _ in range(2):
            np.random.seed(0)
            network = kind(input_size=784, hidden_size=20, output_size=10, weight_init_std=0.05)
            runs.append(train(network, x_train, t_train, lr=lr))
        assert runs[0] == runs[1]  # np.random.seed repeats a run
        assert runs[0][-1] < 0.6 < 2 < runs[0][0]
        assert network.accuracy(x_test, t_test) > 0.75
        plt.plot(runs[0])
        plt.show()


def test_chapter_5_gradient_check(mnist):
    from fastnet.book.ch05.two_layer_net import TwoLayerNet
    from fastnet.book.dataset.mnist import load_mnist

    (x, t), _ = load_mnist(normalize=True, one_hot_label=True)
    np.random.seed(0)
    network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
    numerical, backprop = network.numerical_gradient(x[:3], t[:3]), network.gradient(x[:3], t[:3])
    for key in numerical:
        assert np.average(np.abs(backprop[key] - numerical[key])) < 1e-8


def test_chapter_5_apples_and_oranges():
    from fastnet.book.ch05.layer_naive import AddLayer, MulLayer

    apples, oranges, both, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = tax.forward(both.forward(apples.forward(100, 2), oranges.forward(150, 3)), 1.1)
    assert int(price) == 715
    dboth, dtax = tax.backward(1)
    dapples, doranges = both.backward(dboth)
    np.testing.assert_allclose(
        [*apples.backward(dapples), *oranges.backward(doranges), dtax], [2.2, 110, 3.3, 165, 650]
    )


def test_chapter_6_optimizers_of_two_numbers(plt):
    from fastnet.book.common.optimizer import SGD, AdaGrad, Adam, Momentum

    for optimizer in (SGD(lr=0.95), Momentum(lr=0.1), AdaGrad(lr=1.5), Adam(lr=0.3)):
        params, grads, history = {}, {}, []
        params["x"], params["y"] = -7.0, 2.0
        for _ in range(30):
            history.append((params["x"], params["y"]))
            grads["x"], grads["y"] = params["x"] / 10, 2 * params["y"]
            optimizer.update(params, grads)
        x, y = np.transpose(history)
        assert abs(params["x"]) < 2
        assert abs(params["y"]) < 1
        plt.plot(x, y, "o-")
    plt.show()


def test_chapter_6_networks_and_trainer(mnist, plt, capsys):
    from fastnet.book.common.multi_layer_net import MultiLayerNet
    from fastnet.book.common.multi_layer_net_extend import MultiLayerNetExtend
    from fastnet.book.common.trainer import Trainer
    from fastnet.book.common.util import shuffle_dataset, smooth_curve
    from fastnet.book.dataset.mnist import load_mnist

    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
    x_train, t_train = shuffle_dataset(x_train, t_train)
    np.random.seed(0)
    for network in (
        MultiLayerNet(784, [20, 20], 10, weight_decay_lambda=1e-4),
        MultiLayerNetExtend(784, [20, 20], 10, use_batchnorm=True),
        MultiLayerNetExtend(784, [40], 10, use_dropout=True, dropout_ration=0.2),
    ):
        trainer = Trainer(
            network,
            x_train,
            t_train,
            x_test,
            t_test,
            epochs=6,
            mini_batch_size=40,
            optimizer="Adam",
            optimizer_param={"lr": 0.01},
            evaluate_sample_num_per_epoch=100,
        )
        trainer.train()
        assert len(trainer.train_loss_list) == trainer.max_iter == trainer.current_iter == 60
        assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == trainer.current_epoch == 6
        assert trainer.train_acc_list[-1] == pytest.approx(1, abs=0.1)
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == f"train loss:{trainer.train_loss_list[0]}"
        assert printed[1] == (
            f"=== epoch:1, train acc:{trainer.train_acc_list[0]}, test acc:{trainer.test_acc_list[0]} ==="
        )
        assert printed[-1] == f"test acc:{network.accuracy(x_test, t_test)}"
        assert network.accuracy(x_test, t_test) > 0.75
        plt.plot(smooth_curve(trainer.train_loss_list), marker="o", markevery=2)
    plt.show()


def test_chapter_6_the_trainer_makes_the_steps_of_the_book():
    from fastnet.book.common.multi_layer_net import MultiLayerNet
    from fastnet.book.common.trainer import Trainer

    x, t = datasets.make_digits(45, 0)
    np.random.seed(0)
    net = MultiLayerNet(784, [5], 10)
    trainer = Trainer(net, x, t, x[:9], t[:9], epochs=5, mini_batch_size=10, verbose=False)
    trainer.train()
    np.random.seed(0)
    other, losses, accuracies = MultiLayerNet(784, [5], 10), [], []
    for k in range(22):  # int(5 · 4.5)
        rows = np.random.choice(45, 10)
        for name, d in other.gradient(x[rows], t[rows]).items():
            other.params[name] -= 0.01 * d
        losses.append(other.loss(x[rows], t[rows]))
        if k % 4.5 == 0:
            accuracies.append(other.accuracy(x, t))
    assert trainer.train_loss_list == losses
    assert trainer.train_acc_list == accuracies
    assert len(accuracies) == 3
    with pytest.raises(ValueError, match="optimizer must be one of 'sgd'"):
        Trainer(net, x, t, x, t, optimizer="lbfgs")
    with pytest.raises(ValueError, match="t_test has 9 rows for the 45 rows of x_test"):
        Trainer(net, x, t, x, t[:9])
    with pytest.raises(ValueError, match="mini_batch_size must be at least 1, not 0"):
        Trainer(net, x, t, x, t, mini_batch_size=0)


@pytest.mark.mnist
def test_mnist_itself(mnist_test_set):
    from fastnet.book.ch05.two_layer_net import TwoLayerNet
    from fastnet.book.dataset import mnist

    (x_train, t_train), (x_test, t_test) = mnist.load_mnist(normalize=True, one_hot_label=True)
    assert len(x_train) == mnist.train_num
    assert len(x_test) == mnist.test_num
    np.random.seed(0)
    network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
    losses = train(network, x_train, t_train, iterations=600)
    assert np.mean(losses[-50:]) < 0.45
    assert network.accuracy(x_test, t_test) > 0.87
