"""Gradients compared: one against another, entry by entry, with a verdict, and all methods side by side."""

from fastnet.checking.check import check_gradient
from fastnet.checking.comparison import GradientComparison, MethodResult, compare_gradients
from fastnet.checking.layers import check_layer
from fastnet.checking.result import EntryCheck, GradientCheck, GradientCheckError
from fastnet.checking.steps import StepComparison, StepErrors, compare_steps

__all__ = [
    "EntryCheck",
    "GradientCheck",
    "GradientCheckError",
    "GradientComparison",
    "MethodResult",
    "StepComparison",
    "StepErrors",
    "check_gradient",
    "check_layer",
    "compare_gradients",
    "compare_steps",
]
