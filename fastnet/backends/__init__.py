"""Which implementation computes: ``cpp`` (compiled), ``numba`` (compiled on first use) or ``numpy`` (reference).

Each backend is a module with the functions of `Backend`. ``FASTNET_BACKEND`` or `use_backend` forces one; otherwise
it is ``cpp``, or ``numba`` where the compiled extension is missing.
"""

from fastnet.backends.choice import (
    MOST_THREADS,
    NAMES,
    Backend,
    Dataset,
    SecondOrderBackend,
    TrainingBackend,
    active,
    available,
    get,
    get_num_threads,
    has_extension,
    set_num_threads,
    use_backend,
)
from fastnet.backends.info import build_info

__all__ = [
    "MOST_THREADS",
    "NAMES",
    "Backend",
    "Dataset",
    "SecondOrderBackend",
    "TrainingBackend",
    "active",
    "available",
    "build_info",
    "get",
    "get_num_threads",
    "has_extension",
    "set_num_threads",
    "use_backend",
]
