"""Choosing, forcing and reporting backends and instruction sets.

What is read at import is tested in fresh interpreters, with an assertion of what ran there.
"""

from __future__ import annotations

import importlib.machinery
import os
from pathlib import Path

import pytest

import fastnet
from fastnet import backends
from implementations import AVAILABLE, NEEDS_EXTENSION

# Prints which module computed, as proved by what it calls on the way.
WHICH_RAN = """
    import json, fastnet
    from fastnet import backends
    ran = []
    for name in ("cpp", "numba", "numpy"):
        if name in backends.available():
            module = backends.get(name)
            def watched(x, name=name, softmax=module.softmax):
                ran.append(name)
                return softmax(x)
            module.softmax = watched
    fastnet.softmax([1.0, 2.0])
    print(json.dumps([fastnet.build_info()["backend"], *ran]))
"""


# Backends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_forced_backend_runs(run_python, name):
    assert run_python(WHICH_RAN, FASTNET_BACKEND=name) == [name, name]


@NEEDS_EXTENSION
@pytest.mark.parametrize("variables", [{}, {"FASTNET_BACKEND": ""}], ids=["unset", "empty"])
def test_the_extension_runs_by_default(run_python, variables):
    assert run_python(WHICH_RAN, **variables) == ["cpp", "cpp"]


@pytest.mark.parametrize("name", ["cuda", "CPP", "numpy "])
def test_an_unknown_forced_backend_is_an_error(run_python, name):
    errors = run_python("import fastnet; fastnet.sigmoid(0)", fails=True, FASTNET_BACKEND=name)
    assert errors.splitlines()[-1] == f"ValueError: unknown backend {name!r}: choose one of 'cpp', 'numba', 'numpy'"


@pytest.fixture(scope="session")
def package_without_extension(link_package):
    return link_package(with_extension=False)


def test_without_the_extension_numba_runs_and_the_import_says_so_once(run_python, package_without_extension):
    program = """
        import json, warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import fastnet
            at_import = len(caught)
            fastnet.sigmoid(0.0)
            fastnet.softmax([1.0, 2.0])
            with fastnet.use_backend("numpy"):
                fastnet.sigmoid(0.0)
            info = fastnet.build_info()
        warned = [[w.category.__name__, str(w.message)] for w in caught]
        print(json.dumps([fastnet.backends.available(), info, warned, at_import, caught[0].filename]))
    """
    available, info, warned, at_import, where = run_python(program, package=package_without_extension)
    assert available == ["numba", "numpy"]
    assert info["backend"] == "numba"
    assert info["isa"] is info["compiler"] is info["threading"] is None
    assert info["num_threads"] >= 1
    [[category, message]] = warned
    assert at_import == 1
    assert where == "<string>"  # the program's own line, not one of fastnet's
    assert category == "RuntimeWarning"
    assert "installed without its compiled extension" in message
    assert "Numba backend is used" in message


def test_without_the_extension_a_forced_backend_runs_silently(run_python, package_without_extension):
    for name in ("numba", "numpy"):  # warnings are errors there
        assert run_python(WHICH_RAN, package=package_without_extension, FASTNET_BACKEND=name) == [name, name]


def test_without_the_extension_cpp_is_an_error(run_python, package_without_extension):
    program = "import fastnet; fastnet.sigmoid(0)"
    errors = run_python(program, package=package_without_extension, fails=True, FASTNET_BACKEND="cpp")
    message = (
        "backend 'cpp' is not available: fastnet was installed without its compiled extension (no working C++ compiler "
        "at the time). Reinstall with a compiler."
    )
    assert errors.splitlines()[-1] == f"ValueError: {message}"
    program = """
        import json, fastnet
        try:
            fastnet.use_backend("cpp")
        except ValueError as error:
            print(json.dumps([str(error), fastnet.build_info()["backend"]]))
    """
    answer = run_python(program, package=package_without_extension, FASTNET_BACKEND="numpy")
    assert answer == [message, "numpy"]


def test_sources_imported_instead_of_the_installed_package_are_named(run_python, sources_beside_an_installation):
    """As where Python starts in the source folder after ``pip install .``."""
    sources, installed = (Path(folder) for folder in sources_beside_an_installation.split(os.pathsep))
    why = (
        f"Python imported the sources in {sources / 'fastnet'}, which have no compiled extension, instead of the "
        f"fastnet that is installed in {installed / 'fastnet'}"
    )
    program = """
        import json, warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import fastnet
        print(json.dumps([[w.filename, str(w.message)] for w in caught]))
    """
    [[where, message]] = run_python(program, package=sources_beside_an_installation)
    assert where == "<string>"
    assert message.startswith(f"{why}: the Numba backend is used")
    assert "Start Python in another folder, or install the sources with `pip install -e .`, or set " in message
    assert "compiler" not in message
    program = "import fastnet; fastnet.sigmoid(0)"
    errors = run_python(program, package=sources_beside_an_installation, fails=True, FASTNET_BACKEND="cpp")
    assert errors.splitlines()[-1].startswith(f"ValueError: backend 'cpp' is not available: {why}. Start Python in")


