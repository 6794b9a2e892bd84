"""What a Trainer is given, checked and converted before it begins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import Dataset, TrainingBackend
from fastnet.backends.choice import training_backend
from fastnet.networks.base import BaseNetwork
from fastnet.networks.staged import describe_stages


@dataclass(frozen=True)
class Rows:
    """Rows and their targets, checked.

    Attributes
    ----------
    x : ndarray
        Shape (rows, inputs) or (rows, …), in the network's dtype.
    t : ndarray
        int64 labels, shape (rows,), or targets (rows, outputs) in the network's dtype.
    """

    x: FloatArray
    t: FloatArray | IntArray
    _prepared: dict[str, Dataset] = field(default_factory=dict, repr=False, compare=False)

    def is_prepared(self, backend: TrainingBackend) -> bool:
        """Whether `prepared` has been called with this backend."""
        return backend.name in self._prepared

    def prepared(self, backend: TrainingBackend) -> Dataset:
        """Return the rows as a backend that trains by itself reads them; prepared once."""
        if backend.name not in self._prepared:
            self._prepared[backend.name] = backend.prepare(self.x.reshape(len(self), -1))
        return self._prepared[backend.name]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.x[rows], self.t[rows])


@dataclass(frozen=True)
class TrainingData:
    """The data of a training: rows to train with, and rows to measure the accuracy on.

    Attributes
    ----------
    train, test : Rows
        `test` is empty if there are no test data.
    evaluated : Rows
        The training rows on which the accuracy is measured.
    measured : tuple of str
        What the history records of ``"loss"``, ``"train_accuracy"`` and ``"test_accuracy"``.
    """

    train: Rows
    test: Rows
    evaluated: Rows
    measured: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The network's dtype."""
        return self.train.x.dtype


def prepare(
    net: Any,
    dtype: np.dtype[np.floating[Any]],
    train: tuple[npt.ArrayLike, npt.ArrayLike],
    test: tuple[npt.ArrayLike | None, npt.ArrayLike | None],
    evaluate_train: int | None,
) -> TrainingData:
    """Check and convert the data of a training, as `Trainer` describes them."""
    rows, outputs = _as_rows(net, *train, dtype, ("x_train", "t_train"))
    x_test, t_test = test
    if (x_test is None) != (t_test is None):
        raise ValueError("x_test and t_test go together: give both or neither")
    test_rows = rows[:0]
    if x_test is not None and t_test is not None:
        test_rows, _ = _as_rows(net, x_test, t_test, dtype, ("x_test", "t_test"))
    count = len(rows) if evaluate_train is None else checks.as_count(evaluate_train, "evaluate_train", least=0)
    evaluated = rows
    if count < len(rows):
        evaluated = rows[np.arange(count) * len(rows) // max(count, 1)]
    measured = ["loss"]
    if outputs > 1:  # With one output, every row has the same likeliest class: an accuracy says nothing.
        measured += ["train_accuracy"] if len(evaluated) else []
        measured += ["test_accuracy"] if len(test_rows) else []
    return TrainingData(rows, test_rows, evaluated, tuple(measured))


def _as_rows(
    net: Any, x: npt.ArrayLike, t: npt.ArrayLike, dtype: np.dtype[np.floating[Any]], names: tuple[str, str]
) -> tuple[Rows, int]:
    """Return checked rows and the number of the network's outputs for them."""
    with np.errstate(over="ignore"):  # float64 to float32: infinities are refused below
        rows = checks.as_floating(x, names[0], dtype)
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(f"{names[0]} must have shape (rows, inputs) or (rows, …), none of them 0, not {rows.shape}")
    try:
        answers = np.shape(net.predict(rows[:1]))
    except ValueError as error:
        raise ValueError(f"{names[0]} does not fit the network: {error}") from error
    if len(answers) != 2:
        raise ValueError(f"net.predict must give shape (rows, outputs), not {answers} for one row")
    computation = net._computation() if isinstance(net, BaseNetwork) else None
    regression = answers[1] == 1 if computation is None else computation.is_regression
    targets = checks.as_targets(t, len(rows), answers[1], dtype, names=names, regression=regression)
    if computation is not None and computation.takes_fractions:
        checks.check_fractions(targets, names[1])
    backend = training_backend()
    all_finite = checks.all_finite if backend is None else backend.all_finite
    for name, array in zip(names, (rows, targets), strict=True):
        if array.dtype == dtype and not all_finite(array):
            raise ValueError(f"{name} holds NaN or infinities")
    return Rows(rows, targets), answers[1]


def dtype_of(net: Any, gradient: str) -> np.dtype[np.floating[Any]]:
    """Return the dtype of a network's parameters; raise if it lacks something that training needs."""
    computes = "loss_and_gradient" if gradient == "backprop" else "numerical_gradient"
    missing = [name for name in ("predict", "accuracy", computes) if not callable(getattr(net, name, None))]
    if missing:
        raise TypeError(f"net must be a network, as TwoLayerNet is: {checks.type_name(net)} has no {missing[0]}")
    params = getattr(net, "params", None)
    if not isinstance(params, dict) or not params:
        raise TypeError("net.params must be a dict of arrays, and not empty")
    first = next(iter(params))
    for name, value in params.items():
        if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64):
            raise TypeError(f"params[{name!r}] must be an array of float32 or float64")
        if value.dtype != params[first].dtype:
            raise TypeError(f"params[{name!r}] is {value.dtype}, but params[{first!r}] is {params[first].dtype}")
        if not value.flags.writeable:
            raise ValueError(f"params[{name!r}] is read-only: it can't be trained")
        if not np.isfinite(value).all():
            raise ValueError(f"params[{name!r}] holds NaN or infinities")
    return checks.as_dtype(params[first].dtype)


