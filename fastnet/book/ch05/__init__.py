"""Chapter 5 of the book: `layer_naive` and `two_layer_net`."""

from fastnet.book.ch05 import layer_naive, two_layer_net

__all__ = ["layer_naive", "two_layer_net"]
