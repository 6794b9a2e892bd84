"""Backends to parametrise tests with, by their names."""

from __future__ import annotations

import pytest

from fastnet import backends

NEEDS_EXTENSION = pytest.mark.skipif(not backends.has_extension(), reason="fastnet was installed without its extension")
AVAILABLE = [pytest.param(name, marks=NEEDS_EXTENSION if name == "cpp" else ()) for name in ("cpp", "numba", "numpy")]
