"""No derivative enters the finite differences: with other derivatives, they stay the same bit for bit."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import fastnet
from chains import ANSWERS, L, S, T, assert_same_bits, chain, off
from fastnet import backends
from fastnet.backends._numpy import chain as numpy_chain


def derivative_case(answer, dtype="float64"):
    spec = chain((5, 6, 4, 3, 3), (S, T, L, S), dtype, answer, seed=5)
    return spec, np.random.default_rng(6).standard_normal((7, 5)).astype(dtype), np.arange(7) % 3


def test_numpy_calls_no_derivative(monkeypatch):
    for answer in ANSWERS:
        case = derivative_case(answer)
        with fastnet.use_backend("numpy"):
            backend = backends.active()
            expected, backprop = backend.incremental(*case, 1e-3)[0], backend.gradient(*case)
            with monkeypatch.context() as patch:
                patch.setattr(numpy_chain, "activation_derivative", lambda kind, x, constant=0: 3 + x)
                assert_same_bits(backend.incremental(*case, 1e-3)[0], expected)
                assert off(backend.gradient(*case), backprop) > 0.1


ALL_ANSWERS = """
import itertools, json, sys
import numpy as np
import fastnet
from fastnet import backends
from fastnet.backends.spec import Activation as A, Loss, NetworkSpec, Output

def answers():
    rng = np.random.default_rng(0)
    backend, found = backends.active(), {}
    for dtype, (output, loss), kinds in itertools.product(
        ("float64", "float32"),
        ((Output.SOFTMAX, Loss.CROSS_ENTROPY), *((o, Loss.MEAN_SQUARED_ERROR) for o in Output)),
        ((A.SIGMOID, A.TANH), (A.RELU, A.LEAKY_RELU), (A.STEP, A.IDENTITY)),
    ):
        sizes = (4, 5, 3, 3)
        spec = NetworkSpec.chain(
            tuple(rng.standard_normal(s).astype(dtype) for s in itertools.pairwise(sizes)),
            tuple(rng.standard_normal(n).astype(dtype) for n in sizes[1:]),
            (*kinds, A.SIGMOID), output, loss,
        )
        x, t = rng.standard_normal((2, 4)).astype(dtype), np.array([0, 2])
        name = f"{dtype} {output.name} {loss.name} {kinds[0].name} "
        found[name + "backprop"] = [g.tobytes().hex() for g in backend.gradient(spec, x, t)]
        for algorithm, h in itertools.product(backend.algorithms, (1e-3, 2.0)):
            if algorithm != "loop":
                gradients = getattr(backend, algorithm)(spec, x, t, h)[0]
                found[f"{name} {algorithm} {h}"] = [g.tobytes().hex() for g in gradients]
    return found | of_stages()

def of_stages():
    from fastnet import layers
    rng, found = np.random.default_rng(0), {}
    draw = rng.standard_normal
    net = fastnet.Network([
        layers.Reshape((1, 5, 5)),
        layers.Convolution(draw((2, 1, 2, 2)), draw(2)), layers.BatchNorm(draw(2), draw(2)), layers.Tanh(),
        layers.MaxPooling(2, 2, stride=2), layers.Flatten(),
        layers.Affine(draw((8, 4)), draw(4)), layers.BatchNorm(draw(4), draw(4)), layers.ReLU(),
        layers.Dropout(0.2, seed=0), layers.Affine(draw((4, 3)), draw(3)),
    ], layers.SoftmaxWithLoss())
    x, t = draw((6, 25)), np.arange(6) % 3
    found["stages backprop"] = [g.tobytes().hex() for g in net.gradient(x, t).values()]
    for algorithm, h in itertools.product(("nodal", "incremental"), (1e-3, 2.0)):
        gradients = net.numerical_gradient(x, t, h, algorithm=algorithm)
        found[f"stages {algorithm} {h}"] = [g.tobytes().hex() for g in gradients.values()]
    return found
