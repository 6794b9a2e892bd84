"""How `pytest -n` shares the tests out: in groups, each in one process, and in an order.

pytest-xdist's own groups do nothing with pytest 9.2, which keeps no test's name where they are written; and their order
is by the number of tests, not by their time. So the group is read from the test's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# They take longest: one process alone would end with them. The second compiles all of Numba's kernels, which others
# would compile as well if they needed them in the meantime.
FIRST = ("test_cpp_calls_no_derivative", "test_each_kernel_is_compiled_once_for_each_dtype")


# Functions that share what is computed once in a process, long double or mpmath above all.
TOGETHER = {
    "test_exact_differences_of_small_networks": "numbered recipes",
    "test_the_bounds_say_something": "numbered recipes",
    "test_loop": "differences in long double",
    "test_the_loop_agrees_as_far_as_its_rounding_allows": "differences in long double",
}


def group_of(nodeid: str) -> str:
    """Return the group of a test: its function, so that what is cached for one backend serves for all.

    Tests of Ctrl-C are one group. They measure times, and would disturb each other.
    """
    function = nodeid.partition("[")[0]
    return "ctrl-c" if "ctrl_c" in function else TOGETHER.get(function.rpartition("::")[2], function)


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which groups begin: those that use Numba late, fresh interpreters last."""

    def rank(item: pytest.Item) -> int:
        function, _, parameters = item.nodeid.partition("[")
        if function.endswith(FIRST):
            return 0
        if "run_python" in getattr(item, "fixturenames", ()) or group_of(item.nodeid) == "ctrl-c":
            return 3
        # Comparisons, and their examples, are of all backends.
        return 2 if "numba" in function or "numba" in parameters or "compar" in item.nodeid else 1

    items = list(items)
    ranks: dict[str, int] = {}
    for item in items:
        group = group_of(item.nodeid)
        ranks[group] = max(ranks.get(group, 0), rank(item))
    return sorted(items, key=lambda item: ranks[group_of(item.nodeid)])


class Sharing(LoadScopeScheduling):
    """The groups in the order in which their first tests come."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
