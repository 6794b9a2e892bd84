"""Functions evaluated by executors and by compiled code: the same numbers, in order, and what is said of mistakes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fastnet
from fastnet import backends
from platforms import NEEDS_SIGINT

X = np.linspace(-1.0, 1.5, 7)


def smooth(x):
    return float((np.sin(x) * np.arange(1, len(x) + 1)).sum())


def vector(x):
    return np.exp(x[:3])


def failing(x, entry):
    if x[entry] > X[entry]:
        raise LookupError("here")
    return 0.0


def ends_its_process(x, marker):
    """End the process that comes first, once."""
    if x[3] > X[3]:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os._exit(1)
    return smooth(x)


# Executors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [None, "auto"])
def test_threads_give_the_same_bits(h):
    x = X.copy()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for call, f in [
            (fastnet.numerical_gradient, smooth),
            (fastnet.numerical_jacobian, vector),
            (fastnet.numerical_hessian, smooth),
        ]:
            np.testing.assert_array_equal(call(f, x, h, executor=pool), call(f, x, h))
        v = np.arange(7.0)
        assert fastnet.directional_derivative(smooth, x, v, h, executor=pool) == fastnet.directional_derivative(
            smooth, x, v, h
        )
        named = fastnet.numerical_gradient(lambda p: smooth(p["a"]), {"a": x}, h, executor=pool)
        np.testing.assert_array_equal(named["a"], fastnet.numerical_gradient(smooth, x, h))
    np.testing.assert_array_equal(x, X)


def test_processes_give_the_same_bits_and_name_the_entry():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        gradient = fastnet.numerical_gradient(smooth, X.copy(), executor=pool)
        np.testing.assert_array_equal(gradient, fastnet.numerical_gradient(smooth, X.copy()))
        check = fastnet.check_gradient(smooth, np.cos(X) * np.arange(1, 8), X.copy(), executor=pool)
        assert check.passed
        with pytest.raises(LookupError, match="here") as raised:
            fastnet.numerical_gradient(functools.partial(_failing_later, entry=5), X.copy(), executor=pool)
        assert any("x[5] = " in note for note in raised.value.__notes__)
        with pytest.raises(TypeError, match=r"f cannot be sent to other processes, .*: define it with def at the top"):
            fastnet.numerical_gradient(lambda x: 1.0, X.copy(), executor=pool)
        x = X.copy()
        with pytest.raises(ValueError, match=r"f reads x elsewhere than in its argument. With executor=, each worker"):
            fastnet.numerical_gradient(functools.partial(_of_another, other=x), x, executor=pool)
    with pytest.raises(ValueError, match="executor takes no work, it is shut down"):
        fastnet.numerical_gradient(smooth, X.copy(), executor=pool)


def _failing_later(x, entry):
    """Fail where this entry moves alone, not in the check, which moves all."""
    return failing(x, entry) if x[0] == X[0] else 0.0


def _of_another(x, other):
    return smooth(other)


@pytest.mark.parametrize(
    ("executor", "error", "message"),
    [
        (3, TypeError, "executor must be a concurrent.futures.Executor, not int: for dask.distributed pass"),
        (concurrent.futures.ThreadPoolExecutor, TypeError, "executor must be a concurrent.futures.Executor, not"),
    ],
)
def test_bad_executors(executor, error, message):
    with pytest.raises(error, match=message):
        fastnet.numerical_gradient(smooth, X.copy(), executor=executor)
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="leave out executor"):
        fastnet.numerical_gradient(smooth, X.copy(), executor=pool, vectorized=True)


@NEEDS_SIGINT
def test_ctrl_c_cancels_what_has_not_begun(ctrl_c):
    calls, main = [], threading.get_ident()

    def f(x):
        if threading.get_ident() != main:
            calls.append(0)
            if len(calls) == 1:
                ctrl_c()
            time.sleep(0.05)
        return smooth(x)

    x = np.linspace(0, 1, 40)
    before = x.copy()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        fastnet.numerical_gradient(f, x, executor=pool)
    assert len(calls) <= 40  # the chunk that had begun, of four; there were 80 points
    assert x.tobytes() == before.tobytes()


@NEEDS_SIGINT
@pytest.mark.parametrize("call", [fastnet.numerical_gradient, fastnet.numerical_hessian, fastnet.numerical_jacobian])
def test_ctrl_c_restores_x(call, ctrl_c):
    x = {"a": np.linspace(0, 1, 4), "b": np.ones((2, 2))}
    before = {name: array.copy() for name, array in x.items()}

    def f(at):
        if at["b"][1, 0] != 1 and at["a"][0] == 0:  # not in the check, which moves all
            ctrl_c()
            time.sleep(1)
        return float(at["a"].sum() * at["b"].sum())

    with pytest.raises(KeyboardInterrupt):
        call(f, x)
    for name, array in x.items():
        assert array.tobytes() == before[name].tobytes()


@pytest.fixture
def two_minutes():
    """Ends a test that waits for workers that do not come."""

    def end(*_):
        raise TimeoutError("the cluster has not answered for two minutes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm that ends a wait")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("two_minutes")
def test_a_killed_dask_worker_changes_nothing(tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"host": "127.0.0.1", "silence_logs": 50, "dashboard_address": None}
    with (
        # What the killed worker had is asked of it until this ends, and then computed again.
        pytest.importorskip("dask").config.set({"distributed.comm.timeouts.connect": "5s"}),
        distributed.LocalCluster(n_workers=0, **settings) as cluster,
        workers_of(cluster.scheduler_address, 2, tmp_path),
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        dying = functools.partial(ends_its_process_once, marker=str(tmp_path / "died"), here=os.getpid())
        executor = client.get_executor()
        gradient = fastnet.numerical_gradient(dying, X.copy(), executor=executor)
        assert (tmp_path / "died").exists()
        assert len(client.ncores()) == 1
        np.testing.assert_array_equal(gradient, fastnet.numerical_gradient(smooth, X.copy()))
        executor.shutdown()
        with pytest.raises(ValueError, match="executor takes no work, it is shut down"):
            fastnet.numerical_gradient(smooth, X.copy(), executor=executor)


@contextlib.contextmanager
def workers_of(scheduler, count, folder):
    """Worker processes of a scheduler on this machine, without the nannies that would start them again."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--no-nanny", "--no-dashboard"]
    command += ["--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(command, env=environment, **quiet) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm that ends a wait")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("two_minutes")
