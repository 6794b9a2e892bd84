"""While Numba compiles kernels, which takes a minute once: a line on a terminal, and Ctrl-C."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numba.core.event
from numba.core.compiler_lock import global_compiler_lock

from fastnet._tools.interrupts import RepeatedInterrupts
from fastnet._tools.progress import on_terminal, progress_bar

_lock: Any = global_compiler_lock  # which has no types
# By which LLVM tells llvmlite what it has compiled, and asks for what is on disk.
CALLBACKS = frozenset({"_raw_object_cache_notify", "_raw_object_cache_getbuffer"})


class Notice:
    """Listens to Numba, and tells of kernels that it compiles and does not find on disk.

    Kernels that another one calls are compiled meanwhile. All of them are one piece of work.
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
                self._bar = self._work.enter_context(progress_bar(on_terminal()))
            self._depth += 1
            self._bar.show(f"compiling {found.data['dispatcher'].py_func.__name__} for the first time", 0, 0)
            return
        self._depth -= 1
        if self._depth == 0:
            self._work.close()


class LostInterrupts:
    """Listens to the lock that Numba holds while it compiles functions or reads them from disk: Ctrl-C is not lost.

    LLVM's work takes seconds, and ends with a call of a function in Python, which loses a Ctrl-C that came meanwhile.
    It is repeated. Functions are read from disk after LLVM has compiled some of Numba's own.
    """

    def __init__(self) -> None:
        self._interrupts = RepeatedInterrupts(CALLBACKS)

    def notify(self, found: Any) -> None:
        """Take an event of the kind ``"numba:compiler_lock"``, before the lock is taken or after it was given back."""
        if threading.current_thread() is not threading.main_thread():
            return
        is_held = _lock.is_locked()  # by this thread, further out
        if not found.is_start and is_held:
            self._interrupts.repeat()
        elif not found.is_start:
            self._interrupts.__exit__(None, None, None)
        elif not is_held:
            self._interrupts = RepeatedInterrupts(CALLBACKS)
            self._interrupts.__enter__()


_event: Any = numba.core.event  # which has no types
_event.Listener.register(Notice)
_event.Listener.register(LostInterrupts)


def announce() -> None:
    """Let a line appear whenever kernels are compiled, and no Ctrl-C be lost."""
    _event.register("numba:compile", Notice())
    _event.register("numba:compiler_lock", LostInterrupts())
