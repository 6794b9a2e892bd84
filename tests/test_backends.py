"""Choosing, forcing and reporting backends, instruction sets and threads; forks, concurrent calls and Ctrl-C.

What is read at import is tested in fresh interpreters, with an assertion of what ran there.
"""

from __future__ import annotations

import importlib.machinery
import os
import threading

import numpy as np
import pytest

import fastnet
from fastnet import backends

NEEDS_EXTENSION = pytest.mark.skipif(not backends.has_extension(), reason="fastnet was installed without its extension")
AVAILABLE = [pytest.param(name, marks=NEEDS_EXTENSION if name == "cpp" else ()) for name in ("cpp", "numba", "numpy")]

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
    message = "backend 'cpp' is not available: fastnet was installed without its compiled extension"
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


# Threads --------------------------------------------------------------------------------------------------


def test_set_num_threads(backend, with_threads):
    for count in (2, 1, 2):
        with_threads(count)
        # The reference has one thread; Numba starts no more than there are processors.
        expected = {"cpp": count, "numba": min(count, os.cpu_count() or 1), "numpy": 1}[backend.name]
        assert fastnet.get_num_threads() == fastnet.build_info()["num_threads"] == expected


def test_num_threads_hold_for_backends_chosen_later(with_threads):
    with fastnet.use_backend("numpy"):
        with_threads(1)
    for name in backends.available():
        with fastnet.use_backend(name):
            assert fastnet.get_num_threads() == 1


@pytest.mark.parametrize("count", [1000, 2**40])
@pytest.mark.parametrize("name", AVAILABLE)
def test_far_more_threads_than_processors_do_no_harm(run_python, name, count):
    """A number is taken for what it is, or refused with a ValueError; whatever is started must not end the process."""
    program = f"""
        import json, numpy as np, fastnet
        net = fastnet.TwoLayerNet(50, 20, 10, seed=0)
        x, t = np.ones((100, 50)), np.zeros(100, int)
        before = net.gradient(x, t)
        try:
            fastnet.set_num_threads({count})
        except ValueError as error:
            assert "count" in str(error), error
        after = net.gradient(x, t)
        for algorithm in fastnet.backends.active().algorithms:
            net.numerical_gradient(x, t, algorithm=algorithm)
        print(json.dumps([bool(np.array_equal(before[name], after[name])) for name in before]))
    """
    assert run_python(program, FASTNET_BACKEND=name, OMP_NUM_THREADS="2") == [True] * 4


def test_numpy_integers_are_numbers_of_threads(backend, with_threads):
    with_threads(np.int64(1))
    assert fastnet.get_num_threads() == 1


def skip_without_openmp(core):
    if "OpenMP" not in core.threading:
        pytest.skip("the extension was built without OpenMP")


def test_omp_num_threads(run_python, core):
    skip_without_openmp(core)
    program = "import json, fastnet; print(json.dumps(fastnet.build_info()['num_threads']))"
    for count in (1, 3):
        assert run_python(program, FASTNET_BACKEND="cpp", OMP_NUM_THREADS=str(count)) == count


def test_threadpoolctl(core, with_threads):
    skip_without_openmp(core)
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with_threads(2)
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert core.get_num_threads() == 1
    assert core.get_num_threads() == 2
    with_threads(1)
    assert core.get_num_threads() == 1


NETWORK = """
    import json, os, signal, sys, threading, time, warnings
    import numpy as np
    import fastnet

    net = fastnet.TwoLayerNet(200, 50, 5, weight_init_std=0.1, seed=0)  # enough work for several threads
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((300, 200)), rng.integers(0, 5, 300)
    backend = fastnet.backends.active()
    entries = np.arange(30)

    def answer():
        pieces = [fastnet.softmax(np.tile(x, (4, 1))), net.predict(x), *net.gradient(x, t).values()]
        pieces.append(backend.loop(net._spec(), x, t, 1e-4, entries))
        return b"".join(piece.tobytes() for piece in pieces).hex()
"""


def program(text):
    return NETWORK + text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("name", AVAILABLE)
def test_a_forked_child_computes_the_same(run_python, name):
    """OpenMP's and Numba's threads do not survive a fork: a child that waits for them would wait for ever."""
    forking = """
    import select
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of a fork beside threads: it is the point
    fastnet.set_num_threads(2)
    expected = answer()
    fastnet.set_num_threads(2)  # what is set before the fork is not what the child can use
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            same = answer() == expected
            fastnet.set_num_threads(2)
            same = same and answer() == expected
            os.write(write, b"same" if same else b"different")
        finally:
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], 60)
    said = os.read(read, 100).decode() if ready else "nothing for a minute"
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(json.dumps([said, answer() == expected]))
    """
    assert run_python(program(forking), FASTNET_BACKEND=name, OMP_NUM_THREADS="2") == ["same", True]


def many_threads(work, count=8):
    """Run work(number) in so many Python threads at once; the first exception is raised."""
    errors = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread did not end"
    if errors:
        raise errors[0]


