"""Networks of layers in a list: which lists are valid, and whether a list is computed as a chain or layer by layer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Activation, Output
from fastnet.layers import (
    Add,
    Affine,
    BinaryCrossEntropyWithLogits,
    HuberLoss,
    IdentityWithLoss,
    L1Loss,
    Layer,
    LossLayer,
    Mul,
    SoftmaxWithLoss,
)
from fastnet.layers.activations import KINDS, ActivationLayer
from fastnet.layers.base import Widths
from fastnet.layers.losses import MeanLoss
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain, ChainLayer, ChainSettings, KeptChain, as_parameters
from fastnet.networks.layer_stages import is_stage
from fastnet.networks.layerwise import LastPass, Layerwise, NamedLayer, State, named_layers
from fastnet.networks.mixed import Mixed
from fastnet.networks.overriding import overridden
from fastnet.networks.staged import Staged

LOSSES: dict[type[LossLayer], Output] = {
    SoftmaxWithLoss: Output.SOFTMAX,
    IdentityWithLoss: Output.IDENTITY,
    BinaryCrossEntropyWithLogits: Output.IDENTITY,
    HuberLoss: Output.IDENTITY,
    L1Loss: Output.IDENTITY,
}


class Network(BaseNetwork):
    """A network of layers in a list, with a loss at the end.

    A network of the library's layers and losses is computed as a whole by the backend, as `TwoLayerNet` is. Layers of
    your own run by their own methods, and the library's between them by the backend. The parameters behind the last
    layer of your own then keep their exact differences. For the others, and for all with a loss of your own, a
    numerical gradient takes two passes for each, which start at the layer that has the parameter.

    `predict`, `loss` and `accuracy` are inference. `training_loss`, `gradient` and `loss_and_gradient` are training
    passes: Dropout draws new masks, and BatchNorm uses the statistics of the batch and updates the running ones.
    `numerical_gradient` repeats the last training pass from the `state` that the pass started from, and so with the
    same masks; it does not change `state`. So it is the central difference of the function that the `gradient` before
    it differentiated. If there was no training pass yet, or `state` was given other arrays since, it starts from the
    present `state`, as the next pass would. To train with it alone, call `training_loss` at each step.

    Parameters
    ----------
    layers : iterable of Layer
        In the order of `forward`: layers of `fastnet.layers`, or your own, as `fastnet.layers.Layer` describes.
    loss : LossLayer
        What follows them: ``SoftmaxWithLoss()``, ``IdentityWithLoss()``, another loss of `fastnet.layers`, or your own.
    weight_decay_lambda : float, default 0
        λ of the penalty λ/2·ΣW² over the weights of all affine layers, which is part of the loss.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters: at first those of the layers, as ``W1``, ``b1``, ``gamma1``, ``beta1``, ``W2``, … Update them in
        place or put new arrays of the same shapes: the layers get them before each pass.
    state : dict of str to ndarray
        ``running_mean1``, ``running_var1``, … of BatchNorm, and ``masks1``, … of Dropout, which say what masks come
        next. Each training pass puts new arrays here.
    last_layer : LossLayer

    Raises
    ------
    TypeError
        If `layers` holds anything other than layers of one input, or a loss, if `loss` is not a loss, or if parameters
        differ in dtype.
    ValueError
        If there are no layers, a layer occurs twice, neighbours do not fit each other, two parameters share memory, or
        `weight_decay_lambda` is negative.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> from fastnet.layers import Affine, BatchNorm, ReLU, SoftmaxWithLoss
    >>> normal = np.random.default_rng(0).standard_normal
    >>> first, last = Affine(normal((784, 20)) / 28, np.zeros(20)), Affine(normal((20, 10)) / 4.5, np.zeros(10))
    >>> net = fastnet.Network([first, BatchNorm(np.ones(20), np.zeros(20)), ReLU(), last], SoftmaxWithLoss())
    >>> x, t = fastnet.datasets.make_digits(100, seed=0)
    >>> for _ in range(20):
    ...     for name, gradient in net.gradient(x, t).items():
    ...         net.params[name] -= 0.5 * gradient
    >>> net.accuracy(x, t) > 0.9
    True
    """

    def __init__(self, layers: Iterable[Layer], loss: LossLayer, weight_decay_lambda: float = 0.0) -> None:
        checked = _as_layers(layers)
        if not isinstance(loss, LossLayer):
            raise TypeError(f"loss must be a loss, such as SoftmaxWithLoss(), not {checks.type_name(loss)}")
        if loss.params:
            raise ValueError(f"loss, {type(loss).__name__}, has params, but a loss is not trained")
        self.weight_decay_lambda = checks.as_not_negative(weight_decay_lambda, "weight_decay_lambda")
        self.last_layer = loss
        self._named = named_layers(checked)
        self._inputs, self._classes = _widths(self._named)
        self._last_pass = LastPass()
        self.params: dict[str, FloatArray] = {}
        self.state: State = {}
        for named in self._named:
            self.params |= {name: named.layer.params[own] for own, name in named.params.items()}
            self.state |= {name: np.asarray(named.layer.state[own]) for own, name in named.state.items()}
        self._shapes = {name: np.shape(p) for name, p in self.params.items()}
        self._state_shapes = {name: array.shape for name, array in self.state.items()}
        for (one, p), (other, q) in itertools.combinations(self._checked_params().items(), 2):
            if np.shares_memory(p, q):
                raise ValueError(f"{one} and {other} share memory: an update of one would change both; pass a copy")
        known = type(loss) in LOSSES and not overridden(loss, "forward", "backward", "answer", "error")
        self._chain = _as_chain(self._named) if known else None
        self._kept = KeptChain()
        stages = [is_stage(named) for named in self._named]
        self._staged = known and all(stages)
        self._mixed = any(stages) and not self._staged
        self._knows_loss = known

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, with the present `params` and `state`."""
        for named in self._named:
            named.bind(self.params, self.state)
        return tuple(named.layer for named in self._named)

    def _checked_params(self) -> dict[str, FloatArray]:
        found = as_parameters(self.params, {name: len(shape) for name, shape in self._shapes.items()})
        for name, shape in self._shapes.items():
            if found[name].shape != shape:
                raise ValueError(f"params[{name!r}] must have shape {shape}, not {found[name].shape}")
        return found

    def _checked_state(self) -> State:
        for name, shape in self._state_shapes.items():
            if name not in self.state:
                raise KeyError(f"state has no {name!r}")
            if np.shape(self.state[name]) != shape:
                raise ValueError(f"state[{name!r}] must have shape {shape}, not {np.shape(self.state[name])}")
        return self.state

    def _computation(self) -> Chain | Layerwise:
        loss = self.last_layer
        output = LOSSES[type(loss)] if self._knows_loss and isinstance(loss, MeanLoss) else None
        if self._chain is not None and isinstance(loss, MeanLoss) and output is not None:
            settings = ChainSettings(self._chain, output, loss.kind, self.weight_decay_lambda, loss.constant)
            return self._kept.find(self.params, settings) or self._kept.make(self._checked_params(), settings)
        arguments = (self._named, loss, self._checked_params(), self._checked_state(), self._last_pass)
        named: dict[str, Any] = {
            "inputs": self._inputs,
            "classes": self._classes,
            "weight_decay": self.weight_decay_lambda,
        }
        if self._staged and output is not None:
            return Staged(*arguments, output=output, **named)
        if self._mixed:
            return Mixed(*arguments, output=output, **named)
        return Layerwise(*arguments, **named)


