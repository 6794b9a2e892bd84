"""Training on MNIST: a step against PyTorch, JAX and NumPy; whole trainings by numerical gradients; their accuracy."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _measure import (
    MOST_THREADS,
    THREAD_COUNTS,
    Effort,
    FloatArray,
    IntArray,
    Row,
    Side,
    Timing,
    WrongAnswerError,
    faster,
    interleave,
    main,
    on,
    skipped,
    slower,
    threads,
)

import fastnet
from fastnet import datasets, optimizers

TITLE = "Training"
LR = 0.1
Params = list[FloatArray]  # W1, b1, W2, b2, …


@functools.cache
def _data() -> tuple[FloatArray, IntArray, FloatArray, IntArray]:
    """Return x_train, t_train, x_test, t_test in float32: MNIST, or drawn digits if it is not found."""
    if datasets.find_mnist() is None:
        (x, t), (x_test, t_test) = datasets.make_digits(60_000, seed=0), datasets.make_digits(10_000, seed=1)
    else:
        (x, t), (x_test, t_test) = datasets.load_mnist()
    inputs = [np.ascontiguousarray(a, np.float32) for a in (x, x_test)]
    labels = [np.ascontiguousarray(a, np.int64) for a in (t, t_test)]
    return inputs[0], labels[0], inputs[1], labels[1]


def network(hidden: list[int]) -> Any:
    """Return the network: sigmoid for one hidden layer, as in the textbook, and ReLU for more."""
    activation = "sigmoid" if len(hidden) == 1 else "relu"
    return fastnet.MultiLayerNet(784, hidden, 10, activation=activation, dtype="float32", seed=0)


def order_of(batch: int) -> IntArray:
    """Return the rows of each step of a turn, (steps, batch): those of a Trainer's first epoch."""
    steps = len(_data()[0]) // batch
    return np.random.default_rng((0, 0)).permutation(steps * batch).reshape(steps, batch)


# An epoch by each library: the losses -----------------------------------------------------------------------


def by_fastnet(hidden: list[int], batch: int) -> Callable[[], FloatArray]:
    """Return a function that trains for one more epoch at each call and returns its losses."""
    x, t, _, _ = _data()
    steps = len(x) // batch
    options = {"optimizer": optimizers.SGD(lr=LR), "batch_size": batch, "evaluate_train": 0, "keep_best": False}
    trainer = prepared(network(hidden), x[: steps * batch], t[: steps * batch], steps, options)
    return lambda: np.array(trainer.fit(epochs=1).losses[-steps:])


def prepared(net: Any, x: FloatArray, t: IntArray, iterations: int, options: dict[str, Any]) -> Any:
    return fastnet.Trainer(net, x, t, iterations=iterations, progress=False, **options)


def by_numpy(hidden: list[int], batch: int) -> Callable[[], FloatArray]:
    """Backprop and SGD, written for speed: no checks, nothing general."""
    x, t, _, _ = _data()
    start = list(network(hidden).params.values())
    order, sigmoid, lr = order_of(batch), len(hidden) == 1, np.float32(LR)

    def train() -> FloatArray:
        params = [p.copy() for p in start]
        layers = list(zip(params[::2], params[1::2], strict=True))
        losses = []
        for rows in order:
            units, labels = [x[rows]], t[rows]
            for number, (w, b) in enumerate(layers):
                a = units[-1] @ w + b
                if number < len(layers) - 1:
                    a = 1 / (1 + np.exp(-a)) if sigmoid else np.maximum(a, 0)
                units.append(a)
            e = np.exp(units[-1] - units[-1].max(axis=1, keepdims=True))
            d = e / e.sum(axis=1, keepdims=True)
            at = np.arange(batch), labels
            losses.append(-np.log(d[at]).mean())
            d[at] -= 1
            d /= batch
            for number in reversed(range(len(layers))):
                w, b = layers[number]
                gw, gb = units[number].T @ d, d.sum(axis=0)
                if number > 0:
                    z = units[number]
                    d = d @ w.T * (z * (1 - z) if sigmoid else z > 0)
                w -= lr * gw
                b -= lr * gb
        return np.array(losses)

    return train