"""


def assert_only_backprop_changed(true, nonsense):
    """Bit for bit the same gradients by differences, and none of those by derivatives."""
    assert true.keys() == nonsense.keys()
    assert {name.split()[-2] for name in true if not name.endswith("backprop")} >= {"nodal", "incremental"}
    for name, gradients in true.items():
        assert (nonsense[name] != gradients) == name.endswith("backprop"), name


def test_numba_calls_no_derivative(run_python):
    """All derivatives give nonsense. Compiled code can't be changed while it runs; as plain Python it can."""
    program = """
    import warnings
    backends.active()
    warnings.simplefilter("ignore")  # the hashing of numbers wraps around, which compiled code does in silence
    true = answers()

    def spoil(function):
        def spoiled(*arguments):
            value = function(*arguments)
            if value is None:
                arguments[-1][...] = 5 + 3 * arguments[-1]  # the result's place
            return None if value is None else 5 + 3 * value

        return spoiled

    spoiled = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("fastnet.backends._numba"):
            for attribute in ("derive", "_derive", "activation_derivative", "loss_derivative", "softmax_backward"):
                if hasattr(module, attribute):
                    setattr(module, attribute, spoil(getattr(module, attribute)))
                    spoiled += 1
    print(json.dumps([true, answers(), spoiled]))
    """
    program = ALL_ANSWERS + textwrap.dedent(program)
    true, nonsense, spoiled = run_python(program, FASTNET_BACKEND="numba", NUMBA_DISABLE_JIT="1")
    assert spoiled > 0
    assert_only_backprop_changed(true, nonsense)


SOURCE = Path(__file__).parents[2]
# What each derivative's body begins with, so that the rest of it is never reached.
NONSENSE = {
    "activations.hpp": [(r"V derivative\(V( a)?\) const \{", r"V derivative(V\1) const { return splat(T(7)); ", 5)],
    "softmax.hpp": [(r"void softmax_row_backward\([^{]*\{", r"\g<0> if (n > 0) { da[0] = y[0] + dy[0]; return; }", 1)],
    "losses.hpp": [(r"Vec<T> derivative\(Vec<T> y, Vec<T> t\) const \{", r"\g<0> return y + t + T(7); ", 2)],
}


@pytest.fixture(scope="module")
def package_of_nonsense(link_package, tmp_path_factory, request):
    """The tested package with an extension whose derivatives are nonsense, compiled for the baseline alone."""
    if not backends.has_extension():
        pytest.skip("fastnet was installed without its extension")
    if not (SOURCE / "cpp/kernels/activations.hpp").exists():
        pytest.skip("the C++ sources are not beside the tests")
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    tools = {tool: shutil.which(tool, path=folders) for tool in ("cmake", "ninja")}
    missing = [tool for tool, path in tools.items() if path is None]
    if importlib.util.find_spec("pybind11") is None:
        missing.append("pybind11")
    if not (shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")):
        missing.append("a C++ compiler")
    if missing:
        pytest.skip(f"to compile the kernels, {', '.join(missing)} is missing")
    import pybind11

    folder = tmp_path_factory.mktemp("nonsense")
    shutil.copytree(SOURCE / "cpp", folder / "cpp")
    for file, replacements in NONSENSE.items():
        path = folder / "cpp/kernels" / file
        text = path.read_text(encoding="utf-8")
        for pattern, replacement, least in replacements:
            text, count = re.subn(pattern, replacement, text)
            assert count >= least, f"{pattern} is {count} times in {file}"
        path.write_text(text, encoding="utf-8")
    shutil.copy2(SOURCE / "CMakeLists.txt", folder)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O0 -DNDEBUG",
        "FASTNET_X86_TARGETS": "0",
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
        "CMAKE_UNITY_BUILD": "ON",  # the headers, pybind11's above all, take most of the time: they are read once
        "CMAKE_UNITY_BUILD_BATCH_SIZE": "0",
        "CMAKE_MAKE_PROGRAM": tools["ninja"],
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "SKBUILD_PROJECT_VERSION": fastnet.__version__,
    }
    if platform.machine() in ("x86_64", "AMD64"):  # its baseline fuses nothing, so that -O0 has the bits of -O3
        options["FASTNET_OPTIMISATION"] = "-O0"
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    for command in (["-S", folder, "-B", folder / "build", "-G", "Ninja", *definitions], ["--build", folder / "build"]):
        done = subprocess.run([tools["cmake"], *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (extension,) = (folder / "build").glob("_core.*")
    package = link_package(with_extension=False)
    shutil.copy2(extension, package / "fastnet")
    return package


def test_cpp_calls_no_derivative(run_python, package_of_nonsense):
    """The extension compiled with other derivatives gives the same differences."""
    program = ALL_ANSWERS + "print(json.dumps([answers(), fastnet._core.__file__]))"
    true, installed = run_python(program, FASTNET_BACKEND="cpp", FASTNET_ISA="baseline")
    nonsense, compiled = run_python(program, package=package_of_nonsense, FASTNET_BACKEND="cpp", FASTNET_ISA="baseline")
    assert installed != compiled
    assert_only_backprop_changed(true, nonsense)