def _as_layers(layers: object) -> list[Layer]:
    """`layers` as a list, in which each layer occurs once, has one input, and is not a loss."""
    if isinstance(layers, (Layer, str)) or not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a list of layers, not {checks.type_name(layers)}")
    found = list(layers)
    if not found:
        raise ValueError("layers is empty")
    for place, layer in enumerate(found):
        if isinstance(layer, type):
            raise TypeError(f"layers[{place}] is the class {layer.__name__}: pass a layer, {layer.__name__}(…)")
        if not isinstance(layer, Layer):
            raise TypeError(f"layers[{place}] must be a Layer, not {checks.type_name(layer)}")
        name = type(layer).__name__
        if isinstance(layer, LossLayer):
            raise TypeError(f"layers[{place}] is a loss, {name}: pass it as Network(layers, loss)")
        if isinstance(layer, (Add, Mul)):
            raise TypeError(f"layers[{place}] is {name}, which has two inputs: in a list, a layer has one")
        first = next(at for at, other in enumerate(found) if other is layer)
        if first < place:
            raise ValueError(f"layers[{first}] and layers[{place}] are the same object: each needs its own {name}")
    return found


def _widths(layers: Sequence[NamedLayer]) -> tuple[int | None, int | None]:
    """How many inputs and outputs these layers have, None where that is unknown; raise if neighbours do not fit."""
    inputs = outputs = None
    known = True  # whether the width of what reaches the layer follows from x
    for named in layers:
        widths = _widths_of(named.layer)
        if widths == "same":
            continue
        if widths is None:
            known, outputs = False, None
            continue
        if outputs is not None and outputs != widths[0]:
            raise ValueError(f"{named.label} takes {widths[0]} columns, but {outputs} come from the layers before it")
        if known and inputs is None:
            inputs = widths[0]
        outputs = widths[1]
    return inputs, outputs


def _widths_of(layer: Layer) -> Widths:
    """The widths of a layer; None if a subclass has its own `forward` but not its own `widths`."""
    forward, widths = (
        next(kind for kind in type(layer).__mro__ if name in vars(kind)) for name in ("forward", "widths")
    )
    return layer.widths() if issubclass(widths, forward) else None


def _as_chain(layers: Sequence[NamedLayer]) -> tuple[ChainLayer, ...] | None:
    """The layers as a chain of affine layers and activations; None if they are not one."""
    chain: list[ChainLayer] = []
    before: Layer | None = None
    for named in layers:
        layer = named.layer
        if overridden(layer, "forward", "backward"):
            return None
        if type(layer) is Affine:
            chain.append(ChainLayer(named.params["W"], named.params.get("b"), Activation.IDENTITY))
        elif isinstance(layer, ActivationLayer) and type(layer) in KINDS and type(before) is Affine:
            chain[-1] = chain[-1]._replace(activation=layer.kind, constant=layer.constant)
        else:
            return None
        before = layer
    return tuple(chain)
