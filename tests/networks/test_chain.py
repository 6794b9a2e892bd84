"""Chains of every kind against long double, on every implementation; what zeros, splits and threads must not change."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

import fastnet
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output
from oracle import sampled_entries

STEP = {"float64": 1e-4, "float32": 1e-2}  # in float32 the notes' 1e-4 drowns in rounding


@pytest.fixture(params=range(16))
def number(request, cases):
    """A network and batch of `oracle.case`."""
    assert cases.CASES == 16
    return request.param


def every_entry(spec):
    return np.arange(sum(p.size for p in spec.parameters))


# Against the oracle ---------------------------------------------------------------------------------------


def test_the_oracle_gradient_is_the_complex_step(oracle, number):
    """Two derivations of the oracle's own gradient, one of them without a derivative."""
    case = oracle.case(number, "float64")
    x, t = case.x[:5], case.t[:5]
    for bounded, exact in zip(
        oracle.gradient(case.spec, x, t), oracle.complex_step_gradient(case.spec, x, t), strict=True
    ):
        scale = abs(exact).max() or 1
        assert abs(bounded.value - exact).max() / scale < 1e-15
        assert (bounded.error.max() / scale) < 1e-9  # and its bounds say something


def test_forward(backend, oracle, dtype, number):
    case = oracle.case(number, dtype)
    answer = backend.forward(case.spec, case.x)
    assert answer.dtype == dtype
    oracle.cached_forward(number, dtype).assert_holds(answer)


def test_loss(backend, oracle, dtype, number):
    answer = backend.loss(*oracle.case(number, dtype))
    assert type(answer) is float
    oracle.cached_loss(number, dtype).assert_holds(answer)


def test_gradient(backend, oracle, dtype, number):
    spec, x, t = oracle.case(number, dtype)
    gradients = backend.gradient(spec, x, t)
    expected = oracle.cached_gradient(number, dtype)
    assert [g.shape for g in gradients] == [p.shape for p in spec.parameters]
    for i, (bounded, gradient) in enumerate(zip(expected, gradients, strict=True)):
        assert gradient.dtype == dtype
        bounded.assert_holds(gradient, f"gradient of parameter {i}")


def test_the_loss_comes_with_every_gradient(backend, oracle, dtype, number):
    """The same bits as `loss` alone: training reports it without another forward pass."""
    case = spec, x, _ = oracle.case(number, dtype)
    has_differences = (spec.output, spec.loss) != (Output.IDENTITY, Loss.CROSS_ENTROPY)
    exact = [a for a in backend.algorithms if a != "loop"] if has_differences else []
    if backend.name == "numpy" and sum(p.size for p in spec.parameters) * len(x) > 30_000:
        exact = []  # the reference would take a minute
    losses = [backend.loss_and_gradient(*case)[0], *(getattr(backend, a)(*case, 1e-3)[1].loss for a in exact)]
    if backend.name == "cpp":
        assert set(losses) == {backend.loss(*case)}
    for loss in losses:
        assert type(loss) is float
        oracle.cached_loss(number, dtype).assert_holds(loss)


def test_loop(backend, oracle, dtype, number):
    spec, x, t = oracle.case(number, dtype)
    entries = sampled_entries(spec)
    before = [p.copy() for p in spec.parameters]
    differences = backend.loop(spec, x, t, STEP[dtype], entries)
    assert differences.dtype == dtype
    assert differences.shape == entries.shape
    for entry, difference in zip(entries.tolist(), differences, strict=True):
        oracle.cached_difference(number, dtype, STEP[dtype], entry).assert_holds(difference, f"entry {entry}")
    for p, copy in zip(spec.parameters, before, strict=True):
        np.testing.assert_array_equal(p, copy)


def test_loop_gives_each_entry_where_it_was_asked_for(backend, oracle, dtype):
    """In any order, repeated, or none at all."""
    spec, x, t = oracle.case(3, dtype)
    entries = every_entry(spec)
    whole = backend.loop(spec, x, t, STEP[dtype], entries)
    asked = np.concatenate([entries[::-1], entries[:3], entries[:3]])
    np.testing.assert_array_equal(backend.loop(spec, x, t, STEP[dtype], asked), whole[asked])
    assert backend.loop(spec, x, t, STEP[dtype], entries[:0]).shape == (0,)


