"""Good files, for the tests of files."""

from __future__ import annotations

import pytest

from fastnet.saving import save_arrays
from saved_files import ABOUT, ARRAYS


@pytest.fixture
def file(tmp_path):
    """A good file in a folder of its own."""
    path = tmp_path / "model.npz"
    save_arrays(path, ARRAYS, ABOUT)
    return path


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.npz"
    save_arrays(path, ARRAYS, ABOUT)
    return path.read_bytes()
