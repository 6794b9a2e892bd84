"""How `pytest -n` shares the tests out: in groups, each in one process, the longest first.

pytest-xdist's own groups do nothing with pytest 9.2, which keeps no test's name where they are written; and their order
is by the number of tests, not by their time. So the group is read from the test's name.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling


def group_of(nodeid: str) -> str:
    """Return the group of a test.

    Numba's tests are in one group: two processes would compile the same functions at the same time. Tests of Ctrl-C
    measure times, and would disturb each other. All others are grouped by their function, so that what is cached for a
    test on one backend or instruction set serves for all.
    """
    function, _, parameters = nodeid.partition("[")
    if "ctrl_c" in function:
        return "ctrl-c"
    return "numba" if "numba" in parameters.rstrip("]").split("-") else function


def order(nodeid: str, in_subprocess: bool) -> int:
    """Return the rank of a test among all: groups begin in the order of their first tests.

    The longest groups come first, since one process alone would end with them. Tests that start a fresh interpreter
    come after the others, which have then compiled what it needs.
    """
    group = group_of(nodeid)
    if group.endswith("::test_cpp_calls_no_derivative"):
        return 0
    if group == "numba":
        return 2 if in_subprocess else 1
    return 4 if group == "ctrl-c" else 5 if in_subprocess else 3


class Sharing(LoadScopeScheduling):
    """The groups in the order in which their first tests come."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
