"""Training in the extension: the bits of its single gradients and of NumPy's optimizers, whatever ends it early."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output, Stage, StageKind
from fastnet.backends.training import Batches, GradientKind, Rule, Update

if not backends.has_extension():
    pytest.skip("fastnet was installed without its extension", allow_module_level=True)

from fastnet import _core

T, V = TypeError, ValueError
KINDS = {GradientKind.BACKPROP: "backprop", GradientKind.INCREMENTAL: "incremental", GradientKind.NODAL: "nodal"}
STEP = {"float32": 1e-2, "float64": 1e-4}


def network(dtype, sizes=(33, 17, 20, 5), biased=True, **changes):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) / np.sqrt(shape[0]) for shape in itertools.pairwise(sizes)]
    kinds = [Activation.SIGMOID, Activation.LEAKY_RELU, Activation.IDENTITY][-len(weights) :]
    spec = NetworkSpec.chain(
        tuple(w.astype(dtype) for w in weights),
        tuple(rng.standard_normal(w.shape[1]).astype(dtype) if biased else None for w in weights),
        tuple(kinds),
    )
    return dataclasses.replace(spec, **changes)


def data(dtype, rows=150, columns=33, classes=5, zeros=0.7):
    rng = np.random.default_rng(1)
    x = rng.random((rows, columns)) * (rng.random((rows, columns)) >= zeros)
    return x.astype(dtype), rng.integers(0, classes, rows)


def train(spec, x, t, order, batch_size, kind, optimizer, epochs=1):
    """Losses, and how many steps were made; the parameters and the optimizer are changed in place."""
    params = {str(k): p for k, p in enumerate(spec.parameters)}
    optimizer.prepare(params)
    steps = epochs * -(-order.shape[-1] // batch_size)
    coefficients = np.array([optimizer.coefficients(optimizer.iteration + k) for k in range(steps)])
    slots = tuple(tuple(optimizer.state[slot][name] for name in params) for slot in optimizer.slots)
    losses, done = np.full(steps, -1.0), np.zeros(1, np.int64)
    batches = Batches(_core.Dataset(x), t, order, batch_size, epochs)
    update = Update(Rule[optimizer.name.upper()], optimizer.constants, coefficients, slots)
    _core.train(spec, batches, kind, STEP[spec.dtype.name], update, losses, done)
    optimizer.iteration += int(done[0])
    return losses, int(done[0])


def train_by_steps(spec, x, t, order, batch_size, kind, optimizer):
    params = {str(k): p for k, p in enumerate(spec.parameters)}
    losses = []
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        if kind == GradientKind.BACKPROP:
            loss, gradients, _ = _core.loss_and_gradient(spec, x[rows], t[rows])
        else:
            compute = _core.nodal if kind == GradientKind.NODAL else _core.incremental
            gradients, (loss, *_) = compute(spec, x[rows], t[rows], STEP[spec.dtype.name])
        losses.append(loss)
        optimizer.update(params, dict(zip(params, gradients, strict=True)))
    return losses


def assert_same_bits(spec, x, t, order, batch_size, kind, make):
    ours, theirs = spec.copy(), spec.copy()
    fused, plain = make(), make()
    losses, done = train(ours, x, t, order, batch_size, kind, fused)
    assert losses.tolist() == train_by_steps(theirs, x, t, order, batch_size, kind, plain)
    assert done == len(losses)
    for p, q, start in zip(ours.parameters, theirs.parameters, spec.parameters, strict=True):
        assert p.tobytes() == q.tobytes()
        assert not np.array_equal(p, start)
    for slot in fused.slots:
        for name, array in fused.state[slot].items():
            assert array.tobytes() == plain.state[slot][name].tobytes()


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer(core, dtype, name):
    x, t = data(dtype)
    order = np.random.default_rng(2).permutation(len(x))
    assert_same_bits(network(dtype), x, t, order, 32, GradientKind.BACKPROP, optimizers.OPTIMIZERS[name])


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("zeros", [0, 0.8], ids=["dense", "sparse"])
def test_every_gradient(core, dtype, with_threads, kind, threads, zeros):
    with_threads(threads)
    x, t = data(dtype, rows=450, columns=65, zeros=zeros)
    order = np.random.default_rng(2).integers(0, len(x), 640)  # some rows twice, some never
    spec = network(dtype, (65, 20, 17, 5))
    assert_same_bits(spec, x, t, order, 300, kind, lambda: optimizers.SGD(lr=0.5))  # batches of several chunks


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [20, 100, 256, 300])
@pytest.mark.parametrize("units", [3, 20, 50, 64, 150])
def test_plain_descent_on_sparse_data(core, dtype, with_threads, threads, batch_size, units):
    """The step is made with the gradient in registers, except that of a batch of several chunks."""
    with_threads(threads)
    x, t = data(dtype, rows=330, columns=131, zeros=0.8)
    order = np.random.default_rng(2).integers(0, len(x), 470)
    for weight_decay, biased in ((0.0, True), (0.0, False), (0.01, True)):
        spec = network(dtype, (131, units, 5), biased, weight_decay=weight_decay)
        assert_same_bits(spec, x, t, order, batch_size, GradientKind.BACKPROP, lambda: optimizers.SGD(lr=0.3))


@pytest.mark.parametrize("batch_size", [20, 100])
def test_plain_descent_with_an_infinite_weight(core, dtype, batch_size):
    """Its unit is saturated, so that every derivative is finite, but no zero may be skipped."""
    x, t = data(dtype, rows=200, columns=131, zeros=0.8)
    x[:, 70] = 1
    spec = network(dtype, (131, 50, 20, 5))
    spec.weights[0][70, 3] = np.inf
    ours, theirs = spec.copy(), spec.copy()
    order = np.arange(len(x))
    losses, done = train(ours, x, t, order, batch_size, GradientKind.BACKPROP, optimizers.SGD(lr=0.3))
    expected = train_by_steps(theirs, x, t, order, batch_size, GradientKind.BACKPROP, optimizers.SGD(lr=0.3))
    assert done == len(expected)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(losses, expected)
    for p, q in zip(ours.parameters, theirs.parameters, strict=True):
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("biased", [True, False])
def test_large_batches_of_a_small_network(core, dtype, with_threads, weight_decay, biased):
    """Several threads take whole chunks there, and the chunks' shares of the gradient are added up at the end."""
    x, t = data(dtype, rows=2500, columns=4, classes=4, zeros=0)
    order = np.concatenate([np.random.default_rng(2).permutation(len(x)), np.arange(2300)])  # the last batch is smaller
    spec = network(dtype, (4, 32, 16, 4), biased, weight_decay=weight_decay)
    trained, gradients = [], []
    for threads in (1, 2, 5):
        with_threads(threads)
        assert_same_bits(spec, x, t, order, len(x), GradientKind.BACKPROP, lambda: optimizers.Adam(lr=0.01))
        trained.append(spec.copy())
        train(trained[-1], x, t, order, len(x), GradientKind.BACKPROP, optimizers.Adam(lr=0.01))
        gradients.append(core.loss_and_gradient(spec, x, t)[:2])
    for (loss, gradient), after in zip(gradients, trained, strict=True):
        assert loss == gradients[0][0]
        assert all(g.tobytes() == first.tobytes() for g, first in zip(gradient, gradients[0][1], strict=True))
        assert all(
            p.tobytes() == first.tobytes() for p, first in zip(after.parameters, trained[0].parameters, strict=True)
        )
    wide = spec.with_parameters([p.astype("float64") for p in spec.parameters])
    expected = backends.get("numpy").loss_and_gradient(wide, x.astype("float64"), t)[1]
    for g, exact in zip(gradients[0][1], expected, strict=True):
        np.testing.assert_allclose(g, exact, rtol=0, atol=200 * np.finfo(dtype).eps * np.abs(exact).max())


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("batch_size", [1, 3, 7, 150, 1000])
def test_batches_of_every_size(core, dtype, kind, batch_size):
    x, t = data(dtype)
    order = np.arange(len(x) if batch_size > 1 else 20)
    assert_same_bits(network(dtype), x, t, order, batch_size, kind, lambda: optimizers.Adam(lr=0.01))


