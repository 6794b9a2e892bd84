"""The exact finite differences on networks of real size: against each other, the loop and backprop; their manners."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet.backends import _numpy
from fastnet.backends.spec import Activation, Diagnostics, Loss, NetworkSpec, Output

COMPILED = ["cpp-avx512", "cpp-avx2", "cpp-baseline", "numba"]
AVAILABLE = backends.available()
# Of `nodal` against `incremental`, relative to the largest entry: some ten roundings of the nodes' values, which the
# polynomial's coefficients are differences of, and the sum over the batch.
AGREEMENT = {"float64": 1e-13, "float32": 2e-6}
STEP = {"float64": 1e-4, "float32": 1e-2}
ANSWERS = [
    (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.CROSS_ENTROPY),
]

compiled = pytest.mark.parametrize("backend", COMPILED, indirect=True)  # the reference would take minutes


def exact(backend):
    return [algorithm for algorithm in backend.algorithms if algorithm != "loop"]


def off(gradients, expected):
    """The greatest difference, relative to the largest entry."""
    largest = max(abs(e).max() for e in expected)
    return float(max(abs(g.astype(float) - e).max() for g, e in zip(gradients, expected, strict=True)) / largest)


def assert_same_bits(gradients, expected):
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def chain(widths, kinds, dtype="float64", answer=(Output.SOFTMAX, Loss.CROSS_ENTROPY), seed=0, biased=True):
    """A network with weights that keep the size of what passes through."""
    rng = np.random.default_rng(seed)
    return NetworkSpec(
        tuple((rng.standard_normal(s) * np.sqrt(2 / s[0])).astype(dtype) for s in itertools.pairwise(widths)),
        tuple((0.1 * rng.standard_normal(n)).astype(dtype) if biased else None for n in widths[1:]),
        tuple(kinds),
        *answer,
    )


@pytest.fixture(scope="module")
def drawn_digits():
    x, t = fastnet.datasets.make_digits(100, seed=0)
    return x.astype(np.float64), t


def two_layers(dtype="float64"):
    return fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)


def test_the_algorithms_of_each_backend(backend):
    expected = ("incremental", "loop") if backend.name == "numpy" else ("nodal", "incremental", "loop")
    assert backend.algorithms == expected


# nodal against incremental --------------------------------------------------------------------------------


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


@compiled
def test_nodal_is_incremental_on_digits(both, dtype, digits):
    x, t = digits
    difference, of_nodal, of_incremental = both(two_layers(dtype)._spec(), x.astype(dtype), t, STEP[dtype] / 1e2)
    assert difference <= AGREEMENT[dtype]
    assert of_nodal.fallbacks == 0
    assert of_nodal.evaluations == 2 * 3 * 100 * 60  # three nodes, both ways, for each row and unit
    assert of_incremental.evaluations > 20 * of_nodal.evaluations


@compiled
@pytest.mark.parametrize("h", [1e-4, 1e-2])
def test_nodal_is_incremental_on_unscaled_pixels(both, drawn_digits, h):
    """Moves of up to 2.55: polynomials of few nodes do not do for all of them."""
    x, t = drawn_digits
    difference, of_nodal, _ = both(two_layers()._spec(), np.round(x[:10] * 255), t[:10], h)
    assert difference <= AGREEMENT["float64"]
    assert (of_nodal.fallbacks > 0) == (h == 1e-2)
    assert of_nodal.kinks == 0


R, S, T, L, I = (  # noqa: E741
    Activation.RELU,
    Activation.SIGMOID,
    Activation.TANH,
    Activation.LEAKY_RELU,
    Activation.IDENTITY,
)


@compiled
@pytest.mark.parametrize("kinds", [(R, R, R, I), (S, T, S, I), (R, S, R, I), (T, R, L, S), (S, R, R, T), (L, T, I)])
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a[0].name}-{a[1].name}".lower())
def test_nodal_is_incremental_in_deep_networks(both, dtype, kinds, answer):
    spec = chain((*(20, 17, 16, 15)[: len(kinds)], 10), kinds, dtype, answer)
    x = np.random.default_rng(1).standard_normal((20, 20)).astype(dtype)
    x[:, ::3] = 0
    difference, of_nodal, _ = both(spec, x, np.arange(20) % 10, STEP[dtype])
    assert difference <= AGREEMENT[dtype]
    if not {R, L} & set(kinds):
        assert of_nodal.fallbacks == of_nodal.kinks == 0 or dtype == "float32"


@compiled
def test_saturated_outputs_are_no_polynomials(both):
    """Small inputs beside a bias: all nodes are moves of about 10, to where tanh is flat, but the weights' are not."""
    spec = chain((3, 4), (T,), answer=(Output.IDENTITY, Loss.MEAN_SQUARED_ERROR))
    x = np.random.default_rng(2).standard_normal((5, 3)) * 1e-3
    difference, of_nodal, _ = both(spec, x, np.arange(5) % 4, 10.0)
    assert difference <= AGREEMENT["float64"]
    assert of_nodal.fallbacks == 5 * 4
    assert of_nodal.kinks == 0


