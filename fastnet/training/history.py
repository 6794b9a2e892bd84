"""The record of a training: the loss of every iteration, and a row for every epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.text import format_seconds, html_lines, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = (("epoch", 6), ("iteration", 11), ("rate", 11), ("loss", 9), ("train", 8), ("test", 8), ("time", 9))


@dataclass(frozen=True)
class EpochResult:
    """The state of a training after an epoch.

    Attributes
    ----------
    epoch : float
        The number of epochs made: 1, 2, …, with a fraction if the training ended within an epoch.
    iteration : int
        The number of iterations made.
    learning_rate : float or None
        Learning rate of the last iteration; None if the optimizer reports none.
    loss : float
        The mean loss of the iterations since the row before, each before its update.
    train_accuracy, test_accuracy : float or None
        The share of rows that the network gets right, from 0 to 1; None if it was not measured.
    seconds : float
        The time of these iterations; of short epochs that were trained together, each has an equal share.
    evaluation_seconds : float
        The time of measuring the accuracies.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> history = fastnet.Trainer(net, x, t, batch_size=5, epochs=2).fit()
    >>> history.rows[-1].iteration
    2
    """

    epoch: float
    iteration: int
    learning_rate: float | None
    loss: float
    train_accuracy: float | None
    test_accuracy: float | None
    seconds: float
    evaluation_seconds: float

    def to_cells(self) -> list[str]:
        """Return the row as the cells of the table that `History` shows."""
        return [
            f"{self.epoch:.4g}",
            f"{self.iteration:,}",
            "-" if self.learning_rate is None else f"{self.learning_rate:.3g}",
            f"{self.loss:.4f}",
            *("-" if share is None else f"{share:.4f}" for share in (self.train_accuracy, self.test_accuracy)),
            format_seconds(self.seconds),
        ]

    def to_line(self) -> str:
        """Return the row as a line of the table that `History` prints."""
        return "".join(f"{cell:>{width}}" for cell, (_, width) in zip(self.to_cells(), _COLUMNS, strict=True))


COLUMNS = tuple(field.name for field in fields(EpochResult))
NOTE = "rate: learning rate; train, test: accuracy on these data; time: without measuring accuracies"
HEAD = "".join(f"{name:>{width}}" for name, width in _COLUMNS)


class History:
    """The losses of a training and its epochs. ``print`` shows the table of epochs; ``history["loss"]`` is a column.

    Attributes
    ----------
    rows : list of EpochResult
    iterations_per_epoch : int
    network, optimizer : str
        What is trained, and by which optimizer with which learning rate, as `Trainer.fit` found them; empty before.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> history = fastnet.Trainer(net, x, t, batch_size=5, epochs=2).fit()
    >>> history["epoch"].tolist(), history.losses.shape
    ([1.0, 2.0], (2,))
    """

    def __init__(self, iterations_per_epoch: int) -> None:
        self.rows: list[EpochResult] = []
        self.iterations_per_epoch = iterations_per_epoch
        self.network = self.optimizer = ""
        self._losses: list[float] = []

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """The loss of each iteration, on its batch and before its update; shape (iterations,)."""
        return np.array(self._losses, np.float64)

    def add_losses(self, losses: list[float]) -> None:
        """Record the losses of further iterations."""
        self._losses.extend(losses)

    @property
    def iteration(self) -> int:
        """The number of iterations made."""
        return len(self._losses)

    @property
    def last_loss(self) -> float:
        """The loss of the last iteration."""
        return self._losses[-1]

    @property
    def iteration_of_last_row(self) -> int:
        """The iteration after which the last row was added; 0 if there is none."""
        return self.rows[-1].iteration if self.rows else 0

    def mean_since_last_row(self, end: int) -> float:
        """The mean loss of the iterations since the last row, up to `end`."""
        losses = np.array(self._losses[self.iteration_of_last_row : end])
        return float(np.add.reduce(losses) / losses.size)  # `mean` of a few numbers takes several times as long

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of the rows, by the names of `EpochResult`, NaN where there is no value; shape (rows,)."""
        if name not in COLUMNS:
            raise KeyError(f"{name!r} is not a column of a History; these are {', '.join(map(repr, COLUMNS))}")
        values = [getattr(row, name) for row in self.rows]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def __repr__(self) -> str:
        return f"<History of {self.iteration:,} iterations in {len(self.rows)} rows: print it for the table>"

    def __str__(self) -> str:
        return "\n".join([HEAD, "-" * len(HEAD), *(row.to_line() for row in self.rows), "", NOTE])

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        return html_table((name for name, _ in _COLUMNS), (row.to_cells() for row in self.rows)) + html_lines([NOTE])

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON has."""
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "iterations_per_epoch": self.iterations_per_epoch,
            "rows": [asdict(row) for row in self.rows],
            "losses": list(self._losses),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> History:
        """Return the history that `to_dict` described.

        Raises
        ------
        KeyError, TypeError, ValueError
            If `saved` is not such a description.
        """
        history = cls(int(saved["iterations_per_epoch"]))
        history.network, history.optimizer = str(saved.get("network", "")), str(saved.get("optimizer", ""))
        history.rows = [EpochResult(**row) for row in saved["rows"]]
        history.add_losses([float(loss) for loss in saved["losses"]])
        return history

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the losses and the accuracies, as `fastnet.plotting.plot_history` describes."""
        from fastnet.plotting import plot_history

        return plot_history(self, path)
