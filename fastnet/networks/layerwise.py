"""Networks of any layers: forward and backward layer by layer, and the numerical gradient by the loop."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics
from fastnet.differentiation import numerical_gradient
from fastnet.layers import Layer, LossLayer, SoftmaxWithLoss
from fastnet.layers.base import Branch, quietly
from fastnet.networks.computation import Computation, Float64Loss, NumericalGradient
from fastnet.networks.overriding import check_probabilities, overridden

State: TypeAlias = dict[str, npt.NDArray[Any]]


class Part(Protocol):
    """Neighbouring layers of a network, which compute with the arrays that they are bound to."""

    def forward(self, x: FloatArray, training: bool) -> FloatArray: ...
    def backward(self, d: Any, inputs: bool) -> Any:
        """Store the gradients in the layers' `grads`; return the derivative with respect to x if `inputs`."""


class NamedLayer(NamedTuple):
    """A layer of a network."""

    layer: Layer
    params: dict[str, str]  # from the layer's own name of each array to the network's name
    state: dict[str, str]
    label: str  # in messages, such as "layers[2], Dropout,"
    takes_train_flg: bool

    def bind(self, params: Mapping[str, FloatArray], state: State) -> None:
        """Let the layer compute with these arrays."""
        self.layer.params = {own: params[name] for own, name in self.params.items()}
        self.layer.state = {own: state[name] for own, name in self.state.items()}

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        y = self.layer.forward(x, train_flg=training) if self.takes_train_flg else self.layer.forward(x)
        answer = checks.as_floating(y, f"what {self.label} gave", x.dtype)
        if answer.ndim == 0 or len(answer) != len(x):
            raise ValueError(f"{self.label} gave shape {answer.shape} for a batch of {len(x)} row(s)")
        return answer

    def backward(self, d: Any, inputs: bool) -> Any:
        self.layer.grads = {}
        return self.layer.backward(d)

    @quietly
    def gradients(self, params: Mapping[str, FloatArray], weight_decay: float) -> dict[str, FloatArray]:
        """The gradients of its last backward, with the gradient λW of the penalty, by the network's names."""
        found = {}
        for own, name in self.params.items():
            if own not in self.layer.grads:
                raise ValueError(f"{self.label} has no {own!r} in its grads after backward")
            parameter, dtype = params[name], checks.native(params[name])
            gradient = checks.as_floating(self.layer.grads[own], f"the gradient with respect to {name}", dtype)
            if gradient.shape != parameter.shape:
                raise ValueError(
                    f"{self.label} gave a gradient of shape {gradient.shape} for params[{name!r}] of shape "
                    f"{parameter.shape}"
                )
            if weight_decay and own in self.layer.decayed:
                gradient = gradient + dtype.type(weight_decay) * parameter
            found[name] = gradient
        return found


def named_layers(layers: Sequence[Layer]) -> list[NamedLayer]:
    """Name the arrays of `layers` W1, b1, gamma1, beta1, W2, …: the layer's own name and a number.

    A layer's number is one more than the largest number that any of its names has had before.
    """
    used: dict[str, int] = {}
    named = []
    for place, layer in enumerate(layers):
        label = f"layers[{place}], {type(layer).__name__},"
        own = [*layer.params, *layer.state]
        for name in own:
            if not isinstance(name, str) or not name.isidentifier() or name[-1].isdigit():
                raise ValueError(
                    f"{label} has an array named {name!r}: it must be an identifier that does not end in a digit"
                )
        if len(set(own)) < len(own):
            raise ValueError(f"{label} has one name in both params and state: {', '.join(map(repr, own))}")
        number = 1 + max((used.get(name, 0) for name in own), default=0)
        used |= dict.fromkeys(own, number)
        signature = inspect.signature(layer.forward)
        named.append(
            NamedLayer(
                layer,
                {name: f"{name}{number}" for name in layer.params},
                {name: f"{name}{number}" for name in layer.state},
                label,
                "train_flg" in signature.parameters,
            )
        )
    return named


class LastPass:
    """The state before and after the last training pass, which a numerical gradient repeats."""

    before: State | None = None
    after: State

    def start(self, state: State) -> State:
        """The state to repeat that pass from; the present `state` if there was no pass, or it has changed since."""
        if self.before is None or any(state.get(name) is not array for name, array in self.after.items()):
            return state
        return self.before


