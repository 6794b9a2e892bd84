"""Layers with a forward and a backward pass, named as in *Deep Learning from Scratch*.

A list of them is a network: `forward` in order, `backward` in reverse, as `fastnet.Network` does. float32 stays
float32; integers and lists become float64. Arguments are not modified. Every `backward` takes `dout`, the
derivative of the loss with respect to the last output of `forward`. It raises RuntimeError if `forward` was not called
before, and ValueError if `dout` does not have the shape of that output.
"""

from fastnet.layers.activations import LeakyReLU, ReLU, Sigmoid, Step, Tanh
from fastnet.layers.affine import Affine
from fastnet.layers.arithmetic import Add, Mul
from fastnet.layers.base import Layer
from fastnet.layers.batch_norm import BatchNorm
from fastnet.layers.convolution import Convolution
from fastnet.layers.dropout import Dropout
from fastnet.layers.losses import IdentityWithLoss, LossLayer, SoftmaxWithLoss
from fastnet.layers.pooling import AveragePooling, MaxPooling
from fastnet.layers.shape import Flatten, Reshape

__all__ = [
    "Add",
    "Affine",
    "AveragePooling",
    "BatchNorm",
    "Convolution",
    "Dropout",
    "Flatten",
    "IdentityWithLoss",
    "Layer",
    "LeakyReLU",
    "LossLayer",
    "MaxPooling",
    "Mul",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "SoftmaxWithLoss",
    "Step",
    "Tanh",
]