# Kinks ----------------------------------------------------------------------------------------------------


def kinked_case(dtype, kinds=(R, R, R, I), h=1e-2):
    """Biases that put each hidden unit within h of its kink for one of the rows."""
    spec = chain((6, 8, 7, 5, 4), kinds, dtype, seed=3)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((12, 6)).astype(dtype)
    z = x
    for weight, bias, kind in zip(spec.weights, spec.biases, kinds, strict=True):
        if kind in (R, L):
            rows = rng.integers(0, len(x), len(bias))
            bias[:] = h * rng.uniform(-0.5, 0.5, len(bias)) - (z @ weight)[rows, range(len(bias))]
        z = _numpy.activation(kind, z @ weight + bias)
    return spec, x, np.arange(12) % 4


def crossings(spec, x, h):
    """By trying every perturbation: for each layer, shape (rows, units), whether one of a unit's crosses any kink."""

    def sides():
        z, signs = x, []
        for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
            a = z @ weight + bias
            signs.append(a > 0 if kind in (R, L) else np.zeros_like(a, bool))
            z = _numpy.activation(kind, a, spec.leaky_slope)
        return np.hstack(signs)

    before, found = sides(), []
    for weight, bias in zip(spec.weights, spec.biases, strict=True):
        crossed = np.zeros((len(x), len(bias)), bool)
        for array in (weight, bias[None]):
            for (i, j), value in np.ndenumerate(array.copy()):
                for array[i, j] in (value + h, value - h):
                    crossed[:, j] |= (sides() != before).any(axis=1)
                array[i, j] = value
        found.append(crossed)
    return found


@pytest.mark.parametrize("kinds", [(R, R, R, I), (L, R, L, I)])
def test_kinks_are_found(backend, kinds):
    """Exactly the units and rows that a count by force finds."""
    spec, x, t = kinked_case("float64", kinds)
    expected = crossings(spec, x, 1e-2)
    assert 30 < sum(c.sum() for c in expected) < 200
    for algorithm in exact(backend):
        _, diagnostics = getattr(backend, algorithm)(spec, x, t, 1e-2)
        assert_same_bits(diagnostics.kinked, [c.any(axis=0) for c in expected])
        if algorithm == "nodal":
            assert diagnostics.kinks == sum(c.sum() for c in expected)
            assert diagnostics.fallbacks >= diagnostics.kinks


@compiled
@pytest.mark.parametrize("kinds", [(R, R, R, I), (R, S, L, I), (T, R, R, S)])
def test_nodal_is_incremental_at_kinks(both, dtype, kinds):
    spec, x, t = kinked_case(dtype, kinds)
    difference, of_nodal, of_incremental = both(spec, x, t, 1e-2)
    assert difference <= AGREEMENT[dtype]
    assert of_nodal.fallbacks >= of_nodal.kinks > 10
    assert_same_bits(of_nodal.kinked, of_incremental.kinked)


# Against the loop and backprop ----------------------------------------------------------------------------


WITHOUT_DIFFERENCES = (3, 6, 9, 12)  # cross entropy without a softmax


