"""The exact finite differences change no bit and nothing of the caller's; their threads, memory and Ctrl-C."""

from __future__ import annotations

import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from chains import ANSWERS, I, R, S, T, assert_same_bits, chain, compiled, exact
from fastnet import backends

AVAILABLE = backends.available()


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
@pytest.mark.parametrize("rows", [49, 64, 90, 200, 300])
def test_more_rows_than_the_first_level_cache_holds(backend, dtype, rows):
    """`nodal` adds up the rows' polynomials in parts; `incremental` has no polynomials and no parts."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((rows, 70)) * (rng.random((rows, 70)) < 0.3)
    spec = chain((70, 60, 4), (S, I), dtype)
    case = spec, x.astype(dtype), np.arange(rows) % 4
    nodal, incremental = (getattr(backend, algorithm)(*case, 1e-3)[0] for algorithm in ("nodal", "incremental"))
    for found, expected in zip(nodal, incremental, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=100 * np.finfo(dtype).eps * np.abs(expected).max())


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
spec = NetworkSpec.chain(
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
@pytest.mark.parametrize("name", [name for name in AVAILABLE if name != "numpy"])
def test_memory_is_bounded(run_python, name):
    """Under 64 MB beyond parameters, batch and result; a call stopped after half a second has taken all it takes."""
    program = """
    def field(name):
        with open("/proc/self/status") as file:
            lines = file.read().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    signal.signal(signal.SIGALRM, stop)
    peaks = []
    small = NetworkSpec.chain(
        tuple(np.ascontiguousarray(w[:5, :5]) for w in spec.weights),
        tuple(layer.bias[:5].copy() for layer in spec.layers),
        tuple(layer.activation for layer in spec.layers),
    )
    for algorithm in ("nodal", "incremental"):  # Numba compiles, also what only a missed interpolation needs.
        for h in (1e-4, 0.5, 50.0):
            getattr(backend, algorithm)(small, rng.random((3, 5)), np.arange(3), h)
    backend.nodal(spec, rng.random((3, 784)), np.arange(3), 1e-4)  # whose rows have kernels of their own
    for algorithm, batch in (("nodal", 100), ("nodal", 1000), ("incremental", 100), ("incremental", 1000)):
        x, t = rng.random((batch, 784)), rng.integers(0, 10, batch)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak from now on
        before = field("VmRSS")
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            getattr(backend, algorithm)(spec, x, t, 1e-4)
        except Enough:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        peaks.append(field("VmHWM") - before - sum(p.nbytes for p in spec.parameters))
    print(json.dumps(peaks))
    """
    peaks = run_python(DEEP + textwrap.dedent(program), FASTNET_BACKEND=name, OMP_NUM_THREADS="2", timeout=300)
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