def test_dask_tells_how_long_workers_are_waited_for():
    distributed = pytest.importorskip("distributed")
    with (
        pytest.importorskip("dask").config.set({"distributed.scheduler.no-workers-timeout": "200ms"}),
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", silence_logs=50, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(Exception, match=r"without any running workers"),
    ):
        fastnet.numerical_gradient(smooth, X.copy(), executor=client.get_executor())


def ends_its_process_once(x, marker, here):
    return smooth(x) if os.getpid() == here else ends_its_process(x, marker)


# Compiled functions ---------------------------------------------------------------------------------------

PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_ssize_t, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p)


@PROTOTYPE
def cubes(n, x, data):
    return sum(x[i] ** 3 for i in range(n))


@pytest.fixture(params=backends.available())
def any_backend(request):
    with fastnet.use_backend(request.param):
        yield request.param


@pytest.mark.usefixtures("any_backend")
def test_ctypes_functions():
    x = np.array([[0.5, 1.0], [-2.0, 4.0]])
    np.testing.assert_array_equal(fastnet.numerical_gradient(cubes, x, h=0.5), 3 * x**2 + 0.25)
    result = fastnet.numerical_gradient(cubes, x, "auto", full_output=True, bounds=(-2, 4))
    assert (np.abs(result.value - 3 * x**2) <= result.error).all()
    named = fastnet.numerical_gradient(cubes, {"a": x, "b": np.array(1.0)}, h=0.5)
    np.testing.assert_array_equal(named["a"], 3 * x**2 + 0.25)
    np.testing.assert_allclose(np.diag(fastnet.numerical_hessian(cubes, x[0], h=0.5)), 6 * x[0])
    assert fastnet.directional_derivative(cubes, x, np.ones((2, 2)), h=0.5) == (3 * x**2 + 0.25).sum()


@pytest.mark.usefixtures("any_backend")
def test_a_compiled_function_that_changes_its_argument_is_refused():
    @PROTOTYPE
    def shifts(n, x, data):
        x[0] += 1
        return 0.0

    x = np.ones(2)
    with pytest.raises(ValueError, match="f changes its argument, which is const"):
        fastnet.numerical_gradient(shifts, x)
    np.testing.assert_array_equal(x, [1, 1])


