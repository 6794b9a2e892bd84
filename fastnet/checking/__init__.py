"""Gradients compared: one against another, entry by entry, with a verdict, and all methods side by side."""

from fastnet.checking.check import check_gradient
from fastnet.checking.comparison import GradientComparison, MethodResult, compare_gradients
from fastnet.checking.result import EntryCheck, GradientCheck
from fastnet.checking.steps import StepComparison, StepErrors, compare_steps

__all__ = [
    "EntryCheck",
    "GradientCheck",
    "GradientComparison",
    "MethodResult",
    "StepComparison",
    "StepErrors",
    "check_gradient",
    "compare_gradients",
    "compare_steps",
]
