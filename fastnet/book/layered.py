"""The networks of chapters 5 to 8: named layers that share their arrays with `params`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import layers as plain
from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.book import pickle
from fastnet.book.common.functions import as_targets
from fastnet.book.common.layers import BatchNormalization, Dropout, as_rows
from fastnet.checking.randomness import GlobalRandom
from fastnet.differentiation import numerical_gradient
from fastnet.layers.dropout import GivenMask
from fastnet.networks import Network
from fastnet.networks.overriding import overridden
from fastnet.saving import check_fits

Key = str | int  # of a layer: its name, or its place in a list


class LayeredNet:
    """A network whose `layers` can be looked at, replaced and called one by one, as the book's can.

    As long as the layers are those that it was made with, it computes as a whole, as a `fastnet.Network` of the same
    layers, with the same `params`. Its layers are not called then, and keep nothing of the pass but the gradients.
    Otherwise, and in a subclass with its own `predict` or `loss`, it runs layer by layer. Then a layer is any object
    with ``forward(x)``, or ``forward(x, train_flg)``, and ``backward(dout)``.

    `predict`, `loss` and `accuracy` are inference, `gradient` and `numerical_gradient` are training.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters. A new array here is handed to its layer, and a new array of the layer, as in
        ``layers["Affine1"].W = W``, is put here. In the book the two go different ways.
    layers : OrderedDict of str to layer, or list of layers
        In the order of `forward`, without the loss.
    """

    params: dict[str, FloatArray]
    layers: Any
    weight_decay_lambda: float = 0.0
    last_name = "last_layer"  # the attribute that holds the loss
    takes_images = False

    _last_pass: tuple[GlobalRandom, GlobalRandom] | None = None  # NumPy's generator before and after

    def _adopt(self, owners: Mapping[str, tuple[Key, str]], network: Network | None) -> None:
        """Finish the construction: `owners` says which layer has which parameter, under which of its own names.

        `network` computes the same as the layers, with the same parameters, or is None if fastnet has no such layers.
        """
        self._owners = dict(owners)
        self._shared = dict(self.params)
        self._made = self._parts()
        self._methods = self._present_methods()
        if any(overridden(part, "forward", "backward") for part in self._made):
            network = None
        self._network = network
        self._scores = None if network is None else Network(network.layers, plain.IdentityWithLoss())
        self._norms = [layer for layer in self._made if isinstance(layer, BatchNormalization)]
        same = () if network is None else network.layers
        self._same_norms = [layer for layer in same if isinstance(layer, plain.BatchNorm)]
        self._drops = [layer for layer in self._made if isinstance(layer, Dropout)]
        self._same_drops = [layer for layer in same if isinstance(layer, GivenMask)]

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The scores, before the softmax that `loss` applies, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, …).

        Returns
        -------
        ndarray
            Shape (batch, classes).

        Raises
        ------
        ValueError, TypeError
            As `fastnet.Network.predict`.
        """
        if self._fitting() is not None:
            assert self._scores is not None
            self._scores.params, self._scores.state = self.params, self._fitting_state()
            return self._scores.predict(self._input(x))
        scores: FloatArray = self._forward(x, False)
        return scores

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss, averaged over the batch, with the penalty on the weights, in inference mode.

        Parameters
        ----------
        x : array_like
            Shape (batch, …).
        t : array_like
            Integer labels, shape (batch,) or (batch, 1), or one-hot rows, shape (batch, classes).

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As `fastnet.Network.loss`.
        """
        network = self._fitting()
        if network is not None:
            return network.loss(self._input(x), as_targets(t))
        return self._penalised(self.predict(x), t)

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = None) -> float:
        """The share of rows whose likeliest class is that of the target, in inference mode.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.
        batch_size : int, optional
            Rows to pass through the network at a time; all by default. All rows count, also those of a last batch that
            is smaller. The book's convolutional networks leave these out and count them as wrong.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        network = self._fitting()
        if network is not None:
            return network.accuracy(self._input(x), as_targets(t), batch_size)
        rows = np.asarray(x)
        size = len(rows) if batch_size is None else checks.as_count(batch_size, "batch_size")
        scores = np.concatenate([self.predict(rows[first : first + size]) for first in range(0, len(rows), size)])
        targets = checks.as_targets(as_targets(t), len(scores), scores.shape[1], scores.dtype)
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        return float(np.mean(scores.argmax(axis=1) == labels))

    def gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, FloatArray]:
        """The gradient of the loss with respect to every parameter, by backprop, in training mode.

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        dict of str to ndarray
            The names of `params`. The layers have the same arrays as `dW`, `db`, … if there is no weight decay.

        Raises
        ------
        ValueError, TypeError
            As `loss`; TypeError also in a subclass whose `predict` or `loss` is its own.
        """
        if own := overridden(self, "predict", "loss"):
            raise TypeError(
                f"{type(self).__name__} has its own {' and '.join(own)}, and backprop through its layers would be the "
                f"gradient of another function: give it its own gradient, or use numerical_gradient"
            )
        network = self._fitting()
        if network is not None:
            rows = self._input(x)
            with self._training_pass():
                self._draw_masks(rows)
                found = network.gradient(rows, as_targets(t))
            self._keep_state()
            for name, (key, own_name) in self._owners.items():
                self.layers[key].grads[own_name] = found[name]
            return found
        with self._training_pass():
            self._penalised(self._forward(x, True), t)
        d = self._last.backward(1.0)
        for layer in reversed(self._parts()[:-1]):
            d = layer.backward(d)
        found = {name: getattr(self.layers[key], f"d{own_name}") for name, (key, own_name) in self._owners.items()}
        return {
            name: d + self._decay(name) * self.params[name] if self._decay(name) else d for name, d in found.items()
        }

    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike) -> dict[str, FloatArray]:
        """The gradient of the loss with respect to every parameter, by central differences, in training mode.

        It changes nothing, and differentiates the function that `gradient` did last: with Dropout it repeats the last
        training pass, with the same masks, unless ``np.random`` has drawn numbers since; then it has the masks that the
        next pass will have. (The book draws new masks for every evaluation.)

        Parameters
        ----------
        x, t : array_like
            As for `loss`.

        Returns
        -------
        dict of str to ndarray
            The names of `params`.

        Raises
        ------
        ValueError, TypeError
            As `loss`.
        """
        network = self._fitting()
        if network is not None:
            rows = self._input(x)
            with self._repeated_pass():
                self._draw_masks(rows)
            return dict(network.numerical_gradient(rows, as_targets(t)))
        states = [(layer, dict(layer.state)) for layer in self._parts() if isinstance(layer, plain.Layer)]
        try:
            with self._repeated_pass() as start:

                def loss(_: object) -> float:
                    start.put_back()
                    return self._training_loss(x, t)

                return {name: numerical_gradient(loss, self.params[name]) for name in self._owners}
        finally:
            for layer, state in states:
                layer.state = state

    def save_params(self, file_name: str | os.PathLike[str] = "params.pkl") -> None:
        """Write `params` to a file that the book's programs read, too.

        Parameters
        ----------
        file_name : path-like, default "params.pkl"

        Raises
        ------
        OSError
            If the file can't be written. A file that was there before is unchanged.
        """
        self._agree()
        pickle.save_params(self.params, file_name)

    def load_params(self, file_name: str | os.PathLike[str] = "params.pkl") -> None:
        """Replace `params` by those of a file of this network or of the book's. Nothing in the file is executed.

        Parameters
        ----------
        file_name : path-like, default "params.pkl"

        Raises
        ------
        OSError
            If the file can't be read: FileNotFoundError if it does not exist.
        ValueError
            If it is damaged, holds anything but arrays, or their names, shapes or dtypes do not fit. It names the file,
            and nothing is replaced.
        """
        self._agree()
        found = pickle.load_params(file_name)
        check_fits(found, self.params, file_name)
        for name, array in found.items():
            self.params[name] = array.astype(self.params[name].dtype, order="C")
        self._agree()

    # How it computes --------------------------------------------------------------------------------------

    @property
    def _last(self) -> Any:
        return getattr(self, self.last_name)

    def _parts(self) -> tuple[Any, ...]:
        """The layers as they are now, and the loss."""
        named = self.layers.values() if isinstance(self.layers, Mapping) else self.layers
        return (*named, self._last)

    def _present_methods(self) -> list[Any]:
        """The functions of all layers, which may be replaced in a layer or in its class."""
        return [_function(method) for part in self._parts() for method in (part.forward, part.backward)]

    def _agree(self) -> None:
        """Let `params` and the layers have the same arrays: where one of the two has a new one, the other gets it."""
        for name, (key, own_name) in self._owners.items():
            if name not in self.params:
                raise KeyError(f"params has no {name!r}")
            try:
                layer = self.layers[key]
                theirs = getattr(layer, own_name)
            except (LookupError, AttributeError) as error:
                raise ValueError(
                    f"params has {name!r}, but layers has no {key!r} with {own_name!r} any more"
                ) from error
            ours, before = self.params[name], self._shared[name]
            if theirs is not ours:
                if ours is before:
                    self.params[name] = theirs
                elif theirs is before:
                    setattr(layer, own_name, ours)
                else:
                    raise ValueError(f"params[{name!r}] and layers[{key!r}].{own_name} are two new arrays: set one")
            self._shared[name] = self.params[name]

    def _fitting(self) -> Network | None:
        """The network that computes as a whole, with the present arrays; None if it is no longer the same."""
        self._agree()
        if self._network is None or overridden(self, "predict", "loss"):
            return None
        now = self._parts()
        if len(now) != len(self._made) or any(part is not made for part, made in zip(now, self._made, strict=True)):
            return None
        if self._present_methods() != self._methods:
            return None
        self._network.params, self._network.state = self.params, self._fitting_state()
        self._network.weight_decay_lambda = self.weight_decay_lambda
        for norm, same in zip(self._norms, self._same_norms, strict=True):
            same.momentum = norm.momentum
        for drop, same_drop in zip(self._drops, self._same_drops, strict=True):
            same_drop.scale = 1 - drop.dropout_ratio
        return self._network

    def _fitting_state(self) -> dict[str, npt.NDArray[Any]]:
        """The running statistics of the layers, by the names that they have in the network."""
        return {f"{own}{n}": array for n, norm in enumerate(self._norms, 1) for own, array in norm.state.items()}

    def _keep_state(self) -> None:
        """Give the layers the running statistics of the network's last pass."""
        assert self._network is not None
        for number, norm in enumerate(self._norms, 1):
            norm.state = {own: self._network.state[f"{own}{number}"] for own in norm.state}

    def _input(self, x: npt.ArrayLike) -> npt.ArrayLike:
        return x if self.takes_images else as_rows(checks.as_floating(x, "x"))

    def _forward(self, x: npt.ArrayLike, training: bool) -> Any:
        """What the last layer gives, layer by layer."""
        y: Any = np.asarray(x)
        for layer in self._parts()[:-1]:
            y = layer.forward(y, training) if _takes_train_flg(_function(layer.forward)) else layer.forward(y)
        return y

    def _penalised(self, y: Any, t: npt.ArrayLike) -> float:
        """The loss of the scores `y`, with the penalty λ/2·ΣW²."""
        value = float(self._last.forward(y, np.asarray(t)))
        if not self.weight_decay_lambda:
            return value
        weights = [self.params[name] for name in self._owners if self._decay(name)]
        return value + 0.5 * self.weight_decay_lambda * sum(
            float(np.square(w, dtype=np.float64).sum()) for w in weights
        )

    def _decay(self, name: str) -> float:
        """λ for the weights, 0 for all else."""
        return self.weight_decay_lambda if name.startswith("W") else 0.0

    def _training_loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss in training mode, layer by layer; that of a subclass if it has its own."""
        if overridden(self, "predict", "loss"):
            return self.loss(x, t)
        return self._penalised(self._forward(x, True), t)

    @contextlib.contextmanager
    def _training_pass(self) -> Iterator[None]:
        """Note where NumPy's generator is before and after a training pass; put it back if the pass fails."""
        before = GlobalRandom()
        try:
            yield
        except BaseException:
            before.put_back()
            raise
        self._last_pass = before, GlobalRandom()

    @contextlib.contextmanager
    def _repeated_pass(self) -> Iterator[GlobalRandom]:
        """Put NumPy's generator to the start of the last training pass, unless it was used since; put it back."""
        now, start = GlobalRandom(), GlobalRandom()
        if self._last_pass is not None and not self._last_pass[1].has_moved():
            start = self._last_pass[0]
        start.put_back()
        try:
            yield start
        finally:
            now.put_back()

    def _draw_masks(self, rows: npt.ArrayLike) -> None:
        """Draw the masks of a training pass over such rows, one dropout after the other, as the layers draw them."""
        batch = 1 if np.ndim(rows) == 1 else len(np.asarray(rows))
        for drop, same in zip(self._drops, self._same_drops, strict=True):
            drop.mask = drop.draw_mask((batch, same.units))
            same.mask = drop.mask.astype(np.float64)


def _function(method: Any) -> Any:
    """The function of a method, which all objects of a class share; what is no method as it is."""
    return getattr(method, "__func__", method)


@functools.lru_cache
def _takes_train_flg(forward: Callable[..., Any]) -> bool:
    return "train_flg" in inspect.signature(forward).parameters
