"""The pictures of ``docs/pictures``, drawn from ``results.json``: ``python benchmarks/pictures.py``.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines differ in their marks too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastnet._tools.text import format_seconds, three_digits

HERE = Path(__file__).parent
FOLDER = HERE.parent / "docs" / "pictures"
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, GREY = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"),
    "#7F7F7F",
)
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "fastnet",  # the same bytes for the same figures
}

Sections = dict[str, Any]
Data = dict[str, Any]


def data_of(sections: Sections, part: str, **wanted: object) -> list[Data]:
    """Return the data of a part's rows that have these values."""
    rows = (row["data"] for row in sections[part]["rows"])
    return [data for data in rows if all(data.get(key) == value for key, value in wanted.items())]


def tick(seconds: float, _: object = None) -> str:
    """Write the time at a tick of an axis."""
    return format_seconds(seconds)


def time_per_gradient(sections: Sections) -> Figure:
    """Bars: the time of one gradient by every method."""
    methods = data_of(sections, "bench_methods", kind="method")
    figure, axes = canvas(7.2, 3.2)
    names = [method["name"] for method in methods]
    seconds = [method["seconds"] for method in methods]
    colours = [ORANGE if "loop" in name else GREY if name == "backprop" else BLUE for name in names]
    axes.barh(names, seconds, color=colours, height=0.65)
    axes.set(xscale="log", xlim=(1e-5, 300), xlabel="time per gradient (logarithmic scale; shorter is faster)")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(tick)
    for place, method in enumerate(methods):
        faster = "" if method["times_faster"] in (None, 1) else f"   {three_digits(method['times_faster'])}×"
        axes.text(seconds[place] * 1.15, place, format_seconds(seconds[place]) + faster, va="center")
    axes.set_title("39,760 derivatives of a 784-50-10 network, batch of 100, float64", loc="left", fontsize=10)
    return figure


def error_by_step(sections: Sections) -> Figure:
    """Lines: the error of the loop and of exact differences, by step, in both precisions."""
    steps = data_of(sections, "bench_methods", kind="step")
    figure, axes = canvas(7.2, 4.2)
    algorithm = steps[0]["algorithm"]
    for key, dtype, colour, mark, label in (
        ("loop", "float32", ORANGE, "s", "loop, float32"),
        ("loop", "float64", RED, "o", "loop, float64"),
        ("exact", "float32", SKY, "D", f"{algorithm}, float32"),
        ("exact", "float64", BLUE, "^", f"{algorithm}, float64"),
    ):
        points = [(row["h"], row[key][dtype]) for row in steps if row[key][dtype]]
        axes.plot(*zip(*points, strict=True), marker=mark, markersize=5, color=colour, label=label)
    axes.set(xscale="log", yscale="log", ylim=(1e-16, 1e3))
    axes.set_xlabel("step h (logarithmic scale)")
    axes.set_ylabel("largest difference from float64 backprop,\nof the largest entry (logarithmic scale)")
    axes.legend(loc="upper right", ncols=2)
    axes.set_title("A smaller step costs the loop its digits; exact differences keep them", loc="left", fontsize=10)
    return figure


def scaling(sections: Sections) -> Figure:
    """Three panels: the time for one parameter and row by batch, width and depth."""
    return growth(
        sections,
        "each",
        "time for one parameter and row of data\n(logarithmic scale)",
        "The time of a numerical gradient, per parameter and row of data",
    )


def distance_to_limit(sections: Sections) -> Figure:
    """Three panels: the time over that of the arithmetic alone."""
    figure = growth(
        sections,
        "distance",
        "time over that of the arithmetic\n(logarithmic scale)",
        "The distance to the arithmetic limit (1: nothing but multiply-adds at the peak)",
    )
    for axes in figure.axes:
        axes.axhline(1, color=BLACK, linewidth=1)
        axes.set_ylim(bottom=0.8)
    return figure


