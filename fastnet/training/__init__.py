"""Training: minibatches, epochs, evaluation, and the best parameters kept."""

from fastnet.training.callbacks import EarlyStopping, SaveBest
from fastnet.training.divergence import DivergenceError
from fastnet.training.history import EpochResult, History
from fastnet.training.trainer import Trainer

__all__ = [
    "DivergenceError",
    "EarlyStopping",
    "EpochResult",
    "History",
    "SaveBest",
    "Trainer",
]