@pytest.mark.parametrize("h", [1e-7, 1e-3, 0.5, 8.0])
def test_loop_with_other_steps(backend, oracle, h):
    spec, x, t = oracle.case(11, "float64")
    entries = sampled_entries(spec, 8)
    for entry, difference in zip(entries.tolist(), backend.loop(spec, x, t, h, entries), strict=True):
        oracle.cached_difference(11, "float64", h, entry).assert_holds(difference, f"entry {entry}")


@pytest.mark.parametrize("output", Output, ids=lambda output: output.name.lower())
@pytest.mark.parametrize("kind", Activation, ids=lambda kind: kind.name.lower())
def test_extreme_pre_activations(backend, oracle, dtype, kind, output):
    """Scores of ±1000 and more: no overflow, and gradients that are numbers."""
    rng = np.random.default_rng(0)
    spec = NetworkSpec.chain(
        ((rng.standard_normal((6, 5)) * 300).astype(dtype), (rng.standard_normal((5, 4)) * 3).astype(dtype)),
        (rng.standard_normal(5).astype(dtype), None),
        (kind, Activation.TANH),
        output,
        Loss.MEAN_SQUARED_ERROR,
    )
    x, t = rng.normal(scale=10, size=(9, 6)).astype(dtype), rng.integers(0, 4, 9)
    with np.errstate(under="ignore"):
        oracle.forward(spec, x).assert_holds(backend.forward(spec, x))
        oracle.loss(spec, x, t).assert_holds(backend.loss(spec, x, t))
    assert all(np.isfinite(g).all() for g in backend.gradient(spec, x, t))


# Zeros, splits and threads change no bit ------------------------------------------------------------------


def wide_case(cases, dtype, rows=150, columns=300, zeros=0.8, seed=0, units=13):
    """A network of 300 inputs, more than one block of the inner dimension, and a batch: a third of it is dense."""
    rng = np.random.default_rng(seed)
    spec = NetworkSpec.chain(
        (rng.standard_normal((columns, units)).astype(dtype) / 8, rng.standard_normal((units, 10)).astype(dtype)),
        (rng.standard_normal(units).astype(dtype), rng.standard_normal(10).astype(dtype)),
        (Activation.SIGMOID, Activation.IDENTITY),
    )
    x = rng.standard_normal((rows, columns)).astype(dtype)
    x[rng.random(x.shape) < zeros] = 0
    x[::3] = rng.standard_normal(x[::3].shape)
    return cases.Case(spec, x, rng.integers(0, 10, rows))


def test_a_row_does_not_depend_on_its_batch(core, cases, dtype, with_threads):
    """Not on how many rows there are, not on how many of them are mostly zeros, not on the threads."""
    spec, x, _ = wide_case(cases, dtype)
    with_threads(1)
    whole = core.forward(spec, x)
    for count in (1, 2, 3):
        with_threads(count)
        for size in (1, 2, 7, 64, 100, len(x)):
            pieces = [core.forward(spec, x[first : first + size].copy()) for first in range(0, len(x), size)]
            np.testing.assert_array_equal(np.concatenate(pieces), whole)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_array_equal(core.forward(spec, x[order]), whole[order])


def with_columns_of_zeros(case, columns):
    """The same network and batch, with more inputs that are always 0: then most of x is zeros."""
    weight = np.random.default_rng(5).standard_normal((columns, case.spec.weights[0].shape[1]))
    first = np.concatenate([case.spec.weights[0], weight.astype(case.x.dtype)])
    stage = dataclasses.replace(case.spec.stages[0], inputs=len(first), weight=first)
    x = np.concatenate([case.x, np.zeros((len(case.x), columns), case.x.dtype)], axis=1)
    return type(case)(dataclasses.replace(case.spec, stages=(stage, *case.spec.stages[1:])), x, case.t)


@pytest.mark.parametrize("rows", [1, 65, 300])
@pytest.mark.parametrize(("columns", "units"), [(50, 13), (256, 13), (300, 13), (50, 130)])
def test_skipping_zeros_changes_no_bit(core, cases, dtype, rows, columns, units):
    """Dense rows, and the same with so many columns of zeros that the kernels skip them.

    What the gradient reads of 300 rows of 130 units is more than the first-level cache holds.
    """
    dense = wide_case(cases, dtype, rows, columns, zeros=0, units=units)
    sparse = with_columns_of_zeros(dense, 2 * columns)
    np.testing.assert_array_equal(core.forward(sparse.spec, sparse.x), core.forward(dense.spec, dense.x))
    assert core.loss(*sparse) == core.loss(*dense)
    first, *others = core.loss_and_gradient(*sparse)[1]
    expected_first, *expected_others = core.loss_and_gradient(*dense)[1]
    np.testing.assert_array_equal(first[:columns], expected_first)
    np.testing.assert_array_equal(first[columns:], np.zeros_like(first[columns:]))
    for gradient, expected in zip(others, expected_others, strict=True):
        np.testing.assert_array_equal(gradient, expected)
    size = dense.spec.weights[0].size
    entries = np.array([0, 1, size // 2, size - 1, size, size + 20])
    moved = np.where(entries < size, entries, entries + sparse.spec.weights[0].size - size)
    np.testing.assert_array_equal(core.loop(*sparse, STEP[dtype], moved), core.loop(*dense, STEP[dtype], entries))
    at_zeros = core.loop(*sparse, STEP[dtype], np.array([size, size + 5]))
    np.testing.assert_array_equal(at_zeros, [0, 0])


@pytest.mark.parametrize("rows", [1, 3, 64, 67])
@pytest.mark.parametrize("classes", [*range(1, 10), 15, 16, 17, 32, 33])
def test_the_answers_are_the_softmax_of_each_row(core, dtype, rows, classes):
    """Short rows are computed several at a time; whatever the others are, a row is what it is alone."""
    rng = np.random.default_rng(classes)
    x = (10 * rng.standard_normal((rows, classes))).astype(dtype)
    unit = np.eye(classes, dtype=dtype)
    zeros = np.zeros(classes, dtype)
    spec = NetworkSpec.chain((unit,), (zeros,), (Activation.IDENTITY,))
    expected = core.softmax(x)
    np.testing.assert_array_equal(core.forward(spec, x), expected)
    np.testing.assert_array_equal(core.forward(spec, x[-1:]), expected[-1:])
    for special in (np.nan, np.inf, -np.inf):
        for everywhere in (False, True):
            bias = zeros.copy()
            bias[slice(None) if everywhere else classes // 2] = special
            spec = NetworkSpec.chain((0 * unit,), (bias,), (Activation.IDENTITY,))
            np.testing.assert_array_equal(core.forward(spec, x), np.tile(core.softmax(bias[None]), (rows, 1)))


@pytest.mark.parametrize("rows", [7, 65, 300])
@pytest.mark.parametrize("units", [3, 20, 50, 70])
def test_zeros_anywhere_change_no_bit(core, cases, dtype, rows, units):
    """Zeros that are skipped, and the same among so many columns of ones, of weight 0, that they are not.

    Neighbouring columns are multiplied together; of an odd number of them the last one is alone.
    """
    sparse = wide_case(cases, dtype, rows, 101, units=units)
    sparse.x[np.random.default_rng(3).random(sparse.x.shape) < 0.6] = 0
    weight = np.zeros((300, units), dtype)
    first = np.concatenate([sparse.spec.weights[0], weight])
    stage = dataclasses.replace(sparse.spec.stages[0], inputs=len(first), weight=first)
    spec = dataclasses.replace(sparse.spec, stages=(stage, *sparse.spec.stages[1:]))
    x = np.concatenate([sparse.x, np.ones((rows, len(weight)), dtype)], axis=1)
    assert np.mean(sparse.x == 0) > 0.6
    assert np.mean(x == 0) < 0.4
    loss, (found, *others) = core.loss_and_gradient(*sparse)[:2]
    dense_loss, (expected, *expected_others) = core.loss_and_gradient(spec, x, sparse.t)[:2]
    assert loss == dense_loss
    np.testing.assert_array_equal(found, expected[:101])
    for gradient, other in zip(others, expected_others, strict=True):
        np.testing.assert_array_equal(gradient, other)


def test_the_number_of_threads_changes_no_bit(backend, cases, dtype, with_threads):
    spec, x, t = wide_case(cases, dtype, rows=300)
    entries = every_entry(spec)[:: 400 if backend.name == "numpy" else 40].copy()
    answers = []
    for count in (1, 2, 3, 2):
        with_threads(count)
        answers.append(
            [
                backend.forward(spec, x),
                backend.loss(spec, x, t),
                *backend.gradient(spec, x, t),
                backend.loop(spec, x, t, STEP[dtype], entries),
            ]
        )
    for other in answers[1:]:
        for answer, expected in zip(other, answers[0], strict=True):
            np.testing.assert_array_equal(answer, expected)


@functools.cache  # for every implementation
def few_numbers(oracle, dtype, rows):
    """A case whose rows have none to four of 300 inputs, anywhere: its answer, gradient, and some differences."""
    spec, _, t = wide_case(oracle, dtype, rows)
    rng = np.random.default_rng(2)
    x = np.zeros((rows, 300), dtype)
    for k, row in enumerate(x):
        row[rng.choice(300, k % 5, replace=False)] = rng.standard_normal(k % 5)
    x[-1, [0, 63, 64, 255, 256, 299]] = 1  # the ends of groups and blocks
    entries = (0, 63 * 13 + 5, 299 * 13 + 12, 300 * 13)
    differences = {entry: oracle.central_difference(spec, x, t, STEP[dtype], entry) for entry in entries}
    return (spec, x, t), oracle.forward(spec, x), oracle.gradient(spec, x, t), differences


@pytest.mark.parametrize("rows", [2, 40, 300])
def test_rows_of_few_numbers(backend, oracle, dtype, rows):
    """Hardly two of them are near each other."""
    case, answer, expected, differences = few_numbers(oracle, dtype, rows)
    answer.assert_holds(backend.forward(*case[:2]))
    for bounded, gradient in zip(expected, backend.gradient(*case), strict=True):
        bounded.assert_holds(gradient)
    found = backend.loop(*case, STEP[dtype], np.array(list(differences)))
    for (entry, bounded), difference in zip(differences.items(), found, strict=True):
        bounded.assert_holds(difference, f"entry {entry}")


def test_rows_of_zeros_and_a_batch_of_zeros(backend, oracle, dtype):
    spec, x, t = oracle.case(9, dtype)
    for kept in (0, 1):
        sparse = x.copy()
        sparse[kept:] = 0
        oracle.forward(spec, sparse).assert_holds(backend.forward(spec, sparse))
        for bounded, gradient in zip(oracle.gradient(spec, sparse, t), backend.gradient(spec, sparse, t), strict=True):
            bounded.assert_holds(gradient)


# Infinities and NaN ---------------------------------------------------------------------------------------


def poisoned_cases(cases, dtype):
    """Cases with one infinity or NaN in the first weight, where x has nothing but zeros, or in another place."""
    for value in (np.inf, -np.inf, np.nan):
        for zeros in (0.0, 0.9):
            for where in ("unused weight", "first weight", "bias", "last weight", "x"):
                spec, x, t = wide_case(cases, dtype, rows=40, columns=30, zeros=zeros)
                if zeros:
                    x[::3][np.random.default_rng(3).random(x[::3].shape) < zeros] = 0
                spec = spec.copy()
                if where == "unused weight":
                    x[:, 7] = 0
                    spec.weights[0][7, 3] = value
                elif where == "first weight":
                    spec.weights[0][0, 0] = value
                elif where == "bias":
                    spec.layers[0].bias[4] = value
                elif where == "last weight":
                    spec.weights[1][2, 5] = value
                else:
                    x[11, 13] = value
                yield f"{value} in {where}, {zeros:.0%} zeros", cases.Case(spec, x, t)


def test_infinities_and_nan_go_through_as_in_numpy(backend, cases, dtype):
    """Zeros are not skipped over them: 0 times infinity is NaN."""
    for name, (spec, x, t) in poisoned_cases(cases, dtype):
        with fastnet.use_backend("numpy"):
            reference = fastnet.backends.active()
            expected = [
                reference.forward(spec, x),
                np.array(reference.loss(spec, x, t)),
                *reference.gradient(spec, x, t),
            ]
            entries = np.array([0, 7 * 13 + 3, 200, 30 * 13, 30 * 13 + 13, 30 * 13 + 13 + 2 * 10 + 5])
            expected.append(reference.loop(spec, x, t, STEP[dtype], entries))
        answers = [backend.forward(spec, x), np.array(backend.loss(spec, x, t)), *backend.gradient(spec, x, t)]
        answers.append(backend.loop(spec, x, t, STEP[dtype], entries))
        for what, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
            message = f"{name}, answer {what}"
            np.testing.assert_array_equal(np.isnan(answer), np.isnan(wanted), err_msg=message)
            np.testing.assert_array_equal(np.isinf(answer), np.isinf(wanted), err_msg=message)


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_zero_times_an_infinite_weight_is_nan(backend, dtype, rows):
    weight = np.ones((20, 3), dtype)
    weight[5, 1] = np.inf
    spec = NetworkSpec.chain((weight,), (None,), (Activation.IDENTITY,), Output.IDENTITY, Loss.MEAN_SQUARED_ERROR)
    x, t = np.zeros((rows, 20), dtype), np.arange(rows) % 3
    x[:, 0] = 1
    np.testing.assert_array_equal(backend.forward(spec, x), np.array([[1, np.nan, 1]] * rows, dtype))
    assert np.isnan(backend.loss(spec, x, t))
    gradient = backend.gradient(spec, x, t)[0]
    assert np.isnan(gradient[:, 1]).all()  # zeros of x times NaN, in the sum over the batch
    assert np.isfinite(gradient[:, [0, 2]]).all()
    assert np.isnan(backend.loop(spec, x, t, 1e-2, np.arange(60))).all()


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_zeros_of_x_times_an_infinite_derivative_are_nan(backend, dtype, rows):
    """With finite weights and an answer that is not: the sum over the batch skips no zero either."""
    weight = np.full((20, 3), np.finfo(dtype).max / 2, dtype)
    spec = NetworkSpec.chain((weight,), (None,), (Activation.IDENTITY,), Output.IDENTITY, Loss.MEAN_SQUARED_ERROR)
    x = np.zeros((rows, 20), dtype)
    x[0, :2] = 4
    gradient = backend.gradient(spec, x, np.arange(rows) % 3)[0]
    assert np.isnan(gradient[2:]).all()  # 0 times infinity
    np.testing.assert_array_equal(gradient[:2], np.full((2, 3), np.inf, dtype))


# Weight decay ---------------------------------------------------------------------------------------------


def test_weight_decay_is_part_of_the_loss_and_of_both_gradients(backend, dtype):
    rng = np.random.default_rng(0)
    spec = NetworkSpec.chain(
        (rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((4, 2)).astype(dtype)),
        (rng.standard_normal(4).astype(dtype), None),
        (Activation.RELU, Activation.IDENTITY),
    )
    decayed = dataclasses.replace(spec, weight_decay=0.5)
    x, t = rng.standard_normal((6, 3)).astype(dtype), rng.integers(0, 2, 6)
    squares = sum(float((w.astype(float) ** 2).sum()) for w in spec.weights)
    assert backend.loss(decayed, x, t) == pytest.approx(backend.loss(spec, x, t) + 0.25 * squares, rel=1e-14)
    for g, plain, p in zip(backend.gradient(decayed, x, t), backend.gradient(spec, x, t), spec.parameters, strict=True):
        share = 0.5 * p if p.ndim == 2 else 0 * p  # biases are not decayed
        # Two roundings: of the product (exact for 0.5) and of the sum.
        np.testing.assert_allclose(g, plain + share, rtol=0, atol=2 * np.finfo(dtype).eps * abs(g).max())
