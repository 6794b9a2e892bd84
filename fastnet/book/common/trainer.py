"""`common/trainer.py` of the book: training by gradients of random mini-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.book.common.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["Trainer"]

OPTIMIZERS = {kind.name: kind for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)}
SETTINGS: Mapping[str, float] = {"lr": 0.01}


class Trainer:
    """Train a network on mini-batches that are drawn with ``np.random.choice``.

    `fastnet.Trainer` visits each row once in an epoch, and makes many iterations at a time in the kernels. This one
    draws the rows of each batch anew, as the book does, and works with any network that has the book's methods.

    Parameters
    ----------
    network : object
        It has `params`, and the methods `gradient`, `loss` and `accuracy` of (x, t).
    x_train, t_train, x_test, t_test : ndarray
        The data, a row for each image.
    epochs : int, default 20
    mini_batch_size : int, default 100
    optimizer : {"SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"}
        In capitals or not.
    optimizer_param : dict, default {"lr": 0.01}
        The arguments of the optimizer.
    evaluate_sample_num_per_epoch : int, optional
        How many of the first rows the accuracies are of; all by default. The accuracy that `train` prints at the end
        is that of all test rows.
    verbose : bool, default True
        Whether to print the losses and the accuracies.

    Attributes
    ----------
    train_loss_list : list of float
        The loss of each batch, after its update.
    train_acc_list, test_acc_list : list of float
        The accuracies after the first iteration of each epoch.
    train_size, batch_size, iter_per_epoch, max_iter, current_iter, current_epoch, optimizer
        As in the book. If the batches do not divide the rows, `iter_per_epoch` is not a whole number, and the
        accuracies are taken where a number of iterations is a multiple of it.

    Raises
    ------
    ValueError, TypeError
        If the numbers of rows differ, or an argument is out of range.
    """

    def __init__(
        self,
        network: Any,
        x_train: npt.NDArray[Any],
        t_train: npt.NDArray[Any],
        x_test: npt.NDArray[Any],
        t_test: npt.NDArray[Any],
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] = SETTINGS,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        for x, t, which in ((x_train, t_train, "train"), (x_test, t_test, "test")):
            if len(x) != len(t):
                raise ValueError(f"t_{which} has {len(t)} rows for the {len(x)} rows of x_{which}")
        name = checks.as_choice(str(optimizer).lower(), "optimizer", tuple(OPTIMIZERS))
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train, self.x_test, self.t_test = x_train, t_train, x_test, t_test
        self.epochs = checks.as_count(epochs, "epochs", 0)
        self.batch_size = checks.as_count(mini_batch_size, "mini_batch_size")
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = OPTIMIZERS[name](**optimizer_param)
        self.train_size = checks.as_count(len(x_train), "the number of rows of x_train")
        self.iter_per_epoch = max(self.train_size / self.batch_size, 1)
        self.max_iter = int(self.epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    def train_step(self) -> None:
        """Make one iteration: a batch, its gradient, the update, the loss, and at times the accuracies."""
        rows = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[rows], self.t_train[rows]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        self.train_loss_list.append(self.network.loss(x, t))
        self._print(f"train loss:{self.train_loss_list[-1]}")
        if self.current_iter % self.iter_per_epoch == 0:
            self._evaluate()
        self.current_iter += 1

    def train(self) -> None:
        """Make `max_iter` iterations, and print the accuracy of the test rows."""
        for _ in range(self.max_iter):
            self.train_step()
        if self.verbose:
            accuracy = self.network.accuracy(self.x_test, self.t_test)
            self._print(f"=============== Final Test Accuracy ===============\ntest acc:{accuracy}")

    def _evaluate(self) -> None:
        first = slice(self.evaluate_sample_num_per_epoch)
        self.current_epoch += 1
        self.train_acc_list.append(self.network.accuracy(self.x_train[first], self.t_train[first]))
        self.test_acc_list.append(self.network.accuracy(self.x_test[first], self.t_test[first]))
        train, test = self.train_acc_list[-1], self.test_acc_list[-1]
        self._print(f"=== epoch:{self.current_epoch}, train acc:{train}, test acc:{test} ===")

    def _print(self, line: str) -> None:
        if self.verbose:
            print(line)
