"""Signals that end a command: Ctrl-C from its first line on, and SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals for one process")

COMMAND = """
import sys
from fastnet.cli import main
print("ready", flush=True)
sys.exit(main())
"""
TRAINING = ["train", "--data", "digits", "--train-size", "200", "--test-size", "50"]
TRAINING += ["--hidden", "8", "--iterations", "1000000000"]


@pytest.fixture
def start(package: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as its script does, after some statements; it has printed "ready"."""
    started: list[subprocess.Popen[str]] = []

    def popen(*arguments: str, before: str = "") -> subprocess.Popen[str]:
        folders = [str(package), *filter(None, sys.path)]
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", before + COMMAND, *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("after", [0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_at_any_moment_of_a_command(start: Callable[..., subprocess.Popen[str]], after: float) -> None:
    process = start(*TRAINING)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted\n"


SLOW_DISK = """
import os, time
def fsync(descriptor):
    print("saving", flush=True)
    for _ in range(6000):  # a signal that comes just before a sleep does not end it
        time.sleep(0.01)
os.fsync = fsync
"""


def test_sigterm_leaves_no_temporary_file(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start(*TRAINING[:-1], "3", "--save", "net.npz", before=SLOW_DISK)
    assert process.stdout is not None
    while process.stdout.readline() != "saving\n":
        assert process.poll() is None
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err == ""
    assert list(tmp_path.iterdir()) == []