@pytest.mark.parametrize("content", [b"", b"not a library"], ids=["empty", "nonsense"])
def test_an_extension_that_does_not_load_is_an_error(run_python, link_package, content):
    """Only a missing one falls back."""
    package = link_package(with_extension=False)
    (package / "fastnet" / f"_core{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(content)
    errors = run_python("import fastnet; fastnet.sigmoid(0)", package=package, fails=True)
    assert errors.splitlines()[-1].startswith("ImportError: ")
    assert "_core" in errors.splitlines()[-1]


def test_use_backend_as_a_function(backend):
    before = backends.active()
    try:
        fastnet.use_backend("numpy")
        assert backends.active().name == "numpy"
        assert fastnet.build_info()["backend"] == "numpy"
        fastnet.use_backend("numba")
        assert backends.active().name == "numba"
    finally:
        fastnet.use_backend(before.name)
    assert backends.active() is before


def test_use_backend_as_a_context_manager(backend):
    with fastnet.use_backend("numpy") as nothing:
        assert nothing is None
        assert backends.active().name == "numpy"
        with fastnet.use_backend("numba"):
            assert backends.active().name == "numba"
            with fastnet.use_backend("numpy"):
                assert backends.active().name == "numpy"
            assert backends.active().name == "numba"
        assert backends.active().name == "numpy"
    assert backends.active() is backend


def test_use_backend_is_undone_after_an_exception(backend):
    with pytest.raises(ZeroDivisionError), fastnet.use_backend("numpy"), fastnet.use_backend("numba"):
        raise ZeroDivisionError
    assert backends.active() is backend


def test_an_unknown_backend_leaves_the_one_in_use(backend):
    with pytest.raises(ValueError, match="unknown backend 'cuda'"):
        fastnet.use_backend("cuda")
    assert backends.active() is backend
    with fastnet.use_backend("numpy"):
        with pytest.raises(ValueError, match="unknown backend 'cuda'"):
            fastnet.use_backend("cuda")
        assert backends.active().name == "numpy"


def test_build_info(backend):
    info = fastnet.build_info()
    assert set(info) >= {"version", "backend", "isa", "compiler", "threading", "num_threads"}
    assert info["version"] == fastnet.__version__
    assert info["backend"] == backend.name
    assert info["num_threads"] == fastnet.get_num_threads() >= 1
    if backends.has_extension():
        from fastnet import _core

        assert _core.__version__ == fastnet.__version__
        assert info["isa"] == _core.isa()
        assert info["compiler"].startswith(("GCC", "Clang"))
        assert info["threading"] in ("C++ threads, as many as OpenMP says", "C++ threads")


def test_every_backend_offers_the_same(backend):
    names = {name for name in vars(backends.Backend) if not name.startswith("_")}
    assert "loop" in names
    assert "loop" in backend.algorithms
    for name in (names - {"incremental", "nodal"}) | set(backend.algorithms):
        assert callable(getattr(backend, name))
    assert backend.name in backends.NAMES


@pytest.mark.parametrize("name", AVAILABLE)
def test_importing_loads_nothing_slow(run_python, name):
    program = """
        import json, sys, fastnet
        slow = ("numba", "llvmlite", "matplotlib", "tqdm", "pooch", "scipy")
        print(json.dumps([name for name in slow if name in sys.modules]))
    """
    assert run_python(program, FASTNET_BACKEND=name) == []


# Instruction sets -----------------------------------------------------------------------------------------


def test_the_forced_instruction_set_runs(run_python, core):
    """Known by its name, and by its arithmetic: the baseline of x86-64 has no fused multiply-add."""
    program = """
        import json, platform, numpy as np, fastnet
        from fastnet import _core
        x = 1 + 2.0**-30
        # x*x rounded, and then the exact x*x added to it: only a fused multiply-add sees the difference.
        rest = fastnet.matmul(np.array([[-(x * x), x]]), np.array([[1.0], [x]]))[0, 0]
        print(json.dumps([fastnet.build_info()["isa"], _core.isa(), bool(rest != 0), platform.machine()]))
    """
    reported, used, fused, machine = run_python(program, FASTNET_ISA=core.isa())
    assert reported == used == core.isa()
    if machine in ("x86_64", "AMD64"):
        assert fused == (core.isa() != "baseline")


@NEEDS_EXTENSION
@pytest.mark.parametrize("variables", [{}, {"FASTNET_ISA": ""}], ids=["unset", "empty"])
def test_the_best_instruction_set_runs_by_default(run_python, variables):
    program = "import json; from fastnet import _core; print(json.dumps([_core.isa(), _core.available_isas()]))"
    used, available = run_python(program, **variables)
    assert used == available[0]
    assert available[-1] == "baseline"


@NEEDS_EXTENSION
@pytest.mark.parametrize("name", ["sse9", "AVX2", "avx512 "])
def test_an_unknown_forced_instruction_set_is_an_error(run_python, name):
    errors = run_python("import fastnet; fastnet.sigmoid(0)", fails=True, FASTNET_ISA=name)
    [last] = errors.splitlines()[-1:]
    assert f"unknown or unsupported instruction set '{name}': this processor can use " in last
    assert "'baseline'" in last
    assert last.startswith(("ImportError: ", "ValueError: "))


def test_an_unknown_instruction_set_leaves_the_one_in_use(core):
    before = core.isa()
    with pytest.raises(ValueError, match="unknown or unsupported instruction set 'sse9'"):
        core.use_isa("sse9")
    assert core.isa() == before
