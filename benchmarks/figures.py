"""The tables of the READMEs, written from ``results.json``: ``python benchmarks/figures.py``.

Between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->`` stands what `TABLES[NAME]` makes of the results.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastnet._tools.text import format_seconds, three_digits

HERE = Path(__file__).parent
FILES = {"en": HERE.parent / "README.md", "zh": HERE.parent / "README.zh-CN.md"}
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.S)

Sections = dict[str, Any]

CHINESE = {
    "method": "方法",
    "time per gradient": "一次梯度的时间",
    "times faster": "快多少倍",
    "largest difference, of the largest entry": "最大误差（相对最大分量）",
    "entries compared": "比较的分量",
    "time": "时间",
    "faults found": "找出的错误",
    "the right one fails": "把正确的梯度判为错误",
    "gradient": "梯度",
    "test accuracy": "测试精度",
    "network": "网络",
    "all derivatives": "全部导数",
    "the NumPy loop": "NumPy 循环",
    "numerical": "数值微分",
    "backprop": "误差反向传播",
    "PyTorch, backprop": "PyTorch，误差反向传播",
    "directions": "随机方向",
    "not installed": "未安装",
    "the book's loop": "书中的循环",
    "numerical_gradient, compared by hand": "numerical_gradient，自行比较",
    "JAX, vmap of forward differences": "JAX，vmap 前向差分",
}


class Words:
    """The words of a table, in one of the languages."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, text: str) -> str:
        return CHINESE.get(text, text) if self.language == "zh" else text


def grid(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def datas(sections: Sections, part: str, **wanted: object) -> list[dict[str, Any]]:
    rows = (row["data"] for row in sections[part]["rows"])
    return [data for data in rows if all(data.get(key) == value for key, value in wanted.items())]


def row_of(sections: Sections, part: str, what: str) -> dict[str, Any]:
    """Return the one row of a part whose label begins so."""
    (row,) = [row for row in sections[part]["rows"] if row["what"].startswith(what)]
    return dict(row)


def methods(sections: Sections, words: Words) -> str:
    heads = ("method", "time per gradient", "times faster", "largest difference, of the largest entry")
    lines = []
    for method in datas(sections, "bench_methods", kind="method"):
        check, faster = method["check"], method["times_faster"]
        lines.append(
            [
                words(method["name"]),
                format_seconds(method["seconds"]) + "*" * method["sampled"],
                "-" if faster is None else three_digits(faster),
                "-" if check is None else f"{check['largest_relative']:.1e}",
            ]
        )
    return grid([words(head) for head in heads], lines)


def steps(sections: Sections, words: Words) -> str:
    rows = [row for row in datas(sections, "bench_methods", kind="step") if row["h"] <= 1e-2]
    kinds = [(dtype, kind) for dtype in ("float64", "float32") for kind in ("loop", "exact")]
    name = {"loop": "loop", "exact": rows[0]["algorithm"]}
    head = ["h", *(f"{dtype} {name[kind]}" for dtype, kind in kinds)]
    chosen = [row for row in rows if round(-math.log10(row["h"])) in (2, 3, 4, 6, 8, 10, 12)]
    return grid(head, [[f"{row['h']:.0e}", *(_error(row[kind][dtype]) for dtype, kind in kinds)] for row in chosen])


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def checkers(sections: Sections, words: Words) -> str:
    """One line for each checker; for each dtype its time, and the faults that it found if the right gradient passed."""
    dtypes = ("float64", "float32")
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for dtype in dtypes:
        for data in datas(sections, "bench_checkers", network="784-50-10", dtype=dtype):
            by_name.setdefault(data["checker"], {})[dtype] = data
    lines = []
    for full, by_dtype in by_name.items():
        owner, _, name = full.partition(": ")
        cells = [f"{owner}: {words(name)}" if name else words(owner)]
        for dtype in dtypes:
            data = by_dtype[dtype]
            if "missing" in data:
                cells += [words("not installed"), ""]
                continue
            found = f"{sum(data['found'].values())} / {len(data['found'])}"
            cells.append(format_seconds(data["seconds"]) + "*" * data["sampled"])
            cells.append(words("the right one fails") if data["right_passes"] is False else found)
        cells.append(words("directions") if data.get("entries") is None else f"{data['size']:,}")
        lines.append(cells)
    heads = [f"{dtype}: {words(what)}" for dtype in dtypes for what in ("time", "faults found")]
    return grid(["", *heads, words("entries compared")], lines)


def training(sections: Sections, words: Words) -> str:
    what = "784-50-10, init 0.01, lr 0.1, batch 100, 10,000 iterations, by {} gradients in {}"
    lines = []
    for gradient in ("numerical", "backprop"):
        rows = [row_of(sections, "bench_training", what.format(gradient, d)) for d in ("float32", "float64")]
        lines.append([words(gradient), *(row["theirs"].removeprefix("in ") for row in rows), rows[0]["ours"]])
    name = "784-50-10, init 0.01, lr 0.1, batch 100, 10,000 iterations: numerical gradients in float32 against PyTorch"
    torch = row_of(sections, "bench_training", name)
    lines.append([words("PyTorch, backprop"), torch["theirs"] or "-", "", ""])
    return grid([words("gradient"), "float32", "float64", words("test accuracy")], lines)


def stages(sections: Sections, words: Words) -> str:
    nets = {
        "784-100-10, BatchNorm, Dropout": "784-100-10, ReLU, BatchNorm, Dropout, float64: all gradients",
        "784-100-100-10, BatchNorm, Dropout": "784-100-100-10, ReLU, BatchNorm, Dropout, float64: all gradients",
        "SimpleConvNet": "SimpleConvNet, 433,890 parameters, float64: against the NumPy loop",
    }
    lines = []
    for net, what in nets.items():
        row = row_of(sections, "bench_stages", what)
        lines.append([net, row["ours"], row["theirs"], f"{row['ratio'].partition('×')[0]}×"])
    return grid([words(head) for head in ("network", "all derivatives", "the NumPy loop", "times faster")], lines)


def machine(sections: Sections, words: Words) -> str:
    """One line for each machine on which the figures of the README were measured."""
    found: dict[str, list[str]] = {}
    for part in ("bench_methods", "bench_checkers", "bench_training", "bench_stages"):
        if part in sections:
            section = sections[part]
            found.setdefault(section["environment"], []).append(part.removeprefix("bench_"))
    lines = []
    for environment, parts in found.items():
        about = [line.removeprefix("- ") for line in environment.splitlines()[:3]]
        lines.append(f"- {', '.join(parts)}: {'; '.join(about)}")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[Sections, Words], str]] = {
    "methods": methods,
    "steps": steps,
    "checkers": checkers,
    "training": training,
    "stages": stages,
    "machine": machine,
}


def filled(text: str, sections: Sections, language: str) -> str:
    """Return a README with its tables written anew."""
    words = Words(language)
    return BLOCK.sub(lambda found: found[1] + "\n" + TABLES[found[2]](sections, words) + "\n" + found[3], text)


def write_all(sections: Sections) -> None:
    for language, file in FILES.items():
        file.write_text(filled(file.read_text(encoding="utf-8"), sections, language), encoding="utf-8")


if __name__ == "__main__":
    write_all(json.loads((HERE / "results.json").read_text(encoding="utf-8")))
