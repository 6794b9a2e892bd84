"""Run all benchmarks and write their results to ``benchmarks/RESULTS.md``.

Install the benchmarks' requirements, stop everything else on the machine, and say where MNIST is::

    pip install -e '.[bench]'
    export FASTNET_DATA_DIR=path/to/mnist    # without it, drawn digits are used
    python benchmarks/run.py                 # about ten minutes; writes RESULTS.md beside this file
    python benchmarks/run.py --quick         # a minute, to see that everything works; writes nothing

Each part is also a script of its own, which prints its table: ``python benchmarks/bench_matmul.py [--quick]``. For a
history on one machine, the same files have tests for pytest-benchmark::

    pytest benchmarks/bench_matmul.py benchmarks/bench_network.py benchmarks/bench_differences.py --benchmark-autosave
    pytest-benchmark compare
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import bench_derivatives
import bench_differences
import bench_matmul
import bench_network
import bench_second_order
import bench_stages
import bench_threads
import bench_training
import bench_verdicts
from _measure import FULL, NOTES, QUICK, environment, measure, table, verdict

PARTS = (
    bench_differences,
    bench_training,
    bench_network,
    bench_stages,
    bench_second_order,
    bench_matmul,
    bench_verdicts,
    bench_threads,
    bench_derivatives,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run all benchmarks and write their results to a file.")
    parser.add_argument("--quick", action="store_true", help="few repeats, small samples; print, write no file")
    parser.add_argument("--output", type=Path, help="the file to write (default: RESULTS.md beside this script)")
    options = parser.parse_args()
    machine, sections, all_rows = environment(), [], []
    for part in PARTS:
        rows = measure(part.rows, QUICK if options.quick else FULL)
        all_rows += rows
        sections.append(f"## {part.TITLE}\n\n{table(rows)}\n")
    kind = "quick run, not for quoting" if options.quick else "full run"
    head = f"# Benchmark results\n\nOf {datetime.date.today()}, {kind}, by `benchmarks/run.py`.\n\n{machine}\n"
    text = "\n".join([head, f"{NOTES}\n", f"{verdict(all_rows)}\n", *sections])
    output = options.output or (None if options.quick else Path(__file__).parent / "RESULTS.md")
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
