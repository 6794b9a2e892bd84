"""Numba compiles each kernel once for each dtype. With several processes this runs first: others find all on disk."""

from __future__ import annotations

import contextlib
import sys
from threading import Event, current_thread, main_thread
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import fastnet
from chains import ANSWERS, L, R, S, T, chain
from fastnet import backends, layers
from fastnet.backends.spec import Activation
from platforms import NEEDS_SIGINT

COMPILES = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT is set")


def called_from_python():
    """Every compiled function except those that only others call, by its name."""
    modules = [module for name, module in sys.modules.items() if name.startswith("fastnet.backends._numba.")]
    functions = [f for module in modules for f in vars(module).values() if hasattr(f, "signatures")]
    return {f"{f.__module__}.{f.__name__}": f for f in functions if not f.targetoptions["no_cpython_wrapper"]}


def use_everything(dtype):
    """Every function: all layouts of arrays, depths of networks, kinds of targets and lengths of moves."""
    backend, rng = backends.active(), np.random.default_rng(0)
    x, labels = rng.standard_normal((9, 5)).astype(dtype), np.arange(9) % 3
    sparse = np.where(rng.random(x.shape) < 0.9, 0, x).astype(dtype)
    frozen = x.copy()
    frozen.flags.writeable = False
    rows = rng.dirichlet(np.ones(3), 9).astype(dtype)
    for kind in Activation:
        backend.activation(kind, x, 0.1)
        backend.activation_derivative(kind, x, 0.1)
    y = backend.softmax(x[:, :3])
    for answer, widths in zip(ANSWERS, ((5, 3), (5, 4, 3), (5, 6, 7, 4, 3)), strict=True):
        spec = chain(widths, (S, R, L, T)[-len(widths) + 1 :], dtype, answer, biased=len(widths) > 2)
        for inputs in (x, sparse, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], frozen):
            for t in (labels, rows, np.asfortranarray(rows)):
                backend.forward(spec, inputs)
                backend.loss(spec, inputs, t)
                backend.loss_and_gradient(spec, inputs, t)
                backend.loop(spec, inputs, t, 1e-3, np.arange(4))
        for t in (labels, rows):
            backend.mean_loss(0, y, t)
            backend.mean_loss(1, y, t)
            for h in (1e-4, 0.5, 50.0):
                backend.incremental(spec, x, t, h)
                backend.nodal(spec, x, t, h)


def use_stages(dtype):
    """Every kind of stage, both kinds of targets, and rows of other layouts."""
    backend, rng = backends.active(), np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    stack = [layers.Convolution(draw(2, 1, 2, 2), draw(2)), layers.BatchNorm(draw(2), draw(2)), layers.ReLU()]
    stack += [layers.MaxPooling(2, 2), layers.AveragePooling(2, 2), layers.Dropout(0.2, seed=0), layers.Flatten()]
    stack += [layers.Affine(draw(2, 4)), layers.BatchNorm(draw(4), draw(4)), layers.Affine(draw(4, 3), draw(3))]
    net = fastnet.Network(stack, layers.SoftmaxWithLoss(), 0.1)
    x, labels = draw(5, 1, 4, 4), np.arange(5) % 3
    for rows in (x, np.asfortranarray(x)):
        for t in (labels, rng.dirichlet(np.ones(3), 5).astype(dtype)):
            net.predict(rows)
            net.loss(rows, t)
            net.input_gradient(rows, t)
            for algorithm in backend.algorithms:
                net.numerical_gradient(rows, t, 1e-3, algorithm=algorithm)


@COMPILES
def test_each_kernel_is_compiled_once_for_each_dtype():
    with fastnet.use_backend("numba"):
        for dtype in ("float32", "float64"):
            use_everything(dtype)
            use_stages(dtype)
    found = {name: len(f.signatures) for name, f in called_from_python().items()}
    assert {name: count for name, count in found.items() if count > 2} == {}
    assert sum(count == 2 for count in found.values()) > 10


