"""`common/multi_layer_net_extend.py` of the book: many hidden layers, with batch normalisation and dropout."""

from __future__ import annotations

from collections.abc import Iterable

import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.book.common.multi_layer_net import MultiLayerNet
from fastnet.networks.overriding import overridden

__all__ = ["MultiLayerNetExtend"]


class MultiLayerNetExtend(MultiLayerNet):
    """`MultiLayerNet` with batch normalisation before each activation, and dropout after it, if asked for.

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        As for `MultiLayerNet`.
    use_dropout : bool, default False
    dropout_ration : float, default 0.5
        The probability of a zero; the spelling is the book's.
    use_batchnorm : bool, default False

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1``, ``b1``, …; with batch normalisation also ``gamma1``, ``beta1``, …
    layers : OrderedDict
        ``"Affine1"``, ``"BatchNorm1"``, ``"Activation_function1"``, ``"Dropout1"``, ``"Affine2"``, …
    last_layer : SoftmaxWithLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Iterable[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.use_dropout = checks.as_flag(use_dropout, "use_dropout")
        self.use_batchnorm = checks.as_flag(use_batchnorm, "use_batchnorm")
        ratio = checks.as_fraction(dropout_ration, "dropout_ration")
        self._build(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
            ratio if self.use_dropout else None,
            self.use_batchnorm,
        )

    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> FloatArray:
        """The scores, before the softmax that `loss` applies.

        Parameters
        ----------
        x : array_like
            Shape (batch, …).
        train_flg : bool, default False
            Whether this is a training pass, layer by layer: Dropout draws new masks, and batch normalisation uses the
            statistics of this batch and mixes them into the running ones.

        Returns
        -------
        ndarray
            Shape (batch, classes).

        Raises
        ------
        ValueError, TypeError
            As `MultiLayerNet.predict`.
        """
        if not checks.as_flag(train_flg, "train_flg"):
            return super().predict(x)
        self._agree()
        with self._training_pass():
            scores: FloatArray = self._forward(x, True)
        return scores

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike, train_flg: bool = False) -> float:
        """The loss, averaged over the batch, with the penalty on the weights.

        Parameters
        ----------
        x, t : array_like
            As for `MultiLayerNet.loss`.
        train_flg : bool, default False
            As for `predict`.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As `MultiLayerNet.loss`.
        """
        return self._penalised(self.predict(x, True), t) if train_flg else super().loss(x, t)

    def _training_loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        return self.loss(x, t, True) if overridden(self, "predict", "loss") else super()._training_loss(x, t)
