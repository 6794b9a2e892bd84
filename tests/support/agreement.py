"""Random networks of every stage, and what one implementation answers of them, for processes that force one each.

`python tests/support/agreement.py FIRST END` prints, as JSON, the implementation in use and its answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet import backends, build_info
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output, StageKind, Windows
from stages import activation, affine, batch, batch_norm, convolution, dropout, pooling

H = 1e-2
CLASSES = 3
# The largest difference of two right answers, relative to the largest entry.
BOUNDS = {"float32": 1e-3, "float64": 1e-9}
# `loop` subtracts two losses, each of which may be off by this many units of its last place: all that is left of an
# entry that is 0 but for rounding, as those before a BatchNorm can be.
LOSS_UNITS = 4


def network_of(seed: int) -> tuple[NetworkSpec, Any, Any]:
    """A network and a batch: of images or not, with either dtype, any activation and any loss that fits."""
    rng = np.random.default_rng(seed)
    dtype = ("float32", "float64")[seed % 2]
    made, units = [], 36
    if rng.random() < 0.6:
        windows = Windows(1, 6, 6, *(int(n) for n in rng.integers(1, 4, 2)), *(int(n) for n in rng.integers(1, 3, 2)))
        made.append(convolution(rng, windows, 2, dtype, bias=bool(rng.random() < 0.8)))
        height, width, units = windows.out_height, windows.out_width, made[-1].outputs
        if rng.random() < 0.5:
            made.append(batch_norm(rng, units, height * width, dtype))
        if rng.random() < 0.8:
            kind = StageKind.MAX_POOLING if rng.random() < 0.5 else StageKind.AVERAGE_POOLING
            made.append(pooling(kind, Windows(2, height, width, 2, 2, 1, 1)))
            units = made[-1].outputs
    for outputs in (int(n) for n in rng.integers(3, 9, rng.integers(0, 3))):
        made.append(affine(rng, units, outputs, dtype, bias=bool(rng.random() < 0.8)))
        units = outputs
        if rng.random() < 0.4:
            made.append(batch_norm(rng, units, dtype=dtype))
        made.append(activation(units, Activation(int(rng.integers(len(Activation)))), 0.3))
        if rng.random() < 0.4:
            made.append(dropout(units))
    made.append(affine(rng, units, CLASSES, dtype))
    loss = Loss(int(rng.integers(len(Loss))))
    output = Output.SOFTMAX if loss is Loss.CROSS_ENTROPY or rng.random() < 0.3 else Output.IDENTITY
    spec = NetworkSpec(tuple(made), output, loss, np.dtype(dtype), weight_decay=float(rng.choice((0, 0.1))))
    x, t = batch(rng, 36, dtype, rows=int(rng.integers(2, 9)), classes=CLASSES)
    return spec, x, t


def answers_of(seed: int) -> dict[str, list[list[float]]]:
    """What the backend in use computes; the parameters of `loop` are the first twenty."""
    backend: Any = backends.active()
    spec, x, t = network_of(seed)
    found = {
        "forward": [backend.forward(spec, x)],
        "loss": [backend.loss(spec, x, t), backend.loss(spec, x, t, training=True)],
        "loop": [backend.loop(spec, x, t, H, np.arange(min(20, sum(p.size for p in spec.parameters))))],
    }
    for name in ("incremental", "nodal"):
        if name in backend.algorithms:
            found[name] = getattr(backend, name)(spec, x, t, H)[0]
    found["gradient"] = backend.loss_and_gradient(spec, x, t)[1]
    return {name: [np.ravel(part).astype(float).tolist() for part in parts] for name, parts in found.items()}


def differences(found: dict[str, Any], expected: dict[str, Any], dtype: str) -> list[str]:
    """A line for each kind of answer that is off by more than rounding. Where there is no nodal, incremental serves."""
    lines = []
    for name, parts in found.items():
        reference = expected[name if name in expected else "incremental"]
        one, other = (np.concatenate([np.asarray(part) for part in both]) for both in (parts, reference))
        with np.errstate(invalid="ignore"):
            off = np.abs(one - other).max()
        rounding = LOSS_UNITS * np.finfo(dtype).eps * max(map(abs, np.ravel(expected["loss"]))) / H
        bound = BOUNDS[dtype] * max(np.abs(other).max(), 1e-3) + (rounding if name == "loop" else 0)
        if not off <= bound:
            lines.append(f"{name} is off by {off:.1e}, more than {bound:.1e}")
    return lines


def report(first: int, end: int) -> None:
    """Print, as JSON, the implementation in use and its answers of a range of networks."""
    info = build_info()
    print(json.dumps([info["backend"], info["isa"], [answers_of(seed) for seed in range(first, end)]]))


def compare(count: int, ask: Callable[[str, str], Any]) -> tuple[int, list[str]]:
    """Compare every implementation with NumPy; ask(backend, isa) is what a process that must use it has reported.

    Returns how many networks were compared, and a line for each kind of answer that is off.
    """

    def answers(name: str, isa: str = "") -> list[Any]:
        found: list[Any]
        used, used_isa, found = ask(name, isa)
        assert used == name
        assert isa in ("", used_isa)
        assert len(found) == count
        return found

    implementations = [("numba", "")] if "numba" in backends.available() else []
    if backends.has_extension():
        from fastnet import _core

        implementations += [("cpp", isa) for isa in _core.available_isas()]
    expected, lines = answers("numpy"), []
    for name, isa in implementations:
        for seed, (found, reference) in enumerate(zip(answers(name, isa), expected, strict=True)):
            off = differences(found, reference, network_of(seed)[0].dtype.name)
            lines += [f"{name} {isa}, network {seed}: {line}" for line in off]
    return count * len(implementations), lines


if __name__ == "__main__":
    report(int(sys.argv[1]), int(sys.argv[2]))
