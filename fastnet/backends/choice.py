"""What a backend offers, and which one is in use."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast, runtime_checkable

from fastnet._tools import checks
from fastnet._tools.importing import import_whole
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import thread_limit
from fastnet.backends.spec import Activation, Diagnostics, Loss, NetworkSpec
from fastnet.backends.training import Batches, GradientKind, Update

NAMES = ("cpp", "numba", "numpy")
MOST_THREADS = 1024


class Backend(Protocol):
    """The functions of a backend module. Their arguments were checked: one float dtype, C-contiguous, fitting shapes.

    Rows ``x`` have shape (batch, inputs). Targets ``t`` are labels, int64 of shape (batch,), or rows of the answer's
    shape and dtype. A pass in training that *counts* changes the state arrays of `spec` in place; finite differences do
    not. Which kernels compute a network is the backend's own business: those for chains, or those for any stages.
    """

    name: str
    algorithms: tuple[str, ...]  # of the numerical gradient, the fastest first
    # matmul for any arguments, if there is one: it raises TypeError or ValueError for those that matmul does not take.
    checked_matmul: Callable[[object, object, object, object], FloatArray] | None

    def matmul(self, a: FloatArray, b: FloatArray, transpose_a: bool = ..., transpose_b: bool = ...) -> FloatArray: ...
    def add_bias(self, x: FloatArray, b: FloatArray) -> FloatArray: ...
    def activation(self, kind: Activation, x: FloatArray, constant: float = ...) -> FloatArray: ...
    def activation_derivative(self, kind: Activation, x: FloatArray, constant: float = ...) -> FloatArray: ...
    def softmax(self, x: FloatArray) -> FloatArray: ...
    def mean_loss(self, kind: Loss, y: FloatArray, t: FloatArray | IntArray, constant: float = ...) -> float: ...
    def forward(self, spec: NetworkSpec, x: FloatArray) -> FloatArray: ...
    def loss(
        self,
        spec: NetworkSpec,
        x: FloatArray,
        t: FloatArray | IntArray,
        training: bool = ...,
        counts: bool = ...,
    ) -> float:
        """Return the loss in training or, by default, in inference. State arrays change in place if `counts`."""

    def loss_and_gradient(
        self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, inputs: bool = ...
    ) -> tuple[float, list[FloatArray], FloatArray | None]:
        """Make a training pass that counts; the last item is the derivative with respect to `x` if `inputs`."""

    def gradient(self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]: ...
    def units(self, spec: NetworkSpec, x: FloatArray, counts: bool) -> FloatArray:
        """Return what the last stage gives in training, shape (batch, classes): the stages are a part of a network.

        The output function, the loss and the weight decay play no part, here and in `backward`.
        """

    def backward(
        self, spec: NetworkSpec, x: FloatArray, d: FloatArray, inputs: bool
    ) -> tuple[list[FloatArray], FloatArray | None]:
        """Return the gradient, and the derivative with respect to `x` if `inputs`, for a derivative `d` of those units.

        `d` has the shape of what `units` gives. The pass is made again from the state that `spec` has, which is not
        changed.
        """

    def loop(
        self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray
    ) -> FloatArray: ...
    def incremental(
        self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
    ) -> tuple[list[FloatArray], Diagnostics]: ...
    def nodal(
        self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
    ) -> tuple[list[FloatArray], Diagnostics]: ...
    def evaluate(self, function: int, data: int, x: FloatArray, entries: IntArray, values: FloatArray) -> FloatArray:
        """Return the values of a function of compiled code at points near x, shape (points,), on all threads.

        `function` is the address of a ``double (*)(intptr_t n, const double *x, void *data)``, and `data` a pointer. At
        each point, the elements ``entries``, shape (points, moved), of a copy of `x` have the values ``values``. A
        function that is seen to change its argument raises ValueError.
        """

    def get_num_threads(self) -> int: ...
    def set_num_threads(self, count: int) -> None: ...


class Dataset(Protocol):
    """All rows to train with, or to answer, as a backend has prepared them."""

    def forward(self, spec: NetworkSpec) -> FloatArray:
        """Return the network's answers to all rows, shape (rows, classes), with the bits of `Backend.forward`."""


@runtime_checkable
class TrainingBackend(Protocol):
    """What a backend that trains by itself offers besides: whole stretches of iterations in one call.

    A backend without it trains step by step, with the same bits.
    """

    name: str

    def prepare(self, x: FloatArray) -> Dataset:
        """Prepare all rows, shape (rows, inputs); what is returned reads `x` as long as it lives."""

    def all_finite(self, x: FloatArray | IntArray) -> bool:
        """Return whether no element of `x` is NaN or infinite, in one pass over it on all threads."""

    def train(
        self,
        spec: NetworkSpec,
        batches: Batches,
        gradient: GradientKind,
        h: float,
        update: Update,
        losses: FloatArray,
        done: IntArray,
        before: NetworkSpec | None = ...,
    ) -> None:
        """Change the parameters of `spec` in place, batch after batch.

        `losses` (steps,) and `done` (1,), the number of steps made, say at any time how far it has come. A loss that is
        not finite ends it before its update, and an epoch that leaves parameters that are not finite is the last one.
        `before`, which a chain does not need, is the same network with state
        arrays of its own, which hold the state from before the last step afterwards.
        """


