"""NumPy's global random generator, which layers and networks of the book draw their masks from: noted, and put back."""

from __future__ import annotations

from typing import Any

import numpy as np


class GlobalRandom:
    """The generator's state when this was made."""

    def __init__(self) -> None:
        self._state = _state()

    def has_moved(self) -> bool:
        """Return whether numbers were drawn since."""
        now = _state()
        return bool(now[2:] != self._state[2:]) or not np.array_equal(now[1], self._state[1])

    def put_back(self) -> None:
        np.random.set_state(self._state)  # noqa: NPY002 - the book's code draws from it, and has no other


def _state() -> Any:
    return np.random.get_state()  # noqa: NPY002
