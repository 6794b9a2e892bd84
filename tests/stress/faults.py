"""The faults that `python -m tests.stress` tries: a function for each, which returns how many and what failed."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import agreement
import fastnet
import large_inputs
from fastnet import backends
from tests.stress.parts import Outcome, Part


def _network(dtype: str = "float64") -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    net = fastnet.TwoLayerNet(30, 20, 5, dtype=dtype, seed=0)
    return net, rng.standard_normal((40, 30)).astype(dtype), rng.integers(0, 5, 40)


def _bytes(answer: dict[str, Any]) -> bytes:
    return b"".join(answer[name].tobytes() for name in sorted(answer))


def large_numbers(count: int) -> Outcome:
    """Inputs up to the largest numbers, on the backend in use."""
    numbers = np.linspace(0, large_inputs.COUNT - 1, min(count, large_inputs.COUNT)).astype(int)
    failures = [large_inputs.faults(backends.active(), int(number)) for number in numbers]
    return len(numbers), [", ".join(found) for found in failures if found]


def threads(count: int) -> Outcome:
    """16 threads of mixed calls on one network and on their own give the bits of one thread."""
    shared, x, t = _network()
    calls: tuple[Callable[[Any], bytes], ...] = (
        lambda net: net.predict(x).tobytes(),
        lambda net: _bytes(net.gradient(x, t)),
        lambda net: _bytes(net.numerical_gradient(x, t)),
        lambda net: _bytes(net.numerical_gradient(x, t, algorithm="incremental")),
    )
    wanted = [call(shared) for call in calls]

    def work(thread: int) -> list[str]:
        own, order = _network()[0], random.Random(thread)
        failures = []
        for _ in range(count):
            which = order.randrange(len(calls))
            if calls[which](order.choice((shared, own))) != wanted[which]:
                failures.append(f"call {which} in thread {thread} gave other bits")
        return failures

    with ThreadPoolExecutor(16) as pool:
        return 16 * count, [failure for failures in pool.map(work, range(16)) for failure in failures]


def _run(program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


FORKS = """
import multiprocessing, sys, threading
import numpy as np, fastnet
net = fastnet.TwoLayerNet(30, 20, 5, seed=0)
x, t = np.random.default_rng(0).standard_normal((400, 30)), np.arange(400) % 5
def work(queue):
    queue.put(net.numerical_gradient(x, t)["W1"].tobytes())
