"""Networks of stages as backends compute them, against definitions in nested loops and against plain differences."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fastnet import backends
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output, StageKind, Windows
from stages import activation, affine, batch, batch_norm, convolution, differences, dropout, largest_of, off, pooling


@pytest.fixture
def stages(backend):
    return backend


def identity(stage, dtype="float64"):
    """The stage alone: its answers are its units."""
    return NetworkSpec((stage,), Output.IDENTITY, Loss.MEAN_SQUARED_ERROR, np.dtype(dtype))


WINDOWS = [
    Windows(2, 6, 7, window, width, y, x, min(pad, window - 1), min(pad, width - 1))
    for window, width, (y, x), pad in itertools.product((1, 2, 3), (1, 2, 5), ((1, 1), (2, 1), (3, 2)), (0, 1, 2))
]


def windows_of(image, w, border):
    """Each window of an image (channels, height, width): (y, x, its elements (channels, window))."""
    padded = np.pad(image, ((0, 0), (w.pad_y,) * 2, (w.pad_x,) * 2), constant_values=border)
    for y, x in itertools.product(range(w.out_height), range(w.out_width)):
        top, left = y * w.stride_y, x * w.stride_x
        yield y, x, padded[:, top : top + w.window_height, left : left + w.window_width]


def by_definition(stage, x):
    w = stage.windows
    images = x.astype(np.longdouble).reshape(len(x), w.channels, w.height, w.width)
    channels = stage.outputs // w.positions
    y = np.empty((len(x), channels, w.out_height, w.out_width), np.longdouble)
    for image, out in zip(images, y, strict=True):
        border = -np.inf if stage.kind == StageKind.MAX_POOLING else 0
        for i, j, window in windows_of(image, w, border):
            if stage.kind == StageKind.CONVOLUTION:
                products = stage.weight.astype(np.longdouble) * window
                out[:, i, j] = products.sum(axis=(1, 2, 3)) + (0 if stage.bias is None else stage.bias)
            else:
                reduce = np.max if stage.kind == StageKind.MAX_POOLING else np.mean
                out[:, i, j] = reduce(window, axis=(1, 2))
    return y.reshape(len(x), -1)


def test_convolution_and_pooling_are_what_they_are_defined_as(stages, dtype):
    rng = np.random.default_rng(0)
    x, _ = batch(rng, 84, dtype, rows=2)
    for windows in WINDOWS:
        every = [convolution(rng, windows, filters, dtype, filters > 1) for filters in (1, 5)]
        every += [pooling(kind, windows) for kind in (StageKind.MAX_POOLING, StageKind.AVERAGE_POOLING)]
        for stage in every:
            y = stages.forward(identity(stage, dtype), x)
            bound = 30 * np.finfo(dtype).eps
            np.testing.assert_allclose(y, by_definition(stage, x), rtol=0, atol=bound, err_msg=f"{windows}")


IMAGE = Windows(2, 6, 7, 3, 2, 1, 1, 1, 1)


def networks(rng, dtype):
    """By name, stages that take 84 inputs and give 3 classes; smooth, so that differences are derivatives."""
    conv = convolution(rng, IMAGE, 3, dtype)
    units, (height, width) = conv.outputs, (IMAGE.out_height, IMAGE.out_width)
    pool = pooling(StageKind.AVERAGE_POOLING, Windows(3, height, width, 2, 2, 2, 2))
    largest = pooling(StageKind.MAX_POOLING, Windows(3, height, width, 2, 3, 1, 2, 1, 0))
    second = convolution(rng, Windows(3, height, width, 2, 2, 2, 2, 0, 1), 2, dtype, bias=False)
    return {
        "affine": (affine(rng, 84, 3, dtype),),
        "dropout": (affine(rng, 84, 9, dtype), activation(9), dropout(9), affine(rng, 9, 3, dtype)),
        "dropout first": (dropout(84), affine(rng, 84, 3, dtype)),
        "norm": (affine(rng, 84, 9, dtype), batch_norm(rng, 9, dtype=dtype), activation(9), affine(rng, 9, 3, dtype)),
        "norm first": (batch_norm(rng, 84, dtype=dtype), affine(rng, 84, 3, dtype)),
        "norm last": (affine(rng, 84, 3, dtype), batch_norm(rng, 3, dtype=dtype)),
        "two norms": (
            affine(rng, 84, 9, dtype, bias=False),
            batch_norm(rng, 9, dtype=dtype),
            activation(9, Activation.SIGMOID),
            dropout(9),
            affine(rng, 9, 5, dtype),
            batch_norm(rng, 5, dtype=dtype),
            activation(5),
            affine(rng, 5, 3, dtype),
        ),
        "convolution": (conv, activation(units), affine(rng, units, 3, dtype)),
        "average pooling": (conv, activation(units), pool, affine(rng, pool.outputs, 3, dtype)),
        "max pooling": (
            conv,
            activation(units),
            largest,
            dropout(largest.outputs),
            affine(rng, largest.outputs, 3, dtype),
        ),
        "two convolutions": (
            conv,
            batch_norm(rng, units, height * width, dtype),
            activation(units),
            second,
            activation(second.outputs, Activation.SIGMOID),
            affine(rng, second.outputs, 4, dtype),
            batch_norm(rng, 4, dtype=dtype),
            affine(rng, 4, 3, dtype),
        ),
        "norm of units after channels": (conv, batch_norm(rng, units, 1, dtype), affine(rng, units, 3, dtype)),
    }


NAMES = list(networks(np.random.default_rng(0), "float64"))


@pytest.mark.parametrize("name", NAMES)
def test_backprop_and_every_difference_agree(stages, dtype, name):
    rng = np.random.default_rng(1)
    spec = NetworkSpec(networks(rng, dtype)[name], dtype=np.dtype(dtype), weight_decay=0.1)
    x, t = batch(rng, 84, dtype)
    size, step = sum(p.size for p in spec.parameters), 1e-8 if dtype == "float64" else 1e-5
    loss = stages.loss(spec, x, t, training=True, counts=False)
    incremental, told = stages.incremental(spec, x, t, step)
    nodal, _ = differences(stages, spec, x, t, step)
    coarse, _ = differences(stages, spec, x, t, 1e-3)
    coarse_too, _ = stages.incremental(spec, x, t, 1e-3)
    entries = np.arange(0, size, max(size // 50, 1))
    loop = stages.loop(spec, x, t, 1e-3, entries)
    base, backprop, d_x = stages.loss_and_gradient(spec, x, t, inputs=True)
    assert base == loss
    assert told.loss == pytest.approx(
        loss, rel=4 * float(np.finfo(dtype).eps)
    )  # of a float32 chain, Numba's is in float64
    assert told.evaluations > 0
    assert d_x.shape == x.shape
    exact = 1e-13 if dtype == "float64" else 5e-6
    assert off(incremental, backprop) < exact
    assert off(nodal, backprop) < exact
    assert off(coarse, coarse_too) < (1e-12 if dtype == "float64" else 1e-5)
    flat = np.concatenate([g.ravel() for g in coarse])[entries]
    assert np.abs(flat - loop).max() < (1e-9 if dtype == "float64" else 3e-3) * largest_of(coarse)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_with_respect_to_x(stages, name):
    rng = np.random.default_rng(1)
    spec = NetworkSpec(networks(rng, "float64")[name], weight_decay=0.1)
    x, t = batch(rng, 84)
    direction, h = rng.standard_normal(x.shape), 1e-5
    above, below = (stages.loss(spec, x + s * h * direction, t, training=True, counts=False) for s in (1, -1))
    _, _, d_x = stages.loss_and_gradient(spec, x, t, inputs=True)
    assert (d_x * direction).sum() == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_on_any_number_of_threads(stages, dtype, name):
    answers = []
    for threads in (1, 2, 5):
        backends.set_num_threads(threads)
        rng = np.random.default_rng(1)
        spec = NetworkSpec(networks(rng, dtype)[name], dtype=np.dtype(dtype))
        x, t = batch(rng, 84, dtype, rows=140)
        found = [*differences(stages, spec, x, t, 1e-4)[0]]
        loss, gradient, d_x = stages.loss_and_gradient(spec, x, t, inputs=True)
        found += [*gradient, d_x, stages.forward(spec, x)]
        answers.append((loss, *(a.tobytes() for a in found)))
    assert answers[0] == answers[1] == answers[2]


def test_a_pass_that_counts_changes_the_state(stages, dtype):
    rng = np.random.default_rng(1)
    spec = NetworkSpec(networks(rng, dtype)["two norms"], dtype=np.dtype(dtype))
    norm, drop = spec.stages[1], spec.stages[3]
    x, t = batch(rng, 84, dtype)
    stages.loss(spec, x, t, training=True, counts=False)
    assert norm.passes[0] == drop.random[2] == 0
    a = (x @ spec.stages[0].weight).astype(np.float64)
    stages.loss(spec, x, t, training=True, counts=True)
    assert norm.passes[0] == drop.random[2] == 1
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(norm.running_mean, a.mean(axis=0), rtol=0, atol=tolerance)  # of the first pass alone
    np.testing.assert_allclose(norm.running_var, a.var(axis=0), rtol=tolerance)
    stages.loss(spec, 3 * x, t, training=True, counts=True)
    share = 0.1 / (1 - 0.9**2)
    np.testing.assert_allclose(norm.running_mean, (1 + 2 * share) * a.mean(axis=0), rtol=0, atol=tolerance * 10)


def test_kinks_are_left_to_moves_one_by_one(stages, dtype):
    """A ReLU that changes its side: nodal gives what incremental gives."""
    rng = np.random.default_rng(2)
    spec = NetworkSpec(
        (affine(rng, 84, 9, dtype), activation(9, Activation.RELU), dropout(9), affine(rng, 9, 3, dtype)),
        dtype=np.dtype(dtype),
    )
    x, t = batch(rng, 84, dtype, rows=20)
    nodal, told = differences(stages, spec, x, t, 0.1)
    one_by_one, _ = stages.incremental(spec, x, t, 0.1)
    assert (told.fallbacks > 0) == ("nodal" in stages.algorithms)
    assert off(nodal, one_by_one) < (1e-12 if dtype == "float64" else 1e-5)


def kinked_networks(rng):
    """By name, stages with one batch normalisation behind another and kinks behind both; 20 inputs, 3 classes."""

    def stages(hidden, kind, masks):
        made = []
        for inputs, units in itertools.pairwise((20, *hidden)):
            made += [affine(rng, inputs, units), batch_norm(rng, units)]
            steps = [activation(units, kind, 0.1), dropout(units)]
            made += {"behind": steps, "before": steps[::-1], "none": steps[:1], "both": [steps[1], *steps]}[masks]
        return (*made, affine(rng, hidden[-1], 3))

    return {
        "relu": stages((9, 7), Activation.RELU, "behind"),
        "masked before": stages((9, 7), Activation.RELU, "before"),
        "masked twice": stages((9, 7), Activation.LEAKY_RELU, "both"),
        "no mask": stages((9, 7, 6), Activation.LEAKY_RELU, "none"),
        "identity": stages((9, 7), Activation.IDENTITY, "behind"),
        "one unit": stages((1, 7), Activation.RELU, "behind"),
    }


@pytest.mark.parametrize("name", kinked_networks(np.random.default_rng(0)))
@pytest.mark.parametrize("h", [1e-4, 0.03, 0.5])
def test_moves_behind_two_norms_short_and_long(stages, name, h):
    """Moves that leave every unit on its side, some that do not, and most that do not: as plain differences."""
    rng = np.random.default_rng(3)
    spec = NetworkSpec(kinked_networks(rng)[name])
    x, t = batch(rng, 20, rows=20)
    entries = np.arange(0, 20 * spec.stages[0].outputs, 3)
    found, _ = differences(stages, spec, x, t, h)
    loop = stages.loop(spec, x, t, h, entries)
    assert np.abs(found[0].ravel()[entries] - loop).max() < 2e-15 / h + 1e-12


@pytest.mark.parametrize("h", [0.01, 0.1])
def test_kinks_behind_two_norms_are_told(stages, h):
    """Which parameters take a unit behind the second batch normalisation to its other side."""
    rng = np.random.default_rng(4)
    first, norm, second, last = affine(rng, 20, 4), batch_norm(rng, 4), affine(rng, 4, 6), batch_norm(rng, 6)
    spec = NetworkSpec((first, norm, activation(4), second, last, activation(6, Activation.RELU), affine(rng, 6, 3)))
    x, t = batch(rng, 20, rows=30)
    kinks = stages.incremental(spec, x, t, h)[1].kinked

    def normed(stage, a):
        return stage.weight * (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-6) + stage.bias

    def sides(weight):
        z = np.tanh(normed(norm, x @ weight + first.bias))
        return normed(last, z @ second.weight + second.bias) > 0

    base, expected = sides(first.weight), np.zeros(first.weight.shape, bool)
    for index in np.ndindex(first.weight.shape):
        for step in (h, -h):
            moved = first.weight.copy()
            moved[index] += step
            expected[index] |= (sides(moved) != base).any()
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(kinks[0], expected)


def test_kinks_are_told(stages, dtype):
    """Which parameters take a ReLU to its other side, or another pixel to a maximum: as plain forward passes tell."""
    rng = np.random.default_rng(3)
    windows = Windows(1, 6, 6, 3, 3)
    conv = convolution(rng, windows, 2, dtype)
    pool = pooling(StageKind.MAX_POOLING, Windows(2, 4, 4, 2, 2, 2, 2))
    spec = NetworkSpec(
        (conv, activation(conv.outputs, Activation.RELU), pool, affine(rng, 8, 3, dtype)), dtype=np.dtype(dtype)
    )
    x, t = batch(rng, 36, dtype, rows=2)
    h = 0.02
    told = stages.incremental(spec, x, t, h)[1]
    kinks, of_bias, *others = told.kinked
    assert told.kinks == sum(array.sum() for array in told.kinked)
    assert not any(array.any() for array in others)

    def sides(weight, bias):
        moved = replace(conv, weight=weight, bias=bias)
        a = stages.forward(identity(moved, dtype), x).reshape(2, 2, 4, 4)
        windows = np.maximum(a, 0).reshape(2, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 2, 2, 2, 4)
        return a > 0, windows.argmax(axis=-1)

    def crosses(index, array):
        found = False
        for step in (h, -h):
            arrays = [conv.weight.copy(), conv.bias.copy()]
            arrays[array][index] += step
            found |= any((p != q).any() for p, q in zip(sides(*arrays), sides(conv.weight, conv.bias), strict=True))
        return found

    expected = np.array([crosses(index, 0) for index in np.ndindex(conv.weight.shape)]).reshape(kinks.shape)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(kinks, expected)
    np.testing.assert_array_equal(of_bias, [crosses(index, 1) for index in range(2)])


@pytest.mark.parametrize("name", networks(np.random.default_rng(0), "float64"))
def test_a_part_of_a_network(stages, name, dtype):
    """With the derivative of the squared error at its units, a part has the gradient of a network with that error."""
    made, again = (networks(np.random.default_rng(1), dtype)[name] for _ in range(2))
    whole = NetworkSpec(made, Output.IDENTITY, Loss.MEAN_SQUARED_ERROR, np.dtype(dtype))
    part = NetworkSpec(made, Output.SOFTMAX, Loss.CROSS_ENTROPY, np.dtype(dtype))  # neither of which plays a part
    x, _ = batch(np.random.default_rng(2), part.inputs, dtype)
    t = np.random.default_rng(3).standard_normal((len(x), part.classes)).astype(dtype)

    def state(list_of_stages):
        arrays = [(stage.running_mean, stage.running_var, stage.passes, stage.random) for stage in list_of_stages]
        return [array.tobytes() for group in arrays for array in group if array is not None]

    before = state(made)
    units = stages.units(part, x, counts=False)
    gradient, d_x = stages.backward(part, x, (units - t) / np.dtype(dtype).type(len(x)), inputs=True)
    assert stages.backward(part, x, units, inputs=False)[1] is None
    assert state(made) == before
    loss, expected, of_x = stages.loss_and_gradient(whole, x, t, inputs=True)
    assert 0.5 * np.square(units - t).sum(axis=1).mean() == pytest.approx(loss, rel=1e-5)
    assert off([*gradient, d_x], [*expected, of_x]) < 100 * np.finfo(dtype).eps
    np.testing.assert_array_equal(stages.units(replace(part, stages=again), x, counts=True), units)
    assert state(again) == state(made)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d[:-1], ValueError, r"d has shape \(5, 3\)"),
        (lambda d: np.ascontiguousarray(d[:, :2]), ValueError, r"d has shape \(6, 2\)"),
        (lambda d: d.ravel(), ValueError, "d must have 2 dimension"),
        (lambda d: d.astype("int64"), TypeError, "d"),
        (lambda d: d[:, ::-1], ValueError, "d must be C-contiguous"),
        (lambda d: d.tolist(), TypeError, "d must be a NumPy array, not list"),
    ],
)
def test_a_derivative_that_does_not_fit_is_refused(stages, change, error, message):
    if stages.name != "cpp":
        pytest.skip("the checks of the extension, which reads memory by pointers")
    spec = NetworkSpec((affine(np.random.default_rng(0), 5, 3),))
    with pytest.raises(error, match=message):
        stages.backward(spec, np.ones((6, 5)), change(np.ones((6, 3))), inputs=True)


@pytest.mark.parametrize("output", Output)
def test_kinks_of_the_absolute_error_are_told(stages, dtype, output):
    """Which parameters take an answer across its target, as plain passes tell. The Huber loss has no kink."""
    rng = np.random.default_rng(3)
    first, last = affine(rng, 4, 5, dtype), affine(rng, 5, 3, dtype)
    spec = NetworkSpec((first, activation(5), dropout(5, 0.0), last), output, Loss.ABSOLUTE_ERROR, np.dtype(dtype))
    x, _ = batch(rng, 4, dtype, rows=3)
    y, h = stages.forward(spec, x), 2.0**-6
    t = y + 1
    t[1, 2] = y[1, 2]  # at its target: no unit of another output moves it without softmax
    t[2, 0] = y[2, 0] + np.dtype(dtype).type(h / 8)
    found = {nodal: differences(stages, spec, x, t, h, nodal)[1].kinked for nodal in (False, True)}

    def crosses(place, index):
        for step in (h, -h):
            arrays = [a.copy() for a in spec.parameters]
            arrays[place][index] += np.dtype(dtype).type(step)
            if np.any((stages.forward(spec.with_parameters(arrays), x) > t) != (y > t)):
                return True
        return False

    for place, array in enumerate(spec.parameters):
        expected = np.array([crosses(place, index) for index in np.ndindex(array.shape)]).reshape(array.shape)
        for nodal, kinks in found.items():
            np.testing.assert_array_equal(kinks[place], expected, err_msg=f"{place}, nodal={nodal}")
        assert expected.any()
    huber = replace(spec, loss=Loss.HUBER, loss_constant=h / 8)
    assert not any(k.any() for k in differences(stages, huber, x, t, h)[1].kinked)