@runtime_checkable
class SecondOrderBackend(Protocol):
    """What a backend with second differences of its own offers besides; without it, the reference computes them."""

    def hessian_diagonal(
        self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
    ) -> tuple[list[FloatArray], Diagnostics]:
        """Return the second difference with respect to every parameter of a chain."""


_active: Backend | None = None
_num_threads: int | None = None  # as set_num_threads was asked for, also for backends that are chosen later


def active() -> Backend:
    """The backend in use, chosen at the first call.

    Examples
    --------
    >>> from fastnet import backends
    >>> backends.active().name in backends.NAMES
    True
    """
    return _activate(_default()) if _active is None else _active


def training_backend() -> TrainingBackend | None:
    """The backend in use if it trains by itself, else None."""
    backend = active()
    # `isinstance` of a protocol looks up each of its names, which takes as long as a step of a small network.
    return cast(TrainingBackend, backend) if hasattr(backend, "train") else None


def has_extension() -> bool:
    """Whether the compiled extension is installed (not whether it loads).

    Examples
    --------
    >>> from fastnet import backends
    >>> backends.has_extension() == ("cpp" in backends.available())
    True
    """
    return importlib.util.find_spec("fastnet._core") is not None


def _missing_extension() -> tuple[str, str]:
    """Why there is no extension, and what to do about it.

    Where Python starts in the source folder, it imports the sources, which never have the extension, although the
    installed package may have it.
    """
    imported = Path(__file__).absolute().parents[1]
    try:
        files = importlib.metadata.files("fastnet") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.startswith("_core.") and file.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
            installed = Path(str(file.locate()))
            if installed.is_file() and not installed.parent.samefile(imported):
                return (
                    f"Python imported the sources in {imported}, which have no compiled extension, instead of the "
                    f"fastnet that is installed in {installed.parent}",
                    "Start Python in another folder, or install the sources with `pip install -e .`",
                )
    return (
        "fastnet was installed without its compiled extension (no working C++ compiler at the time)",
        "Reinstall with a compiler",
    )


def available() -> list[str]:
    """The names that `use_backend` accepts on this machine, the preferred one first.

    Examples
    --------
    >>> from fastnet import backends
    >>> "numpy" in backends.available()
    True
    """
    return [name for name in NAMES if name != "cpp" or has_extension()]


def _default() -> str:
    return os.environ.get("FASTNET_BACKEND") or available()[0]


def _load(name: str) -> Backend:
    if name not in NAMES:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(map(repr, NAMES))}")
    if name == "cpp" and not has_extension():
        why, remedy = _missing_extension()
        raise ValueError(f"backend 'cpp' is not available: {why}. {remedy}.")
    # Imported at first use: Numba alone takes longer than everything else together. It is imported by itself, so that
    # Ctrl-C can come between.
    if name == "numba":
        import_whole("numba")
    return cast(Backend, import_whole(f"fastnet.backends._{name}"))


def get(name: str) -> Backend:
    """Return the named backend with the number of threads that was asked for; the backend in use stays.

    Examples
    --------
    >>> from fastnet import backends
    >>> backends.get("numpy").name
    'numpy'
    """
    backend = _load(name)
    if _num_threads is not None:
        backend.set_num_threads(_num_threads)
    return backend


def _activate(name: str) -> Backend:
    global _active
    _active = get(name)
    return _active


class use_backend:  # noqa: N801 - it reads as the function that it also is
    """Compute with the named backend from now on, or within a ``with`` block.

    Parameters
    ----------
    name : {"cpp", "numba", "numpy"}

    Raises
    ------
    ValueError
        If there is no such backend, or there is no compiled extension for ``"cpp"``. The backend in use stays.

    Examples
    --------
    >>> import fastnet
    >>> with fastnet.use_backend("numpy"):
    ...     fastnet.build_info()["backend"]
    'numpy'
    """

    def __init__(self, name: str) -> None:
        self._previous = active().name
        _activate(name)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _activate(self._previous)


def get_num_threads() -> int:
    """The number of threads that the backend in use computes with.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.get_num_threads() >= 1
    True
    """
    return active().get_num_threads()


def set_num_threads(count: int) -> None:
    """Compute with at most `count` threads from now on, in every backend.

    Without this call, ``OMP_NUM_THREADS`` sets the number, and otherwise the number of processors. Results do not
    depend on it: the same input gives the same bits.

    Parameters
    ----------
    count : int
        At least 1.

    Raises
    ------
    TypeError
        If `count` is not an integer.
    ValueError
        If it is less than 1, or more than 1,024: OpenMP ends the process where the system has no more threads.

    Examples
    --------
    >>> import fastnet
    >>> before = fastnet.get_num_threads()
    >>> fastnet.set_num_threads(1)
    >>> fastnet.get_num_threads()
    1
    >>> fastnet.set_num_threads(before)
    """
    global _num_threads
    threads = checks.as_count(count, "count", most=MOST_THREADS)
    active().set_num_threads(threads)
    _num_threads = threads


def _warn_without_extension() -> None:
    why, remedy = _missing_extension()
    warnings.warn(
        f"{why}: the Numba backend is used, which compiles for some seconds at first use and is slower. {remedy}, "
        f"or set FASTNET_BACKEND=numba to silence this.",
        RuntimeWarning,
        stacklevel=5,  # where fastnet is imported
    )


if not has_extension() and not os.environ.get("FASTNET_BACKEND"):
    _warn_without_extension()
if _default() == "numba":
    thread_limit.follow_threadpoolctl()  # It may be asked before Numba is imported.
