"""Count the instructions of one call of each hot kernel, under valgrind's callgrind.

Instruction counts repeat exactly, whatever else the machine does: they show what a change of the kernels costs where
times are too noisy to tell. A call's count is the difference between a process that makes it a few times and one that
makes it a few times more, with one thread; the interpreter and the binding are in it::

    python benchmarks/count_instructions.py before.json            # with valgrind installed
    python benchmarks/count_instructions.py after.json --against before.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SETUP = """
import gc
import numpy as np, fastnet
gc.disable()  # a collection that falls between two counts is millions of instructions
fastnet.set_num_threads(1)
rng = np.random.default_rng(0)
dtype = "{dtype}"
x = np.where(rng.random((100, 784)) < 0.81, 0, rng.random((100, 784))).astype(dtype)
t = rng.integers(0, 10, 100)
net = fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
small = fastnet.TwoLayerNet(20, 12, 4, dtype=dtype, seed=0)
deep = fastnet.MultiLayerNet(100, [64, 48, 32], 10, dtype=dtype, seed=0)
dense = rng.standard_normal((40, 100)).astype(dtype)
square = rng.standard_normal((200, 200)).astype(dtype)
trainer = fastnet.Trainer(net, x, t, batch_size=20, iterations=10**6, evaluate_train=0, keep_best=False, progress=False)
"""
CALLS = {
    "matmul 200x200": ("fastnet.matmul(square, square)", 5),
    "forward 784-50-10": ("net.predict(x)", 5),
    "backprop 784-50-10": ("net.gradient(x, t)", 5),
    "nodal 784-50-10": ("net.numerical_gradient(x, t, algorithm='nodal')", 3),
    "incremental 784-50-10": ("net.numerical_gradient(x, t, algorithm='incremental')", 1),
    "loop 20-12-4": ("small.numerical_gradient(dense[:, :20], t[:40] % 4, algorithm='loop')", 1),
    "backprop deep": ("deep.gradient(dense, t[:40])", 5),
    "nodal deep": ("deep.numerical_gradient(dense, t[:40], algorithm='nodal')", 1),
    "incremental deep": ("deep.numerical_gradient(dense, t[:40], algorithm='incremental')", 1),
    "training, 5 epochs of 5 steps": ("trainer.fit(epochs=5)", 1),
}


def count(program: str) -> int:
    """Return the instructions of a whole process that runs the program."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"valgrind failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def instructions(call: str, times: int, dtype: str) -> int:
    """Return the instructions of one call."""
    setup = SETUP.format(dtype=dtype)
    few, more = (f"{setup}\nfor _ in range({n}):\n    {call}\n" for n in (2, 2 + times))
    return (count(more) - count(few)) // times


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the instructions of one call of each hot kernel.")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--against", type=Path, help="a JSON file of an earlier run to compare with")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    options = parser.parse_args()
    names = [(dtype, name) for dtype in ("float64", "float32") for name in CALLS]
    with ThreadPoolExecutor(options.jobs) as pool:
        counts = list(pool.map(lambda key: instructions(*CALLS[key[1]], key[0]), names))
    found = {f"{dtype} {name}": n for (dtype, name), n in zip(names, counts, strict=True)}
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    before = json.loads(options.against.read_text(encoding="utf-8")) if options.against else {}
    for name, n in found.items():
        change = f"{n / before[name] - 1:+8.2%}" if name in before else ""
        print(f"{name:40} {n:>15,} {change}")


if __name__ == "__main__":
    main()
