"""While Numba compiles kernels, which takes a minute once: a line on a terminal, Ctrl-C, threads that compile none."""

from __future__ import annotations

import contextlib
import threading
from types import FrameType
from typing import Any

import numba.core.event
from numba.core.compiler_lock import global_compiler_lock

from fastnet._tools.interrupts import RepeatedInterrupts
from fastnet._tools.progress import on_terminal, progress_bar

_lock: Any = global_compiler_lock  # which has no types
_helper = threading.local()


class NotCompiled(RuntimeError):  # noqa: N818 - a reason to leave it to another thread, not a failure
    """A kernel is not compiled yet, in a thread that is not to do it."""


def leave_to_others() -> None:
    """Let what this thread would have to compile, or to read from disk, raise `NotCompiled` from now on."""
    _helper.never_compiles = True


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


class Helpers:
    """Listens to the lock that Numba holds while it compiles functions or reads them from disk: helpers do neither.

    A thread that helps is waited for, without regard to Ctrl-C. Who waits can hold a lock of Numba's itself: an
    exception from a signal handler as a `with` statement ends leaves it taken.
    """

    def notify(self, found: Any) -> None:
        """Take an event of the kind ``"numba:compiler_lock"``."""
        if found.is_start and getattr(_helper, "never_compiles", False):
            raise NotCompiled


class LostInterrupts:
    """Listens to the same lock: Ctrl-C is not lost meanwhile, and leaves no lock taken.

    LLVM's work takes seconds, and Ctrl-C raises as it ends. In what Numba does besides, it waits for the end of the
    present pass.
    """

    def __init__(self) -> None:
        self._interrupts = RepeatedInterrupts(_may_raise)

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
            self._interrupts = RepeatedInterrupts(_may_raise)
            self._interrupts.__enter__()


def _may_raise(frame: FrameType | None) -> bool:
    """Whether an exception is raised as by Numba itself here: as a call of LLVM ends, or while the lock is waited for.

    LLVM calls functions of Python to tell what it has compiled, and to ask for what is on disk. What they raise is
    dropped, as is what finalizers raise.
    """
    if not _lock.is_locked():
        return True
    if frame is None or not _calls_llvm(frame):
        return False
    while (frame := frame.f_back) is not None:
        if _calls_llvm(frame) or frame.f_code.co_name == "__del__":
            return False
    return True


def _calls_llvm(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__call__" and frame.f_globals.get("__name__") == "llvmlite.binding.ffi"


_event: Any = numba.core.event  # which has no types
for _listener in (Notice, Helpers, LostInterrupts):
    _event.Listener.register(_listener)


def announce() -> None:
    """Let a line appear whenever kernels are compiled, helpers compile none, and no Ctrl-C be lost."""
    _event.register("numba:compile", Notice())
    _event.register("numba:compiler_lock", Helpers())
    _event.register("numba:compiler_lock", LostInterrupts())