def test_many_python_threads_at_once(backend, cases, with_threads):
    """Each its own network: everyone gets what a single caller gets, bit by bit."""
    with_threads(2)
    networks = [cases.case(number, "float64") for number in (0, 3, 7, 13)]
    entries = [np.arange(min(30, sum(p.size for p in spec.parameters))) for spec, _, _ in networks]

    def answers(k):
        spec, x, t = networks[k]
        differences = backend.loop(spec, x, t, 1e-4, entries[k])
        return [backend.forward(spec, x), *backend.gradient(spec, x, t), differences]

    expected = [answers(k) for k in range(len(networks))]

    def work(number):
        for k in range(len(networks) * (5 if backend.name == "cpp" else 1)):
            k = (k + number) % len(networks)
            for one, wanted in zip(answers(k), expected[k], strict=True):
                np.testing.assert_array_equal(one, wanted)

    many_threads(work)


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_number_of_threads_may_change_during_calls(run_python, name):
    changing = """
    ended, wrong = threading.Event(), []
    wide = fastnet.TwoLayerNet(100, 800, 100, seed=0)  # takes long to set up, so that the change falls into that
    rows, labels = rng.random((128, 100)), np.zeros(128, int)
    expected, expected_wide = answer(), wide.gradient(rows, labels)["W1"]

    def change():
        while not ended.is_set():
            for count in (1, 40):
                fastnet.set_num_threads(count)

    def compute():
        for _ in range(1 if backend.name == "numpy" else 10):
            if answer() != expected or not np.array_equal(wide.gradient(rows, labels)["W1"], expected_wide):
                wrong.append("different")

    threads = [threading.Thread(target=f) for f in (change, compute, compute, compute)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    ended.set()
    threads[0].join()
    print(json.dumps(wrong))
    """
    assert run_python(program(changing), FASTNET_BACKEND=name, OMP_NUM_THREADS="2") == []


# Ctrl-C ---------------------------------------------------------------------------------------------------


INTERRUPTING = """
    def delay_of(call):
        # Seconds from Ctrl-C to KeyboardInterrupt, or None where the call ended before Ctrl-C.
        sent = []

        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.3, interrupt)
        timer.start()
        try:
            call()
            timer.cancel()
        except KeyboardInterrupt:
            return time.perf_counter() - sent[0]
        finally:
            timer.join()
"""


def assert_prompt(delays):
    """All within a second, since the machine may be busy, and the best of them within the 0.2 s that are promised."""
    assert None not in delays, f"a call was too short to be interrupted: {delays}"
    assert max(delays) < 1, delays
    assert min(delays) < 0.2, delays


@pytest.mark.parametrize(("algorithm", "rows"), [("loop", 500), ("incremental", 2000), ("nodal", 20000)])
@pytest.mark.parametrize("name", AVAILABLE)
def test_ctrl_c_ends_a_long_numerical_gradient(run_python, name, algorithm, rows):
    """Of a network that takes all backends seconds; its parameters stay as they were, and the next call works."""
    if algorithm not in backends.get(name).algorithms:
        pytest.skip(f"the {name} backend has no algorithm {algorithm!r}")
    interrupting = f"""
    net = fastnet.TwoLayerNet(784, 500, 100, seed=0)
    x, t = rng.random(({rows}, 784)), rng.integers(0, 100, {rows})
    before = {{name: p.copy() for name, p in net.params.items()}}
    small = fastnet.TwoLayerNet(2, 2, 2)
    small.numerical_gradient([[0.1, 0.2]], [0], algorithm={algorithm!r})  # Numba compiles
    delays = [delay_of(lambda: net.numerical_gradient(x, t, algorithm={algorithm!r})) for _ in range(3)]
    same = all(np.array_equal(p, before[name]) for name, p in net.params.items())
    print(json.dumps([delays, same, bool(np.isfinite(net.predict(x[:3])).all())]))
    """
    delays, same, works = run_python(
        program(INTERRUPTING + interrupting), FASTNET_BACKEND=name, OMP_NUM_THREADS="2", timeout=300
    )
    assert_prompt(delays)
    assert same
    assert works


@NEEDS_EXTENSION
@pytest.mark.parametrize("call", ["fastnet.matmul(a, a)", "wide.gradient(rows, labels)", "wide.predict(rows)"])
def test_ctrl_c_ends_another_long_call(run_python, call):
    interrupting = f"""
    a = rng.random((4000, 4000))
    wide = fastnet.TwoLayerNet(1000, 3000, 10, seed=0)
    rows, labels = rng.random((20000, 1000)), np.zeros(20000, int)
    print(json.dumps([delay_of(lambda: {call}) for _ in range(3)]))
    """
    delays = run_python(program(INTERRUPTING + interrupting), FASTNET_BACKEND="cpp", OMP_NUM_THREADS="2", timeout=300)
    assert_prompt(delays)
