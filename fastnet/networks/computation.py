"""How a network computes, as a chain or layer by layer, and what its numerical gradient is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics, NetworkSpec

ONLY_CHAINS = (
    "it has layers other than affine ones and activations. Use fastnet.numerical_hessian of a function that gives its "
    "loss"
)


class Differences(dict[str, FloatArray]):
    """What differences of the loss give: an array for each parameter's name, and how it was found."""

    def __init__(self, arrays: dict[str, FloatArray], diagnostics: Diagnostics) -> None:
        super().__init__(arrays)
        self.diagnostics = diagnostics


class NumericalGradient(Differences):
    """A gradient by central differences: an array for each parameter's name.

    Attributes
    ----------
    diagnostics : Diagnostics
        The `loss` at the unchanged parameters, the number of `evaluations`, the number of `fallbacks` from ``"nodal"``
        to ``"incremental"``, the number of `kinks` among these, and which units met a kink.
    algorithms : dict of str to str
        By which algorithm each parameter's differences were computed: ``"nodal"``, ``"incremental"`` or ``"loop"``.
        They differ in networks with convolutions, with two layers of BatchNorm, and with layers of one's own.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> gradient = net.numerical_gradient(x, t)
    >>> gradient["W1"].shape, gradient.diagnostics.kinks
    ((4, 3), 0)
    """

    def __init__(
        self, gradients: dict[str, FloatArray], diagnostics: Diagnostics, algorithms: Mapping[str, str]
    ) -> None:
        super().__init__(gradients, diagnostics)
        self.algorithms = dict(algorithms)


class HessianDiagonal(Differences):
    """The diagonal of a Hessian by second differences: an array for each parameter's name.

    Attributes
    ----------
    diagnostics : Diagnostics
        As for `NumericalGradient`. An entry of a unit that met a kink is a second difference across it: of the order of
        1/h, and not near a second derivative.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> net.hessian_diagonal(x, t)["W1"].shape
    (4, 3)
    """


class Float64Loss(NamedTuple):
    """The training loss as a function of float64 arrays, which may be changed in place between two calls.

    Where the network has kinks, it is the smooth branch on which the network is with the given arrays.
    """

    params: dict[str, FloatArray]
    rows: FloatArray
    value: Callable[[], float]


class Computation(abc.ABC):
    """How a network computes, after its parameters were checked: as a chain, or layer by layer.

    `batch` checks a batch; the other methods take what it gives: rows (batch, …) of `dtype`, and targets that fit.
    """

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype[np.floating[Any]]: ...
    @property
    @abc.abstractmethod
    def is_regression(self) -> bool: ...
    @abc.abstractmethod
    def rows(self, x: npt.ArrayLike) -> FloatArray: ...
    @abc.abstractmethod
    def classes(self, rows: FloatArray) -> int: ...
    @abc.abstractmethod
    def forward(self, rows: FloatArray) -> FloatArray: ...
    @abc.abstractmethod
    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float: ...
    @abc.abstractmethod
    def loss_of_answers(self, y: FloatArray, t: FloatArray | IntArray) -> float: ...
    @abc.abstractmethod
    def training_loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float: ...
    @abc.abstractmethod
    def loss_and_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]: ...
    @abc.abstractmethod
    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str]
    ) -> NumericalGradient: ...

    @abc.abstractmethod
    def input_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> FloatArray: ...
    @abc.abstractmethod
    def numerical_input_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> FloatArray: ...
    @abc.abstractmethod
    def in_float64(self, rows: FloatArray, t: FloatArray | IntArray) -> Float64Loss: ...

    def hessian_diagonal(self, rows: FloatArray, t: FloatArray | IntArray, h: float) -> HessianDiagonal:
        raise NotImplementedError(f"the network has no hessian_diagonal: {ONLY_CHAINS}")

    def hessian_vector_product(
        self, rows: FloatArray, t: FloatArray | IntArray, v: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        raise NotImplementedError(f"the network has no hessian_vector_product: {ONLY_CHAINS}")

    def spec_of(self, rows: FloatArray) -> NetworkSpec | None:
        """The network for such rows, with the present parameters, as backends compute it in inference.

        None if a backend does not compute it as a whole, or shapes do not fit.
        """
        return None

    @property
    def takes_fractions(self) -> bool:
        """Whether every target has to be from 0 to 1."""
        return False

    def default_step(self, algorithm: str) -> float:
        """The step of a numerical gradient that is not asked for: for two evaluations that are subtracted, by dtype."""
        return checks.as_step(None, self.dtype)

    def step(self, h: float | None, algorithm: str) -> float:
        """The step of a numerical gradient, checked: `h`, or the default one."""
        return checks.as_step(self.default_step(algorithm) if h is None else h, self.dtype)

    def batch(
        self, x: npt.ArrayLike, t: npt.ArrayLike, *, for_accuracy: bool = False
    ) -> tuple[FloatArray, FloatArray | IntArray]:
        """`x` and `t`, checked and converted to what the other methods take.

        For the accuracy, `t` may be class labels with any loss, if there are several outputs.
        """
        rows = self.rows(x)
        single, classes = np.ndim(x) == 1, self.classes(rows)
        regression = self.is_regression and not (for_accuracy and classes > 1)
        targets = checks.as_targets(t, len(rows), classes, self.dtype, single, regression=regression)
        if self.takes_fractions and targets.ndim == 2:
            checks.check_fractions(targets, "t")
        return rows, targets

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The answers to `x`: one answer if `x` is one row."""
        y = self.forward(self.rows(x))
        return y[0] if np.ndim(x) == 1 else y
