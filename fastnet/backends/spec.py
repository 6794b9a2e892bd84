"""A network as backends are given it: a list of stages of checked, contiguous arrays."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Activation(enum.IntEnum):
    """The function that a layer applies to each of its units; the numbers are those of ``cpp/core/network.hpp``."""

    IDENTITY = 0
    STEP = 1
    SIGMOID = 2
    TANH = 3
    RELU = 4
    LEAKY_RELU = 5
    SOFTPLUS = 6
    SILU = 7
    GELU = 8
    ELU = 9


def has_kink(kind: Activation, constant: float) -> bool:
    """Whether the derivative of an activation with this constant jumps at 0."""
    piecewise = kind in (Activation.STEP, Activation.RELU, Activation.LEAKY_RELU)
    return piecewise or (kind == Activation.ELU and constant != 1)


DEFAULT_CONSTANTS = {Activation.LEAKY_RELU: 0.01, Activation.ELU: 1.0}  # of the activations that have one


class Output(enum.IntEnum):
    """The function that turns the last layer's units into the network's answer."""

    IDENTITY = 0
    SOFTMAX = 1


class Loss(enum.IntEnum):
    """The distance between answer and target, summed over the answer and averaged over the batch."""

    CROSS_ENTROPY = 0
    MEAN_SQUARED_ERROR = 1
    BINARY_CROSS_ENTROPY = 2  # Of logits.
    HUBER = 3
    ABSOLUTE_ERROR = 4


class StageKind(enum.IntEnum):
    """What a stage does; the numbers are those of ``cpp/core/stages.hpp``."""

    AFFINE = 0
    ACTIVATION = 1
    BATCH_NORM = 2
    DROPOUT = 3
    CONVOLUTION = 4
    MAX_POOLING = 5
    AVERAGE_POOLING = 6


class Couples(enum.Flag):
    """What a stage takes together in training to make one of its units."""

    NOTHING = 0  # but the same unit of the same row
    UNITS = enum.auto()  # the units, or channels, of a row
    POSITIONS = enum.auto()  # the positions of an image
    ROWS = enum.auto()  # the rows of the batch


_COUPLES = {
    StageKind.AFFINE: Couples.UNITS,
    StageKind.BATCH_NORM: Couples.ROWS,
    StageKind.CONVOLUTION: Couples.UNITS | Couples.POSITIONS,
    StageKind.MAX_POOLING: Couples.POSITIONS,
    StageKind.AVERAGE_POOLING: Couples.POSITIONS,
}


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a finite-difference gradient reports about itself.

    Attributes
    ----------
    loss : float
        The loss at the unchanged parameters.
    evaluations : int
        The number of evaluations, each of the change of one row's loss after one perturbation.
    fallbacks : int
        The number of (row, unit) pairs that ``nodal`` left to ``incremental``, since the interpolation was not accurate
        or the unit met a kink.
    kinks : int
        The number of these pairs that met a kink.
    kinked : tuple of ndarray of bool
        For each layer of a chain, shape (outputs,): whether a perturbation of the unit moved any unit across a kink.
        The central differences with respect to the unit's weights and bias then straddle the kink and need not equal a
        derivative. What a backend gives of another network has the same for each parameter, in its shape.
    """

    loss: float
    evaluations: int = 0
    fallbacks: int = 0
    kinks: int = 0
    kinked: tuple[npt.NDArray[np.bool_], ...] = ()


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
        Of dropout: the probability of a zero in the masks that `random` draws.
    random : ndarray of uint64 or None
        Shape (3,): the generator's key, and the number of the next mask, which a training pass counts in place. None
        where there is a `mask`.
    mask : ndarray or None
        The mask of a training pass over a batch, shape (batch, units), any factors.
    scale : float
        Of dropout: what units are multiplied by in inference.
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
    mask: FloatArray | None = None
    scale: float = 1.0
    windows: Windows | None = None

    @property
    def couples(self) -> Couples:
        """What it takes together to make one of its units."""
        together = _COUPLES.get(self.kind, Couples.NOTHING)
        return together | Couples.POSITIONS if self.positions > 1 else together

    @property
    def may_meet_kink(self) -> bool:
        """Whether the derivative of what it does jumps somewhere."""
        if self.kind == StageKind.ACTIVATION:
            return has_kink(self.activation, self.constant)
        return self.kind == StageKind.MAX_POOLING


class Layer(NamedTuple):
    """A layer of a chain: an affine stage and the activation behind it, `IDENTITY` if there is none."""

    weight: FloatArray
    bias: FloatArray | None
    activation: Activation
    constant: float  # of the activation


