"""The extension built in other ways: with sanitizers, by Clang, without OpenMP; and older NumPy, older processors.

What is built stays in ``build/stress``, so that a second run compiles only what has changed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pybind11

import fastnet
from tests.stress.parts import Outcome, Part

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "build" / "stress"
SMOKE = ROOT / ".ci" / "try_wheel.py"
WARNINGS = ("-DFASTNET_WERROR=ON", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")


def _run(
    command: Sequence[str | Path], folder: Path = ROOT, timeout: float = 7200, **variables: str
) -> tuple[bool, str]:
    """Whether a program ended well, and what it wrote."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode == 0, done.stdout


def _configure(folder: Path, *options: str) -> None:
    defines = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    good, said = _run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *defines, *options])
    if not good:
        raise RuntimeError(said[-2000:])


def _build(folder: Path, *options: str) -> Path:
    """Compile the extension, and return a folder beside it with the package that has it."""
    _configure(folder, *options)
    good, said = _run(["cmake", "--build", folder])
    if not good:
        raise RuntimeError(said[-2000:])
    package = folder / "package" / "fastnet"
    package.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / "fastnet").iterdir():
        if file.stem != "__pycache__" and not file.name.startswith("_core.") and not (package / file.name).exists():
            (package / file.name).symlink_to(file)
    for extension in folder.glob("_core.*"):
        shutil.copy(extension, package)
    return package.parent


def _search_path(package: Path) -> str:
    return os.pathsep.join([str(package), str(ROOT / "tests" / "support"), *filter(None, sys.path)])


def _python(package: Path, *arguments: str | Path, **variables: str) -> tuple[bool, str]:
    """Run Python without `site`, so that no editable install's import hook comes before the package."""
    python = [sys.executable, "-S", *arguments]
    return _run(python, package, PYTHONPATH=_search_path(package), FASTNET_BACKEND="cpp", **variables)


# Sanitizers -----------------------------------------------------------------------------------------------

SANITIZED = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1", "-DFASTNET_OPTIMISATION=-O1")
KERNEL_TESTS = (
    ("backends/test_guards.py", "files/test_hostile_input.py", "functions/test_matmul.py", "differences/test_edges.py"),
    ("differences/test_second_order.py", "differences/test_kinks.py", "layers/test_passes.py", "training/test_core.py"),
    (
        "backends/test_stages.py",
        "backends/test_stage_input.py",
        "differences/test_large_inputs.py",
        "backends/test_narrow.py",
    ),
)
THREAD_TESTS = (
    ("differences/test_bits_and_threads.py",),
    ("training/test_core.py", "backends/test_narrow.py"),
    ("training/test_fused.py",),
)

OUT_OF_BOUNDS = """
import numpy as np
from fastnet import _core
_core.exp(np.lib.stride_tricks.as_strided(np.ones(10), (100_000,), (8,)))
"""
RACE = """
import threading, types
import numpy as np
from fastnet import _core
a, b = np.ones((400, 400)), np.ones((400, 400))
net = types.SimpleNamespace(layers=((a, None, 0, 0.0),), output=0, loss=1, loss_constant=1.0, weight_decay=0.0)
rows, t = np.arange(40), np.ones((40, 400))
update = types.SimpleNamespace(rule=0, constants=(), slots=(), coefficients=np.full((40, 1), 1e-9))
batches = types.SimpleNamespace(data=_core.Dataset(b[:40].copy()), targets=t, order=rows, size=1, epochs=1)
def train():
    _core.train(net, batches, 0, 1e-3, update, np.zeros(40), np.zeros(1, np.int64))
others = [threading.Thread(target=train) for _ in range(2)]
for thread in others:
    thread.start()
for thread in others:
    thread.join()
"""


def _sanitize(kind: str, flags: str, tests: Sequence[Sequence[str]], control: str, report: str) -> Outcome:
    """Run tests with a sanitized extension; the control shows that a fault in a kernel is reported."""
    folder = BUILDS / kind
    package = _build(
        folder, *SANITIZED, f"-DCMAKE_CXX_FLAGS={flags} -fno-omit-frame-pointer", "-DFASTNET_X86_TARGETS=1"
    )
    libraries = (f"lib{kind[0]}san.so", "libstdc++.so")  # the second for the exceptions, which the first looks for
    print_names = [["g++", f"-print-file-name={name}"] for name in libraries]
    paths = [subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() for words in print_names]
    variables = {
        "LD_PRELOAD": ":".join(paths),
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "4",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:exitcode=66",
    }
    failures = []
    good, said = _python(package, "-c", control, **variables)
    if good or report not in said or "CHECK failed" in said:
        failures.append(f"{kind}: the control is not reported: {said[-300:]}")
    for group in tests:
        files = [ROOT / "tests" / name for name in group]
        # -s, since UBSan writes to the process's own stderr.
        pytest = ["-m", "pytest", "-s", "-q", "--import-mode=importlib", "-p", "no:xdist", "-p", "no:cacheprovider"]
        words = ["-k", "not numba and not numpy and not avx512", "--rootdir", ROOT, *files]
        good, said = _python(package, *pytest, *words, **variables)
        found = min((at for at in (said.find("runtime error"), said.find(report)) if at >= 0), default=None)
        if not good or found is not None:
            (folder / "report.txt").write_text(said)
            excerpt = said[-1500:] if found is None else said[max(found - 200, 0) : found + 1500]
            failures.append(f"{kind}, {', '.join(group)} (all in {folder / 'report.txt'}): {excerpt}")
    return 1 + len(tests), failures


