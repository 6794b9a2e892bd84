"""Networks of any stages: the functions that `Backend` asks for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import functions, losses, stage_pass, threads
from fastnet.backends._numba.jit import plain
from fastnet.backends._numba.stage_differences import Differences
from fastnet.backends._numba.stage_loop import Loop, perturb
from fastnet.backends._numba.stage_network import Pass, layout, new_pass
from fastnet.backends._numpy.stage_kinds import mask_of
from fastnet.backends._numpy.stages import count_pass
from fastnet.backends.spec import Diagnostics, NetworkSpec, StageKind

PASS_BYTES = 16 << 20  # of the units of rows that go through together in inference


def training_pass(spec: NetworkSpec, x: FloatArray, slopes: bool) -> Pass:
    """A pass in training that is still to be made."""
    drops = (stage for stage in spec.stages if stage.kind == StageKind.DROPOUT)
    masks = [mask_of(stage, (len(x), stage.outputs), spec.dtype) for stage in drops]
    return new_pass(spec, x, True, slopes, masks)


def _count(spec: NetworkSpec, work: Pass) -> None:
    """Change the state as the pass does that was made."""
    moments: dict[int, tuple[FloatArray, FloatArray]] = {}
    for number, (stage, record) in enumerate(zip(spec.stages, work.stages, strict=True)):
        if stage.kind == StageKind.BATCH_NORM:
            at = slice(record.columns, record.columns + stage.outputs // stage.positions)
            moments[number] = work.mean[at], work.variance[at]
    count_pass(spec, moments)


def _inference(spec: NetworkSpec, x: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Blocks of rows and their answers."""
    most = max(PASS_BYTES // (layout(spec).units * x.itemsize), threads.BLOCK_ROWS)
    for first in range(0, len(x), most):
        at = slice(first, first + most)
        work = new_pass(spec, x[at], False, False, [])
        stage_pass.forward(work)
        yield at, stage_pass.answer(work, spec)


def _loss_of(spec: NetworkSpec, y: FloatArray, t: FloatArray | IntArray) -> float:
    return functions.mean_loss(spec.loss, y, t, spec.loss_constant) + _numpy.penalty(spec)


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    """Return the network's answer in inference, shape (batch, classes)."""
    return np.concatenate([y for _, y in _inference(spec, x)])


@_numpy.quietly
def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, training: bool, counts: bool) -> float:
    """Return the loss in training or inference; `counts` says whether a training pass changes the state."""
    if not training:
        return _loss_of(spec, forward(spec, x), t)
    work = training_pass(spec, x, slopes=False)
    stage_pass.forward(work)
    if counts:
        _count(spec, work)
    return _loss_of(spec, stage_pass.answer(work, spec), t)


@_numpy.quietly
def loss_and_gradient(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, inputs: bool
) -> tuple[float, list[FloatArray], FloatArray | None]:
    """Return the loss of a training pass that counts, its gradient by backprop, and that with respect to `x`."""
    work = training_pass(spec, x, slopes=True)
    stage_pass.forward(work)
    y = stage_pass.answer(work, spec)
    gradients, d_x = stage_pass.backward(work, spec, stage_pass.derivative(spec, t, y), inputs)
    _count(spec, work)
    return _loss_of(spec, y, t), _numpy.stages.with_decays(spec, gradients), d_x


@_numpy.quietly
def units(spec: NetworkSpec, x: FloatArray, counts: bool) -> FloatArray:
    """Return the last stage's units in training, shape (batch, classes)."""
    work = training_pass(spec, x, slopes=False)
    stage_pass.forward(work)
    if counts:
        _count(spec, work)
    return stage_pass.last_units(work, spec)


@_numpy.quietly
def backward(
    spec: NetworkSpec, x: FloatArray, d: FloatArray, inputs: bool
) -> tuple[list[FloatArray], FloatArray | None]:
    """Return the gradient of a function of the last stage's units, whose derivative with respect to them is `d`."""
    work = training_pass(spec, x, slopes=True)
    stage_pass.forward(work)
    gradients, d_x = stage_pass.backward(work, spec, d, inputs)
    return _numpy.stages.with_decays(spec, gradients), d_x


def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    """Return the central differences of the loss in training for `entries`, flat indices into ``spec.parameters``."""
    work = training_pass(spec, x, slopes=False)
    labels, targets = losses.labels_and_rows(t, spec.dtype)
    loop = Loop(
        output=int(spec.output),
        loss=int(spec.loss),
        loss_constant=float(spec.dtype.type(spec.loss_constant)),
        weight_decay=float(spec.weight_decay),
        labels=labels,
        targets=targets,
        h=float(h),
        entries=plain(entries),
        differences=np.empty(len(entries), spec.dtype),
    )
    products = 2 * len(x) * float((work.stages["products"] * work.stages["tasks"]).sum())
    threads.share(perturb, (work, loop), len(entries), products)
    return loop.differences


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the central differences with respect to every parameter, each move evaluated by itself."""
    return _differences(spec, x, t, h, nodal=False)


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    """Return the same, from a few moves of each unit where that is possible."""
    return _differences(spec, x, t, h, nodal=True)


@_numpy.quietly
def _differences(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, nodal: bool
) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    base = loss(spec, x, t, training=True, counts=False)
    found = Differences(spec, training_pass(spec, x.astype(np.float64), slopes=False), t, h)
    gradients, kinks = found.run(nodal)
    gradients = _numpy.stages.with_decays(spec, gradients)
    if np.isfinite(base):
        gradients = _numpy.replace_lost(gradients, lambda lost: loop(spec, x, t, found.h, lost))
    met_kinks = sum(int(k.sum()) for k in kinks)
    return gradients, Diagnostics(base, found.evaluations, found.fallbacks, met_kinks, tuple(kinks))
