"""Networks of stages: numerical gradients against the loop, and training against PyTorch."""

from __future__ import annotations

import copy
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _measure import (
    FULL,
    THREAD_COUNTS,
    Effort,
    FloatArray,
    IntArray,
    Row,
    Side,
    accurate,
    digits,
    error,
    faster,
    interleave,
    main,
    on,
    peer,
    skipped,
    slower,
)
from bench_training import accuracy_row

import fastnet
from fastnet import datasets, layers, optimizers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))  # the oracle that the tests have, too
from stages_in_long_double import central_differences

TITLE = "Networks of stages"
BATCH = 100


# Networks ---------------------------------------------------------------------------------------------------


def dense(hidden: list[int], dtype: str = "float64", **options: Any) -> Any:
    return fastnet.MultiLayerNet(784, hidden, 10, dtype=dtype, seed=0, **options)


def drawn(seed: int, dtype: str) -> Callable[..., FloatArray]:
    """Return a function that draws weights of a shape, with He's standard deviation."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> FloatArray:
        inputs = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        return (rng.standard_normal(shape) * np.sqrt(2 / inputs)).astype(dtype)

    return draw


def simple_conv_net(dtype: str) -> Any:
    """The network of the book's chapter 7: 433,890 parameters."""
    draw, zeros = drawn(0, dtype), lambda n: np.zeros(n, dtype)
    return fastnet.Network(
        [
            layers.Reshape((1, 28, 28)),
            layers.Convolution(draw(30, 1, 5, 5), zeros(30)),
            layers.ReLU(),
            layers.MaxPooling(2, 2, stride=2),
            layers.Flatten(),
            layers.Affine(draw(4320, 100), zeros(100)),
            layers.ReLU(),
            layers.Affine(draw(100, 10), zeros(10)),
        ],
        layers.SoftmaxWithLoss(),
    )


def lenet(dtype: str) -> Any:
    """LeNet-5 with ReLU and max pooling."""
    draw, zeros = drawn(0, dtype), lambda n: np.zeros(n, dtype)
    return fastnet.Network(
        [
            layers.Reshape((1, 28, 28)),
            layers.Convolution(draw(6, 1, 5, 5), zeros(6), pad=2),
            layers.ReLU(),
            layers.MaxPooling(2, 2, stride=2),
            layers.Convolution(draw(16, 6, 5, 5), zeros(16)),
            layers.ReLU(),
            layers.MaxPooling(2, 2, stride=2),
            layers.Flatten(),
            layers.Affine(draw(400, 120), zeros(120)),
            layers.ReLU(),
            layers.Affine(draw(120, 84), zeros(84)),
            layers.ReLU(),
            layers.Affine(draw(84, 10), zeros(10)),
        ],
        layers.SoftmaxWithLoss(),
    )


def in_torch(name: str) -> Any:
    from torch import nn

    if name == "simple":
        parts = [nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4320, 100), nn.ReLU()]
        return nn.Sequential(*parts, nn.Linear(100, 10))
    if name == "lenet":
        parts = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()]
        parts += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
        return nn.Sequential(*parts, nn.Linear(84, 10))
    parts, inputs = [], 784
    for _ in range(5):
        norm = [nn.BatchNorm1d(100)] if name == "batch norm" else []
        dropout = [nn.Dropout(0.3)] if name == "dropout" else []
        parts += [nn.Linear(inputs, 100), *norm, nn.ReLU(), *dropout]
        inputs = 100
    return nn.Sequential(*parts, nn.Linear(100, 10))


# Numerical gradients ----------------------------------------------------------------------------------------


def layer_loop(net: Any, x: FloatArray, t: IntArray, name: str) -> Side:
    """The textbook's loop over whole forward passes in NumPy, for one array of parameters, scaled up to all."""
    twin = copy.deepcopy(net)
    twin._staged = False  # layer by layer, which is the faster one: it begins at the layer of the parameter
    scale = sum(p.size for p in net.params.values()) / net.params[name].size

    def call() -> object:
        with fastnet.use_backend("numpy"):
            return twin.numerical_gradient(x, t, 1e-4, algorithm="loop", names=(name,))

    return peer(call, scale=scale)


