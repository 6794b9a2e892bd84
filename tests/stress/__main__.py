"""Long runs of faults: `python -m tests.stress [NAME ...] [--count N]` prints how many of them were survived."""

from __future__ import annotations

import argparse
import sys

from tests.stress import builds, faults, fuzz

PARTS = faults.PARTS | fuzz.PARTS | builds.PARTS


def main() -> int:
    """Run the parts by name, by default all, and print a table. Returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PARTS, []], metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--count", "--inputs", type=int, help="how many to try of each (default: each its own)")
    options = parser.parse_args()
    results = []
    for name in options.names or PARTS:
        part = PARTS[name]
        tried, failures = part.run(options.count or part.count)
        for failure in failures[:20]:
            print(f"{name}: {failure}", flush=True)
        results.append((name, tried, tried - len(failures)))
    print(f"{'fault':24}{'tried':>10}{'survived':>10}")
    for name, tried, survived in results:
        print(f"{name:24}{tried:10}{survived:10}")
    return int(any(tried != survived for _, tried, survived in results))


if __name__ == "__main__":
    sys.exit(main())
