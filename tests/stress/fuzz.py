"""A long run of the hostile inputs of `tests/support/hostile.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random

import hostile
from tests.stress.parts import Outcome, Part

CHUNK = 5000  # inputs of one process


def fuzz(count: int) -> Outcome:
    """Each target gets its share, in turns, so that a run that is ended early has tried all of them."""
    failures: list[str] = []
    share = -(-count // len(hostile.TARGETS))
    for first in range(0, share, CHUNK):
        end = min(first + CHUNK, share)
        for target in hostile.TARGETS:
            found = _chunk(target, first, end)
            print(f"{target}: {end} of {share}", *found, sep="\n", flush=True)
            failures += found
    return share * len(hostile.TARGETS), failures


def _chunk(target: str, seed: int, end: int) -> list[str]:
    """Inputs of one target. A process that dies tells which input it had, and the next goes on behind it."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "at"
        while seed < end:
            command = [sys.executable, "-m", "tests.stress.fuzz", target, str(seed), str(end), str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found += done.stdout.splitlines()
            if done.returncode == 0:
                break
            seed = int(place.read_text()) + 1
            found.append(f"{target} {seed - 1}: exit code {done.returncode}, {done.stderr[-300:]}")
    return found


def main(target: str, first: str, end: str, place: str) -> None:
    """Try the inputs of a range, and print one line for each exception that is not documented."""
    at = os.open(place, os.O_CREAT | os.O_WRONLY)
    for seed in range(int(first), int(end)):
        os.pwrite(at, b"%12d" % seed, 0)
        try:
            hostile.TARGETS[target](Random(f"{target} {seed}"))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{target} {seed}: {error!r} in {where.filename}:{where.lineno}")


PARTS = {"fuzz": Part(fuzz, 1_000_000)}

if __name__ == "__main__":
    main(*sys.argv[1:])
