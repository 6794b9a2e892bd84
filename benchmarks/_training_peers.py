"""What trains in the benchmarks: a network on digits by SGD, by fastnet and by the libraries it is compared with."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _compiled import NotBuiltError, compiled
from _measure import MOST_THREADS, FloatArray, IntArray

import fastnet
from fastnet import datasets, optimizers

LR = 0.1
CHOOSES_CORES = hasattr(os, "sched_setaffinity")  # whether a process can be kept to some of them
Params = list[FloatArray]  # W1, b1, W2, b2, …


@functools.cache
def digits() -> tuple[FloatArray, IntArray, FloatArray, IntArray]:
    """Return x_train, t_train, x_test, t_test in float32: MNIST, or drawn digits if it is not found."""
    if datasets.find_mnist() is None:
        (x, t), (x_test, t_test) = datasets.make_digits(60_000, seed=0), datasets.make_digits(10_000, seed=1)
    else:
        (x, t), (x_test, t_test) = datasets.load_mnist()
    inputs = [np.ascontiguousarray(a, np.float32) for a in (x, x_test)]
    labels = [np.ascontiguousarray(a, np.int64) for a in (t, t_test)]
    return inputs[0], labels[0], inputs[1], labels[1]


def network(hidden: Sequence[int]) -> Any:
    """Return the network: sigmoid for one hidden layer, as in the textbook, and ReLU for more."""
    activation = "sigmoid" if len(hidden) == 1 else "relu"
    return fastnet.MultiLayerNet(784, list(hidden), 10, activation=activation, dtype="float32", seed=0)


@dataclass(frozen=True)
class Task:
    """What the libraries train: a network, by batches of the digits.

    Attributes
    ----------
    hidden : tuple of int
    batch : int
    dense : bool
        Whether 0.1 is added to every pixel, so that there are no zeros to skip.
    """

    hidden: tuple[int, ...]
    batch: int
    dense: bool = False

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(digits()[0]) // self.batch

    @property
    def data(self) -> tuple[FloatArray, IntArray]:
        """The rows of whole batches."""
        x, t, _, _ = digits()
        count = self.steps * self.batch
        return (_dense_rows() if self.dense else x)[:count], t[:count]

    @property
    def order(self) -> IntArray:
        """The rows of each step of a turn, (steps, batch): those of a Trainer's first epoch."""
        return np.random.default_rng((0, 0)).permutation(self.steps * self.batch).reshape(self.steps, self.batch)

    @property
    def start(self) -> Params:
        return list(network(self.hidden).params.values())

    def __str__(self) -> str:
        return f"{'-'.join(map(str, [784, *self.hidden, 10]))}, float32, batch {self.batch}{', no zeros' * self.dense}"


@functools.cache
def _dense_rows() -> FloatArray:
    return np.asarray(digits()[0] + np.float32(0.1))


# An epoch by each library: the losses -----------------------------------------------------------------------


def by_fastnet(task: Task) -> Callable[[], FloatArray]:
    """Return a function that trains for one more epoch at each call and returns its losses."""
    options = {"optimizer": optimizers.SGD(lr=LR), "batch_size": task.batch, "evaluate_train": 0, "keep_best": False}
    trainer = prepared(network(task.hidden), *task.data, task.steps, options)
    return lambda: np.array(trainer.fit(epochs=1).losses[-task.steps :])


def prepared(net: Any, x: FloatArray, t: IntArray, iterations: int, options: dict[str, Any]) -> Any:
    return fastnet.Trainer(net, x, t, iterations=iterations, progress=False, **options)


