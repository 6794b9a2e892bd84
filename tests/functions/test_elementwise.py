"""Activations and exp on arrays of every shape and layout, against long double, on every implementation and dtype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastnet
from bounded import Bounded, unit
from fastnet.backends.spec import DEFAULT_CONSTANTS, Activation

ACTIVATIONS = {
    Activation.IDENTITY: fastnet.identity_function,
    Activation.STEP: fastnet.step_function,
    Activation.SIGMOID: fastnet.sigmoid,
    Activation.TANH: fastnet.tanh,
    Activation.RELU: fastnet.relu,
    Activation.LEAKY_RELU: fastnet.leaky_relu,
    Activation.SOFTPLUS: fastnet.softplus,
    Activation.SILU: fastnet.silu,
    Activation.GELU: fastnet.gelu,
    Activation.ELU: fastnet.elu,
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


def assert_elementwise(oracle, kind, x, answer, slope=None):
    """`answer` is the activation of `x`, NaN exactly where `x` is."""
    slope = DEFAULT_CONSTANTS.get(kind, 0.0) if slope is None else slope
    assert answer.dtype == x.dtype
    assert answer.shape == x.shape
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(x))
    infinite = np.isinf(x)
    np.testing.assert_array_equal(answer[infinite], oracle.activation_value(kind, x[infinite], slope).astype(x.dtype))
    finite = np.isfinite(x)
    exact = Bounded.exact(x[finite], x.dtype)
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
        fastnet.sigmoid(x).astype(np.longdouble)
        / np.exp(x.astype(np.longdouble))
        * (1 + np.exp(x.astype(np.longdouble)))
    )
    assert abs(relative - 1).max() <= (oracle.ACTIVATION_UNITS[Activation.SIGMOID] + 1) * unit(dtype)
    small = np.geomspace(np.finfo(dtype).tiny * 4, 1, 5000).astype(dtype)
    for x in (small, -small):
        relative = fastnet.tanh(x).astype(np.longdouble) / np.tanh(x.astype(np.longdouble))
        assert abs(relative - 1).max() <= (oracle.ACTIVATION_UNITS[Activation.TANH] + 1) * unit(dtype)


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


@pytest.mark.parametrize("alpha", [0, 0.3, 1, 2.5])
def test_alphas_of_elu(backend, oracle, dtype, alpha):
    x = np.linspace(-5, 5, 101).astype(dtype)
    assert_elementwise(oracle, Activation.ELU, x, fastnet.elu(x, alpha), alpha)


def test_the_lower_tails_keep_their_digits(core, oracle, dtype):
    """Softplus, SiLU and GELU down to the smallest normal numbers, relative to the value, to a few units."""
    ends = {
        Activation.SOFTPLUS: (fastnet.softplus, -700, -87),
        Activation.SILU: (fastnet.silu, -700, -87),
        Activation.GELU: (fastnet.gelu, -37, -12.9),
    }
    for kind, (function, *end) in ends.items():
        x = np.linspace(end[dtype == "float32"], 3, 5000).astype(dtype)
        exact = oracle.activation_value(kind, x)
        off = abs(function(x).astype(np.longdouble) / exact - 1).max()
        assert off <= oracle.ACTIVATION_UNITS[kind] * unit(dtype), kind


@ELEMENTWISE
def test_derivative_of_an_activation(backend, oracle, dtype, kind):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1000, 1000, 500), rng.normal(scale=4, size=1000), [0.0, -0.0]]).astype(dtype)
    with np.errstate(under="ignore"):
        exact = oracle.activation_derivative(kind, Bounded.exact(x, dtype), float(x.dtype.type(0.3)))
    for n in (*SIZES, len(x)):
        answer = backend.activation_derivative(kind, x[:n], 0.3)
        assert answer.dtype == x.dtype
        exact[:n].assert_holds(answer)
    unbounded = backend.activation_derivative(kind, np.array([np.inf, -np.inf, np.nan], dtype), 0.3)
    slopes = {Activation.IDENTITY: (1, 1), Activation.LEAKY_RELU: (1, x.dtype.type(0.3))}
    flat = (Activation.STEP, Activation.SIGMOID, Activation.TANH)
    assert tuple(unbounded[:2]) == slopes.get(kind, (0, 0) if kind in flat else (1, 0))
    assert np.isnan(unbounded[2]) == (kind != Activation.IDENTITY)


# exp ------------------------------------------------------------------------------------------------------


def ulps_off(oracle, answer, exact):
    """How many units in the last place `answer` is away from `exact`; inf is what lies beyond the largest number."""
    dtype = answer.dtype
    with np.errstate(over="ignore"):
        rounded = exact.astype(dtype)
    np.testing.assert_array_equal(np.isinf(answer), np.isinf(rounded))
    finite = np.isfinite(answer)
    ulp = np.spacing(np.abs(rounded[finite])).astype(np.longdouble)
    return float((abs(answer[finite].astype(np.longdouble) - exact[finite]) / ulp).max())


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
        exact = np.exp(x[known].astype(np.longdouble))
    assert ulps_off(oracle, answer[known], exact) <= 2
    np.testing.assert_array_equal(
        core.exp(np.array([np.inf, -np.inf, 0, -0.0], dtype)), np.array([np.inf, 0, 1, 1], dtype)
    )


def test_exp_overflows_and_underflows_where_it_should(core, oracle, dtype):
    info = np.finfo(dtype)
    last = np.log(np.longdouble(info.max)).astype(dtype)  # may be rounded up
    last = last if np.exp(np.longdouble(last)) < info.max else np.nextafter(last, info.dtype.type(0))
    first = np.log(np.longdouble(info.smallest_subnormal)).astype(dtype)
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
        "transposed": (lambda a, b: fastnet.matmul(a, b, transpose_a=True, transpose_b=True), x, w.T[:, :7].copy()),
        "add_bias": (fastnet.add_bias, x, b),
        "mean_squared_error": (fastnet.mean_squared_error, y, t),
        "mean_absolute_error": (fastnet.mean_absolute_error, y, t),
        "huber_loss": (fastnet.huber_loss, y, t),
        "binary_cross_entropy": (fastnet.binary_cross_entropy_with_logits, x, t),
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
        lambda: fastnet.huber_loss(y, y[::-1], 0.01),
        lambda: fastnet.mean_absolute_error(y, y[::-1]),
        lambda: fastnet.binary_cross_entropy_with_logits(x, y),
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
