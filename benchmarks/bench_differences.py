"""Numerical gradients: `incremental` and `nodal` against the textbook's loop, backprop, NumPy and the arithmetic."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from _measure import (
    MOST_THREADS,
    THREAD_COUNTS,
    Answer,
    Effort,
    FloatArray,
    IntArray,
    Row,
    Side,
    Timing,
    WrongAnswerError,
    accurate,
    check,
    deep_network,
    digits,
    error,
    faster,
    flat,
    interleave,
    main,
    on,
    peer,
    power_of_ten,
    sample_of,
    skipped,
    slower,
    spec_of,
    threads,
)

import fastnet
from fastnet import backends
from fastnet.backends.spec import Activation, NetworkSpec

TITLE = "Numerical gradients"
H = 1e-4
TRUNCATION = 1e-7  # at this step, relative to the largest entry, which becomes smaller as batches grow
EXACT = ("incremental", "nodal")  # the algorithms without subtraction
DEEP = "784-[100]×6-10"

Call = Callable[[], Answer]


def two_layers(dtype: str = "float64", seed: int = 0) -> NetworkSpec:
    return spec_of(fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=seed))


def numerical(
    algorithm: str, spec: NetworkSpec, x: FloatArray, t: IntArray, h: float = H, backend: str | None = None
) -> Call:
    """Return a function that computes the numerical gradient as a list of arrays."""
    chosen = backends.active() if backend is None else backends.get(backend)
    compute = getattr(chosen, algorithm)
    return lambda: compute(spec, x, t, h)[0]


def backprop(spec: NetworkSpec, x: FloatArray, t: IntArray) -> Call:
    return lambda: backends.active().gradient(spec, x, t)


def rows(effort: Effort) -> Iterator[Row]:
    missing = [name for name in EXACT if name not in backends.active().algorithms]
    if missing:
        yield skipped(TITLE, f"the {backends.active().name} backend has no {' and no '.join(missing)}")
        return
    yield from ladder(effort)
    yield autograd(effort)
    yield descent(effort)
    yield from constant_cost(effort)
    yield from deep(effort)
    yield from scaling(effort)
    yield from numba(effort)
    yield from accuracy(effort)
    yield from limits(effort)


# Against the loop and backprop ----------------------------------------------------------------------------


def ladder(effort: Effort) -> Iterator[Row]:
    spec, (x, t) = two_layers(), digits(100)
    entries, scale = sample_of(spec, effort.loop_entries)
    loop_backend = backends.get("numpy")

    def loop() -> FloatArray:
        return loop_backend.loop(spec, x, t, H, entries)

    reference = backprop(spec, x, t)
    incremental, nodal = (numerical(name, spec, x, t) for name in EXACT)
    check("the NumPy loop against backprop", loop(), flat(reference())[entries], 1e-6)
    for name, call in zip(EXACT, (incremental, nodal), strict=True):
        check(f"{name} against backprop", call(), reference(), TRUNCATION)

    *timings, theirs, floor = interleave(effort, incremental, nodal, peer(loop, scale=scale), reference)
    for name, ours, least in zip(EXACT, timings, (8_000, 100_000), strict=True):
        yield faster(f"784-50-10, float64, batch 100: {name} against the NumPy loop", ours, theirs, least)
    yield slower("784-50-10, float64, batch 100: nodal against our own backprop", timings[1], floor, 2)


def autograd(effort: Effort) -> Row:
    """Compare all central differences, in float32, with PyTorch's forward and backward pass of the same network."""
    what = "784-50-10, float32, batch 100: nodal against PyTorch's forward and backward pass"
    if importlib.util.find_spec("torch") is None:
        return skipped(what, "torch is not installed")
    import torch

    spec, (x, t) = two_layers("float32"), digits(100, "float32")
    params = [torch.tensor(p, requires_grad=True) for p in spec.parameters]
    inputs, labels = torch.from_numpy(x), torch.from_numpy(t)

    def passes() -> tuple[Any, ...]:
        w1, b1, w2, b2 = params
        loss = torch.nn.functional.cross_entropy(torch.sigmoid(inputs @ w1 + b1) @ w2 + b2, labels)
        return torch.autograd.grad(loss, params)

    nodal = numerical("nodal", spec, x, t)
    check("nodal against PyTorch", nodal(), [gradient.numpy() for gradient in passes()], 1e-4)
    ours, theirs = interleave(effort, nodal, peer(passes))
    return faster(what, ours, theirs, 2)


