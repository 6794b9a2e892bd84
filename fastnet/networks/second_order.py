"""Second derivatives of a network's loss: the diagonal of the Hessian, and its product with a vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.networks.answers import Answering
from fastnet.networks.computation import HessianDiagonal
from fastnet.networks.overriding import FUNCTION, overridden

DEFAULT_STEP = 1e-5  # of second differences: the truncation is some 1e-11 of an entry, and no step loses digits
LEAST_STEP = {8: 1e-100, 4: 1e-12}  # by the dtype's size: changes of the loss of the order of h² are normal numbers


class SecondOrder(Answering):
    """The methods of a network for second derivatives."""

    def hessian_diagonal(self, x: npt.ArrayLike, t: npt.ArrayLike, h: float | None = None) -> HessianDiagonal:
        """The diagonal of the loss's Hessian, by second differences; for chains of affine layers and activations.

        Each entry is (loss(θ + h) − 2·loss(θ) + loss(θ − h)) / h². The two moves of a parameter are carried to the
        loss together, as exact differences. Nothing cancels, so the rounding error does not grow when `h` becomes
        smaller; the truncation, h²/12 times the fourth derivative, becomes less.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        h : float, optional
            The step, by default 1e-5 in either dtype. It is from 1e-100 to 1e100 (float32: 1e-12 to 1e12), so that h²
            keeps its digits.

        Returns
        -------
        HessianDiagonal
            A dict with the names, shapes and dtype of `params`. Its `diagnostics` say how many evaluations it took
            and which units met a kink: their entries are of the order of 1/h and not near a second derivative.

        Raises
        ------
        NotImplementedError
            If the network has other layers, such as BatchNorm, or layers of your own.
        ValueError, TypeError
            As `loss`; also if `h` is not positive and finite, or not in this range, and TypeError in a subclass whose
            `predict` or `loss` is its own.

        Examples
        --------
        >>> import fastnet
        >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
        >>> diagonal = net.hessian_diagonal([[1.0, 0.0, 2.0, -1.0]], [1])
        >>> diagonal["W1"].shape, diagonal.diagnostics.kinks
        ((4, 3), 0)
        """
        self._check_function()
        computation = self._computation()
        step = checks.as_step(DEFAULT_STEP if h is None else h, computation.dtype)
        least = LEAST_STEP[computation.dtype.itemsize]
        if not least <= step <= 1 / least:
            raise ValueError(
                f"h must be from {least:g} to {1 / least:g} for second differences in {computation.dtype}, not {h}: "
                f"h² would leave the range of numbers"
            )
        return computation.hessian_diagonal(*computation.batch(x, t), step)

    def hessian_vector_product(
        self, x: npt.ArrayLike, t: npt.ArrayLike, v: Mapping[str, npt.ArrayLike]
    ) -> dict[str, FloatArray]:
        """The Hessian of the loss times a vector; for chains of affine layers and activations.

        It is the derivative of the gradient along `v`, exact but for rounding: forward differentiation of backprop
        (B. Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6, 1994). There is no step. At
        a kink it takes the side that `gradient` takes, and a kink itself has no curvature.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        v : mapping of str to array_like
            The vector: for each name in `params` an array of the shape of the parameter.

        Returns
        -------
        dict of str to ndarray
            The names, shapes and dtype of `params`.

        Raises
        ------
        KeyError
            If `v` lacks a parameter.
        NotImplementedError
            If the network has other layers, such as BatchNorm, or layers of your own.
        ValueError, TypeError
            As `loss`; also if an array of `v` has another shape or does not hold real numbers, or `v` has a name that
            is not a parameter's, and TypeError in a subclass whose `predict` or `loss` is its own.

        Examples
        --------
        >>> import numpy as np, fastnet
        >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
        >>> x, t = fastnet.datasets.make_digits(100, seed=0)
        >>> v = {name: np.zeros_like(p) for name, p in net.params.items()}
        >>> v["b2"][3] = 1  # the column of the Hessian that belongs to this bias
        >>> column = net.hessian_vector_product(x, t, v)
        >>> bool(abs(column["b2"][3] - net.hessian_diagonal(x, t)["b2"][3]) < 1e-11)
        True
        """
        self._check_function()
        computation = self._computation()
        rows, targets = computation.batch(x, t)
        return computation.hessian_vector_product(rows, targets, self._vector(v, computation.dtype))

    def _vector(self, v: Mapping[str, npt.ArrayLike], dtype: np.dtype[np.floating[Any]]) -> dict[str, FloatArray]:
        """Return `v` as arrays like `params`; raise if it is not that."""
        if not isinstance(v, Mapping):
            raise TypeError(f"v must be a dict with an array for each parameter, not {checks.type_name(v)}")
        unknown = [name for name in v if name not in self.params]
        if unknown:
            there = ", ".join(map(repr, self.params))
            raise ValueError(f"v has {', '.join(map(repr, unknown))}: the parameters are {there}")
        found = {}
        for name, parameter in self.params.items():
            if name not in v:
                raise KeyError(f"v has no {name!r}")
            found[name] = checks.as_floating(v[name], f"v[{name!r}]", dtype)
            if found[name].shape != parameter.shape:
                raise ValueError(
                    f"v[{name!r}] has shape {found[name].shape}, but params[{name!r}] has shape {parameter.shape}"
                )
        return found

    def _check_function(self) -> None:
        """Raise TypeError in a subclass whose loss is its own."""
        if own := overridden(self, *FUNCTION):
            raise TypeError(
                f"{type(self).__name__} has its own {' and '.join(own)}, and this would be the second derivative of "
                f"another function: use fastnet.numerical_hessian of a function that gives its loss"
            )
