"""What a test needs of the operating system."""

from __future__ import annotations

import sys

import pytest

NEEDS_SIGINT = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
