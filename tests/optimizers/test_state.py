"""An optimizer's state: saved, loaded and refused; optimizers of one's own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastnet.optimizers import SGD, AdaGrad, Adam, Momentum, Optimizer, RMSprop
from updates import KINDS, SCHEDULE, T, V, bits, good, make_arrays, replaced, train

# Saving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True], ids=["new", "prepared"])
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_gives_the_same_bits(kind, dtype, prepared):
    optimizer, params = kind(lr=SCHEDULE), make_arrays(dtype)
    train(optimizer, params, 7)
    saved, middle = optimizer.state_dict(), {name: p.copy() for name, p in params.items()}
    assert all(type(a) is np.ndarray for a in saved.values())
    assert list(saved) == ["iteration", *(f"{slot}/{name}" for slot in kind.slots for name in params)]
    train(optimizer, params, 7)  # what was saved must not change with it
    resumed = kind(lr=SCHEDULE)
    if prepared:
        resumed.prepare(middle)
    resumed.load_state_dict(saved)
    assert resumed.iteration == 7
    train(resumed, middle, 7)
    assert bits(resumed, middle) == bits(optimizer, params)
    for a in saved.values():
        a[...] = 0
    assert bits(resumed, middle) == bits(optimizer, params)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_before_the_first_update(kind):
    fresh = kind().state_dict()
    assert fresh == {"iteration": 0}
    optimizer, params = kind(), good()
    expected = bits(kind(), train(kind(), good(), 2))[1]
    train(optimizer, good(), 3)
    optimizer.load_state_dict(fresh)
    assert (optimizer.iteration, optimizer.state) == (0, {})
    train(optimizer, params, 2)
    assert {name: row for name, row in bits(optimizer, params)[1].items() if name in params} == expected


def test_prepare():
    for kind in KINDS:
        optimizer, params = kind(), good()
        optimizer.prepare(params)
        assert list(optimizer.state) == list(kind.slots)
        for arrays in optimizer.state.values():
            assert list(arrays) == list(params)
            assert all(a.flags.c_contiguous and not a.any() for a in arrays.values())
        arrays = {slot: dict(named) for slot, named in optimizer.state.items()}
        optimizer.prepare(params)
        train(optimizer, params, 1)
        assert all(optimizer.state[slot][name] is a for slot, named in arrays.items() for name, a in named.items())


def test_names_with_slashes():
    params = {"block/W": np.ones(2), "/": np.ones(2), "": np.ones(1), "iteration": np.ones(3), "ä/ö": np.ones(1)}
    optimizer, resumed = Adam(), Adam()
    optimizer.update(params, params)
    resumed.load_state_dict(optimizer.state_dict())
    assert bits(resumed, {}) == bits(optimizer, {})


STATES = [
    ("no iteration", {"iteration": None}, V, "state has no 'iteration'"),
    ("negative", {"iteration": np.array(-1)}, V, "state['iteration'] must be at least 0, not -1"),
    ("float", {"iteration": np.array(2.0)}, T, "state['iteration'] must be an integer, not float64"),
    ("bool", {"iteration": True}, T, "state['iteration'] must be an integer, not bool"),
    ("text", {"iteration": "2"}, T, "state['iteration'] must be an integer, not str"),
    ("vector", {"iteration": np.array([1, 2])}, T, "state['iteration'] must be an integer, not ndarray"),
    ("missing", {"first_moment/p1": None}, V, "the first_moment in state does not fit the parameters: 'p1' missing"),
    ("other missing", {"second_moment/p1": None}, V, "the second_moment in state does not fit the parameters: "),
    ("slot", {"velocity/p1": np.ones(4)}, V, "the slots of Adam are 'first_moment', 'second_moment'"),
    ("no slash", {"first_moment": np.ones(4)}, V, "state has 'first_moment', but the slots of Adam are"),
    ("shape", {"second_moment/p1": np.ones(5)}, V, "state['second_moment/p1'] is float64 of shape (5,), not float64"),
    ("dtype", {"second_moment/p1": np.ones(4, "f4")}, V, "state['second_moment/p1'] is float32 of shape (4,), not "),
    ("integers", {"second_moment/p1": np.ones(4, int)}, T, "state['second_moment/p1'] must be float32 or float64"),
    ("a list", {"second_moment/p1": [1.0] * 4}, T, "state['second_moment/p1'] must be a NumPy array, not list"),
    ("no string", {1: np.ones(4)}, T, "state must have strings as names, not 1"),
]


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(("name", "changes", "error", "message"), STATES, ids=[row[0] for row in STATES])
def test_a_state_that_does_not_fit(name, changes, error, message, used):
    other = Adam()
    train(other, good(), 3)
    state = replaced(other.state_dict(), changes)
    optimizer = Adam()
    if used:
        train(optimizer, good(), 1)
    before = bits(optimizer, {})
    with pytest.raises(error) as caught:
        optimizer.load_state_dict(state)
    assert message in str(caught.value)
    assert bits(optimizer, {}) == before


def test_the_state_of_other_parameters():
    other, optimizer = Momentum(), Momentum()
    train(other, make_arrays(shapes=[(3, 4), (5,)]), 1)
    optimizer.prepare(good())
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: 'p2', 'p3' missing"):
        optimizer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: 'p0', 'p1', 'p2', 'p3'"):
        optimizer.load_state_dict({"iteration": 3})
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: it is empty"):
        Momentum().load_state_dict({"iteration": 3})
    with pytest.raises(ValueError, match="but the slots of SGD are none"):
        SGD().load_state_dict(other.state_dict())
    adagrad = AdaGrad()
    train(adagrad, good(), 1)
    with pytest.raises(ValueError, match="but the slots of RMSprop are 'mean_square'"):
        RMSprop().load_state_dict(adagrad.state_dict())
    fresh = Momentum()  # without parameters to compare with: at the first update
    fresh.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"but this optimizer's velocity for it is float64 of shape \(5,\)"):
        train(fresh, good(), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
def test_copies_go_on_by_themselves(kind, again):
    optimizer, params = kind(lr=SCHEDULE), good()
    train(optimizer, params, 3)
    other, others = again(optimizer), copy.deepcopy(params)
    train(optimizer, params, 3)
    train(other, others, 3)
    assert bits(other, others) == bits(optimizer, params)
    assert repr(other) == repr(optimizer)


# Optimizers of one's own ----------------------------------------------------------------------------------


class Lion(Optimizer):
    """X. Chen et al., Symbolic discovery of optimization algorithms, 2023: with everything that a subclass may have."""

    name = "lion"
    slots = ("momentum",)

    def __init__(self, lr=1e-4, beta1=0.9, beta2=0.99, damping=0.5):
        super().__init__(lr)
        self.beta1, self.beta2, self.damping = beta1, beta2, damping
        self._calls = 0

    @property
    def constants(self):
        return self.beta1, self.beta2

    def coefficients(self, iteration):
        (lr,) = super().coefficients(iteration)
        return lr, lr * self.damping**iteration

    def step(self, p, g, state, constants, coefficients):
        (m,), (b1, b2), (_, damped) = state, constants, coefficients
        assert {type(s) for s in (b1, b2, damped)} == {p.dtype.type}
        self._calls += 1
        p -= damped * np.sign(b1 * m + (1 - b1) * g)
        m *= b2
        m += (1 - b2) * g


def test_an_optimizer_of_ones_own(dtype):
    lion, params = Lion(lr=0.25), {"W": np.array([1, 2, 3], dtype)}
    g = {"W": np.array([0.5, -0.5, 0], dtype)}
    for _ in range(3):
        lion.update(params, g)
    assert params["W"].tolist() == [1 - 0.4375, 2 + 0.4375, 3]
    assert params["W"].dtype == dtype
    assert (lion.iteration, lion._calls) == (3, 3)
    assert repr(lion) == "Lion(lr=0.25, beta1=0.9, beta2=0.99, damping=0.5)"
    other = Lion(lr=0.25)
    other.load_state_dict(lion.state_dict())
    assert bits(other, {}) == bits(lion, {})
    lion.lr = SCHEDULE
    assert lion.coefficients(0) == (0.005, 0.005)
    with pytest.raises(ValueError, match=r"grads\['W'\] has shape"):
        lion.update(params, {"W": np.ones(4, dtype)})
    with pytest.raises(ValueError, match="lr must be positive"):
        Lion(lr=-1)


def test_step_must_be_written():
    class Nothing(Optimizer):
        name = "nothing"

    with pytest.raises(TypeError, match="abstract"):
        Nothing(0.1)
    with pytest.raises(TypeError, match="abstract"):
        Optimizer(0.1)
