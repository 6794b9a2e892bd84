"""The error that ends a training whose loss or parameters are no longer finite."""

from __future__ import annotations


class DivergenceError(FloatingPointError):
    """The loss or the parameters became NaN or infinite.

    Attributes
    ----------
    iteration : int
        The iteration, counted from 1, that had this loss, or whose update gave these parameters.
    learning_rate : float or None
        The learning rate of that iteration; None if the optimizer reports none.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> affine = fastnet.layers.Affine(np.ones((1, 1)), np.zeros(1))
    >>> net = fastnet.Network([affine], fastnet.layers.IdentityWithLoss())
    >>> far = fastnet.optimizers.SGD(lr=1e200)
    >>> try:
    ...     fastnet.Trainer(net, np.ones((4, 1)), np.zeros((4, 1)), optimizer=far, batch_size=4, epochs=5).fit()
    ... except fastnet.DivergenceError as error:
    ...     print(type(error).__name__)
    DivergenceError
    """

    def __init__(
        self, what: str, iteration: int, epoch: float, learning_rate: float | None, best: float | None
    ) -> None:
        rate = "" if learning_rate is None else f" with the learning rate {learning_rate:g}"
        advice = "there are no best parameters to go back to yet"
        if best is not None:
            advice = f"restore_best() brings back the parameters of epoch {best:.4g}, the best so far"
        super().__init__(
            f"{what} at iteration {iteration:,} (epoch {epoch:.4g}){rate}: train with a lower learning rate; {advice}"
        )
        self.iteration, self.learning_rate = iteration, learning_rate
