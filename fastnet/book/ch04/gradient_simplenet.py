"""`ch04/gradient_simplenet.py` of the book: the smallest network that has a gradient."""

from __future__ import annotations

import numpy as np

from fastnet.networks import SimpleNet

__all__ = ["simpleNet"]


class simpleNet(SimpleNet):
    """One weight matrix W of shape (2, 3), which is drawn with ``np.random.randn``. `fastnet.SimpleNet`."""

    def __init__(self) -> None:
        self.params = {"W": np.random.randn(2, 3)}