def test_which_cases_have_no_differences(oracle):
    refused = []
    for number in range(oracle.CASES):
        spec = oracle.case(number, "float64").spec
        if (spec.output, spec.loss) == (Output.IDENTITY, Loss.CROSS_ENTROPY):
            refused.append(number)
    assert tuple(refused) == WITHOUT_DIFFERENCES


@pytest.mark.parametrize("number", [n for n in range(16) if n not in WITHOUT_DIFFERENCES])
def test_the_loop_agrees_as_far_as_its_rounding_allows(backend, oracle, dtype, number):
    """Batches of 1 to 300, layers of 1 to 33 units. The bound is that of the loop, about eps L / h."""
    spec, x, t = oracle.case(number, dtype)
    if backend.name == "numpy" and sum(p.size for p in spec.parameters) * len(x) > 30_000:
        pytest.skip("the reference would take a minute")
    sizes = [p.size for p in spec.parameters]
    entries = np.unique(np.linspace(0, sum(sizes) - 1, 15).astype(int))
    h, step = STEP[dtype], float(spec.dtype.type(STEP[dtype]))
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, t, h)
        flat = np.concatenate([g.ravel() for g in gradients])
        for entry in entries.tolist():
            bounded = oracle.cached_difference(number, dtype, h, entry)
            # The loop moves θ to the nearest numbers: by up to unit (|θ| + h) more or less than h, each way.
            parameter, at = oracle.at_entry(spec, entry)
            moved = 2 * oracle.unit(dtype) * (abs(parameter[at]) + step) / step * abs(flat).max()
            off_h = abs(step / h - 1) * abs(flat[entry])
            oracle.Bounded(bounded.value, 2 * bounded.error + moved + off_h, dtype).assert_holds(flat[entry], algorithm)


@compiled
def test_accuracy_in_float64(backend, digits, request):
    """The error is truncation, h² L‴ / 6, and nothing else: no rounding takes its place where h is small."""
    x, t = digits
    spec = two_layers()._spec()
    derivative = backend.gradient(spec, x, t)
    for algorithm in exact(backend):
        errors = {h: off(getattr(backend, algorithm)(spec, x, t, h)[0], derivative) for h in (1e-3, 1e-4, 1e-6, 1e-10)}
        # The next term is h² smaller, which is 1e-6; rounding of some 1e-15 is less than that of the smaller error.
        assert errors[1e-3] / errors[1e-4] == pytest.approx(100, rel=1e-5)
        assert errors[1e-6] <= errors[1e-4] * 1e-4 + 1e-14
        assert errors[1e-10] <= 1e-14
        if "mnist" in request.node.name:
            assert errors[1e-4] <= 3e-9
            assert errors[1e-6] <= 1e-12


@compiled
def test_accuracy_in_float32(backend, digits):
    x, t = digits
    net = two_layers("float32")
    wide = two_layers()
    wide.params = {name: p.astype(np.float64) for name, p in net.params.items()}
    x = x.astype(np.float32)
    derivative = backend.gradient(wide._spec(), x.astype(np.float64), t)
    for algorithm in exact(backend):
        assert off(getattr(backend, algorithm)(net._spec(), x, t, 1e-3)[0], derivative) <= 5e-6


