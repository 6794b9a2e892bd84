"""Data sets: MNIST from its files, and drawn digits as a replacement."""

from fastnet.datasets.digits import make_digits
from fastnet.datasets.mnist import cache_dir, find_mnist, load_mnist, read_idx

__all__ = [
    "cache_dir",
    "find_mnist",
    "load_mnist",
    "make_digits",
    "read_idx",
]