def address(count: int) -> Outcome:
    """No access outside an array and no undefined behaviour in the tests of the kernels."""
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
    return _sanitize("address", flags, KERNEL_TESTS[:count], OUT_OF_BOUNDS, "AddressSanitizer")


def thread(count: int) -> Outcome:
    """No race in the pool and the threaded kernels."""
    return _sanitize("thread", "-fsanitize=thread", THREAD_TESTS[:count], RACE, "ThreadSanitizer: data race")


# Compilers, paths and versions ----------------------------------------------------------------------------


def clang(count: int) -> Outcome:
    """Clang accepts every file, with the warnings of the build as errors."""
    folder = BUILDS / "clang"
    _configure(folder, "-DCMAKE_CXX_COMPILER=clang++", "-DFASTNET_OPENMP=OFF", *WARNINGS)
    commands = json.loads((folder / "compile_commands.json").read_text())[:count]
    failures = []
    for entry in commands:
        words = shlex.split(entry["command"])
        words = [word for word in words if word != "-c"]
        del words[words.index("-o") : words.index("-o") + 2]
        good, said = _run([*words, "-fsyntax-only"], Path(entry["directory"]))
        if not good:
            errors = [line for line in said.splitlines() if "error: " in line]
            failures.append("\n".join([entry["file"], *(errors or [said])])[:2000])
    return len(commands), failures


def _unusual_package() -> Path:
    options = ("-DCMAKE_BUILD_TYPE=Debug", "-DFASTNET_OPTIMISATION=-O0", "-DFASTNET_X86_TARGETS=0")
    return _build(BUILDS / "名前 with spaces ß", *options, "-DFASTNET_OPENMP=OFF", *WARNINGS)


def unusual_build(count: int) -> Outcome:
    """Without OpenMP and without optimisation, warnings as errors, in a folder with spaces and other letters."""
    good, said = _python(_unusual_package(), SMOKE)
    return 1, [] if good else [said[-1000:]]


NUMPY_TESTS = ("functions", "backends/test_guards.py", "files/test_saving.py", "networks/test_mistakes.py")
OLDEST = ("numpy==1.24.0", "numba==0.59.1", "pytest>=8", "hypothesis", "mpmath", "scipy==1.11.4", "threadpoolctl>=3.1")


def oldest_numpy(count: int) -> Outcome:
    """The oldest NumPy that is declared, with the same extension, in an environment of its own."""
    folder = BUILDS / "oldest-numpy"
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", folder])
    good, said = _run([python, "-m", "pip", "install", "--quiet", *OLDEST])
    if not good:
        return 1, [said[-600:]]
    package = Path(fastnet.__file__).parents[1]
    about = next(Path(entry) for entry in sys.path if list(Path(entry).glob("fastnet-*.dist-info")))
    (metadata,) = about.glob("fastnet-*.dist-info")
    site = next(folder.glob("lib/*/site-packages"))
    (site / metadata.name).exists() or (site / metadata.name).symlink_to(metadata)
    (site / "fastnet_tested.pth").write_text(f"{package}\n")
    files = [ROOT / "tests" / name for name in NUMPY_TESTS]
    pytest = ["-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-k", "not numba", *files]
    good, said = _run([python, *pytest], FASTNET_BACKEND="cpp")
    return 1, [] if good else [said[-2000:]]


PROCESSORS = ("Nehalem", "Westmere", "SandyBridge", "IvyBridge", "Haswell")


def older_processors(count: int) -> Outcome:
    """The installed extension under `qemu-x86_64`, on processors without AVX2 for all but the last."""
    failures = []
    for name in PROCESSORS[:count]:
        program = SMOKE.read_text() + f"\nassert (info['isa'] == 'baseline') == {name != 'Haswell'}, info\n"
        good, said = _run(["qemu-x86_64", "-cpu", name, sys.executable, "-c", program], OPENBLAS_NUM_THREADS="1")
        if not good:
            failures.append(f"{name}: {said[-600:]}")
    return min(count, len(PROCESSORS)), failures


PARTS = {
    "address": Part(address, len(KERNEL_TESTS)),
    "thread": Part(thread, len(THREAD_TESTS)),
    "clang": Part(clang, 1000),
    "unusual-build": Part(unusual_build, 1),
    "oldest-numpy": Part(oldest_numpy, 1),
    "older-processors": Part(older_processors, len(PROCESSORS)),
}
