"""Numbers of threads, forks, calls from several threads at once, and Ctrl-C; in fresh interpreters."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import fastnet
from fastnet import backends
from implementations import AVAILABLE, NEEDS_EXTENSION
from platforms import NEEDS_SIGINT

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


@pytest.mark.parametrize("name", AVAILABLE)
def test_far_more_threads_than_processors_do_no_harm(run_python, name):
    """A number is taken for what it is, or refused with a ValueError; whatever is started must not end the process."""
    program = """
        import json, numpy as np, fastnet
        net = fastnet.TwoLayerNet(50, 20, 10, seed=0)
        x, t = np.ones((100, 50)), np.zeros(100, int)
        before, same = net.gradient(x, t), []
        for count in (1000, 2**40):
            try:
                fastnet.set_num_threads(count)
            except ValueError as error:
                assert "count" in str(error), error
            after = net.gradient(x, t)
            for algorithm in fastnet.backends.active().algorithms:
                net.numerical_gradient(x, t, algorithm=algorithm)
            same += [bool(np.array_equal(before[name], after[name])) for name in before]
        print(json.dumps(same))
    """
    assert run_python(program, FASTNET_BACKEND=name, OMP_NUM_THREADS="2") == [True] * 8


def test_numpy_integers_are_numbers_of_threads(backend, with_threads):
    with_threads(np.int64(1))
    assert fastnet.get_num_threads() == 1


def test_each_task_is_done_once_on_any_number_of_threads(core, with_threads):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((900, 701)), rng.standard_normal((701, 57))  # 3.6 ms of work, enough for 100 threads
    with_threads(1)
    expected = fastnet.matmul(a, b)
    for count in (2, 3, 31, 32, 33, 100):
        with_threads(count)
        for _ in range(5):
            np.testing.assert_array_equal(fastnet.matmul(a, b), expected)


def skip_without_openmp(core):
    if "OpenMP" not in core.threading:
        pytest.skip("the extension was built without OpenMP")


def test_omp_num_threads(run_python, core):
    skip_without_openmp(core)
    program = "import json, fastnet; print(json.dumps(fastnet.build_info()['num_threads']))"
    for count in (1, 3):
        assert run_python(program, FASTNET_BACKEND="cpp", OMP_NUM_THREADS=str(count)) == count


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": " 2,1"}, 2),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "9"}, 4),
        ({"OMP_NUM_THREADS": "0"}, 4),
        ({"OMP_NUM_THREADS": "many"}, 4),
        ({"OMP_NUM_THREADS": "1,x"}, 4),
        ({"OMP_NUM_THREADS": ""}, 4),
        ({}, 4),
    ],
)
def test_numba_follows_omp_num_threads(run_python, variables, threads):
    """NUMBA_NUM_THREADS is the most; set_num_threads overrides OMP_NUM_THREADS."""
    program = """
        import json, fastnet
        before = fastnet.build_info()["num_threads"]
        fastnet.set_num_threads(2)
        after = fastnet.get_num_threads()
        fastnet.set_num_threads(9)
        print(json.dumps([before, after, fastnet.get_num_threads()]))
    """
    counts = run_python(program, FASTNET_BACKEND="numba", NUMBA_NUM_THREADS="4", **variables)
    assert counts == [threads, 2, 4]


def test_threadpoolctl(core, with_threads):
    skip_without_openmp(core)
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with_threads(2)
    with threadpoolctl.threadpool_limits(limits=1, user_api="openmp"):
        assert core.get_num_threads() == 1
    assert core.get_num_threads() == 2
    with_threads(1)
    assert core.get_num_threads() == 1


def test_threadpoolctl_limits_numba(run_python):
    """From before Numba is imported; what was set before the limit holds again after it."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    if not hasattr(threadpoolctl, "register"):
        pytest.skip("this threadpoolctl controls no other threads than those of the libraries that it knows")
    counts = run_python(
        """
        import json, sys
        import fastnet
        from threadpoolctl import threadpool_limits
        assert "numba" not in sys.modules
        counts = []
        with threadpool_limits(1):
            counts.append(fastnet.get_num_threads())
        counts.append(fastnet.get_num_threads())
        fastnet.set_num_threads(3)
        for api in ("openmp", "blas"):
            with threadpool_limits(2, user_api=api):
                counts.append(fastnet.get_num_threads())
        counts.append(fastnet.get_num_threads())
        with threadpool_limits(2):
            fastnet.set_num_threads(4)  # the last one counts
            counts.append(fastnet.get_num_threads())
        print(json.dumps(counts))
        """,
        FASTNET_BACKEND="numba",
        NUMBA_NUM_THREADS="4",
        OMP_NUM_THREADS="4",
    )
    assert counts == [1, 4, 2, 3, 3, 4]


