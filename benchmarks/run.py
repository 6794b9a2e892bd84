"""Run all benchmarks and write their results, the pictures and the tables of the README.

Install the benchmarks' requirements, stop everything else on the machine, and say where MNIST is::

    pip install -e '.[bench]'
    apt-get install libtbb-dev libxsmm-dev   # Debian: peers that are compiled here; without them, their rows say so
    export FASTNET_DATA_DIR=path/to/mnist    # without it, drawn digits are used
    python benchmarks/run.py                 # 35 to 50 minutes; writes RESULTS.md and results.json beside this file
    python benchmarks/run.py --quick         # about three minutes, to see that everything works; writes nothing
    python benchmarks/run.py --only bench_checkers bench_scaling   # these parts anew, the others as they were

A ratio that is more than 25 % away from that of the run before on the same machine is marked unsteady. Each part is
also a script of its own, which prints its table: ``python benchmarks/bench_matmul.py [--quick]``. For a history on one
machine, the same files have tests for pytest-benchmark::

    pytest benchmarks/bench_matmul.py benchmarks/bench_network.py benchmarks/bench_differences.py --benchmark-autosave
    pytest-benchmark compare
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import math
import re
import time
import types
from pathlib import Path
from typing import Any

import figures
import pictures
from _measure import FULL, NOTES, QUICK, Row, environment, machine, measure, moved, table, verdict

PARTS = (
    "bench_methods",
    "bench_checkers",
    "bench_differences",
    "bench_scaling",
    "bench_footprint",
    "bench_training",
    "bench_network",
    "bench_stages",
    "bench_second_order",
    "bench_matmul",
    "bench_verdicts",
    "bench_threads",
    "bench_derivatives",
)
# What the quick set runs. The others run their own quick set as scripts.
QUICK_PARTS = (
    "bench_methods",
    "bench_checkers",
    "bench_differences",
    "bench_scaling",
    "bench_footprint",
    "bench_network",
    "bench_matmul",
    "bench_verdicts",
)
HERE = Path(__file__).parent

Section = dict[str, Any]


def section_of(part: types.ModuleType, rows: list[Row], date: str, env: str) -> Section:
    """Return a part's rows in types that JSON has, and its table."""
    return {
        "title": part.TITLE,
        "date": date,
        "environment": env,
        "machine": machine(),
        "table": getattr(part, "table", table)(rows),
        "note": getattr(part, "NOTE", ""),
        "rows": [{**row._asdict(), "value": finite(row.value), "data": as_json(row.data)} for row in rows],
    }


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_json(data: Any) -> dict[str, Any]:
    """Return a row's data with None for what JSON has no number for."""
    return {key: finite(value) if isinstance(value, float) else value for key, value in data.items()}


def text_of(section: Section, env: str) -> str:
    """Write one section for RESULTS.md; one of another machine than that in the head says so."""
    where = (
        f" by its part alone, on this machine:\n\n{section['environment']}" if section["environment"] != env else "."
    )
    of_rows = [Row(**row) for row in section["rows"]]
    parts = [f"## {section['title']}", f"Of {section['date']}{where}", section["note"], section["table"]]
    if any(row.passed is not None for row in of_rows):
        parts.append(verdict(of_rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(sections: dict[str, Section], env: str, kind: str) -> str:
    """Write all sections anew."""
    of_rows = [Row(**row) for section in sections.values() for row in section["rows"]]
    head = f"# Benchmark results\n\nBy `benchmarks/run.py`, {kind}.\n\n{env}\n\n{NOTES}\n\n{verdict(of_rows)}\n"
    return "\n".join([head, *(text_of(section, env) for section in sections.values())])


def with_sections(text: str, sections: list[Section], of_rows: list[Row]) -> str:
    """Replace the sections with these titles in a text of RESULTS.md, or add them, and count all rows' targets anew."""
    head, *old = re.split(r"(?m)^(?=## )", text)
    head = re.sub(r"(?ms)^\d+ of \d+ targets met\..*", lambda _: f"{verdict(of_rows)}\n\n", head)
    by_title = {part.partition("\n")[0]: part for part in old}
    for section in sections:
        by_title[f"## {section['title']}"] = text_of(section, "") + "\n"
    return "".join([head, *by_title.values()]).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run all benchmarks and write their results.")
    parser.add_argument("--quick", action="store_true", help="few repeats, small samples; print, write no file")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="run these parts: " + ", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=HERE, help="the folder for RESULTS.md and results.json")
    options = parser.parse_args()
    env, date = environment(), str(datetime.date.today())
    file = options.output / "results.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    parts = options.only or (QUICK_PARTS if options.quick else PARTS)
    sections: dict[str, Section] = {}
    for name in parts:
        part, start = importlib.import_module(name), time.perf_counter()
        rows = measure(part.rows, QUICK if options.quick else FULL)
        last = before.get(name, {})
        if last.get("machine") == machine() and not options.quick:
            rows = moved(rows, {row["what"]: row["value"] for row in last["rows"]})
        sections[name] = section_of(part, rows, date, env)
        print(f"({name} took {time.perf_counter() - start:.0f} s)", flush=True)
    if options.quick:
        print(markdown(sections, env, "quick run, not for quoting"))
        return
    results = options.output / "RESULTS.md"
    if options.only and results.exists():
        of_rows = [Row(**row) for section in (before | sections).values() for row in section["rows"]]
        text = with_sections(results.read_text(encoding="utf-8"), list(sections.values()), of_rows)
    else:
        text = markdown(sections, env, "full run")
    results.write_text(text, encoding="utf-8")
    sections = {name: found for name in PARTS if (found := sections.get(name, before.get(name)))}
    file.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.output == HERE:
        pictures.draw_all(sections)
        figures.write_all(sections)


if __name__ == "__main__":
    main()
