"""Derivatives of any function by differences, and gradient descent with them."""

from fastnet.differentiation.derivatives import (
    derivative,
    numerical_gradient,
    numerical_gradient_2d,
    numerical_jacobian,
)
from fastnet.differentiation.descent import gradient_descent
from fastnet.differentiation.directional import directional_derivative
from fastnet.differentiation.hessian import numerical_hessian
from fastnet.differentiation.result import DerivativeResult

__all__ = [
    "DerivativeResult",
    "derivative",
    "directional_derivative",
    "gradient_descent",
    "numerical_gradient",
    "numerical_gradient_2d",
    "numerical_hessian",
    "numerical_jacobian",
]