def by_numpy(task: Task) -> Callable[[], FloatArray]:
    """Backprop and SGD, written for speed: no checks, nothing general, and every array is allocated once."""
    x, t = task.data
    start, order, sigmoid, lr, batch = task.start, task.order, len(task.hidden) == 1, np.float32(LR), task.batch
    sizes = [784, *task.hidden, 10]
    units = [np.empty((batch, size), np.float32) for size in sizes]
    deltas = [np.empty_like(u) for u in units]
    slopes = [np.empty_like(u) for u in units]
    gradients = [np.empty_like(p) for p in start]
    row, index = np.empty((batch, 1), np.float32), np.arange(batch)

    def activate(z: FloatArray) -> None:
        if sigmoid:
            np.negative(z, out=z)
            np.exp(z, out=z)
            z += 1
            np.reciprocal(z, out=z)
        else:
            np.maximum(z, 0, out=z)

    def backward(z: FloatArray, d: FloatArray, slope: FloatArray) -> None:
        if sigmoid:
            np.subtract(1, z, out=slope)
            slope *= z
        else:
            np.greater(z, 0, out=slope, casting="unsafe")
        d *= slope

    def train() -> FloatArray:
        params = [p.copy() for p in start]
        layers = list(zip(params[::2], params[1::2], strict=True))
        losses = []
        for rows in order:
            np.take(x, rows, axis=0, out=units[0], mode="clip")
            labels = t[rows]
            for number, (w, b) in enumerate(layers):
                z = np.matmul(units[number], w, out=units[number + 1])
                z += b
                if number < len(layers) - 1:
                    activate(z)
            d = deltas[-1]
            np.max(units[-1], axis=1, keepdims=True, out=row)
            np.subtract(units[-1], row, out=d)
            np.exp(d, out=d)
            np.sum(d, axis=1, keepdims=True, out=row)
            d /= row
            losses.append(-np.log(d[index, labels]).mean())
            d[index, labels] -= 1
            d /= batch
            for number in reversed(range(len(layers))):
                w, b = layers[number]
                gw, gb = gradients[2 * number : 2 * number + 2]
                np.matmul(units[number].T, deltas[number + 1], out=gw)
                np.sum(deltas[number + 1], axis=0, out=gb)
                if number > 0:
                    np.matmul(deltas[number + 1], w.T, out=deltas[number])
                    backward(units[number], deltas[number], slopes[number])
                gw *= lr
                gb *= lr
                w -= gw
                b -= gb
        return np.array(losses)

    return train


def by_torch(task: Task) -> Callable[[], FloatArray]:
    import torch

    x, t = (torch.from_numpy(a) for a in task.data)
    start, order = task.start, torch.from_numpy(task.order)

    def train() -> FloatArray:
        net = torch_network(start, len(task.hidden) == 1)
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


