"""The exact finite differences on networks of real size: against each other, the loop and backprop."""

from __future__ import annotations

import numpy as np
import pytest

from bounded import Bounded, unit
from chains import (
    AGREEMENT,
    ANSWERS,
    MORE_ANSWERS,
    STEP,
    E,
    G,
    I,
    L,
    P,
    R,
    S,
    T,
    U,
    chain,
    compiled,
    exact,
    off,
    spec_of,
    two_layers,
)
from fastnet.backends import _numpy
from fastnet.backends.spec import Loss, Output


def test_the_algorithms_of_each_backend(backend):
    expected = ("incremental", "loop") if backend.name == "numpy" else ("nodal", "incremental", "loop")
    assert backend.algorithms == expected


# nodal against incremental --------------------------------------------------------------------------------


@compiled
def test_nodal_is_incremental_on_digits(both, dtype, digits):
    x, t = digits
    difference, of_nodal, of_incremental = both(spec_of(two_layers(dtype)), x.astype(dtype), t, STEP[dtype] / 1e2)
    assert difference <= AGREEMENT[dtype]
    assert of_nodal.fallbacks == 0
    assert of_nodal.evaluations == 2 * 3 * 100 * 60  # three nodes, both ways, for each row and unit
    assert of_incremental.evaluations > 20 * of_nodal.evaluations


@compiled
@pytest.mark.parametrize("h", [1e-4, 1e-2])
def test_nodal_is_incremental_on_unscaled_pixels(both, drawn_digits, h):
    """Moves of up to 2.55: polynomials of few nodes do not do for all of them."""
    x, t = drawn_digits
    difference, of_nodal, _ = both(spec_of(two_layers()), np.round(x[:10] * 255), t[:10], h)
    assert difference <= AGREEMENT["float64"]
    assert (of_nodal.fallbacks > 0) == (h == 1e-2)
    assert of_nodal.kinks == 0


@compiled
@pytest.mark.parametrize(
    "kinds",
    [(R, R, R, I), (S, T, S, I), (R, S, R, I), (T, R, L, S), (S, R, R, T), (L, T, I), (P, U, G, I), (E, G, E, U)],
)
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a[0].name}-{a[1].name}".lower())
def test_nodal_is_incremental_in_deep_networks(both, dtype, kinds, answer):
    spec = chain((*(20, 17, 16, 15)[: len(kinds)], 10), kinds, dtype, answer)
    x = np.random.default_rng(1).standard_normal((20, 20)).astype(dtype)
    x[:, ::3] = 0
    difference, of_nodal, _ = both(spec, x, np.arange(20) % 10, STEP[dtype])
    assert difference <= AGREEMENT[dtype]
    if not {R, L} & set(kinds):
        assert of_nodal.fallbacks == of_nodal.kinks == 0 or dtype == "float32"


@compiled
@pytest.mark.parametrize("kinds", [(R, R, I), (G, S, I), (E, I)])
@pytest.mark.parametrize("answer", MORE_ANSWERS, ids=lambda a: a[1].name.lower())
def test_nodal_is_incremental_with_the_losses_of_numbers(both, kinds, answer):
    """The absolute error's kinks are met, and those of ReLU; a Huber loss that changes its branch is no polynomial."""
    spec = chain((*(20, 17, 16)[: len(kinds)], 3), kinds, "float64", answer)
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((20, 20)), rng.random((20, 3))
    difference, _, of_incremental = both(spec, x, t, STEP["float64"])
    assert difference <= AGREEMENT["float64"]
    if R not in kinds:
        assert not any(k.any() for k in of_incremental.kinked)

    z = x
    for weight, bias, kind, constant in spec.layers:
        z = _numpy.activation(kind, z @ weight + bias, constant)
    near = z + (1 if answer[1] == Loss.HUBER else 0) + rng.uniform(-1e-5, 1e-5, z.shape)
    if answer[1] != Loss.BINARY_CROSS_ENTROPY:
        difference, of_nodal, of_incremental = both(spec, x, near, STEP["float64"])
        assert difference <= AGREEMENT["float64"]
        assert of_nodal.fallbacks > 100
        if answer[1] == Loss.ABSOLUTE_ERROR:
            assert of_nodal.kinks > 100
            assert all(k.all() for k in of_incremental.kinked)
        elif R not in kinds:
            assert of_nodal.kinks == 0


