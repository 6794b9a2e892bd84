"""While Numba compiles kernels, which takes a minute once: a line on a terminal, and Ctrl-C."""

from __future__ import annotations

import contextlib
from typing import Any

import numba.core.event

from fastnet._tools.interrupts import RepeatedInterrupts
from fastnet._tools.progress import on_terminal, progress_bar


class Notice:
    """Listens to Numba, and tells of kernels that it compiles and does not find on disk.

    Kernels that another one calls are compiled meanwhile. All of them are one piece of work. LLVM's work takes seconds,
    and ends with a call of a function in Python, which loses a Ctrl-C that came meanwhile: it is repeated.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._work = contextlib.ExitStack()

    def notify(self, found: Any) -> None:
        """Take an event of the kind ``"numba:compile"``; Numba holds a lock meanwhile."""
        if not found.data["dispatcher"].py_func.__module__.startswith("fastnet."):
            return
        if found.is_start:
            if self._depth == 0:
                self._interrupts = RepeatedInterrupts()
                self._work.enter_context(self._interrupts)
                self._bar = self._work.enter_context(progress_bar(on_terminal()))
            self._depth += 1
            self._bar.show(f"compiling {found.data['dispatcher'].py_func.__name__} for the first time", 0, 0)
            return
        self._depth -= 1
        if self._depth == 0:
            self._work.close()
        else:
            self._interrupts.repeat()


_event: Any = numba.core.event  # which has no types
_event.Listener.register(Notice)


def announce() -> None:
    """Let a line appear whenever kernels are compiled."""
    _event.register("numba:compile", Notice())
