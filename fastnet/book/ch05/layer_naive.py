"""`ch05/layer_naive.py` of the book: the nodes of a computation graph of numbers."""

from fastnet.layers import Add as AddLayer
from fastnet.layers import Mul as MulLayer

__all__ = ["AddLayer", "MulLayer"]
