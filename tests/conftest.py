"""What all tests share: every implementation, both dtypes, real data, subprocesses and the count of what ran."""

from __future__ import annotations

import collections
import gc
import importlib.machinery
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest

import oracle as oracle_module

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where there is no extension, the import says so
    import fastnet
    from fastnet import backends

# Examples are the same in every run; HYPOTHESIS_PROFILE=explore looks for new ones. Fixtures of one test are the
# same for all its examples, which is meant: the implementation is chosen once.
_SETTINGS: dict[str, Any] = {
    "deadline": None,  # the first example may compile
    "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
}
hypothesis.settings.register_profile("same", derandomize=True, database=None, max_examples=30, **_SETTINGS)
hypothesis.settings.register_profile("explore", max_examples=2000, **_SETTINGS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def _wanted(variable: str) -> bool:
    return os.environ.get(variable, "0").lower() not in ("", "0", "false", "no", "off")


# Which fastnet is tested ----------------------------------------------------------------------------------

HAS_EXTENSION = backends.has_extension()
ISAS: list[str] = []
if HAS_EXTENSION:
    from fastnet import _core

    ISAS = _core.available_isas()
else:
    os.environ.setdefault("FASTNET_BACKEND", "numba")  # what it falls back on, without the warning
KNOWN_ISAS = ("avx512", "avx2", "baseline") if platform.machine() in ("x86_64", "AMD64") else ("baseline",)
IMPLEMENTATIONS = (*(f"cpp-{isa}" for isa in KNOWN_ISAS), "numba", "numpy")


def pytest_configure(config: pytest.Config) -> None:
    """Set what the processes of the tests inherit: Ctrl-C, and one thread of OpenBLAS where there are several."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more would spin while they wait for work


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out the tests among several processes, which would do the same work twice."""
    if config.getoption("dist") != "loadgroup":
        return None
    from sharing import Sharing  # which needs pytest-xdist

    return Sharing(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        from sharing import in_order

        items[:] = in_order(items)


def pytest_sessionstart() -> None:
    """Refuse to test a package without the extension that was asked for, or beside the one that was installed."""
    if HAS_EXTENSION:
        return
    folder = Path(fastnet.__file__).parent
    installed = [str(f) for f in importlib.metadata.files("fastnet") or [] if f.name.startswith("_core.")]
    if any(f.endswith((".so", ".pyd")) for f in installed):
        raise pytest.UsageError(
            f"the installed fastnet has its extension, but the one imported from {folder} has not: run "
            f"`pytest --import-mode=importlib`, not `python -m pytest`, which imports the source tree"
        )
    if _wanted("FASTNET_REQUIRE_EXT"):
        raise pytest.UsageError(f"FASTNET_REQUIRE_EXT is set, but the fastnet in {folder} has no extension")


def pytest_report_header() -> list[str]:
    return [
        f"fastnet {fastnet.__version__} from {Path(fastnet.__file__).parent}",
        f"backends: {', '.join(backends.available())}; instruction sets: {', '.join(ISAS) or 'no extension'}; "
        f"threads: {fastnet.get_num_threads()}",
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many tests passed on each implementation."""
    counts = collections.Counter(
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "implementation"
    )
    if counts:
        shown = ", ".join(f"{name} {counts[name]}" for name in IMPLEMENTATIONS)
        terminalreporter.write_line(f"tests passed per backend and instruction set: {shown}")


# Implementations ------------------------------------------------------------------------------------------


def _use(implementation: str) -> Iterator[Any]:
    name, _, isa = implementation.partition("-")
    if name == "cpp" and not HAS_EXTENSION:
        pytest.skip("fastnet was installed without its extension")
    if name == "cpp" and isa not in ISAS:
        pytest.skip(f"this processor has no {isa}")
    with fastnet.use_backend(name):
        if name != "cpp":
            yield backends.active()
            return
        before = _core.isa()
        _core.use_isa(isa)
        try:
            assert _core.isa() == isa
            yield backends.active()
        finally:
            _core.use_isa(before)


@pytest.fixture(params=IMPLEMENTATIONS)
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of each backend, with each instruction set, while it is the one in use."""
    request.node.user_properties.append(("implementation", request.param))
    yield from _use(request.param)


@pytest.fixture(params=[name for name in IMPLEMENTATIONS if name.startswith("cpp")])
def core(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The extension module with each instruction set."""
    request.node.user_properties.append(("implementation", request.param))
    for _ in _use(request.param):
        yield _core


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def with_threads() -> Iterator[Callable[[int], None]]:
    """`fastnet.set_num_threads`, undone after the test."""
    before = fastnet.get_num_threads()
    yield fastnet.set_num_threads
    fastnet.set_num_threads(before)


# Helpers --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The module `oracle`, where long double is wider than float64."""
    if not oracle_module.IS_WIDE:
        pytest.skip("long double is no wider than float64 on this platform: there is no oracle")
    return oracle_module


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    """The module `oracle`, for its networks and batches alone, which any platform has."""
    return oracle_module


@pytest.fixture(scope="session")
def link_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with the tested package, by links to its files, with or without the extension."""

    def link(with_extension: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("package")
        (folder / "fastnet").mkdir()
        files = [f for f in Path(fastnet.__file__).parent.iterdir() if f.stem != "__pycache__"]
        # An editable install keeps its extension in another place.
        files = [f for f in files if not f.name.startswith("_core.")]
        for file in (*files, *([Path(_core.__file__)] if with_extension and HAS_EXTENSION else [])):
            (folder / "fastnet" / file.name).symlink_to(file)
        if not with_extension:
            describe_installation(folder, "fastnet/__init__.py")
        return folder

    return link


def describe_installation(folder: Path, *files: str) -> None:
    """Write what an installer writes beside a package, so that `folder` counts as where fastnet is installed."""
    about = folder / f"fastnet-{fastnet.__version__}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: fastnet\nVersion: {fastnet.__version__}\n", encoding="utf-8"
    )
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in files), encoding="utf-8")


@pytest.fixture(scope="session")
def sources_beside_an_installation(link_package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two folders for ``PYTHONPATH``: the package without its extension, and an installed one that has it."""
    sources = link_package(with_extension=False)
    (about,) = sources.glob("*.dist-info")
    installed = tmp_path_factory.mktemp("installed")
    about.rename(installed / about.name)
    (installed / "fastnet").mkdir()
    extension = f"fastnet/_core{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    (installed / extension).touch()
    (installed / about.name / "RECORD").write_text(f"{extension},,\n", encoding="utf-8")
    return os.pathsep.join([str(sources), str(installed)])


@pytest.fixture(scope="session")
def package(link_package: Callable[..., Path]) -> Path:
    """A folder with the tested package, for `run_python`."""
    return link_package()


@pytest.fixture
def run_python(package: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs a program in a fresh interpreter and gives back what it printed last, read as JSON.

    It imports the fastnet under test, or that in the folder `package`; warnings are errors. With
    `fails`, it must fail, and what it wrote to stderr is given back.
    """

    def run(
        program: str, package: Path | str = package, fails: bool = False, timeout: float = 120, **variables: str
    ) -> Any:
        ours = ("FASTNET_", "NUMBA_", "OMP_", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        # Without `site` (-S), so that no editable install's import hook comes before the folder.
        environment["PYTHONPATH"] = os.pathsep.join([str(package), *(folder for folder in sys.path if folder)])
        done = subprocess.run(
            [sys.executable, "-S", "-W", "error", "-c", textwrap.dedent(program)],
            env=environment | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Sends SIGINT to this process, whose handler is Python's own while the test runs.

    Python drops what is raised in a finalizer or a callback that its garbage collector runs: it collects nothing
    meanwhile, as with the objects of a whole run of tests it takes long enough to be interrupted.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    gc.enable()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


# Data -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mnist_test_set() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """MNIST's 10,000 test images, shape (10000, 784), from 0 to 1, and their labels."""
    folder = fastnet.datasets.find_mnist()
    if folder is None:
        message = "MNIST is not on this machine: FASTNET_DATA_DIR should name the folder of its four files"
        if _wanted("FASTNET_REQUIRE_MNIST"):
            pytest.fail(message)
        pytest.skip(message)
    _, (x, t) = fastnet.datasets.load_mnist(data_dir=folder)
    return x.astype(np.float64), t