# No derivative --------------------------------------------------------------------------------------------


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
                patch.setattr(_numpy, "activation_derivative", lambda kind, x, slope=0: 3 + x)
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
        spec = NetworkSpec(
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


SOURCE = Path(__file__).parent.parent
# What each derivative's body begins with, so that the rest of it is never reached.
NONSENSE = {
    "activations.hpp": [(r"V derivative\(V( a)?\) const \{", r"V derivative(V\1) const { return splat(T(7)); ", 5)],
    "losses.hpp": [
        (r"Vec<T> derivative\(Vec<T> y, Vec<T> t\) const \{", r"\g<0> return y + t + T(7); ", 2),
        (r"void softmax_row_backward\([^{]*\{", r"\g<0> if (n > 0) { da[0] = y[0] + dy[0]; return; }", 1),
    ],
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
    cmake = (SOURCE / "CMakeLists.txt").read_text(encoding="utf-8")
    cmake, count = re.subn(r'if\(CMAKE_SYSTEM_PROCESSOR MATCHES "[^"]*"', "if(FALSE", cmake)  # the baseline alone
    assert count == 1
    (folder / "CMakeLists.txt").write_text(cmake, encoding="utf-8")
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O0 -DNDEBUG",  # of the bindings; the kernels' own -O3 comes after it
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
        "CMAKE_MAKE_PROGRAM": tools["ninja"],
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "SKBUILD_PROJECT_VERSION": fastnet.__version__,
    }
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


# Bits, threads, memory, Ctrl-C ----------------------------------------------------------------------------


def manners_cases(dtype):
    """Wide, sparse, deep with kinks, and more rows than one chunk holds."""
    rng = np.random.default_rng(7)
    sparse = rng.integers(0, 5, (40, 300)) * (rng.random((40, 300)) < 0.3) / 4
    return [
        (chain((300, 13, 10), (S, I), dtype), sparse.astype(dtype), np.arange(40) % 10),
        (chain((9, 20, 18, 17, 5), (R, T, R, I), dtype), rng.standard_normal((30, 9)).astype(dtype), np.arange(30) % 5),
        (chain((3, 5, 4), (S, T), dtype, ANSWERS[0]), rng.standard_normal((300, 3)).astype(dtype), np.arange(300) % 4),
    ]


@compiled
def test_threads_and_repetition_change_no_bit(backend, dtype, with_threads):
    for spec, x, t in manners_cases(dtype):
        arrays = [*spec.parameters, x, t]
        copies = [a.copy() for a in arrays]
        for algorithm in exact(backend):
            answers = []
            for count in (1, 2, 3, 2, 1):
                with_threads(count)
                gradients, diagnostics = getattr(backend, algorithm)(spec, x, t, 1e-3)
                answers.append((gradients, diagnostics))
            for gradients, diagnostics in answers[1:]:
                assert_same_bits(gradients, answers[0][0])
                assert_same_bits(diagnostics.kinked, answers[0][1].kinked)
                for name in ("evaluations", "fallbacks", "kinks"):
                    assert getattr(diagnostics, name) == getattr(answers[0][1], name)
        assert_same_bits(arrays, copies)


@compiled
def test_several_python_threads_at_once(backend, with_threads):
    with_threads(2)
    calls = [(a, case) for case in manners_cases("float64") for a in exact(backend)]
    expected = [getattr(backend, a)(*case, 1e-3)[0] for a, case in calls]
    failures = []

    def work(number):
        try:
            for k in range(len(calls)):
                a, case = calls[(k + number) % len(calls)]
                assert_same_bits(getattr(backend, a)(*case, 1e-3)[0], expected[(k + number) % len(calls)])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


DEEP = """
import json, signal, threading, time, os
import numpy as np
import fastnet
from fastnet import backends
from fastnet.backends.spec import Activation, NetworkSpec

rng = np.random.default_rng(0)
widths = [784, *[100] * 6, 10]
spec = NetworkSpec(
    tuple(rng.standard_normal(s) * np.sqrt(1 / s[0]) for s in zip(widths, widths[1:])),
    tuple(np.zeros(n) for n in widths[1:]),
    (Activation.RELU, Activation.SIGMOID) * 3 + (Activation.IDENTITY,),
)
backend = backends.active()
"""

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"
)


@needs_linux
@pytest.mark.parametrize("algorithm", ["nodal", "incremental"])
@pytest.mark.parametrize("name", [name for name in AVAILABLE if name != "numpy"])
def test_memory_is_bounded(run_python, name, algorithm):
    """Under 64 MB beyond parameters, batch and result; a call that is stopped after 2 s has taken all that it takes."""
    program = """
    def field(name):
        lines = open("/proc/self/status").read().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    signal.signal(signal.SIGALRM, stop)
    compute, peaks = getattr(backend, "ALGORITHM"), []
    small = NetworkSpec(
        tuple(np.ascontiguousarray(w[:5, :5]) for w in spec.weights),
        tuple(b[:5].copy() for b in spec.biases),
        spec.activations,
    )
    compute(small, rng.random((3, 5)), np.arange(3), 1e-4)  # Numba compiles
    for batch in (100, 1000):
        x, t = rng.random((batch, 784)), rng.integers(0, 10, batch)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak from now on
        before = field("VmRSS")
        signal.setitimer(signal.ITIMER_REAL, 2)
        try:
            compute(spec, x, t, 1e-4)
        except Enough:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        peaks.append(field("VmHWM") - before - sum(p.nbytes for p in spec.parameters))
    print(json.dumps(peaks))
    """
    program = DEEP + textwrap.dedent(program).replace("ALGORITHM", algorithm)
    peaks = run_python(program, FASTNET_BACKEND=name, OMP_NUM_THREADS="2", timeout=300)
    assert max(peaks) < 64e6, peaks


