"""A progress bar, shown if tqdm is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from fastnet._tools.importing import import_whole

LATE_SECONDS = 1.0  # before a bar of `late_progress` appears
UNKNOWN = "{desc} {elapsed}"  # of work whose number of steps is unknown


class ProgressBar:
    """The current task and its progress; `bar` is a tqdm bar, or None to show nothing."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._layout = None if bar is None else bar.bar_format

    @property
    def is_shown(self) -> bool:
        return self._bar is not None

    def show(self, name: str, new: int, total: int) -> None:
        """Show the task `name` and add `new` steps; `total` is the number of all steps, or 0 if unknown."""
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.bar_format = self._layout if total else UNKNOWN
            self._bar.set_description_str(name, refresh=not new)
            self._bar.update(new)

    def hide(self) -> None:
        """Clear the line so that others can print, until the next `show`."""
        if self._bar is not None:
            self._bar.clear()


@contextlib.contextmanager
def progress_bar(wanted: bool, done: int = 0, width: int = 40) -> Iterator[ProgressBar]:
    """Yield a bar that starts at `done` steps and disappears at the end of the block."""
    if not wanted or importlib.util.find_spec("tqdm") is None:
        yield ProgressBar()
        return
    tqdm = import_whole("tqdm")
    layout = f"{{desc:12}} {{percentage:3.0f}} % |{{bar:{width}}}| {{elapsed}} < {{remaining}}"
    with tqdm.tqdm(leave=False, bar_format=layout, initial=done) as bar:
        yield ProgressBar(bar)


def on_terminal() -> bool:
    """Whether stderr is a terminal; without a console there is none."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def late_progress(wanted: bool | None, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds steps to a bar, which appears after a second of work.

    Parameters
    ----------
    wanted : bool or None
        None for a bar where stderr is a terminal.
    name : str
        The task.
    total : int
        The number of all steps, or 0 if unknown.
    """
    if not (on_terminal() if wanted is None else wanted):
        yield lambda new: None
        return
    started, done = time.monotonic(), 0
    bars: list[ProgressBar] = []
    with contextlib.ExitStack() as stack:

        def add(new: int) -> None:
            nonlocal done
            done += new
            if bars:
                bars[0].show(name, new, total)
            elif time.monotonic() - started > LATE_SECONDS:
                bars.append(stack.enter_context(progress_bar(True, done)))
                bars[0].show(name, 0, total)

        yield add
