"""The command line: ``fastnet compare`` and ``fastnet info``."""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import importlib.util
import io
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastnet import _checks, backends
from fastnet._base import BaseNetwork
from fastnet._build_info import build_info
from fastnet._gradient_check import as_step
from fastnet._measuring import BASELINE
from fastnet._text import format_seconds, three_digits
from fastnet.compare import compare_gradients
from fastnet.networks import MultiLayerNet, TwoLayerNet
from fastnet.steps import compare_steps

__all__ = ["main"]

PIXELS, CLASSES = 784, 10
REPLAY_HIDDEN, REPLAY_STEPS, REPLAY_RATE = 50, 2, 0.06
REPLAY_REPEATS, REPLAY_SECONDS = 5, 0.5  # its time is a median of so many, or of what fits into so long
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended: 128 + SIGINT

Value = TypeVar("Value", int, float)


class _UsageError(Exception):
    """What the user asked for can't be done; the message says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr for arguments that can't be used; with 0 for ``--help`` and
        ``--version``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without µ and × shows ? instead
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _activate(getattr(options, "threads", None))
        options.run(options)
    except _UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _activate(threads: int | None) -> None:
    """Choose the backend and its threads now, since the environment may ask for what is not there."""
    try:
        backends.active()
    except ValueError as error:
        raise _UsageError(str(error)) from error
    if threads is not None:
        backends.set_num_threads(threads)


# Arguments -------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnet", description="The numerical gradient of a neural network, beside backprop."
    )
    parser.add_argument("--version", action="version", version=f"fastnet {version('fastnet')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compare(commands.add_parser("compare", help="time every method's gradient and check it"))
    info = commands.add_parser("info", help="show which backend, instruction set and threads are in use")
    info.set_defaults(run=_info)
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compute the gradient of one batch by every method: the time of each, and how far it is from backprop. "
        "Then replay the program that this library started from: two steps of gradient descent on one image."
    )
    count = _number(int, _checks.as_count)
    seed = _number(int, lambda value, name: _checks.as_count(value, name, least=0))
    step = _number(float, _checks.as_positive)
    add = parser.add_argument
    data = ("auto", "mnist", "digits")
    add("--data", choices=data, default="auto", help="auto, the default: MNIST if it is there, else drawn digits")
    add("--data-dir", metavar="DIR", type=Path, help="where the MNIST files are")
    add("--batch", metavar="N", type=count, default=100, help="how many images (default: 100)")
    add("--hidden", metavar="N", type=count, nargs="+", default=[50], help="hidden layers' units (default: 50)")
    add("--dtype", choices=("float64", "float32"), default="float64", help="default: float64")
    add("--threads", metavar="N", type=count, help="default: one for each processor")
    add("--h", metavar="H", type=step, help="the step (default: 1e-4; 1e-2 for float32)")
    add("--seed", metavar="N", type=seed, default=0, help="of the weights and of drawn digits (default: 0)")
    add("--full", action="store_true", help="time every method on every parameter, which takes minutes")
    add("--steps", action="store_true", help="instead: the error by step, of the loop and of exact differences")
    add("--json", metavar="FILE", type=Path, help="write the results there, too")
    add("--plot", metavar="FILE", type=Path, help="draw the times there: a .png, .svg, .pdf or other picture")
    parser.set_defaults(run=_compare)


def _number(kind: type[Value], check: Callable[[object, str], Value]) -> Callable[[str], Value]:
    """Return a type of argument: what `check` accepts, with the message that it has for the rest."""

    def parse(text: str) -> Value:
        try:
            value = kind(text)
        except ValueError:
            wanted = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
        try:
            return check(value, "the number")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


# fastnet info ----------------------------------------------------------------------------------------------


def _info(options: argparse.Namespace) -> None:
    info = build_info()
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:{width}}  {'-' if value is None else value}")


# fastnet compare -------------------------------------------------------------------------------------------


class _Data(NamedTuple):
    """Images, shape (batch, 784), their labels, and what they are in words."""

    x: npt.NDArray[np.float32]
    t: npt.NDArray[np.int64]
    name: str


@dataclass(frozen=True)
class _Replay:
    """What the notes' program printed, and what it took."""

    image: int  # its number in the batch
    losses: tuple[float, ...]  # at the start, and after every step
    seconds: float
    loop_seconds: float  # of the same by the NumPy loop
    loop_sampled: bool

    def __str__(self) -> str:
        names = ["loss at the start", *(f"loss after step {k}" for k in range(1, len(self.losses)))]
        lines = [f"{name}  {loss:.6f}" for name, loss in zip(names, self.losses, strict=True)]
        loop = format_seconds(self.loop_seconds) + ("*" if self.loop_sampled else "")
        faster = three_digits(self.loop_seconds / self.seconds)
        network = f"{PIXELS}-{REPLAY_HIDDEN}-{CLASSES}"
        return "\n".join(
            [
                f"The notes' program: a {network} network with all parameters from N(0, 1), one image (number",
                f"{self.image} of these), {REPLAY_STEPS} steps of the numerical gradient at lr {REPLAY_RATE}",
                "",
                *lines,
                "",
                f"in {format_seconds(self.seconds)}; the NumPy loop takes {loop} ({faster} times as long)",
            ]
        )