def test_numba_goes_on_where_no_thread_can_be_started(monkeypatch, with_threads):
    from fastnet.backends._numba import threads

    rows, labels = np.random.default_rng(0).random((300, 50)), np.arange(300) % 10
    net = fastnet.TwoLayerNet(50, 40, 10, seed=0)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with fastnet.use_backend("numba"):
        with_threads(1)
        expected = net.numerical_gradient(rows, labels)["W1"]
        monkeypatch.setattr(threads, "get_num_threads", lambda: 3)
        with monkeypatch.context() as patch:
            patch.setattr(threads, "_helpers", [])
            patch.setattr(threading.Thread, "start", refuse)
            np.testing.assert_array_equal(net.numerical_gradient(rows, labels)["W1"], expected)
        np.testing.assert_array_equal(net.numerical_gradient(rows, labels)["W1"], expected)


@NEEDS_SIGINT
def test_ctrl_c_at_any_line_of_numbas_pool(run_python):
    """It hangs neither that call nor the next one."""
    lines, same = run_python(
        """
        import json, signal, sys
        import numpy as np, fastnet
        from fastnet.backends._numba import threads
        threads.get_num_threads = lambda: 3
        rows, labels = np.random.default_rng(0).random((300, 50)), np.arange(300) % 10
        net = fastnet.TwoLayerNet(50, 40, 10, seed=0)
        expected = net.gradient(rows, labels)["W1"]
        line, came, same = 0, True, True
        while came:
            left = line

            def trace(frame, event, argument):
                global left
                if not frame.f_code.co_filename.endswith(("_numba/threads.py", "interrupts.py")):
                    return None
                if event == "line":
                    left -= 1
                    if left == -1:
                        signal.raise_signal(signal.SIGINT)
                return trace

            sys.settrace(trace)
            try:
                net.gradient(rows, labels)
            except KeyboardInterrupt:
                pass
            sys.settrace(None)
            came = left < 0
            same = same and np.array_equal(net.gradient(rows, labels)["W1"], expected)
            line += 1
        print(json.dumps([line, bool(same)]))
        """,
        FASTNET_BACKEND="numba",
    )
    assert lines > 50
    assert same


NETWORK = """
    import json, os, signal, sys, threading, time, warnings
    import numpy as np
    import fastnet
    from fastnet.networks.chain import as_chain

    net = fastnet.TwoLayerNet(200, 50, 5, weight_init_std=0.1, seed=0)  # enough work for several threads
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((300, 200)), rng.integers(0, 5, 300)
    backend = fastnet.backends.active()
    entries = np.arange(30)

    def answer():
        pieces = [fastnet.softmax(np.tile(x, (4, 1))), net.predict(x), *net.gradient(x, t).values()]
        pieces.append(backend.loop(as_chain(net).spec, x, t, 1e-4, entries))
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


@pytest.mark.parametrize("name", AVAILABLE)
def test_ctrl_c_ends_a_long_numerical_gradient(run_python, name):
    """Of a network that takes all backends seconds; its parameters stay as they were, and the next call works."""
    interrupting = """
    net = fastnet.TwoLayerNet(784, 500, 100, seed=0)
    x, t = rng.random((20000, 784)), rng.integers(0, 100, 20000)
    before = {name: p.copy() for name, p in net.params.items()}
    small = fastnet.TwoLayerNet(2, 2, 2)
    found = {}
    for algorithm in backend.algorithms:
        rows = {"loop": 500, "incremental": 2000, "nodal": 20000}[algorithm]
        small.numerical_gradient([[0.1, 0.2]], [0], algorithm=algorithm)  # Numba compiles
        call = lambda: net.numerical_gradient(x[:rows], t[:rows], algorithm=algorithm)
        delays = [delay_of(call) for _ in range(3)]
        same = all(np.array_equal(p, before[name]) for name, p in net.params.items())
        found[algorithm] = [delays, same, bool(np.isfinite(net.predict(x[:3])).all())]
    print(json.dumps(found))
    """
    found = run_python(program(INTERRUPTING + interrupting), FASTNET_BACKEND=name, OMP_NUM_THREADS="2", timeout=300)
    assert tuple(found) == backends.get(name).algorithms
    for delays, same, works in found.values():
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
