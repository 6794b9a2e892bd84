"""`ch04/two_layer_net.py` of the book: the network of one hidden layer, without layers."""

from __future__ import annotations

from fastnet import networks
from fastnet.book.ch05.two_layer_net import draw_params

__all__ = ["TwoLayerNet"]


class TwoLayerNet(networks.TwoLayerNet):
    """A network of one hidden layer: affine, sigmoid, affine, softmax. `fastnet.TwoLayerNet`.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        The numbers of inputs, hidden units and classes.
    weight_init_std : float, default 0.01
        The standard deviation of the weights, which are drawn with ``np.random.randn``; biases start at 0.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01) -> None:
        self.params = draw_params(input_size, hidden_size, output_size, weight_init_std)
