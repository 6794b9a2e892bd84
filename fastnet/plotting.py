"""Plots of comparisons and training histories; Matplotlib is imported at the first plot."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from fastnet._tools.importing import import_whole
from fastnet._tools.text import format_seconds, three_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison", "plot_history"]

NUMERICAL, BACKPROP = "#4c78a8", "#e08a2e"  # The colours of the bars.
TRAIN, TEST = "#4c78a8", "#e08a2e"  # The colours of the curves.
INK, FAINT, GRID = "#26323f", "#6b7785", "#e6eaee"


class PlottableMethod(Protocol):
    """What `plot_comparison` draws of one method: `fastnet.checking.comparison.MethodResult` has it.

    Attributes
    ----------
    name : str
    seconds : float
        The time of one gradient.
    times_faster : float or None
        The speed relative to the NumPy loop.
    sampled : bool
        Whether the time is scaled up from a sample of the parameters.
    check : object or None
        None for backprop, which gets a colour of its own.
    """

    @property
    def name(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def times_faster(self) -> float | None: ...
    @property
    def sampled(self) -> bool: ...
    @property
    def check(self) -> object | None: ...


class PlottableComparison(Protocol):
    """What `plot_comparison` draws: `fastnet.GradientComparison` has it.

    Attributes
    ----------
    rows : sequence of PlottableMethod
        A bar for each method.
    network : str
        The numbers of units, as in ``784-50-10``.
    parameters : int
        The number of parameters.
    batch : int
        The number of rows of the batch.
    dtype : str
    build_info : dict
        With ``num_threads``.
    """

    @property
    def rows(self) -> Sequence[PlottableMethod]: ...
    @property
    def network(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def build_info(self) -> Mapping[str, object]: ...


class PlottableHistory(Protocol):
    """What `plot_history` draws: `fastnet.History` has it.

    ``history["epoch"]``, ``history["learning_rate"]``, ``history["train_accuracy"]`` and ``history["test_accuracy"]``
    are arrays with a number for each epoch, NaN where there is none.

    Attributes
    ----------
    iteration : int
        The number of iterations.
    iterations_per_epoch : int
    losses : ndarray
        The loss of each iteration, shape (iterations,).
    network, optimizer : str
        For the title; may be empty.
    """

    iterations_per_epoch: int
    network: str
    optimizer: str

    @property
    def iteration(self) -> int: ...
    @property
    def losses(self) -> npt.NDArray[np.float64]: ...
    def __getitem__(self, name: str, /) -> npt.NDArray[np.float64]: ...


def plot_comparison(comparison: PlottableComparison, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the time of one gradient by each method as horizontal bars, on a logarithmic scale.

    Parameters
    ----------
    comparison : GradientComparison
        The result of `compare_gradients`.
    path : path-like, optional
        Where to save the plot; the suffix selects the format: ``.png``, ``.svg``, ``.pdf`` and others.

    Returns
    -------
    matplotlib.figure.Figure
        A figure without pyplot: no display is needed, and there is nothing to close.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If Matplotlib does not know the suffix of `path`.
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
    """Return an empty figure; sizes are in inches.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    """
    try:
        figures, layouts = import_whole("matplotlib.figure"), import_whole("matplotlib.layout_engine")
    except ImportError as error:
        raise ImportError('a plot needs Matplotlib: pip install "fastnet[plot]"') from error
    layout = layouts.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return cast("Figure", figures.Figure(figsize=(width, height), layout=layout))


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise the exceptions of `plot_comparison` if the format that the suffix of `path` selects can't be saved."""
    known = new_figure(1.0, 1.0).canvas.get_supported_filetypes()
    suffix = Path(path).suffix.lower()
    if suffix[1:] not in known:
        formats = ", ".join(f".{name}" for name in sorted(known))
        raise ValueError(f"a plot's file name must end in one of {formats}, not {suffix!r}")