def _compare(options: argparse.Namespace) -> None:
    try:
        options.h = as_step(options.h, np.dtype(options.dtype))
    except ValueError as error:
        raise _UsageError(f"argument --h: {error}") from error
    _check_outputs(options)
    data = _load(options)
    print(f"data: {data.name}", flush=True)
    with _blas_threads(options.threads):
        net = _network(options.hidden, options.dtype, options.seed)
        results = _compare_steps(data, net) if options.steps else _compare_methods(data, net, options)
    if options.json is not None:
        text = json.dumps({"data": data.name, "seed": options.seed} | results, indent=2, allow_nan=False)
        options.json.write_text(text + "\n", encoding="utf-8")


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
        comparison.plot(options.plot)
    return {"comparison": comparison.to_dict(), "replay": _finite(asdict(replay))}


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse now what could not be written after the work."""
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if path is None:
            continue
        existed = path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise _UsageError(f"argument {name}: can't write {str(path)!r}: {error.strerror}") from error
        if not existed:
            path.unlink()
    if options.plot is not None and options.steps:
        raise _UsageError("argument --plot: there is no picture of --steps")
    if options.plot is not None:
        from fastnet.plotting import check_format

        try:
            check_format(options.plot)
        except (ImportError, ValueError) as error:
            raise _UsageError(f"argument --plot: {error}") from error


def _finite(replay: dict[str, Any]) -> dict[str, Any]:
    return replay | {"losses": [loss if math.isfinite(loss) else None for loss in replay["losses"]]}


def _load(options: argparse.Namespace) -> _Data:
    from fastnet import datasets

    folder, count = options.data_dir, options.batch
    if folder is not None and not folder.is_dir():
        raise _UsageError(f"argument --data-dir: there is no folder {str(folder)!r}")
    if options.data == "digits":
        return _Data(*datasets.make_digits(count, seed=options.seed), f"{count:,} digits drawn by fastnet")
    if options.data == "auto" and folder is None and datasets.find_mnist() is None:
        name = f"{count:,} digits drawn by fastnet, since there is no MNIST (see --data-dir)"
        return _Data(*datasets.make_digits(count, seed=options.seed), name)
    if folder is not None and datasets.find_mnist(folder) is None:
        raise _UsageError(f"argument --data-dir: there are no MNIST files in {str(folder)!r}")
    try:
        (x, t), _ = datasets.load_mnist(data_dir=folder)
    except (ImportError, OSError, ValueError) as error:
        raise _UsageError(f"can't load MNIST: {error}") from error
    if count > len(x):
        raise _UsageError(f"argument --batch: MNIST has {len(x):,} training images, not {count:,}")
    return _Data(x[:count], t[:count], f"the first {count:,} training images of MNIST")


def _network(hidden: Sequence[int], dtype: str, seed: int) -> BaseNetwork:
    if len(hidden) == 1:
        return TwoLayerNet(PIXELS, hidden[0], CLASSES, dtype=dtype, seed=seed)
    # With 0.01, nothing would reach the first layer.
    return MultiLayerNet(
        PIXELS, hidden, CLASSES, activation="sigmoid", weight_init_std="xavier", dtype=dtype, seed=seed
    )


def _replay(data: _Data, options: argparse.Namespace) -> _Replay:
    """Run the notes' program: gradient descent on one image with the numerical gradient.

    It takes the image whose loss is nearest to that of a guess, log 10. Networks with such weights misjudge many
    images beyond hope: a probability below the 1e-7 inside the logarithm has no gradient to descend.
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

    times: list[float] = []
    while len(times) < REPLAY_REPEATS and sum(times) < REPLAY_SECONDS:
        losses, seconds = _descend(copy.deepcopy(net), x, t, options.h)
        times.append(seconds)
    return _Replay(image, tuple(losses), statistics.median(times), REPLAY_STEPS * loop.seconds, loop.sampled)


def _descend(net: BaseNetwork, x: npt.ArrayLike, t: npt.ArrayLike, h: float) -> tuple[list[float], float]:
    """Return the losses at the start and after every step, and what it took."""
    start = time.perf_counter()
    losses = [net.loss(x, t)]
    for _ in range(REPLAY_STEPS):
        for name, gradient in net.numerical_gradient(x, t, h=h).items():
            net.params[name] -= REPLAY_RATE * gradient
        losses.append(net.loss(x, t))
    return losses, time.perf_counter() - start


@contextlib.contextmanager
def _blas_threads(count: int | None) -> Iterator[None]:
    """Let NumPy's matrix product have no more threads than the others, where threadpoolctl can see to it."""
    if count is None:
        yield
    elif importlib.util.find_spec("threadpoolctl") is None:
        print("NumPy's matrix product keeps its own number of threads: threadpoolctl is not installed")
        yield
    else:
        threadpoolctl = importlib.import_module("threadpoolctl")
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield
