"""check_gradient of functions of arrays, of named arrays and of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.checking import check_gradient
from fastnet.networks import TwoLayerNet

Gradients = dict[str, np.ndarray[Any, Any]]


def test_a_function_of_an_array(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    before = x.copy()
    check = check_gradient(lambda x: np.sum(np.sin(x)), np.cos(x), x)
    assert check.passed, str(check)
    assert check_gradient(lambda x: np.sum(np.sin(x)), np.cos, x)
    assert not check_gradient(lambda x: np.sum(np.sin(x)), -np.cos(x), x)
    assert not check_gradient(lambda x: np.sum(np.sin(x)), np.cos(x) * 1.01, x)
    np.testing.assert_array_equal(x, before)


def test_a_function_that_ignores_its_argument() -> None:
    net = TwoLayerNet(12, 7, 7, weight_init_std=0.5, seed=3)
    rng = np.random.default_rng(5)
    x, t = rng.random((20, 12)), rng.integers(0, 7, 20)
    assert check_gradient(lambda W: net.loss(x, t), net.gradient(x, t)["W1"], net.params["W1"])


def test_a_function_of_named_arrays() -> None:
    x = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0]])}

    def f(x: Gradients) -> float:
        return float((x["a"] ** 2).sum() * x["b"][0, 0])

    right = {"b": [[5.0]], "a": [6.0, 12.0]}
    assert check_gradient(f, right, x)
    assert check_gradient(f, lambda x: {"a": 2 * x["a"] * x["b"][0, 0], "b": (x["a"] ** 2).sum(keepdims=True)[None]}, x)
    check = check_gradient(f, right | {"b": [[5.1]]}, x)
    assert (check.failed, check.worst[0].label) == (1, "b[0, 0]")


def test_a_function_of_one_number() -> None:
    check = check_gradient(np.exp, np.exp(1.5), np.array(1.5))
    assert check.passed
    assert check.largest is not None
    assert check.largest.label == "x"


def test_all_zeros() -> None:
    check = check_gradient(lambda x: 1.0, np.zeros(3), np.ones(3))
    assert check.passed
    assert (check.largest_absolute, check.largest_relative) == (0, 0)


def test_a_small_function_is_still_checked() -> None:
    x = np.arange(1.0, 30.0)
    assert check_gradient(lambda x: 1e-20 * np.sum(x**2), 2e-20 * x, x)
    assert not check_gradient(lambda x: 1e-20 * np.sum(x**2), -2e-20 * x, x)


def test_one_hundred_functions_with_kinks_far_away(dtype: str) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        a, x = rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal(3).astype(dtype)
        check = check_gradient(lambda x, a=a: np.tanh(a @ x).sum(), lambda x, a=a: a.T @ (1 - np.tanh(a @ x) ** 2), x)
        assert check.passed, f"seed {seed}: {check}"
