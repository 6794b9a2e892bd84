"""Pictures. Matplotlib is imported when the first one is asked for."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastnet._text import format_seconds, three_digits
from fastnet.compare import GradientComparison, MethodResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison"]

NUMERICAL, BACKPROP = "#4c78a8", "#e08a2e"  # the bars' colours
INK, FAINT, GRID = "#26323f", "#6b7785", "#e6eaee"


def plot_comparison(comparison: GradientComparison, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the time that one gradient takes by each method as horizontal bars, on a logarithmic scale.

    Parameters
    ----------
    comparison : GradientComparison
        What `compare_gradients` returned.
    path : path-like, optional
        Where to save the picture; the suffix tells the format: ``.png``, ``.svg``, ``.pdf`` and others.

    Returns
    -------
    matplotlib.figure.Figure
        Drawn without pyplot: no display is needed, and there is nothing to close.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If the suffix of `path` is none that Matplotlib knows.
    OSError
        If `path` can't be written.
    """
    if path is not None:
        check_format(path)
    figure = new_figure(8.0, 1.5 + 0.5 * len(comparison.rows))
    axes = figure.add_subplot()
    _draw_scale(axes, [row.seconds for row in comparison.rows])
    _draw_bars(axes, comparison.rows)
    _describe(axes, comparison)
    if path is not None:
        figure.savefig(path, dpi=200)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError('a picture needs Matplotlib: pip install "fastnet[plot]"') from error
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise as `plot_comparison` does if a picture can't be saved in the format that `path` asks for."""
    known = new_figure(1.0, 1.0).canvas.get_supported_filetypes()
    suffix = Path(path).suffix.lower()
    if suffix[1:] not in known:
        formats = ", ".join(f".{name}" for name in sorted(known))
        raise ValueError(f"a picture's name must end in one of {formats}, not {suffix!r}")


def _draw_scale(axes: Axes, seconds: list[float]) -> None:
    """Draw a line at every power of ten from below the shortest time up to the longest."""
    first = math.floor(math.log10(min(seconds) / 2))  # so that the shortest bar is seen, too
    last = math.log10(max(seconds))
    axes.set_xscale("log")
    axes.set_xlim(10.0**first, 10.0 ** (last + 0.45 * (last - first)))  # room for words beside the longest bar
    ticks = [10.0**power for power in range(first, math.floor(last) + 1)]
    axes.set_xticks(ticks, [format_seconds(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    axes.tick_params(axis="x", length=0, colors=FAINT, labelsize=9)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _draw_bars(axes: Axes, rows: tuple[MethodResult, ...]) -> None:
    left = axes.get_xlim()[0]
    for place, row in enumerate(rows):
        colour = BACKPROP if row.check is None else NUMERICAL
        axes.barh(place, row.seconds - left, left=left, height=0.62, color=colour)
        text = axes.annotate(
            format_seconds(row.seconds) + ("*" if row.sampled else ""),
            (row.seconds, place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center_baseline",
            color=FAINT,
        )
        if row.times_faster is not None and row.times_faster != 1:
            axes.annotate(
                f"{three_digits(row.times_faster)}× faster",
                (1, place),
                xycoords=(text, "data"),
                xytext=(9, 0),
                textcoords="offset points",
                va="center_baseline",
                color=INK,
                fontweight="bold",
            )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _describe(axes: Axes, comparison: GradientComparison) -> None:
    threads = comparison.build_info["num_threads"]
    details = (
        f"{comparison.parameters:,} parameters, batch of {comparison.batch:,}, {comparison.dtype}, "
        f"{threads} thread{'' if threads == 1 else 's'}"
    )
    title = f"Time for one gradient of a {comparison.network} network"
    axes.set_title(title, loc="left", color=INK, fontweight="bold", pad=27)
    axes.annotate(details, (0, 1), (0, 9), "axes fraction", "offset points", color=FAINT)
    if any(row.sampled for row in comparison.rows):
        axes.set_xlabel("* timed on a sample of the parameters and scaled up", loc="left", color=FAINT, size=9)
