"""Random networks with right gradients, and mistakes that a check must find; shared with the benchmarks."""

from __future__ import annotations

import copy

import numpy as np

import fastnet
from fastnet.layers import ReLU

MISTAKES = ("1 %", "sign", "transposed block", "two entries swapped", "branch")


def network_of(seed):
    """A network of depth 1 to 4 with ReLU, and a batch: with BatchNorm, Dropout, in float32 or float64."""
    rng = np.random.default_rng(seed)
    depth, dtype = 1 + seed % 4, ("float32", "float64")[seed // 4 % 2]
    net = fastnet.MultiLayerNet(
        8,
        [int(rng.integers(4, 12)) for _ in range(depth)],
        4,
        dtype=dtype,
        seed=seed,
        weight_decay_lambda=float(rng.choice([0, 0.1])),
        use_batchnorm=bool(seed // 8 % 2),
        dropout_ratio=float((0, 0.3)[seed // 16 % 2]),
    )
    rows = int(rng.integers(8, 24))
    return net, (rng.standard_normal((rows, 8)).astype(dtype), rng.integers(0, 4, rows))


def mistaken(kind, net, gradient, x, t, seed):
    """A gradient with a mistake, and the arrays that it is in; None for these if it is in all before some layer."""
    if kind == "branch":
        return _with_swapped_branches(net, x, t)
    rng = np.random.default_rng((seed, 1))
    wrong = {name: array.copy() for name, array in gradient.items()}
    name = str(rng.choice([name for name in wrong if name.startswith("W")]))
    array = wrong[name]
    large = np.argwhere(np.abs(array) > 0.05 * np.abs(array).max())
    at = tuple(large[rng.integers(len(large))])
    if kind == "1 %":
        array[at] *= 1.01
    elif kind == "sign":
        array[at] *= -1
    elif kind == "two entries swapped":
        other = np.unravel_index(np.abs(array - array[at]).argmax(), array.shape)
        array[at], array[other] = array[other], array[at]
    else:
        size = min(array.shape)
        array[:size, :size] = array[:size, :size].T.copy()
    return wrong, {name}


def _with_swapped_branches(net, x, t):
    """The gradient with the derivative of the first ReLU for the other side, and the pass that it belongs to."""

    class Swapped(ReLU):
        def backward(self, dout):
            return dout * (self._last() <= 0)

    twin = copy.deepcopy(net)  # from the same state: with the same masks
    twin._chain, twin._staged = None, False
    place = next(place for place, named in enumerate(twin._named) if type(named.layer) is ReLU)
    twin._named[place] = twin._named[place]._replace(layer=Swapped())
    net.gradient(x, t)
    return twin.gradient(x, t), None
