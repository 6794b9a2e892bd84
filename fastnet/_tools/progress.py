"""A progress bar, shown if tqdm is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any


class ProgressBar:
    """The current task and its progress; `bar` is a tqdm bar, or None to show nothing."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def show(self, name: str, new: int, total: int) -> None:
        """Show the task `name` and add `new` steps; `total` is the number of all steps, or 0 if unknown."""
        if self._bar is not None:
            self._bar.total = total or None
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
    from tqdm import tqdm

    layout = f"{{desc:12}} {{percentage:3.0f}} % |{{bar:{width}}}| {{elapsed}} < {{remaining}}"
    with tqdm(leave=False, bar_format=layout, initial=done) as bar:
        yield ProgressBar(bar)
