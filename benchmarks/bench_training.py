"""Training on MNIST: a step against PyTorch, JAX and NumPy; whole trainings by numerical gradients; their accuracy."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from _measure import (
    MOST_THREADS,
    THREAD_COUNTS,
    Effort,
    FloatArray,
    Row,
    Side,
    Timing,
    WrongAnswerError,
    faster,
    interleave,
    main,
    on,
    peer,
    skipped,
    slower,
    threads,
)
from _training_peers import LIBRARIES, LR, Task, by_fastnet, by_torch, digits, network, prepared, torch_network

import fastnet
from fastnet import optimizers

TITLE = "Training"

# Rows -------------------------------------------------------------------------------------------------------

SMALL = Task((50,), 100)


def rows(effort: Effort) -> Iterator[Row]:
    small = {"PyTorch eager": 6.0, "PyTorch without autograd": 4.0, "NumPy": 4.0, "C++ with libxsmm": 2.0}
    for count in THREAD_COUNTS:
        small["JAX lax.scan"] = 2.5 if count == 1 else 3.5
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
        other = LIBRARIES[library]
        what = f"{task}: a step of SGD by backprop, {on(count)}, against {library}"
        if other.only_threads not in (None, count):
            continue
        if other.missing:
            yield skipped(what, other.missing)
            continue
        with threads(count):
            theirs = other.make(task)
            ours = by_fastnet(task)
            check_losses(what, ours(), theirs())
            side = Side(theirs, count, 1 / task.steps, peer=other.only_threads is None)
            yield faster(what, *interleave(effort, Side(ours, count, 1 / task.steps), side), least)


def epoch(effort: Effort) -> Iterator[Row]:
    """Compare an epoch from the arrays to the test accuracy, nothing prepared."""
    _, _, x_test, t_test = digits()
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

    if not abs(ours() - theirs()) < 1e-3:
        raise WrongAnswerError(f"{what}: the accuracies differ")
    yield faster(what, *interleave(effort, ours, peer(theirs)), 4.0)


def full_batch(effort: Effort) -> Iterator[Row]:
    """Train 4-32-16-4 with tanh on one full batch of 10,000 rows by Adam, as SimpleChains.jl publishes it."""
    epochs, sample = 10_000, 100
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((10_000, 4)).astype(np.float32), rng.integers(0, 4, 10_000)
    net = fastnet.MultiLayerNet(4, [32, 16], 4, activation="tanh", dtype="float32", seed=0)
    start = [p.copy() for p in net.params.values()]
    options = {"optimizer": optimizers.Adam(0.001), "batch_size": len(x), "evaluate_train": 0, "keep_best": False}
    options["shuffle"] = False  # as the example, and the loop of PyTorch below
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

    yield faster(what, *interleave(effort, ours, peer(theirs, scale=ours.scale)), 5.0)


def within(what: str, timing: Timing, seconds: float) -> Row:
    """Compare a time with a time."""
    return Row(what, str(timing), "", "", f"≤ {seconds} s", timing.median <= seconds)


def check_losses(what: str, ours: FloatArray, theirs: FloatArray) -> None:
    """Raise unless the first losses agree. Later the effects of rounding and of the 1e-7 in our logarithm grow."""
    off = float(np.abs(ours - theirs)[:100].max())
    if not off < 2e-3:
        raise WrongAnswerError(f"{what}: a loss is off by {off:.1e}")


def textbook(effort: Effort) -> Iterator[Row]:
    """Run the textbook's training by numerical gradients and by backprop: time and test accuracy."""
    iterations = 10_000 if effort.sample_seconds > 0.01 else 600
    x, t, x_test, t_test = digits()
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
    (theirs,) = interleave(effort, peer(by_torch(SMALL), scale=iterations / SMALL.steps))
    ours = Timing((seconds["numerical", "float32"],) * len(theirs.seconds))
    yield slower(what, ours, theirs, 1.0)


def deep(effort: Effort) -> Iterator[Row]:
    """Train the deep network by Adam."""
    epochs = 10 if effort.sample_seconds > 0.01 else 1
    x, t, x_test, t_test = digits()
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
