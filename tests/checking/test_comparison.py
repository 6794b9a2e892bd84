"""compare_gradients: a row per method, each checked; what is sampled says so; nothing of the user's is changed."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet._tools.text import format_seconds, three_digits
from fastnet.checking import comparison as comparison_module
from fastnet.checking import methods, timing
from fastnet.checking.comparison import GradientComparison, compare_gradients
from fastnet.checking.turns import times_faster
from fastnet.networks import TwoLayerNet

LOOPS = [name for name in ("numpy loop", "numba loop", "c++ loop") if name != "c++ loop" or backends.has_extension()]


def batch_of(inputs: int, classes: int, rows: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.random((rows, inputs)), rng.integers(0, classes, rows)


def net_of(dtype: str = "float64") -> TwoLayerNet:
    return TwoLayerNet(20, 8, 5, weight_init_std=0.3, dtype=dtype, seed=2)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is too slow: whatever can be sampled is."""
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 0.0)


@pytest.fixture(scope="module")
def comparison() -> GradientComparison:
    return compare_gradients(net_of(), *batch_of(20, 5), repeat=2)


# The comparison -------------------------------------------------------------------------------------------


def test_a_row_for_every_method(comparison: GradientComparison) -> None:
    algorithms = [name for name in ("incremental", "nodal") if name in backends.active().algorithms]
    assert [row.name for row in comparison.rows] == [*LOOPS, *algorithms, "backprop"]
    assert (comparison.network, comparison.parameters, comparison.batch) == ("20-8-5", 213, 6)
    assert (comparison.dtype, comparison.h) == ("float64", 1e-4)
    assert comparison.build_info == fastnet.build_info()
    for row in comparison.rows:
        assert row.seconds > 0
        assert (row.entries, row.sampled) == (213, False)
        assert row.times_faster == times_faster(comparison["numpy loop"].turns, row.turns)
        assert (len(row.turns), row.seconds) == (2, statistics.median(row.turns))
        if row.name == "backprop":
            assert row.check is None
        else:
            assert row.check is not None
            assert row.check.passed, str(row.check)
            assert row.check.entries == 213
            assert row.check.largest_relative < 1e-7
    assert comparison["numpy loop"].times_faster == 1


def test_every_backend_and_dtype(backend: Any, dtype: str) -> None:
    methods = [name for name in ("incremental", "nodal") if name in backend.algorithms]
    chosen = ["numpy loop", *methods, "backprop"]
    found = compare_gradients(net_of(dtype), *batch_of(20, 5), methods=chosen, repeat=1)
    assert [row.name for row in found.rows] == chosen
    assert found.h == {"float64": 1e-4, "float32": 1e-2}[dtype]
    for row in found.rows[:-1]:
        assert row.check is not None
        assert row.check.passed, f"{row.name}: {row.check}"


def test_one_row_of_data() -> None:
    x, t = batch_of(20, 5)
    found = compare_gradients(net_of(), x[0], t[0], methods=["numpy loop"], repeat=1)
    assert found.batch == 1
    assert found["numpy loop"].check


def test_the_smallest_network() -> None:
    found = compare_gradients(fastnet.SimpleNet(seed=0), [[0.6, 0.9]], [[0, 0, 1]], methods=["numpy loop"], repeat=9)
    assert (found.network, found.parameters, found["numpy loop"].entries) == ("2-3", 6, 6)


@pytest.mark.usefixtures("no_time")
def test_what_is_sampled_says_so() -> None:
    net, batch = TwoLayerNet(50, 8, 5, seed=0), batch_of(50, 5)
    found = compare_gradients(net, *batch, methods=["numpy loop", "backprop"], sample=100, repeat=3)
    row = found["numpy loop"]
    assert row.sampled
    assert 100 <= row.entries < 150
    assert row.check is not None
    assert row.check.passed
    assert row.check.entries == row.entries
    assert not found["backprop"].sampled
    lines = str(found).splitlines()
    assert next(line for line in lines if line.startswith("numpy loop")).split()[3].endswith("*")
    assert f"  parameters in the sample: {row.entries} (numpy loop)" in lines
    assert any(line.startswith("* timed and compared at a sample of the 453 parameters") for line in lines)


