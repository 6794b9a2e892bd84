"""What the tests of files write, and how what comes back is compared."""

from __future__ import annotations

import os

import numpy as np
import pytest

POSIX = os.name == "posix"
posix_only = pytest.mark.skipif(not POSIX, reason="permissions and links of POSIX")
ARRAYS = {
    "W1": np.arange(12.0).reshape(3, 4) - 5.5,
    "b1": np.array([0.1, -0.0, 5e-324], "f8"),
    "optimizer/velocity/W1": np.ones((3, 4), "f4"),
    "重み/ß": np.array(7),
}
ABOUT = {"kind": "test", "epoch": 3, "loss": [0.5, 0.25], "nested": {"a": None, "ü": True}}


def assert_same(loaded, arrays=ARRAYS, about=ABOUT):
    found, said = loaded
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert type(found[name]) is np.ndarray
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert said == about
