"""Activations, losses and matrix products on arrays, against long double, on every implementation and dtype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastnet
from fastnet.backends.spec import Activation, Loss

ACTIVATIONS = {
    Activation.IDENTITY: fastnet.identity_function,
    Activation.STEP: fastnet.step_function,
    Activation.SIGMOID: fastnet.sigmoid,
    Activation.TANH: fastnet.tanh,
    Activation.RELU: fastnet.relu,
    Activation.LEAKY_RELU: fastnet.leaky_relu,
}
ELEMENTWISE = pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.name.lower())

# Around the vectors of every instruction set: 2, 4, 8 or 16 elements.
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
SHAPES = ((), (1,), (5,), (0,), (3, 7), (0, 4), (4, 0), (2, 3, 5), (2, 1, 3, 17))


def floats(dtype, **options):
    return st.floats(width=np.dtype(dtype).itemsize * 8, **options)


def vectors(dtype, **options):
    """One-dimensional arrays of any floats: infinities, NaN and subnormal numbers too."""
    return hnp.arrays(dtype, st.integers(0, 40), elements=floats(dtype, **options))


def extremes(dtype):
    info = np.finfo(dtype)
    one_sided = [0, info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, info.eps, 1, 16.5, 88.8, 104]
    one_sided += [708.5, 746, 1000, info.max, np.inf]
    return np.array([*one_sided, *(-x for x in one_sided), np.nan], dtype)


def assert_elementwise(oracle, kind, x, answer, slope=0.01):
    """`answer` is the activation of `x`, NaN exactly where `x` is."""
    assert answer.dtype == x.dtype
    assert answer.shape == x.shape
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(x))
    infinite = np.isinf(x)
    np.testing.assert_array_equal(answer[infinite], oracle.activation_value(kind, x[infinite], slope).astype(x.dtype))
    finite = np.isfinite(x)
    exact = oracle.Bounded.exact(x[finite], x.dtype)
    oracle.activation(kind, exact, float(x.dtype.type(slope))).assert_holds(answer[finite])


# Activations ----------------------------------------------------------------------------------------------


@ELEMENTWISE
def test_activation_of_any_number(backend, oracle, dtype, kind):
    assert_elementwise(oracle, kind, extremes(dtype), ACTIVATIONS[kind](extremes(dtype)))

    @given(vectors(dtype))
    def check(x):
        before = x.copy()
        answer = ACTIVATIONS[kind](x)
        assert_elementwise(oracle, kind, x, answer)
        np.testing.assert_array_equal(x, before)
        assert not np.shares_memory(answer, x)

    check()


@ELEMENTWISE
def test_activation_of_every_shape_and_size(backend, oracle, dtype, kind):
    rng = np.random.default_rng(0)
    for shape in (*SHAPES, *((n,) for n in SIZES)):
        x = np.asarray(rng.normal(scale=3, size=shape)).astype(dtype)
        answer = ACTIVATIONS[kind](x)
        if shape == ():
            assert type(answer) is x.dtype.type
        assert_elementwise(oracle, kind, x, np.asarray(answer))


@ELEMENTWISE
def test_activation_between_the_extremes(backend, oracle, dtype, kind):
    """Thousands of numbers of every size, enough for several threads."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-120, 120, 20000), rng.standard_normal(20000), rng.uniform(-760, 760, 20000)])
    x = np.concatenate([x, np.exp(rng.uniform(-80, 80, 20000)) * rng.choice([-1, 1], 20000)]).astype(dtype)
    assert_elementwise(oracle, kind, x, ACTIVATIONS[kind](x))


def test_both_tails_of_a_sigmoid_and_of_tanh_keep_their_digits(backend, oracle, dtype):
    """Down to the smallest normal number: the bound of `activation` is relative there."""
    x = np.linspace(-700 if dtype == "float64" else -87, -1, 5000).astype(dtype)
    relative = (
        fastnet.sigmoid(x).astype(oracle.Long) / np.exp(x.astype(oracle.Long)) * (1 + np.exp(x.astype(oracle.Long)))
    )
    assert abs(relative - 1).max() <= (oracle.ACTIVATION_UNITS[Activation.SIGMOID] + 1) * oracle.unit(dtype)
    small = np.geomspace(np.finfo(dtype).tiny * 4, 1, 5000).astype(dtype)
    for x in (small, -small):
        relative = fastnet.tanh(x).astype(oracle.Long) / np.tanh(x.astype(oracle.Long))
        assert abs(relative - 1).max() <= (oracle.ACTIVATION_UNITS[Activation.TANH] + 1) * oracle.unit(dtype)


