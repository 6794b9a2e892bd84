"""The checks of users' arguments: the same mistake raises the same exception everywhere."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def type_name(value: object) -> str:
    return type(value).__name__


def as_numbers(x: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """`x` as an array of real numbers of any dtype."""
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is not an array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must contain real numbers, not {type_name(x)} of dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float32 or float64, not {array.dtype}")
    return array


def native(array: FloatArray) -> np.dtype[np.floating[Any]]:
    """The dtype of `array`, float32 or float64, in this machine's byte order."""
    return _FLOAT32 if array.dtype.itemsize == 4 else _FLOAT64


def as_floating(x: npt.ArrayLike, name: str, dtype: np.dtype[np.floating[Any]] | None = None) -> FloatArray:
    """`x` as a C-contiguous array of `dtype`; by default float32 and float16 become float32, all others float64."""
    if (
        type(x) is np.ndarray
        and x.flags.carray  # C-contiguous, aligned, and writeable
        and (x.dtype is dtype if dtype is not None else x.dtype is _FLOAT64 or x.dtype is _FLOAT32)
    ):
        return x  # The usual case: nothing to check or convert.
    array = as_numbers(x, name)
    if dtype is None:
        dtype = _FLOAT32 if array.dtype.kind == "f" and array.dtype.itemsize <= 4 else _FLOAT64
    return _in_memory(array, dtype)


def _in_memory(array: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    """The array as the kernels read memory: C-contiguous and aligned."""
    array = np.asarray(array, dtype=dtype, order="C")
    return array if array.flags.aligned else array.copy()


def as_parameter(value: object, name: str, ndim: int | None = None) -> FloatArray:
    """`value` itself, which must be a nonempty array of float32 or float64, with `ndim` dimensions if given."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type_name(value)}")
    if value.dtype.kind != "f" or value.dtype.itemsize not in (4, 8):
        raise TypeError(f"{name} must be float32 or float64, not {value.dtype}")
    if ndim == 1 and value.ndim == 2 and 1 in value.shape:
        raise ValueError(f"{name} must have shape ({value.size},), not {value.shape}: write {name}.ravel()")
    if value.size == 0 or (ndim is not None and value.ndim != ndim):
        dimensions = "dimensions" if ndim is None else f"{ndim} dimension(s)"
        raise ValueError(f"{name} must have {dimensions}, none of them 0, not {value.shape}")
    return value


def as_matrix(x: npt.ArrayLike, name: str) -> FloatArray:
    """`x` as a two-dimensional array."""
    array = as_floating(x, name)
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, not shape {array.shape}")
    return array


def check_perturbable(x: object) -> None:
    """Raise unless central differences can change the elements of `x` in place."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, since it is changed in place, not {type_name(x)}")
    check_differentiable(x, "x")
    check_writeable(x, "x")


def check_differentiable(x: npt.NDArray[Any], name: str) -> None:
    """Raise TypeError unless the elements can take small steps."""
    if x.dtype.kind != "f":
        raise TypeError(
            f"{name} must be an array of floating-point numbers, not {x.dtype}: a step of h would be rounded away; "
            f"pass {name}.astype(float)"
        )


def check_writeable(x: npt.NDArray[Any], name: str) -> None:
    """Raise ValueError if the elements cannot be changed in place."""
    if not x.flags.writeable:
        raise ValueError(
            f"{name} is read-only, but its elements are changed one at a time and restored: pass {name}.copy()"
        )


def as_batch(x: npt.ArrayLike, inputs: int, dtype: np.dtype[np.floating[Any]]) -> FloatArray:
    """`x` of shape (batch, inputs), or (inputs,) for a batch of one, as a (batch, inputs) array of `dtype`."""
    array = as_floating(x, "x", dtype)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise ValueError(f"x must have shape (batch, {inputs}) or ({inputs},), not {array.shape}")
    if array.shape[1] != inputs:
        raise ValueError(f"x has {array.shape[1]} columns for a network of {inputs} inputs")
    if array.shape[0] == 0:
        raise ValueError(f"x of shape {array.shape} is an empty batch")
    return array


def as_targets(
    t: npt.ArrayLike,
    rows: int,
    classes: int,
    dtype: np.dtype[np.floating[Any]],
    single: bool = False,
    names: tuple[str, str] = ("x", "t"),
    regression: bool = False,
) -> FloatArray | IntArray:
    """`t` as int64 labels of shape (rows,), or as targets of shape (rows, classes) in `dtype`.

    With `single`, the rows are one row given without its batch dimension, and `t` may have none either: it may be one
    label or one row of targets. `names` are the arguments' names, of the rows and of `t`. With `regression` there are
    no labels: shape (rows,) is for the targets of one output.
    """
    x_name, t_name = names
    array = as_numbers(t, t_name)
    if single and array.ndim < 2 and not (array.shape == (1,) and classes > 1):
        array = array[np.newaxis]
    if regression and array.shape == (rows,) and classes == 1:
        array = array[:, np.newaxis]
    if array.ndim == 2 and array.shape == (rows, classes):
        return _in_memory(array, dtype)
    if regression:
        raise ValueError(
            f"{t_name} has shape {array.shape} for {rows} row(s) of {x_name} and a regression of {classes} output(s): "
            f"it must be targets of shape ({rows}, {classes}){f' or ({rows},)' if classes == 1 else ''}; class labels "
            f"go with a loss of classes, such as SoftmaxWithLoss"
        )
    if array.ndim != 1:
        raise ValueError(
            f"{t_name} has shape {array.shape} for {rows} row(s) of {x_name} and {classes} classes: it must be labels "
            f"of shape ({rows},) or targets of shape ({rows}, {classes})"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"{t_name} has labels of dtype {array.dtype}: class labels must be integers")
    if len(array) != rows:
        raise ValueError(f"{t_name} has {len(array)} labels for {rows} rows of {x_name}")
    if not _are_labels(array, classes):
        wrong = int(np.flatnonzero((array < 0) | (array >= classes))[0])
        raise ValueError(f"{t_name}[{wrong}] is {array[wrong]}, which is not a label of {classes} classes")
    return _in_memory(array, np.int64)


