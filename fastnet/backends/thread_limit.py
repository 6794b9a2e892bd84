"""How many threads the Numba backend takes, a number that threadpoolctl can limit before Numba is imported.

threadpoolctl controls the libraries of C that it finds in the process, by their files' names. Python threads belong to
none. So what controls them is registered for a file that is there in any case: NumPy's core.
"""

from __future__ import annotations

import importlib.util
import os

from fastnet._tools.importing import import_whole

_wanted: int | None = None
_registered = False


def wanted() -> int | None:
    """The number that was set last, by fastnet or by threadpoolctl; None if none was."""
    return _wanted


def want(count: int) -> None:
    global _wanted
    _wanted = count


def from_openmp() -> int | None:
    """The number in ``OMP_NUM_THREADS``, of the outermost region if it lists several; None where OpenMP ignores it."""
    numbers = [part.strip() for part in os.environ.get("OMP_NUM_THREADS", "").split(",")]
    valid = all(number.isdecimal() and int(number) >= 1 for number in numbers)
    return int(numbers[0]) if valid else None


def follow_threadpoolctl() -> None:
    """Obey ``threadpool_limits`` from now on, for all libraries or those of OpenMP, if threadpoolctl is installed.

    It must be 3.3 or newer, in which others can register what they control.
    """
    global _registered
    if _registered or importlib.util.find_spec("threadpoolctl") is None:
        return
    threadpoolctl = import_whole("threadpoolctl")
    if not hasattr(threadpoolctl, "register"):
        return

    members = {
        "user_api": "openmp",
        "internal_api": "fastnet_numba",
        "filename_prefixes": ("_multiarray_umath",),
        "get_num_threads": lambda _: _wanted or from_openmp() or os.cpu_count() or 1,
        "set_num_threads": lambda _, count: want(count),
        "get_version": lambda _: None,
    }
    threadpoolctl.register(type("NumbaThreads", (threadpoolctl.LibController,), members))
    _registered = True
