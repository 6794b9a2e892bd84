"""A Ctrl-C is never lost: not between any two instructions of the blocks that delay it, and not by an import."""

from __future__ import annotations

import ast
import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import fastnet
from fastnet._tools import interrupts
from fastnet._tools.importing import import_whole
from fastnet._tools.interrupts import HeldInterrupts, RepeatedInterrupts

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals for one process"),
    pytest.mark.usefixtures("ctrl_c"),
]

PACKAGE = Path(fastnet.__file__).parent
BLOCKS = [HeldInterrupts, lambda: HeldInterrupts(end_kernel=True), RepeatedInterrupts]


def interrupt(block: Any, instruction: int) -> tuple[bool, bool]:
    """Enter and leave `block` with a Ctrl-C before one of its instructions: whether it came, and whether it raised.

    A signal handler of Python can run between fewer instructions than those; which ones, depends on the version.
    """
    until = itertools.count(instruction, -1)
    came = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal came
        if frame.f_code.co_filename != interrupts.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and next(until) == 0:
            came = True
            signal.raise_signal(signal.SIGINT)
        return trace

    raised = False
    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        with block:
            pass
    except KeyboardInterrupt:
        raised = True
    finally:
        sys.settrace(outer)
    return came, raised


@pytest.mark.parametrize("make", BLOCKS)
def test_no_instruction_of_a_block_loses_a_ctrl_c(make):
    for instruction in itertools.count():
        came, raised = interrupt(make(), instruction)
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        assert raised == came, instruction
        assert handler is signal.default_int_handler, instruction
        if not came:
            break
    assert instruction > 50


def test_what_a_callback_has_dropped_is_raised_again():
    """Python prints and drops an exception that leaves a finalizer, as that of a function that C calls."""
    reports: list[str] = []
    reached: list[str] = []

    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def run(block: RepeatedInterrupts) -> None:
        with block:
            Dropping()
            reached.append("within")
            block.repeat()
            reached.append("behind")

    hook, sys.unraisablehook = sys.unraisablehook, lambda dropped: reports.append(str(dropped.object))
    try:
        for may_raise, reported in ((lambda frame: True, 1), (lambda frame: frame.f_code.co_name != "__del__", 0)):
            reports.clear()
            with pytest.raises(KeyboardInterrupt):
                run(RepeatedInterrupts(may_raise))
            assert len(reports) == reported
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        sys.unraisablehook = hook
    assert reached == ["within", "within"]


# Imports of libraries ---------------------------------------------------------------------------------------

# A module that the user names is the user's program: Ctrl-C ends it.
OF_USERS = {"cli/check.py"}
IMPORTER = "_tools/importing.py"


def late_imports(source: str) -> Iterator[tuple[int, bool]]:
    """The lines that import a library within functions, and whether they import it as a whole."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "import_whole")):
                    yield node.lineno, ast.unparse(node.func) == "import_whole"
                elif _imports_library(node):
                    yield node.lineno, False


def _imports_library(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(not _is_known(alias.name) for alias in node.names)
    return isinstance(node, ast.ImportFrom) and not _is_known(node.module or "")


def _is_known(module: str) -> bool:
    """Whether a module is of Python, or of fastnet's own Python, whose imports of libraries are seen themselves."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or (top == "fastnet" and module != "fastnet.backends")


def test_libraries_that_functions_import_are_imported_as_a_whole():
    found = {
        f"{file.relative_to(PACKAGE).as_posix()}:{line}": held
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != PACKAGE / IMPORTER
        for line, held in late_imports(file.read_text(encoding="utf-8"))
    }
    assert len(found) >= 8
    free = [place for place, held in found.items() if not held]
    assert {place.partition(":")[0] for place in free} == OF_USERS, free


def test_the_search_finds_imports_in_functions():
    source = """
import numpy
def f():
    import json
    import tqdm
    from numba.core import types
    import_whole("pooch")
    return importlib.import_module("scipy")
"""
    assert sorted(late_imports(source)) == [(5, False), (6, False), (7, True), (8, False)]


IMPORT = """
import os, pathlib, signal, sys, threading, time
from fastnet._tools.importing import import_whole

pathlib.Path("slow_library.py").write_text("import time; time.sleep(1.0); done = True")
sys.path.insert(0, os.getcwd())
def press():
    while "slow_library" not in sys.modules:
        time.sleep(0.001)
    press.at = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    import_whole("slow_library")
except KeyboardInterrupt:
    print(int(time.perf_counter() - press.at < 0.5))
assert not hasattr(sys.modules["slow_library"], "done")
assert import_whole("slow_library").done  # which waits
"""


def test_ctrl_c_does_not_wait_for_an_import_and_leaves_it_whole(run_python):
    assert run_python(IMPORT) == 1


def test_exceptions_of_an_import():
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_whole("no_such_library")


def test_an_import_where_no_thread_can_be_started(monkeypatch):
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert import_whole("this").d["n"] == "a"


def test_numpys_generators_are_there_before_anyone_can_wait_for_them(run_python):
    """NumPy imports them at their first use; the base classes of Cython drop a KeyboardInterrupt meanwhile."""
    assert run_python("import fastnet, sys; print(int('numpy.random._generator' in sys.modules))") == 1