def _are_labels(array: npt.NDArray[Any], classes: int) -> bool:
    if len(array) <= 16:  # For so few, Python is faster than NumPy's reductions.
        return all(0 <= label < classes for label in array.tolist())
    return bool(array.min() >= 0 and array.max() < classes)


def as_rows_and_targets(
    x: npt.ArrayLike, t: npt.ArrayLike, name: str, regression: bool = False
) -> tuple[FloatArray, FloatArray | IntArray]:
    """`x` of shape (classes,) or (batch, classes) as (batch, classes), and its targets as `as_targets` returns them."""
    array = as_floating(x, name)
    rows = array[np.newaxis] if array.ndim == 1 else array
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} must have shape (n,) or (rows, n) with n >= 1, not {rows.shape}")
    if len(rows) == 0:
        raise ValueError(f"{name} of shape {array.shape} is an empty batch")
    single = array.ndim == 1
    return rows, as_targets(t, len(rows), rows.shape[1], rows.dtype, single, (name, "t"), regression)


def check_order(y: FloatArray, t: FloatArray | IntArray) -> None:
    """Raise ValueError if `y` holds one-hot rows and `t` probabilities: then they were given in the wrong order."""
    if t.ndim == 2 and _is_one_hot(y) and not _is_one_hot(t):
        raise ValueError(
            "y holds one-hot rows and t does not: the answers come first, then the targets; write "
            "cross_entropy_error(y, t) with y the network's probabilities"
        )


def check_fractions(t: npt.NDArray[Any], name: str) -> None:
    """Raise ValueError unless every target is from 0 to 1."""
    outside = ~((t >= 0) & (t <= 1))
    if outside.any():
        at = np.unravel_index(int(outside.argmax()), t.shape)
        place = ", ".join(str(int(i)) for i in at)
        raise ValueError(f"{name}[{place}] is {t[at]}: targets of a binary cross entropy are from 0 to 1")


def _is_one_hot(rows: npt.NDArray[Any]) -> bool:
    return rows.shape[1] > 1 and bool(np.all((rows == 0) | (rows == 1))) and bool(np.all(rows.sum(axis=1) == 1))


def all_finite(x: FloatArray | IntArray) -> bool:
    """Whether no element of `x`, which is not empty, is NaN or infinite; needs no array of as many booleans."""
    return bool(np.isfinite(x.min()) and np.isfinite(x.max()))


def check_function(f: object) -> None:
    """Raise unless `f` can be called."""
    if not callable(f):
        raise TypeError(
            f"f must be a function of x, not {type_name(f)} ({f!r}): pass the function itself, as in "
            f"`lambda W: net.loss(x, t)`, not its value `net.loss(x, t)`"
        )


def as_real(value: object, name: str) -> float:
    """A finite number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type_name(value)}")
    try:
        number = float(value)
    except OverflowError:  # An int larger than every float.
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {value}")
    return number


def as_positive(value: object, name: str) -> float:
    """A positive and finite number."""
    number = as_real(value, name)
    if number <= 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return number


def as_not_negative(value: object, name: str) -> float:
    """A finite number of at least 0."""
    number = as_real(value, name)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, not {value}")
    return number


def as_ratio(value: object, name: str) -> float:
    """A number from 0 to 1."""
    number = as_real(value, name)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value}")
    return number


def as_fraction(value: object, name: str) -> float:
    """A number from 0 to less than 1."""
    number = as_real(value, name)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, not {value}")
    return number


def as_flag(value: object, name: str) -> bool:
    """True or False."""
    if type(value) is bool:
        return value
    if not isinstance(value, np.bool_):
        raise TypeError(f"{name} must be True or False, not {type_name(value)} ({value!r})")
    return bool(value)


def as_count(value: object, name: str, least: int = 1, most: int | None = None) -> int:
    """An integer of at least `least`, and at most `most` if given."""
    # Every iteration asks this of an int. To ask an abstract class takes 1 µs.
    if type(value) is not int and (isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral)):
        raise TypeError(f"{name} must be an integer, not {type_name(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    number = int(value)
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most:,}, not {value}")
    return number


def as_seed(seed: object) -> int | None:
    """An integer of at least 0, or None for a different seed each time."""
    return None if seed is None else as_count(seed, "seed", least=0)


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[np.floating[Any]]:
    """float32 or float64."""
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"dtype must be 'float32' or 'float64', not {dtype!r}") from error
    if wanted not in (_FLOAT32, _FLOAT64):
        raise ValueError(f"dtype must be 'float32' or 'float64', not {wanted.name!r}")
    return _FLOAT32 if wanted == _FLOAT32 else _FLOAT64


def as_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """One of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value


def as_step(h: object, dtype: np.dtype[Any]) -> float:
    """The step `h`; by default 1e-4, or 1e-2 for float32, where 1e-4 is too small for the loop."""
    if h is None:
        return 1e-4 if dtype.itemsize >= 8 else 1e-2
    step = as_positive(h, "h")
    if dtype.itemsize >= 4 and 1e-37 < step < 1e38:  # The usual case: it is fine in float32 too.
        return step
    with np.errstate(over="ignore", under="ignore"):
        rounded = dtype.type(step)
    if not 0 < rounded < math.inf:
        raise ValueError(f"h must be positive and finite in {dtype}, not {h}")
    return step
