"""The base class of all optimizers: the checks before an update, the state, and saving the state."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools.checks import as_count, as_not_negative, as_positive
from fastnet._tools.types import FloatArray
from fastnet.optimizers.schedules import Schedule

Arrays: TypeAlias = tuple[FloatArray, ...]
Scalars: TypeAlias = tuple[np.floating[Any], ...]

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def _arrays(given: object, argument: str, scalars: bool = False) -> dict[str, FloatArray]:
    """Check and return a dict of float32 or float64 arrays, not copied; `scalars` allows NumPy scalars, too."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} must be a dict of arrays, not {type(given).__name__}")
    arrays = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument} must have strings as names, not {name!r}")
        if not isinstance(value, np.ndarray) and not (scalars and isinstance(value, np.floating)):
            raise TypeError(f"{argument}[{name!r}] must be a NumPy array, not {type(value).__name__}")
        if value.dtype not in _DTYPES:
            raise TypeError(f"{argument}[{name!r}] must be float32 or float64, not {value.dtype}")
        arrays[name] = np.asarray(value)  # A plain array even of a np.matrix, whose * is the matrix product.
    return arrays


def _parameters(params: object) -> dict[str, FloatArray]:
    arrays = _arrays(params, "params")
    for name, p in arrays.items():
        if not p.flags.writeable:
            raise ValueError(f"params[{name!r}] is read-only")
    return arrays