@pytest.mark.parametrize("name", [name for name in AVAILABLE if name != "numpy"])
def test_ctrl_c_ends_a_long_call(run_python, name):
    """Within 0.2 s at the best of two times, and within a second each time: the machine may be busy."""
    program = """
    x, t = rng.random((1000, 784)), rng.integers(0, 10, 1000)
    delays, copies = {}, [p.copy() for p in spec.parameters]
    for algorithm in ("incremental", "nodal"):
        compute = getattr(backend, algorithm)
        compute(spec, x[:1, :], t[:1], 1e-4)  # Numba compiles
        delays[algorithm] = []
        for _ in range(2):
            sent = None

            def interrupt():
                global sent
                time.sleep(0.4)
                sent = time.perf_counter()
                os.kill(os.getpid(), signal.SIGINT)

            timer = threading.Thread(target=interrupt)
            timer.start()
            try:
                while True:
                    compute(spec, x, t, 1e-4)
            except KeyboardInterrupt:
                delays[algorithm].append(time.perf_counter() - sent)
            timer.join()
    same = all(np.array_equal(p, copy) for p, copy in zip(spec.parameters, copies))
    print(json.dumps([delays, same]))
    """
    delays, same = run_python(DEEP + textwrap.dedent(program), FASTNET_BACKEND=name, OMP_NUM_THREADS="2", timeout=300)
    assert same
    for algorithm in ("incremental", "nodal"):
        assert min(delays[algorithm]) < 0.2, delays
        assert max(delays[algorithm]) < 1, delays


# Shapes at the edges --------------------------------------------------------------------------------------


def reference_of(spec, x, t, h):
    with fastnet.use_backend("numpy"):
        return backends.active().incremental(spec, x, t, h)


EDGES = {
    "one row": ((4, 5, 3), (S, I), 1),
    "one layer": ((5, 3), (I,), 7),
    "one unit each": ((1, 1, 1, 1), (T, S, T), 3),
    "one class": ((4, 3, 1), (S, T), 5),
    "a chunk and a row": ((3, 4, 2), (S, I), 257),
    "more than a chunk": ((2, 3, 3, 2), (R, S, I), 300),
    "a wide layer": ((2, 600, 2), (R, I), 2),
    "many classes": ((2, 3, 200), (T, I), 2),
    "many inputs": ((500, 2, 2), (T, I), 2),
}


@compiled
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("zeros", [False, True], ids=["", "zeros"])
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "unbiased"])
def test_edges(backend, dtype, edge, zeros, biased):
    widths, kinds, rows = EDGES[edge]
    answer = ANSWERS[1] if edge == "many classes" else ANSWERS[2] if widths[-1] > 1 else ANSWERS[0]
    spec = chain(widths, kinds, dtype, answer, seed=8, biased=biased)
    x = np.random.default_rng(9).standard_normal((rows, widths[0])).astype(dtype)
    if zeros:
        x[:] = 0
    t = np.arange(rows) % widths[-1]
    if zeros:
        t[:] = 0  # the rows are equal: with different labels, their gradients would cancel
    expected, _ = reference_of(spec, x, t, STEP[dtype])
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, t, STEP[dtype])
        if not any(e.any() for e in expected):  # zeros through layers without a bias, with nothing to learn
            assert not any(g.any() for g in gradients)
            continue
        # Both begin at a forward pass of their own: of sums of up to 600 terms in another order.
        assert off(gradients, expected) <= 2 * AGREEMENT[dtype]
        if zeros:
            assert not gradients[0].any()


