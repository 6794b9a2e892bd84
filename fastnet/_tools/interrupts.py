"""Ctrl-C that is delayed until a block has finished, and Ctrl-C that a block has swallowed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# Called with the number of a thread whose kernel is to end with KeyboardInterrupt at its next check, and with 0 when
# that is over: by each backend whose kernels ask for signals themselves.
END_KERNEL: list[Callable[[int], None]] = []


Handler = Callable[[int, FrameType | None], Any]

# Python's `signal` makes enums of what it is given and returns, and of a handler only tries to: two blocks would take
# as long as a step of a small network. This is the module that it asks.
_signal: Any = importlib.import_module("_signal")


def _handler_to_replace() -> Handler | None:
    """Return Python's handler of Ctrl-C; None in other threads than the main one, and where it is not Python's."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler: Handler | int | None = _signal.getsignal(_signal.SIGINT)
    return handler if callable(handler) else None


class HeldInterrupts:
    """Delay Ctrl-C during the ``with`` block; it takes effect at the block's end.

    Python interrupts only the main thread, and only that thread may set signal handlers: in other threads this does
    nothing.

    Parameters
    ----------
    end_kernel : bool
        Whether a kernel that is running is to end with KeyboardInterrupt: the block can then say what it has done. If
        the program's own signal handler raises nothing, neither does the block.
    """

    def __init__(self, *, end_kernel: bool = False) -> None:
        self._ends_kernel = end_kernel
        self._handler: Handler | None = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        self._handler = _handler_to_replace()
        if self._handler is not None:
            _signal.signal(_signal.SIGINT, self._hold)  # No Ctrl-C can interrupt from here on.

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame
        self._tell_kernels(threading.get_ident())

    def _tell_kernels(self, thread: int) -> None:
        if self._ends_kernel:
            for tell in END_KERNEL:
                tell(thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._handler is None:
            return False
        try:
            _signal.signal(_signal.SIGINT, self._handler)  # It first runs `_hold` for a Ctrl-C that has just come.
        finally:
            self._tell_kernels(0)
        if self._came is None:  # Nothing is held from here on: an answer of before could be out of date.
            return False
        self._handler(*self._came)
        return self._ends_kernel and kind is KeyboardInterrupt


class RepeatedInterrupts:
    """Raise what Ctrl-C raised within the block again where it has been lost: at `repeat`, and at the block's end.

    Python prints and drops an exception that leaves a finalizer, or another function that C calls. In other threads
    than the main one this does nothing.

    Parameters
    ----------
    may_raise : callable, optional
        Is given the frame where Ctrl-C found the program, and returns whether it may raise there. Elsewhere it is held
        back until `repeat`: where a `with` statement is being entered or left, it would leave a lock taken for ever.
    """

    def __init__(self, may_raise: Callable[[FrameType | None], bool] = lambda frame: True) -> None:
        self._may_raise = may_raise
        self._handler: Handler | None = None
        self._raised: BaseException | None = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        self._handler = _handler_to_replace()
        if self._handler is not None:
            _signal.signal(_signal.SIGINT, self._keep)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self._may_raise(frame):
            self._handle(number, frame)
        else:
            self._came = number, frame

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._handler is not None:
            try:
                self._handler(number, frame)
            except BaseException as error:
                self._raised = error
                _signal.signal(_signal.SIGINT, self._handler)  # `__exit__` may be what it interrupts.
                raise

    def repeat(self) -> None:
        """Raise what Ctrl-C raised, if it came."""
        if self._came is not None:
            came, self._came = self._came, None
            self._handle(*came)
        if self._raised is not None:
            raise self._raised

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            _signal.signal(_signal.SIGINT, self._handler)
        self.repeat()


with HeldInterrupts():  # NumPy would import it at its first use, in the middle of a call.
    importlib.import_module("numpy.random")