def _gradients(grads: object, params: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    arrays = _arrays(grads, "grads", scalars=True)  # A gradient of shape () is often a scalar.
    if arrays.keys() != params.keys():
        raise ValueError(f"grads must have the names of params: {_difference(arrays, params)}")
    for name, p in params.items():
        g = arrays[name]
        if g.shape != p.shape:
            raise ValueError(f"grads[{name!r}] has shape {g.shape}, but params[{name!r}] has {p.shape}")
        if g.dtype != p.dtype:
            raise TypeError(f"grads[{name!r}] is {g.dtype}, but params[{name!r}] is {p.dtype}")
    return arrays


def _difference(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """The names that differ, in words."""
    missing = [repr(name) for name in expected if name not in found]
    extra = [repr(name) for name in found if name not in expected]
    said = []
    if missing:
        said.append(f"{', '.join(missing)} missing")
    if extra:
        said.append(f"{', '.join(extra)} unexpected")
    return "; ".join(said)


class Optimizer(abc.ABC):
    """The base class of all optimizers, including your own.

    For your own optimizer, derive from this class, give it a `name` and the names of its `slots` (the arrays that it
    keeps for each parameter; the names have no slashes), and write `step`. If it has more settings than `lr`, write
    ``__init__``, which calls that of this class, and the property `constants`. If a scalar other than the learning rate
    depends on the iteration, override `coefficients`.

    Parameters
    ----------
    lr : float or Schedule
        The learning rate: a positive number or a schedule.

    Attributes
    ----------
    name : str
        The optimizer's name, a class attribute.
    slots : tuple of str
        The names of the arrays that it keeps for each parameter, a class attribute.
    lr : float or Schedule
        May be assigned between two updates.
    iteration : int
        The number of updates so far.
    state : dict of str to dict of str to ndarray
        For each slot, an array for each parameter's name, with its shape and dtype; initially 0. Empty before the
        first update.

    Raises
    ------
    TypeError, ValueError
        If `lr` is neither a schedule nor a number, or not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.optimizers import Optimizer
    >>> class SignSGD(Optimizer):
    ...     name = "sign-sgd"
    ...
    ...     def step(self, p, g, state, constants, coefficients):
    ...         (lr,) = coefficients
    ...         p -= lr * np.sign(g)
    >>> params = {"W": np.array([1.0, 2.0])}
    >>> SignSGD(lr=0.25).update(params, {"W": np.array([-3.0, 0.1])})
    >>> params["W"].tolist()
    [1.25, 1.75]
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: float | Schedule) -> None:
        self.lr = lr
        self.iteration = 0
        self.state: dict[str, dict[str, FloatArray]] = {}

    def __repr__(self) -> str:
        public = (name for name in vars(self) if not name.startswith("_") and name not in ("iteration", "state"))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in ('lr', *public))})"

    @property
    def lr(self) -> float | Schedule:
        return self._lr

    @lr.setter
    def lr(self, value: float | Schedule) -> None:
        self._lr = value if isinstance(value, Schedule) else as_positive(value, "lr")

    @property
    def constants(self) -> tuple[float, ...]:
        """The scalars of the formula that are the same in every update."""
        return ()

    def coefficients(self, iteration: int) -> tuple[float, ...]:
        """The scalars of the formula that depend on the iteration; here only the learning rate.

        Parameters
        ----------
        iteration : int
            The number of updates before this one.

        Raises
        ------
        TypeError, ValueError
            If `iteration` is not an integer of at least 0, or a schedule returns anything but a finite number of
            at least 0.
        """
        k = as_count(iteration, "iteration", 0)
        if isinstance(self.lr, float):
            return (self.lr,)
        return (as_not_negative(self.lr(k), f"lr at iteration {k}, by {self.lr!r},"),)

    @abc.abstractmethod
    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        """Update one parameter and its state in place.

        Parameters
        ----------
        p : ndarray
            The parameter.
        g : ndarray
            Its gradient, which must not be changed.
        state : tuple of ndarray
            Its state, in the order of `slots`.
        constants, coefficients : tuple of scalars
            The values of `constants` and `coefficients`, rounded to the dtype of `p`.
        """

    def update(self, params: Mapping[str, FloatArray], grads: Mapping[str, FloatArray]) -> None:
        """Update all parameters in place from their gradients.

        If an argument is wrong, an exception is raised and no parameter is changed. NaN and infinities in gradients are
        not errors: they propagate into the parameters.

        Parameters
        ----------
        params : dict of str to ndarray
            The parameters by name, float32 or float64, such as ``net.params``.
        grads : dict of str to ndarray
            The gradient with respect to each of them, with the names, shapes and dtypes of `params`.

        Raises
        ------
        TypeError
            If something is not an array of float32 or float64, or the dtypes of a gradient and its parameter differ.
        ValueError
            If names or shapes do not match, a parameter is read-only, the state belongs to another network, or a scalar
            of the formula is not finite, or becomes 0, when it is rounded to the parameter's dtype.
        """
        arrays = _parameters(params)
        gradients = _gradients(grads, arrays)
        scalars = {dtype: self.scalars(dtype) for dtype in {p.dtype for p in arrays.values()}}
        self._prepare(arrays)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for name, p in arrays.items():
                self.step(p, gradients[name], tuple(self.state[slot][name] for slot in self.slots), *scalars[p.dtype])
        self.iteration += 1

    def scalars(self, dtype: np.dtype[np.floating[Any]]) -> tuple[Scalars, Scalars]:
        """The constants and the coefficients of the next update, rounded to a parameter's dtype.

        Parameters
        ----------
        dtype : numpy.dtype

        Raises
        ------
        ValueError
            If one of them is not finite in that dtype, or a constant other than 0 becomes 0.
        """
        given = self.constants, self.coefficients(self.iteration)
        with np.errstate(over="ignore", under="ignore"):
            constants, coefficients = (tuple(dtype.type(value) for value in values) for values in given)
        if not all(map(math.isfinite, (*constants, *coefficients))):
            raise ValueError(
                f"{self!r} has a scalar that is not finite in {dtype}: at iteration {self.iteration}, its constants "
                f"are {given[0]} and its coefficients {given[1]}"
            )
        for value, rounded in zip(given[0], constants, strict=True):
            if value != 0 and rounded == 0:  # An eps of 0 would no longer prevent 0/0.
                raise ValueError(f"{self!r} has the constant {value}, which is 0 in {dtype}")
        return constants, coefficients

    def prepare(self, params: Mapping[str, FloatArray]) -> None:
        """Create the arrays of `state` that are missing for these parameters, as `update` does.

        Parameters
        ----------
        params : dict of str to ndarray
            The parameters by name, float32 or float64.

        Raises
        ------
        TypeError, ValueError
            As `update`.
        """
        self._prepare(_parameters(params))

    def _prepare(self, params: Mapping[str, FloatArray]) -> None:
        for slot, arrays in self.state.items():
            for name, p in params.items():
                a = arrays.get(name, p)
                if a.shape != p.shape or a.dtype != p.dtype:
                    raise ValueError(
                        f"params[{name!r}] is {p.dtype} of shape {p.shape}, but this optimizer's {slot} for it is "
                        f"{a.dtype} of shape {a.shape}: another network needs another optimizer"
                    )
        for slot in self.slots:
            arrays = self.state.setdefault(slot, {})
            for name, p in params.items():
                if name not in arrays:
                    arrays[name] = np.zeros(p.shape, p.dtype)

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """A copy of everything that updates change, for saving.

        Returns
        -------
        dict of str to ndarray
            ``"iteration"``, of shape (), and ``"<slot>/<parameter>"`` for each array of `state`. The settings of the
            optimizer are not included.
        """
        state: dict[str, npt.NDArray[Any]] = {"iteration": np.array(self.iteration, dtype=np.int64)}
        for slot, arrays in self.state.items():
            state |= {f"{slot}/{name}": array.copy() for name, array in arrays.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state: the same updates then give the same bits.

        Parameters
        ----------
        state : dict of str to ndarray
            The result of `state_dict` of an optimizer of the same class. Its arrays are copied. If this optimizer
            already has a `state` (`prepare` creates one), names, shapes and dtypes must match it; otherwise `update`
            compares them with the parameters.

        Raises
        ------
        TypeError
            If something is not an array of float32 or float64, or the iteration is not an integer.
        ValueError
            If names, shapes or dtypes do not match. The optimizer is not changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a dict of arrays, not {type(state).__name__}")
        if "iteration" not in state:
            raise ValueError("state has no 'iteration'")
        count = state["iteration"]
        iteration = as_count(count[()] if isinstance(count, np.ndarray) else count, "state['iteration']", 0)
        loaded: dict[str, dict[str, FloatArray]] = {slot: {} for slot in self.slots}
        for key, array in _arrays({key: state[key] for key in state if key != "iteration"}, "state").items():
            slot, slash, name = key.partition("/")
            if slot not in loaded or not slash:
                slots = ", ".join(map(repr, self.slots)) or "none"
                raise ValueError(f"state has {key!r}, but the slots of {type(self).__name__} are {slots}")
            loaded[slot][name] = array.copy()
        if iteration == 0 and not any(loaded.values()):  # The state of an optimizer before its first update.
            loaded = {}
        elif self.slots:
            self._check_alike(loaded)
        self.iteration, self.state = iteration, loaded

    def _check_alike(self, loaded: Mapping[str, Mapping[str, FloatArray]]) -> None:
        """Raise unless all slots have the same parameters, and these match `state` if it is not empty."""
        like = max((self.state or loaded).values(), key=len)
        for slot, arrays in loaded.items():
            if arrays.keys() != like.keys() or not arrays:
                said = _difference(arrays, like) or "it is empty"
                raise ValueError(f"the {slot} in state does not fit the parameters: {said}")
            for name, a in arrays.items():
                if a.shape != like[name].shape or a.dtype != like[name].dtype:
                    raise ValueError(
                        f"state[{slot + '/' + name!r}] is {a.dtype} of shape {a.shape}, not {like[name].dtype} of "
                        f"shape {like[name].shape}"
                    )
