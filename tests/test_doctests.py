"""The examples in the docstrings of every module give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
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


FACES = ("backends", "checking", "datasets", "differentiation", "layers", "networks", "optimizers", "training")
WITHOUT_EXAMPLES = {
    *("Backend", "Dataset", "SecondOrderBackend", "TrainingBackend"),  # protocols
    *("find_mnist", "load_mnist"),  # which need the files of MNIST
}


@pytest.mark.parametrize("face", ["fastnet", *(f"fastnet.{face}" for face in FACES)])
def test_every_public_class_and_function_has_an_example(face):
    module = importlib.import_module(face)
    things = {name: getattr(module, name) for name in module.__all__}
    public = {name: thing for name, thing in things.items() if inspect.isclass(thing) or inspect.isfunction(thing)}
    assert {name for name, thing in public.items() if ">>>" not in (thing.__doc__ or "")} <= WITHOUT_EXAMPLES


def test_the_examples_are_found():
    """An example is looked for where its module defines it: the faces, which hand it on, have none of their own."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples > 40
