"""What a Trainer can be told to do after each epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastnet._tools import checks
from fastnet.training.history import History

MONITORED = ("test_accuracy", "train_accuracy", "loss")


class Training(Protocol):
    """What a callback may use of the Trainer that calls it.

    Attributes
    ----------
    net : object
        The network that is trained.
    history : History
        Its last row is the epoch that has just ended.
    measured : tuple of str
        What the history records of ``"loss"``, ``"train_accuracy"`` and ``"test_accuracy"``.
    best_epoch : float or None
        The best epoch so far.
    """

    net: Any
    history: History
    measured: tuple[str, ...]
    best_epoch: float | None

    def stop(self) -> None:
        """End the training after this epoch."""


class EarlyStopping:
    """End the training when it has stopped improving.

    It looks at the history alone, so that it decides the same after `Trainer.load` as without it.

    Parameters
    ----------
    patience : int
        Epochs to wait without improvement before stopping.
    monitor : {"test_accuracy", "train_accuracy", "loss"}
        The column of the history that tells what is better: a higher accuracy, or a lower loss.
    min_delta : float, default 0
        The smallest change that counts as an improvement.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or is out of its range.

    Examples
    --------
    >>> import fastnet
    >>> x, t = fastnet.datasets.make_digits(50, seed=0)
    >>> net = fastnet.TwoLayerNet(784, 5, 10, seed=0)
    >>> stop = fastnet.EarlyStopping(patience=2, monitor="loss", min_delta=100.0)
    >>> trainer = fastnet.Trainer(net, x, t, batch_size=10, epochs=20, callbacks=[stop])
    >>> len(trainer.fit().rows)
    3
    """

    def __init__(self, patience: int, *, monitor: str = "test_accuracy", min_delta: float = 0.0) -> None:
        self.patience = checks.as_count(patience, "patience")
        self.monitor = checks.as_choice(monitor, "monitor", MONITORED)
        self.min_delta = checks.as_real(min_delta, "min_delta")
        if self.min_delta < 0:
            raise ValueError(f"min_delta must be at least 0, not {min_delta}")

    def check(self, trainer: Training) -> None:
        """Raise ValueError if the trainer does not measure what is monitored."""
        if self.monitor not in trainer.measured:
            raise ValueError(f"EarlyStopping monitors the {self.monitor}, which this training does not measure")

    def __call__(self, trainer: Training) -> None:
        column = trainer.history[self.monitor]
        best, waited = -np.inf, 0
        for value in -column if self.monitor == "loss" else column:
            if value > best + self.min_delta:
                best, waited = value, 0
            else:
                waited += 1
        if waited >= self.patience:
            trainer.stop()


class SaveBest:
    """Save the parameters by the network's `save_params` after each epoch that is the best so far.

    The file is replaced when the new one is complete, so that there is always a complete file.

    Parameters
    ----------
    path : path-like

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> import tempfile, os
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save = fastnet.SaveBest(os.path.join(folder, "best.npz"))
    ...     _ = fastnet.Trainer(net, x, t, x, t, batch_size=5, epochs=2, callbacks=[save]).fit()
    ...     print(os.listdir(folder))
    ['best.npz']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(self, trainer: Training) -> None:
        """Raise if the network cannot be saved, or the folder does not exist."""
        if not callable(getattr(trainer.net, "save_params", None)):
            raise TypeError(
                f"SaveBest needs a network with a `save_params` method, but {checks.type_name(trainer.net)} has none"
            )
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"SaveBest can't write {str(self.path)!r}: there is no such folder")

    def __call__(self, trainer: Training) -> None:
        if trainer.best_epoch == trainer.history.rows[-1].epoch:
            trainer.net.save_params(self.path)