def test_softmax_of_one_class_has_no_gradient(backend, dtype):
    for loss in Loss:
        spec = chain((3, 4, 1), (S, I), dtype, (Output.SOFTMAX, loss))
        for algorithm in exact(backend):
            gradients, _ = getattr(backend, algorithm)(spec, np.ones((2, 3), dtype), np.zeros(2, int), 0.1)
            assert not any(g.any() for g in gradients)


# The method -----------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    return fastnet.TwoLayerNet(6, 5, 4, weight_init_std=0.5, seed=0)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((9, 6)), rng.integers(0, 4, 9)


def test_the_result_is_a_dict_with_diagnostics(backend, net, batch):
    x, t = batch
    counts = {}
    for algorithm in backend.algorithms:
        gradient = net.numerical_gradient(x, t, algorithm=algorithm)
        assert isinstance(gradient, dict)
        assert {name: g.shape for name, g in gradient.items()} == {name: p.shape for name, p in net.params.items()}
        assert type(gradient.diagnostics) is Diagnostics
        assert gradient.diagnostics.fallbacks == gradient.diagnostics.kinks == 0
        counts[algorithm] = gradient.diagnostics.evaluations
        if algorithm != "loop":
            assert [k.shape for k in gradient.diagnostics.kinked] == [(5,), (4,)]
            assert not any(k.any() for k in gradient.diagnostics.kinked)
    assert counts["loop"] == 2 * 9 * (6 * 5 + 5 + 5 * 4 + 4)
    assert 0 < counts["incremental"] <= counts["loop"]
    automatic = net.numerical_gradient(x, t)
    fastest = net.numerical_gradient(x, t, algorithm=backend.algorithms[0])
    assert_same_bits(automatic.values(), fastest.values())


@compiled
def test_what_is_zero_or_repeated_is_not_evaluated(backend):
    """An input of 0 moves nothing, an input of 1 what the bias does, and equal inputs the same."""
    spec = chain((6, 5, 4), (S, I))
    x = np.array([[0, 1, 0.5, 0.5, 0, -1], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], float)
    _, diagnostics = backend.incremental(spec, x, np.array([0, 1, 2]), 1e-4)
    first = 5 * (3 + 1 + 6)  # units times distinct moves: 1 with the bias, 0.5, -1; the bias; six with it
    second = 3 * 4 * 6  # rows times units times five hidden values and the bias
    assert diagnostics.evaluations == 2 * (first + second)