class NotesNet:
    """The program of the notes: it moves every parameter in turn by ±h and computes the whole network again."""

    def __init__(self, params: dict[str, FloatArray]) -> None:
        self.params = {name: value.copy() for name, value in params.items()}

    def loss(self, x: FloatArray, t: FloatArray) -> float:
        z = 1 / (1 + np.exp(-(x @ self.params["W1"] + self.params["b1"])))
        a = z @ self.params["W2"] + self.params["b2"]
        e = np.exp(a - a.max())
        return float(-np.sum(t * np.log(e / e.sum() + 1e-7)))

    def numerical_gradient(self, x: FloatArray, t: FloatArray, entries: IntArray) -> FloatArray:
        """Return the derivatives with respect to the parameters with these flat numbers, which ascend."""
        gradient, start = [], 0
        for value in self.params.values():
            of_array = entries[(start <= entries) & (entries < start + value.size)] - start
            start += value.size
            for index in zip(*np.unravel_index(of_array, value.shape), strict=True):
                original = value[index]
                value[index] = original + H
                above = self.loss(x, t)
                value[index] = original - H
                below = self.loss(x, t)
                value[index] = original
                gradient.append((above - below) / (2 * H))
        return np.array(gradient)


def descent(effort: Effort) -> Row:
    """Compare two steps of descent on one image, from N(0, 1) parameters, by the public functions and by the notes'."""
    net = fastnet.TwoLayerNet(784, 50, 10, weight_init_std=1.0, seed=0)
    x, t = digits(1)
    target = np.eye(10)[t[0]]
    entries, scale = sample_of(spec_of(net), effort.loop_entries)
    start = {name: value.copy() for name, value in net.params.items()}
    notes = NotesNet(start)

    def ours() -> None:
        net.params = {name: value.copy() for name, value in start.items()}
        for _ in range(2):
            gradient = net.numerical_gradient(x, t)
            for name, value in net.params.items():
                value -= 0.06 * gradient[name]

    def theirs() -> FloatArray:  # one gradient; the other work of the two steps is negligible
        return notes.numerical_gradient(x[0], target, entries)

    check("the notes' gradient", flat(list(net.numerical_gradient(x, t).values()))[entries], theirs(), 1e-6)
    before = net.loss(x, t)
    ours()
    if not net.loss(x, t) < before:
        raise WrongAnswerError("two steps of descent do not lower the loss")
    what = "784-50-10, batch of one: two descent steps by the public functions, against the notes' program"
    steps, program = interleave(effort, ours, peer(theirs, scale=2 * scale))
    return faster(what, steps, program, 30_000)


# How the cost grows ---------------------------------------------------------------------------------------


def constant_cost(effort: Effort) -> Iterator[Row]:
    """Measure the time per evaluation of the loss of one row of data after one perturbation that changes it.

    Inputs of 0 change nothing, and equal inputs of a row change it equally: neither is evaluated twice.
    """
    spec = two_layers()
    batches = [digits(size) for size in effort.batches]
    calls = [numerical("incremental", spec, x, t) for x, t in batches]
    evaluations = [backends.active().incremental(spec, x, t, H)[1].evaluations for x, t in batches]
    for (x, t), call in zip(batches, calls, strict=True):
        check(f"incremental, batch {len(t)}", call(), backprop(spec, x, t)(), TRUNCATION)
    for count in THREAD_COUNTS:
        timings = interleave(effort, *(Side(call, count) for call in calls))
        costs = [timing.median / number * 1e9 for timing, number in zip(timings, evaluations, strict=True)]
        spread = max(costs) / min(costs) - 1
        sizes = ", ".join(f"{size:,}" for size in effort.batches)
        yield Row(
            f"incremental, cost per perturbed sample at batch {sizes}, {on(count)}: largest over smallest",
            ", ".join(f"{cost:.3g}" for cost in costs) + " ns",
            "",
            f"+{100 * spread:.0f} %",
            "≤ +20 %",
            spread <= 0.2,
        )


