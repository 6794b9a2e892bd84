"""``fastnet train``: train a network on digits, by backprop or by numerical gradients alone."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import datasets, optimizers
from fastnet._tools import checks
from fastnet._tools.checks import as_step
from fastnet._tools.text import format_seconds
from fastnet.backends import build_info
from fastnet.cli import arguments
from fastnet.cli.arguments import CommandError, UsageError
from fastnet.networks import ALGORITHMS, MultiLayerNet, SimpleConvNet
from fastnet.networks.base import BaseNetwork
from fastnet.networks.textbook import ACTIVATIONS, RECTIFIERS
from fastnet.training import DivergenceError, SaveBest, Trainer
from fastnet.training.history import HEAD
from fastnet.training.inputs import describe_network

PIXELS, CLASSES = 784, 10
DRAWN_ROWS = 5000, 1000  # The number of drawn digits, to train and to test with.
SGD_RATE = 0.1  # The notes' learning rate; other optimizers use their own defaults.
STEPS = 3  # The number of steps of the step schedule, each with a tenth of the previous learning rate.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network on handwritten digits, and print the accuracy on the test images after each epoch. "
        "Ctrl-C ends the training and keeps what was learned."
    )
    count, count_or_zero, positive = arguments.count, arguments.count_or_zero, arguments.positive
    fraction = arguments.number(float, checks.as_fraction)
    add = parser.add_argument_group("data").add_argument
    arguments.add_data_arguments(add)
    for what, rows in zip(("train", "test"), DRAWN_ROWS, strict=True):
        words = f"{what} with the first N images (default: all of MNIST, or {rows:,} drawn digits)"
        add(f"--{what}-size", metavar="N", type=count, help=words)

    add = parser.add_argument_group("network").add_argument
    arguments.add_network_argument(add)
    add("--hidden", metavar="N", type=count, nargs="+", default=[50], help="units of each hidden layer (default: 50)")
    add("--activation", choices=tuple(ACTIVATIONS), default="relu", help="of the hidden layers (default: relu)")
    words = "initial weights: he, xavier or a number (default: by --activation)"
    add("--init", metavar="STD", type=_init, help=words)
    not_negative = arguments.number(float, checks.as_not_negative)
    words = "λ of the penalty λ/2·ΣW² over all weights (default: 0)"
    add("--weight-decay", metavar="L", type=not_negative, default=0.0, help=words)
    add("--batchnorm", action="store_true", help="add batch normalization after each hidden affine layer")
    add("--dropout", metavar="RATIO", type=fraction, default=0.0, help="in the hidden layers (default: 0)")
    add("--dtype", choices=("float64", "float32"), default="float32", help="of the network (default: float32)")

    group = parser.add_argument_group("training")
    add = group.add_argument
    add(
        "--gradient",
        choices=("backprop", "numerical"),
        default="backprop",
        help="how it is computed (default: backprop)",
    )
    add("--algorithm", choices=ALGORITHMS, help="algorithm of the numerical gradient (default: auto)")
    add("--h", metavar="H", type=positive, help="step of the numerical gradient (default: 1e-2; 1e-4 for float64)")
    add("--optimizer", choices=tuple(optimizers.OPTIMIZERS), default="adam", help="rule of the updates (default: adam)")
    add(
        "--lr",
        metavar="RATE",
        type=positive,
        help="learning rate (default: 0.1 for sgd, 0.001 for adam, else 0.01)",
    )
    add("--momentum", metavar="M", type=fraction, help="momentum of momentum and nesterov (default: 0.9)")
    words = "of the learning rate (default: constant)"
    add("--schedule", choices=("constant", "step", "cosine"), default="constant", help=words)
    add("--warmup", metavar="N", type=count_or_zero, help="iterations of rising rate, for --schedule cosine")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", metavar="N", type=count, help="number of epochs (default: 10)")
    length.add_argument("--iterations", metavar="N", type=count, help="number of updates, instead of --epochs")
    add("--batch", metavar="N", type=count, default=100, help="images in each batch (default: 100)")
    add("--seed", metavar="N", type=count_or_zero, default=0, help="of weights, shuffling, drawn digits (default: 0)")
    add("--threads", metavar="N", type=arguments.threads, help=arguments.THREADS)

    add = parser.add_argument_group("files").add_argument
    add("--save", metavar="FILE", type=Path, help="write the parameters of the best epoch to this .npz file")
    add("--checkpoint", metavar="FILE", type=Path, help="write a checkpoint to this file after each epoch")
    add("--resume", metavar="FILE", type=Path, help="continue from this checkpoint; give the other options as before")
    add("--json", metavar="FILE", type=Path, help="also write the results to this file")
    add("--plot", metavar="FILE", type=Path, help="plot loss and accuracy to this file: .png, .svg, .pdf or other")
    parser.set_defaults(run=run, refuse=parser.error)


def _init(text: str) -> str | float:
    return text if text in ("he", "xavier") else arguments.positive(text)


class _Data(NamedTuple):
    """Images, shape (rows, 784), and labels to train and to test with, and a description."""

    train: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
    test: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
    name: str


class _Table:
    """A callback that prints a line for each epoch when it has ended."""

    def __init__(self) -> None:
        self.printed = 0

    def __call__(self, trainer: Trainer) -> None:
        for row in trainer.history.rows[self.printed :]:
            print(row.to_line(), flush=True)
        self.printed = len(trainer.history.rows)


def run(options: argparse.Namespace) -> None:
    _check(options)
    net = _network(options)
    data = _load(options)
    print(f"data: {data.name}", flush=True)
    with arguments.blas_threads(options.threads):
        table = _Table()
        trainer = _trainer(options, net, data, table)
        if options.resume is not None:
            _resume(trainer, options.resume)
        print(_describe(trainer, data, options), end="\n\n")
        print(HEAD, "-" * len(HEAD), sep="\n", flush=True)
        failure: BaseException | None = None
        try:
            try:
                trainer.fit()
            except (DivergenceError, KeyboardInterrupt) as error:
                failure = error
            table(trainer)  # Ctrl-C can come between the end of an epoch and its printing.
            _finish(trainer, data, options, failure)
        except ValueError as error:  # Only the first iteration tells whether the algorithm suits the network.
            raise UsageError(str(error)) from error
    if isinstance(failure, DivergenceError):
        raise CommandError(str(failure)) from failure
    if failure is not None:
        raise failure


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError for options that exclude each other, and for files that can't be written."""
    for name in ("algorithm", "h"):
        if getattr(options, name) is not None and options.gradient != "numerical":
            raise UsageError(f"argument --{name}: it is for --gradient numerical")
    if options.momentum is not None and options.optimizer not in ("momentum", "nesterov"):
        raise UsageError(f"argument --momentum: it is for momentum and nesterov, not for {options.optimizer}")
    if options.warmup is not None and options.schedule != "cosine":
        raise UsageError("argument --warmup: it is for --schedule cosine")
    try:
        options.h = as_step(options.h, np.dtype(options.dtype))
    except ValueError as error:
        raise UsageError(f"argument --h: {error}") from error
    if options.resume is not None and not os.path.isfile(options.resume):
        raise UsageError(f"argument --resume: there is no file {str(options.resume)!r}")
    for name in ("save", "json", "plot"):
        path = getattr(options, name)
        if path is not None and options.resume is not None and os.path.exists(path) and path.samefile(options.resume):
            raise UsageError(f"argument --{name}: {str(path)!r} is the checkpoint of --resume")
    arguments.check_outputs(options, save="replaced", checkpoint="replaced", json="written", plot="written")
    arguments.check_picture(options.plot)


