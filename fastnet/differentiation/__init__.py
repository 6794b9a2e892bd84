"""Derivatives of any Python function by central differences, and gradient descent with them."""

from fastnet.differentiation.central import (
    derivative,
    numerical_gradient,
    numerical_gradient_2d,
    numerical_jacobian,
)
from fastnet.differentiation.descent import gradient_descent

__all__ = ["derivative", "gradient_descent", "numerical_gradient", "numerical_gradient_2d", "numerical_jacobian"]