def both_networks(effort: Effort) -> Iterator[tuple[str, NetworkSpec, tuple[FloatArray, IntArray]]]:
    yield "784-50-10, batch 100", two_layers(), digits(100)
    yield f"{DEEP}, batch {effort.deep_batch}", deep_network(), digits(effort.deep_batch)


def scaling(effort: Effort) -> Iterator[Row]:
    if MOST_THREADS < 2:
        yield skipped("2 threads against 1", "there is one core")
        return
    for what, spec, (x, t) in both_networks(effort):
        for name in EXACT:
            call = numerical(name, spec, x, t)
            with threads(1):
                alone = call()
            with threads(2):
                if not np.array_equal(flat(alone), flat(call())):
                    raise WrongAnswerError(f"{what}, {name}: the bits depend on the number of threads")
            both, one = interleave(effort, Side(call, 2), Side(call, 1))
            yield faster(f"{what}, {name}: 2 threads against 1", both, one, 1.7)


# The deep network -----------------------------------------------------------------------------------------


def deep(effort: Effort) -> Iterator[Row]:
    spec, (x, t) = deep_network(), digits(effort.deep_batch)
    incremental, nodal = (numerical(name, spec, x, t) for name in EXACT)
    check(f"{DEEP}, incremental against backprop", incremental(), backprop(spec, x, t)(), TRUNCATION)
    check(f"{DEEP}, nodal against incremental", nodal(), incremental(), 1e-12)

    what = f"{DEEP}, float64, batch {effort.deep_batch}"
    flops = product_flops(spec, differences_by_layer(spec, x, t))
    ours, fast, numpy = interleave(effort, incremental, nodal, numpy_product(flops))
    yield slower(f"{what}: incremental against NumPy's matrix product of as many flops ({flops:.2e})", ours, numpy, 1.6)
    yield faster(f"{what}: nodal against incremental", fast, ours, 15)


def numpy_product(flops: float) -> Side:
    """Return NumPy's product of 1,000 rows of differences with a 100×100 weight, scaled to so many flops.

    That is NumPy at its best: fewer rows are as fast for each, and with more the product no longer stays in the cache.
    """
    rng = np.random.default_rng(0)
    differences, weight = rng.standard_normal((1000, 100)), rng.standard_normal((100, 100))
    return peer(lambda: differences @ weight, scale=flops / (2 * 1000 * 100 * 100))


def differences_by_layer(spec: NetworkSpec, x: FloatArray, t: IntArray) -> list[int]:
    """Count the evaluations of `incremental`: rows of differences that start in each layer.

    For each row of data, each of the layer's distinct nonzero inputs (and 1, for the bias) and each unit: two.
    """
    counts, numpy, z = [], backends.get("numpy"), x
    for weight, bias, kind, _ in spec.layers:
        moves = sum(len(np.unique(np.append(row[row != 0], 1.0))) for row in z)
        counts.append(2 * moves * weight.shape[1])
        z = numpy.activation(kind, z @ weight + (0 if bias is None else bias))
    reported = backends.active().incremental(spec, x, t, H)[1].evaluations
    if abs(sum(counts) / reported - 1) > 0.01:
        raise WrongAnswerError(f"incremental reports {reported} evaluations; {sum(counts)} are expected")
    return counts


def product_flops(spec: NetworkSpec, counts: Sequence[int]) -> int:
    """Count the flops of the matrix products that carry rows of differences to the answer.

    A change of one unit of layer l is the next layer's row of weights, scaled; products begin behind that.
    """
    flops = 0
    for layer, count in enumerate(counts):
        flops += count * sum(2 * weight.size for weight in spec.weights[layer + 2 :])
    return flops