T_, V = TypeError, ValueError
MISTAKES = [
    ({"algorithm": "exact"}, V, "algorithm must be one of 'auto', 'nodal', 'incremental', 'loop', not 'exact'"),
    ({"algorithm": None}, V, "algorithm must be one of 'auto', 'nodal', 'incremental', 'loop', not None"),
    ({"algorithm": ""}, V, "algorithm must be one of "),
    ({"h": 0}, V, "h must be positive, not 0"),
    ({"h": -1e-4}, V, "h must be positive, not -0.0001"),
    ({"h": float("nan")}, V, "h must be finite, not nan"),
    ({"h": float("inf")}, V, "h must be finite, not inf"),
    ({"h": -float("inf")}, V, "h must be finite, not -inf"),
    ({"h": True}, T_, "h must be a number, not bool"),
    ({"h": "1e-4"}, T_, "h must be a number, not str"),
    ({"h": None}, T_, "h must be a number, not NoneType"),
    ({"h": 1j}, T_, "h must be a number, not complex"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MISTAKES)
def test_mistakes(backend, net, batch, arguments, error, message):
    algorithms = ["auto", *backend.algorithms]
    for call in [arguments] if "algorithm" in arguments else [{"algorithm": a, **arguments} for a in algorithms]:
        with pytest.raises(error, match=f"^{re.escape(message)}") as raised:
            net.numerical_gradient(*batch, **call)
        assert type(raised.value) is error


@pytest.mark.parametrize("h", [1e-50, 1e50])
def test_h_out_of_the_range_of_float32(backend, batch, h):
    net = fastnet.TwoLayerNet(6, 5, 4, dtype="float32", seed=0)
    for algorithm in ("auto", *backend.algorithms):
        with pytest.raises(ValueError, match=f"^h must be positive and finite in float32, not {re.escape(str(h))}$"):
            net.numerical_gradient(*batch, h=h, algorithm=algorithm)


def test_an_algorithm_of_other_backends(net, batch):
    message = "^algorithm 'nodal' is not one of the 'numpy' backend's, which are 'incremental', 'loop'$"
    with fastnet.use_backend("numpy"), pytest.raises(ValueError, match=message):
        net.numerical_gradient(*batch, algorithm="nodal")


@pytest.mark.parametrize("where", ["W1", "b1", "W2", "b2", "x", "all"])
@pytest.mark.parametrize("kinds", [(S, I), (R, I), (T, S), (L, T)])
def test_nan_gives_nan(backend, dtype, kinds, where):
    """The loss is NaN: so is every difference of two. Diagnostics and time stay sane."""
    for answer in ANSWERS:
        spec = chain((6, 5, 4), kinds, dtype, answer)
        x, t = np.random.default_rng(0).random((9, 6)).astype(dtype), np.arange(9) % 4
        arrays = {"W1": spec.weights[0], "b1": spec.biases[0], "W2": spec.weights[1], "b2": spec.biases[1], "x": x}
        for array in arrays.values() if where == "all" else [arrays[where]]:
            array.flat[1] = np.nan
            if where == "all":
                array[:] = np.nan
        for algorithm in exact(backend):
            gradients, diagnostics = getattr(backend, algorithm)(spec, x, t, 1e-3)
            assert all(np.isnan(g).all() for g in gradients)
            assert diagnostics.fallbacks >= diagnostics.kinks >= 0


@pytest.mark.parametrize("where", ["W1", "x"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities(backend, dtype, value, where):
    """Where the loss is infinite or NaN, every difference is NaN; a saturated unit has a loss that is a number."""
    for kinds, finite in (((R, I), value < 0 and where == "W1"), ((S, I), True)):
        spec = chain((3, 4, 3), kinds, dtype)
        x, t = np.abs(np.random.default_rng(0).standard_normal((5, 3))).astype(dtype) + 1, np.arange(5) % 3
        (spec.weights[0] if where == "W1" else x).flat[0] = value
        assert np.isfinite(backend.loss(spec, x, t)) == finite
        for algorithm in exact(backend):
            gradients, _ = getattr(backend, algorithm)(spec, x, t, 1e-3)
            if not finite:
                assert all(np.isnan(g).all() for g in gradients)
            elif where == "W1":  # the unit stays where it is
                assert all(np.isfinite(g).all() for g in gradients)
                assert not gradients[0][:, 0].any()
                assert off(gradients, reference_of(spec, x, t, 1e-3)[0]) <= 2 * AGREEMENT[dtype]
            else:  # its weights move by infinity times h, the others do not
                assert all(np.isfinite(g).all() for g in gradients[2:])


@pytest.mark.parametrize("widths", [(6, 20, 33, 20, 17, 10), (5, 9, 31, 3, 12, 4)])
def test_layers_of_ragged_widths_meet_no_kinks_that_are_not_there(backend, dtype, widths):
    """Layers' rows end in the middle of a vector, and narrow layers follow wide ones."""
    if backend.name == "numpy":
        pytest.skip("the reference is what the others are compared with")
    spec = chain(widths, (R,) * (len(widths) - 2) + (I,), dtype, ANSWERS[2], seed=11)
    rng = np.random.default_rng(12)
    x, t = rng.standard_normal((2, widths[0])).astype(dtype), rng.integers(0, widths[-1], 2)
    expected = _numpy.incremental(spec, x, t, 1e-4)[1].kinked
    for algorithm in ("incremental", "nodal"):
        _, found = getattr(backend, algorithm)(spec, x, t, 1e-4)
        assert [np.flatnonzero(k).tolist() for k in found.kinked] == [np.flatnonzero(k).tolist() for k in expected]
