"""Chapter 7 of the book: `simple_convnet`."""

from fastnet.book.ch07 import simple_convnet

__all__ = ["simple_convnet"]
