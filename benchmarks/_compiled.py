"""What is compiled for a benchmark: C++ programs and libraries, in a folder that goes with the process."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


class NotBuiltError(RuntimeError):
    """Something could not be compiled; the message says why."""


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="benchmarks_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def compiled(name: str, *words: str | Path) -> Path:
    """Return the path of what ``$CXX`` or ``c++`` makes of these sources and flags; `name` is that of the file."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise NotBuiltError(f"there is no C++ compiler {compiler!r}: set CXX")
    output = _folder() / name
    command: Sequence[str | Path] = [compiler, "-std=c++20", "-o", output, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise NotBuiltError(f"not compiled: {errors[0] if errors else 'the compiler gave no reason'}")
    return output
