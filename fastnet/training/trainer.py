"""Training: minibatches, epochs, evaluation, and the best parameters kept."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.interrupts import HeldInterrupts
from fastnet._tools.progress import ProgressBar, progress_bar
from fastnet._tools.types import FloatArray, IntArray
from fastnet.networks import ALGORITHMS
from fastnet.optimizers import SGD
from fastnet.training import inputs
from fastnet.training.checkpoint import Checkpoint, check_loads_state, name_of, optimizer_state
from fastnet.training.divergence import DivergenceError
from fastnet.training.evaluation import accuracy
from fastnet.training.fused import FusedTraining, NotFusible
from fastnet.training.history import EpochResult, History
from fastnet.training.inputs import Rows
from fastnet.training.orders import RowOrders
from fastnet.training.state import Arrays, copies, put, state_of

STRETCH_SECONDS = 0.2  # the time between two movements of the progress bar


class Trainer:
    """Trains a network on minibatches, by backprop or by numerical gradients alone.

    An iteration is one update with the gradient of one batch. An epoch is as many iterations as it takes to see every
    row once: 60,000 images in batches of 100 are 600 iterations, so that 10,000 iterations are 16.7 epochs. If the
    batch size does not divide the number of rows, the last batch of an epoch is smaller.

    Every epoch shuffles the rows anew, unless ``shuffle=False`` leaves them in the order of `x_train`. Their order
    depends only on the seed and on the number e = 0, 1, … of the epoch:
    ``numpy.random.default_rng((seed, e)).permutation(rows)``.

    Parameters
    ----------
    net : TwoLayerNet, MultiLayerNet, Network, …
        The network, whose `params` are updated in place. It may be any object with `params`, `predict`, `accuracy`, and
        `loss_and_gradient` or `numerical_gradient` as fastnet's networks have them.
    x_train, x_test : array_like
        Shape (rows, inputs), or (rows, …) if the network takes it. They are converted to the network's dtype. Arrays
        that have it already are not copied and must not change during the training.
    t_train, t_test : array_like
        Integer labels, shape (rows,), or one-hot rows or probabilities, shape (rows, classes); for a regression,
        numbers of shape (rows, outputs), or (rows,) for one output.
    optimizer : optional
        One of `fastnet.optimizers`, or any object with ``update(params, grads)``; ``SGD(lr=0.1)`` by default.
    batch_size : int, default 100
    epochs, iterations : int
        How long to train: give one of the two.
    gradient : {"backprop", "numerical"}
    h : float, optional
        The step of the numerical gradient: 1e-4 by default, and 1e-2 for float32.
    algorithm : {"auto", "nodal", "incremental", "loop"}
        The algorithm of the numerical gradient.
    seed : int, default 0
        Seed for shuffling the rows.
    shuffle : bool, default True
        Whether each epoch has an order of its own. If one batch is all the data, the order changes nothing but the
        rounding, and without shuffling a small network trains faster.
    evaluate_train : int, optional
        The number of training rows, spread evenly, on which to measure the accuracy after each epoch. By default all of
        them, which for a small network can take as long as the epoch itself; 0 to measure none.
    callbacks : iterable of callable
        Called with the trainer after each epoch, one after the other. They may call `stop`. If one raises, `fit`
        raises, and the next `fit` calls all of them again for this epoch. If a callback has a ``check`` method, the
        constructor calls ``check(trainer)``, which raises if the callback can't work with this training.
    keep_best : bool, default True
        Keep a copy of the best parameters: those with the highest accuracy on the test data after an epoch, or without
        test data those with the lowest mean loss. A small network trains faster without: where there are no accuracies
        and no callbacks either, many epochs run inside the backend at a time.
    progress : bool, optional
        Show a progress bar on stderr, if tqdm is installed. By default it is shown if stderr is a terminal.
    fused : bool, optional
        Whether whole stretches of iterations run inside the backend, with the same bits. By default they do where
        possible; True raises where it is not possible.

    Attributes
    ----------
    history : History
    iterations : int
        The number of iterations to make in total.
    iterations_per_epoch : int
    measured : tuple of str
        What the history records of ``"loss"``, ``"train_accuracy"`` and ``"test_accuracy"``: an accuracy is recorded if
        there are such data and the network has more than one output.
    best_epoch : float or None
        The epoch of the best row of the history, of the first one in a tie.
    best_params, best_state : dict of str to ndarray, or None
        The parameters and the network's `state` after that epoch.

    Raises
    ------
    ValueError
        If the data do not fit each other or the network, hold NaN or infinities, or have fewer rows than a batch;
        if a number is out of its range, or not one of `epochs` and `iterations` is given.
    TypeError
        If something has the wrong type, or lacks a method.

    Examples
    --------
    >>> import fastnet
    >>> x, t = fastnet.datasets.make_digits(2000, seed=0)
    >>> net = fastnet.MultiLayerNet(784, [50], 10, seed=0)
    >>> trainer = fastnet.Trainer(net, x, t, *fastnet.datasets.make_digits(500, seed=1), epochs=5)
    >>> trainer.iterations
    100
    >>> bool(trainer.fit()["test_accuracy"][-1] > 0.8)
    True
    """

    def __init__(
        self,
        net: Any,
        x_train: npt.ArrayLike,
        t_train: npt.ArrayLike,
        x_test: npt.ArrayLike | None = None,
        t_test: npt.ArrayLike | None = None,
        *,
        optimizer: Any = None,
        batch_size: int = 100,
        epochs: int | None = None,
        iterations: int | None = None,
        gradient: str = "backprop",
        h: float | None = None,
        algorithm: str = "auto",
        seed: int = 0,
        shuffle: bool = True,
        evaluate_train: int | None = None,
        callbacks: Iterable[Callable[[Trainer], object]] = (),
        keep_best: bool = True,
        progress: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        self.gradient = checks.as_choice(gradient, "gradient", ("backprop", "numerical"))
        self.algorithm = checks.as_choice(algorithm, "algorithm", ALGORITHMS)
        self.net, self.dtype = net, inputs.dtype_of(net, self.gradient)
        self.h = checks.as_step(h, self.dtype)
        self._data = inputs.prepare(net, self.dtype, (x_train, t_train), (x_test, t_test), evaluate_train)
        self.measured = self._data.measured
        self.optimizer = SGD(lr=0.1) if optimizer is None else optimizer
        inputs.check_optimizer(self.optimizer)
        self.batch_size = checks.as_count(batch_size, "batch_size")
        if self.batch_size > self.rows:
            raise ValueError(f"batch_size is {batch_size}, but x_train has {self.rows} row(s)")
        self.iterations_per_epoch = math.ceil(self.rows / self.batch_size)
        self.iterations = inputs.as_iterations(epochs, iterations, self.iterations_per_epoch)
        self.seed = checks.as_count(seed, "seed", least=0)
        self.shuffle = checks.as_flag(shuffle, "shuffle")
        self.keep_best = checks.as_flag(keep_best, "keep_best")
        self.progress = None if progress is None else checks.as_flag(progress, "progress")
        self.fused = None if fused is None else checks.as_flag(fused, "fused")
        self._begin()
        self._fusion()  # Raises if `fused` is True and it cannot be.
        self.callbacks = inputs.as_callbacks(callbacks)
        for callback in self.callbacks:
            if hasattr(callback, "check"):
                callback.check(self)

    def _begin(self) -> None:
        """Set what changes in the course of a training, apart from the network and the optimizer."""
        self.history = History(self.iterations_per_epoch)
        self.best_epoch: float | None = None
        self.best_params: Arrays | None = None
        self.best_state: Arrays | None = None
        self._best_score = -math.inf
        self._seconds = 0.0  # of the iterations since the last row of the history
        self._told = 0  # rows of the history that the callbacks have been told of
        self._orders = RowOrders(self.rows, self.seed, self.shuffle)
        self._stopped = False

    def _fusion(self) -> FusedTraining | None:
        """Return the training in fused stretches; None if it has to go step by step."""
        if self.fused is False:
            return None
        try:
            return FusedTraining(
                self.net,
                self.optimizer,
                self._data,
                gradient=self.gradient,
                algorithm=self.algorithm,
                h=self.h,
            )
        except NotFusible as reason:
            if self.fused:
                raise ValueError(f"fused is True, but {reason}") from None
            return None

    @property
    def rows(self) -> int:
        """The number of rows to train with."""
        return len(self._data.train)

    # The training ------------------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """The number of iterations made so far."""
        return self.history.iteration

    @property
    def epoch(self) -> float:
        """The number of epochs made so far, including the fraction of the present one."""
        return self.iteration / self.iterations_per_epoch

    @property
    def seconds(self) -> float:
        """The time of the iterations so far, without measuring accuracies."""
        return sum(row.seconds for row in self.history.rows) + self._seconds

    def fit(self, epochs: int | None = None) -> History:
        """Train from the present iteration up to the last one.

        Ctrl-C raises KeyboardInterrupt and leaves everything as it was after a whole number of iterations. Another call
        goes on from there and ends with the same bits as an uninterrupted training.

        Parameters
        ----------
        epochs : int, optional
            Train this many epochs from here instead.

        Returns
        -------
        History

        Raises
        ------
        DivergenceError
            If a loss is NaN or infinite: the update of that iteration is not made, and the parameters are those with
            this loss. Also if parameters are NaN or infinite at the end of an epoch. `best_params` stays as it was.
        ValueError, TypeError
            If a method of the network or of the optimizer raises them.
        """
        if self._is_fitting():
            raise RuntimeError("fit is already running: a callback may call stop, but not fit")
        if epochs is not None:
            self.iterations = self.iteration + checks.as_count(epochs, "epochs") * self.iterations_per_epoch
        self._fusion()
        self.history.network = inputs.describe_network(self.net, self._data.train.x)
        self.history.optimizer = inputs.describe_optimizer(self.optimizer)
        wanted = sys.stderr.isatty() if self.progress is None else self.progress
        self._stopped = False
        count = 1  # iterations of a stretch
        with progress_bar(wanted, self.iteration, width=20) as bar:
            self._show(bar, 0)
            self._add_rows_before()  # An interrupt may have left them out.
            self._call_back(bar)
            while not self._stopped and (end := self._end_of_epoch()) is not None:
                count = self._train(end, count, bar)
                self._evaluate()
                self._call_back(bar)
        return self.history

    def _is_fitting(self) -> bool:
        """Whether a call of `fit` further out, or in another thread, has not ended: a flag could survive a Ctrl-C."""
        own: FrameType | None = sys._getframe(1)
        for frame in sys._current_frames().values():
            at: FrameType | None = frame
            while at is not None:
                if at is not own and at.f_code is Trainer.fit.__code__ and at.f_locals.get("self") is self:
                    return True
                at = at.f_back
        return False

    def _end_of_epoch(self) -> int | None:
        """Return the iteration after which the next row of the history is due, or None at the end of the training."""
        last = self.history.iteration_of_last_row
        end = min((last // self.iterations_per_epoch + 1) * self.iterations_per_epoch, self.iterations)
        return end if end > last else None

    def stop(self) -> None:
        """End the training after the present epoch, or after those that are trained together with it (0.2 s).

        Another `fit` continues it.
        """
        self._stopped = True

    def _train(self, end: int, count: int, bar: ProgressBar) -> int:
        """Make the iterations of this epoch up to the iteration `end`, and those of further epochs in the same stretch.

        Return how many iterations the next stretch may have; the first one here has at most `count`.
        """
        fusion = self._fusion()
        while self.iteration < end:
            before = self.iteration
            epoch, first = divmod(before, self.iterations_per_epoch)
            epochs = 1 if fusion is None or first else self._epochs_at_once(count)
            start = time.perf_counter()
            try:
                if epochs > 1:
                    self._run(self._orders.of(epoch, epochs), fusion, epochs)
                else:
                    last = first + min(count, end - before)
                    self._run(self._orders.of(epoch)[first * self.batch_size : last * self.batch_size], fusion)
            finally:
                seconds = time.perf_counter() - start
                self._seconds += seconds
                if epochs > 1:
                    self._add_rows_before()
            new = self.iteration - before
            self._show(bar, new)
            count = max(1, min(4 * new, int(new * STRETCH_SECONDS / max(seconds, 1e-9))))
        return count

    def _epochs_at_once(self, count: int) -> int:
        """How many of the next `count` iterations' epochs can be one stretch: nothing may happen between them."""
        if self.callbacks or self.keep_best or self.measured != ("loss",):
            return 1
        at_once = min(count, self.iterations - self.iteration) // self.iterations_per_epoch
        return min(at_once, self._orders.most_epochs)

    def _run(self, orders: IntArray, fusion: FusedTraining | None, epochs: int = 1) -> None:
        """Make the iterations for the rows in this order, batch after batch; or those of several epochs.

        Whatever ends it early, the parameters, the optimizer and the recorded losses are those after the same number of
        iterations. It may end after fewer epochs.
        """
        made = 0 if fusion is None else fusion.run(orders, self.batch_size, self.history, epochs)
        epoch, made = divmod(made, math.ceil(orders.shape[-1] / self.batch_size))
        if epoch == 0 or made:
            order = np.broadcast_to(orders, (epochs, orders.shape[-1]))[epoch]
            for first in range(made * self.batch_size, len(order), self.batch_size):
                self._step(self._data.train[order[first : first + self.batch_size]])

    def _step(self, batch: Rows) -> None:
        """Make one iteration, or none of it."""
        made, state = self.iteration, copies(state_of(self.net))
        try:
            loss, gradients = self._loss_and_gradient(batch.x, batch.t)
            self._check_loss(loss)
            with HeldInterrupts():
                self.optimizer.update(self.net.params, gradients)
                self.history.add_losses([loss])
        except BaseException:
            if self.iteration == made:  # Running statistics and masks belong to an iteration that was not made.
                state_of(self.net).update(state)
            raise

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._divergence(f"the loss is {loss}", self.iteration + 1, self._learning_rate(0))

    def _loss_and_gradient(self, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]:
        if self.gradient == "backprop":
            loss, gradients = self.net.loss_and_gradient(x, t)
            return float(loss), gradients
        if state_of(self.net):
            self.net.training_loss(
                x, t
            )  # the training pass that the numerical gradient repeats, and that updates the running statistics
        gradients = self.net.numerical_gradient(x, t, h=self.h, algorithm=self.algorithm)
        return float(gradients.diagnostics.loss), gradients

    def _divergence(self, what: str, iteration: int, rate: float | None) -> DivergenceError:
        best = self.best_epoch if self.keep_best else None
        return DivergenceError(what, iteration, iteration / self.iterations_per_epoch, rate, best)

    def _learning_rate(self, back: int) -> float | None:
        """Return the learning rate of the update that is `back` updates before the next one."""
        rate = getattr(self.optimizer, "lr", None)
        made = getattr(self.optimizer, "iteration", self.iteration)  # by this trainer, and perhaps by others before
        return None if rate is None else float(rate(made - back) if callable(rate) else rate)

    # After an epoch ----------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        """Add the row of an epoch that has just ended to the history."""
        for name, parameter in self.net.params.items():
            if not np.isfinite(parameter).all():
                what = f"params[{name!r}] holds NaN or infinities after the update"
                raise self._divergence(what, self.iteration, self._learning_rate(1))
        start = time.perf_counter()
        again = len(self.history.rows) > 0
        data, measured = self._data, self.measured
        train = accuracy(self.net, data.evaluated, again=again) if "train_accuracy" in measured else None
        test = accuracy(self.net, data.test, again=again) if "test_accuracy" in measured else None
        with HeldInterrupts():
            self._add_row(self.iteration, train, test, time.perf_counter() - start)

    def _add_rows_before(self) -> None:
        """Add the rows of the whole epochs that a stretch has gone past, if there are any."""
        with HeldInterrupts():
            while (end := self._end_of_epoch()) is not None and end < self.iteration:
                if end % self.iterations_per_epoch:  # The training has become shorter than what has been made.
                    return
                self._add_row(end, None, None, 0.0)

    def _add_row(self, end: int, train: float | None, test: float | None, evaluation_seconds: float) -> None:
        """Add the row of the epoch up to the iteration `end`, and keep the parameters if they are the best so far."""
        last = self.history.iteration_of_last_row
        seconds = self._seconds * (end - last) / (self.iteration - last)
        row = EpochResult(
            epoch=end / self.iterations_per_epoch,
            iteration=end,
            learning_rate=self._learning_rate(self.iteration - end + 1),
            loss=self.history.mean_since_last_row(end),
            train_accuracy=train,
            test_accuracy=test,
            seconds=seconds,
            evaluation_seconds=evaluation_seconds,
        )
        score = -row.loss if test is None else test
        self.history.rows.append(row)
        self._seconds -= seconds
        if score > self._best_score:
            self._best_score, self.best_epoch = score, row.epoch
            if self.keep_best:
                self.best_params, self.best_state = copies(self.net.params), copies(state_of(self.net))

    def _call_back(self, bar: ProgressBar) -> None:
        """Call the callbacks if there is a row that they have not been told of."""
        if self._told == len(self.history.rows):
            return
        bar.hide()
        for callback in self.callbacks:
            callback(self)
        self._told = len(self.history.rows)

    def _show(self, bar: ProgressBar, new: int) -> None:
        if not bar.is_shown:
            return
        words = [f"epoch {max(1, math.ceil(self.epoch))}/{math.ceil(self.iterations / self.iterations_per_epoch)}"]
        if self.iteration:
            words.append(f"loss {self.history.last_loss:.4f}")
        if self.history.rows and self.history.rows[-1].test_accuracy is not None:
            words.append(f"test {self.history.rows[-1].test_accuracy:.4f}")
        bar.show("  ".join(words), new, self.iterations)

    # Keeping -----------------------------------------------------------------------------------------------

    def restore_best(self) -> None:
        """Put the best parameters, and the state that belongs to them, into the network.

        Raises
        ------
        RuntimeError
            If there are no best parameters: before the end of the first epoch, or with ``keep_best=False``.
        """
        if self.best_params is None or self.best_state is None:
            why = "no epoch has ended yet" if self.keep_best else "keep_best is False"
            raise RuntimeError(f"there are no best parameters: {why}")
        with HeldInterrupts():
            put(self.best_params, self.net.params)
            state_of(self.net).update(copies(self.best_state))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save everything that the training needs to go on: parameters, optimizer, history, best parameters.

        The file is an ``.npz`` without pickle. It is written beside `path` and replaces it when it is complete.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be written. A file that was there before is unchanged.
        TypeError
            If the optimizer is not one of `fastnet.optimizers`, and has no ``state_dict``.
        """
        checkpoint = Checkpoint(
            identity=self._identity(),
            params=self.net.params,
            state=state_of(self.net),
            optimizer=optimizer_state(self.optimizer),
            history=self.history,
            best_epoch=self.best_epoch,
            best_score=self._best_score,
            best_params=self.best_params or {},
            best_state=self.best_state or {},
            seconds=self._seconds,
            told=self._told,
        )
        checkpoint.save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Continue from a file of `save`: `fit` then gives the same bits as an uninterrupted training.

        The Trainer must be made for the same training: network, number of rows, batch size, seed, shuffling and kind of
        optimizer. The data are not in the file and are not compared. The learning rate, the gradient and the length of
        the training may differ.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the file is damaged, or is not a file of this training. Nothing is changed then.
        OSError
            If the file can't be read.
        TypeError
            If the optimizer has no ``load_state_dict``.
        """
        check_loads_state(self.optimizer)
        checkpoint = Checkpoint.load(path, self._identity())
        checkpoint.check_fits(self.net.params, state_of(self.net))
        with HeldInterrupts():
            checkpoint.load_optimizer(self.optimizer, self.net.params)
            put(checkpoint.params, self.net.params)
            state_of(self.net).update(checkpoint.state)
            self.history = checkpoint.history
            self.best_epoch, self._best_score = checkpoint.best_epoch, checkpoint.best_score
            self.best_params = self.best_state = None
            if checkpoint.best_params and self.keep_best:
                self.best_params, self.best_state = checkpoint.best_params, checkpoint.best_state
            self._seconds, self._told = checkpoint.seconds, checkpoint.told

    def _identity(self) -> dict[str, Any]:
        """Return what the Trainer that loads a checkpoint must agree in with the one that saved it."""
        return {
            "seed": self.seed,
            "shuffle": self.shuffle,
            "batch_size": self.batch_size,
            "rows": self.rows,
            "dtype": self.dtype.name,
            "optimizer": name_of(self.optimizer),
        }
