"""fastnet's matrix product against NumPy's: large squares, and the products of a 784-50-10 network at batch 100."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from _measure import FULL, Effort, FloatArray, Row, check, faster, interleave, main, on, peer, threads

import fastnet

TITLE = "Matrix products against NumPy"
DTYPES = ("float64", "float32")


class Product(NamedTuple):
    """The shapes of both factors in memory, which of them is transposed, and the target."""

    left: tuple[int, int]
    right: tuple[int, int]
    transpose_a: bool = False
    transpose_b: bool = False
    at_least: float | None = None

    def __str__(self) -> str:
        left, right = (f"{rows}×{columns}" for rows, columns in (self.left, self.right))
        return f"{left}{'ᵀ' * self.transpose_a} · {right}{'ᵀ' * self.transpose_b}"

    def ascii(self) -> str:
        return str(self).replace("×", "x").replace(" · ", "-").replace("ᵀ", "T")


PRODUCTS = (
    Product((512, 512), (512, 512), at_least=0.9),
    Product((1500, 1500), (1500, 1500), at_least=0.95),
    Product((100, 784), (784, 50), at_least=1.0),
    Product((100, 784), (100, 50), transpose_a=True, at_least=1.0),
    Product((100, 50), (784, 50), transpose_b=True, at_least=1.0),
    Product((100, 50), (50, 10), at_least=1.0),
    Product((100, 50), (100, 10), transpose_a=True, at_least=1.0),
    Product((100, 10), (50, 10), transpose_b=True, at_least=1.0),
)

Multiply = Callable[[], FloatArray]


def sides(product: Product, dtype: npt.DTypeLike) -> dict[str, Multiply]:
    """Return a function for each library that computes the product of two dense random matrices."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in (product.left, product.right))
    left, right = a.T if product.transpose_a else a, b.T if product.transpose_b else b

    def ours() -> FloatArray:
        return fastnet.matmul(a, b, transpose_a=product.transpose_a, transpose_b=product.transpose_b)

    def numpy() -> FloatArray:
        answer: FloatArray = left @ right
        return answer

    return {"fastnet": ours, "numpy": numpy}


def tolerance(dtype: npt.DTypeLike) -> float:
    return 20 * float(np.finfo(np.dtype(dtype)).eps)


def rows(effort: Effort) -> Iterator[Row]:
    for count in effort.thread_counts:
        for dtype in DTYPES:
            for product in PRODUCTS:
                if effort != FULL and max(product.left) > 1000:
                    continue
                ours, numpy = sides(product, dtype).values()
                what = f"{product}, {dtype}, {on(count)}"
                with threads(count):
                    check(what, ours(), numpy(), tolerance(dtype))
                    mine, theirs = interleave(effort, ours, peer(numpy))
                yield faster(what, mine, theirs, product.at_least)


@pytest.mark.parametrize("product", PRODUCTS, ids=Product.ascii)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", ["fastnet", "numpy"])
def test_matmul(benchmark: Any, library: str, dtype: str, product: Product) -> None:
    calls = sides(product, dtype)
    check(str(product), calls["fastnet"](), calls["numpy"](), tolerance(dtype))
    benchmark(calls[library])


if __name__ == "__main__":
    main(TITLE, rows)
