"""Chains of affine layers and activations: networks that the backends compute as a whole."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import SecondOrderBackend, TrainingBackend, active
from fastnet.backends._numpy import penalty, second_order, target_rows
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output
from fastnet.backends.training import Batches, GradientKind, Update
from fastnet.layers.activations import branch_of
from fastnet.networks import numerical
from fastnet.networks.base import BaseNetwork
from fastnet.networks.computation import Computation, Float64Loss, HessianDiagonal, NumericalGradient
from fastnet.networks.overriding import COMPUTES, FUNCTION, check_probabilities, overridden

KeptArray: TypeAlias = tuple[str, FloatArray, tuple[int, ...], np.dtype[Any]]  # its name, and how it was


class ChainLayer(NamedTuple):
    """An affine layer and the activation after it: the names of its arrays in `params`, and which activation."""

    weight: str
    bias: str | None
    activation: Activation
    constant: float = 0.0  # the activation's, as `Stage.constant`


class ChainSettings(NamedTuple):
    """What a chain is besides its parameters; `output` and the following are as `NetworkSpec` has them."""

    layers: tuple[ChainLayer, ...]
    output: Output
    loss: Loss
    weight_decay: float = 0.0
    loss_constant: float = 0.0


def as_parameters(params: Mapping[str, Any], dimensions: Mapping[str, int]) -> dict[str, FloatArray]:
    """Return the arrays of `params` with these names and numbers of dimensions: all float32 or all float64."""
    found: dict[str, FloatArray] = {}
    dtype: np.dtype[Any] | None = None  # that of the first array
    for name, ndim in dimensions.items():
        if name not in params:
            raise KeyError(f"params has no {name!r}")
        value = params[name]
        if type(value) is not np.ndarray or value.dtype is not dtype or value.ndim != ndim or value.size == 0:
            checks.as_parameter(value, f"params[{name!r}]", ndim)
            if dtype is None:
                dtype = value.dtype
            if value.dtype != dtype:
                raise TypeError(f"params[{name!r}] is {value.dtype}, but params[{next(iter(found))!r}] is {dtype}")
        found[name] = value
    return found


def chain_spec(params: Mapping[str, Any], settings: ChainSettings) -> NetworkSpec:
    """Return the chain as the backends take it; raise if parameters are missing or do not fit."""
    layers = settings.layers
    dimensions = {}
    for layer in layers:
        dimensions[layer.weight] = 2
        if layer.bias is not None:
            dimensions[layer.bias] = 1
    found = as_parameters(params, dimensions)
    units = None
    for layer in layers:
        weight = found[layer.weight]
        if units is not None and weight.shape[0] != units:
            raise ValueError(
                f"params[{layer.weight!r}] of shape {weight.shape} does not fit the {units} units of the "
                f"layer before it"
            )
        units = weight.shape[1]
        if layer.bias is not None and found[layer.bias].shape != (units,):
            raise ValueError(
                f"params[{layer.bias!r}] of shape {found[layer.bias].shape} does not fit params[{layer.weight!r}] of "
                f"shape {weight.shape}"
            )
    return NetworkSpec.chain(
        [_native(found[layer.weight]) for layer in layers],
        [None if layer.bias is None else _native(found[layer.bias]) for layer in layers],
        [layer.activation for layer in layers],
        settings.output,
        settings.loss,
        settings.weight_decay,
        [layer.constant for layer in layers],
        settings.loss_constant,
    )


def _native(parameter: FloatArray) -> FloatArray:
    """A checked parameter as the backends take it: C-contiguous, in this machine's byte order."""
    return checks.as_floating(parameter, "a parameter")


