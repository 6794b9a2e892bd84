"""`dataset/mnist.py` of the book: MNIST, as `fastnet.datasets.load_mnist` finds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import datasets

__all__ = ["img_dim", "img_size", "load_mnist", "test_num", "train_num"]

train_num, test_num = 60_000, 10_000
img_dim = (1, 28, 28)
img_size = 784

Split = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def load_mnist(normalize: bool = True, flatten: bool = True, one_hot_label: bool = False) -> tuple[Split, Split]:
    """Load MNIST from ``FASTNET_DATA_DIR``, the cache, or a download.

    Parameters
    ----------
    normalize : bool, default True
        Return pixels as float32 from 0 to 1; otherwise as uint8 from 0 to 255.
    flatten : bool, default True
        Return images of shape (784,); otherwise (1, 28, 28).
    one_hot_label : bool, default False
        Return labels as one-hot rows of ten, float64; otherwise as integers, uint8.

    Returns
    -------
    ((x_train, t_train), (x_test, t_test))
        As in the book, dtypes included. `fastnet.datasets.load_mnist` has labels of int64, whose arithmetic does not
        wrap round, and one-hot rows of float32.

    Raises
    ------
    TypeError, ValueError, OSError, ImportError
        As `fastnet.datasets.load_mnist`.
    """
    loaded = datasets.load_mnist(normalize=normalize, flatten=flatten, one_hot_label=one_hot_label)
    (x_train, t_train), (x_test, t_test) = loaded
    dtype = np.float64 if one_hot_label else np.uint8
    return (x_train, t_train.astype(dtype)), (x_test, t_test.astype(dtype))