@compiled
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_a_move_of_an_elu_across_0(both, alpha):
    """A kink unless α is 1; no polynomial goes across it in either case."""
    spec = chain((6, 9, 4), (E, I), constants=(alpha, 0.0))
    x = np.random.default_rng(3).standard_normal((12, 6))
    spec.layers[0].bias[:] = -(x[np.arange(9)] @ spec.weights[0]).diagonal() + 1e-6
    difference, of_nodal, of_incremental = both(spec, x, np.arange(12) % 4, STEP["float64"])
    assert difference <= AGREEMENT["float64"]
    assert of_nodal.fallbacks >= 9
    assert of_incremental.kinked[0].all() == (alpha != 1)
    assert (of_nodal.kinks > 0) == (alpha != 1)


@compiled
def test_saturated_outputs_are_no_polynomials(both):
    """Small inputs beside a bias: all nodes are moves of about 10, to where tanh is flat, but the weights' are not."""
    spec = chain((3, 4), (T,), answer=(Output.IDENTITY, Loss.MEAN_SQUARED_ERROR))
    x = np.random.default_rng(2).standard_normal((5, 3)) * 1e-3
    difference, of_nodal, _ = both(spec, x, np.arange(5) % 4, 10.0)
    assert difference <= AGREEMENT["float64"]
    assert of_nodal.fallbacks == 5 * 4
    assert of_nodal.kinks == 0


# Against the loop and backprop ----------------------------------------------------------------------------


WITHOUT_DIFFERENCES = (3, 6, 9, 12)  # cross entropy without a softmax


def test_which_cases_have_no_differences(oracle):
    refused = []
    for number in range(oracle.CASES):
        spec = oracle.case(number, "float64").spec
        if (spec.output, spec.loss) == (Output.IDENTITY, Loss.CROSS_ENTROPY):
            refused.append(number)
    assert tuple(refused) == WITHOUT_DIFFERENCES


@pytest.mark.parametrize("number", [n for n in range(16) if n not in WITHOUT_DIFFERENCES])
def test_the_loop_agrees_as_far_as_its_rounding_allows(backend, oracle, dtype, number):
    """Batches of 1 to 300, layers of 1 to 33 units. The bound is that of the loop, about eps L / h."""
    spec, x, t = oracle.case(number, dtype)
    if backend.name == "numpy" and sum(p.size for p in spec.parameters) * len(x) > 30_000:
        pytest.skip("the reference would take a minute")
    h, step = STEP[dtype], float(spec.dtype.type(STEP[dtype]))
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, t, h)
        flat = np.concatenate([g.ravel() for g in gradients])
        for entry in oracle.sampled_entries(spec).tolist():
            bounded = oracle.cached_difference(number, dtype, h, entry)
            # The loop moves θ to the nearest numbers: by up to unit (|θ| + h) more or less than h, each way.
            parameter, at = oracle.at_entry(spec, entry)
            moved = 2 * unit(dtype) * (abs(parameter[at]) + step) / step * abs(flat).max()
            off_h = abs(step / h - 1) * abs(flat[entry])
            Bounded(bounded.value, 2 * bounded.error + moved + off_h, dtype).assert_holds(flat[entry], algorithm)


@compiled
def test_accuracy_in_float64(backend, digits, request):
    """The error is truncation, h² L‴ / 6, and nothing else: no rounding takes its place where h is small."""
    x, t = digits
    spec = spec_of(two_layers())
    derivative = backend.gradient(spec, x, t)
    for algorithm in exact(backend):
        errors = {h: off(getattr(backend, algorithm)(spec, x, t, h)[0], derivative) for h in (1e-3, 1e-4, 1e-6, 1e-10)}
        # The next term is h² smaller, which is 1e-6; rounding of some 1e-15 is less than that of the smaller error.
        assert errors[1e-3] / errors[1e-4] == pytest.approx(100, rel=1e-5)
        assert errors[1e-6] <= errors[1e-4] * 1e-4 + 1e-14
        assert errors[1e-10] <= 1e-14
        if "mnist" in request.node.name:
            assert errors[1e-4] <= 3e-9
            assert errors[1e-6] <= 1e-12


@compiled
def test_accuracy_in_float32(backend, digits):
    x, t = digits
    net = two_layers("float32")
    wide = two_layers()
    wide.params = {name: p.astype(np.float64) for name, p in net.params.items()}
    x = x.astype(np.float32)
    derivative = backend.gradient(spec_of(wide), x.astype(np.float64), t)
    for algorithm in exact(backend):
        assert off(getattr(backend, algorithm)(spec_of(net), x, t, 1e-3)[0], derivative) <= 5e-6
