"""Libraries that are imported at first use: Ctrl-C neither waits long for them nor leaves them half imported."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

from fastnet._tools.interrupts import HeldInterrupts

# How long Ctrl-C waits for an import. Numba's takes 0.1 s, and longer where its files have not been read before.
PATIENCE_SECONDS = 0.17


def import_whole(name: str) -> ModuleType:
    """Import a module as a whole, although Ctrl-C may come meanwhile, and return it.

    A library's C code may drop a KeyboardInterrupt while it is imported, and one that was imported in part may not be
    importable any more. Python interrupts only the main thread: so another thread imports the module. Ctrl-C waits for
    it a moment, and then ends the call, while the import goes on. The call is not ended at once, since a program that
    ends by KeyboardInterrupt while a thread imports something has the exit code 1, not that of SIGINT.

    Parameters
    ----------
    name : str

    Raises
    ------
    ImportError
        As ``import`` raises it.
    """
    if name in sys.modules or threading.current_thread() is not threading.main_thread():
        return importlib.import_module(name)
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            importlib.import_module(name)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        started = _is_started(threading.Thread(target=run, name=f"import of {name}"))
        if started:
            ended.wait()
    except BaseException:
        ended.wait(PATIENCE_SECONDS)
        raise
    if not started:
        with HeldInterrupts():
            return importlib.import_module(name)
    if errors:
        raise errors[0]
    return importlib.import_module(name)


def _is_started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # "can't start new thread"
        return False
    return True