if __name__ == "__main__":
    wanted, stop = net.numerical_gradient(x, t)["W1"].tobytes(), threading.Event()
    def busy():
        while not stop.is_set():
            net.numerical_gradient(x, t)
    beside = threading.Thread(target=busy)
    beside.start()
    good, context = 0, multiprocessing.get_context(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        queue = context.SimpleQueue()
        child = context.Process(target=work, args=(queue,))
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
        elif child.exitcode == 0 and queue.get() == wanted:
            good += 1
    stop.set()
    beside.join()
    print(good)
"""


def forks(count: int) -> Outcome:
    """Children of a process that is inside a kernel at that moment."""
    failures: list[str] = []
    methods = ("fork", "forkserver", "spawn")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "forks.py"
        program.write_text(FORKS)
        for method in methods:
            command = [sys.executable, str(program), method, str(count)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=60 + 70 * count, check=False)
            good = int(result.stdout.strip() or 0)
            failures += [f"{method}: {result.stderr[-200:]}"] * (count - good)
    return len(methods) * count, failures


SAVE = """
import sys, fastnet, numpy as np
net = fastnet.TwoLayerNet(300, 100, 5, seed=0)
k = 0
print("ready", flush=True)
while True:
    k += 1
    for array in net.params.values():
        array[:] = k
    net.save_params(sys.argv[1])
"""


def kills_while_saving(count: int) -> Outcome:
    """SIGKILL while a file is written: it is the old one or the new one, whole."""
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.npz"
        fastnet.TwoLayerNet(300, 100, 5, seed=0).save_params(path)
        for number in range(count):
            child = subprocess.Popen([sys.executable, "-c", SAVE, str(path)], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(random.Random(number).uniform(0, 0.1))
            child.kill()
            child.wait()
            net = fastnet.TwoLayerNet(300, 100, 5, seed=1)
            try:
                net.load_params(path)
            except Exception as error:
                failures.append(f"kill {number}: {error!r}")
                continue
            if number and len({float(v) for array in net.params.values() for v in (array.min(), array.max())}) != 1:
                failures.append(f"kill {number}: the file is neither the old one nor the new one")
    return count, failures


INTERRUPTED = """
import signal, sys, time, numpy as np, fastnet
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
net = fastnet.TwoLayerNet(200, 100, 10, seed=0)
rng = np.random.default_rng(0)
x, t = rng.standard_normal((300, 200)), np.arange(300) % 10
deep = fastnet.MultiLayerNet(200, [40, 30], 10, use_batchnorm=True, dropout_ratio=0.3, seed=0)
images, conv = rng.standard_normal((40, 1, 12, 12)), fastnet.SimpleConvNet((1, 12, 12), seed=0)
large = rng.standard_normal((1500, 1500))
again = lambda call: lambda: [call() for _ in range(10**6)]
calls = {
    "loop": lambda: net.numerical_gradient(x, t, algorithm="loop"),
    "incremental": again(lambda: net.numerical_gradient(x, t, algorithm="incremental")),
    "nodal": again(lambda: net.numerical_gradient(x, t)),
    "hessian_diagonal": again(lambda: net.hessian_diagonal(x, t)),
    "gradient": again(lambda: net.gradient(x, t)),
    "predict": again(lambda: net.predict(x)),
    "stages": again(lambda: deep.numerical_gradient(x, t)),
    "stages_loop": lambda: deep.numerical_gradient(x, t, algorithm="loop"),
    "convolution": again(lambda: conv.numerical_gradient(images, t[:40])),
    "matmul": again(lambda: fastnet.matmul(large, large)),
    "numerical_gradient": lambda: fastnet.numerical_gradient(lambda v: float((v**2).sum()), np.ones(10**6)),
    "numerical_hessian": lambda: fastnet.numerical_hessian(lambda v: float((v**2).sum()), np.ones(2000)),
    "check_gradient": again(lambda: fastnet.check_gradient(net, net.gradient, (x, t))),
    "check_layer": again(lambda: fastnet.check_layer(fastnet.layers.ReLU(), x)),
    "compare_gradients": again(lambda: fastnet.compare_gradients(net, x, t)),
    "accuracy": again(lambda: net.accuracy(x, t)),
}
nets = (net, deep, conv)
wanted = net.numerical_gradient(x, t)
deep.numerical_gradient(x, t), conv.numerical_gradient(images, t[:40])
before = [{k: v.copy() for k, v in one.params.items()} for one in nets]
if len(sys.argv) == 1:
    print(*calls)
    sys.exit()
call = calls[sys.argv[1]]
print("ready", flush=True)
try:
    call()
except KeyboardInterrupt:
    came = time.time()
for one, params in zip(nets, before):
    assert all((one.params[k] == v).all() for k, v in params.items())
after = net.numerical_gradient(x, t)
assert all((after[k] == v).all() for k, v in wanted.items())
print(came, flush=True)
raise KeyboardInterrupt
"""


def _start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start Python with these words, and return when it has printed that it is ready."""
    command = [sys.executable, *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def _interrupt(child: subprocess.Popen[str], seconds: float) -> float:
    """Send Ctrl-C after some seconds, and return when it was sent."""
    time.sleep(seconds)
    sent = time.time()
    os.kill(child.pid, signal.SIGINT)
    return sent


def _end(child: subprocess.Popen[str], seconds: float = 60) -> tuple[str, str]:
    """Wait for what a child has printed; one that does not end is killed, as its exit code then says."""
    try:
        return child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()


def interrupts(count: int) -> Outcome:
    """Ctrl-C from another process within long calls: within 0.2 s, the parameters as they were, the next call right."""
    failures = []
    calls = _run(INTERRUPTED).stdout.split()
    for number in range(count):
        for call in calls:
            child = _start("-c", INTERRUPTED, call)
            sent = _interrupt(child, random.Random(f"{call} {number}").uniform(0.02, 0.3))
            out, err = _end(child)
            came = float(out.strip() or "inf")
            if child.returncode != -signal.SIGINT or came - sent > 0.2:
                failures.append(f"{call}: {came - sent:.3f} s, exit code {child.returncode}, {err[-200:]}")
    return len(calls) * count, failures


LOADING = """
import hashlib, signal, time, numpy as np, fastnet
signal.signal(signal.SIGINT, signal.default_int_handler)
net = fastnet.MultiLayerNet(200, [40, 30], 10, seed=0)
x, t = np.random.default_rng(0).standard_normal((300, 200)), np.arange(300) % 10
def answers():
    found = [net.numerical_gradient(x, t, algorithm=algorithm) for algorithm in ("nodal", "incremental")]
    return hashlib.sha256(b"".join(g.tobytes() for one in (*found, net.gradient(x, t)) for g in one.values()))
print("ready", flush=True)
try:
    answers()
    time.sleep(60)
except KeyboardInterrupt:
    print(answers().hexdigest())
"""


def interrupted_loading(count: int) -> Outcome:
    """Ctrl-C while the Numba backend reads its kernels from disk: the next call does not hang, and is right."""
    failures, expected = [], ""
    environment = os.environ | {"FASTNET_BACKEND": "numba", "OMP_NUM_THREADS": "2"}
    for number in range(-1, count):  # the first one compiles what is not on disk
        child = _start("-c", LOADING, env=environment)
        _interrupt(child, 0 if number < 0 else random.Random(number).uniform(0, 1))
        out, err = _end(child, 600 if number < 0 else 60)
        expected = expected or out
        if child.returncode or err or out != expected:
            failures.append(f"Ctrl-C {number}: exit code {child.returncode}, {out}, {err[-300:]}")
    return count, failures


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fastnet.cli import main
print("ready", flush=True)
sys.exit(main())
"""
COMMANDS = {
    "train, short epochs": "train --data digits --train-size 200 --test-size 50 --hidden 8 --iterations 1000000000",
    "train": "train --data digits --train-size 500 --test-size 50 --iterations 1000000000",
    "train --gradient": "train --data digits --train-size 500 --test-size 50 --gradient numerical --iterations 1000000",
    "train --network": "train --data digits --train-size 500 --test-size 50 --network conv --iterations 1000000",
    "compare": "compare --data digits --batch 1000 --full",
}


def interrupted_commands(count: int) -> Outcome:
    """Ctrl-C within commands, from their first line on: exit code 130 and no traceback."""
    failures = []
    for number in range(count):
        for name, command in COMMANDS.items():
            child = _start("-c", COMMAND, *command.split())
            _interrupt(child, random.Random(f"{name} {number}").uniform(0, 2))
            err = _end(child)[1]
            if child.returncode != 130 or err != "interrupted\n":
                failures.append(f"{name}: exit code {child.returncode}, {err[-300:]}")
    return len(COMMANDS) * count, failures


def agreement_of_processes(count: int) -> Outcome:
    """Each backend and instruction set, forced in a process, answers the same of random networks of every stage."""

    def ask(name: str, isa: str) -> Any:
        variables = {"FASTNET_BACKEND": name, "FASTNET_ISA": isa, "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, agreement.__file__, "0", str(count)]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return agreement.compare(count, ask)


def memory_growth(count: int) -> Outcome:
    """Calls and failed calls leave nothing behind: the process does not grow."""
    net, x, t = _network()

    def calls() -> None:
        net.numerical_gradient(x, t)
        net.gradient(x, t)
        for bad in (x[:, 1:], "x", np.full(3, np.nan)):
            try:
                net.numerical_gradient(bad, t)
            except (TypeError, ValueError):
                continue
            raise AssertionError("bad input was taken")

    for _ in range(max(count // 10, 100)):
        calls()
    before = _resident()
    for _ in range(count):
        calls()
    grown = _resident() - before
    return count, [f"{grown} bytes more after {count} calls"] if grown > 2**21 else []


def _resident() -> int:
    """How many bytes of this process are in memory now: its peak, that of the imports, would hide what grows below."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


LIMITED = """
import resource, sys, numpy as np, fastnet
net = fastnet.TwoLayerNet(300, 100, 10, seed=0)
x, t = np.ones((500, 300)), np.arange(500) % 10
net.numerical_gradient(x[:5], t[:5])  # imports what is imported at first use
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    getattr(net, sys.argv[2])(x, t)
except (MemoryError, RuntimeError) as error:
    assert isinstance(error, MemoryError) or "thread" in str(error), repr(error)
"""


def limited_memory(count: int) -> Outcome:
    """A limited address space gives MemoryError, not a crash."""
    failures = []
    for number in range(count):
        room, call = 2**16 * number * 8, ("gradient", "numerical_gradient")[number % 2]
        result = _run(LIMITED, str(room), call)
        if result.returncode != 0:
            failures.append(f"{call} with {room} bytes: {result.returncode}, {result.stderr[-200:]}")
    return count, failures


PARTS = {
    "large-numbers": Part(large_numbers, large_inputs.COUNT),
    "threads": Part(threads, 200),
    "forks": Part(forks, 200),
    "kills-while-saving": Part(kills_while_saving, 200),
    "interrupts": Part(interrupts, 100),
    "interrupted-loading": Part(interrupted_loading, 200),
    "interrupted-commands": Part(interrupted_commands, 100),
    "agreement": Part(agreement_of_processes, 400),
    "memory-growth": Part(memory_growth, 10_000),
    "limited-memory": Part(limited_memory, 250),
}
