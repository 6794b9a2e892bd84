"""What the backend says of itself."""

from __future__ import annotations

name = "numpy"
algorithms = ("incremental", "loop")


def get_num_threads() -> int:
    return 1


def set_num_threads(count: int) -> None:
    """Do nothing: this backend's own code has one thread, and NumPy's matrix product keeps its own setting."""