def growth(sections: Sections, key: str, label: str, title: str) -> Figure:
    rows = data_of(sections, "bench_scaling")
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    kinds = (("batch", "rows of data", "784-50-10"), ("width", "hidden units", "784-[n]-10, batch 100"))
    for axes, (what, name, network) in zip(
        panels, (*kinds, ("depth", "hidden layers", "784-[100]×n-10, batch 100")), strict=True
    ):
        for threads, colour, mark in ((1, RED, "o"), (2, BLUE, "^")):
            points = [(row[what], row[key]) for row in rows if row["what"] == what and row["threads"] == threads]
            if points:
                text = f"{threads} thread{'s' * (threads > 1)}"
                axes.plot(*zip(*points, strict=True), marker=mark, markersize=5, color=colour, label=text)
        axes.set(yscale="log", xlabel=name)
        if what != "depth":
            axes.set_xscale("log")
            axes.set_xlabel(f"{name} (logarithmic scale)")
        axes.set_title(network, loc="left", fontsize=9)
        axes.yaxis.set_major_formatter(tick if key == "each" else plain)
        axes.yaxis.set_minor_formatter(between(tick if key == "each" else plain))
    panels[0].set_ylabel(label)
    panels[1].legend(loc="upper right")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


MARKS = {
    "fastnet: check_gradient": (BLUE, "*", 13),
    "fastnet: numerical_gradient, compared by hand": (SKY, "*", 13),
    "the book's loop": (ORANGE, "s", 10),
    "SciPy check_grad": (GREEN, "D", 7),
    "gradcheck, slow": (RED, "v", 8),
    "gradcheck, fast": (PURPLE, "<", 8),
    "JAX, vmap of forward differences": (BLACK, "^", 6),
    "JAX check_grads": (GREY, ">", 8),
}
NOT_TOLD = 1e-12  # where the checkers stand that do not tell their error


def checkers(sections: Sections) -> Figure:
    """Two panels: error and time of every checker; those that do not tell their error stand below a line."""
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, dtype in zip(panels, ("float64", "float32"), strict=True):
        for row in data_of(sections, "bench_checkers", network="784-50-10", dtype=dtype):
            if "missing" not in row:
                colour, mark, size = MARKS[row["checker"]]
                label = row["checker"] + "*" * row["sampled"]
                axes.plot(row["seconds"], row["error"] or NOT_TOLD, mark, color=colour, markersize=size, label=label)
        axes.axhline(1e-11, color=BLACK, linewidth=0.8)
        axes.set(xscale="log", yscale="log", xlabel="time of one check (logarithmic scale)")
        axes.set(xlim=(1e-4, 2e3), ylim=(1e-13, 1e2))
        axes.set_yticks([NOT_TOLD, *(10.0**k for k in range(-10, 2, 2))])
        axes.xaxis.set_major_formatter(tick)
        axes.set_xticks([1e-4, 1e-2, 1, 1e2])
        axes.set_title(dtype, loc="left", fontsize=10)
    panels[0].yaxis.set_major_formatter(lambda value, _: "not told" if value == NOT_TOLD else power(value))
    panels[0].yaxis.set_minor_formatter(lambda value, _: "")
    panels[0].set_ylabel("largest error, of the largest entry\n(logarithmic scale)")
    title = "Checks of a 784-50-10 network, batch of 100. Nearer the lower left is better. * measured on a sample"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def power(value: float) -> str:
    return f"$10^{{{round(math.log10(value))}}}$"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def plain(value: float, _: object = None) -> str:
    return f"{value:,.10g}"


def between(text: Callable[[float], str]) -> Callable[[float, object], str]:
    """Label 2 and 5 of each decade, so that an axis of less than a decade has figures too."""
    return lambda value, _: text(value) if round(value / 10 ** math.floor(math.log10(value))) in (2, 5) else ""


PICTURES: dict[str, tuple[str, Callable[[Sections], Figure]]] = {
    "time-per-gradient": ("bench_methods", time_per_gradient),
    "error-by-step": ("bench_methods", error_by_step),
    "scaling": ("bench_scaling", scaling),
    "distance-to-limit": ("bench_scaling", distance_to_limit),
    "checkers": ("bench_checkers", checkers),
}


def draw_all(sections: Sections, folder: Path = FOLDER, kind: str = "svg") -> list[Path]:
    """Draw the pictures whose figures are there; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, (part, draw) in PICTURES.items():
        if part in sections:
            files.append(folder / f"{name}.{kind}")
            with mpl.rc_context(STYLE):
                draw(sections).savefig(files[-1], dpi=110, metadata={"Date": None} if kind == "svg" else {})
    return files


if __name__ == "__main__":
    draw_all(json.loads((HERE / "results.json").read_text(encoding="utf-8")))
