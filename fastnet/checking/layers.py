"""`check_layer`: the backward pass of one layer against differences of its forward pass, entry by entry."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.checking.problems import check_problem, moved_in_place, of_backprop
from fastnet.checking.randomness import GlobalRandom
from fastnet.checking.result import GradientCheck, GradientCheckError
from fastnet.layers import Layer
from fastnet.networks import Network
from fastnet.networks.overriding import overridden

Arrays = dict[str, npt.NDArray[Any]]
DOUT = 7_784_129  # the seed of dout, which no x is likely to be drawn with: that dout equals x hides mistakes, too
ROWS = 20  # of a batch that layers are checked with to find the first wrong one


def check_layer(
    layer: Any,
    x: Any,
    dout: npt.ArrayLike | None = None,
    *,
    train_flg: bool | None = None,
    h: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    worst: int = 5,
    raise_exception: bool = False,
) -> GradientCheck:
    """Check the backward pass of a layer against differences of ``(forward(x) * dout).sum()``, entry by entry.

    Every entry of the derivative with respect to `x` and to each parameter is compared, as `check_gradient` does. The
    layer is left as it was. A layer of `fastnet.layers`, and any subclass of its `Layer`, computes the differences in
    float64, each time from the same `state`, so with the same mask of Dropout. Any other layer needs ``forward(x)`` and
    ``backward(dout)``; its parameters are its `params` and `grads`, dicts or lists, or else its attributes such as
    ``W`` with a ``dW``. Random numbers from ``numpy.random`` are the same in each of its passes.

    Parameters
    ----------
    layer : Layer or object
        The library's or your own.
    x : array_like or tuple of array_like
        What `forward` takes, of any shape: a tuple if it takes several inputs. Integer arrays, such as the labels of a
        loss, are not moved.
    dout : array_like, optional
        The derivative with respect to the output, in its shape. By default standard normal numbers, the same each time:
        ones would hide mistakes, as that of a BatchNorm, whose gradient they make zero.
    train_flg : bool, optional
        The mode, for a layer whose `forward` has this parameter: True by default.
    h, rtol, atol, worst, raise_exception
        As for `check_gradient`.

    Returns
    -------
    GradientCheck
        Its arrays are ``x`` (``x[0]``, ``x[1]``, … for several inputs) and the names of the parameters.

    Raises
    ------
    GradientCheckError
        If `raise_exception` is True and the check does not pass.
    TypeError
        If `layer` has no `forward` or `backward`, or has no mode but `train_flg` is given.
    ValueError
        If `dout` does not have the shape of the output, a derivative does not have the shape of what it is of, two
        forward passes differ, or forward changes `x`.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> rng = np.random.default_rng(0)
    >>> layer = fastnet.layers.Affine(rng.standard_normal((4, 3)), np.zeros(3))
    >>> print(fastnet.check_layer(layer, rng.standard_normal((5, 4))).verdict)
    passed: 35 entries agree
    """
    for name in ("forward", "backward"):
        if isinstance(layer, type) or not callable(getattr(layer, name, None)):
            raise TypeError(f"layer must be an object with forward and backward, not {layer!r}")
    count = checks.as_count(worst, "worst", least=0)
    raises = checks.as_flag(raise_exception, "raise_exception")
    relative = None if rtol is None else checks.as_not_negative(rtol, "rtol")
    absolute = None if atol is None else checks.as_not_negative(atol, "atol")
    options = _mode(layer, train_flg)
    given = [np.array(part) for part in (x if isinstance(x, tuple) else (x,))]
    inputs = [part.astype(np.float64) if part.dtype.kind in "iub" and len(given) == 1 else part for part in given]
    with _unchanged(layer):
        start = _Start(layer)
        check = _check(layer, start, inputs, dout, options, h, relative, absolute, count)
    if raises and not check.passed:
        raise GradientCheckError(str(check))
    return check


def _check(
    layer: Any,
    start: _Start,
    inputs: list[npt.NDArray[Any]],
    dout: npt.ArrayLike | None,
    options: dict[str, Any],
    h: float | None,
    rtol: float | None,
    atol: float | None,
    worst: int,
) -> GradientCheck:
    start.again()
    output = np.asarray(layer.forward(*(part.copy() for part in inputs), **options))
    start.note_random()
    factor = _as_dout(dout, output)
    derivatives = layer.backward(factor if output.ndim else float(factor))
    analytic, moving = _named_inputs(derivatives, inputs)
    analytic |= start.gradients()

    own = isinstance(layer, Layer)
    params = start.in_float64() if own else start.params
    arrays = {name: inputs[k].astype(np.float64) if own else inputs[k].copy() for name, k in moving.items()} | params
    current = [arrays.get(name, part) for name, part in zip(_names(inputs), inputs, strict=True)]
    branch = layer.branch(inputs[0]) if own and len(inputs) == 1 and not overridden(layer, "forward") else None

    def forward() -> FloatArray:
        if branch is not None:
            smooth: FloatArray = branch(current[0])
            return smooth
        start.again()
        answer: FloatArray = np.array(layer.forward(*current, **options), np.float64)
        return answer

    before = {name: array.copy() for name, array in arrays.items()}
    forward()
    changed = [name for name, array in arrays.items() if not np.array_equal(array, before[name], equal_nan=True)]
    if changed:
        raise ValueError(f"forward changes {', '.join(changed)}: let it compute with a copy, as in x = x.copy()")
    problem = moved_in_place(arrays, lambda: float(np.sum(forward() * factor)), analytic, h)
    digits = min([a.dtype for a in (*inputs, *start.params.values()) if a.dtype.kind == "f"], key=lambda d: d.itemsize)
    fast = _Structure(forward, arrays, factor, problem.steps)
    problem = replace(of_backprop(problem, digits), numerical=fast.differences, dtype=digits)
    return check_problem(problem, rtol, atol, worst)


def _mode(layer: Any, train_flg: bool | None) -> dict[str, Any]:
    has_mode = "train_flg" in inspect.signature(layer.forward).parameters
    if train_flg is None:
        return {"train_flg": True} if has_mode else {}
    if not has_mode:
        raise TypeError(f"train_flg is given, but forward of {checks.type_name(layer)} has no such parameter")
    return {"train_flg": checks.as_flag(train_flg, "train_flg")}


def _as_dout(dout: npt.ArrayLike | None, output: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if output.dtype.kind not in "fiu":
        raise TypeError(f"forward must give real numbers, not {output.dtype}")
    if dout is None:
        kind = output.dtype if output.dtype.kind == "f" else np.dtype(float)
        drawn: npt.NDArray[Any] = np.asarray(np.random.default_rng(DOUT).standard_normal(output.shape), kind)
        return drawn
    factor = checks.as_numbers(dout, "dout")
    if factor.shape != output.shape:
        raise ValueError(f"dout must have the shape of the output of forward, {output.shape}, not {factor.shape}")
    return factor


def _names(inputs: Sequence[Any]) -> list[str]:
    return ["x"] if len(inputs) == 1 else [f"x[{k}]" for k in range(len(inputs))]


def _named_inputs(derivatives: Any, inputs: list[npt.NDArray[Any]]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return what backward gave by input, and the number of each input that it is of."""
    several = derivatives if isinstance(derivatives, (tuple, list)) and len(inputs) > 1 else (derivatives,)
    floating = [k for k, part in enumerate(inputs) if part.dtype.kind == "f"]
    if len(several) not in (1, len(inputs)) or not floating:
        raise ValueError(f"backward gave {len(several)} derivatives for {len(inputs)} inputs")
    names, found, moving = _names(inputs), {}, {}
    for k, derivative in enumerate(several):
        if k in floating:
            found[names[k]], moving[names[k]] = derivative, k
    return found, moving


