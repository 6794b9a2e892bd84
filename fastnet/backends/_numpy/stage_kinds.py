"""The kinds of stages: the value, the derivative and the difference of each, side by side.

Moves have shape (moves, rows, units). They are those of all units of a stage or of some neighbouring ones, from number
`first` on, as long as no stage mixes these with others.
"""

from __future__ import annotations

import abc
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray
from fastnet.backends._numpy.functions import (
    activation,
    activation_derivative,
    activation_difference,
    loses_digits,
)
from fastnet.backends._numpy.windows import add_patches, elements, patches
from fastnet.backends.spec import Stage, StageKind, Windows

NORM_EPSILON = 1e-6  # Added to the variance, so that a constant column is not divided by 0.

Scalar = TypeVar("Scalar", bound=np.generic)
Moves = tuple[FloatArray, int, npt.NDArray[np.bool_] | bool]  # the moves, their first unit, which ones met a kink


def given(array: FloatArray | None) -> FloatArray:
    """What a stage of this kind has."""
    assert array is not None
    return array


class Step(abc.ABC):
    """A stage in one pass: its value `y`, shape (rows, outputs), for `x`, shape (rows, inputs)."""

    y: FloatArray
    moments: tuple[FloatArray, FloatArray] | None = None  # mean and variance of each column of a batch normalisation

    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        self.stage, self.x = stage, x

    @abc.abstractmethod
    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        """The derivatives with respect to `x` and to the parameters, given that with respect to `y`."""

    @abc.abstractmethod
    def differ(self, d: FloatArray, first: int) -> Moves:
        """The moves of `y`, from those of `x`."""


class ParameterStep(Step):
    """A stage with parameters. Each moves one *column* of the units: a unit of all rows, or a filter's positions."""

    columns: int
    weights_of_column: int

    @property
    def parameters(self) -> list[FloatArray]:
        return [p for p in (self.stage.weight, self.stage.bias) if p is not None]

    @abc.abstractmethod
    def own_moves(self, column: int, part: slice) -> tuple[FloatArray, int]:
        """How the parameters `part` of a column move it, for a step of 1, and its first unit; a bias comes last."""

    def as_parameters(self, found: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
        """Numbers for each parameter of each column, shape (columns, count), as arrays like the parameters."""
        weight = found[:, : self.weights_of_column].reshape(self.parameters[0].shape)
        return [weight.copy(), found[:, -1].copy()][: len(self.parameters)]


class AffineStep(ParameterStep):
    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.weight = given(stage.weight)
        self.y = x @ self.weight if stage.bias is None else x @ self.weight + stage.bias
        self.weights_of_column, self.columns = self.weight.shape

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        return d @ self.weight.T, [self.x.T @ d, d.sum(axis=0)][: len(self.parameters)]

    def own_moves(self, column: int, part: slice) -> tuple[FloatArray, int]:
        inputs = np.column_stack([self.x, np.ones(len(self.x), self.x.dtype)])
        return inputs[:, part].T[..., np.newaxis], column

    def as_parameters(self, found: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
        weight = np.ascontiguousarray(found[:, : self.weights_of_column].T)
        return [weight, found[:, -1].copy()][: len(self.parameters)]

    def differ(self, d: FloatArray, first: int) -> Moves:
        return d @ self.weight[first : first + d.shape[-1]], 0, False


class ActivationStep(Step):
    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.y = activation(stage.activation, x, stage.constant)

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        return d * activation_derivative(self.stage.activation, self.x, self.stage.constant), []

    def differ(self, d: FloatArray, first: int) -> Moves:
        kind, constant = self.stage.activation, self.stage.constant
        a = np.broadcast_to(self.x[:, first : first + d.shape[-1]], d.shape)
        crosses = ((a > 0) != (a + d > 0)).any(axis=(1, 2))
        difference = activation_difference(kind, a, d, constant)
        difference[loses_digits(a, d)] = np.nan
        return difference, first, self.stage.may_meet_kink & crosses


class DropoutStep(Step):
    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.mask = mask_of(stage, x.shape, x.dtype) if training else np.full_like(x, stage.scale)
        self.y = x * self.mask

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        return d * self.mask, []

    def differ(self, d: FloatArray, first: int) -> Moves:
        return d * self.mask[:, first : first + d.shape[-1]], first, False


def mask_of(stage: Stage, shape: tuple[int, ...], dtype: np.dtype[np.floating[Any]]) -> FloatArray:
    """Dropout's next mask, shape (rows, units): the given one, or the k-th stream of the generator with this key.

    Raises
    ------
    ValueError
        If the given mask has another shape.
    """
    if stage.mask is not None:
        if stage.mask.shape != shape:
            raise ValueError(f"dropout has a mask of shape {stage.mask.shape} for units of shape {shape}")
        return stage.mask.astype(dtype, copy=False)
    assert stage.random is not None
    *key, number = stage.random
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, int(number), 0]))
    kept = generator.random(shape) >= stage.ratio
    mask: FloatArray = kept * dtype.type(1 / (1 - stage.ratio))
    return mask


