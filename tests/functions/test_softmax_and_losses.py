"""Softmax and the losses on arrays, against long double, on every implementation and dtype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastnet
from bounded import Bounded, unit
from fastnet.backends.spec import Loss


def floats(dtype, **options):
    return st.floats(width=np.dtype(dtype).itemsize * 8, **options)


# Softmax --------------------------------------------------------------------------------------------------


def exact_softmax(oracle, x):
    return oracle.softmax(Bounded.exact(x, x.dtype))


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 33, 1000])
def test_softmax(backend, oracle, dtype, classes):
    rng = np.random.default_rng(classes)
    for rows in (1, 2, 17):
        for scale in (1, 30, 1000):
            x = rng.normal(scale=scale, size=(rows, classes)).astype(dtype)
            before = x.copy()
            answer = fastnet.softmax(x)
            assert answer.dtype == x.dtype
            with np.errstate(under="ignore"):
                exact_softmax(oracle, x).assert_holds(answer)
            # Each of the sum's and quotients' roundings, weighted by the answers, which add up to 1.
            sums = answer.astype(np.longdouble).sum(axis=1)
            assert abs(sums - 1).max() <= (classes + 2) * unit(dtype)
            np.testing.assert_array_equal(x, before)


def test_softmax_of_any_finite_numbers(backend, oracle, dtype):
    largest = float(np.finfo(dtype).max) / 4  # differences must be finite too
    rows = hnp.array_shapes(min_dims=1, max_dims=3, max_side=20)

    @given(hnp.arrays(dtype, rows, elements=floats(dtype, min_value=-largest, max_value=largest)))
    def check(x):
        with np.errstate(under="ignore"):
            exact = exact_softmax(oracle, x.reshape(-1, x.shape[-1]))
        answer = fastnet.softmax(x)
        assert answer.shape == x.shape
        exact.assert_holds(answer.reshape(exact.value.shape))

    check()


def test_softmax_does_not_change_where_scores_are_shifted(backend, dtype):
    """By numbers that keep the scores exact: then not one bit changes."""
    rng = np.random.default_rng(0)
    x = (rng.integers(-1000, 1000, (50, 10)) / 64).astype(dtype)
    for shift in (1, -37, 1000, 8192):
        np.testing.assert_array_equal(fastnet.softmax(x + np.array(shift, dtype)), fastnet.softmax(x))


def test_softmax_of_infinities_and_nan(backend, dtype):
    inf, nan = np.inf, np.nan
    x = np.array(
        [
            [0, 0, -inf],
            [-inf, 3, -inf],
            [inf, 0, 0],
            [inf, -inf, 0],
            [inf, inf, 0],
            [-inf] * 3,
            [nan, 0, 0],
            [0, 0, nan],
        ],
        dtype,
    )
    answer = fastnet.softmax(x)
    np.testing.assert_array_equal(answer[:2], np.array([[0.5, 0.5, 0], [0, 1, 0]], dtype))
    assert np.isnan(answer[2:]).all()
    np.testing.assert_array_equal(fastnet.softmax(np.array([1e4, -1e4, 0], dtype)), np.array([1, 0, 0], dtype))


def test_softmax_of_no_rows(backend, dtype):
    assert fastnet.softmax(np.empty((0, 5), dtype)).shape == (0, 5)
    assert fastnet.softmax(np.empty((2, 0, 5), dtype)).shape == (2, 0, 5)


# Losses ---------------------------------------------------------------------------------------------------


ERRORS = {
    Loss.CROSS_ENTROPY: fastnet.cross_entropy_error,
    Loss.MEAN_SQUARED_ERROR: fastnet.mean_squared_error,
}
LOSSES = pytest.mark.parametrize("loss", ERRORS, ids=lambda loss: loss.name.lower())


@LOSSES
@pytest.mark.parametrize("targets", ["labels", "one-hot", "probabilities"])
def test_loss(backend, oracle, dtype, loss, targets):
    rng = np.random.default_rng(0)
    of_one_column = [] if targets == "labels" and loss == Loss.MEAN_SQUARED_ERROR else [(1, 1)]  # then t is a number
    for rows, classes in [*of_one_column, (1, 2), (2, 3), (5, 10), (64, 8), (65, 17), (300, 9)]:
        y = rng.random((rows, classes)).astype(dtype)
        y /= y.sum(axis=1, keepdims=True)
        y[0, 0] = 0  # the 1e-7 keeps its logarithm finite
        labels = rng.integers(0, classes, rows)
        t = {"labels": labels, "one-hot": np.eye(classes)[labels], "probabilities": rng.random((rows, classes))}[
            targets
        ]
        t = t if targets == "labels" else t.astype(dtype)
        answer = ERRORS[loss](y, t)
        assert type(answer) is float
        oracle.mean(oracle.row_losses(loss, Bounded.exact(y, dtype), t)).assert_holds(answer)


@LOSSES
def test_targets_of_other_kinds_mean_the_same(backend, dtype, loss):
    y = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype)
    labels = np.array([1, 2])
    expected = ERRORS[loss](y, labels)
    for same in (
        labels.tolist(),
        labels.astype(np.uint8),
        labels.astype(np.int32),
        labels.astype(">i8"),
        labels[::-1][::-1],
    ):
        assert ERRORS[loss](y, same) == expected
    rows = np.eye(3)[labels]
    expected = ERRORS[loss](y, rows)
    for same in (rows.tolist(), rows.astype(int), rows.astype(bool), rows.astype("f4"), np.asfortranarray(rows)):
        assert ERRORS[loss](y, same) == expected
    assert ERRORS[loss](y[0], 1) == ERRORS[loss](y[0], np.int8(1)) == ERRORS[loss](y[:1], [1])
    assert ERRORS[loss](y[0], rows[0]) == ERRORS[loss](y[:1], rows[:1])


@LOSSES
def test_loss_of_nan_is_nan(backend, dtype, loss):
    y = np.array([[0.5, 0.5], [0.5, np.nan]], dtype)
    assert np.isnan(ERRORS[loss](y, [0, 1]))
    assert np.isnan(ERRORS[loss](y, [[1, 0], [0, 1]]))
    assert np.isnan(ERRORS[loss](y[:1], np.array([[np.nan, 0]])))


def test_the_logarithm_of_cross_entropy(backend, dtype):
    """To 4 units of the last place, for labels and for rows, wherever the answer is."""
    rng = np.random.default_rng(0)
    answers = np.concatenate(
        [10.0 ** -rng.uniform(0, 12, 300), 1 - 10.0 ** -rng.uniform(0, 9, 100), [0, 1, 0.5, 1e300]]
    )
    answers = answers[answers < np.finfo(dtype).max].astype(dtype)
    expected = -np.log((answers + np.array(1e-7, dtype)).astype(np.longdouble))
    for targets in (0, np.array([1, 0], dtype)):
        found = [fastnet.cross_entropy_error(np.array([y, 0.5], dtype), targets) for y in answers]
        np.testing.assert_allclose(found, expected.astype(float), rtol=4 * np.finfo(dtype).epsneg, atol=0)


def test_cross_entropy_of_impossible_answers(backend, dtype):
    assert fastnet.cross_entropy_error(np.array([1, 0], dtype), 1) == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert fastnet.cross_entropy_error(np.array([np.inf, 0], dtype), 0) == -np.inf
    assert np.isnan(fastnet.cross_entropy_error(np.array([-1, 0], dtype), 0))
    assert fastnet.mean_squared_error(np.array([np.inf, 0], dtype), 0) == np.inf


def test_numbers_for_one_output_are_no_labels(backend, dtype):
    y, t = np.array([[0.5], [2.0], [-1.0]], dtype), np.array([1, 2, 0])
    expected = float(((y - t[:, None]) ** 2).sum()) / 2 / 3
    for same in (t, t.astype(float), t[:, None]):
        assert fastnet.mean_squared_error(y, same) == pytest.approx(expected, rel=1e-6)


def test_targets_before_answers_are_noticed(backend, dtype):
    y, t = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]], dtype), np.eye(3, dtype=dtype)[[1, 2]]
    assert fastnet.cross_entropy_error(y, t) > 0
    assert fastnet.cross_entropy_error(t, t) == pytest.approx(0, abs=1e-6)  # a network that is sure
    with pytest.raises(ValueError, match=r"y holds one-hot rows and t does not: .* write cross_entropy_error\(y, t\)"):
        fastnet.cross_entropy_error(t, y)