def test_step_relu_and_leaky_relu_around_zero(backend, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([-1, -tiny, -0.0, 0.0, tiny, 1], dtype)
    np.testing.assert_array_equal(fastnet.step_function(x), np.array([0, 0, 0, 0, 1, 1], dtype))
    np.testing.assert_array_equal(fastnet.relu(x), np.array([0, 0, 0, 0, tiny, 1], dtype))
    np.testing.assert_array_equal(fastnet.leaky_relu(x, 0.5), np.array([-0.5, 0, 0, 0, tiny, 1], dtype))


@pytest.mark.parametrize("slope", [0, 0.01, 0.3, 1, 2.5])
def test_slopes_of_leaky_relu(backend, oracle, dtype, slope):
    x = np.linspace(-5, 5, 101).astype(dtype)
    assert_elementwise(oracle, Activation.LEAKY_RELU, x, fastnet.leaky_relu(x, slope), slope)


def test_negative_slope_of_leaky_relu(backend, dtype):
    np.testing.assert_array_equal(fastnet.leaky_relu(np.array([-2, 2], dtype), -0.5), np.array([1, 2], dtype))


@ELEMENTWISE
def test_derivative_of_an_activation(backend, oracle, dtype, kind):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1000, 1000, 500), rng.normal(scale=4, size=1000), [0.0, -0.0]]).astype(dtype)
    with np.errstate(under="ignore"):
        exact = oracle.activation_derivative(kind, oracle.Bounded.exact(x, dtype), float(x.dtype.type(0.3)))
    for n in (*SIZES, len(x)):
        answer = backend.activation_derivative(kind, x[:n], 0.3)
        assert answer.dtype == x.dtype
        exact[:n].assert_holds(answer)
    unbounded = backend.activation_derivative(kind, np.array([np.inf, -np.inf, np.nan], dtype), 0.3)
    slopes = {Activation.IDENTITY: (1, 1), Activation.RELU: (1, 0), Activation.LEAKY_RELU: (1, x.dtype.type(0.3))}
    assert tuple(unbounded[:2]) == slopes.get(kind, (0, 0))
    assert np.isnan(unbounded[2]) == (kind != Activation.IDENTITY)


# exp ------------------------------------------------------------------------------------------------------


def ulps_off(oracle, answer, exact):
    """How many units in the last place `answer` is away from `exact`; inf is what lies beyond the largest number."""
    dtype = answer.dtype
    with np.errstate(over="ignore"):
        rounded = exact.astype(dtype)
    np.testing.assert_array_equal(np.isinf(answer), np.isinf(rounded))
    finite = np.isfinite(answer)
    ulp = np.spacing(np.abs(rounded[finite])).astype(oracle.Long)
    return float((abs(answer[finite].astype(oracle.Long) - exact[finite]) / ulp).max())


def exp_arguments(dtype):
    rng = np.random.default_rng(0)
    overflow = np.log(np.finfo(dtype).max.astype(np.longdouble))
    underflow = np.log(np.finfo(dtype).smallest_subnormal.astype(np.longdouble))
    normal = np.log(np.finfo(dtype).tiny.astype(np.longdouble))
    halves = np.arange(-1100, 1030) * np.longdouble(np.log(np.longdouble(2))) / 2  # where the reduced argument jumps
    near = np.concatenate([np.asarray(x).astype(dtype) for x in (halves, [overflow, underflow, normal, 0])])
    bits = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize) - 1, 50000, dtype=f"u{np.dtype(dtype).itemsize}")
    return np.concatenate(
        [
            rng.uniform(underflow - 2, overflow + 2, 100000).astype(dtype),
            rng.uniform(underflow - 1, normal + 1, 30000).astype(dtype),  # subnormal results
            rng.uniform(-1, 1, 50000).astype(dtype),
            *(np.nextafter(near, dtype_end) for dtype_end in np.array([-np.inf, 0, np.inf], dtype)),
            near,
            bits.view(dtype),  # any bit pattern, NaN with any payload too
            extremes(dtype),
        ]
    )


