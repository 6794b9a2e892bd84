"""`dataset/` of the book: MNIST."""

from fastnet.book.dataset import mnist

__all__ = ["mnist"]
