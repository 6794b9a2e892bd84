"""``fastnet compare``: the gradient of one batch by every method, and a replay of the notes' program."""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import datasets
from fastnet._tools.checks import as_step
from fastnet._tools.text import format_seconds, three_digits
from fastnet.checking import compare_gradients, compare_steps
from fastnet.checking.methods import BASELINE
from fastnet.checking.turns import describe_spread, times_faster, warnings
from fastnet.cli import arguments
from fastnet.cli.arguments import UsageError
from fastnet.networks import MultiLayerNet, SimpleConvNet, TwoLayerNet
from fastnet.networks.base import BaseNetwork

PIXELS, CLASSES = 784, 10
REPLAY_HIDDEN, REPLAY_STEPS, REPLAY_RATE = 50, 2, 0.06
REPLAY_TURNS, REPLAY_SECONDS = 5, 0.5  # The time is the median of 5 runs, or of fewer in 0.5 s.
REPLAY_PAUSE = 0.1  # seconds before a run: longer than the threads of a matrix product spin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compute the gradient of one batch by every method, and report its time and its difference from backprop. "
        "Then replay the program that this library started from: two steps of gradient descent on one image."
    )
    count, positive = arguments.count, arguments.positive
    add = parser.add_argument
    arguments.add_data_arguments(add)
    add("--batch", metavar="N", type=count, default=100, help="number of images (default: 100)")
    arguments.add_network_argument(add)
    add("--hidden", metavar="N", type=count, nargs="+", default=[50], help="units of each hidden layer (default: 50)")
    add("--dtype", choices=("float64", "float32"), default="float64", help="of the network (default: float64)")
    add("--threads", metavar="N", type=arguments.threads, help=arguments.THREADS)
    add("--h", metavar="H", type=positive, help="step of the differences (default: 1e-4; 1e-2 for float32)")
    seed = arguments.count_or_zero
    add("--seed", metavar="N", type=seed, default=0, help="seed of the weights and the drawn digits (default: 0)")
    add("--full", action="store_true", help="time every method on every parameter; this takes minutes")
    add("--steps", action="store_true", help="instead, show the error by step, of the loop and of exact differences")
    add("--json", metavar="FILE", type=Path, help="also write the results to this file")
    add("--plot", metavar="FILE", type=Path, help="plot the times to this file: .png, .svg, .pdf or other")
    parser.set_defaults(run=run, refuse=parser.error)


class _Data(NamedTuple):
    """Images, shape (batch, 784), their labels, and a description."""

    x: npt.NDArray[np.float32]
    t: npt.NDArray[np.int64]
    name: str