def first_wrong_layer(net: Network, x: npt.ArrayLike, t: npt.ArrayLike) -> str | None:
    """Return the first layer, going back from the loss, whose own backward pass is wrong; None if all are right.

    A few rows of the batch will do: a wrong formula is wrong for them, too.
    """
    rows, targets = net._computation().batch(x, t)
    rows, targets = rows[:ROWS], targets[:ROWS]
    layers = net.layers
    with contextlib.ExitStack() as stack:
        for layer in (*layers, net.last_layer):
            stack.enter_context(_unchanged(layer))
        passed = [rows]
        for layer in layers:
            passed.append(np.asarray(layer.forward(passed[-1], **_mode(layer, None))))
        net.last_layer.forward(passed[-1], targets)
        if not check_layer(net.last_layer, (passed[-1], targets)).failed:
            dout = net.last_layer.backward(1.0)
            for place, layer in reversed(list(enumerate(layers))):
                if check_layer(layer, passed[place], dout).failed:
                    return f"layers[{place}], {type(layer).__name__}"
                dout = layer.backward(dout)
            return None
    return f"the loss, {type(net.last_layer).__name__}"


def owner_of(net: Network, name: str) -> str:
    """Return the name of a parameter with the layer that it belongs to."""
    for named in net._named:
        if name in named.params.values():
            return f"{name} ({named.label.rstrip(',')})"
    return name


class _Start:
    """The state that a layer begins each pass from, and its parameters."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._state = dict(layer.state) if isinstance(layer, Layer) else {}
        self._random = GlobalRandom()
        self._draws = False
        self.params = _params_of(layer)

    def again(self) -> None:
        """Go back to it."""
        if self._state:
            self._layer.state = {name: array.copy() for name, array in self._state.items()}
        if self._draws:
            self._random.put_back()

    def note_random(self) -> None:
        """After the first pass, find out whether the layer draws from NumPy's random generator."""
        self._draws = self._random.has_moved()

    def gradients(self) -> dict[str, Any]:
        """Return the gradients that the last backward stored, by the names of `params`."""
        layer, found = self._layer, {}
        kept = getattr(layer, "grads", None)
        for k, name in enumerate(self.params):
            if isinstance(kept, Mapping) and name in kept:
                found[name] = np.array(kept[name])
            elif isinstance(kept, (list, tuple)):
                found[name] = np.array(kept[k])
            elif getattr(layer, f"d{name}", None) is not None:
                found[name] = np.array(getattr(layer, f"d{name}"))
            else:
                raise ValueError(f"{checks.type_name(layer)} has no gradient of {name!r} after backward")
        return found

    def in_float64(self) -> Arrays:
        """Let the layer compute with copies of its parameters in float64, and return them."""
        self._layer.params = {name: array.astype(np.float64) for name, array in self.params.items()}
        return dict(self._layer.params)


