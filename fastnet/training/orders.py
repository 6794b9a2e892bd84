"""The order in which each epoch takes the rows."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import IntArray

MOST_ORDERED = 2**20  # rows whose order is made for several epochs at a time: 8 MB


class RowOrders:
    """The orders of the epochs 0, 1, …: they depend only on the seed and the epoch.

    Parameters
    ----------
    rows : int
    seed : int
    shuffle : bool
        Whether each epoch has an order of its own; otherwise all have that of the data.
    """

    def __init__(self, rows: int, seed: int, shuffle: bool) -> None:
        self._rows, self._seed, self._shuffle = rows, seed, shuffle
        self._kept: tuple[int, IntArray] | None = None  # an epoch, and its order

    @property
    def most_epochs(self) -> int:
        """How many epochs' orders may be made at a time."""
        return MOST_ORDERED // self._rows if self._shuffle else MOST_ORDERED

    def of(self, epoch: int, epochs: int = 1) -> IntArray:
        """Return the order of an epoch, shape (rows,), or those of several, (epochs, rows), if these differ."""
        if not self._shuffle:
            epoch, epochs = 0, 1
        if epochs > 1:
            return np.stack([self._shuffled(e) for e in range(epoch, epoch + epochs)])
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, self._shuffled(epoch) if self._shuffle else np.arange(self._rows)
        return self._kept[1]

    def _shuffled(self, epoch: int) -> IntArray:
        return np.random.default_rng((self._seed, epoch)).permutation(self._rows)
