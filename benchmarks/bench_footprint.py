"""Peak memory of a gradient check, and the time of an import, each in a process of its own."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _measure import FULL, Effort, Row, main

from fastnet._tools.text import format_seconds, three_digits

TITLE = "Memory and import"
MIB = 2**20

# What each process runs: what stands before it is there, and then its peak is measured.
PREPARE = """
    import numpy as np, fastnet
    batch, units = {batch}, {units}
    rng = np.random.default_rng(0)
    x, t = rng.random((batch, 784)) * (rng.random((batch, 784)) < 0.2), rng.integers(0, 10, batch)
    net = fastnet.TwoLayerNet(784, units, 10, seed=0)
    net.gradient(x[:1], t[:1]), net.numerical_gradient(x[:1], t[:1])
"""
TORCH = """
    import torch
    shapes = [(784, units), (units,), (units, 10), (10,)]
    params = [torch.tensor(net.params[name], requires_grad=True) for name in ("W1", "b1", "W2", "b2")]
    inputs, labels, rows = torch.tensor(x), torch.tensor(t), torch.arange(batch)
    def loss(W1, b1, W2, b2):
        y = torch.softmax(torch.sigmoid(inputs @ W1 + b1) @ W2 + b2, 1)
        return -torch.log(y[rows, labels] + 1e-7).mean()
    loss(*params).backward()
"""
# Not getrusage: its peak is that of the process that started this one, if that was larger.
PEAK = """
    import re, pathlib
    def kibibytes(name):
        return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is what is in use now
    before = kibibytes("VmHWM")
    {call}
    print(1024 * (kibibytes("VmHWM") - before))
"""
CALLS = {
    "numerical_gradient": "net.numerical_gradient(x, t)",
    "numerical_gradient, incremental": "net.numerical_gradient(x, t, algorithm='incremental')",
    "check_gradient": "fastnet.check_gradient(net, net.gradient, (x, t))",
    "backprop": "net.gradient(x, t)",
    "gradcheck, fast": "torch.autograd.gradcheck(loss, params, fast_mode=True)",
}
SIZES = {
    "784-50-10, batch 100": (100, 50),
    "784-50-10, batch 10,000": (10_000, 50),
    "784-2000-10, batch 100": (100, 2000),
}


def run(program: str) -> float:
    """Return the number that a program prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_program(batch: int, units: int, call: str) -> str:
    """Return a program that prints by how many bytes `call` raises the peak of the memory in use."""
    lines = [PREPARE.format(batch=batch, units=units), TORCH if "torch" in call else ""]
    return "\n".join([*map(textwrap.dedent, lines), textwrap.dedent(PEAK).format(call=call)])


def import_program(module: str) -> str:
    return f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"


def rows(effort: Effort) -> Iterator[Row]:
    repeats = 7 if effort == FULL else 3
    sizes = SIZES if effort == FULL else dict(list(SIZES.items())[:1])
    for what, (batch, units) in sizes.items():
        for name, call in CALLS.items():
            label = f"memory that {name} adds to the peak: {what}, float64"
            if not Path("/proc/self/clear_refs").exists():
                yield Row(label, "skipped", "Linux alone tells")
                continue
            if "torch" in call and importlib.util.find_spec("torch") is None:
                yield Row(label, "missing", "torch is not installed")
                continue
            added = run(peak_program(batch, units, call))
            yield Row(label, f"{three_digits(added / MIB)} MiB", data={"bytes": added, "call": name, "size": what})
    for module in ("numpy", "fastnet", "scipy.optimize", "jax", "torch"):
        label = f"import {module}"
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            yield Row(label, "missing", f"{module} is not installed")
            continue
        seconds = statistics.median(run(import_program(module)) for _ in range(repeats))
        yield Row(label, format_seconds(seconds), data={"seconds": seconds, "module": module})


@pytest.mark.parametrize("module", ["numpy", "fastnet"])
def test_import(benchmark: Any, module: str) -> None:
    benchmark.pedantic(run, args=(import_program(module),), rounds=3)


if __name__ == "__main__":
    main(TITLE, rows)
