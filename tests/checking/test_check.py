"""check_gradient: right gradients pass, wrong ones fail, and each result says what it knows and where."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet.backends.spec import Activation
from fastnet.checking import GradientCheck, check_gradient
from fastnet.checking.verdict import Comparison, Doubtful, Settled, judge
from fastnet.differentiation.layout import Layout
from fastnet.networks import AffineChain, TwoLayerNet
from fastnet.networks.chain import ChainLayer

Gradients = dict[str, np.ndarray[Any, Any]]


def batch_of(inputs: int, classes: int, rows: int = 20, scale: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    x = rng.random((rows, inputs)) * (rng.random((rows, inputs)) < 0.5) * scale
    return x, rng.integers(0, classes, rows)


def small_net(dtype: str = "float64", std: float = 0.5) -> TwoLayerNet:
    return TwoLayerNet(12, 7, 7, weight_init_std=std, dtype=dtype, seed=3)


class LoopNet:
    """A network of the user's own: it has what `check_gradient` needs, by the slow loop in Python."""

    def __init__(self, net: AffineChain) -> None:
        self.net = net
        self.params = net.params

    def loss(self, x: Any, t: Any) -> float:
        return self.net.loss(x, t)

    def numerical_gradient(self, x: Any, t: Any, h: float = 1e-4) -> Gradients:
        return {
            name: fastnet.numerical_gradient(lambda _: self.net.loss(x, t), array, h)
            for name, array in self.params.items()
        }


# Right gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.01, 0.5, 2.0])
@pytest.mark.parametrize("rows", [1, 20])
def test_backprop_passes(backend: Any, dtype: str, std: float, rows: int) -> None:
    net, batch = small_net(dtype, std), batch_of(12, 7, rows)
    check = check_gradient(net, net.gradient(*batch), batch)
    assert check.passed, str(check)
    assert check.entries == sum(p.size for p in net.params.values())


@pytest.mark.parametrize("std", [0.01, 0.5])
def test_backprop_passes_the_plain_loop(dtype: str, std: float) -> None:
    net, batch = small_net(dtype, std), batch_of(12, 7)
    check = check_gradient(LoopNet(net), net.gradient(*batch), batch)
    assert check.passed, str(check)
    assert check.h == {"float64": 1e-4, "float32": 1e-2}[dtype]


def test_pixels_that_were_not_scaled_pass() -> None:
    # Truncation is 255² times larger: without a look at a smaller step, right entries would fail.
    net, batch = small_net(std=0.01), batch_of(12, 7, scale=255)
    grads = net.gradient(*batch)
    numerical = net.numerical_gradient(*batch)
    assert any(np.abs(grads[name] - numerical[name]).max() > 1e-9 * np.abs(grads[name]).max() for name in grads)
    check = check_gradient(net, grads, batch, rtol=1e-9)
    assert check.passed, str(check)