@dataclass(frozen=True)
class NetworkSpec:
    """A network as backends take it: a list of stages with an output function and a loss.

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
    layers : tuple of Layer
        The network as a chain of affine layers with activations; empty if it is not one. Backends have faster kernels
        for chains.
    """

    stages: tuple[Stage, ...]
    output: Output = Output.SOFTMAX
    loss: Loss = Loss.CROSS_ENTROPY
    dtype: np.dtype[np.floating[Any]] = field(default_factory=lambda: np.dtype(np.float64))
    loss_constant: float = 1.0
    weight_decay: float = 0.0
    layers: tuple[Layer, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _as_layers(self.stages))

    @classmethod
    def chain(
        cls,
        weights: Sequence[FloatArray],
        biases: Sequence[FloatArray | None],
        activations: Sequence[Activation],
        output: Output = Output.SOFTMAX,
        loss: Loss = Loss.CROSS_ENTROPY,
        weight_decay: float = 0.0,
        constants: Sequence[float] = (),
        loss_constant: float = 1.0,
    ) -> NetworkSpec:
        """A chain of affine layers with activations.

        Parameters
        ----------
        weights : sequence of ndarray
            Layer l's weights, shape (inputs, outputs).
        biases : sequence of ndarray or None
            Layer l's biases, shape (outputs,), or None where the layer has none.
        activations : sequence of Activation
        constants : sequence of float, optional
            The constant of layer l's activation, by default that of `DEFAULT_CONSTANTS`.
        output, loss, weight_decay, loss_constant
            As the attributes.
        """
        stages: list[Stage] = []
        given = constants or [DEFAULT_CONSTANTS.get(activation, 0.0) for activation in activations]
        for weight, bias, activation, constant in zip(weights, biases, activations, given, strict=True):
            inputs, outputs = weight.shape
            stages.append(Stage(StageKind.AFFINE, inputs, outputs, weight, bias))
            if activation != Activation.IDENTITY:
                stages.append(Stage(StageKind.ACTIVATION, outputs, outputs, activation=activation, constant=constant))
        return cls(tuple(stages), output, loss, weights[0].dtype, loss_constant, weight_decay)

    @property
    def inputs(self) -> int:
        return self.stages[0].inputs

    @property
    def classes(self) -> int:
        return self.stages[-1].outputs

    @property
    def parameters(self) -> list[FloatArray]:
        """Every parameter array, stage after stage, the weight before the bias: the order of gradients.

        Inside fastnet, a gradient is a list of arrays in this order, which is also that of flat parameter numbers.
        `flatten` makes one flat array of such a list, and `split` undoes that.
        """
        return [p for stage in self.stages for p in (stage.weight, stage.bias) if p is not None]

    @property
    def weights(self) -> tuple[FloatArray, ...]:
        """The weights that the penalty counts: those of affine stages and convolutions."""
        kinds = (StageKind.AFFINE, StageKind.CONVOLUTION)
        return tuple(stage.weight for stage in self.stages if stage.kind in kinds and stage.weight is not None)

    @staticmethod
    def flatten(arrays: Iterable[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
        """Arrays like `parameters` as one flat array: array after array, each row by row."""
        return np.concatenate([array.ravel() for array in arrays])

    def split(self, flat: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
        """A flat array as arrays like `parameters`, which are views of it."""
        parameters = self.parameters
        ends = np.cumsum([p.size for p in parameters])
        return [piece.reshape(p.shape) for piece, p in zip(np.split(flat, ends[:-1]), parameters, strict=True)]

    def with_parameters(self, parameters: Iterable[FloatArray]) -> NetworkSpec:
        """The same network with other parameter arrays, in the order of `parameters`: all of one dtype."""
        rest = iter(parameters)
        stages = []
        for stage in self.stages:
            weight = None if stage.weight is None else next(rest)
            stages.append(replace(stage, weight=weight, bias=None if stage.bias is None else next(rest)))
        dtype = next((s.weight.dtype for s in stages if s.weight is not None), self.dtype)
        return replace(self, stages=tuple(stages), dtype=dtype)

    def copy(self) -> NetworkSpec:
        """The same network with its own copies of the parameter arrays."""
        return self.with_parameters(p.copy() for p in self.parameters)

    @property
    def couples_rows(self) -> bool:
        """Whether what becomes of a row in training depends on the other rows."""
        return any(Couples.ROWS in stage.couples for stage in self.stages)

    @property
    def may_meet_kink(self) -> bool:
        """Whether the derivative of the loss jumps somewhere. That of the Huber loss does not: only its second one."""
        return self.loss == Loss.ABSOLUTE_ERROR or any(stage.may_meet_kink for stage in self.stages)

    @functools.cached_property
    def has_nodes(self) -> tuple[bool, ...]:
        """For each stage, whether a row's loss is a function of the move of one unit alone, for each of its parameters.

        That is what `nodal` needs. The stage moves one unit of a row, and either no later stage couples rows, or the
        next one alone, which makes of the unit's moves in all rows one move of the unit in each.
        """
        if self.layers:  # In a chain nothing couples rows.
            return tuple(stage.weight is not None for stage in self.stages)
        couples = [stage.couples for stage in self.stages]
        coupling = [number for number, units in enumerate(couples) if Couples.ROWS in units]
        found = []
        for number, stage in enumerate(self.stages):
            later = [other for other in coupling if other > number]
            fits = not later or (later == [number + 1] and couples[number + 1] == Couples.ROWS)
            found.append(fits and stage.weight is not None and couples[number] == Couples.UNITS)
        return tuple(found)

    @property
    def has_exact_difference(self) -> bool:
        """Whether the loss has an exact difference.

        That of a logarithm needs the new answer to full accuracy. For a softmax it is known; the answer of any other
        layer would have to be carried along.
        """
        return not (self.output == Output.IDENTITY and self.loss == Loss.CROSS_ENTROPY)

    def check_differences(self) -> None:
        """Raise ValueError if the loss has no exact difference."""
        if not self.has_exact_difference:
            raise ValueError(
                "the cross entropy of an answer without softmax has no exact difference: use the algorithm 'loop'"
            )


def _as_layers(stages: Iterable[Stage]) -> tuple[Layer, ...]:
    """The stages as layers of a chain: affine ones, each with at most one activation behind it; empty if not so."""
    layers: list[Layer] = []
    before: StageKind | None = None
    for stage in stages:
        if stage.kind == StageKind.AFFINE and stage.weight is not None:
            layers.append(Layer(stage.weight, stage.bias, Activation.IDENTITY, 0.0))
        elif stage.kind == StageKind.ACTIVATION and before == StageKind.AFFINE:
            layers[-1] = Layer(*layers[-1][:2], stage.activation, stage.constant)
        else:
            return ()
        before = stage.kind
    return tuple(layers)