# Numba ----------------------------------------------------------------------------------------------------


def numba(effort: Effort) -> Iterator[Row]:
    spec, (x, t) = two_layers(), digits(100)
    for name in EXACT:
        what = f"784-50-10, float64, batch 100: Numba's {name} against C++"
        if "cpp" not in backends.available() or name not in backends.get("numba").algorithms:
            yield skipped(what, "not in both backends")
            continue
        calls = [numerical(name, spec, x, t, backend=backend) for backend in ("numba", "cpp")]
        check(what, calls[0](), calls[1](), 1e-12)
        ours, cpp = interleave(effort, *calls)
        yield slower(what, ours, cpp, 3)


# Accuracy -------------------------------------------------------------------------------------------------


def accuracy(effort: Effort) -> Iterator[Row]:
    """Compare the worst error over several networks, each with its own batch, with its limit."""
    seeds = range(max(3, effort.rounds // 2))
    worst: dict[str, tuple[float, float | None]] = {}

    def note(what: str, ours: Answer, theirs: Answer, limit: float | None) -> None:
        worst[what] = max(worst.get(what, (0.0, None))[0], error(ours, theirs)), limit

    for seed in seeds:
        spec, (x, t) = two_layers(seed=seed), digits(100, first=100 * seed)
        reference = backprop(spec, x, t)()
        for h, limit in ((1e-4, 3e-9), (1e-6, 1e-12)):
            what = f"784-50-10, float64, h = {power_of_ten(h)}"
            incremental, nodal = (numerical(name, spec, x, t, h)() for name in EXACT)
            note(f"{what}: incremental against backprop", incremental, reference, limit)
            note(f"{what}: nodal against backprop", nodal, reference, limit)
            note(f"{what}: nodal against incremental", nodal, incremental, 1e-13)
        # The error at 1e-4 without the h² term of the central difference itself.
        once, half = (flat(numerical("incremental", spec, x, t, h)()) for h in (1e-4, 5e-5))
        what = "784-50-10, float64, h = 1e-4: incremental without its truncation, (4·D(h/2) − D(h))/3"
        note(what, (4 * half - once) / 3, reference, None)

        single = two_layers("float32", seed)
        double = single.with_parameters(p.astype(np.float64) for p in single.parameters)
        x32 = x.astype(np.float32)
        reference = backprop(double, x32.astype(np.float64), t)()
        for name in EXACT:
            what = f"784-50-10, float32, h = 1e-3: {name} against float64 backprop"
            note(what, numerical(name, single, x32, t, 1e-3)(), reference, 5e-6)
    for what, (largest, at_most) in worst.items():
        yield accurate(f"{what}, worst of {len(seeds)} networks and batches", largest, at_most)


# The arithmetic -------------------------------------------------------------------------------------------

# Vector instructions for one move of one unit (a multiply-add is one), counted from the formulas with the shortest
# series that give full accuracy at h = 1e-4. expm1(|δ|) is the same for all units, and not counted.
SIGMOID_DIFFERENCE = 8  # s·c·u / (1 + w·u): two products, the reciprocal's series of degree 5, a product
LOSS_DIFFERENCE = 14  # log1p(R·(q_t − r)/(1 + r)): two series of degree 3, a reciprocal of 3, a product, log1p of 4
COMBINE = 1  # the subtraction and scaling of both directions, half for each


def limits(effort: Effort) -> Iterator[Row]:
    """Compare with the time of the arithmetic at this machine's peak, NumPy's best on 1500×1500 matrices.

    The least that the algorithm needs is counted: matrix products, on nonzeros, and the formulas of each move. Neither
    loads and stores are, nor what is done once per unit and row of data: exponentials, the sums over classes behind
    the series, finding equal inputs. `nodal` does little else, so that it can't come as near.
    """
    peak = square_product()
    for (what, spec, (x, t)), name in itertools.product(both_networks(effort), EXACT):
        flops = algorithm_flops(name, spec, x, t)
        ours, theirs = interleave(effort, numerical(name, spec, x, t), Side(peak, scale=flops / (2 * 1500**3)))
        best = Timing((min(theirs.seconds),) * len(ours.seconds), scaled=True)
        yield slower(f"{what}: {name} against its arithmetic at this machine's peak ({flops:.2e} flop)", ours, best)


def square_product() -> Callable[[], object]:
    a, b = np.random.default_rng(0).standard_normal((2, 1500, 1500))
    return lambda: a @ b


def algorithm_flops(name: str, spec: NetworkSpec, x: FloatArray, t: IntArray) -> float:
    """Count two flops for each multiply-add (or other vector instruction's lane) that the algorithm needs."""
    per_row = [len(x) * weight.shape[1] for weight in spec.weights]  # (row of data, unit) pairs, by layer
    nonzeros = [np.count_nonzero(x), *(len(x) * weight.shape[0] for weight in spec.weights[1:])]
    multiply_adds = [count * weight.shape[1] for count, weight in zip(nonzeros, spec.weights, strict=True)]
    if name == "nodal":
        counts = [6 * pairs for pairs in per_row]  # at ±s1 and ±s2, and at ±s3 to check
        flops = (
            2.0 * 3 * float(sum(multiply_adds))
        )  # the forward pass, and a product each for the first and third order
    else:
        counts = differences_by_layer(spec, x, t)
        flops = 2.0 * 2 * float(sum(multiply_adds))  # the forward pass, and each weight's sum over the rows of data
    flops += product_flops(spec, counts)
    sigmoids = [weight.shape[1] if kind == Activation.SIGMOID else 0 for weight, _, kind, _ in spec.layers]
    for layer, count in enumerate(counts):
        move = LOSS_DIFFERENCE + COMBINE + (SIGMOID_DIFFERENCE if sigmoids[layer] else 0)
        if layer + 2 < len(spec.weights):  # else the sums over the next layer are the same for all moves of a unit
            move += spec.weights[layer + 1].shape[1] + SIGMOID_DIFFERENCE * sum(sigmoids[layer + 1 :])
        flops += 2.0 * count * move
    return flops


# For pytest-benchmark -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 100, 1000])
@pytest.mark.parametrize("algorithm", [*EXACT, "backprop"])
@pytest.mark.parametrize("library", ["cpp", "numba"])
def test_gradient(benchmark: Any, library: str, algorithm: str, batch: int) -> None:
    if library not in backends.available():
        pytest.skip("the extension was not built")
    if algorithm != "backprop" and algorithm not in backends.get(library).algorithms:
        pytest.skip(f"{library} has no {algorithm}")
    spec, (x, t) = two_layers(), digits(batch)
    with fastnet.use_backend(library):
        call = backprop(spec, x, t) if algorithm == "backprop" else numerical(algorithm, spec, x, t)
        check(algorithm, call(), backends.get("numpy").gradient(spec, x, t), TRUNCATION)
        benchmark(call)


@pytest.mark.parametrize("algorithm", EXACT)
def test_deep_gradient(benchmark: Any, algorithm: str) -> None:
    spec, (x, t) = deep_network(), digits(4)
    call = numerical(algorithm, spec, x, t)
    check(algorithm, call(), backprop(spec, x, t)(), TRUNCATION)
    benchmark(call)


@pytest.mark.parametrize("library", ["cpp", "numba", "numpy"])
def test_loop(benchmark: Any, library: str) -> None:
    if library not in backends.available():
        pytest.skip("the extension was not built")
    spec, (x, t) = two_layers(), digits(100)
    entries, _ = sample_of(spec, 100)
    loop = backends.get(library).loop
    check("loop", loop(spec, x, t, H, entries), flat(backprop(spec, x, t)())[entries], 1e-6)
    benchmark(loop, spec, x, t, H, entries)


if __name__ == "__main__":
    main(TITLE, rows)