@pytest.mark.parametrize("columns", [1, 15, 16, 63, 64, 65, 130])
def test_rows_of_every_length(core, dtype, columns):
    x, t = data(dtype, columns=columns)
    spec = network(dtype, (columns, 9, 5))
    assert_same_bits(spec, x, t, np.arange(len(x)), 20, GradientKind.BACKPROP, lambda: optimizers.Momentum(lr=0.1))


def test_layers_that_are_packed_in_several_blocks(core, dtype):
    x, t = data(dtype, rows=12)
    spec = network(dtype, (33, 2100, 70, 5))
    assert_same_bits(spec, x, t, np.arange(len(x)), 6, GradientKind.BACKPROP, lambda: optimizers.SGD(lr=0.1))


def test_data_whose_zeros_are_in_the_rows_that_are_sampled(dtype):
    x, t = data(dtype, rows=1000, zeros=0)
    x[np.arange(256) * len(x) // 256] = 0
    order = np.random.default_rng(2).permutation(len(x))[:200]
    assert_same_bits(network(dtype), x, t, order, 40, GradientKind.BACKPROP, lambda: optimizers.SGD(lr=0.1))


def data_of_values(dtype, count, rows=400, columns=131):
    """Sparse data with so many distinct values but 0, some of them negative, each of which occurs; -0.0 occurs, too."""
    x, t = data(dtype, rows, columns, zeros=0.8)
    values = np.random.default_rng(3).standard_normal(count).astype(dtype)
    nonzeros = np.flatnonzero(x)
    x.flat[nonzeros] = values[np.arange(len(nonzeros)) % count]
    x[:, 3] = -0.0
    assert len(np.unique(x[x != 0])) == count
    return x, t


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("count", [1, 2, 255, 256])
@pytest.mark.parametrize("units", [3, 50, 150])
def test_data_of_few_values(core, dtype, kind, count, units):
    """Up to 255 values but 0 are kept as bytes."""
    x, t = data_of_values(dtype, count)
    spec = network(dtype, (131, units, 5))
    order = np.random.default_rng(2).permutation(len(x))
    assert_same_bits(spec, x, t, order, 100, kind, lambda: optimizers.SGD(lr=0.1))
    assert _core.Dataset(x).forward(spec).tobytes() == _core.forward(spec, x).tobytes()


@pytest.mark.parametrize("count", [20, 255])
def test_a_value_in_none_of_the_rows_that_are_sampled(core, dtype, count):
    """It has no byte, even where one is left: all values are kept as they are."""
    x, t = data_of_values(dtype, count, rows=700)
    outside = np.setdiff1d(np.arange(len(x)), np.arange(256) * len(x) // 256)
    x[outside[-1], 70] = 7
    order = np.random.default_rng(2).permutation(len(x))
    spec = network(dtype, (131, 50, 5))
    assert_same_bits(spec, x, t, order, 100, GradientKind.BACKPROP, lambda: optimizers.SGD(lr=0.1))
    assert _core.Dataset(x).forward(spec).tobytes() == _core.forward(spec, x).tobytes()


@pytest.mark.parametrize("size", [1, 9, (1 << 16) + 3, 200_001])
def test_all_finite(core, dtype, size):
    x = np.zeros(size, dtype)
    x[::2] = np.finfo(dtype).max
    assert _core.all_finite(x)
    for wrong, at in itertools.product((np.nan, np.inf, -np.inf), {0, size // 2, size - 1}):
        y = x.copy()
        y[at] = wrong
        assert not _core.all_finite(y)


def test_all_finite_refuses_integers():
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        _core.all_finite(np.arange(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"biased": False},
        {"weight_decay": 0.1},
        {"loss": Loss.MEAN_SQUARED_ERROR},
        {"loss": Loss.MEAN_SQUARED_ERROR, "output": Output.IDENTITY},
    ],
    ids=["no biases", "weight decay", "softmax and squares", "squares"],
)
@pytest.mark.parametrize("targets", ["labels", "rows"])
def test_other_networks_and_targets(core, dtype, changes, targets):
    x, t = data(dtype)
    if targets == "rows":
        t = np.random.default_rng(3).random((len(t), 5)).astype(dtype)
    spec = network(dtype, **changes)
    for kind in KINDS:
        assert_same_bits(spec, x, t, np.arange(len(x)), 40, kind, lambda: optimizers.SGD(lr=0.05))


@pytest.mark.parametrize("batch_size", [32, 50, 150])
@pytest.mark.parametrize("shuffled", [True, False])
def test_several_epochs(core, dtype, batch_size, shuffled):
    """As one after the other; the last batch of each may be smaller."""
    x, t = data(dtype)
    rng = np.random.default_rng(2)
    orders = np.stack([rng.permutation(len(x)) for _ in range(3)]) if shuffled else np.arange(len(x))
    found = []
    for at_once in (True, False):
        spec, optimizer = network(dtype), optimizers.Adam()
        if at_once:
            losses, done = train(spec, x, t, orders, batch_size, GradientKind.BACKPROP, optimizer, epochs=3)
            assert done == len(losses) == 3 * -(-len(x) // batch_size)
        else:
            epochs = [
                train(spec, x, t, order, batch_size, GradientKind.BACKPROP, optimizer)[0]
                for order in np.broadcast_to(orders, (3, len(x)))
            ]
            losses = np.concatenate(epochs)
        kept = [array.tobytes() for slot in optimizer.state.values() for array in slot.values()]
        found.append((losses.tolist(), [p.tobytes() for p in spec.parameters], kept))
    assert found[0] == found[1]


def test_an_epoch_that_leaves_an_infinite_parameter_is_the_last(core, dtype):
    """Even where the losses are finite, as they are behind a sigmoid."""
    x, t = data(dtype)
    spec = network(dtype)
    spec.parameters[1][-1] = np.inf  # a bias of the first layer
    losses, done = train(spec, x, t, np.arange(150), 50, GradientKind.BACKPROP, optimizers.SGD(lr=0.1), epochs=4)
    assert done == 3
    assert np.isfinite(losses[:3]).all()
    assert (losses[3:] == -1).all()


def test_a_schedule(core, dtype):
    x, t = data(dtype)
    schedule = optimizers.CosineAnnealing(0.5, iterations=8, warmup=3)
    assert_same_bits(
        network(dtype), x, t, np.arange(len(x)), 20, GradientKind.BACKPROP, lambda: optimizers.Nesterov(schedule)
    )


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_a_loss_that_is_not_finite_ends_it(core, dtype, kind):
    """The parameters stay those that gave it; so do the optimizer's arrays."""
    x, t = data(dtype)
    x[70, 3] = np.nan
    spec = network(dtype)
    expected, first = spec.copy(), optimizers.Momentum(lr=0.1)
    train_by_steps(expected, x, t, np.arange(64), 32, kind, first)
    second = optimizers.Momentum(lr=0.1)
    losses, done = train(spec, x, t, np.arange(len(x)), 32, kind, second)
    assert done == 2
    assert np.isfinite(losses[:2]).all()
    assert not np.isfinite(losses[2])
    assert (losses[3:] == -1).all()
    for p, q in zip(spec.parameters, expected.parameters, strict=True):
        assert p.tobytes() == q.tobytes()
    for name, array in first.state["velocity"].items():
        assert array.tobytes() == second.state["velocity"][name].tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_weights_that_are_not_finite(core, dtype, kind):
    """Zeros of x are not skipped then: 0 times infinity is NaN."""
    x, t = data(dtype)
    spec = network(dtype)
    spec.weights[0][5, 2] = np.inf
    losses, done = train(spec, x, t, np.arange(len(x)), 32, kind, optimizers.SGD(lr=0.1))
    assert np.isnan(losses[0])
    assert done == 0


def arguments(**changes):
    spec = network("float64")
    x, t = data("float64")
    given = {
        "spec": spec, "data": _core.Dataset(x), "targets": t, "order": np.arange(10), "size": 4, "gradient": 0,
        "h": 1e-4, "rule": 0, "constants": (), "coefficients": np.full((3, 1), 0.1), "slots": (),
        "losses": np.zeros(3), "done": np.zeros(1, np.int64), "epochs": 1,
    }  # fmt: skip
    given |= changes
    batches = Batches(*(given.pop(name) for name in ("data", "targets", "order", "size", "epochs")))
    update = Update(*(given.pop(name) for name in ("rule", "constants", "coefficients", "slots")))
    return given | {"batches": batches, "update": update}


def read_only(a):
    a.flags.writeable = False
    return a


F32 = network("float32")
DROPS = Stage(StageKind.DROPOUT, 33, 33, ratio=0.5, random=np.zeros(3, np.uint64))
WITH_STATE = network("float64")
WITH_STATE = dataclasses.replace(WITH_STATE, stages=(DROPS, *WITH_STATE.stages))
SLOTS = tuple(np.zeros_like(p) for p in network("float64").parameters)
MISTAKES = [
    ({"spec": WITH_STATE}, V, "a network that is not a chain needs `before`"),
    ({"data": _core.Dataset(np.ones((5, 33), "f4"))}, T, "x must be float64, not float32"),
    ({"data": _core.Dataset(np.ones((5, 32)))}, V, "x has 32 columns for a network of 33 inputs"),
    ({"data": np.ones((150, 33))}, T, "data must be a Dataset, not ndarray"),
    ({"targets": np.zeros(149, np.int64)}, V, "t has shape (149,) for 150 rows of x"),
    ({"targets": np.full(150, 5)}, V, "t[0] is 5, which is not a label of 5 classes"),
    ({"order": np.array([0, 150])}, V, "order[1] is 150, but x has 150 rows"),
    ({"order": np.array([-1])}, V, "order[0] is -1, but x has 150 rows"),
    ({"order": np.arange(10.0)}, T, "order must be int64, not float64"),
    ({"order": np.zeros((2, 5), np.int64)}, V, "order has shape (2, 5), which is not that of 1 epoch(s)"),
    ({"order": np.array(3)}, V, "order has shape (), which is not that of 1 epoch(s)"),
    ({"order": np.zeros((2, 5), np.int64), "epochs": 3}, V, "order has shape (2, 5), which is not that of 3 epoch(s)"),
    ({"epochs": 0}, V, "order has shape (10,), which is not that of 0 epoch(s)"),
    ({"size": 0}, V, "a batch's size must be positive, not 0"),
    ({"gradient": 3}, V, "there is no gradient kind 3"),
    ({"h": 0.0}, V, "h must be positive and finite"),
    ({"h": np.nan}, V, "h must be positive and finite"),
    ({"rule": 6}, V, "there is no rule 6"),
    ({"rule": -1}, V, "there is no rule -1"),
    ({"constants": (0.9,)}, V, "rule 0 takes 0 constants, 1 coefficients and 0 slots"),
    ({"slots": (SLOTS,)}, V, "rule 0 takes 0 constants, 1 coefficients and 0 slots"),
    ({"coefficients": np.ones((3, 2))}, V, "rule 0 takes 0 constants, 1 coefficients and 0 slots"),
    ({"coefficients": np.ones((2, 1))}, V, "coefficients has 2 rows for 3 steps"),
    ({"coefficients": np.ones((3, 1), "f4")}, T, "coefficients must be float64, not float32"),
    ({"losses": np.zeros(4)}, V, "losses has 4 elements, not 3"),
    ({"losses": read_only(np.zeros(3))}, V, "losses is read-only"),
    ({"done": np.zeros(2, np.int64)}, V, "done has 2 elements, not 1"),
    ({"rule": 1, "constants": (0.9,), "slots": (SLOTS[:2],)}, V, "slot 1 has too few arrays"),
    ({"rule": 1, "constants": (0.9,), "slots": (SLOTS[::-1],)}, V, "slot array 1 has 5 elements, not 561"),
    ({"rule": 1, "constants": (0.9,), "slots": (tuple(F32.parameters),)}, T, "must be float64, not float32"),
]


@pytest.mark.parametrize(("changes", "error", "message"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_mistakes(changes, error, message):
    given = arguments(**changes)
    before = [p.copy() for p in given["spec"].parameters]
    with pytest.raises(error) as caught:
        _core.train(**given)
    assert message in str(caught.value)
    for p, q in zip(given["spec"].parameters, before, strict=True):
        assert np.array_equal(p, q)


def test_read_only_parameters_are_refused():
    spec = network("float64")
    read_only(spec.layers[1].bias)
    with pytest.raises(ValueError, match="parameter 4 is read-only"):
        _core.train(**arguments(spec=spec))


@pytest.mark.parametrize("x", [np.ones((0, 3)), np.ones((3, 0)), np.ones(3), np.ones((3, 3), int), [[1.0]]])
def test_data_that_can_not_be_prepared(x):
    with pytest.raises((TypeError, ValueError)):
        _core.Dataset(x)


def test_a_dataset_keeps_its_array_alive():
    dataset = _core.Dataset(np.ones((200, 33)))
    junk = [np.full((200, 33), np.nan) for _ in range(20)]
    given = arguments(data=dataset, targets=np.zeros(200, np.int64))
    _core.train(**given)
    assert len(junk) == 20
    assert np.isfinite(given["losses"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zeros", [0.7, 0.0])
@pytest.mark.parametrize("rows", [1, 4, 5, 150])
@pytest.mark.parametrize("change", [None, np.inf, np.nan])
def test_answers_to_prepared_rows(dtype, zeros, rows, change):
    """They have the bits of `forward`, also where 0 · infinity is NaN, so that zeros can't be skipped."""
    spec, (x, _) = network(dtype), data(dtype, rows=rows, zeros=zeros)
    if change is not None:
        spec.layers[0].weight[3, 2] = change
    assert _core.Dataset(x).forward(spec).tobytes() == _core.forward(spec, x).tobytes()


def test_answers_to_prepared_rows_of_another_network():
    with pytest.raises(ValueError, match="x has 32 columns for a network of 33 inputs"):
        _core.Dataset(np.ones((5, 32))).forward(network("float64"))
    with pytest.raises(TypeError, match="x must be float64, not float32"):
        _core.Dataset(np.ones((5, 33), "f4")).forward(network("float64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zeros", [0.8, 0.0])
@pytest.mark.parametrize("kind", ["batch norm", "convolution"])
def test_answers_of_stages_to_prepared_rows(dtype, zeros, kind):
    """More rows than go through at once, of two groups of columns."""
    if kind == "batch norm":
        net = fastnet.MultiLayerNet(70, [600], 5, use_batchnorm=True, dropout_ratio=0.2, dtype=dtype, seed=0)
    else:
        filters = {"filter_num": 4, "filter_size": 3, "pad": 1, "stride": 1}
        net = fastnet.SimpleConvNet((1, 7, 10), filters, 200, 5, dtype=dtype, seed=0)
    x, _ = data(dtype, rows=8000, columns=70, zeros=zeros)
    spec = net._computation().spec_of(x if kind == "batch norm" else x.reshape(-1, 1, 7, 10))
    assert _core.Dataset(x).forward(spec).tobytes() == _core.forward(spec, x).tobytes()
