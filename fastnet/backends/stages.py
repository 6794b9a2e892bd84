"""What backends are given of a network that is more than a chain: a list of stages, as checked, contiguous arrays."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Activation, Loss, Output


class StageKind(enum.IntEnum):
    """What a stage does; the numbers are those of ``cpp/core/stages.hpp``."""

    AFFINE = 0
    ACTIVATION = 1
    BATCH_NORM = 2
    DROPOUT = 3
    CONVOLUTION = 4
    MAX_POOLING = 5
    AVERAGE_POOLING = 6


@dataclass(frozen=True, slots=True)
class Windows:
    """How the windows of a convolution or a pooling lie on an image of shape (channels, height, width).

    Attributes
    ----------
    channels, height, width : int
        The image.
    window_height, window_width : int
    stride_y, stride_x : int
        The distance of neighbouring windows.
    pad_y, pad_x : int
        The border that is added on either side.
    """

    channels: int
    height: int
    width: int
    window_height: int
    window_width: int
    stride_y: int = 1
    stride_x: int = 1
    pad_y: int = 0
    pad_x: int = 0

    @property
    def out_height(self) -> int:
        return (self.height + 2 * self.pad_y - self.window_height) // self.stride_y + 1

    @property
    def out_width(self) -> int:
        return (self.width + 2 * self.pad_x - self.window_width) // self.stride_x + 1

    @property
    def positions(self) -> int:
        return self.out_height * self.out_width


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, which turns each row of `inputs` units into one of `outputs` units.

    Images lie in a row as (channels, height, width). Each kind of stage has the fields of its group.

    Attributes
    ----------
    kind : StageKind
    inputs, outputs : int
    weight, bias : ndarray or None
        Of an affine stage, shapes (inputs, outputs) and (outputs,); of a convolution, (filters, channels,
        window_height, window_width) and (filters,). Either may lack the bias. Of a batch normalisation, gamma and beta,
        shape (columns,).
    activation : Activation
    constant : float
        Of the activation: a leaky ReLU's slope for negative arguments, an ELU's α.
    positions : int
        Of a batch normalisation: how many neighbouring units of all rows make up a column.
    running_mean, running_var : ndarray or None
        Shape (columns,). A training pass changes them in place.
    passes : ndarray of int64 or None
        Shape (1,): the training passes that the running statistics are averages of; None where they were given.
    momentum : float
    ratio : float
        Of dropout: the probability of a zero.
    random : ndarray of uint64 or None
        Shape (3,): the generator's key, and the number of the next mask, which a training pass counts in place.
    windows : Windows or None
        Of convolution and pooling.
    """

    kind: StageKind
    inputs: int
    outputs: int
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    activation: Activation = Activation.IDENTITY
    constant: float = 0.0
    positions: int = 1
    running_mean: FloatArray | None = None
    running_var: FloatArray | None = None
    passes: IntArray | None = None
    momentum: float = 0.9
    ratio: float = 0.0
    random: npt.NDArray[np.uint64] | None = None
    windows: Windows | None = None


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A network of stages with an output function and a loss.

    Attributes
    ----------
    stages : tuple of Stage
        Neighbours fit each other. All arrays but the state are of one dtype, float32 or float64, and C-contiguous.
    output : Output
    loss : Loss
    dtype : dtype
    loss_constant : float
        The δ of the Huber loss.
    weight_decay : float
        λ of the penalty λ/2·ΣW² over the weights of affine stages and convolutions; 0 for none.
    """

    stages: tuple[Stage, ...]
    output: Output = Output.SOFTMAX
    loss: Loss = Loss.CROSS_ENTROPY
    dtype: np.dtype[np.floating[Any]] = field(default_factory=lambda: np.dtype(np.float64))
    loss_constant: float = 1.0
    weight_decay: float = 0.0

    @property
    def inputs(self) -> int:
        return self.stages[0].inputs

    @property
    def classes(self) -> int:
        return self.stages[-1].outputs

    @property
    def parameters(self) -> list[FloatArray]:
        """Every parameter array, stage after stage, the weight before the bias: the order of gradients."""
        return [p for stage in self.stages for p in (stage.weight, stage.bias) if p is not None]

    @property
    def weights(self) -> tuple[FloatArray, ...]:
        """The weights that the penalty counts: those of affine stages and convolutions."""
        kinds = (StageKind.AFFINE, StageKind.CONVOLUTION)
        return tuple(stage.weight for stage in self.stages if stage.kind in kinds and stage.weight is not None)
