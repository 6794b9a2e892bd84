"""What the commands share: the parser, argument types, data, output files, and NumPy's threads."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fastnet import datasets
from fastnet._tools import blas, checks
from fastnet.backends import MOST_THREADS
from fastnet.datasets.mnist import locate

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Value = TypeVar("Value", int, float)


class UsageError(Exception):
    """The arguments can't be used; the message says why."""


class CommandError(Exception):
    """The command failed while it was running; the message says why."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        line = message.replace("\n", " ")
        self.exit(2, f"fastnet: error: {line} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is None or file is sys.stderr:
            super()._print_message(message, file)
        else:  # argparse would ignore that the help can't be written.
            file.write(message)


# Arguments -------------------------------------------------------------------------------------------------


def number(kind: type[Value], check: Callable[[object, str], Value]) -> Callable[[str], Value]:
    """Return an argument type for argparse that accepts what `check` accepts, and reports its messages."""

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


MOST = 1_000_000_000  # More of anything would not fit into an array's size.
count = number(int, lambda value, name: checks.as_count(value, name, most=MOST))
count_or_zero = number(int, lambda value, name: checks.as_count(value, name, least=0))
threads = number(int, lambda value, name: checks.as_count(value, name, most=MOST_THREADS))
positive = number(float, checks.as_positive)


THREADS = f"number of threads, at most {MOST_THREADS:,} (default: OMP_NUM_THREADS, or one for each processor)"


def add_data_arguments(add: Callable[..., Any]) -> None:
    choices = ("auto", "mnist", "digits")
    add("--data", choices=choices, default="auto", help="auto (default): MNIST if it is found, otherwise drawn digits")
    add("--data-dir", metavar="DIR", type=Path, help="the folder of the MNIST files (default: FASTNET_DATA_DIR)")


NETWORKS = ("two-layer", "multi-layer", "batch-norm", "dropout", "conv")
DROPOUT_RATIO = 0.3  # of --network dropout


def add_network_argument(add: Callable[..., Any]) -> None:
    words = (
        "two-layer, multi-layer, batch-norm (after each hidden affine layer), dropout (in the hidden layers) or conv "
        "(a convolution and pooling before them); default: two-layer or multi-layer, by --hidden"
    )
    add("--network", choices=NETWORKS, help=words)


def network_of(options: argparse.Namespace) -> str:
    """The kind of network that is asked for."""
    several = len(options.hidden) > 1
    if options.network is None:
        return "multi-layer" if several else "two-layer"
    if several and options.network in ("two-layer", "conv"):
        raise UsageError(
            f"argument --hidden: a {options.network} network has one hidden layer, not {len(options.hidden)}"
        )
    return str(options.network)


# Data ------------------------------------------------------------------------------------------------------


def wants_mnist(options: argparse.Namespace) -> bool:
    """Whether to load MNIST; otherwise digits are drawn."""
    if options.data == "digits":
        if options.data_dir is not None:
            raise UsageError("argument --data-dir: it is for MNIST, not for --data digits")
        return False
    try:
        if options.data_dir is not None:
            locate(options.data_dir, "argument --data-dir")
            return True
        return datasets.find_mnist() is not None or options.data == "mnist"
    except OSError as error:  # A folder that is named and holds no MNIST is a mistake.
        raise UsageError(str(error)) from error


def load_mnist(folder: Path | None) -> Any:
    """Load MNIST, or raise UsageError."""
    try:
        return datasets.load_mnist(data_dir=folder)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"can't load MNIST: {error}") from error


def describe_digits(options: argparse.Namespace) -> str:
    """Say that digits are drawn, and why."""
    return "digits drawn by fastnet" + (
        "" if options.data == "digits" else ", since there is no MNIST (see --data-dir)"
    )


# Files -----------------------------------------------------------------------------------------------------


def check_outputs(options: argparse.Namespace, **kinds: str) -> None:
    """Raise UsageError if a file that one of the options named in `kinds` names can't be written.

    No two of them may be one file, whatever its spellings and links. The kind ``"replaced"`` means a regular file.
    """
    owners: dict[tuple[int, int], str] = {}
    with contextlib.ExitStack() as created:
        for name, kind in kinds.items():
            path = getattr(options, name)
            if path is None:
                continue
            existed = os.path.exists(path)
            try:
                with open(path, "ab") as file:
                    found = os.fstat(file.fileno())
            except OSError as error:
                raise UsageError(f"argument --{name}: can't write {str(path)!r}: {error.strerror}") from error
            if not existed:
                created.callback(os.unlink, os.path.realpath(path))
            if kind == "replaced" and not stat.S_ISREG(found.st_mode):
                raise UsageError(f"argument --{name}: can't write {str(path)!r}: it is not a regular file")
            owner = owners.setdefault((found.st_dev, found.st_ino), name)
            if owner != name:
                raise UsageError(f"argument --{name}: {str(path)!r} is the file of --{owner} too")


def check_picture(path: Path | None) -> None:
    """Raise UsageError if the plot can't be written in the format of its suffix."""
    if path is None:
        return
    from fastnet.plotting import check_format

    try:
        check_format(path)
    except (ImportError, ValueError) as error:
        raise UsageError(f"argument --plot: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write the file into CommandError, which names it."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"can't write {str(path)!r}: {error.strerror}") from error


def write_json(path: Path, results: dict[str, Any]) -> None:
    with writing(path):
        path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


# Threads ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Limit NumPy's matrix products to `count` threads, or say that they can't be; None sets no limit."""
    if count is not None and not blas.can_be_limited():
        print("NumPy's matrix products keep their own number of threads: threadpoolctl is not installed")
    with blas.limited(count):
        yield
