"""Ctrl-C at a time that suits."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class HeldInterrupts:
    """Within the ``with`` block Ctrl-C waits; it comes at its end.

    Only the main thread is ever interrupted, and only it may say what a signal does: elsewhere nothing is held.
    """

    def __enter__(self) -> None:
        self._came: tuple[int, FrameType | None] | None = None
        handler = signal.getsignal(signal.SIGINT)
        in_main = threading.current_thread() is threading.main_thread()
        self._handler = handler if in_main and callable(handler) else None
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._hold)  # from here on nothing can come between this and the block

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self._came is not None:
                self._handler(*self._came)
