"""What a Trainer can be told to do after each epoch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastnet._tools import checks

if TYPE_CHECKING:
    from fastnet.training.trainer import Trainer

MONITORED = ("test_accuracy", "train_accuracy", "loss")


class EarlyStopping:
    """End the training when it has not become better for a while.

    All that it looks at is the history: it is the same after `Trainer.load` as without.

    Parameters
    ----------
    patience : int
        After how many epochs without a better one.
    monitor : {"test_accuracy", "train_accuracy", "loss"}
        Which column of the history tells what is better; of the accuracies the higher, of the loss the lower one.
    min_delta : float, default 0
        By how much more than that it must be better to count.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, or is out of its range.
    """

    def __init__(self, patience: int, monitor: str = "test_accuracy", min_delta: float = 0.0) -> None:
        self.patience = checks.as_count(patience, "patience")
        self.monitor = checks.as_choice(monitor, "monitor", MONITORED)
        self.min_delta = checks.as_real(min_delta, "min_delta")
        if self.min_delta < 0:
            raise ValueError(f"min_delta must be at least 0, not {min_delta}")

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError if the trainer does not measure what is monitored."""
        if self.monitor not in trainer.measured:
            raise ValueError(f"EarlyStopping monitors the {self.monitor}, which this training does not measure")

    def __call__(self, trainer: Trainer) -> None:
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

    The file is replaced when the new one is complete: there is always a whole one.

    Parameters
    ----------
    path : path-like
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(self, trainer: Trainer) -> None:
        """Raise if the network can't be saved, or there is no such folder."""
        if not callable(getattr(trainer.net, "save_params", None)):
            raise TypeError(f"SaveBest needs a network with save_params, which {checks.type_name(trainer.net)} has not")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"SaveBest can't write {str(self.path)!r}: there is no such folder")

    def __call__(self, trainer: Trainer) -> None:
        if trainer.best_epoch == trainer.history.rows[-1].epoch:
            trainer.net.save_params(self.path)