class Chain(Computation):
    """A chain of affine layers and activations, which the backend in use computes as a whole.

    Attributes
    ----------
    spec : NetworkSpec
        The chain as the backends take it.
    names : list of str
        The names of ``spec.parameters`` in `params`.
    """

    def __init__(self, spec: NetworkSpec, names: list[str]) -> None:
        self.spec, self.names = spec, names

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return self.spec.dtype

    @property
    def is_regression(self) -> bool:
        return self.spec.output == Output.IDENTITY and self.spec.loss != Loss.CROSS_ENTROPY

    def named(self, arrays: Sequence[FloatArray]) -> dict[str, FloatArray]:
        """Arrays in the order of ``spec.parameters``, such as a gradient, by the names of the parameters."""
        return dict(zip(self.names, arrays, strict=True))

    def rows(self, x: npt.ArrayLike) -> FloatArray:
        return checks.as_batch(x, self.spec.inputs, self.spec.dtype)

    def classes(self, rows: FloatArray) -> int:
        return self.spec.classes

    @property
    def takes_fractions(self) -> bool:
        return self.spec.loss == Loss.BINARY_CROSS_ENTROPY

    def forward(self, rows: FloatArray) -> FloatArray:
        return active().forward(self.spec, rows)

    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        return active().loss(self.spec, rows, t)

    def loss_of_answers(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        spec = self.spec
        if spec.loss == Loss.CROSS_ENTROPY:
            check_probabilities(y)
        return active().mean_loss(spec.loss, y, t, spec.loss_constant) + penalty(spec)

    training_loss = loss  # a chain computes the same in training and in inference

    def loss_and_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]:
        loss, gradients, _ = active().loss_and_gradient(self.spec, rows, t)
        return loss, self.named(gradients)

    def spec_of(self, rows: FloatArray) -> NetworkSpec | None:
        return self.spec

    repeated = spec_of  # a chain has no state, and one pass is as another

    def train(
        self,
        backend: TrainingBackend,
        rows: FloatArray,
        batches: Batches,
        gradient: GradientKind,
        h: float,
        update: Update,
        losses: FloatArray,
        done: IntArray,
    ) -> None:
        """Train with minibatches of `rows` inside the backend, as `TrainingBackend.train` describes it."""
        backend.train(self.spec, batches, gradient, h, update, losses, done)

    def default_step(self, algorithm: str) -> float:
        return super().default_step(algorithm) if numerical.as_algorithm(algorithm, self.spec) == "loop" else 1e-4

    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str] | None = None
    ) -> NumericalGradient:
        wanted = self.names if names is None else names
        return numerical.numerical_gradient(self.spec, self.names, rows, t, h, algorithm, wanted)

    def hessian_diagonal(self, rows: FloatArray, t: FloatArray | IntArray, h: float) -> HessianDiagonal:
        spec, backend = self.spec, active()
        if not spec.has_exact_difference:
            raise ValueError("the cross entropy of an answer without softmax has no exact second difference")
        compute = (backend if isinstance(backend, SecondOrderBackend) else second_order).hessian_diagonal
        diagonal, diagnostics = compute(spec, rows, t, h)
        return HessianDiagonal(self.named(diagonal), diagnostics)

    def hessian_vector_product(
        self, rows: FloatArray, t: FloatArray | IntArray, v: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        along = [v[name] for name in self.names]
        return self.named(second_order.hessian_vector_product(self.spec, rows, t, along))

    def input_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> FloatArray:
        _, _, d = active().loss_and_gradient(self.spec, rows, t, inputs=True)
        assert d is not None
        return d

    def numerical_input_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> FloatArray:
        return numerical.numerical_input_gradient(self.spec, rows, t, h, algorithm)

    def in_float64(self, rows: FloatArray, t: FloatArray | IntArray) -> Float64Loss:
        spec = self.in_float64_spec()
        wide = rows.astype(np.float64)
        targets = t if t.ndim == 1 else t.astype(np.float64)
        return Float64Loss(self.named(spec.parameters), wide, lambda: active().loss(spec, wide, targets))

    def on_branch(self, rows: FloatArray, t: FloatArray | IntArray) -> Float64Loss:
        """As `in_float64`, but each unit stays on the side of its kink on which the network's own numbers have it.

        So do the answers of an absolute error, which has a kink at the target.
        """
        spec, wide = self.spec, self.in_float64_spec()
        sides, y = [], rows
        for weight, bias, kind, constant in spec.layers:
            units = y @ weight if bias is None else y @ weight + bias
            sides.append(units > 0)
            y = active().activation(kind, units, constant)
        above = (active().softmax(y) if spec.output == Output.SOFTMAX else y) > target_rows(t, y)
        wide_rows, wide_chain = rows.astype(np.float64), Chain(wide, self.names)
        targets = t if t.ndim == 1 else t.astype(np.float64)

        def value() -> float:
            y: FloatArray = wide_rows
            for (weight, bias, kind, constant), right in zip(wide.layers, sides, strict=True):
                units = y @ weight if bias is None else y @ weight + bias
                y = branch_of(kind, right, constant)(units)
            answers = active().softmax(y) if wide.output == Output.SOFTMAX else y
            if wide.loss == Loss.ABSOLUTE_ERROR:
                errors = answers - target_rows(targets, answers)
                return float(np.where(above, errors, -errors).sum(axis=1).mean()) + penalty(wide)
            return wide_chain.loss_of_answers(answers, targets)

        return Float64Loss(self.named(wide.parameters), wide_rows, value)

    def in_float64_spec(self) -> NetworkSpec:
        """The same chain with copies of its parameters in float64."""
        return self.spec.with_parameters(p.astype(np.float64) for p in self.spec.parameters)


class KeptChain:
    """The chain of a network, which is made anew only where its parameters are other arrays or its settings change."""

    def __init__(self) -> None:
        self._made: tuple[ChainSettings, list[KeptArray], Chain] | None = None

    def find(self, params: Mapping[str, Any], settings: ChainSettings) -> Chain | None:
        """Return the chain that was made of such settings and the very arrays of `params`; None if there is none."""
        if self._made is None or self._made[0] != settings:
            return None
        _, arrays, chain = self._made
        for name, array, shape, dtype in arrays:
            # The same array can have been given another shape or dtype.
            if params.get(name) is not array or array.shape != shape or array.dtype is not dtype:
                return None
        return chain

    def make(self, params: Mapping[str, Any], settings: ChainSettings) -> Chain:
        """Return the chain; raise if parameters are missing or do not fit."""
        self._made = None
        spec = chain_spec(params, settings)
        names = [name for layer in settings.layers for name in (layer.weight, layer.bias) if name is not None]
        chain = Chain(spec, names)
        if all(params[name] is p for name, p in zip(names, spec.parameters, strict=True)):  # Copies do not follow.
            arrays = [(name, p, p.shape, p.dtype) for name, p in zip(names, spec.parameters, strict=True)]
            self._made = settings, arrays, chain
        return chain


class AffineChain(BaseNetwork):
    """The base of networks that are chains of affine layers and activations; a subclass sets the parameters.

    Examples
    --------
    >>> import fastnet
    >>> isinstance(fastnet.TwoLayerNet(4, 3, 2, seed=0), fastnet.networks.AffineChain)
    True
    """

    _layers: tuple[ChainLayer, ...]  # of the class, or of the instance where each has its own
    _output = Output.SOFTMAX
    _loss = Loss.CROSS_ENTROPY

    @functools.cached_property
    def _kept(self) -> KeptChain:
        return KeptChain()

    def _computation(self) -> Chain:
        settings = ChainSettings(self._layers, self._output, self._loss)
        return self._kept.find(self.params, settings) or self._kept.make(self.params, settings)


def chain_of(net: object) -> Chain | None:
    """Return `net` as the chain that the backends compute as a whole; None if it is not one, or computes by itself."""
    if not isinstance(net, BaseNetwork) or overridden(net, *FUNCTION, "numerical_gradient"):
        return None
    computation = net._computation()
    return computation if isinstance(computation, Chain) else None


def as_chain(net: object) -> Chain:
    """Return `net` as the chain that the backends compute as a whole; raise TypeError if it is not one."""
    if not isinstance(net, BaseNetwork):
        raise TypeError(f"net must be a network of fastnet, as TwoLayerNet is, not {checks.type_name(net)}")
    own = overridden(net, *FUNCTION, *COMPUTES)
    if own:
        raise TypeError(
            f"net, {type(net).__name__}, has its own {' and '.join(own)}, and the methods that are compared here would "
            f"compute another network: use check_gradient"
        )
    chain = chain_of(net)
    if chain is None:
        raise TypeError(
            f"the {active().name!r} backend does not compute net as a whole, as it has layers or a loss that this "
            f"backend does not know, and the methods that are compared here are its own: check_gradient checks every "
            f"network"
        )
    return chain