def numerical(effort: Effort) -> Iterator[Row]:
    x, t = digits(BATCH)
    for hidden, least in (([100], 1000.0), ([100, 100], 100.0)):
        net = dense(hidden, use_batchnorm=True, dropout_ratio=0.3)
        net.gradient(x, t)
        what = f"784-{'-'.join(map(str, hidden))}-10, ReLU, BatchNorm, Dropout, float64"
        ours = Side(lambda net=net: net.numerical_gradient(x, t, 1e-4))
        mine, loop = interleave(effort, ours, layer_loop(net, x, t, f"b{len(hidden) + 1}"))
        yield faster(f"{what}: all gradients (`auto`) against the NumPy loop", mine, loop, least)
        if len(hidden) == 2:
            yield against_product(effort, what, ours)
        backprop, found = net.gradient(x, t), net.numerical_gradient(x, t, 1e-6)  # of the same pass
        yield accurate(f"{what}: error at h = 1e-6, against backprop", error(*map(values, (found, backprop))), 1e-12)
    net = simple_conv_net("float64")
    ours = Side(lambda: net.numerical_gradient(x, t, 1e-4))
    mine, loop = interleave(effort, ours, layer_loop(net, x, t, "b3"))
    what = "SimpleConvNet, 433,890 parameters, float64"
    yield Row(f"{what}: all gradients (`auto`)", str(mine), target="≤ 1 s", passed=mine.median <= 1)
    yield faster(f"{what}: against the NumPy loop", mine, loop, 1000.0)
    yield accurate(f"{what}: error at h = 1e-6, against long double", long_double_error(net, x, t, 3), 1e-11)


def against_product(effort: Effort, what: str, ours: Side) -> Row:
    """Compare with NumPy's product of as many multiply-adds as carry the first weight's moves to the loss."""
    rng = np.random.default_rng(0)
    a, b = rng.random((1500, 1500)), rng.random((1500, 1500))
    moves = 2 * 784 * 100
    multiply_adds = moves * BATCH * (100 + 100 * 10)  # into the second layer, and into the classes
    mine, product = interleave(effort, ours, peer(lambda: a @ b, scale=multiply_adds / 1500**3))
    return slower(f"{what}: against NumPy's product of as many flops", mine, product, 2.0)


def values(gradient: dict[str, FloatArray]) -> list[FloatArray]:
    return list(gradient.values())


def long_double_error(net: Any, x: FloatArray, t: IntArray, of_each: int) -> float:
    """The largest error at some entries of each array, relative to the largest entry of the gradient."""
    h, computation, rng = 1e-6, net._computation(), np.random.default_rng(0)
    spec, found = computation.repeated(computation.rows(x)), net.numerical_gradient(x, t, h)
    gradients = [found[name] for name in computation.names]
    ends = np.cumsum([g.size for g in gradients])
    entries = np.concatenate(
        [end - g.size + rng.choice(g.size, min(of_each, g.size), False) for g, end in zip(gradients, ends, strict=True)]
    )
    flat = spec.flatten(gradients)
    exact = central_differences(spec, x.reshape(len(x), -1), t, h, entries)
    return float(np.abs(flat[entries] - exact).max() / np.abs(flat).max())


# Training ---------------------------------------------------------------------------------------------------


def epoch_by_torch(net: Any, optimizer: Any, x: FloatArray, t: IntArray, order: IntArray) -> None:
    import torch

    rows, labels = torch.from_numpy(x), torch.from_numpy(t)
    for batch in torch.from_numpy(order):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(rows[batch]), labels[batch]).backward()
        optimizer.step()


