"""The entry point: run the chosen command and return the exit code."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version

from fastnet import backends
from fastnet.backends import build_info
from fastnet.cli import compare, train
from fastnet.cli.arguments import CommandError, UsageError

FAILED = 1  # The exit code of a command that failed while it was running.
INTERRUPTED = 130  # The exit code of a program that Ctrl-C ended: 128 + SIGINT.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code: 0; 1 if a training diverged or a file could not be written at the end; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr if the arguments can't be used; with code 0 for ``--help`` and
        ``--version``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A terminal without µ and × shows ? instead.
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _activate(getattr(options, "threads", None))
        options.run(options)
    except UsageError as error:
        parser.error(str(error))
    except CommandError as error:
        print(f"fastnet: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _activate(threads: int | None) -> None:
    """Choose the backend and its threads now, since the environment may name a backend that is not available."""
    try:
        backends.active()
    except ValueError as error:
        raise UsageError(str(error)) from error
    if threads is not None:
        backends.set_num_threads(threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnet", description="Numerical gradients of neural networks, compared with backprop."
    )
    parser.add_argument("--version", action="version", version=f"fastnet {version('fastnet')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    compare.add_arguments(commands.add_parser("compare", help="time and check the gradient by every method"))
    train.add_arguments(commands.add_parser("train", help="train a network on handwritten digits"))
    info = commands.add_parser("info", help="show which backend, instruction set and threads are in use")
    info.set_defaults(run=_info)
    return parser


def _info(options: argparse.Namespace) -> None:
    info = build_info()
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:{width}}  {'-' if value is None else value}")