def test_a_line_tells_of_kernels_that_are_compiled(monkeypatch):
    """From the outermost kernel's start to its end, and of fastnet's kernels alone."""
    from fastnet.backends._numba import compiling

    lines = []

    @contextlib.contextmanager
    def bar(wanted):
        lines.append(f"open {wanted}")
        yield SimpleNamespace(show=lambda name, new, total: lines.append(name))
        lines.append("closed")

    monkeypatch.setattr(compiling, "progress_bar", bar)
    monkeypatch.setattr(compiling, "on_terminal", lambda: True)
    notice = compiling.Notice()

    def event(name, is_start, module="fastnet.backends._numba.products"):
        function = SimpleNamespace(__module__=module, __name__=name)
        notice.notify(SimpleNamespace(is_start=is_start, data={"dispatcher": SimpleNamespace(py_func=function)}))

    event("other", True, "somebody.else")
    event("product", True)
    event("inner", True)
    event("inner", False)
    event("product", False)
    event("other", False, "somebody.else")
    told = [f"compiling {name} for the first time" for name in ("product", "inner")]
    assert lines == ["open True", *told, "closed"]


KERNEL = """
import numba

@numba.njit(cache=True)
def kernel(x):
    return x + 1
"""


@NEEDS_SIGINT
@pytest.mark.parametrize("from_disk", [False, True])
def test_ctrl_c_while_llvm_works(run_python, tmp_path, from_disk):
    """Python comes to it in a function that LLVM calls, whose exceptions are dropped: it is raised afterwards."""
    (tmp_path / "somebodys.py").write_text(KERNEL)
    cache = str(tmp_path / "cache")
    if from_disk:
        assert run_python("import somebodys; print(somebodys.kernel(1))", NUMBA_CACHE_DIR=cache) == 2
    found = run_python(
        """
        import json, signal, sys
        from fastnet.backends._numba import compiling
        from somebodys import kernel
        found = []

        def interrupt(frame, event, argument):
            if event == "call" and frame.f_code.co_name == "_raw_object_cache_notify" and not found:
                found.append("Ctrl-C")
                signal.raise_signal(signal.SIGINT)

        sys.unraisablehook = lambda dropped: found.append("dropped")
        sys.setprofile(interrupt)
        try:
            kernel(1)
        except KeyboardInterrupt:
            found.append("raised")
        sys.setprofile(None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        found.append(kernel(1))
        print(json.dumps([*found, len(kernel.stats.cache_hits) > 0]))
        """,
        NUMBA_CACHE_DIR=cache,
    )
    assert found == ["Ctrl-C", "raised", 2, from_disk]


@COMPILES
def test_helpers_compile_nothing(monkeypatch):
    """Not even where they come first: they leave it to the caller, who waits for them."""
    from fastnet.backends._numba import compiling, threads

    monkeypatch.setattr(threads, "get_num_threads", lambda: 2)
    tried, left = Event(), []

    @numba.njit(nogil=True)
    def compiled(begin, end, out):
        for i in range(begin, end):
            out[i] += 1

    def kernel(begin, end, out):
        if current_thread() is main_thread():
            assert tried.wait(60)
        try:
            compiled(begin, end, out)
        except compiling.NotCompiled:
            left.append(begin)
            raise
        finally:
            tried.set()

    out = np.zeros(1000)
    threads.share(kernel, (out,), len(out), threads.SHORT_PRODUCTS)
    assert len(left) == 1
    np.testing.assert_array_equal(out, 1)


LOCKS = """
import dis, json, signal, sys, threading
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock
import numba
from fastnet.backends._numba import compiling

functions = [getattr(kind, name) for kind in (type(global_compiler_lock), type(ffi.lib._lock))
             for name in ("__enter__", "__exit__")]
functions += [type(global_compiler_lock).acquire, type(global_compiler_lock).release]
places = [(f.__code__, i.offset) for f in functions for i in dis.get_instructions(f)]
raised = passed = 0

def is_free(lock):
    def take():
        if lock.acquire(timeout=1):
            lock.release()
            free.append(lock)
    free = []
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return free == [lock]

def f(x):
    return x + 1

for code, offset in places:
    came = False
    def trace(frame, event, _):
        global came
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti == offset and not came:
            came = True
            signal.raise_signal(signal.SIGINT)
        return trace
    kernel = numba.njit(f)
    sys.settrace(trace)
    try:
        kernel(1)
    except KeyboardInterrupt:
        raised += came
    finally:
        sys.settrace(None)
    passed += came
    for lock in (global_compiler_lock._lock, ffi.lib._lock._lock):
        assert is_free(lock), (code.co_name, offset)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert kernel(1) == 2
print(json.dumps([raised, passed]))
"""


@NEEDS_SIGINT
def test_ctrl_c_leaves_no_lock_of_numbas_taken(run_python):
    """At no instruction of the functions that take the locks and give them back, where LLVM and Numba are called."""
    raised, passed = run_python(LOCKS, timeout=300)
    assert raised == passed > 50