def check_optimizer(optimizer: object) -> None:
    """Raise TypeError unless the optimizer can change parameters."""
    if isinstance(optimizer, type):
        raise TypeError(f"optimizer must be an object, not the class {optimizer.__name__}")
    if not callable(getattr(optimizer, "update", None)):
        raise TypeError(f"optimizer must have an `update` method, but {checks.type_name(optimizer)} has none")


def describe_network(net: Any, rows: FloatArray) -> str:
    """Say what is trained with such rows: ``784-50-10 network``, with all its stages where a backend computes it.

    Of other networks, the parameters tell the numbers of units if all of them are matrices that fit each other, and
    vectors.
    """
    spec = net._computation().spec_of(rows) if isinstance(net, BaseNetwork) else None
    if spec is not None:
        return f"{describe_stages(spec)} network"
    shapes = [np.shape(p) for p in net.params.values() if np.ndim(p) > 1]
    fit = all(one[1:] == other[:1] for one, other in itertools.pairwise(shapes))
    if not shapes or not fit or any(len(shape) > 2 for shape in shapes):
        return checks.type_name(net)
    return f"{'-'.join(map(str, [shapes[0][0], *(columns for _, columns in shapes)]))} network"


def describe_optimizer(optimizer: Any) -> str:
    """Say which optimizer it is, and its learning rate or schedule if it has one."""
    rate = getattr(optimizer, "lr", None)
    return checks.type_name(optimizer) + ("" if rate is None else f", learning rate {rate}")


def as_iterations(epochs: int | None, iterations: int | None, per_epoch: int) -> int:
    """Return how many iterations are asked for."""
    if (epochs is None) == (iterations is None):
        raise ValueError(f"give either epochs or iterations, not epochs={epochs!r} and iterations={iterations!r}")
    if iterations is not None:
        return checks.as_count(iterations, "iterations")
    return checks.as_count(epochs, "epochs") * per_epoch


def as_callbacks(callbacks: object) -> tuple[Callable[[Any], object], ...]:
    """Return callbacks as a tuple; raise TypeError if one of them cannot be called."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list, as in [callback], not one {checks.type_name(callbacks)}")
    several = tuple(callbacks)
    for callback in several:
        if not callable(callback):
            raise TypeError(f"callbacks has a {checks.type_name(callback)}, which can't be called")
    return several