def torch_network(start: Params, sigmoid: bool) -> Any:
    """Return a PyTorch network with these parameters."""
    import torch

    layers: list[Any] = []
    for w, b in zip(start[::2], start[1::2], strict=True):
        linear = torch.nn.Linear(*w.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(w.T.copy()), torch.from_numpy(b.copy())
        layers += [linear, torch.nn.Sigmoid() if sigmoid else torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def by_torch_in_place(task: Task) -> Callable[[], FloatArray]:
    """PyTorch's operations without autograd, into tensors that are allocated once; the updates are in place."""
    import torch

    x, t = (torch.from_numpy(a) for a in task.data)
    start, order, sigmoid, batch = task.start, torch.from_numpy(task.order), len(task.hidden) == 1, task.batch
    sizes = [784, *task.hidden, 10]
    units = [torch.empty(batch, size) for size in sizes]
    deltas = [torch.empty(batch, size) for size in sizes]
    slopes = [torch.empty(batch, size) for size in sizes]
    labels, one_hot = torch.empty(batch, dtype=torch.int64), torch.empty(batch, 10)

    @torch.no_grad()
    def train() -> FloatArray:
        params = [torch.from_numpy(p.copy()) for p in start]
        layers = list(zip(params[::2], params[1::2], strict=True))
        losses = []
        for rows in order:
            torch.index_select(x, 0, rows, out=units[0])
            torch.index_select(t, 0, rows, out=labels)
            for number, (w, b) in enumerate(layers):
                z = units[number + 1]
                torch.addmm(b, units[number], w, out=z)
                if number < len(layers) - 1:
                    z.sigmoid_() if sigmoid else z.relu_()
            d = deltas[-1]
            torch.log_softmax(units[-1], 1, out=d)
            losses.append(torch.nn.functional.nll_loss(d, labels))
            d.exp_()
            one_hot.zero_().scatter_(1, labels[:, None], 1)
            d.sub_(one_hot).div_(batch)
            for number in reversed(range(len(layers))):
                w, b = layers[number]
                d = deltas[number + 1]
                if number > 0:
                    z, slope = units[number], slopes[number]
                    torch.mm(d, w.T, out=deltas[number])
                    if sigmoid:
                        torch.addcmul(z, z, z, value=-1, out=slope)
                    else:
                        torch.sign(z, out=slope)
                    deltas[number].mul_(slope)
                w.addmm_(units[number].T, d, alpha=-LR)
                b.sub_(d.sum(0), alpha=LR)
        return torch.stack(losses).numpy()

    return train


def by_jax(task: Task) -> Callable[[], FloatArray]:
    """JAX, on as many threads as fastnet has when it trains.

    Its pool has a thread for each core that the process may use when it begins, so there is a process for each number.
    """

    @functools.cache
    def process(count: int) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        context.Process(target=_serve_jax, args=(task, count, theirs), daemon=True).start()
        theirs.close()
        return ours

    def train() -> FloatArray:
        other = process(fastnet.get_num_threads())
        other.send(None)
        losses: FloatArray = other.recv()
        return losses

    return train


def _serve_jax(task: Task, cores: int, other: Connection) -> None:
    """Train on so many cores whenever the other end asks for it, until it is closed."""
    if CHOOSES_CORES:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    train = _by_jax(task)
    with contextlib.suppress(EOFError):
        while True:
            other.recv()
            other.send(train())


def _by_jax(task: Task) -> Callable[[], FloatArray]:
    import jax
    import jax.numpy as jnp

    rows_of_all, labels_of_all = task.data
    x, t = jnp.asarray(rows_of_all), jnp.asarray(labels_of_all.astype(np.int32))
    start = [jnp.asarray(p) for p in task.start]
    order = jnp.asarray(task.order.astype(np.int32))
    activation = jax.nn.sigmoid if len(task.hidden) == 1 else jax.nn.relu

    def loss_of(params: list[Any], rows: Any, labels: Any) -> Any:
        *others, last = zip(params[::2], params[1::2], strict=True)
        for w, b in others:
            rows = activation(rows @ w + b)
        scores = jax.nn.log_softmax(rows @ last[0] + last[1])
        return -scores[jnp.arange(task.batch), labels].mean()

    def step(params: list[Any], rows: Any) -> tuple[list[Any], Any]:
        loss, gradient = jax.value_and_grad(loss_of)(params, x[rows], t[rows])
        return [p - LR * g for p, g in zip(params, gradient, strict=True)], loss

    scan = jax.jit(lambda params: jax.lax.scan(step, params, order)[1])
    return lambda: np.asarray(scan(start))


@functools.cache
def _compiled_training() -> Any:
    """Return the C++ function of ``training/libxsmm.cpp``; raise `NotBuiltError` where it can't be had."""
    source = Path(__file__).parent / "training" / "libxsmm.cpp"
    flags = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
    libraries = ("-lxsmm", "-lxsmmnoblas", "-lpthread", "-ldl", "-lm", "-lrt")
    return ctypes.CDLL(str(compiled("libxsmm_training.so", *flags, source, *libraries))).train


def by_libxsmm(task: Task) -> Callable[[], FloatArray]:
    """C++ with the products of libxsmm, on one thread."""
    function, (x, t), order, start = _compiled_training(), task.data, np.ascontiguousarray(task.order), task.start
    inputs, hidden, classes = (len(start[0]), *(b.size for b in start[1::2]))

    def train() -> FloatArray:
        params, losses = [p.copy() for p in start], np.empty(task.steps, np.float32)
        arrays = [ctypes.c_void_p(a.ctypes.data) for a in (x, t, order)]
        changed = [ctypes.c_void_p(a.ctypes.data) for a in params]
        sizes = (task.steps, task.batch, inputs, hidden, classes)
        if function(*arrays, *sizes, *changed, ctypes.c_float(LR), ctypes.c_void_p(losses.ctypes.data)):
            raise RuntimeError("libxsmm has no kernels for this processor")
        return losses

    return train


class Library(NamedTuple):
    """A library that trains.

    Attributes
    ----------
    make : callable
        Takes a `Task` and returns a function that trains for an epoch and returns its losses.
    module : str or None
        What is imported; None for what is compiled by `_compiled_training`.
    only_threads : int or None
        The number of threads that it has, if that can't be set.
    """

    make: Callable[[Task], Callable[[], FloatArray]]
    module: str | None
    only_threads: int | None = None

    @property
    def missing(self) -> str | None:
        """Why it can't be measured, or None."""
        if self.module is not None:
            return None if importlib.util.find_spec(self.module) else f"{self.module} is not installed"
        try:
            _compiled_training()
        except (NotBuiltError, OSError) as reason:
            return f"it needs libxsmm's development files: {reason}"
        return None


LIBRARIES = {
    "PyTorch eager": Library(by_torch, "torch"),
    "PyTorch without autograd": Library(by_torch_in_place, "torch"),
    "JAX lax.scan": Library(by_jax, "jax", None if CHOOSES_CORES else MOST_THREADS),
    "NumPy": Library(by_numpy, "numpy"),
    "C++ with libxsmm": Library(by_libxsmm, None, 1),
}