def _load(options: argparse.Namespace) -> _Data:
    if not arguments.wants_mnist(options):
        sizes = options.train_size or DRAWN_ROWS[0], options.test_size or DRAWN_ROWS[1]
        # Training uses even seeds and tests use odd ones, so that no digit is in both sets.
        train = datasets.make_digits(sizes[0], seed=2 * options.seed)
        test = datasets.make_digits(sizes[1], seed=2 * options.seed + 1)
        name = f"{sizes[0]:,} {arguments.describe_digits(options)}, to train with; {sizes[1]:,} to test with"
    else:
        sets = arguments.load_mnist(options.data_dir)
        wanted = options.train_size, options.test_size
        for (x, _), size, what in zip(sets, wanted, ("train", "test"), strict=True):
            if size is not None and size > len(x):
                raise UsageError(f"argument --{what}-size: MNIST has {len(x):,} such images, not {size:,}")
        train, test = ((x[:size], t[:size]) for (x, t), size in zip(sets, wanted, strict=True))
        name = f"{len(train[0]):,} images of MNIST to train with; {len(test[0]):,} to test with"
    if options.batch > len(train[0]):
        raise UsageError(f"argument --batch: there are {len(train[0]):,} images to train with, not {options.batch:,}")
    return _Data(train, test, name)


def _network(options: argparse.Namespace) -> BaseNetwork:
    kind, init = arguments.network_of(options), options.init
    made: dict[str, Any] = {"dtype": options.dtype, "seed": options.seed}
    if kind == "conv":
        if options.batchnorm or options.dropout or options.weight_decay or options.activation != "relu":
            raise UsageError("argument --network: conv has no --batchnorm, --dropout, --weight-decay or --activation")
        std = "he" if init is None else init
        return SimpleConvNet(hidden_size=options.hidden[0], output_size=CLASSES, weight_init_std=std, **made)
    if init is None:
        init = "he" if options.activation in RECTIFIERS else "xavier"
    return MultiLayerNet(
        PIXELS,
        options.hidden,
        CLASSES,
        activation=options.activation,
        weight_init_std=init,
        weight_decay_lambda=options.weight_decay,
        use_batchnorm=options.batchnorm or kind == "batch-norm",
        dropout_ratio=_dropout_ratio(options),
        **made,
    )


def _dropout_ratio(options: argparse.Namespace) -> float:
    """The ratio that is asked for, or that of ``--network dropout``."""
    ratio: float = options.dropout
    return arguments.DROPOUT_RATIO if options.network == "dropout" and not ratio else ratio


