"""Matrix products, against long double, on every implementation and dtype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastnet
from bounded import Bounded


def operands(rng, m, k, n, dtype, transpose_a, transpose_b):
    a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
    return a, b


def assert_product(oracle, a, b, transpose_a, transpose_b):
    before = a.copy(), b.copy()
    product = fastnet.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    assert product.dtype == a.dtype
    assert product.flags.c_contiguous
    left, right = (Bounded.exact(x.T if turn else x, a.dtype) for x, turn in ((a, transpose_a), (b, transpose_b)))
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
    product = fastnet.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
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


@pytest.mark.parametrize(
    "kind",
    {
        "as it is": lambda a: a,
        "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
        "columns": np.asfortranarray,
        "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
        "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder()),
        "a subclass": lambda a: a.view(np.matrix),
        "a list": lambda a: a.tolist(),
        "misaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), dtype=a.dtype, offset=1).reshape(a.shape),
    }.items(),
    ids=lambda kind: kind[0],
)
def test_whatever_holds_the_numbers_gives_the_same_bits(backend, kind):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 7)), rng.standard_normal((9, 5))
    held, flag = kind[1](a), np.bool_(True)
    for product, expected in (
        (fastnet.matmul(held, b, transpose_a=flag), fastnet.matmul(a, b, transpose_a=True)),
        (fastnet.matmul(b, held, transpose_a=flag), fastnet.matmul(b, a, transpose_a=True)),
    ):
        assert type(product) is np.ndarray
        assert product.dtype == np.float64
        np.testing.assert_array_equal(product, expected)


@pytest.mark.parametrize("flag", [1, 0, None, "yes", [True]])
def test_a_flag_is_true_or_false(backend, flag):
    a = np.ones((2, 2))
    for name in ("transpose_a", "transpose_b"):
        with pytest.raises(TypeError, match=f"{name} must be True or False"):
            fastnet.matmul(a, a, **{name: flag})
