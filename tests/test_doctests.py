"""The examples in the docstrings of every module give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastnet
from fastnet import backends

MODULES = ["fastnet", *(info.name for info in pkgutil.walk_packages(fastnet.__path__, "fastnet."))]
# The extension has signatures alone, and `__main__` runs the command line.
MODULES = sorted(name for name in MODULES if name not in ("fastnet._core", "fastnet.__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of(name):
    if name == "fastnet.backends._cpp" and not backends.has_extension():
        pytest.skip("fastnet was installed without its extension")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_examples_are_found():
    """An example is looked for where its module defines it: the faces, which hand it on, have none of their own."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples > 40