@dataclass(frozen=True)
class _Replay:
    """The results and times of the notes' program."""

    image: int  # Its index in the batch.
    losses: tuple[float, ...]  # At the start, and after every step.
    turns: tuple[float, ...]  # The time in each turn, in seconds.
    loop_turns: tuple[float, ...]  # The time of the same steps by the NumPy loop in each turn.
    loop_sampled: bool
    loop_blas_threads: int | None

    def __str__(self) -> str:
        names = ["loss at the start", *(f"loss after step {k}" for k in range(1, len(self.losses)))]
        lines = [f"{name}  {loss:.6f}" for name, loss in zip(names, self.losses, strict=True)]
        own, loop = (format_seconds(statistics.median(turns)) for turns in (self.turns, self.loop_turns))
        sampled = "*" if self.loop_sampled else ""
        faster = three_digits(times_faster(self.loop_turns, self.turns))
        network = f"{PIXELS}-{REPLAY_HIDDEN}-{CLASSES}"
        return "\n".join(
            [
                f"The notes' program: a {network} network with all parameters from N(0, 1), one image (index",
                f"{self.image} of these), {REPLAY_STEPS} steps of the numerical gradient at lr {REPLAY_RATE}",
                "",
                *lines,
                "",
                f"in {own}; the NumPy loop takes {loop}{sampled} ({faster} times as long)",
                *(["* measured on a sample of the parameters, and scaled up"] if self.loop_sampled else []),
                f"(turns: {describe_spread(self.turns)}; of the loop: {describe_spread(self.loop_turns)})",
                *warnings("the replay", self.turns),
                *warnings("the NumPy loop", self.loop_turns),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON has."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        seconds, loop_seconds = statistics.median(self.turns), statistics.median(self.loop_turns)
        return asdict(self) | {"losses": losses, "seconds": seconds, "loop_seconds": loop_seconds}


def run(options: argparse.Namespace) -> None:
    try:
        options.h = as_step(options.h, np.dtype(options.dtype))
    except ValueError as error:
        raise UsageError(f"argument --h: {error}") from error
    arguments.check_outputs(options, json="written", plot="written")
    if options.plot is not None and options.steps:
        raise UsageError("argument --plot: --steps has no plot")
    arguments.check_picture(options.plot)
    kind = arguments.network_of(options)
    if options.steps and kind not in ("two-layer", "multi-layer"):
        raise UsageError("argument --steps: it is for networks of affine layers and activations alone")
    data = _load(options)
    print(f"data: {data.name}", flush=True)
    with arguments.blas_threads(options.threads):
        net = _network(kind, options)
        results = _compare_steps(data, net) if options.steps else _compare_methods(data, net, options)
    if options.json is not None:
        arguments.write_json(options.json, {"data": data.name, "seed": options.seed} | results)


def _compare_steps(data: _Data, net: BaseNetwork) -> dict[str, Any]:
    steps = compare_steps(net, data.x, data.t)
    print(steps)
    return {"steps": steps.to_dict()}


def _compare_methods(data: _Data, net: BaseNetwork, options: argparse.Namespace) -> dict[str, Any]:
    comparison = compare_gradients(net, data.x, data.t, h=options.h, full=options.full, progress=sys.stderr.isatty())
    print(comparison, end="\n\n", flush=True)
    replay = _replay(data, options)
    print(replay)
    if options.plot is not None:
        with arguments.writing(options.plot):
            comparison.plot(options.plot)
    return {"comparison": comparison.to_dict(), "replay": replay.to_dict()}


def _load(options: argparse.Namespace) -> _Data:
    count = options.batch
    if not arguments.wants_mnist(options):
        return _Data(*datasets.make_digits(count, seed=options.seed), f"{count:,} {arguments.describe_digits(options)}")
    (x, t), _ = arguments.load_mnist(options.data_dir)
    if count > len(x):
        raise UsageError(f"argument --batch: MNIST has {len(x):,} training images, not {count:,}")
    return _Data(x[:count], t[:count], f"the first {count:,} training images of MNIST")


def _network(kind: str, options: argparse.Namespace) -> BaseNetwork:
    hidden, made = options.hidden, {"dtype": options.dtype, "seed": options.seed}
    if kind == "two-layer":
        return TwoLayerNet(PIXELS, hidden[0], CLASSES, **made)
    if kind == "conv":
        return SimpleConvNet(hidden_size=hidden[0], output_size=CLASSES, **made)
    if kind == "batch-norm":
        return MultiLayerNet(PIXELS, hidden, CLASSES, use_batchnorm=True, **made)
    if kind == "dropout":
        return MultiLayerNet(PIXELS, hidden, CLASSES, dropout_ratio=arguments.DROPOUT_RATIO, **made)
    # With the default of 0.01, almost no gradient would reach the first layer.
    return MultiLayerNet(PIXELS, hidden, CLASSES, activation="sigmoid", weight_init_std="xavier", **made)


def _replay(data: _Data, options: argparse.Namespace) -> _Replay:
    """Run the notes' program: gradient descent on one image with the numerical gradient.

    It takes the image whose loss is nearest to log 10, that of a guess. With such weights, the probability of the right
    digit is below the 1e-7 in the logarithm for many images, where there is almost no gradient.
    """
    net = TwoLayerNet(PIXELS, REPLAY_HIDDEN, CLASSES, dtype=options.dtype)
    rng = np.random.default_rng(options.seed)
    for parameter in net.params.values():
        parameter[...] = rng.standard_normal(parameter.shape)
    of_each = np.array([net.loss(x, t) for x, t in zip(data.x, data.t, strict=True)])
    image = int(np.argmin(np.abs(of_each - math.log(CLASSES))))
    x, t = data.x[image : image + 1], data.t[image : image + 1]
    loop = compare_gradients(
        net, x, t, h=options.h, methods=[BASELINE.name], full=options.full, progress=sys.stderr.isatty()
    )[BASELINE.name]

    _descend(copy.deepcopy(net), x, t, options.h)
    turns: list[float] = []
    while len(turns) < REPLAY_TURNS and sum(turns) < REPLAY_SECONDS:
        time.sleep(REPLAY_PAUSE)
        losses, seconds = _descend(copy.deepcopy(net), x, t, options.h)
        turns.append(seconds)
    loop_turns = tuple(REPLAY_STEPS * seconds for seconds in loop.turns)
    return _Replay(image, tuple(losses), tuple(turns), loop_turns, loop.sampled, loop.blas_threads)


def _descend(net: BaseNetwork, x: npt.ArrayLike, t: npt.ArrayLike, h: float) -> tuple[list[float], float]:
    """Return the losses at the start and after every step, and the time in seconds."""
    start = time.perf_counter()
    losses = [net.loss(x, t)]
    for _ in range(REPLAY_STEPS):
        for name, gradient in net.numerical_gradient(x, t, h=h).items():
            net.params[name] -= REPLAY_RATE * gradient
        losses.append(net.loss(x, t))
    return losses, time.perf_counter() - start
