"""Networks and batches at the limits of numbers, and what each computation gives of them, in a word.

`python tests/support/extreme_numbers.py` prints the table of docs/limits.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet
from fastnet import backends

Problem = tuple[Any, Any, Any]


def _network(dtype: str, activation: str = "relu", sizes: tuple[int, ...] = (3, 4, 2), **options: Any) -> Any:
    rng = np.random.default_rng(3)
    net = fastnet.MultiLayerNet(sizes[0], list(sizes[1:-1]), sizes[-1], activation=activation, dtype=dtype, **options)
    for array in net.params.values():
        array[...] = rng.uniform(0.2, 1, array.shape) * rng.choice((-1, 1), array.shape)
    return net


def _batch(dtype: str, rows: int = 6, inputs: int = 3, classes: int = 2) -> tuple[Any, Any]:
    x = np.random.default_rng(4).uniform(0.5, 1, (rows, inputs)).astype(dtype)
    return x, np.arange(rows) % classes


def _with_input(value: Callable[[np.finfo[Any]], float], activation: str) -> Callable[[str], Problem]:
    def make(dtype: str) -> Problem:
        x, t = _batch(dtype)
        x[2, 1] = value(np.finfo(dtype))
        return _network(dtype, activation), x, t

    return make


def _with_weight(value: Callable[[np.finfo[Any]], float]) -> Callable[[str], Problem]:
    def make(dtype: str) -> Problem:
        net = _network(dtype)
        net.params["W1"][1, 2] = value(np.finfo(dtype))
        return net, *_batch(dtype)

    return make


def _tiny(dtype: str) -> Problem:
    x, t = _batch(dtype)
    return _network(dtype), x * np.finfo(dtype).smallest_subnormal * 1e6, t


def _saturated(dtype: str) -> Problem:
    net = _network(dtype, "sigmoid")
    net.params["b1"][...] = 1000
    return net, *_batch(dtype)


def _certain(dtype: str) -> Problem:
    net = _network(dtype)
    net.params["b2"][...] = (1000, -1000)
    return net, *_batch(dtype)


def _dead(dtype: str) -> Problem:
    net = _network(dtype)
    net.params["b1"][...] = -100
    return net, *_batch(dtype)


def _missing_class(dtype: str) -> Problem:
    x, t = _batch(dtype)
    return _network(dtype, sizes=(3, 4, 5)), x, t


def _one_row(dtype: str) -> Problem:
    return _network(dtype), *_batch(dtype, rows=1)


def _one_class(dtype: str) -> Problem:
    return _network(dtype, sizes=(3, 4, 1)), *_batch(dtype, classes=1)


def _one_unit(dtype: str) -> Problem:
    return _network(dtype, "tanh", sizes=(1, 1, 2)), *_batch(dtype, inputs=1)


CASES: dict[str, Callable[[str], Problem]] = {
    "ordinary numbers": lambda dtype: (_network(dtype), *_batch(dtype)),
    "NaN in x, ReLU": _with_input(lambda f: np.nan, "relu"),
    "NaN in x, sigmoid": _with_input(lambda f: np.nan, "sigmoid"),
    "∞ in x, ReLU": _with_input(lambda f: np.inf, "relu"),
    "∞ in x, sigmoid": _with_input(lambda f: np.inf, "sigmoid"),
    "the largest float in x, ReLU": _with_input(lambda f: float(f.max), "relu"),
    "the largest float in x, sigmoid": _with_input(lambda f: float(f.max), "sigmoid"),
    "the smallest float in x": _with_input(lambda f: float(f.smallest_subnormal), "relu"),
    "all of x subnormal": _tiny,
    "NaN in a weight": _with_weight(lambda f: np.nan),
    "∞ in a weight": _with_weight(lambda f: np.inf),
    "the largest float in a weight": _with_weight(lambda f: float(f.max)),
    "hidden units saturated": _saturated,
    "an answer that is certain": _certain,
    "all hidden units dead": _dead,
    "classes that never occur": _missing_class,
    "a batch of one row": _one_row,
    "one class": _one_class,
    "one input, one hidden unit": _one_unit,
}
METHODS = ("nodal", "incremental", "loop")
COLUMNS = ("predict", "loss", "gradient", *METHODS, "accuracy")


def word(answer: Any) -> str:
    """NaN if there is one, else ∞ if there is one, else 0 if there is nothing else, else finite."""
    arrays = list(answer.values()) if isinstance(answer, dict) else [np.asarray(answer)]
    numbers = np.concatenate([np.ravel(array).astype(float) for array in arrays])
    if np.isnan(numbers).any():
        return "NaN"
    if np.isinf(numbers).any():
        return "∞"
    return "finite" if numbers.any() else "0"


def _said(call: Callable[[], Any]) -> str:
    try:
        return word(call())
    except (ValueError, ArithmeticError) as error:
        return type(error).__name__


def row(case: str, dtype: str) -> list[str]:
    """What each column of the table is on the backend in use; a method that this has not is empty."""
    net, x, t = CASES[case](dtype)
    found = {
        "predict": lambda: net.predict(x),
        "loss": lambda: net.loss(x, t),
        "gradient": lambda: net.gradient(x, t),
        "accuracy": lambda: net.accuracy(x, t),
    }
    offered = backends.active().algorithms
    found |= {m: lambda m=m: net.numerical_gradient(x, t, h=1e-2, algorithm=m) for m in METHODS if m in offered}
    return [_said(found[column]) if column in found else "" for column in COLUMNS]


def table() -> str:
    """The table in Markdown, as the backend in use answers in float64."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *(f"| {case} | {' | '.join(row(case, 'float64'))} |" for case in CASES)])


if __name__ == "__main__":
    print(table())
