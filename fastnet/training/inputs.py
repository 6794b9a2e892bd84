"""What a Trainer checks before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray


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


def as_data(
    net: Any, x: npt.ArrayLike, t: npt.ArrayLike, dtype: np.dtype[np.floating[Any]], names: tuple[str, str]
) -> tuple[FloatArray, Any]:
    """Return rows, shape (rows, inputs), and their targets: of the network's dtype, or int64 labels."""
    with np.errstate(over="ignore"):  # float64 to float32; infinities are refused below
        rows = checks.as_floating(x, names[0], dtype)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"{names[0]} must have shape (rows, inputs), neither of them 0, not {rows.shape}")
    try:
        answer = net.predict(rows[:1])
    except ValueError as error:
        raise ValueError(f"{names[0]} does not fit the network: {error}") from error
    targets = checks.as_targets(t, len(rows), answer.shape[1], dtype, names=names)
    for name, array in zip(names, (rows, targets), strict=True):
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # without an array of as many truths
            raise ValueError(f"{name} holds NaN or infinities")
    return rows, targets


def as_iterations(epochs: int | None, iterations: int | None, per_epoch: int) -> int:
    """Return how many iterations are asked for."""
    if (epochs is None) == (iterations is None):
        raise ValueError(f"give either epochs or iterations, not epochs={epochs!r} and iterations={iterations!r}")
    if iterations is not None:
        return checks.as_count(iterations, "iterations")
    return checks.as_count(epochs, "epochs") * per_epoch


def as_callbacks(callbacks: object) -> tuple[Callable[[Any], object], ...]:
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be several, as in [callback], not one {checks.type_name(callbacks)}")
    several = tuple(callbacks)
    for callback in several:
        if not callable(callback):
            raise TypeError(f"callbacks has a {checks.type_name(callback)}, which can't be called")
    return several
