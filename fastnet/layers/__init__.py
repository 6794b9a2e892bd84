"""Layers: each computes forward and takes the gradient back, by the names of *Deep Learning from Scratch*.

Kept in a list, they are a network: `forward` in order, `backward` in reverse, as `fastnet.Network` does. float32 stays
float32; integers and lists become float64. Nothing passed in is modified. Every `backward` raises RuntimeError if
`forward` was not called before, and ValueError if `dout`, the derivative of the loss by what `forward` gave last, has
not the shape of that.
"""

from fastnet.layers.activations import LeakyReLU, ReLU, Sigmoid, Step, Tanh
from fastnet.layers.affine import Affine
from fastnet.layers.arithmetic import Add, Mul
from fastnet.layers.base import Layer
from fastnet.layers.batch_norm import BatchNorm
from fastnet.layers.dropout import Dropout
from fastnet.layers.losses import IdentityWithLoss, LossLayer, SoftmaxWithLoss

__all__ = [
    "Add",
    "Affine",
    "BatchNorm",
    "Dropout",
    "IdentityWithLoss",
    "Layer",
    "LeakyReLU",
    "LossLayer",
    "Mul",
    "ReLU",
    "Sigmoid",
    "SoftmaxWithLoss",
    "Step",
    "Tanh",
]
