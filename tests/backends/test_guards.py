"""The extension's own checks: what Python's checks should have stopped raises there too, and never reaches a kernel."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import types

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet.backends.spec import NetworkSpec

if not backends.has_extension():
    pytest.skip("fastnet was installed without its extension", allow_module_level=True)

from fastnet import _core

T, V = TypeError, ValueError

SPEC = NetworkSpec.chain((np.ones((3, 4)), np.ones((4, 2))), (np.ones(4), None), (2, 0))
X, LABELS, ROWS = np.ones((5, 3)), np.array([0, 1, 0, 1, 0]), np.ones((5, 2))
ENTRIES = np.arange(24)
BIG_ENDIAN = X.astype(">f8")
MISALIGNED = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape)


W, B = SPEC.weights, [layer.bias for layer in SPEC.layers]


def spec(weights=W, biases=B, activations=(2, 0), constants=(0.0, 0.0), **changes):
    """What the extension reads of a spec, with mistakes that `NetworkSpec` itself would not make."""
    attributes = {name: getattr(SPEC, name) for name in ("stages", "dtype", "output", "loss", "weight_decay")}
    layers = tuple(zip(weights, biases, activations, constants, strict=True))
    return types.SimpleNamespace(**attributes | {"layers": layers, "loss_constant": 1.0} | changes)


def f4(a):
    return a.astype(np.float32)


ARRAYS = [  # what comes instead of a float array, in each function of one array
    ([[1.0]], T, "x must be a NumPy array, not list"),
    (1.0, T, "x must be a NumPy array, not float"),
    (None, T, "x must be a NumPy array, not NoneType"),
    (np.ones((5, 3), int), T, "x must be float32 or float64, not int64"),
    (np.ones((5, 3), bool), T, "x must be float32 or float64, not bool"),
    (np.ones((5, 3), "f2"), T, "x must be float32 or float64, not float16"),
    (np.ones((5, 3), "g"), T, "x must be float32 or float64, not "),
    (np.ones((5, 3), complex), T, "x must be float32 or float64, not complex128"),
    (np.full((5, 3), None), T, "x must be float32 or float64, not object"),
    (np.full((5, 3), "a"), T, "x must be float32 or float64, not <U1"),
    (BIG_ENDIAN, T, "x must be float32 or float64, not >f8"),
    (X[:, ::2], V, "x must be C-contiguous"),
    (np.asfortranarray(X), V, "x must be C-contiguous"),
    (X[::-1], V, "x must be C-contiguous"),
    (np.broadcast_to(1.0, (5, 3)), V, "x must be C-contiguous"),
    (MISALIGNED, V, "x must be aligned in memory"),
]
ONE_ARRAY = {
    "exp": _core.exp,
    "activation": lambda x: _core.activation(2, x),
    "activation_derivative": lambda x: _core.activation_derivative(2, x),
    "softmax": _core.softmax,
    "add_bias": lambda x: _core.add_bias(x, np.ones(3)),
}

FUNCTIONS = [
    (lambda: _core.activation(-1, X), V, "there is no activation -1"),
    (lambda: _core.activation(10, X), V, "there is no activation 10"),
    (lambda: _core.activation_derivative(10, X), V, "there is no activation 10"),
    (lambda: _core.activation(2**40, X), T, "incompatible function arguments"),
    (lambda: _core.activation("relu", X), T, "incompatible function arguments"),
    (lambda: _core.activation(5, X, "steep"), T, "incompatible function arguments"),
    (lambda: _core.softmax(X[0].copy()), V, "x must have 2 dimension(s), not shape (3,)"),
    (lambda: _core.softmax(X[None]), V, "x must have 2 dimension(s), not shape (1, 5, 3)"),
    (lambda: _core.softmax(np.ones((3, 0))), V, "x of shape (3, 0) has no columns"),
    (lambda: _core.add_bias(X, np.ones(4)), V, "b has 4 elements for 3 columns of x"),
    (lambda: _core.add_bias(X, np.ones((1, 3))), V, "b must have 1 dimension(s), not shape (1, 3)"),
    (lambda: _core.add_bias(X, np.ones(3, "f4")), T, "b must be float64, not float32"),
    (lambda: _core.add_bias(X, np.ones(6)[::2]), V, "b must be C-contiguous"),
    (lambda: _core.matmul(X, X), V, "a of shape (5, 3) and b of shape (5, 3) can't be multiplied"),
    (lambda: _core.matmul(X, X, True, True), V, "a of shape (5, 3) (transposed) and b of shape (5, 3) (transposed)"),
    (lambda: _core.matmul(X[0].copy(), X), V, "a must have 2 dimension(s), not shape (3,)"),
    (lambda: _core.matmul(X, np.array(1.0)), V, "b must have 2 dimension(s), not shape ()"),
    (lambda: _core.matmul(X, f4(X), transpose_b=True), T, "b must be float64, not float32"),
    (lambda: _core.matmul(X.astype(int), X), T, "a must be float32 or float64, not int64"),
    (lambda: _core.matmul(X.T, X), V, "a must be C-contiguous"),
    (lambda: _core.use_isa("sse9"), V, "unknown or unsupported instruction set 'sse9': this processor can use "),
    (lambda: _core.use_isa(2), T, "incompatible function arguments"),
    (lambda: _core.set_num_threads("two"), T, "incompatible function arguments"),
]

TARGETS = [  # what comes as t for five rows of two classes
    (LABELS[:4], V, "t has shape (4,) for 5 rows of x"),
    (np.array(0), V, "t has shape () for 5 rows of x"),
    (LABELS.reshape(1, 5), V, "t has shape (1, 5) for an answer of shape (5, 2)"),
    (np.ones((5, 3)), V, "t has shape (5, 3) for an answer of shape (5, 2)"),
    (np.ones((5, 2, 1)), V, "t has shape (5, 2, 1) for 5 rows of x"),
    (np.array([0, 1, 2, 0, 0]), V, "t[2] is 2, which is not a label of 2 classes"),
    (np.array([0, 1, 0, 0, -1]), V, "t[4] is -1, which is not a label of 2 classes"),
    (np.array([0, 2**63 - 1, 0, 0, 0]), V, "t[1] is 9223372036854775807, which is not a label of 2 classes"),
    (LABELS.astype(np.int32), T, "t must be int64, not int32"),
    (LABELS.astype(np.uint64), T, "t must be int64, not uint64"),
    (LABELS.astype(float), T, "t must be int64, not float64"),
    (LABELS.astype(">i8"), T, "t must be int64, not >i8"),
    (f4(ROWS), T, "t must be float64, not float32"),
    (ROWS.astype(int), T, "t must be float64, not int64"),
    (LABELS[::-1], V, "t must be C-contiguous"),
    (np.asfortranarray(ROWS), V, "t must be C-contiguous"),
    (LABELS.tolist(), T, "t must be a NumPy array, not list"),
    (None, T, "t must be a NumPy array, not NoneType"),
]

BATCHES = [  # what comes as x for a network of three inputs
    (X[:, :2].copy(), V, "x has 2 columns for a network of 3 inputs"),
    (X[:0], V, "x of shape (0, 3) has no rows"),
    (X[0].copy(), V, "x must have 2 dimension(s), not shape (3,)"),
    (f4(X), T, "x must be float64, not float32"),
    (X.astype(int), T, "x must be float64, not int64"),
    (BIG_ENDIAN, T, "x must be float64, not >f8"),
    (X[:, ::-1], V, "x must be C-contiguous"),
    (X.tolist(), T, "x must be a NumPy array, not list"),
]

SPECS = [
    (spec(layers=(), stages=()), V, "a network has at least one stage"),
    (spec(layers=(), dtype=np.dtype(int)), V, "a network is float32 or float64, not int64"),
    (spec(layers=((),)), V, "layer 1 has no weight"),
    (spec(layers=((W[0], B[0], 2),)), V, "layer 1 must have four items"),
    (spec(layers=((W[0], B[0], 2, 0.0, 0.0),)), V, "layer 1 must have four items"),
    (spec(weights=(W[0], W[0])), V, "weight 2 of shape (3, 4) does not fit the layer before it"),
    (spec(weights=(W[0][0].copy(), W[1])), V, "weight 1 must have 2 dimension(s), not shape (4,)"),
    (spec(weights=(np.ones((0, 4)), W[1])), V, "weight 1 of shape (0, 4) is empty"),
    (spec(weights=(W[0], np.ones((4, 0)))), V, "weight 2 of shape (4, 0) is empty"),
    (spec(weights=(f4(W[0]), W[1])), T, "bias 1 must be float32, not float64"),
    (spec(weights=(W[0], f4(W[1]))), T, "weight 2 must be float64, not float32"),
    (spec(weights=(W[0].astype(int), W[1])), T, "weight 1 must be float32 or float64, not int64"),
    (spec(weights=(W[0].T.copy().T, W[1])), V, "weight 1 must be C-contiguous"),
    (spec(weights=(W[0].tolist(), W[1])), T, "weight 1 must be a NumPy array, not list"),
    (spec(biases=(np.ones(3), None)), V, "bias 1 of shape (3,) does not fit weight 1 of shape (3, 4)"),
    (spec(biases=(np.ones((1, 4)), None)), V, "bias 1 must have 1 dimension(s), not shape (1, 4)"),
    (spec(biases=(f4(B[0]), None)), T, "bias 1 must be float64, not float32"),
    (spec(biases=(np.ones(8)[::2], None)), V, "bias 1 must be C-contiguous"),
    (spec(biases=(0.0, None)), T, "bias 1 must be a NumPy array, not float"),
    (spec(activations=(10, 0)), V, "there is no activation 10"),
    (spec(activations=(-1, 0)), V, "there is no activation -1"),
    (spec(output=2), V, "there is no output 2"),
    (spec(loss=-1), V, "there is no loss -1"),
    (spec(loss=5), V, "there is no loss 5"),
    (spec(layers=3), T, "not iterable"),
    (spec(layers=(3, 4)), T, "not iterable"),
    (spec(layers=(), stages=3), T, "not iterable"),
    (None, T, "'NoneType' object has no attribute 'layers'"),
    (object(), T, "'object' object has no attribute 'layers'"),
    (types.SimpleNamespace(layers=()), T, "has no attribute 'dtype'"),
    (types.SimpleNamespace(layers=(), dtype="float64"), T, ""),
    (types.SimpleNamespace(layers=(), dtype=np.dtype(float)), T, "has no attribute 'stages'"),
    (types.SimpleNamespace(layers=SPEC.layers), T, "has no attribute 'output'"),
]
UNREADABLE = [  # what can't be cast to a number
    spec(activations=("relu", 0)),
    spec(activations=(2**40, 0)),
    spec(output="softmax"),
    spec(loss=None),
    spec(constants=("steep", 0.0)),
    spec(weight_decay=None),
    spec(loss_constant="wide"),
]

ENTRY_LISTS = [
    (np.array([0, 24]), V, "entries[1] is 24, which is not the number of one of 24 parameters"),
    (np.array([-1]), V, "entries[0] is -1, which is not the number of one of 24 parameters"),
    (np.array([2**63 - 1]), V, "entries[0] is 9223372036854775807, which is not the number of one of 24 parameters"),
    (np.array([-(2**63)]), V, "entries[0] is -9223372036854775808, which is not the number of one of 24 parameters"),
    (ENTRIES.astype(np.int32), T, "entries must be int64, not int32"),
    (ENTRIES.astype(float), T, "entries must be int64, not float64"),
    (ENTRIES[::2], V, "entries must be C-contiguous"),
    (ENTRIES.reshape(4, 6), V, "entries must have 1 dimension(s), not shape (4, 6)"),
    (np.array(0), V, "entries must have 1 dimension(s), not shape ()"),
    ([0, 1], T, "entries must be a NumPy array, not list"),
]

NETWORK_CALLS = {
    "forward": lambda spec, x, t: _core.forward(spec, x),
    "loss": _core.loss,
    "loss_and_gradient": _core.loss_and_gradient,
    "loop": lambda spec, x, t: _core.loop(spec, x, t, 1e-4, ENTRIES),
    "incremental": lambda spec, x, t: _core.incremental(spec, x, t, 1e-4),
    "nodal": lambda spec, x, t: _core.nodal(spec, x, t, 1e-4),
    "hessian_diagonal": lambda spec, x, t: _core.hessian_diagonal(spec, x, t, 1e-4),
}
WITH_TARGETS = {name: call for name, call in NETWORK_CALLS.items() if name != "forward"}


def assert_raises(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def message_of(row):
    return row[2] if isinstance(row, tuple) else str(row)


@pytest.mark.parametrize("name", ONE_ARRAY)
@pytest.mark.parametrize(("x", "error", "message"), ARRAYS, ids=map(message_of, ARRAYS))
def test_arrays(name, x, error, message):
    assert_raises(lambda: ONE_ARRAY[name](x), error, message)


@pytest.mark.parametrize(("call", "error", "message"), FUNCTIONS, ids=map(message_of, FUNCTIONS))
def test_functions(call, error, message):
    before = _core.isa(), _core.get_num_threads()
    assert_raises(call, error, message)
    assert (_core.isa(), _core.get_num_threads()) == before


@pytest.mark.parametrize(("t", "error", "message"), TARGETS, ids=map(message_of, TARGETS))
def test_targets(t, error, message):
    for call in WITH_TARGETS.values():
        assert_raises(lambda call=call: call(SPEC, X, t), error, message)
    for kind in range(5):
        assert_raises(lambda kind=kind: _core.mean_loss(kind, ROWS, t), error, message)


@pytest.mark.parametrize("kind", range(5))
def test_answers(kind):
    def loss(y, t):
        return _core.mean_loss(kind, y, t)

    assert_raises(lambda: loss(ROWS[:0], LABELS[:0]), V, "y of shape (0, 2) has no rows")
    assert_raises(lambda: loss(ROWS[0].copy(), LABELS[:1]), V, "y must have 2 dimension(s), not shape (2,)")
    assert_raises(lambda: loss(LABELS.reshape(5, 1), LABELS), T, "y must be float32 or float64, not int64")
    assert_raises(lambda: loss(np.ones((2, 5)).T, LABELS), V, "y must be C-contiguous")
    assert_raises(lambda: loss(np.ones((5, 0)), LABELS), V, "t[0] is 0, which is not a label of 0 classes")


@pytest.mark.parametrize(("x", "error", "message"), BATCHES, ids=map(message_of, BATCHES))
def test_batches(x, error, message):
    for call in NETWORK_CALLS.values():
        assert_raises(lambda call=call: call(SPEC, x, LABELS), error, message)


@pytest.mark.parametrize(("spec", "error", "message"), SPECS, ids=map(message_of, SPECS))
def test_specs(spec, error, message):
    for call in NETWORK_CALLS.values():
        assert_raises(lambda call=call: call(spec, X, LABELS), error, message)


@pytest.mark.parametrize("spec", UNREADABLE)
def test_unreadable_specs(spec):
    for call in NETWORK_CALLS.values():
        assert_raises(lambda call=call: call(spec, X, LABELS), TypeError, "")


@pytest.mark.parametrize(("entries", "error", "message"), ENTRY_LISTS, ids=map(message_of, ENTRY_LISTS))
def test_entries(entries, error, message):
    assert_raises(lambda: _core.loop(SPEC, X, LABELS, 1e-4, entries), error, message)


def test_misaligned_arrays_are_copied_before():
    net = fastnet.TwoLayerNet(3, 4, 2, seed=0)
    np.testing.assert_array_equal(net.predict(MISALIGNED), net.predict(X))
    assert net.loss(MISALIGNED, LABELS) == net.loss(X, LABELS)


def test_labels_and_rows_that_change_during_a_call(core):
    """Another thread writes what is no index: the kernel uses the numbers that were checked, or they are refused."""
    rows = 4000
    x, t, order = np.ones((rows, 3)), np.zeros(rows, np.int64), np.arange(rows)
    stopped = threading.Event()

    def change():
        while not stopped.is_set():
            for array in (t, order):
                array[:] = 2**60
                array[:] = 0

    thread = threading.Thread(target=change)
    thread.start()
    try:
        answers = 0
        for _ in range(60):
            time.sleep(1e-4)  # the other thread goes on, and stops at what is right or at what is wrong
            for call in (
                lambda: core.loss(SPEC, x, t),
                lambda: core.mean_loss(0, np.full((rows, 2), 0.5), t),
                lambda: core.loss_and_gradient(SPEC, x, t),
                lambda: core.loop(SPEC, x[:50], t[:50], 1e-3, order[:20]),
            ):
                with contextlib.suppress(ValueError):
                    call()
                    answers += 1
    finally:
        stopped.set()
        thread.join()
    assert answers > 0


def test_a_valid_call_is_not_refused(core):
    """The tables above start from these."""
    assert core.forward(SPEC, X).shape == (5, 2)
    for t in (LABELS, ROWS):
        assert np.isfinite(core.loss(SPEC, X, t))
        assert [g.shape for g in core.loss_and_gradient(SPEC, X, t)[1]] == [(3, 4), (4,), (4, 2)]
        assert core.loop(SPEC, X, t, 1e-4, ENTRIES).shape == (24,)


def test_nothing_crashes_whatever_comes(core):
    """Every function with every combination of things that are not meant for it: an answer or an exception."""
    things = [None, 0, -1, 2.5, "text", b"bytes", [], [1.0], (), {}, SPEC, object(), X, f4(X), LABELS, ROWS, ENTRIES]
    things += [X[:0], X.T, X[0], np.array(1.0), np.empty((0, 0)), np.ones((2, 2, 2)), np.array([None]), BIG_ENDIAN]
    calls = {core.exp: 1, core.activation: 2, core.activation_derivative: 2, core.softmax: 1, core.add_bias: 2}
    calls |= {core.matmul: 2, core.mean_loss: 3, core.forward: 2, core.loss: 3}
    calls |= {core.loss_and_gradient: 3}
    tried = answered = 0
    for call, count in calls.items():
        for arguments in itertools.product(things, repeat=count):
            tried += 1
            try:
                call(*arguments)
                answered += 1
            except (TypeError, ValueError):
                pass
    assert answered >= 20  # some of it made sense
    assert tried > len(things) ** 3
