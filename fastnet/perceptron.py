"""Logic gates as perceptrons: a step function of a weighted sum of two inputs."""

from __future__ import annotations

__all__ = ["AND", "NAND", "OR", "XOR"]


def _perceptron(x1: float, x2: float, w: float, b: float) -> int:
    return int(w * x1 + w * x2 + b > 0)


def AND(x1: float, x2: float) -> int:  # noqa: N802
    """1 if both inputs are 1, else 0.

    Examples
    --------
    >>> import fastnet
    >>> [fastnet.AND(a, b) for a, b in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 0, 0, 1]
    """
    return _perceptron(x1, x2, 0.5, -0.7)


def NAND(x1: float, x2: float) -> int:  # noqa: N802
    """0 if both inputs are 1, else 1.

    Examples
    --------
    >>> import fastnet
    >>> [fastnet.NAND(a, b) for a, b in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [1, 1, 1, 0]
    """
    return _perceptron(x1, x2, -0.5, 0.7)


def OR(x1: float, x2: float) -> int:  # noqa: N802
    """1 if at least one input is 1, else 0.

    Examples
    --------
    >>> import fastnet
    >>> [fastnet.OR(a, b) for a, b in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 1, 1, 1]
    """
    return _perceptron(x1, x2, 0.5, -0.2)


def XOR(x1: float, x2: float) -> int:  # noqa: N802
    """1 if exactly one input is 1, else 0: not a single perceptron, but two layers of them.

    Examples
    --------
    >>> import fastnet
    >>> [fastnet.XOR(a, b) for a, b in [(0, 0), (1, 0), (0, 1), (1, 1)]]
    [0, 1, 1, 0]
    """
    return AND(NAND(x1, x2), OR(x1, x2))
