"""Turns of methods that other programs slow down: the time that is shown, and how much faster a method is called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastnet._tools.text import format_seconds
from fastnet.checking import comparison as comparison_module
from fastnet.checking import methods, timing
from fastnet.checking.comparison import GradientComparison, compare_gradients
from fastnet.checking.turns import times_faster
from fastnet.networks import TwoLayerNet


def compare(names: list[str], repeat: int) -> GradientComparison:
    """The comparison of a network of 213 parameters."""
    rng = np.random.default_rng(1)
    net = TwoLayerNet(20, 8, 5, weight_init_std=0.3, seed=2)
    return compare_gradients(net, rng.random((6, 20)), rng.integers(0, 5, 6), methods=names, repeat=repeat)


class FakeClock:
    """A clock that only moves when a method says what it costs; a busy machine multiplies that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.busy, self.blas_threads = 0.0, 1.0, 0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.blas, "can_be_limited", lambda: True)
        monkeypatch.setattr(timing.blas, "limited", self.limited)

    @contextlib.contextmanager
    def limited(self, count: int | None) -> Iterator[None]:
        self.blas_threads = 0 if count is None else count
        yield

    def method(self, name: str, backend: str | None, seconds: Callable[[], float]) -> methods.Method:
        def evaluate(problem: Any, backend: Any, entries: Any) -> methods.Evaluation:
            self.now += seconds() * self.busy * len(entries)
            return methods.Evaluation(np.zeros(len(entries)))

        return methods.Method(name, backend, evaluate)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock(monkeypatch)


@pytest.mark.parametrize(("with_one", "with_two", "best"), [(0.5, 1e-3, 2), (1e-3, 0.5, 1)])
def test_the_numpy_loop_has_the_best_number_of_threads(
    with_one: float,
    with_two: float,
    best: int,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    with_threads: Callable[[int], None],
) -> None:
    with_threads(2)
    loop = clock.method("numpy loop", "numpy", lambda: {1: with_one, 2: with_two}.get(clock.blas_threads, 0.0))
    monkeypatch.setattr(comparison_module, "BASELINE", loop)
    monkeypatch.setattr(comparison_module, "METHODS", (loop,))
    found = compare(["numpy loop"], 3)
    assert found["numpy loop"].blas_threads == best
    assert found["numpy loop"].seconds == pytest.approx(1e-3 * 213)
    threads = {1: "1 thread", 2: "2 threads"}[best]
    assert f"numpy loop: NumPy's matrix products on {threads}, the best of 1 and 2" in str(found).splitlines()


def test_a_busy_machine_is_noticed_and_exaggerates_nothing(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, with_threads: Callable[[int], None]
) -> None:
    with_threads(1)
    loop = clock.method("numpy loop", "numpy", lambda: 1e-2)
    fast = clock.method("fast", None, lambda: 1e-5)
    monkeypatch.setattr(comparison_module, "BASELINE", loop)
    monkeypatch.setattr(comparison_module, "METHODS", (loop, fast))
    take_turn = timing.Run.take_turn

    def disturbed(self: timing.Run, turn: int) -> Any:
        clock.busy = 40.0 if turn > 0 and self.task.method is loop else 1.0
        return take_turn(self, turn)

    monkeypatch.setattr(timing.Run, "take_turn", disturbed)
    found = compare(["numpy loop", "fast"], 5)
    assert found["numpy loop"].seconds == pytest.approx(40 * 1e-2 * 213)
    assert found["fast"].times_faster == pytest.approx(1000)
    assert found["numpy loop"].times_faster == 1
    text = str(found)
    assert "numpy loop: its turns differ by 40×: other programs were running, so don't rely on its time" in text
    assert "fast: its turns" not in text
    assert format_seconds(1e-2 * 213) + " to " + format_seconds(40 * 1e-2 * 213) in text


def test_without_threadpoolctl_the_threads_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.blas, "can_be_limited", lambda: False)
    found = compare(["numpy loop"], 1)
    assert found["numpy loop"].blas_threads is None
    assert "numpy loop: NumPy's matrix products on as many threads as they take by themselves; with" in str(found)


@pytest.mark.parametrize(
    ("baseline", "own", "expected"),
    [
        ([10.0, 11.0, 12.0], [1.0, 1.0, 1.0], 10),  # not 11: the fastest turn supports no more
        ([10.0, 10.0, 10.0], [1.0, 2.0, 3.0], 5),  # the medians' ratio, where our turns were slowed down
        ([15.0, 635.0, 635.0], [1.0, 1.0, 1.0], 15),
        ([15.0, 635.0, 635.0], [1.0, 40.0, 40.0], 15),
    ],
)
def test_no_more_than_the_fastest_turns_support(baseline: list[float], own: list[float], expected: float) -> None:
    assert times_faster(baseline, own) == pytest.approx(expected)
