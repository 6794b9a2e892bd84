"""The entry point: run the chosen command and return the exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from fastnet import backends
from fastnet.backends import build_info
from fastnet.cli import check, compare, train
from fastnet.cli.arguments import CommandError, Parser, UsageError

FAILED = 1  # The exit code of a command that failed while it was running.
INTERRUPTED = 130  # The exit code of a program that Ctrl-C ended: 128 + SIGINT.
TERMINATED = 143  # The same of SIGTERM, as kill sends it.
PIPE_CLOSED = 141  # The exit code of a program whose reader has gone, as head does: 128 + SIGPIPE.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code: 0; 1 if a gradient did not pass, a training diverged, something could not be written, or there
        was too little memory; 130 after Ctrl-C; 141 if the reader of the output has gone.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr if the arguments can't be used; with code 0 for ``--help`` and
        ``--version``; with code 143 after SIGTERM, so that no temporary file is left.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A terminal without µ and × shows ? instead.
    try:
        try:
            with _exit_at_sigterm():
                return _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # Here, where a failure can still be reported.
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        if error.filename is None:  # Whatever else writes names its file.
            _discard_output()
            return _fail(f"can't write to the standard output: {error.strerror}")
        return _fail(f"can't write: {error}")


def _run(argv: Sequence[str] | None) -> int:
    options, unknown = _parser().parse_known_args(argv)
    if unknown:
        options.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        _activate(getattr(options, "threads", None))
        options.run(options)
    except UsageError as error:
        options.refuse(str(error))
    except CommandError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory: {error}" if str(error) else "not enough memory")
    return 0


@contextlib.contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, where it would end the process; only the main thread may say so."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fail(message: str) -> int:
    print(f"fastnet: error: {message}", file=sys.stderr)
    return FAILED


def _discard_output() -> None:
    """Send what is still to be written nowhere, so that Python does not fail once more when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _activate(threads: int | None) -> None:
    """Choose the backend and its threads now, since the environment may name what is not available."""
    try:
        build_info()  # It loads the extension, too, where another backend is in use.
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
    if threads is not None:
        backends.set_num_threads(threads)


def _parser() -> Parser:
    parser = Parser(prog="fastnet", description="Numerical gradients of neural networks, compared with backprop.")
    parser.add_argument("--version", action="version", version=f"fastnet {version('fastnet')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    compare.add_arguments(commands.add_parser("compare", help="time and check the gradient by every method"))
    check.add_arguments(commands.add_parser("check", help="check a gradient of your own against central differences"))
    train.add_arguments(commands.add_parser("train", help="train a network on handwritten digits"))
    info = commands.add_parser("info", help="show which backend, instruction set and threads are in use")
    info.set_defaults(run=_info, refuse=info.error)
    return parser


def _info(options: Any) -> None:
    info = build_info()
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:{width}}  {'-' if value is None else value}")