def _trainer(options: argparse.Namespace, net: BaseNetwork, data: _Data, table: _Table) -> Trainer:
    per_epoch = math.ceil(len(data.train[0]) / options.batch)
    iterations = options.iterations or (options.epochs or 10) * per_epoch
    callbacks: list[Callable[[Trainer], object]] = [table]
    if options.save is not None:
        callbacks.append(SaveBest(options.save))
    if options.checkpoint is not None:
        callbacks.append(lambda trainer: trainer.save(options.checkpoint))
    return Trainer(
        net,
        *data.train,
        *data.test,
        optimizer=_optimizer(options, iterations),
        batch_size=options.batch,
        iterations=iterations,
        gradient=options.gradient,
        h=options.h,
        algorithm=options.algorithm or "auto",
        seed=options.seed,
        callbacks=callbacks,
    )


def _optimizer(options: argparse.Namespace, iterations: int) -> optimizers.Optimizer:
    settings: dict[str, Any] = {} if options.momentum is None else {"momentum": options.momentum}
    if options.lr is not None:
        settings["lr"] = options.lr
    elif options.optimizer == "sgd":
        settings["lr"] = SGD_RATE
    optimizer = optimizers.OPTIMIZERS[options.optimizer](**settings)
    rate = optimizer.lr
    assert isinstance(rate, float)
    if options.schedule == "step":
        optimizer.lr = optimizers.StepDecay(rate, math.ceil(iterations / STEPS))
    elif options.schedule == "cosine":
        try:
            optimizer.lr = optimizers.CosineAnnealing(rate, iterations, options.warmup or 0)
        except ValueError as error:
            raise UsageError(f"argument --warmup: {error}") from error
    return optimizer


def _resume(trainer: Trainer, path: Path) -> None:
    try:
        trainer.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"argument --resume: {error}") from error
    print(f"continuing after {trainer.iteration:,} iterations ({trainer.epoch:.4g} epochs), from {path}")


def _describe(trainer: Trainer, data: _Data, options: argparse.Namespace) -> str:
    """Describe the network and how it is trained."""
    parameters = sum(p.size for p in trainer.net.params.values())
    ratio = _dropout_ratio(options)
    network = describe_network(trainer.net, data.train[0])
    words = [f"{network} of {parameters:,} parameters", options.dtype, options.activation]
    words += [f"dropout ratio {ratio:g}"] if ratio else []
    words += [f"weight decay {options.weight_decay:g}"] if options.weight_decay else []
    gradient = options.gradient
    if gradient == "numerical":
        gradient += f" gradients (h = {trainer.h:g}, {trainer.algorithm})"
    length = f"{trainer.iterations:,} iterations, {trainer.iterations / trainer.iterations_per_epoch:.4g} epochs"
    how = f"{gradient}, {trainer.optimizer!r}, batches of {trainer.batch_size:,}: {length}"
    return f"{', '.join(words)}\n{how}"


def _finish(trainer: Trainer, data: _Data, options: argparse.Namespace, failure: BaseException | None) -> None:
    """Write the files and print how the training ended; the last line is the accuracy."""
    history, net = trainer.history, trainer.net
    diverged = isinstance(failure, DivergenceError)
    print()
    if failure is not None and not diverged:
        print(f"interrupted after {trainer.iteration:,} iterations ({trainer.epoch:.4g} epochs)")
        if options.checkpoint is not None and trainer.iteration:
            trainer.save(options.checkpoint)
    if trainer.iteration:
        print(f"{trainer.iteration:,} iterations in {format_seconds(trainer.seconds)}")
    if history.rows:
        best = next(row for row in history.rows if row.epoch == trainer.best_epoch)
        print(f"best test accuracy: {best.test_accuracy:.4f}, after epoch {best.epoch:.4g}")
    restored = trainer.best_params is not None
    if restored:
        trainer.restore_best()
    # From here on the parameters are those that are saved.
    accuracy = net.accuracy(*data.test, batch_size=1000) if restored or not diverged else None
    if options.save is not None and (restored or (trainer.iteration and not diverged)):
        net.save_params(options.save)
        which = f"epoch {trainer.best_epoch:.4g}, the best," if restored else "the end"
        print(f"the parameters of {which} are in {options.save}")
    if options.json is not None:
        given = {name: value for name, value in vars(options).items() if name not in ("run", "refuse")}
        results = {
            "data": data.name,
            "parameters": {name: list(p.shape) for name, p in net.params.items()},
            "options": {name: str(value) if isinstance(value, Path) else value for name, value in given.items()},
            "history": history.to_dict(),
            "test_accuracy": accuracy,
            "best_epoch": trainer.best_epoch,
            "complete": failure is None,
            "build_info": build_info(),
        }
        arguments.write_json(options.json, results)
    if options.plot is not None and trainer.iteration:
        with arguments.writing(options.plot):
            history.plot(options.plot)
    if accuracy is not None:
        print(f"test accuracy: {accuracy:.4f}")
