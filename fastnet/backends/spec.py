"""The description of a network that every backend computes with: arrays and enums, checked and contiguous."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray


class Activation(enum.IntEnum):
    """What a layer applies to each of its units; the numbers are those of ``cpp/core/network.hpp``."""

    IDENTITY = 0
    STEP = 1
    SIGMOID = 2
    TANH = 3
    RELU = 4
    LEAKY_RELU = 5


class Output(enum.IntEnum):
    """What turns the last layer's units into the network's answer."""

    IDENTITY = 0
    SOFTMAX = 1


class Loss(enum.IntEnum):
    """How far the answer is from the target, averaged over the batch."""

    CROSS_ENTROPY = 0
    MEAN_SQUARED_ERROR = 1


class Rule(enum.IntEnum):
    """How an optimizer changes a parameter: `fastnet.optimizers`, by the numbers of ``cpp/core/training.hpp``."""

    SGD = 0
    MOMENTUM = 1
    NESTEROV = 2
    ADAGRAD = 3
    RMSPROP = 4
    ADAM = 5


class Method(enum.IntEnum):
    """What a training step's gradient comes from; likewise."""

    BACKPROP = 0
    INCREMENTAL = 1
    NODAL = 2


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a finite-difference gradient tells about itself.

    Attributes
    ----------
    loss : float
        The loss at the parameters themselves.
    evaluations : int
        How many times the change of one row's loss by one perturbation was evaluated.
    fallbacks : int
        (row, unit) pairs that ``nodal`` left to ``incremental``: their interpolation missed, or they met a kink.
    kinks : int
        Those of them that met a kink.
    kinked : tuple of ndarray of bool
        For each layer, shape (outputs,): whether a perturbation of the unit took any unit across a kink. The central
        differences by the unit's weights and bias then straddle it, and need not equal a derivative.
    """

    loss: float
    evaluations: int = 0
    fallbacks: int = 0
    kinks: int = 0
    kinked: tuple[npt.NDArray[np.bool_], ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A chain of affine layers with activations, an output function and a loss.

    Attributes
    ----------
    weights : tuple of ndarray
        Layer l's weights, shape (inputs, outputs); all of one dtype, float32 or float64, C-contiguous.
    biases : tuple of ndarray or None
        Layer l's biases, shape (outputs,), or None where the layer has none.
    activations : tuple of Activation
        Layer l's activation.
    output : Output
    loss : Loss
    leaky_slope : float
        The slope of every leaky ReLU for negative arguments.
    weight_decay : float
        λ of the penalty λ/2·ΣW² over all weights (not biases) that the loss includes; 0 for none.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray | None, ...]
    activations: tuple[Activation, ...]
    output: Output = Output.SOFTMAX
    loss: Loss = Loss.CROSS_ENTROPY
    leaky_slope: float = 0.01
    weight_decay: float = 0.0

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return self.weights[0].dtype

    @property
    def inputs(self) -> int:
        inputs: int = self.weights[0].shape[0]
        return inputs

    @property
    def classes(self) -> int:
        classes: int = self.weights[-1].shape[1]
        return classes

    @property
    def parameters(self) -> list[FloatArray]:
        """Every parameter array, W1, b1, W2, b2, …: the order of gradients and of flat parameter numbers."""
        return [p for pair in zip(self.weights, self.biases, strict=True) for p in pair if p is not None]

    def check_differences(self) -> None:
        """Raise if the loss has no exact difference.

        That of a logarithm needs the new answer to full accuracy; of softmax that is known, of an answer that is
        any layer's units it would have to be carried along.
        """
        if self.output == Output.IDENTITY and self.loss == Loss.CROSS_ENTROPY:
            raise ValueError(
                "the cross entropy of an answer without softmax has no exact difference: use the algorithm 'loop'"
            )

    def copy(self) -> NetworkSpec:
        """The same network on parameter arrays of its own."""
        return replace(
            self,
            weights=tuple(w.copy() for w in self.weights),
            biases=tuple(None if b is None else b.copy() for b in self.biases),
        )
