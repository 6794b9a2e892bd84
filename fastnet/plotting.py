"""Pictures. Matplotlib is imported when the first one is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastnet._text import format_seconds, three_digits
from fastnet.compare import GradientComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison"]

LOOP_COLOUR, BACKPROP_COLOUR, INK, FAINT = "#5b7fa6", "#d9822b", "#26323f", "#7b8794"


def plot_comparison(comparison: GradientComparison, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the seconds that one gradient takes as horizontal bars, on a logarithmic scale.

    Parameters
    ----------
    comparison : GradientComparison
        What `compare_gradients` returned.
    path : path-like, optional
        Where to save the picture; the format is told by the suffix, such as ``.png``, ``.svg`` or ``.pdf``.

    Returns
    -------
    matplotlib.figure.Figure
        Drawn without pyplot: no display is needed, and nothing is to be closed.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If Matplotlib does not know the suffix of `path`.
    OSError
        If `path` can't be written.
    """
    figure = _figure(1.5 + 0.52 * len(comparison.rows))
    axes = figure.add_subplot()
    _draw_bars(axes, comparison)
    _describe(axes, comparison)
    if path is not None:
        figure.savefig(path, dpi=200)
    return figure


def _figure(height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('a picture needs Matplotlib: pip install "fastnet[plot]"') from error
    return Figure(figsize=(8.0, height), layout="constrained")


def _draw_bars(axes: Axes, comparison: GradientComparison) -> None:
    rows = comparison.rows
    least, most = min(row.seconds for row in rows), max(row.seconds for row in rows)
    left = least / 4  # the shortest bar can be seen, too
    axes.set_xscale("log")
    axes.set_xlim(left, most * (most / left) ** 0.38)  # room for the words beside the longest bar
    for place, row in enumerate(rows):
        colour = BACKPROP_COLOUR if row.check is None else LOOP_COLOUR
        axes.barh(place, row.seconds - left, left=left, height=0.62, color=colour)
        mark = "*" if row.sampled else ""
        faster = f"   {three_digits(row.times_faster)}× faster" if (row.times_faster or 1) != 1 else ""
        axes.annotate(
            f"{format_seconds(row.seconds)}{mark}{faster}",
            (row.seconds, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()


def _describe(axes: Axes, comparison: GradientComparison) -> None:
    info = comparison.build_info
    title = f"One gradient of a {comparison.network} network"
    details = f"{comparison.parameters:,} parameters, batch of {comparison.batch:,}, {comparison.dtype}"
    axes.set_title(title, loc="left", color=INK, fontweight="bold", pad=24)
    axes.text(0, 1, details, transform=axes.transAxes, color=FAINT, va="bottom")
    threads = f"{info['num_threads']} thread{'' if info['num_threads'] == 1 else 's'}"
    sampled = "   * sampled and scaled up" if any(row.sampled for row in comparison.rows) else ""
    axes.set_xlabel(f"seconds for one gradient, {threads}{sampled}", color=FAINT, loc="left")
    axes.grid(axis="x", color="#e4e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    axes.tick_params(axis="x", which="both", length=0, colors=FAINT)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
