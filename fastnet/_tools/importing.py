"""Libraries that are imported at first use: Ctrl-C neither waits for them nor leaves them half imported."""

from __future__ import annotations

import importlib
import sys
import threading
from types import ModuleType

from fastnet._tools.interrupts import HeldInterrupts


def import_whole(name: str) -> ModuleType:
    """Import a module as a whole, although Ctrl-C may come meanwhile, and return it.

    A library's C code may drop a KeyboardInterrupt while it is imported, and one that was imported in part may not be
    importable any more. Python interrupts only the main thread: so another thread imports the module, and goes on with
    it after Ctrl-C has ended the call.

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
        threading.Thread(target=run, name=f"import of {name}").start()
    except RuntimeError:  # "can't start new thread"
        with HeldInterrupts():
            return importlib.import_module(name)
    ended.wait()
    if errors:
        raise errors[0]
    return importlib.import_module(name)
