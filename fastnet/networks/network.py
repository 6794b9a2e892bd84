"""Networks of layers in a list: which lists will do, what their arrays are called, and how each is computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Activation, Loss, Output
from fastnet.layers import (
    Add,
    Affine,
    BatchNorm,
    Dropout,
    IdentityWithLoss,
    Layer,
    LeakyReLU,
    LossLayer,
    Mul,
    ReLU,
    Sigmoid,
    SoftmaxWithLoss,
    Step,
    Tanh,
)
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain, ChainLayer, as_parameters, chain_spec
from fastnet.networks.layerwise import LastPass, Layerwise, NamedLayer, State, named_layers

KINDS: dict[type[Layer], Activation] = {kind: kind.kind for kind in (Step, Sigmoid, Tanh, ReLU, LeakyReLU)}
LOSSES: dict[type[LossLayer], tuple[Output, Loss]] = {
    SoftmaxWithLoss: (Output.SOFTMAX, Loss.CROSS_ENTROPY),
    IdentityWithLoss: (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
}


class Network(BaseNetwork):
    """A network of layers in a list, with a loss at the end.

    A chain of affine layers, each with or without an activation after it, and with `SoftmaxWithLoss` or
    `IdentityWithLoss`, is computed as a whole by the backend, as `TwoLayerNet` is. Anything else runs layer by layer,
    and its numerical gradient is by the loop: two forward passes for each parameter.

    `predict`, `loss` and `accuracy` are inference. `training_loss`, `gradient` and `loss_and_gradient` are passes in
    training: Dropout draws new masks, BatchNorm takes the batch's statistics and mixes them into the running ones.
    `numerical_gradient` repeats the last of these passes, from the `state` that it started from and so with its masks
    (for a batch of another size, with as many rows of them), and changes no `state`. So it is the central difference
    of the same function as the `gradient` before it. If there was no pass yet, or `state` has other arrays since, it
    starts from the present one, as the next pass would. To train with it alone, call `training_loss` at each step.

    Parameters
    ----------
    layers : iterable of Layer
        In the order of `forward`: from `fastnet.layers`, or of your own, as `fastnet.layers.Layer` describes.
    loss : LossLayer
        What comes after them: ``SoftmaxWithLoss()``, ``IdentityWithLoss()``, or of your own.
    weight_decay_lambda : float, default 0
        λ of the penalty λ/2·ΣW² over the weights of all affine layers, which is part of the loss.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters, those of the layers to begin with: ``W1``, ``b1``, ``gamma1``, ``beta1``, ``W2``, … Update them
        in place or put new arrays of the same shapes: the layers are given them before each pass.
    state : dict of str to ndarray
        ``running_mean1``, ``running_var1``, … of BatchNorm, and ``masks1``, … of Dropout: which masks come next.
        Each pass in training puts new arrays here.
    last_layer : LossLayer

    Raises
    ------
    TypeError
        If `layers` holds anything but layers of one input that are no losses, `loss` is no loss, or parameters differ
        in dtype.
    ValueError
        If there are no layers, one of them comes twice, neighbours do not fit each other, two parameters share memory,
        or `weight_decay_lambda` is negative.

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
            raise ValueError(f"loss, {type(loss).__name__}, has params, but it is no part of what is trained")
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
                raise ValueError(f"{one} and {other} share memory: a step of one would be a step of both; pass a copy")
        self._chain = _as_chain(self._named) if type(loss) in LOSSES else None

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
        params = self._checked_params()
        if self._chain is not None:
            slopes = [named.layer.slope for named in self._named if isinstance(named.layer, LeakyReLU)]
            spec = chain_spec(
                params,
                self._chain,
                *LOSSES[type(self.last_layer)],
                weight_decay=self.weight_decay_lambda,
                leaky_slope=slopes[0] if slopes else 0.01,
            )
            return Chain(spec, self._chain)
        return Layerwise(
            self._named,
            self.last_layer,
            params,
            self._checked_state(),
            self._last_pass,
            inputs=self._inputs,
            classes=self._classes,
            weight_decay=self.weight_decay_lambda,
        )


def _as_layers(layers: object) -> list[Layer]:
    """`layers` as a list: each of them once, taking one input, and no loss."""
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
            raise TypeError(f"layers[{place}] is {name}, which has two inputs: in a list, each layer has one")
        first = next(at for at, other in enumerate(found) if other is layer)
        if first < place:
            raise ValueError(f"layers[{first}] and layers[{place}] are one object: each needs its own {name}")
    return found


def _widths(layers: Sequence[NamedLayer]) -> tuple[int | None, int | None]:
    """How many inputs and outputs these layers have, None where that is not known; raises if they do not fit."""
    inputs = outputs = None
    known = True  # what comes into the layer, from x on
    for named in layers:
        layer = named.layer
        if type(layer) in (*KINDS, Dropout):
            continue
        if type(layer) not in (Affine, BatchNorm):
            known, outputs = False, None
            continue
        shape = layer.W.shape if isinstance(layer, Affine) else 2 * layer.params["gamma"].shape
        if outputs is not None and outputs != shape[0]:
            raise ValueError(f"{named.label} takes {shape[0]} columns, but {outputs} come from the layers before it")
        if known and inputs is None:
            inputs = shape[0]
        outputs = shape[1]
    return inputs, outputs


def _as_chain(layers: Sequence[NamedLayer]) -> tuple[ChainLayer, ...] | None:
    """The layers as a chain of affine layers and activations; None if they are none, or have several leaky slopes."""
    chain: list[ChainLayer] = []
    before: Layer | None = None
    for named in layers:
        layer = named.layer
        if type(layer) is Affine:
            chain.append(ChainLayer(named.params["W"], named.params.get("b"), Activation.IDENTITY))
        elif type(layer) in KINDS and type(before) is Affine:
            chain[-1] = chain[-1]._replace(activation=KINDS[type(layer)])
        else:
            return None
        before = layer
    slopes = {named.layer.slope for named in layers if isinstance(named.layer, LeakyReLU)}
    return tuple(chain) if len(slopes) <= 1 else None
