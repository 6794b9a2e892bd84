"""Parameters, gradients and updates for the tests of the optimizers."""

from __future__ import annotations

import numpy as np

from fastnet.optimizers import OPTIMIZERS, CosineAnnealing

T, V = TypeError, ValueError
INF, NAN = float("inf"), float("nan")
KINDS = list(OPTIMIZERS.values())
SCHEDULE = CosineAnnealing(0.02, iterations=30, warmup=4, final=0.001)


def make_arrays(dtype="float64", seed=0, shapes=((3, 4), (4,), (4, 2), ())):
    """Arrays as of a network's parameters or gradients; about a third of the entries are 0."""
    rng = np.random.default_rng(seed)
    return {
        f"p{i}": np.asarray(rng.standard_normal(shape) * (rng.random(shape) > 0.3), dtype)
        for i, shape in enumerate(shapes)
    }


def train(optimizer, params, steps, seed=1):
    """`params` after some updates; those of the same `optimizer.iteration` have the same gradients."""
    for _ in range(steps):
        g = make_arrays(params["p0"].dtype, (seed, optimizer.iteration), [p.shape for p in params.values()])
        optimizer.update(params, g)
    return params


def bits(optimizer, params):
    """All that an update changes."""
    arrays = params | {f"{s}/{n}": a for s, named in optimizer.state.items() for n, a in named.items()}
    return optimizer.iteration, {name: (a.shape, a.dtype, a.tobytes()) for name, a in arrays.items()}


def good():
    return make_arrays()


def replaced(arrays, changes):
    return {name: a for name, a in (arrays | changes).items() if a is not None}