def _draw_scale(axes: Axes, seconds: list[float]) -> None:
    """Draw a line at every power of ten from below the shortest time up to the longest."""
    first = math.floor(math.log10(min(seconds) / 2))  # Half, so that the shortest bar is visible.
    last = math.log10(max(seconds))
    axes.set_xscale("log")
    axes.set_xlim(10.0**first, 10.0 ** (last + 0.45 * (last - first)))  # There is room for text beside the longest bar.
    ticks = [10.0**power for power in range(first, math.floor(last) + 1)]
    axes.set_xticks(ticks, [format_seconds(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    axes.tick_params(axis="x", length=0, colors=FAINT, labelsize=9)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _draw_bars(axes: Axes, rows: Sequence[PlottableMethod]) -> None:
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


def _describe(axes: Axes, comparison: PlottableComparison) -> None:
    threads = comparison.build_info["num_threads"]
    details = (
        f"{comparison.parameters:,} parameters, batch of {comparison.batch:,}, {comparison.dtype}, "
        f"{threads} thread{'' if threads == 1 else 's'}"
    )
    title = f"Time for one gradient of a {comparison.network} network"
    axes.set_title(title, loc="left", color=INK, fontweight="bold", pad=27)
    axes.annotate(details, (0, 1), (0, 9), "axes fraction", "offset points", color=FAINT)
    sampled = any(row.sampled for row in comparison.rows)
    note = "\n* timed on a sample of the parameters and scaled up" if sampled else ""
    axes.set_xlabel(f"time, logarithmic scale{note}", loc="left", color=FAINT, size=9)


# Training -------------------------------------------------------------------------------------------------

SMOOTHED_BY = 100  # The running mean is over one part in this many of all iterations.
WIDE = 30  # Losses that differ by more than this factor get a logarithmic scale.
TITLE_WIDTH = 85  # The most letters in a line of the title.
LABEL_GAP = 0.1  # The least distance of labels at the curves' ends, as a share of the axes' height.


def plot_history(history: PlottableHistory, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw the loss of every iteration with its running mean, and below it the accuracies after every epoch.

    The title names the network, the optimizer and the learning rate. The axes' labels say where a scale is logarithmic,
    where it does not begin at 0, and how many losses are outside.

    Parameters
    ----------
    history : History
        The result of `Trainer.fit`, or ``trainer.history``.
    path : path-like, optional
        Where to save the plot; the suffix selects the format: ``.png``, ``.svg``, ``.pdf`` and others.

    Returns
    -------
    matplotlib.figure.Figure
        A figure without pyplot: no display is needed, and there is nothing to close.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there is no iteration to plot, or Matplotlib does not know the suffix of `path`.
    OSError
        If `path` can't be written.
    """
    if path is not None:
        check_format(path)
    if history.iteration == 0:
        raise ValueError("history has no iterations: there is nothing to plot")
    curves = (("training data", history["train_accuracy"], TRAIN), ("test data", history["test_accuracy"], TEST))
    measured = [(name, column, colour) for name, column, colour in curves if np.isfinite(column).any()]
    figure = new_figure(8.0, 6.0 if measured else 3.5)
    _write_title(figure, history)
    panels = figure.subplots(2 if measured else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(panels[0], history)
    if measured:
        _draw_accuracies(panels[1], history["epoch"], measured)
    panels[0].set_xlim(0, history.iteration / history.iterations_per_epoch)
    panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].locator_params(axis="x", nbins=8)
    count = history.iterations_per_epoch
    panels[-1].set_xlabel(f"epochs of {count:,} iteration{'' if count == 1 else 's'}", color=FAINT, size=9)
    if path is not None:
        figure.savefig(path, dpi=200)
    return figure


def _write_title(figure: Figure, history: PlottableHistory) -> None:
    """Write what was trained and how above the panels; the range of the rates is that of the epochs so far."""
    rates = history["learning_rate"]
    rates = rates[np.isfinite(rates)]
    differ = len(rates) > 0 and rates.min() < rates.max()
    words = [history.network, history.optimizer + (f" ({rates[0]:.3g} to {rates[-1]:.3g})" if differ else "")]
    text = "\n".join(textwrap.wrap(", ".join(filter(None, words)), TITLE_WIDTH))
    if text:
        figure.suptitle(text, x=0.02, ha="left", color=INK, fontweight="bold", size=11)


def _draw_losses(axes: Axes, history: PlottableHistory) -> None:
    losses = history.losses
    window = max(1, len(losses) // SMOOTHED_BY)
    epochs = np.arange(1, len(losses) + 1) / history.iterations_per_epoch
    smooth = _running_mean(losses, window)
    _prepare_curves(axes, "Loss", f"on each batch, and its mean over {window:,}" if window > 1 else "on each batch")
    if window > 1:
        axes.plot(epochs, losses, color=TRAIN, alpha=0.3, linewidth=0.7)
    axes.plot(epochs, smooth, color=TRAIN, linewidth=1.8, marker="o" if len(losses) == 1 else None, clip_on=False)
    # A few spikes may exceed the axes.
    low, high = float(smooth.min()), max(float(smooth.max()), float(np.percentile(losses, 99.5)))
    if 0 < WIDE * low < high:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, 1.3 * high)
        axes.set_yticks([], minor=True)
        scale = "loss, logarithmic scale"
    else:
        axes.set_ylim(min(0.0, 1.05 * low), 1.05 * high if high > 0 else 1.0 if low == 0 else 0.0)
        scale = "loss"
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bottom, top = axes.get_ylim()
    outside = int(((losses < bottom) | (losses > top)).sum())
    _label_scale(axes, f"{scale}\n{outside:,} of {len(losses):,} are outside" if outside else scale)
    _label_ends(axes, [(float(smooth[-1]), f"{smooth[-1]:#.3g}", TRAIN)])


def _draw_accuracies(axes: Axes, epochs: npt.NDArray[Any], measured: list[tuple[str, npt.NDArray[Any], str]]) -> None:
    _prepare_curves(axes, "Accuracy", "after each epoch")
    size = 3.5 if len(epochs) <= 40 else 0
    for _, column, colour in measured:  # NaN where the accuracy was not measured.
        axes.plot(epochs, column, color=colour, linewidth=1.8, marker="o", markersize=size, clip_on=False)
    lowest = min(float(np.nanmin(column)) for _, column, _ in measured)
    bottom = math.floor(10 * min(lowest, 0.99)) / 10
    axes.set_ylim(bottom, 1.0)
    _label_scale(axes, f"accuracy, axis from {100 * bottom:.0f} %" if bottom > 0 else "accuracy")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    last = [(name, float(column[np.isfinite(column)][-1]), colour) for name, column, colour in measured]
    _label_ends(axes, [(value, f"{name} {100 * value:.2f} %", colour) for name, value, colour in last])


def _prepare_curves(axes: Axes, title: str, what: str) -> None:
    axes.set_title(" ", pad=9)  # The empty title reserves the height.
    words = axes.annotate(
        title, (0, 1), (0, 9), "axes fraction", "offset points", color=INK, fontweight="bold", size="large"
    )
    axes.annotate(what, (1, 0), (7, 3), words, "offset points", va="baseline", color=FAINT, size=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, colors=FAINT, labelsize=9)


def _label_scale(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, color=FAINT, size=8)


def _label_ends(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Label one or two curves at their right ends; labels of close ends are moved apart."""
    to_axes = axes.transData + axes.transAxes.inverted()
    labels = sorted(labels)
    heights = [float(to_axes.transform((0, value))[1]) for value, _, _ in labels]
    short = max(0.0, LABEL_GAP - (heights[-1] - heights[0])) if len(labels) > 1 else 0.0
    heights = [heights[0] - short / 2, *(height + short / 2 for height in heights[1:])]
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        axes.annotate(
            text,
            (1, height),
            (7, 0),
            "axes fraction",
            "offset points",
            va="center",
            color=colour,
            fontweight="bold",
            size=9,
        )


def _running_mean(values: npt.NDArray[Any], window: int) -> npt.NDArray[Any]:
    """Return the mean of the `window` values around each element, or of fewer at the ends; the same shape."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(len(values))
    first = np.maximum(at - window // 2, 0)
    last = np.minimum(at - window // 2 + window, len(values))
    means: npt.NDArray[Any] = (sums[last] - sums[first]) / (last - first)
    return means