def test_exp_is_accurate_to_two_ulp(core, oracle, dtype):
    x = exp_arguments(dtype)
    answer = core.exp(x)
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(x))
    known = ~np.isnan(x)
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(x[known].astype(oracle.Long))
    assert ulps_off(oracle, answer[known], exact) <= 2
    np.testing.assert_array_equal(
        core.exp(np.array([np.inf, -np.inf, 0, -0.0], dtype)), np.array([np.inf, 0, 1, 1], dtype)
    )


def test_exp_overflows_and_underflows_where_it_should(core, oracle, dtype):
    info = np.finfo(dtype)
    last = np.log(oracle.Long(info.max)).astype(dtype)  # may be rounded up
    last = last if np.exp(oracle.Long(last)) < info.max else np.nextafter(last, info.dtype.type(0))
    first = np.log(oracle.Long(info.smallest_subnormal)).astype(dtype)
    answer = core.exp(np.array([last, np.nextafter(last, info.dtype.type(np.inf)), first, first * 1.01], dtype))
    assert np.isfinite(answer[0])
    assert answer[1] == np.inf
    assert answer[2] == info.smallest_subnormal
    assert answer[3] == 0


def test_an_element_does_not_depend_on_where_it_stands(core, dtype):
    x = np.random.default_rng(0).normal(scale=10, size=80).astype(dtype)
    calls = [core.exp, *(lambda x, kind=kind: core.activation(kind, x) for kind in Activation)]
    for call in calls:
        whole = call(x)
        for n in SIZES:
            for first in (0, 1, 5):
                np.testing.assert_array_equal(call(x[first : first + n].copy()), whole[first : first + n])


# Softmax --------------------------------------------------------------------------------------------------


def exact_softmax(oracle, x):
    return oracle.softmax(oracle.Bounded.exact(x, x.dtype))


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
            sums = answer.astype(oracle.Long).sum(axis=1)
            assert abs(sums - 1).max() <= (classes + 2) * oracle.unit(dtype)
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
    for rows, classes in [(1, 1), (1, 2), (2, 3), (5, 10), (64, 8), (65, 17), (300, 9)]:
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
        oracle.mean(oracle.row_losses(loss, oracle.Bounded.exact(y, dtype), t)).assert_holds(answer)


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


def test_cross_entropy_of_impossible_answers(backend, dtype):
    assert fastnet.cross_entropy_error(np.array([1, 0], dtype), 1) == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert fastnet.cross_entropy_error(np.array([np.inf, 0], dtype), 0) == -np.inf
    assert np.isnan(fastnet.cross_entropy_error(np.array([-1, 0], dtype), 0))
    assert fastnet.mean_squared_error(np.array([np.inf, 0], dtype), 0) == np.inf


# Matrix products ------------------------------------------------------------------------------------------


def operands(rng, m, k, n, dtype, transpose_a, transpose_b):
    a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
    return a, b


def assert_product(oracle, a, b, transpose_a, transpose_b):
    before = a.copy(), b.copy()
    product = fastnet.matmul(a, b, transpose_a, transpose_b)
    assert product.dtype == a.dtype
    assert product.flags.c_contiguous
    left, right = (
        oracle.Bounded.exact(x.T if turn else x, a.dtype) for x, turn in ((a, transpose_a), (b, transpose_b))
    )
    (left @ right).assert_holds(product)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


