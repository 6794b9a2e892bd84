"""Damaged files, and calls of the extension with arrays of any kind: only the exceptions that are documented.

`python -m tests.stress fuzz` tries many more of the same inputs.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostile
from fastnet import backends

SEEDS = st.integers(0, 2**64)


@pytest.mark.parametrize("target", [name for name in hostile.TARGETS if name != "bindings"])
def test_files(target):
    taken = []

    @settings(max_examples=40)
    @given(seed=SEEDS)
    def use(seed):
        taken.append(hostile.TARGETS[target](Random(seed)))

    use()
    assert set(taken) == {False, True}  # some inputs are good


@pytest.mark.skipif(not backends.has_extension(), reason="fastnet was installed without its extension")
def test_bindings(core):
    taken = []

    @settings(max_examples=200)
    @given(seed=SEEDS)
    def call(seed):
        taken.append(hostile.bindings(Random(seed)))

    call()
    assert 0.1 * len(taken) < sum(taken) < 0.9 * len(taken)