def test_the_books_own_backward_pass_passes() -> None:
    # It leaves out the 1e-7 inside the logarithm: another loss, but nothing that a mistake would look like.
    net, (x, t) = TwoLayerNet(12, 7, 7, seed=3), batch_of(12, 7)
    hidden = fastnet.sigmoid(x @ net.params["W1"] + net.params["b1"])
    dy = (net.predict(x) - np.eye(7)[t]) / len(x)
    da = dy @ net.params["W2"].T * hidden * (1 - hidden)
    grads = {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": hidden.T @ dy, "b2": dy.sum(axis=0)}
    assert check_gradient(net, grads, (x, t))


def test_a_function_of_the_batch_gives_the_gradient() -> None:
    net, batch = small_net(), batch_of(12, 7)
    assert check_gradient(net, net.gradient, batch)
    assert check_gradient(net, net.gradient, list(batch))


# Wrong gradients ------------------------------------------------------------------------------------------


def wrong_entry(name: str) -> Callable[[Gradients], None]:
    def mutate(grads: Gradients) -> None:
        grads[name].flat[np.abs(grads[name]).argmax()] *= 1.01

    return mutate


def transposed(grads: Gradients) -> None:
    grads["W2"] = grads["W2"].T


MUTATIONS: dict[str, Callable[[Gradients], Any]] = {
    "sign of all": lambda g: g.update({name: -array for name, array in g.items()}),
    "sign of b2": lambda g: g.update(b2=-g["b2"]),
    "factor of 2": lambda g: g.update(W1=2 * g["W1"]),
    "missing 1/N": lambda g: g.update({name: 20 * array for name, array in g.items()}),
    "transposed": transposed,
    "one entry of b2 missing": lambda g: g["b2"].__setitem__(3, 0.0),
    **{f"1 % of {name}": wrong_entry(name) for name in ("W1", "b1", "W2", "b2")},
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("wrap", [lambda net: net, LoopNet], ids=["fastnet's", "own"])
def test_mistakes_are_caught(mutation: str, wrap: Callable[[AffineChain], Any], dtype: str) -> None:
    net, batch = small_net(dtype), batch_of(12, 7)
    grads = net.gradient(*batch)
    MUTATIONS[mutation](grads)
    check = check_gradient(wrap(net), grads, batch)
    assert not check.passed, mutation
    assert check.failed > 0


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_one_wrong_entry_is_found(name: str) -> None:
    net, batch = small_net(), batch_of(12, 7)
    grads = net.gradient(*batch)
    at = tuple(int(i) for i in np.unravel_index(np.abs(grads[name]).argmax(), grads[name].shape))
    grads[name][at] *= 1.01
    check = check_gradient(net, grads, batch)
    assert check.failed == 1
    assert (check.worst[0].name, check.worst[0].index) == (name, at)
    assert check.largest == check.worst[0]
    assert check.worst[0].difference > check.worst[0].allowed
    assert f"{name}[{', '.join(map(str, at))}]" in str(check)
    assert "FAILED: 1 of 147 entries differ" in str(check)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_fail(wrong: float) -> None:
    net, batch = small_net(), batch_of(12, 7)
    grads = net.gradient(*batch)
    grads["W2"][2, 3] = wrong
    check = check_gradient(net, grads, batch)
    assert (check.failed, check.non_finite) == (1, 1)
    assert (check.worst[0].name, check.worst[0].index) == ("W2", (2, 3))
    assert check.largest_absolute < 1e-6
    assert "1 of them NaN or infinite" in str(check)
    json.dumps(check.to_dict(), allow_nan=False)


def test_nothing_finite() -> None:
    check = check_gradient(lambda x: math.nan, [0.0, 0.0], np.ones(2))
    assert (check.failed, check.non_finite, check.largest) == (2, 2, None)
    assert math.isnan(check.largest_absolute)
    assert "2 of 2" in str(check)
    json.dumps(check.to_dict(), allow_nan=False)


def test_a_step_that_tells_nothing_is_inconclusive() -> None:
    net, batch = small_net("float32"), batch_of(12, 7)
    wrong = {name: -array for name, array in net.gradient(*batch).items()}
    for grads in (net.gradient(*batch), wrong):
        check = check_gradient(LoopNet(net), grads, batch, h=1e-6)
        assert not check.passed
    check = check_gradient(LoopNet(net), net.gradient(*batch), batch, h=1e-6)
    assert check.inconclusive
    assert "INCONCLUSIVE: at h = 1e-06" in str(check)


# Kinks ----------------------------------------------------------------------------------------------------


class ReluNet(AffineChain):
    _layers = (ChainLayer("W1", "b1", Activation.RELU), ChainLayer("W2", "b2", Activation.IDENTITY))

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.params = {
            "W1": rng.standard_normal((4, 6)),
            "b1": np.zeros(6),
            "W2": rng.standard_normal((6, 3)),
            "b2": np.zeros(3),
        }


def test_entries_whose_step_meets_a_kink_are_checked_all_the_same(backend: Any) -> None:
    net, (x, t) = ReluNet(), batch_of(4, 3)
    net.params["b1"][2] = -(x @ net.params["W1"])[0, 2] + 1e-5  # one unit of one row, within h of zero
    grads = net.gradient(x, t)
    check = check_gradient(net, grads, (x, t))
    assert check.passed, str(check)
    assert check.agreeing == check.entries
    for name, at in (("W2", (1, 1)), ("b1", (2,)), ("W1", (0, 2))):
        wrong = {key: array.copy() for key, array in grads.items()}
        wrong[name][at] *= 1.01
        check = check_gradient(net, wrong, (x, t))
        assert (check.failed, check.worst[0].name, check.worst[0].index) == (1, name, at), name


def test_kinks_everywhere_are_inconclusive() -> None:
    class Kinks:
        def settle(self, doubtful: Doubtful) -> Settled:
            return Settled(doubtful.numerical, np.zeros(3), np.ones(3, bool))

    comparison = Comparison(Layout({"x": np.ones(3)}), -np.ones(3), np.ones(3), h=1e-4, rtol=1e-4)
    check = judge(comparison, Kinks())
    assert check.inconclusive
    assert (check.excused, check.failed, check.agreeing) == (3, 0, 0)


@pytest.mark.parametrize("at", [0.0, 1e-9, 3e-6, 4e-5, -4e-5])
def test_a_function_with_a_kink(dtype: str, at: float) -> None:
    """At the point, both one-sided slopes and what is between them are right; beside it, the slope of that side."""
    x = np.array([1.5, 0.0, -2.0, 0.7], dtype)
    x[1] = at

    def f(x: Any) -> Any:
        return np.maximum(x, 0).sum() + 0.1 * (x**2).sum()

    right = (x > 0) + 0.2 * x
    check = check_gradient(f, right, x)
    assert check.passed, str(check)
    assert check.excused == (1 if at in (0, 1e-9) or dtype == "float32" else 0)
    wrong = right.copy()
    wrong[1] = 1.3
    assert check_gradient(f, wrong, x).failed == 1
    wrong = right.copy()
    wrong[0] *= 1.01
    assert check_gradient(f, wrong, x).failed == 1


# Tolerances and the result --------------------------------------------------------------------------------


def test_tolerances_are_taken_as_they_are() -> None:
    calls = []

    def f(x: Any) -> float:
        calls.append(1)
        return float(np.sum(x**2))

    x = np.array([3.0, 4.0])
    assert check_gradient(f, [6.1, 8.0], x, rtol=0, atol=0.11)
    assert not check_gradient(f, [6.1, 8.0], x, rtol=0, atol=0.09)
    assert check_gradient(f, [6.06, 8.08], x, rtol=0.011, atol=0)
    assert len(calls) == 3 * (2 + 4)  # whether two calls agree, and no second opinion
    check = check_gradient(f, [6.1, 8.0], x, h=1e-3, rtol=0.5, atol=0.25, worst=1)
    assert (check.h, check.rtol, check.atol, len(check.worst)) == (1e-3, 0.5, 0.25, 1)
    assert check.worst[0].allowed == pytest.approx(0.25 + 0.5 * 6.1)


def test_a_second_opinion_is_asked_only_for_doubtful_entries() -> None:
    points = []

    def f(x: Any) -> float:
        points.append(x.copy())
        return float(np.sum(x**3))

    x = np.arange(1.0, 11.0)
    assert check_gradient(f, 3 * x**2, x)
    moved = [np.flatnonzero(point != x) for point in points]
    assert sum(len(at) == 1 for at in moved) == 2 * len(x)
    points.clear()
    gradient = 3 * x**2
    gradient[4] *= 1.1
    assert not check_gradient(f, gradient, x)
    moved = [np.flatnonzero(point != x).tolist() for point in points]
    assert moved.count([4]) > 2
    assert all(moved.count([at]) == 2 for at in range(len(x)) if at != 4)


def test_the_result_is_what_it_says() -> None:
    x = np.array([[1.0, -2.0], [0.5, 0.0]])
    gradient = 2 * x
    gradient[0, 1] += 0.4
    gradient[1, 0] += 0.1
    check = check_gradient(lambda x: np.sum(x**2), gradient, x)
    assert isinstance(check, GradientCheck)
    assert (check.entries, check.failed, check.non_finite, check.excused, check.agreeing) == (4, 2, 0, 0, 2)
    assert check.largest is not None
    assert check.largest.index == (0, 1)
    assert check.largest.analytic == -3.6
    assert check.largest.numerical == pytest.approx(-4.0)
    assert check.largest_absolute == pytest.approx(0.4)
    assert check.largest_relative == pytest.approx(0.1)
    assert check.largest_entry == pytest.approx(4.0)
    assert [entry.index for entry in check.worst[:2]] == [(0, 1), (1, 0)] or check.worst[0].index == (1, 0)
    assert not check
    assert bool(check_gradient(lambda x: np.sum(x**2), 2 * x, x))
    assert repr(check).startswith("GradientCheck(passed=False, entries=4, failed=2, ")
    assert "\n" not in repr(check)
    read = json.loads(json.dumps(check.to_dict(), allow_nan=False))
    assert (read["passed"], read["failed"], read["largest"]["index"]) == (False, 2, [0, 1])
    assert len(read["worst"]) == 4
    assert read["h"] == 1e-4


def test_a_passed_check_is_three_lines() -> None:
    net, batch = small_net(), batch_of(12, 7)
    lines = str(check_gradient(net, net.gradient, batch)).splitlines()
    assert lines[0] == "passed: 147 entries agree"
    assert lines[1].startswith("  largest difference ")
    assert lines[2].startswith("  order of the Taylor remainder (2 if right, 1 if wrong): W1 2.0")
    assert len(lines) == 3


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: g.pop("b1"), ValueError, "gradient has no 'b1'"),
        (lambda g: g.update(W3=1.0), ValueError, "gradient has 'W3', but there is only 'W1', 'b1', 'W2', 'b2'"),
        (lambda g: g.update(b1=np.ones(3)), ValueError, r"gradient of b1 must have shape \(7,\), not \(3,\)"),
        (lambda g: g.update(W1=g["W1"].T), ValueError, r"gradient of W1 must have shape \(12, 7\), not \(7, 12\)"),
        (lambda g: g.update(b1=["a"] * 7), TypeError, "gradient of b1 must contain real numbers"),
    ],
)
def test_gradients_that_do_not_fit(change: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    net, batch = small_net(), batch_of(12, 7)
    grads = net.gradient(*batch)
    change(grads)
    with pytest.raises(error, match=message):
        check_gradient(net, grads, batch)


def test_wrong_arguments() -> None:
    net, batch = small_net(), batch_of(12, 7)
    grads = net.gradient(*batch)
    x = np.ones(2)
    with pytest.raises(TypeError, match=r"pair \(x, t\), not ndarray"):
        check_gradient(net, grads, batch[0])
    with pytest.raises(TypeError, match="gradient must be a dict with an array for each parameter, not ndarray"):
        check_gradient(net, grads["W1"], batch)
    with pytest.raises(TypeError, match=r"f must be a function of x, or a network .* not float: pass the function"):
        check_gradient(net.loss(*batch), grads["W1"], net.params["W1"])
    with pytest.raises(TypeError, match=r"x must be a NumPy array, .* not list"):
        check_gradient(np.sum, [1.0], [1.0])
    with pytest.raises(TypeError, match=r"x\['a'\] must be a NumPy array, .* not list"):
        check_gradient(np.sum, {"a": [1.0]}, {"a": [1.0]})
    with pytest.raises(TypeError, match="floating-point"):
        check_gradient(np.sum, [1, 1], np.array([1, 2]))
    with pytest.raises(ValueError, match=r"gradient of x must have shape \(2,\), not \(3,\)"):
        check_gradient(np.sum, np.ones(3), x)
    with pytest.raises(ValueError, match="x is empty"):
        check_gradient(np.sum, np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match="x is empty"):
        check_gradient(lambda x: 0.0, {}, {})
    with pytest.raises(ValueError, match="labels for"):
        check_gradient(net, grads, (batch[0], [1, 2]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"h": 0}, ValueError, "h must be positive, not 0"),
        ({"h": -1e-4}, ValueError, "h must be positive"),
        ({"h": math.nan}, ValueError, "h must be finite, not nan"),
        ({"h": "1e-4"}, TypeError, "h must be a number, not str"),
        ({"rtol": -1.0}, ValueError, "rtol must be at least 0, not -1.0"),
        ({"rtol": math.inf}, ValueError, "rtol must be finite"),
        ({"atol": math.nan}, ValueError, "atol must be finite"),
        ({"atol": -1e-9}, ValueError, "atol must be at least 0"),
        ({"worst": -1}, ValueError, "worst must be at least 0, not -1"),
        ({"worst": 2.5}, TypeError, "worst must be an integer"),
    ],
)
def test_wrong_numbers(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_gradient(np.sum, np.ones(2), np.ones(2), **arguments)


def test_a_step_that_the_dtype_cannot_hold() -> None:
    with pytest.raises(ValueError, match="h must be positive and finite in float32, not 1e-60"):
        check_gradient(np.sum, np.ones(2), np.ones(2, np.float32), h=1e-60)


def test_x_is_restored_when_f_raises() -> None:
    x = np.array([1.0, 2.0])

    def f(x: Any) -> float:
        if x[1] != 2.0:
            raise RuntimeError("no")
        return float(x.sum())

    with pytest.raises(RuntimeError, match="no"):
        check_gradient(f, np.ones(2), x)
    assert x.tolist() == [1.0, 2.0]


def test_results_show_themselves_in_notebooks():
    net = fastnet.TwoLayerNet(3, 2, 2, seed=0)
    x, t = np.ones((4, 3)), np.array([0, 1, 0, 1])
    wrong = {name: -array for name, array in net.gradient(x, t).items()}
    shown = fastnet.check_gradient(net, wrong, (x, t), worst=2)._repr_html_()
    assert shown.startswith("<p><b>FAILED: ")
    assert shown.count("<tr>") == 3
    comparison = fastnet.compare_gradients(net, x, t, methods=["backprop"], repeat=1)
    assert comparison._repr_html_().count("<tr>") == 2
    history = fastnet.Trainer(net, x, t, iterations=2, batch_size=2).fit()
    assert history._repr_html_().count("<tr>") == 1 + len(history.rows)
    assert "<th>epoch</th>" in history._repr_html_()
