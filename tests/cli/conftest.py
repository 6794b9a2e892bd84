"""The command line as a process, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastnet
from fastnet import cli
from fastnet.cli import compare

RUN_MODULE = """
import runpy
runpy.run_module("fastnet", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command line with what it must refuse, before any work, and gives back what its one line says."""

    def too_late(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("it went to work")

    monkeypatch.setattr(fastnet.Trainer, "fit", too_late)
    monkeypatch.setattr(compare, "compare_gradients", too_late)

    def main(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        assert ended.value.code == 2
        err = capsys.readouterr().err
        line = re.fullmatch(r"fastnet: error: (.*) \(see fastnet(?: check| compare| train| info)? --help\)\n", err)
        assert line, err
        return line[1]

    return main


@pytest.fixture
def start(package: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m fastnet`` in a fresh interpreter, as `run_python` does; its output is buffered on demand."""
    started: list[subprocess.Popen[str]] = []

    def popen(
        *arguments: object, stdout: Any = subprocess.PIPE, buffered: bool = False, **variables: str
    ) -> subprocess.Popen[str]:
        ours = ("FASTNET_", "NUMBA_", "OMP_", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["PYTHONPATH"] = os.pathsep.join([str(package), *(folder for folder in sys.path if folder)])
        options = ["-S", *([] if buffered else ["-u"]), "-W", "error"]
        process = subprocess.Popen(
            [sys.executable, *options, "-c", RUN_MODULE, *map(str, arguments)],
            env=environment | variables,
            cwd=tmp_path,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()