def by_torch(hidden: list[int], batch: int) -> Callable[[], FloatArray]:
    import torch

    x, t = (torch.from_numpy(a) for a in _data()[:2])
    start, order = list(network(hidden).params.values()), torch.from_numpy(order_of(batch))
    activation = torch.nn.Sigmoid if len(hidden) == 1 else torch.nn.ReLU

    def train() -> FloatArray:
        layers: list[Any] = []
        for w, b in zip(start[::2], start[1::2], strict=True):
            linear = torch.nn.Linear(*w.shape)
            linear.weight.data, linear.bias.data = torch.from_numpy(w.T.copy()), torch.from_numpy(b.copy())
            layers += [linear, activation()]
        net = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        losses = []
        for rows in order:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[rows]), t[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return train


def by_jax(hidden: list[int], batch: int) -> Callable[[], FloatArray]:
    import jax
    import jax.numpy as jnp

    x, t = jnp.asarray(_data()[0]), jnp.asarray(_data()[1].astype(np.int32))
    start = [jnp.asarray(p) for p in network(hidden).params.values()]
    order = jnp.asarray(order_of(batch).astype(np.int32))
    activation = jax.nn.sigmoid if len(hidden) == 1 else jax.nn.relu

    def loss_of(params: list[Any], rows: Any, labels: Any) -> Any:
        *others, last = zip(params[::2], params[1::2], strict=True)
        for w, b in others:
            rows = activation(rows @ w + b)
        scores = jax.nn.log_softmax(rows @ last[0] + last[1])
        return -scores[jnp.arange(batch), labels].mean()

    def step(params: list[Any], rows: Any) -> tuple[list[Any], Any]:
        loss, gradient = jax.value_and_grad(loss_of)(params, x[rows], t[rows])
        return [p - LR * g for p, g in zip(params, gradient, strict=True)], loss

    scan = jax.jit(lambda params: jax.lax.scan(step, params, order)[1])
    return lambda: np.asarray(scan(start))


LIBRARIES = {"PyTorch eager": ("torch", by_torch), "JAX lax.scan": ("jax", by_jax), "NumPy": ("numpy", by_numpy)}


# Rows -------------------------------------------------------------------------------------------------------


def rows(effort: Effort) -> Iterator[Row]:
    small = {"PyTorch eager": 5.0, "JAX lax.scan": 3.0, "NumPy": 4.0}
    for count in THREAD_COUNTS:
        yield from steps(effort, [50], 100, count, small)
    for count in THREAD_COUNTS:
        yield from steps(effort, [512, 512], 128, count, {"PyTorch eager": 1.0})
    yield from textbook(effort)
    yield from deep(effort)


def steps(effort: Effort, hidden: list[int], batch: int, count: int, at_least: dict[str, float]) -> Iterator[Row]:
    """Compare one step of SGD in float32: the batch is gathered, its gradient computed, the parameters updated."""
    sizes = "-".join(map(str, [784, *hidden, 10]))
    scale = 1 / len(order_of(batch))
    for library, least in at_least.items():
        module, make = LIBRARIES[library]
        what = f"{sizes}, float32, batch {batch}: a step of SGD by backprop, {on(count)}, against {library}"
        if importlib.util.find_spec(module) is None:
            yield skipped(what, f"{module} is not installed")
            continue
        if module == "jax" and count != MOST_THREADS:
            continue  # it has one pool of threads for the whole process, with all cores
        with library_threads(module, count):
            theirs = make(hidden, batch)
            ours = by_fastnet(hidden, batch)
            check_losses(what, ours(), theirs())
            timings = interleave(effort, Side(ours, count, scale), Side(theirs, count, scale))
        yield faster(what, *(Timing(timing.seconds) for timing in timings), least)


def library_threads(module: str, count: int) -> Any:
    """Make PyTorch use the same number of threads."""
    if module == "torch":
        import torch

        torch.set_num_threads(count)
    return threads(count)


def check_losses(what: str, ours: FloatArray, theirs: FloatArray) -> None:
    """Raise unless the first losses agree. Later the effects of rounding and of the 1e-7 in our logarithm grow."""
    off = float(np.abs(ours - theirs)[:100].max())
    if not off < 2e-3:
        raise WrongAnswerError(f"{what}: a loss is off by {off:.1e}")


def textbook(effort: Effort) -> Iterator[Row]:
    """Run the textbook's training by numerical gradients and by backprop: time and test accuracy."""
    iterations = 10_000 if effort.sample_seconds > 0.01 else 600
    x, t, x_test, t_test = _data()
    name = f"784-50-10, init 0.01, lr 0.1, batch 100, {iterations:,} iterations"
    seconds = {}
    for gradient, dtype in itertools.product(("numerical", "backprop"), ("float32", "float64")):
        net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
        options = {"gradient": gradient, "evaluate_train": 0, "optimizer": optimizers.SGD(lr=LR)}
        trainer = prepared(net, x, t, iterations, options)
        start = time.perf_counter()
        trainer.fit()
        seconds[gradient, dtype] = time.perf_counter() - start
        accuracy = net.accuracy(x_test, t_test)
        least = 0.94 if gradient == "numerical" and iterations == 10_000 else None
        what = f"{name}, by {gradient} gradients in {dtype}: test accuracy"
        yield accuracy_row(what, accuracy, least, f"in {seconds[gradient, dtype]:.2f} s")
    what = f"{name}: numerical gradients in float32 against PyTorch's backprop, float32, eager"
    if importlib.util.find_spec("torch") is None:
        yield skipped(what, "torch is not installed")
        return
    with library_threads("torch", MOST_THREADS):
        train = by_torch([50], 100)
        train()
        (theirs,) = interleave(effort, Side(train, MOST_THREADS, iterations / len(order_of(100))))
    ours = Timing((seconds["numerical", "float32"],) * len(theirs.seconds))
    yield slower(what, ours, theirs, 1.0)


def deep(effort: Effort) -> Iterator[Row]:
    """Train the deep network by Adam."""
    epochs = 10 if effort.sample_seconds > 0.01 else 1
    x, t, x_test, t_test = _data()
    net = fastnet.MultiLayerNet(784, [100] * 6, 10, activation="relu", weight_init_std="he", dtype="float32", seed=0)
    iterations = epochs * len(x) // 100
    schedule = optimizers.CosineAnnealing(0.001, iterations)
    trainer = prepared(net, x, t, iterations, {"evaluate_train": 0, "optimizer": optimizers.Adam(schedule)})
    start = time.perf_counter()
    trainer.fit()
    what = f"784-[100]×6-10, ReLU, He, Adam (0.001, cosine annealing), batch 100, float32, {epochs} epochs: accuracy"
    least = 0.973 if epochs == 10 else None
    yield accuracy_row(what, net.accuracy(x_test, t_test), least, f"in {time.perf_counter() - start:.2f} s")


def accuracy_row(what: str, accuracy: float, at_least: float | None, note: str) -> Row:
    """Compare an accuracy with its target."""
    target, passed = ("", None) if at_least is None else (f"≥ {at_least:.1%}", accuracy >= at_least)
    return Row(what, f"{accuracy:.2%}", note, "", target, passed)


if __name__ == "__main__":
    main(TITLE, rows)