def _params_of(layer: Any) -> Arrays:
    params = getattr(layer, "params", None)
    if isinstance(params, Mapping):
        return dict(params)
    if isinstance(params, (list, tuple)):
        return {f"params[{k}]": array for k, array in enumerate(params)}
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, np.ndarray) and hasattr(layer, f"d{name}")
    }


@contextlib.contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Leave the layer, and NumPy's random generator, as they were."""
    before, random = dict(vars(layer)), GlobalRandom()
    copies = {
        name: {key: np.copy(array) for key, array in value.items()} if isinstance(value, dict) else np.copy(value)
        for name, value in before.items()
        if isinstance(value, np.ndarray) or (isinstance(value, dict) and name in ("params", "state", "grads"))
    }
    try:
        yield
    finally:
        vars(layer).clear()
        vars(layer).update(before)
        for name, copy in copies.items():
            for here, kept in [(before[name], copy)] if not isinstance(copy, dict) else _pairs(before[name], copy):
                here[...] = kept
        random.put_back()


def _pairs(here: Any, kept: Any) -> list[tuple[Any, Any]]:
    return [(here[key], kept[key]) for key in kept if isinstance(here[key], np.ndarray) and here[key].flags.writeable]


@dataclass
class _Structure:
    """Central differences of many entries at once, where each of them moves another part of the output.

    That is so for one column of x in all rows, if no row of the output depends on another row of x, and for one row of
    weights, if each column of the output depends on its own column of weights. Both are found out by moving them. What
    is not so, is moved entry by entry.
    """

    forward: Callable[[], FloatArray]
    arrays: Arrays
    dout: npt.NDArray[Any]
    steps: FloatArray

    def differences(self) -> FloatArray:
        found, start = [], 0
        for array in self.arrays.values():
            steps = self.steps[start : start + array.size].reshape(array.shape)
            found.append(self._of_array(array, steps).ravel())
            start += array.size
        return np.concatenate(found)

    def _of_array(self, array: npt.NDArray[Any], steps: FloatArray) -> FloatArray:
        shape = self.dout.shape
        if array.ndim and shape and array.shape[0] == shape[0] and self._is_separate(array, 0):
            return self._along(array, steps, 0)
        if array.ndim and shape and array.shape[-1] == shape[-1] and self._is_separate(array, -1):
            return self._along(array, steps, -1)
        found = np.empty(array.shape)
        for at in np.ndindex(array.shape):
            found[at] = self._difference(array, at, steps[at]).sum()
        return found

    def _along(self, array: npt.NDArray[Any], steps: FloatArray, axis: int) -> FloatArray:
        """Move all entries of one place along `axis` at once; each moves its own part of the output."""
        found = np.empty(array.shape)
        rest = array.shape[1:] if axis == 0 else array.shape[:-1]
        axes = tuple(range(1, self.dout.ndim)) if axis == 0 else tuple(range(self.dout.ndim - 1))
        for at in np.ndindex(rest):
            place: Any = (slice(None), *at) if axis == 0 else (*at, slice(None))
            found[place] = self._difference(array, place, steps[place], axes)
        return found

    def _difference(self, array: npt.NDArray[Any], place: Any, step: Any, axes: Any = None) -> Any:
        before = array[place].copy()
        above, below = (before + step).astype(array.dtype), (before - step).astype(array.dtype)
        distance = above.astype(np.float64) - below
        if not np.all(distance):
            lost = float(before[distance == 0].flat[0])
            raise ValueError(
                f"h is lost in rounding beside an element of {lost:g}, which is {array.dtype}: give a larger h"
            )
        try:
            array[place] = above
            upper = self.forward()
            array[place] = below
            lower = self.forward()
        finally:
            array[place] = before
        with np.errstate(all="ignore"):
            return ((upper - lower) * self.dout).sum(axis=axes) / distance

    def _is_separate(self, array: npt.NDArray[Any], axis: int) -> bool:
        """Whether each part along `axis` moves its own part of the output, and no other; found by moving each part."""
        if array.size < 4 * array.shape[axis]:
            return False  # to find out costs as much
        middle = self.forward()
        rng = np.random.default_rng(0)
        scale = 1e-3 * (float(np.abs(array).max()) or 1.0)
        for k in range(array.shape[axis]):
            place: Any = (k, ...) if axis == 0 else (..., k)
            before = array[place].copy()
            array[place] = before + scale * rng.standard_normal(before.shape)
            try:
                moved = self.forward()
            finally:
                array[place] = before
            moved[place] = middle[place]
            if not np.array_equal(moved, middle, equal_nan=True):
                return False
        return True
