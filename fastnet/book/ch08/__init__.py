"""Chapter 8 of the book: `deep_convnet`."""

from fastnet.book.ch08 import deep_convnet

__all__ = ["deep_convnet"]
