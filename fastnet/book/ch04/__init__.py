"""Chapter 4 of the book: what its programs define, without what they draw when they run."""

from fastnet.book.ch04 import gradient_1d, gradient_2d, gradient_method, gradient_simplenet, two_layer_net

__all__ = ["gradient_1d", "gradient_2d", "gradient_method", "gradient_simplenet", "two_layer_net"]
