"""Which methods of a network are the library's own: a subclass's own method is never passed over."""

from __future__ import annotations

from fastnet._tools.types import FloatArray

COMPUTES = ("gradient", "loss_and_gradient", "numerical_gradient")  # what computes with that function
FUNCTION = ("predict", "loss", "training_loss")  # what says which function of its parameters a network is


def overridden(part: object, *names: str) -> list[str]:
    """Return those of the methods `names` of a network or layer that are not this library's.

    They are a subclass's, or were set on the object or on the class.
    """
    return [name for name in names if not _is_ours(part, name)]


def _is_ours(part: object, name: str) -> bool:
    if name in getattr(part, "__dict__", {}):
        return False
    for kind in type(part).__mro__:  # a loop, since each call of a network asks for several
        if name in kind.__dict__:
            method_module: str = getattr(kind.__dict__[name], "__module__", "")
            return kind.__module__.startswith("fastnet.") and method_module.startswith("fastnet.")
    return False


def check_probabilities(y: FloatArray) -> None:
    """Raise ValueError unless a subclass's `predict` gave probabilities, which the cross entropy is of."""
    low, high = float(y.min()), float(y.max())
    if low < 0 or high > 1 + 1e-3:
        raise ValueError(
            f"predict gave {low if low < 0 else high:g}, but the loss is the cross entropy of probabilities: let "
            f"predict end with fastnet.softmax, or give the class its own loss"
        )
