"""Delay Ctrl-C until a block has finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class HeldInterrupts:
    """Delay Ctrl-C during the ``with`` block; it takes effect at the block's end.

    Python interrupts only the main thread, and only that thread may set signal handlers: in other threads this does
    nothing.
    """

    def __enter__(self) -> None:
        self._came: tuple[int, FrameType | None] | None = None
        handler = signal.getsignal(signal.SIGINT)
        in_main = threading.current_thread() is threading.main_thread()
        self._handler = handler if in_main and callable(handler) else None
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._hold)  # No Ctrl-C can interrupt from here on.

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self._came is not None:
                self._handler(*self._came)
