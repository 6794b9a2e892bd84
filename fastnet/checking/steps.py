"""`compare_steps`: the error of the loop and of exact differences at many steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.text import align
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.checking.result import finite
from fastnet.checking.timing import spread
from fastnet.differentiation.layout import Layout
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import as_chain

STEPS = tuple(10.0**-k for k in range(1, 13))
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class StepErrors:
    """The errors at one step, relative to the largest entry of the gradient.

    Attributes
    ----------
    h : float
    loop, exact : dict of str to float
        For each dtype, the largest difference from float64 backprop.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> (row,) = fastnet.compare_steps(net, x, t, steps=[1e-6]).rows
    >>> row.exact["float64"] < row.loop["float32"]
    True
    """

    h: float
    loop: dict[str, float]
    exact: dict[str, float]


@dataclass(frozen=True, repr=False)
class StepComparison:
    """The errors step by step; ``print`` shows the table.

    Attributes
    ----------
    rows : tuple of StepErrors
    algorithm : str
        The algorithm of the exact differences.
    entries : int
        The number of parameters at which the loop was computed.
    parameters : int
        The number of all parameters.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> steps = fastnet.compare_steps(net, x, t, steps=[1e-3, 1e-6])
    >>> [row.h for row in steps.rows]
    [0.001, 1e-06]
    """

    rows: tuple[StepErrors, ...]
    algorithm: str
    entries: int
    parameters: int

    def __repr__(self) -> str:
        return f"<StepComparison of {len(self.rows)} steps: print it for the table>"

    def __str__(self) -> str:
        head = ["h", *(f"{dtype} {kind}" for dtype in DTYPES for kind in ("loop", self.algorithm))]
        lines = [
            [f"{row.h:.0e}", *(f"{errors[dtype]:.1e}" for dtype in DTYPES for errors in (row.loop, row.exact))]
            for row in self.rows
        ]
        notes = ["the largest difference from float64 backprop, relative to the largest entry of the gradient"]
        if self.entries < self.parameters:
            notes.append(f"the loop at a sample of {self.entries:,} of the {self.parameters:,} parameters")
        return "\n".join([*align([head, *lines], "<" + ">" * (len(head) - 1)), "", *notes])

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON has."""
        rows = [
            {
                "h": row.h,
                "loop": {dtype: finite(error) for dtype, error in row.loop.items()},
                "exact": {dtype: finite(error) for dtype, error in row.exact.items()},
            }
            for row in self.rows
        ]
        return {**vars(self), "rows": rows}


def compare_steps(
    net: BaseNetwork,
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    *,
    steps: Iterable[float] = STEPS,
    sample: int = 1000,
) -> StepComparison:
    """Compute the numerical gradient with many steps, in float64 and float32, and compare it with backprop.

    The loop subtracts two losses: the smaller the step, the fewer digits are left. Exact differences have only the
    truncation error of the central difference, which is about h²/6 times the third derivative.

    Parameters
    ----------
    net : TwoLayerNet, SimpleNet, …
        A network of fastnet made of affine layers and activations. It is not changed.
    x : array_like
        Shape (batch, inputs), or (inputs,) for one row.
    t : array_like
        Labels, shape (batch,), or one-hot rows or probabilities, shape (batch, classes).
    steps : iterable of float, default 1e-1, 1e-2, … 1e-12
    sample : int, default 1000
        The number of parameters, spread over all arrays, at which to compute the loop.

    Returns
    -------
    StepComparison

    Raises
    ------
    TypeError
        If `net` is not a network of fastnet, or has layers other than affine ones and activations, or an argument has
        the wrong type.
    ValueError
        If the data do not fit the network, or a number is out of its range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> x, t = np.ones((5, 4)), np.array([0, 1, 0, 1, 1])
    >>> (row,) = fastnet.compare_steps(net, x, t, steps=[1e-8]).rows
    >>> row.exact["float64"] < 1e-10 < row.loop["float64"]
    True
    """
    chain = as_chain(net)
    wanted = [checks.as_positive(h, "steps") for h in steps]
    count = checks.as_count(sample, "sample")
    backend, spec = active(), chain.spec
    rows, targets = chain.batch(x, t)
    layout = Layout(chain.named(spec.parameters))
    entries = spread(layout.sizes, min(count, layout.size))

    specs = {dtype: spec.with_parameters(p.astype(dtype) for p in spec.parameters) for dtype in DTYPES}
    batches = {dtype: (rows.astype(dtype), targets if targets.ndim == 1 else targets.astype(dtype)) for dtype in DTYPES}
    reference = spec.flatten(backend.gradient(specs["float64"], *batches["float64"]))
    largest = np.abs(reference).max()

    def error(values: FloatArray, expected: FloatArray) -> float:
        return float(np.abs(values - expected).max() / largest)

    algorithm = backend.algorithms[0]
    found = []
    for h in wanted:
        loop, exact = {}, {}
        for dtype in DTYPES:
            loop[dtype] = error(backend.loop(specs[dtype], *batches[dtype], h, entries), reference[entries])
            gradients, _ = getattr(backend, algorithm)(specs[dtype], *batches[dtype], h)
            exact[dtype] = error(spec.flatten(gradients), reference)
        found.append(StepErrors(h, loop, exact))
    return StepComparison(tuple(found), algorithm, len(entries), layout.size)
