"""The backends that train by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fastnet
from fastnet import backends


@pytest.fixture(params=["cpp", "numba"])
def trains(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param not in backends.available():
        pytest.skip("fastnet was installed without its extension")
    with fastnet.use_backend(request.param):
        yield
