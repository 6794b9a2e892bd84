"""Networks: of layers in a list, and those of the book."""

from fastnet.networks.chain import AffineChain
from fastnet.networks.computation import HessianDiagonal, NumericalGradient
from fastnet.networks.convolutional import DeepConvNet, SimpleConvNet
from fastnet.networks.first_order import ALGORITHMS
from fastnet.networks.network import Network
from fastnet.networks.textbook import MultiLayerNet, SimpleNet, TwoLayerNet

__all__ = [
    "ALGORITHMS",
    "AffineChain",
    "DeepConvNet",
    "HessianDiagonal",
    "MultiLayerNet",
    "Network",
    "NumericalGradient",
    "SimpleConvNet",
    "SimpleNet",
    "TwoLayerNet",
]