class Layerwise(Computation):
    """A network of any layers, computed layer by layer."""

    def __init__(
        self,
        layers: Sequence[NamedLayer],
        last: LossLayer,
        params: dict[str, FloatArray],
        state: State,
        last_pass: LastPass,
        *,
        inputs: int | None,
        classes: int | None,
        weight_decay: float,
    ) -> None:
        self.layers, self.last = layers, last
        self.params, self.state, self.last_pass = params, state, last_pass
        self.inputs, self.known_classes = inputs, classes
        self.weight_decay = weight_decay

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return checks.native(next(iter(self.params.values()))) if self.params else np.dtype(np.float64)

    @property
    def is_regression(self) -> bool:
        return self.last.regression

    def parts(self, first: int = 0, last: int | None = None) -> Sequence[Part]:
        """The layers from `first` on and before `last`, as they are computed."""
        return self.layers[first:last]

    def rows(self, x: npt.ArrayLike) -> FloatArray:
        if self.inputs is not None and np.ndim(x) != 4:  # Images are checked by the layers.
            return checks.as_batch(x, self.inputs, self.dtype)
        array = checks.as_floating(x, "x", self.dtype)
        if array.ndim == 1:
            array = array[np.newaxis]
        if array.size == 0 or array.ndim == 0:
            raise ValueError(f"x must have shape (batch, …), no dimension 0, not {np.shape(x)}")
        return array

    def classes(self, rows: FloatArray) -> int:
        return self.forward(rows).shape[1] if self.known_classes is None else self.known_classes

    def forward(self, rows: FloatArray) -> FloatArray:
        with self._bound(self.params, self.state):
            return self.last.answer(self._answers(self.parts(), rows, training=False))

    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        with self._bound(self.params, self.state):
            return self._loss(rows, t, training=False)

    def loss_of_answers(self, y: FloatArray, t: FloatArray | IntArray) -> float:
        if isinstance(self.last, SoftmaxWithLoss):
            check_probabilities(y)
        with self._bound(self.params, self.state):
            return self._penalised(self.last.error(y, t))

    def training_loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        with self._bound(self.params, self.state):
            loss = self._loss(rows, t, training=True)
            self._keep_state()
        return loss

    def loss_and_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]:
        loss, gradients, _ = self._pass(rows, t, inputs=False)
        return loss, gradients

    def input_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> FloatArray:
        _, _, d = self._pass(rows, t, inputs=True)
        answer = checks.as_floating(d, "what backward of the first layer gave", rows.dtype)
        if answer.shape != rows.shape:
            raise ValueError(f"{self.layers[0].label} gave a derivative of shape {answer.shape} for x of {rows.shape}")
        return answer

    def _pass(
        self, rows: FloatArray, t: FloatArray | IntArray, *, inputs: bool
    ) -> tuple[float, dict[str, FloatArray], Any]:
        """A training pass and its way back: the loss, the gradients, and the derivative with respect to `rows`.

        The last is unknown unless `inputs`.
        """
        gradients: dict[str, FloatArray] = {}
        parts = self.parts()
        with self._bound(self.params, self.state):
            loss = self._penalised(self.last.forward(self._answers(parts, rows, training=True), t))
            d = self.last.backward(1.0)
            for place in reversed(range(len(parts))):
                d = parts[place].backward(d, inputs or place > 0)
            for named in self.layers:
                gradients |= named.gradients(self.params, self.weight_decay)
            self._keep_state()
        return loss, {name: gradients[name] for name in self.params}, d

    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str]
    ) -> NumericalGradient:
        _check_loop(algorithm)
        sizes = {name: self.params[name].size for name in names}
        found, base = self.loop(rows, t, h, {name: np.arange(size) for name, size in sizes.items()})
        gradients = {name: values.reshape(self.params[name].shape) for name, values in found.items()}
        diagnostics = Diagnostics(base, 2 * sum(sizes.values()) * len(rows))
        return NumericalGradient(gradients, diagnostics, dict.fromkeys(names, "loop"))

    def loop(
        self,
        rows: FloatArray,
        t: FloatArray | IntArray,
        h: float,
        entries: Mapping[str, IntArray],
    ) -> tuple[dict[str, FloatArray], float]:
        """Return central differences with respect to some entries of each array, by flat number, and the loss.

        An evaluation starts at the layer that owns the parameter, since the layers before it give the same as ever.
        """
        # Copies are perturbed: however the loop ends, the parameters are unchanged.
        params = {name: np.array(p, self.dtype, order="C") for name, p in self.params.items()}
        start = self.last_pass.start(self.state)

        inputs = self._inputs_of_layers(rows, params, start)
        owners = {name: place for place, named in enumerate(self.layers) for name in named.params.values()}

        def loss(first: int, parts: Sequence[Part]) -> float:
            with self._bound(params, start):
                y = inputs[first].copy()  # in case the layer changes it
                return self._penalised(self.last.forward(self._answers(parts, y, training=True), t))

        found = {}
        base = loss(0, self.parts())
        for name, wanted in entries.items():
            first = owners[name]
            parts = self.parts(first)
            flat = params[name].reshape(-1)  # a view
            above, below = _moved(flat, h)
            changes = []
            for at in wanted:
                value = flat[at]
                flat[at] = above[at]
                change = loss(first, parts)
                flat[at] = below[at]
                changes.append((change - loss(first, parts)) / (2 * h))
                flat[at] = value
            found[name] = _as_dtype(changes, self.dtype)
        return found, base

    def numerical_input_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> FloatArray:
        _check_loop(algorithm)
        moving = rows.copy()
        start = self.last_pass.start(self.state)

        def loss(_: object) -> float:
            with self._bound(self.params, start):
                return self._loss(moving, t, training=True)

        return numerical_gradient(loss, moving, h)

    def in_float64(self, rows: FloatArray, t: FloatArray | IntArray) -> Float64Loss:
        start = self.last_pass.start(self.state)
        branches = self._branches(rows, start)
        params: dict[str, FloatArray] = {name: p.astype(np.float64) for name, p in self.params.items()}
        wide: FloatArray = rows.astype(np.float64)
        targets = t if t.ndim == 1 else t.astype(np.float64)

        def value() -> float:
            with self._bound(params, start):
                y: FloatArray = wide
                for named, branch in zip(self.layers, branches, strict=True):
                    y = named.forward(y, training=True) if branch is None else branch(y)
                return self._penalised(self.last.forward(_as_answers(y, self.layers[-1]), targets))

        return Float64Loss(params, wide, value)

    def _branches(self, rows: FloatArray, state: State) -> list[Branch | None]:
        """The smooth branch of each layer that says which one it is on, in the pass of these rows; None for others."""
        found: list[Branch | None] = []
        with self._bound(self.params, state):
            for named in self.layers:
                found.append(named.layer.branch(rows) if not overridden(named.layer, "forward") else None)
                rows = named.forward(rows, training=True)
        return found

    @contextlib.contextmanager
    def _bound(self, params: Mapping[str, FloatArray], state: State) -> Iterator[None]:
        """Bind the layers to `params` and a copy of `state`, and afterwards to the network's own arrays again."""
        copy = {name: array.copy() for name, array in state.items()}
        try:
            for named in self.layers:
                named.bind(params, copy)
            yield
        finally:
            for named in self.layers:
                named.bind(self.params, self.state)

    def _keep_state(self) -> None:
        """Keep the state that the layers have now."""
        after = {name: named.layer.state[own] for named in self.layers for own, name in named.state.items()}
        self.last_pass.before, self.last_pass.after = dict(self.state), after
        self.state.update(after)

    def _inputs_of_layers(self, rows: FloatArray, params: Mapping[str, FloatArray], state: State) -> list[FloatArray]:
        """What each layer takes in the training pass of these rows from `state`; `rows` for the first."""
        found = [rows]
        with self._bound(params, state):
            for named in self.layers[:-1]:
                found.append(named.forward(found[-1].copy(), training=True))
        return found

    def _answers(self, parts: Sequence[Part], rows: FloatArray, training: bool) -> FloatArray:
        """What the last layer gives, shape (batch, classes), where the first of the last `parts` takes `rows`."""
        for part in parts:
            rows = part.forward(rows, training)
        return _as_answers(rows, self.layers[-1])

    def _loss(self, rows: FloatArray, t: FloatArray | IntArray, training: bool) -> float:
        return self._penalised(self.last.forward(self._answers(self.parts(), rows, training), t))

    def _penalised(self, value: Any) -> float:
        """What the loss layer gave, checked, with the penalty on the weights."""
        if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "fiu":
            raise TypeError(f"loss, {type(self.last).__name__}, must give one number, not {checks.type_name(value)}")
        if not self.weight_decay:
            return float(value)
        return float(value) + 0.5 * self.weight_decay * self._squares()

    @quietly
    def _squares(self) -> float:
        """The sum of the squares of all decayed weights."""
        decayed = [
            named.layer.params[own] for named in self.layers for own in named.params if own in named.layer.decayed
        ]
        return sum(float(np.sum(np.square(w, dtype=np.float64))) for w in decayed)


def _as_answers(y: FloatArray, last: NamedLayer) -> FloatArray:
    """What the last layer gave, which must have shape (batch, classes)."""
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"{last.label} gave shape {y.shape}, where (batch, classes) is needed")
    return y


def _check_loop(algorithm: str) -> None:
    if algorithm not in ("auto", "loop"):
        raise ValueError(
            f"algorithm {algorithm!r} is for layers and losses that the backend knows: this network is computed layer "
            f"by layer, and its numerical gradient by 'loop'"
        )


@quietly
def _moved(values: FloatArray, h: float) -> tuple[FloatArray, FloatArray]:
    step = values.dtype.type(h)
    return values + step, values - step


@quietly
def _as_dtype(values: Sequence[float], dtype: np.dtype[np.floating[Any]]) -> FloatArray:
    return np.array(values).astype(dtype)