TRANSPOSED = pytest.mark.parametrize(
    ("transpose_a", "transpose_b"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["ab", "Ab", "aB", "AB"],
)


@TRANSPOSED
def test_matmul(backend, oracle, dtype, transpose_a, transpose_b):
    rng = np.random.default_rng(0)
    sizes = [(m, k, n) for m in (1, 2, 5) for k in (1, 2, 9) for n in (1, 7, 8, 9, 17, 25)]
    # Around every tile, panel and block of the kernels, and the network's own sizes at a smaller scale.
    sizes += [
        (31, 33, 65),
        (9, 255, 7),
        (4, 256, 33),
        (7, 257, 24),
        (3, 513, 50),
        (100, 79, 50),
        (2, 3, 1025),
        (1, 2, 2060),
    ]
    for m, k, n in sizes:
        assert_product(oracle, *operands(rng, m, k, n, dtype, transpose_a, transpose_b), transpose_a, transpose_b)


@TRANSPOSED
def test_matmul_of_any_shape(backend, oracle, dtype, transpose_a, transpose_b):
    size = st.integers(1, 70)

    @given(size, size, size, st.integers(0, 2**32 - 1))
    def check(m, k, n, seed):
        rng = np.random.default_rng(seed)
        assert_product(oracle, *operands(rng, m, k, n, dtype, transpose_a, transpose_b), transpose_a, transpose_b)

    check()


@TRANSPOSED
@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 4), (3, 0, 0), (0, 4, 0), (0, 0, 0)])
def test_matmul_of_nothing(backend, dtype, m, k, n, transpose_a, transpose_b):
    a, b = operands(np.random.default_rng(0), m, k, n, dtype, transpose_a, transpose_b)
    product = fastnet.matmul(a, b, transpose_a, transpose_b)
    assert product.shape == (m, n)
    assert product.dtype == dtype
    assert not product.any()


def test_matmul_of_infinities_and_nan(backend, dtype):
    a = np.zeros((9, 11), dtype)
    b = np.ones((11, 17), dtype)
    a[2, 3], a[4, 5], b[5, 6], b[7, 8] = np.inf, np.nan, np.inf, np.nan
    expected = np.zeros((9, 17))
    expected[2] = np.inf  # inf times 1 and zeros
    expected[4] = np.nan
    expected[:, 6] = np.nan  # 0 times inf
    expected[:, 8] = np.nan
    np.testing.assert_array_equal(fastnet.matmul(a, b), expected.astype(dtype))


def test_an_element_of_a_product_does_not_depend_on_the_others(core, dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((37, 300)).astype(dtype), rng.standard_normal((300, 53)).astype(dtype)
    whole = core.matmul(a, b)
    np.testing.assert_array_equal(core.matmul(a.T.copy(), b, transpose_a=True), whole)
    np.testing.assert_array_equal(core.matmul(a, b.T.copy(), transpose_b=True), whole)
    for rows, columns in [(slice(0, 1), slice(0, 1)), (slice(5, 18), slice(3, 20)), (slice(36, 37), slice(9, 53))]:
        part = core.matmul(a[rows].copy(), b[:, columns].copy())
        np.testing.assert_array_equal(part, whole[rows, columns])


def test_add_bias_of_infinities_and_nan(backend, dtype):
    x = np.array([[np.inf, -np.inf, np.nan, 1, np.inf]], dtype)
    b = np.array([-np.inf, -np.inf, 0, np.nan, 1], dtype)
    np.testing.assert_array_equal(fastnet.add_bias(x, b), [[np.nan, -np.inf, np.nan, np.nan, np.inf]])
    most = np.finfo(dtype).max
    assert fastnet.add_bias(np.array([[most]]), np.array([most]))[0, 0] == np.inf


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (1, 1), (2, 7), (17, 9), (33, 64), (4000, 17)])
def test_add_bias(backend, dtype, rows, columns):
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((rows, columns)).astype(dtype), rng.standard_normal(columns).astype(dtype)
    answer = fastnet.add_bias(x, b)
    assert answer.dtype == dtype
    np.testing.assert_array_equal(answer, x + b)  # one rounding: no freedom
    assert not np.shares_memory(answer, x)


# Layouts and dtypes ---------------------------------------------------------------------------------------


def misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)
    copy = raw[1:].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": read_only,
    "misaligned": misaligned,
    "subclass": lambda x: x.view(np.matrix) if x.ndim == 2 else x.view(np.recarray),
    "list": lambda x: x.astype(float).tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_every_layout_gives_the_same_bits(backend, dtype, layout):
    if layout == "list":
        dtype = "float64"  # what a list becomes
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((7, 9), (9, 5), (9,)))
    y = fastnet.softmax(x)
    t = fastnet.softmax(x[::-1])
    calls = {
        **{kind.name: (f, x) for kind, f in ACTIVATIONS.items()},
        "softmax": (fastnet.softmax, x),
        "matmul": (fastnet.matmul, x, w),
        "transposed": (lambda a, b: fastnet.matmul(a, b, True, True), x, w.T[:, :7].copy()),
        "add_bias": (fastnet.add_bias, x, b),
        "mean_squared_error": (fastnet.mean_squared_error, y, t),
        "cross_entropy_error": (fastnet.cross_entropy_error, y, t),
    }
    for name, (f, *arguments) in calls.items():
        laid_out = [LAYOUTS[layout](argument) for argument in arguments]
        copies = [np.array(argument) for argument in laid_out]
        answer, expected = f(*laid_out), f(*arguments)
        np.testing.assert_array_equal(answer, expected, err_msg=name)
        assert type(answer) is type(expected)
        assert np.asarray(answer).dtype == np.asarray(expected).dtype
        for argument, copy in zip(laid_out, copies, strict=True):
            np.testing.assert_array_equal(np.array(argument), copy)


@pytest.mark.parametrize(
    ("given_dtype", "result"),
    [("f4", "f4"), ("f2", "f4"), ("f8", "f8"), (">f4", "f4"), (">f8", "f8"), ("i8", "f8"), ("u1", "f8"), ("?", "f8")],
)
def test_dtype_of_the_result(backend, given_dtype, result):
    x = np.ones((2, 3), given_dtype)
    for f in (*ACTIVATIONS.values(), fastnet.softmax):
        assert f(x).dtype == np.dtype(result)
        assert f(x).dtype.isnative
    assert fastnet.add_bias(x, np.ones(3)).dtype == np.dtype(result)
    assert fastnet.add_bias(x, np.ones(3, "f4")).dtype == np.dtype(result)
    assert fastnet.matmul(x, np.ones((3, 2), "f4")).dtype == np.dtype(result)
    assert fastnet.matmul(x, np.ones((3, 2), "f8")).dtype == np.float64
    assert fastnet.matmul(np.ones((3, 2), "f8"), x).dtype == np.float64


def test_mixed_dtypes_are_multiplied_in_float64(backend):
    third = np.array([[1 / 3]], np.float32)
    assert fastnet.matmul(third, np.array([[3.0]]))[0, 0] == float(third[0, 0]) * 3


def test_numbers_and_lists(backend):
    assert type(fastnet.sigmoid(0)) is np.float64
    assert fastnet.sigmoid(0) == 0.5
    assert fastnet.relu(-3) == 0
    assert type(fastnet.relu(np.float32(2))) is np.float32
    np.testing.assert_array_equal(fastnet.step_function([-1.0, 2, 0]), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(fastnet.relu([[1, -2], [-3, 4]]), [[1.0, 0.0], [0.0, 4.0]])
    np.testing.assert_array_equal(fastnet.softmax([0, 0]), [0.5, 0.5])


# Threads --------------------------------------------------------------------------------------------------


def test_the_number_of_threads_changes_no_bit(backend, dtype, with_threads):
    rng = np.random.default_rng(0)
    x = rng.normal(scale=3, size=(20001, 17)).astype(dtype)
    w = rng.standard_normal((17, 203)).astype(dtype)
    y = fastnet.softmax(x)
    labels = rng.integers(0, 17, len(x))
    calls = [
        *(lambda f=f: f(x) for f in ACTIVATIONS.values()),
        lambda: fastnet.softmax(x),
        lambda: fastnet.add_bias(x, x[0]),
        lambda: fastnet.cross_entropy_error(y, labels),
        lambda: fastnet.mean_squared_error(y, y[::-1]),
    ]
    if backend.name == "cpp":  # the others leave the product to NumPy's BLAS, which has threads of its own
        calls += [lambda: fastnet.matmul(x, w), lambda: fastnet.matmul(x, x, transpose_a=True)]
    answers = {}
    for count in (1, 2, 3):
        with_threads(count)
        answers[count] = [call() for call in calls]
    for one, two, three in zip(*answers.values(), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