class BatchNormStep(ParameterStep):
    """In training the statistics are the batch's, and couple its rows. They are computed in float64."""

    weights_of_column = 1

    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.gamma = given(stage.weight)
        self.columns = len(self.gamma)
        wide = self._by_columns(x).astype(np.float64)
        if training:
            mean, variance = wide.mean(axis=(0, 2)), wide.var(axis=(0, 2))
            self.moments = mean, variance
        else:
            mean, variance = (np.asarray(s, np.float64) for s in (stage.running_mean, stage.running_var))
        self.deviation = np.sqrt(variance + NORM_EPSILON)
        self.normal = ((wide - mean[:, np.newaxis]) / self.deviation[:, np.newaxis]).astype(x.dtype)
        beta = given(stage.bias)
        self.y = (self.gamma[:, np.newaxis] * self.normal + beta[:, np.newaxis]).reshape(x.shape)

    def _by_columns(self, units: FloatArray) -> FloatArray:
        return units.reshape(*units.shape[:-1], -1, self.stage.positions)

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        d = self._by_columns(d).astype(np.float64)
        dgamma, dbeta = (d * self.normal).sum(axis=(0, 2)), d.sum(axis=(0, 2))
        count = len(d) * self.stage.positions
        through = d - (dbeta[:, np.newaxis] + self.normal * dgamma[:, np.newaxis]) / count
        d_x = (self.gamma / self.deviation)[:, np.newaxis] * through
        dtype = self.x.dtype
        return d_x.reshape(self.x.shape).astype(dtype), [dgamma.astype(dtype), dbeta.astype(dtype)]

    def own_moves(self, column: int, part: slice) -> tuple[FloatArray, int]:
        of_gamma = self.normal[:, column]
        return np.stack([of_gamma, np.ones_like(of_gamma)])[part], column * self.stage.positions

    def differ(self, d: FloatArray, first: int) -> Moves:
        # With e the moves less their mean and g the change of the variance, which is the mean of 2·s·x̂·e + e², the
        # normalised values x̂ move by e/s' − x̂·g/(s'·(s + s')), s'² = s² + g. Nothing cancels.
        d, first = whole(d, first, self.stage.positions, self.stage.outputs)
        wide = self._by_columns(d).astype(np.float64)
        at = slice(first // self.stage.positions, first // self.stage.positions + wide.shape[-2])
        s, normal, gamma = self.deviation[at, np.newaxis], self.normal[:, at], self.gamma[at, np.newaxis]
        e = wide - wide.mean(axis=(1, 3), keepdims=True)
        g = (2 * s * normal * e + e * e).mean(axis=(1, 3), keepdims=True)
        after = np.sqrt(s * s + g)
        moved = gamma * (e / after - normal * (g / (after * (s + after))))
        return moved.reshape(d.shape).astype(d.dtype), first, False


def whole(d: FloatArray, first: int, together: int, units: int) -> tuple[FloatArray, int]:
    """The same moves, as those of all units where they take apart what belongs `together`."""
    if first % together == 0 and d.shape[-1] % together == 0:
        return d, first
    every = np.zeros((*d.shape[:-1], units), d.dtype)
    every[..., first : first + d.shape[-1]] = d
    return every, 0


class WindowStep(Step):
    """A convolution or a pooling."""

    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        assert stage.windows is not None
        self.windows: Windows = stage.windows
        self.image = self.windows.height * self.windows.width

    def _whole(self, d: FloatArray, first: int) -> tuple[FloatArray, int]:
        """The moves, and the first channel they are of."""
        d, first = whole(d, first, self.image, self.stage.inputs)
        return d, first // self.image


class ConvolutionStep(WindowStep, ParameterStep):
    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        weight = given(stage.weight)
        self.filters: FloatArray = weight.reshape(*weight.shape[:2], -1)  # (filters, channels, window)
        self.columns, self.weights_of_column = len(weight), weight[0].size
        self.y = self._convolve(x, 0)
        if stage.bias is not None:
            self.y = self.y + np.repeat(stage.bias, self.windows.positions)

    def _convolve(self, units: FloatArray, first: int) -> FloatArray:
        """The images of the channels from `first` on through the filters, without the bias."""
        seen = patches(self.windows, units)  # (…, channels, down, across, window)
        channels = seen.shape[-4]
        filters = self.filters[:, first : first + channels].reshape(self.columns, -1)
        matrix = np.moveaxis(seen, -4, -2).reshape(*units.shape[:-1], self.windows.positions, -1)
        products: FloatArray = np.moveaxis(matrix @ filters.T, -1, -2)
        return products.reshape(*units.shape[:-1], -1)

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        w = self.windows
        maps = d.reshape(len(d), self.columns, w.out_height, w.out_width)
        dfilters = np.einsum("nfyx,ncyxk->fck", maps, patches(w, self.x), optimize=True)
        parts = np.einsum("nfyx,fck->ncyxk", maps, self.filters, optimize=True)
        weight = dfilters.reshape(self.parameters[0].shape)
        return add_patches(w, parts), [weight, maps.sum(axis=(0, 2, 3))][: len(self.parameters)]

    def own_moves(self, column: int, part: slice) -> tuple[FloatArray, int]:
        seen = patches(self.windows, self.x)
        of_weights = seen.transpose(1, 4, 0, 2, 3).reshape(self.weights_of_column, len(self.x), -1)
        of_bias = np.ones((1, *of_weights.shape[1:]), self.x.dtype)
        return np.concatenate([of_weights, of_bias])[part], column * self.windows.positions

    def differ(self, d: FloatArray, first: int) -> Moves:
        return self._convolve(*self._whole(d, first)), 0, False


class MaxPoolingStep(WindowStep):
    """The first of the largest elements wins, or the first NaN; the border never does."""

    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.seen = patches(self.windows, x, "edge")
        self.winners = self.seen.argmax(axis=-1)
        self.best = np.take_along_axis(self.seen, self.winners[..., np.newaxis], axis=-1)
        self.y = self.best.reshape(len(x), -1)

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        places = elements(self.windows, self.winners).reshape(len(d), self.windows.channels, -1)
        channels = np.arange(self.windows.channels)[:, np.newaxis] * self.image
        rows = np.arange(len(d))[:, np.newaxis, np.newaxis] * self.x.shape[1]
        sums = np.bincount((places + channels + rows).ravel(), d.ravel(), self.x.size)
        return sums.reshape(self.x.shape).astype(d.dtype), []

    def differ(self, d: FloatArray, first: int) -> Moves:
        d, channel = self._whole(d, first)
        moves = patches(self.windows, d, "edge")
        at = slice(channel, channel + moves.shape[2])
        winners = np.broadcast_to(self.winners[:, at, ..., np.newaxis], (*moves.shape[:-1], 1))
        of_winner = np.take_along_axis(moves, winners, axis=-1)[..., 0]
        best = ((self.seen[:, at] - self.best[:, at]) + moves).max(axis=-1)
        met = (best != of_winner).reshape(len(d), -1).any(axis=1)
        return best.reshape(*d.shape[:2], -1), channel * self.windows.positions, met


class AveragePoolingStep(WindowStep):
    """The border counts as zeros."""

    def __init__(self, stage: Stage, x: FloatArray, training: bool) -> None:
        super().__init__(stage, x, training)
        self.y = self._means(x)

    def _means(self, units: FloatArray) -> FloatArray:
        means: FloatArray = patches(self.windows, units).mean(axis=-1, dtype=np.float64).astype(units.dtype)
        return means.reshape(*units.shape[:-1], -1)

    def backward(self, d: FloatArray) -> tuple[FloatArray, list[FloatArray]]:
        w = self.windows
        shape, size = (len(d), w.channels, w.out_height, w.out_width, 1), w.window_height * w.window_width
        parts = np.broadcast_to(d.reshape(shape) / d.dtype.type(size), (*shape[:-1], size))
        return add_patches(w, parts), []

    def differ(self, d: FloatArray, first: int) -> Moves:
        d, channel = self._whole(d, first)
        return self._means(d), channel * self.windows.positions, False


KINDS: dict[StageKind, type[Step]] = {
    StageKind.AFFINE: AffineStep,
    StageKind.ACTIVATION: ActivationStep,
    StageKind.BATCH_NORM: BatchNormStep,
    StageKind.DROPOUT: DropoutStep,
    StageKind.CONVOLUTION: ConvolutionStep,
    StageKind.MAX_POOLING: MaxPoolingStep,
    StageKind.AVERAGE_POOLING: AveragePoolingStep,
}
