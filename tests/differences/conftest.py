"""What several tests of the exact finite differences share."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from chains import off


@pytest.fixture(scope="module")
def drawn_digits():
    x, t = fastnet.datasets.make_digits(100, seed=0)
    return x.astype(np.float64), t


@pytest.fixture
def both(backend):
    """The nodal and the incremental gradients of a network, and the diagnostics of both."""

    def compute(spec, x, t, h):
        nodal, of_nodal = backend.nodal(spec, x, t, h)
        incremental, of_incremental = backend.incremental(spec, x, t, h)
        return off(nodal, incremental), of_nodal, of_incremental

    return compute


@pytest.fixture(params=[pytest.param("mnist", marks=pytest.mark.mnist), "drawn"])
def digits(request):
    if request.param == "mnist":
        x, t = request.getfixturevalue("mnist_test_set")
        return x[:100].astype(np.float64), t[:100]
    return request.getfixturevalue("drawn_digits")