def steps(effort: Effort) -> Iterator[Row]:
    cases: dict[str, tuple[str, Callable[[], Any], str, float, int]] = {
        "batch norm": (
            "784-[100]×5-10, BatchNorm",
            lambda: dense([100] * 5, "float32", use_batchnorm=True),
            "Adam",
            2.5,
            6000,
        ),
        "dropout": (
            "784-[100]×5-10, Dropout",
            lambda: dense([100] * 5, "float32", dropout_ratio=0.3),
            "Adam",
            2.5,
            6000,
        ),
        "simple": ("SimpleConvNet", lambda: simple_conv_net("float32"), "SGD", 1.2, 1000),
        "lenet": ("LeNet-5", lambda: lenet("float32"), "Adam", 1.0, 2000),
    }
    for name, (title, make, rule, least, count) in cases.items():
        x, t = digits(count, "float32")
        order = np.random.default_rng(0).permutation(count).reshape(-1, BATCH)
        for number in THREAD_COUNTS:
            what = f"{title}, float32, batch 100: a step of {rule}, {on(number)}, against PyTorch eager"
            if importlib.util.find_spec("torch") is None:
                yield skipped(what, "torch is not installed")
                continue
            yield step(effort, what, name, make(), rule, least, (x, t, order), number)


def step(
    effort: Effort,
    what: str,
    name: str,
    net: Any,
    rule: str,
    least: float,
    data: tuple[FloatArray, IntArray, IntArray],
    number: int,
) -> Row:
    import torch

    x, t, order = data
    options = {"optimizer": getattr(optimizers, rule)(0.001), "evaluate_train": 0, "keep_best": False}
    trainer = fastnet.Trainer(net, x, t, epochs=10**6, progress=False, **options)
    images = x.reshape(-1, 1, 28, 28) if name in ("simple", "lenet") else x
    theirs = in_torch(name)
    rules = {"Adam": torch.optim.Adam, "SGD": torch.optim.SGD}
    optimizer = rules[rule](theirs.parameters(), lr=0.001)
    scale = 1 / len(order)
    ours = Side(lambda: trainer.fit(epochs=1), number, scale)
    others = peer(lambda: epoch_by_torch(theirs, optimizer, images, t, order), number, scale)
    return faster(what, *interleave(effort, ours, others), least)


def lenet_training(effort: Effort) -> Iterator[Row]:
    epochs = 10 if effort == FULL else 1
    what = f"LeNet-5, Adam, {epochs} epochs: test accuracy"
    if datasets.find_mnist() is None:
        yield skipped(what, "MNIST was not found")
        return
    (x, t), (x_test, t_test) = datasets.load_mnist()
    net = lenet("float32")
    data = [np.ascontiguousarray(a, dtype=np.float32) for a in (x, x_test)]
    trainer = fastnet.Trainer(
        net,
        data[0],
        t,
        epochs=epochs,
        optimizer=optimizers.Adam(optimizers.CosineAnnealing(0.001, epochs * len(x) // BATCH)),
        evaluate_train=0,
        progress=False,
    )
    start = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - start
    least = 0.989 if epochs == 10 else None
    yield accuracy_row(what, net.accuracy(data[1], t_test, batch_size=1000), least, f"in {seconds:.1f} s")


def rows(effort: Effort) -> Iterator[Row]:
    yield from numerical(effort)
    yield from steps(effort)
    yield from lenet_training(effort)


@pytest.mark.parametrize("name", ["dense", "convolution"])
@pytest.mark.parametrize("method", ["backprop", "numerical"])
def test_stages(benchmark: Any, name: str, method: str) -> None:
    x, t = digits(BATCH)
    options = {"use_batchnorm": True, "dropout_ratio": 0.3}
    net = dense([100], **options) if name == "dense" else simple_conv_net("float64")
    net.gradient(x, t)
    benchmark(lambda: net.gradient(x, t) if method == "backprop" else net.numerical_gradient(x, t))


if __name__ == "__main__":
    main(TITLE, rows)