@pytest.mark.skipif(not backends.has_extension(), reason="fastnet was installed without its extension")
def test_the_guards_of_the_binding():
    from fastnet import _core

    address = ctypes.cast(cubes, ctypes.c_void_p).value
    x, entries, values = np.ones(2), np.zeros((1, 1), np.int64), np.ones((1, 1))
    assert _core.evaluate(address, 0, x, entries, values).tolist() == [2.0]
    assert _core.evaluate(address, 0, x, entries[:0], values[:0]).shape == (0,)
    for arguments, error, message in [
        ((0, 0, x, entries, values), ValueError, "the function is a null pointer"),
        ((address, 0, x, entries + 2, values), ValueError, "entry 2 is not one of 2 elements"),
        ((address, 0, x, entries - 1, values), ValueError, "entry -1 is not one of 2 elements"),
        ((address, 0, x, entries, np.ones((2, 1))), ValueError, r"entries have shape \(1, 1\), but values \(2, 1\)"),
        ((address, 0, x.astype("f4"), entries, values), TypeError, "x must be float64, not float32"),
        ((address, 0, x, entries.astype("i4"), values), TypeError, "entries must be int64, not int32"),
        ((address, 0, x, entries[0], values), ValueError, "entries must have 2 dimension"),
        ((address, 0, [1.0], entries, values), TypeError, "x must be a NumPy array, not list"),
    ]:
        with pytest.raises(error, match=message):
            _core.evaluate(*arguments)


def test_bad_compiled_functions():
    wrong = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int, ctypes.POINTER(ctypes.c_double))(lambda n, x: 0.0)
    untyped = ctypes.CDLL(None).abs
    x = np.ones(2)
    for f, point, options, message in [
        (wrong, x, {}, r"a ctypes function must have the signature double f\(intptr_t n, .*, not restype c_double"),
        (untyped, x, {}, "not restype c_int and argtypes unknown: set f.restype and f.argtypes"),
        (cubes, x.astype("f4"), {}, "a native function takes float64, but x is float32: pass x.astype"),
        (cubes, x, {"vectorized": True}, "evaluated by the backend's threads: leave out vectorized"),
        (cubes, x, {"method": "complex"}, "method='complex' needs a function that takes complex numbers"),
    ]:
        with pytest.raises(TypeError, match=message):
            fastnet.numerical_gradient(f, point, **options)
    with pytest.raises(TypeError, match="a native function returns one number"):
        fastnet.numerical_jacobian(cubes, x)


@pytest.fixture(scope="module")
def compiled():
    """A cfunc, a function that Numba has compiled for Python, one that raises, and a cfunc of another signature."""
    numba = pytest.importorskip("numba")

    def beyond(x):
        if x[1] > 1:
            raise ValueError("too far")
        return x[1]

    def sum_of_cubes(n, x, data):
        return (numba.carray(x, (n,)) ** 3).sum()

    as_cfunc = numba.cfunc("float64(intp, CPointer(float64), voidptr)")(sum_of_cubes)
    wrong = numba.cfunc("float64(float64)")(lambda x: x)
    return as_cfunc, numba.njit(lambda x: (x**3).sum()), numba.njit(beyond), wrong


@pytest.mark.usefixtures("any_backend")
def test_numba_functions(compiled):
    as_cfunc, jitted, beyond, wrong = compiled
    x = np.linspace(0.5, 2, 50)
    for f in (as_cfunc, jitted):
        np.testing.assert_allclose(fastnet.numerical_gradient(f, x), 3 * x**2 + 1e-8, rtol=1e-8)
    np.testing.assert_allclose(fastnet.numerical_gradient(jitted, x.reshape(5, 10)), 3 * x.reshape(5, 10) ** 2, 1e-7)
    with pytest.raises(ValueError, match="too far"):
        fastnet.numerical_gradient(beyond, np.array([0.0, 1.0]))
    with pytest.raises(TypeError, match=r"a Numba cfunc must have the signature .*, not \(float64,\) -> float64"):
        fastnet.numerical_gradient(wrong, x)


def test_scipy_low_level_callables():
    scipy = pytest.importorskip("scipy")
    native = scipy.LowLevelCallable(cubes)
    np.testing.assert_array_equal(fastnet.numerical_gradient(native, np.array([1.0, 2.0]), h=0.5), [3.25, 12.25])
    wrong = scipy.LowLevelCallable(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(math.sin))
    with pytest.raises(TypeError, match="a LowLevelCallable must have the signature"):
        fastnet.numerical_gradient(wrong, np.ones(2))


def test_threads_share_a_compiled_function():
    """The bits do not depend on the number of threads."""
    x = np.linspace(0, 1, 300)
    before, found = fastnet.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            fastnet.set_num_threads(threads)
            found.append(fastnet.numerical_gradient(cubes, x[:20]))
    finally:
        fastnet.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
