"""A progress bar on a terminal, where tqdm is installed, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any


class ProgressBar:
    """What is being done, and how much of it is done; `bar` is tqdm's, or None to show nothing."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def show(self, name: str, new: int, total: int) -> None:
        """Show what is being done, how many steps are new, and of how many in all; 0 where that is not known."""
        if self._bar is not None:
            self._bar.total = total or None
            self._bar.set_description_str(name, refresh=not new)
            self._bar.update(new)

    def hide(self) -> None:
        """Give the line free for what others print, until the next `show`."""
        if self._bar is not None:
            self._bar.clear()


@contextlib.contextmanager
def progress_bar(wanted: bool, done: int = 0, width: int = 40) -> Iterator[ProgressBar]:
    """Give a bar that begins at `done` steps and goes when the work ends."""
    if not wanted or importlib.util.find_spec("tqdm") is None:
        yield ProgressBar()
        return
    from tqdm import tqdm

    layout = f"{{desc:12}} {{percentage:3.0f}} % |{{bar:{width}}}| {{elapsed}} < {{remaining}}"
    with tqdm(leave=False, bar_format=layout, initial=done) as bar:
        yield ProgressBar(bar)