@pytest.mark.usefixtures("no_time")
def test_full_samples_nothing() -> None:
    found = compare_gradients(net_of(), *batch_of(20, 5), methods=["numpy loop"], sample=10, full=True, repeat=2)
    assert not found["numpy loop"].sampled
    assert found["numpy loop"].entries == 213
    assert "*" not in str(found)


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("full", [False, True])
def test_every_entry_of_the_sample_is_computed_once(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    take_turn = timing.Run.take_turn

    def recorded(self: timing.Run, turn: int) -> Any:
        asked.extend(int(e) for share in self.plan.shares(turn) for e in self.plan.entries[share])
        return take_turn(self, turn)

    monkeypatch.setattr(timing.Run, "take_turn", recorded)
    found = compare_gradients(net_of(), *batch_of(20, 5), methods=["numpy loop"], sample=50, repeat=3, full=full)
    assert len(asked) == len(set(asked)) == found["numpy loop"].entries


def test_a_sample_is_spread_over_all_arrays() -> None:
    sizes = [39200, 50, 500, 10]
    ends = np.cumsum(sizes)
    entries = timing.spread(sizes, 1000)
    assert 1000 <= len(entries) <= 1040
    assert np.all(np.diff(entries) > 0)
    counts = np.bincount(np.searchsorted(ends, entries, side="right"))
    assert counts.tolist() == [986, 10, 13, 10]
    first = entries[entries < 39200]
    assert len(np.unique(first % 50)) == 50  # in step with no column
    assert np.all(np.diff(first) < 2 * 39200 / 985)


def test_a_sample_of_all() -> None:
    assert timing.spread([3, 1, 20], 24).tolist() == list(range(24))


# A wrong method -------------------------------------------------------------------------------------------


def with_method(monkeypatch: pytest.MonkeyPatch, method: methods.Method) -> None:
    monkeypatch.setattr(comparison_module, "METHODS", (*methods.METHODS, method))


def test_a_wrong_method_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(problem: Any, backend: Any, entries: Any) -> methods.Evaluation:
        values = problem.loop(backend, entries).values
        return methods.Evaluation(np.where(entries == 170, 1.01 * values, values))

    with_method(monkeypatch, methods.Method("wrong loop", "numpy", wrong))
    found = compare_gradients(net_of(), *batch_of(20, 5), methods=["numpy loop", "wrong loop"], repeat=1)
    assert found["numpy loop"].check
    check = found["wrong loop"].check
    assert check is not None
    assert (check.failed, check.worst[0].label) == (1, "W2[0, 2]")
    assert "wrong loop: FAILED: 1 of 213 entries differ" in str(found).splitlines()


def test_a_method_more_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def exact(problem: Any, backend: Any, entries: Any) -> methods.Evaluation:
        gradient = problem.gradient(backend).values
        return methods.Evaluation(gradient, fastnet.backends.spec.Diagnostics(loss=2.3, evaluations=1234, fallbacks=5))

    with_method(monkeypatch, methods.Method("exact", None, exact, by_entry=False))
    found = compare_gradients(net_of(), *batch_of(20, 5), methods=["exact"], repeat=1)
    assert found["exact"].times_faster is None
    assert found["exact"].diagnostics == {"evaluations": 1234, "fallbacks": 5, "kinks": 0}
    assert "exact: 1,234 evaluations, 5 fallbacks, 0 kinks" in str(found)


def test_a_slow_whole_method_has_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("BUDGET_SECONDS", "BLINK_SECONDS", "CHUNK_SECONDS"):
        monkeypatch.setattr(timing, limit, 1e-12)
    calls = []

    def slow(problem: Any, backend: Any, entries: Any) -> methods.Evaluation:
        calls.append(1)
        return problem.gradient(backend)

    with_method(monkeypatch, replace(methods.REFERENCE, name="slow", evaluate=slow))
    found = compare_gradients(net_of(), *batch_of(20, 5), methods=["slow"], repeat=5)
    assert found["slow"].entries == 213
    assert len(calls) == 3  # to have it compiled, to see what it takes, and the one


# Nothing of the user's changes ----------------------------------------------------------------------------


def test_nothing_is_changed(with_threads: Callable[[int], None]) -> None:
    with_threads(1)
    net, (x, t) = net_of(), batch_of(20, 5)
    params = {name: array.copy() for name, array in net.params.items()}
    arrays = dict(net.params)
    before = x.copy(), t.copy()
    for name in backends.available():
        with fastnet.use_backend(name):
            compare_gradients(net, x, t, methods=["numpy loop", "backprop"], repeat=1)
            assert backends.active().name == name
            assert fastnet.get_num_threads() == 1
    for name, array in net.params.items():
        assert array is arrays[name]
        np.testing.assert_array_equal(array, params[name])
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(t, before[1])


def test_get_gives_a_backend_the_threads_that_were_asked_for(with_threads: Callable[[int], None]) -> None:
    active = backends.active()
    with_threads(1)
    assert backends.get("numba").get_num_threads() == 1
    assert backends.active() is active
    with pytest.raises(ValueError, match="unknown backend 'fortran'"):
        backends.get("fortran")


# Text, JSON, picture --------------------------------------------------------------------------------------


def test_the_table(comparison: GradientComparison) -> None:
    lines = str(comparison).splitlines()
    assert lines[0] == "20-8-5 network of 213 parameters, float64, batch of 6, h = 0.0001"
    assert lines[1].startswith(f"fastnet {fastnet.__version__}, backend {backends.active().name}")
    assert " ".join(lines[3].split()) == (
        "method time per gradient fastest to slowest turn times faster difference relative at"
    )
    assert set(lines[4]) == {"-"}
    table = lines[5 : 5 + len(comparison.rows)]
    assert [line.split("  ")[0] for line in table] == [row.name for row in comparison.rows]
    ends = {line.index("time per gradient") + len("time per gradient") for line in lines[3:4]}
    assert all(line[max(ends) : max(ends) + 2] == "  " for line in table)  # columns are straight
    assert all(line == line.rstrip() for line in lines)
    assert "\n" not in repr(comparison)


def test_json(comparison: GradientComparison) -> None:
    read = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert read["network"] == "20-8-5"
    assert read["build_info"]["backend"] == backends.active().name
    assert [row["name"] for row in read["rows"]] == [row.name for row in comparison.rows]
    assert read["rows"][0]["check"]["passed"] is True
    assert read["rows"][-1]["check"] is None


def test_an_unknown_row(comparison: GradientComparison) -> None:
    with pytest.raises(KeyError, match="fortran loop"):
        comparison["fortran loop"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PDF"])
def test_the_picture_is_saved(comparison: GradientComparison, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, had_pyplot = tmp_path / f"times{suffix}", "matplotlib.pyplot" in sys.modules
    figure = comparison.plot(path)
    assert path.stat().st_size > 1000
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.name for row in comparison.rows]
    assert axes.get_xscale() == "log"
    texts = [text.get_text() for text in axes.texts]
    for row in comparison.rows[1:]:
        assert row.times_faster is not None
        assert f"{three_digits(row.times_faster)}× faster" in texts
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot  # nothing but the figure: no state, no display


def test_a_picture_of_an_unknown_format(comparison: GradientComparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"must end in one of .*\.png.*, not '\.xyz'"):
        comparison.plot(tmp_path / "times.xyz")


def test_a_picture_without_matplotlib(comparison: GradientComparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "fastnet\[plot\]"'):
        comparison.plot()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (52.34, "52.3 s"),
        (1680.0, "1,680 s"),
        (1.0, "1 s"),
        (0.9999, "1 s"),
        (0.0123, "12.3 ms"),
        (3.2e-4, "320 µs"),
        (9.996e-4, "1 ms"),
        (4.44e-6, "4.44 µs"),
        (5e-8, "50 ns"),
    ],
)
def test_times_have_three_digits(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_numbers_have_three_digits() -> None:
    texts = [three_digits(value) for value in (1, 3.987, 27.84, 168_234.0, 0.4449)]
    assert texts == ["1", "3.99", "27.8", "168,000", "0.445"]


# Progress -------------------------------------------------------------------------------------------------


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    compare_gradients(net_of(), *batch_of(20, 5), methods=["numpy loop"], repeat=1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "numpy loop" in err


@pytest.mark.parametrize("wanted", [False, True])
def test_no_progress(wanted: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if wanted:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    compare_gradients(net_of(), *batch_of(20, 5), methods=["numpy loop"], repeat=1, progress=wanted)
    assert capsys.readouterr() == ("", "")


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": ["fortran loop"]}, ValueError, "methods must be one of 'numpy loop', .*, not 'fortran loop'"),
        ({"methods": "backprop"}, TypeError, r"methods must be a list of names, as in \['backprop'\], not one str"),
        ({"methods": []}, ValueError, "methods is empty"),
        ({"methods": [3]}, ValueError, "methods must be one of .*, not 3"),
        ({"h": 0.0}, ValueError, "h must be positive, not 0.0"),
        ({"h": float("nan")}, ValueError, "h must be finite, not nan"),
        ({"full": "no"}, TypeError, r"full must be True or False, not str \('no'\)"),
        ({"progress": 1}, TypeError, r"progress must be True or False, not int \(1\)"),
        ({"sample": 0}, ValueError, "sample must be at least 1, not 0"),
        ({"repeat": 0}, ValueError, "repeat must be at least 1, not 0"),
        ({"repeat": 1.5}, TypeError, "repeat must be an integer, not float"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare_gradients(net_of(), *batch_of(20, 5), **arguments)


def test_data_that_do_not_fit() -> None:
    x, t = batch_of(20, 5)
    with pytest.raises(ValueError, match="x has 19 columns for a network of 20 inputs"):
        compare_gradients(net_of(), x[:, :19], t)
    with pytest.raises(ValueError, match="t has 5 labels for 6 rows of x"):
        compare_gradients(net_of(), x, t[:5])
    with pytest.raises(TypeError, match="net must be a network of fastnet, as TwoLayerNet is, not dict"):
        compare_gradients({}, x, t)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="h must be positive and finite in float32, not 1e-60"):
        compare_gradients(net_of("float32"), x, t, h=1e-60)


def test_a_method_that_the_backend_does_not_have() -> None:
    with (
        fastnet.use_backend("numpy"),
        pytest.raises(ValueError, match="methods has 'nodal', which the 'numpy' backend does not have"),
    ):
        compare_gradients(net_of(), *batch_of(20, 5), methods=["nodal"])


def test_nan_parameters_are_compared_and_fail() -> None:
    net = net_of()
    net.params["W2"][0, 0] = np.nan
    found = compare_gradients(net, *batch_of(20, 5), methods=["numpy loop"], repeat=1)
    check = found["numpy loop"].check
    assert check is not None
    assert check.non_finite == check.failed > 0
    assert "NaN or infinite" in str(found)
    json.dumps(found.to_dict(), allow_nan=False)
