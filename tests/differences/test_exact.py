"""The exact finite differences against mpmath: every activation, loss, depth, dtype, algorithm and implementation.

The exact values and the bounds that answers are compared with are in `exact_differences`; no tolerance is chosen.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from bounded import Bounded
from differences_in_many_digits import exact_gradient, mp_activation, mp_loss, to_long
from exact_differences import (
    ANSWERS,
    MORE_ANSWERS,
    Long,
    Recipe,
    assert_exact,
    bounded_gradient,
    bounds,
    difference,
    largest,
    looseness,
    loss_change,
    reference,
)
from fastnet.backends import _numpy
from fastnet.backends.spec import DEFAULT_CONSTANTS, Activation, Loss, NetworkSpec, Output

STEPS = (1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.3, 1.0, 10.0)
SCALES = (0.1, 1.0, 3.0, 10.0, 40.0)
SLOPES = (0.01, 0.3, 0.0, 1.0, 2.5, -0.5)
INPUTS = ("normal", "pixels", "few values", "unit pixels", "huge", "zeros", "tiny")
TARGETS = ("labels", "one-hot", "probabilities")


# Every activation x answer x depth ------------------------------------------------------------------------

COMBINATIONS = [(kind, answer, depth) for kind, answer, depth in itertools.product(Activation, ANSWERS, range(1, 5))]
COMBINATIONS += [(Activation(3 * n % 10), *case) for n, case in enumerate(itertools.product(MORE_ANSWERS, range(1, 5)))]


def random_recipe(rng, dtype, kind, answer, depth, where):
    kinds = [Activation(int(k)) for k in rng.integers(0, len(Activation), depth)]
    kinds[where] = kind
    return Recipe(
        tuple(kinds),
        answer,
        tuple(int(n) for n in rng.integers(1, 4, depth + 1)),
        tuple(bool(b) for b in rng.random(depth) < 0.8),
        dtype,
        float(rng.choice(STEPS)),
        float(rng.choice(SCALES)),
        float(rng.choice(SLOPES)),
        float(rng.choice([0, 0.1])),
        str(rng.choice(INPUTS)),
        str(rng.choice(TARGETS)),
        int(rng.integers(1, 3)),
        int(rng.integers(1000)),
    )


@functools.cache
def numbered(number, dtype):
    """The first random recipe for that combination whose rounding leaves some digits and whose gradient is not 0."""
    kind, answer, depth = COMBINATIONS[number]
    where = number % depth
    for attempt in itertools.count():
        rng = np.random.default_rng([number, attempt])
        recipe = random_recipe(rng, dtype, kind, answer, depth, where)
        entries = bounds(recipe)
        if entries and largest(entries) > 0 and looseness(entries, dtype) < 1e5:
            return recipe
    return None


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_exact_differences_of_small_networks(backend, dtype, number):
    assert_exact(backend, numbered(number, dtype))


def test_the_bounds_say_something(dtype):
    """Most are some tens of eps, and long double agrees with mpmath to far less than they leave."""
    recipes = [numbered(number, dtype) for number in range(len(COMBINATIONS))]
    assert np.median([looseness(bounds(r), dtype) for r in recipes]) < 100
    assert {r.h for r in recipes} == set(STEPS)
    assert {r.scale for r in recipes} == set(SCALES)
    assert {r.slope for r in recipes} == set(SLOPES)
    assert {r.inputs for r in recipes} == set(INPUTS)
    for recipe in recipes[dtype == "float32" :: 2]:  # every other one, in either dtype
        for long, exact in zip(bounds(recipe), reference(recipe), strict=True):
            assert (abs(long.value - exact.value) <= 0.01 * long.incremental).all()


# Whatever Hypothesis thinks of ----------------------------------------------------------------------------


@st.composite
def recipes(draw):
    depth = draw(st.integers(1, 4))
    return Recipe(
        tuple(draw(st.lists(st.sampled_from(Activation), min_size=depth, max_size=depth))),
        draw(st.sampled_from(ANSWERS + MORE_ANSWERS)),
        tuple(draw(st.lists(st.integers(1, 3), min_size=depth + 1, max_size=depth + 1))),
        tuple(draw(st.lists(st.booleans(), min_size=depth, max_size=depth))),
        draw(st.sampled_from(["float64", "float32"])),
        draw(st.sampled_from(STEPS) | st.floats(1e-12, 10)),
        draw(st.sampled_from(SCALES)),
        draw(st.sampled_from(SLOPES)),
        draw(st.sampled_from([0.0, 0.1])),
        draw(st.sampled_from(INPUTS)),
        draw(st.sampled_from(TARGETS)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 999)),
    )


@given(recipe=recipes())
def test_exact_differences_of_any_network(backend, recipe):
    assume(bounds(recipe) is not None)
    assert_exact(backend, recipe)


DEEP = 400  # digits: from 1 down to the smallest float64, and some more


def digits(kind):
    """The digits that a difference of two values needs: few where no tail is a constant beside which a move is lost."""
    return 100 if kind in (Activation.GELU, Activation.SILU) else DEEP


SIZES = {"float64": 745.0, "float32": 100.0}  # of arguments beyond which a sigmoid is no number but 0


@st.composite
def places_and_moves(draw):
    """(a, d) in a dtype: from deep in the tails, by the tiniest and the longest moves, or onto a kink."""
    dtype = draw(st.sampled_from(["float64", "float32"]))
    size = SIZES[dtype]
    place = st.floats(-size, size) | st.floats(-3, 3) | st.sampled_from([0.0, 40.0, -40.0, 1e-12, -1e-12])
    move = (st.floats(-12, 3) | st.sampled_from([-12.0, -4.0])).map(lambda e: 10.0**e)
    move |= st.sampled_from([5e-4, 2.5e-4, 0.02, 0.01, 30.0, 15.0, 29.9, 30.1])
    pairs = draw(st.lists(st.tuples(place, move, st.sampled_from([1, -1])), min_size=1, max_size=8))
    a, d = (np.array(v, dtype) for v in zip(*((a, s * d) for a, d, s in pairs), strict=True))
    return np.append(a, a), np.append(d, -a)


@pytest.mark.parametrize(
    ("kind", "slope"),
    [(kind, s) for kind in Activation for s in ((0.01, 2.5, -0.5) if kind in DEFAULT_CONSTANTS else (0.01,))],
    ids=lambda v: v.name.lower() if isinstance(v, Activation) else str(v),
)
@given(arrays=places_and_moves())
def test_differences_of_activations_in_the_reference(kind, slope, arrays):
    a, d = arrays
    slope = float(a.dtype.type(slope))
    with mp.workdps(digits(kind)), np.errstate(all="ignore"):
        pairs = [(mpf(float(v)), mpf(float(w))) for v, w in zip(a, d, strict=True)]
        exact = [mp_activation(kind, v + w, slope) - mp_activation(kind, v, slope) for v, w in pairs]
        exact = to_long(np.array(exact))
        bounded = difference(kind, Bounded.exact(a, a.dtype), Bounded.exact(d, a.dtype), slope)
        answer = _numpy.activation_difference(kind, a, d, slope)
    assert answer.dtype == a.dtype
    Bounded(exact, bounded.error, a.dtype).assert_holds(answer, f"{kind.name} at {a} by {d}: ")


@st.composite
def answers_and_moves(draw):
    """(z, dz, t) of one row in a dtype: scores from equal to hopelessly apart, moved by little or by far."""
    dtype = draw(st.sampled_from(["float64", "float32"]))
    n = draw(st.integers(1, 5))
    score = st.floats(-1, 1).map(lambda v: v * size)
    size = draw(st.sampled_from([1.0, 40.0, 300.0, 1000.0]))
    move = st.floats(-1, 1).map(lambda v: v * far)
    far = 10.0 ** draw(st.integers(-12, 3))
    z, dz = (np.array([draw(st.lists(s, min_size=n, max_size=n))], dtype) for s in (score, move))
    t = np.eye(n)[[draw(st.integers(0, n - 1))]] if draw(st.booleans()) else np.full((1, n), 1 / n)
    return z, dz, t.astype(dtype)


@pytest.mark.parametrize("answer", ANSWERS + MORE_ANSWERS, ids=lambda a: f"{a[0].name}-{a[1].name}".lower())
@given(arrays=answers_and_moves())
def test_differences_of_losses_in_the_reference(answer, arrays):
    z, dz, t = arrays
    spec = NetworkSpec.chain((np.zeros((1, z.shape[1]), z.dtype),), (None,), (Activation.IDENTITY,), *answer)
    with mp.workdps(DEEP), np.errstate(all="ignore"):
        before, moved, target = ([mpf(float(v)) for v in row[0]] for row in (z, dz, t))
        after = [v + w for v, w in zip(before, moved, strict=True)]
        exact = to_long(np.array([mp_loss(after, target, *answer) - mp_loss(before, target, *answer)]))
        bounded_z, bounded_dz = Bounded.exact(z, z.dtype), Bounded.exact(dz, z.dtype)
        bounded = loss_change(spec, bounded_z, bounded_dz, bounded_z + bounded_dz, t.astype(Long))
        change = _numpy.loss_differences(spec, z, dz, t)
    Bounded(exact, bounded.error, z.dtype).assert_holds(change, f"{z} by {dz} for {t}: ")


@functools.cache
def one_unit(kind, a, h, dtype, slope):
    """A network of one unit at pre-activation a, its x and t, and the Entry of its weight."""
    spec = NetworkSpec.chain((np.array([[a]], dtype),), (None,), (kind,), *ANSWERS[2], constants=(slope,))
    x, t = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    with np.errstate(all="ignore"):
        (entry,) = bounded_gradient(spec, x, t, h)
    (exact,) = exact_gradient(spec, x, t, h, digits(kind))
    return (spec, x, t), entry._replace(value=exact)


@pytest.mark.parametrize("kind", Activation, ids=lambda kind: kind.name.lower())
@given(
    a=st.floats(-60, 60) | st.floats(-700, 700) | st.sampled_from([0.0, 1e-12, -40.0, 40.0]),
    h=st.floats(-12, 3).map(lambda e: 10.0**e) | st.sampled_from([1e-4, 5e-4, 0.02, 15.0, 30.0]),
    dtype=st.sampled_from(["float64", "float32"]),
    slope=st.sampled_from(SLOPES),
)
@settings(max_examples=25)
@example(a=-700.0, h=1e-12, dtype="float64", slope=0.01)
@example(a=40.0, h=1e-4, dtype="float64", slope=0.01)
@example(a=30.0, h=60.0, dtype="float64", slope=0.01)
def test_exact_differences_of_one_unit(backend, kind, a, h, dtype, slope):
    """With x = 1 nothing is rounded before the activation: deep in a tail, differences keep all their digits."""
    case, entry = one_unit(kind, a, h, dtype, slope)
    for algorithm in backend.algorithms:
        if algorithm != "loop":
            (gradient,), _ = getattr(backend, algorithm)(*case, h)
            bounded = Bounded(entry.value, getattr(entry, algorithm), dtype)
            bounded.assert_holds(gradient, f"{algorithm}: {kind.name} at {a!r}, h {h!r}, slope {slope}: ")


def test_a_loss_without_a_difference_is_refused(backend, dtype):
    """Carrying y + dy into a logarithm would lose the digits of an answer that falls: the loop does not."""
    weight = np.ones((2, 3), dtype)
    spec = NetworkSpec.chain((weight,), (None,), (Activation.SIGMOID,), Output.IDENTITY, Loss.CROSS_ENTROPY)
    x, t = np.ones((4, 2), dtype), np.array([0, 1, 2, 0])
    for algorithm in backend.algorithms:
        if algorithm != "loop":
            with pytest.raises(ValueError, match="without softmax has no exact difference: use the algorithm 'loop'"):
                getattr(backend, algorithm)(spec, x, t, 1e-4)
    assert np.isfinite(backend.loop(spec, x, t, 1e-2, np.arange(6))).all()
