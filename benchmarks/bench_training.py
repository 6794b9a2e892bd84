"""Training on MNIST: a step against PyTorch, JAX and NumPy; whole trainings by numerical gradients; their accuracy."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
        return len(_data()[0]) // self.batch

    @property
    def data(self) -> tuple[FloatArray, IntArray]:
        """The rows of whole batches."""
        x, t, _, _ = _data()
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
    return np.asarray(_data()[0] + np.float32(0.1))


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


LIBRARIES = {
    "PyTorch eager": ("torch", by_torch),
    "PyTorch without autograd": ("torch", by_torch_in_place),
    "JAX lax.scan": ("jax", by_jax),
    "NumPy": ("numpy", by_numpy),
}


# Rows -------------------------------------------------------------------------------------------------------

SMALL = Task((50,), 100)


def rows(effort: Effort) -> Iterator[Row]:
    small = {"PyTorch eager": 6.0, "PyTorch without autograd": 4.0, "JAX lax.scan": 3.5, "NumPy": 4.0}
    for count in THREAD_COUNTS:
        yield from steps(effort, SMALL, count, small)
    for count in THREAD_COUNTS:
        yield from steps(effort, replace(SMALL, dense=True), count, {"PyTorch eager": 2.5})
    for count in THREAD_COUNTS:
        yield from steps(effort, Task((512, 512), 128), count, {"PyTorch eager": 1.5})
    yield from epoch(effort)
    yield from full_batch(effort)
    yield from textbook(effort)
    yield from deep(effort)


def steps(effort: Effort, task: Task, count: int, at_least: dict[str, float]) -> Iterator[Row]:
    """Compare one step of SGD in float32: the batch is gathered, its gradient computed, the parameters updated."""
    for library, least in at_least.items():
        module, make = LIBRARIES[library]
        what = f"{task}: a step of SGD by backprop, {on(count)}, against {library}"
        if importlib.util.find_spec(module) is None:
            yield skipped(what, f"{module} is not installed")
            continue
        if module == "jax" and count != MOST_THREADS:
            continue  # it has one pool of threads for the whole process, with all cores
        with library_threads(module, count):
            theirs = make(task)
            ours = by_fastnet(task)
            check_losses(what, ours(), theirs())
            ours_timing, timing = against_best(effort, Side(ours, count, 1 / task.steps), theirs, module)
        yield faster(what, ours_timing, timing, least)


def against_best(effort: Effort, ours: Side, theirs: Callable[[], object], module: str) -> tuple[Timing, Timing]:
    """Time our side, and theirs at the best of 1 and as many threads; a library with its own pool chooses itself."""
    counts = {1, ours.threads or 1} if module in ("torch", "numpy") else {None}

    def call(count: int | None) -> Callable[[], object]:
        def on_threads() -> object:
            if module == "torch" and count is not None:
                import torch

                torch.set_num_threads(count)
            return theirs()

        return on_threads

    sides = [Side(call(count), count, ours.scale) for count in counts]
    first, *others = interleave(effort, ours, *sides)
    best = min(others, key=lambda timing: timing.median)
    return Timing(first.seconds), Timing(best.seconds)


def epoch(effort: Effort) -> Iterator[Row]:
    """Compare an epoch from the arrays to the test accuracy, nothing prepared."""
    _, _, x_test, t_test = _data()
    x, t = SMALL.data
    what = f"{SMALL}: an epoch of {len(x):,} rows, from the arrays to the test accuracy, against PyTorch"
    if importlib.util.find_spec("torch") is None:
        yield skipped(what, "torch is not installed")
        return
    import torch

    def ours() -> float:
        net = network(SMALL.hidden)
        trainer = fastnet.Trainer(
            net, x, t, x_test, t_test, optimizer=optimizers.SGD(lr=LR), epochs=1, evaluate_train=0, progress=False
        )
        return float(trainer.fit().rows[-1].test_accuracy or 0)

    def theirs() -> float:
        net = torch_network(SMALL.start, sigmoid=True)
        rows_of_all, labels_of_all = torch.from_numpy(x), torch.from_numpy(t)
        optimizer = torch.optim.SGD(net.parameters(), lr=LR)
        for batch in torch.from_numpy(SMALL.order):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(rows_of_all[batch]), labels_of_all[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            return float((net(torch.from_numpy(x_test)).argmax(1) == torch.from_numpy(t_test)).float().mean())

    with library_threads("torch", MOST_THREADS):
        if not abs(ours() - theirs()) < 1e-3:
            raise WrongAnswerError(f"{what}: the accuracies differ")
        yield faster(what, *against_best(effort, Side(ours, MOST_THREADS), theirs, "torch"), 4.0)


def full_batch(effort: Effort) -> Iterator[Row]:
    """Train 4-32-16-4 with tanh on one full batch of 10,000 rows by Adam, as SimpleChains.jl publishes it."""
    epochs, sample = 10_000, 100
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((10_000, 4)).astype(np.float32), rng.integers(0, 4, 10_000)
    net = fastnet.MultiLayerNet(4, [32, 16], 4, activation="tanh", dtype="float32", seed=0)
    start = [p.copy() for p in net.params.values()]
    options = {"optimizer": optimizers.Adam(0.001), "batch_size": len(x), "evaluate_train": 0, "keep_best": False}
    trainer = prepared(net, x, t, sample, options)
    ours = Side(lambda: trainer.fit(epochs=sample), MOST_THREADS, epochs / sample)
    what = f"4-32-16-4, tanh, float32, full batch of 10,000, Adam: {epochs:,} epochs, {on(MOST_THREADS)}"
    (alone,) = interleave(effort, ours)
    yield within(what, alone, 3.3)
    what += ", against PyTorch"
    if importlib.util.find_spec("torch") is None:
        yield skipped(what, "torch is not installed")
        return
    import torch

    theirs_net = torch_network(start, sigmoid=False)
    for at in (1, 3):
        theirs_net[at] = torch.nn.Tanh()
    optimizer = torch.optim.Adam(theirs_net.parameters(), lr=0.001)
    rows_of_all, labels_of_all = torch.from_numpy(x), torch.from_numpy(t)

    def theirs() -> None:
        for _ in range(sample):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(theirs_net(rows_of_all), labels_of_all).backward()
            optimizer.step()

    yield faster(what, *against_best(effort, ours, theirs, "torch"), 5.0)


def within(what: str, timing: Timing, seconds: float) -> Row:
    """Compare a time with a time."""
    return Row(what, str(timing), "", "", f"≤ {seconds} s", timing.median <= seconds)


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
        train = by_torch(SMALL)
        train()
        (theirs,) = interleave(effort, Side(train, MOST_THREADS, iterations / SMALL.steps))
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
