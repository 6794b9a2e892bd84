"""Hostile files and arrays from a source of random numbers, and what may be raised for them: never a crash.

Each function of `TARGETS` makes one input from a `random.Random`, uses it, and returns whether it was taken. It catches
the exceptions that are documented and no others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import io
import itertools
import pickle
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None
from numpy.lib.stride_tricks import as_strided

import fastnet
import stages
from fastnet import backends
from fastnet.backends.spec import StageKind, Windows
from fastnet.book import pickle as book_pickle
from fastnet.datasets.mnist import read_idx

# Bytes ----------------------------------------------------------------------------------------------------


def mutated(random: Random, data: bytes) -> bytes:
    """The bytes after up to four changes: other bytes, pieces cut out, doubled or moved, the largest numbers."""
    changed = bytearray(data)
    for _ in range(random.randint(0, 4)):
        at = random.randint(0, len(changed))
        size = random.choice((1, 1, 2, 4, 8, 30))
        kind = random.randrange(5)
        if kind == 0:
            changed[at : at + size] = random.randbytes(len(changed[at : at + size]))
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = changed[at : at + size]
        elif kind == 3:
            piece = changed[at : at + size]
            del changed[at : at + size]
            at = random.randint(0, len(changed))
            changed[at:at] = piece
        else:
            number = random.choice((b"\0", b"\xff", b"\x7f", b"\x80")) + random.choice((b"\0", b"\xff")) * (size - 1)
            changed[at : at + size] = random.choice((number, number[::-1]))
    return bytes(changed)


_HOLDER = tempfile.TemporaryDirectory(prefix="fastnet-hostile-")  # removed at exit
_FOLDER = Path(_HOLDER.name)


def _written(data: bytes) -> Path:
    path = _FOLDER / "file"
    path.unlink(missing_ok=True)  # some file systems wait for the disk where a file is emptied and written again
    path.write_bytes(data)
    return path


def idx(random: Random) -> bool:
    """An IDX file, or one compressed with gzip, damaged before or after that."""
    kind, size = random.choice(((8, 1), (9, 1), (0xB, 2), (0xC, 4), (0xD, 4), (0xE, 8)))
    shape = [random.randint(0, 3) for _ in range(random.randint(0, 4))]
    data = bytes((0, 0, kind, len(shape))) + b"".join(n.to_bytes(4, "big") for n in shape)
    data = mutated(random, data + random.randbytes(int(np.prod(shape)) * size))
    if random.random() < 0.3:
        data = mutated(random, gzip.compress(data, 1))
    try:
        read_idx(_written(data))
    except ValueError:
        return False
    return True


@functools.cache
def _network_entries() -> dict[str, bytes]:
    fastnet.TwoLayerNet(3, 2, 2, seed=0).save_params(_FOLDER / "net.npz")
    with zipfile.ZipFile(_FOLDER / "net.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _trainer() -> Any:
    x, t = np.ones((4, 3)), np.arange(4) % 2
    net = fastnet.TwoLayerNet(3, 2, 2, seed=0)
    return fastnet.Trainer(net, x, t, optimizer=fastnet.optimizers.Adam(), batch_size=2, epochs=2, progress=False)


@functools.cache
def _training_entries() -> dict[str, bytes]:
    trainer = _trainer()
    trainer.fit()
    trainer.save(_FOLDER / "training.npz")
    with zipfile.ZipFile(_FOLDER / "training.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _damaged_zip(random: Random, entries: dict[str, bytes]) -> bytes:
    """A zip file with damaged entries whose checksums are right, or one that is damaged itself."""
    entries = dict(entries)
    inside = random.random() < 0.7
    for _ in range(random.randint(1, 2) if inside else 0):
        name = random.choice(sorted(entries))
        entries[name] = mutated(random, entries[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue() if inside else mutated(random, file.getvalue())


def parameters(random: Random) -> bool:
    """A file of `save_params`; a network whose file is refused keeps its parameters."""
    net = fastnet.TwoLayerNet(3, 2, 2, seed=1)
    before = {name: array.copy() for name, array in net.params.items()}
    path = _written(_damaged_zip(random, _network_entries()))
    try:
        net.load_params(path)
    except ValueError:
        assert all(np.array_equal(net.params[name], array) for name, array in before.items())
        return False
    return True


def training(random: Random) -> bool:
    """A file of `Trainer.save`; a training whose file is refused is as it was."""
    trainer = _trainer()
    before = {name: array.copy() for name, array in trainer.net.params.items()}
    path = _written(_damaged_zip(random, _training_entries()))
    try:
        trainer.load(path)
    except ValueError:
        assert all(np.array_equal(trainer.net.params[name], array) for name, array in before.items())
        assert len(trainer.history.losses) == 0
        return False
    return True


WEIGHTS = {
    "W1": np.arange(6.0).reshape(2, 3),
    "b1": np.zeros(3, "f4"),
    "W2": np.asfortranarray(np.eye(2)),
    "n": [1, ""],
}


def pickles(random: Random) -> bool:
    """A pickle of the book's weights."""
    try:
        book_pickle.loads(mutated(random, pickle.dumps(WEIGHTS, random.randint(0, 5))))
    except (book_pickle.UnpicklingError, MemoryError):  # the latter where it claims so many bytes
        return False
    return True


# The extension --------------------------------------------------------------------------------------------

DTYPES = ("f8", "f4", "i8", ">f8", "f2", "g", "c16", "i4", "u8", "?", "O", "U1", "S3", "M8[s]", "V5", ">i8", "f4,i4")

LAYOUTS = ("order", "reverse", "step", "misaligned", "zero strides", "overlap", "huge")


def array(random: Random, shape: tuple[int, ...] | None = None, dtype: str | None = None) -> Any:
    """An array, by default of any dtype, rank, layout and byte order: it may overlap, be empty, or claim to be huge."""
    if shape is None:
        shape = tuple(random.choice((0, 1, 2, 3, 4, 5, 8)) for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 4))))
    kind = np.dtype(dtype or random.choice(DTYPES[:2] * 4 + DTYPES[2:3] * 3 + DTYPES))
    size = int(np.prod(shape))
    if kind.kind == "O":
        made = np.full(shape, None)
    elif kind.kind in "fc":
        values = [random.choice((0.0, 1.0, -2.5, 1e300, 5e-324, np.inf, np.nan, 0.5, 0.25)) for _ in range(size)]
        with np.errstate(over="ignore"):
            made = np.array(values, "f8").astype(kind).reshape(shape)
    elif kind.kind in "iu":
        values = [random.choice((0, 1, 2, -1, 2**62, 3)) for _ in range(size)]
        made = np.array(values, "i8").astype(kind).reshape(shape)
    else:
        made = np.zeros(shape, kind)
    layout = random.choice(("plain",) * 40 + LAYOUTS)
    if layout == "order":
        made = np.asfortranarray(made)
    elif layout == "reverse" and made.ndim:
        made = made[::-1]
    elif layout == "step" and made.ndim:
        made = np.repeat(made, 2, axis=0)[::2]
    elif layout == "misaligned" and kind.kind != "O":
        made = np.frombuffer(b"\0" + made.tobytes(), np.uint8)[1:].view(kind).reshape(shape)
    elif layout == "zero strides" and size:
        made = np.broadcast_to(made.ravel()[0], shape)
    elif layout == "overlap" and kind.kind != "O" and made.ndim == 2 and size > 1 and made.shape[1] > 1:
        made = as_strided(made.ravel(), (2, made.shape[1] - 1), (kind.itemsize, kind.itemsize))
    elif layout == "huge" and size and made.ndim:
        made = np.broadcast_to(made.ravel()[0], (2**31,) + (1,) * (made.ndim - 1))
    if random.random() < 0.1:
        made = made.view()
        made.flags.writeable = False
    return made


@contextlib.contextmanager
def little_memory(more: int = 2**32) -> Iterator[None]:
    """Let the process have so many bytes more: a copy of a huge array raises MemoryError, where it could end all."""
    sizes = Path("/proc/self/statm")
    if resource is None or not sizes.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int(sizes.read_text().split()[0]) * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def anything(random: Random) -> Any:
    """An argument that is not meant."""
    choices: tuple[Any, ...] = (None, 0, -1, 2, 2**31, 2**70, -1e-4, np.nan, "text", b"bytes", [1.0], (), {}, object())
    return random.choice((random.choice(choices), array(random)))


def maybe(random: Random, good: Any) -> Any:
    return good if random.random() < 0.97 else anything(random)


def _rows(random: Random, rows: int, columns: int, dtype: str) -> Any:
    """Mostly an array that fits."""
    shape, kind = ((rows, columns), dtype) if random.random() < 0.9 else (None, None)
    return array(random, shape, kind)


def _spec(random: Random, dtype: str, widths: tuple[int, ...]) -> Any:
    """A description of a chain, with mistakes that `NetworkSpec` itself would not make."""
    layers = [
        (
            maybe(random, array(random, shape, dtype)),
            random.choice((None, maybe(random, array(random, shape[1:], dtype)))),
            maybe(random, random.randint(0, 9)),
            maybe(random, 0.5),
        )
        for shape in itertools.pairwise(widths)
    ]
    if random.random() < 0.05:
        layers[-1] = layers[-1][: random.randint(0, 3)]
    attributes = {
        "layers": tuple(layers),
        "stages": (),
        "dtype": np.dtype(dtype),
        "output": random.randint(0, 1),
        "loss": random.randint(0, 4),
        "loss_constant": 1.0,
        "weight_decay": 0.1,
    }
    attributes = {name: maybe(random, value) if random.random() < 0.2 else value for name, value in attributes.items()}
    if random.random() < 0.02:
        del attributes[random.choice(sorted(attributes))]
    return types.SimpleNamespace(**attributes)


def _staged(random: Random, dtype: str) -> Any:
    """A description of stages of every kind, one of whose fields may be wrong; it has 16 inputs and 3 outputs."""
    rng = np.random.default_rng(random.randrange(2**32))
    windows = Windows(1, 4, 4, 2, 2, 2, 2, 0, 0)
    made = random.choice(
        (
            [stages.convolution(rng, windows, 2, dtype), stages.activation(8), stages.affine(rng, 8, 3, dtype)],
            [stages.pooling(StageKind.MAX_POOLING, windows), stages.affine(rng, 4, 3, dtype)],
            [stages.affine(rng, 16, 5, dtype), stages.batch_norm(rng, 5, dtype=dtype), stages.affine(rng, 5, 3, dtype)],
            [stages.affine(rng, 16, 5, dtype), stages.dropout(5), stages.affine(rng, 5, 3, dtype)],
            [stages.pooling(StageKind.AVERAGE_POOLING, windows), stages.affine(rng, 4, 3, dtype)],
        )
    )
    if random.random() < 0.4:
        at = random.randrange(len(made))
        fields = {f.name: getattr(made[at], f.name) for f in dataclasses.fields(made[at])}
        name = random.choice(sorted(fields))
        old = fields[name]
        if name == "windows" and old is not None:
            number = random.choice(sorted(f.name for f in dataclasses.fields(old)))
            fields[name] = types.SimpleNamespace(**dataclasses.asdict(old) | {number: random.choice((0, -1, 3, 2**62))})
        elif isinstance(old, np.ndarray) and random.random() < 0.7:
            fields[name] = array(random, old.shape, random.choice((old.dtype.str, dtype)))
        else:
            fields[name] = random.choice((0, 1, 7, 2**62, -(2**63), 1e300, anything(random)))
        made[at] = types.SimpleNamespace(**fields)
    return types.SimpleNamespace(
        layers=(), stages=tuple(made), dtype=np.dtype(dtype), output=1, loss=0, loss_constant=1.0, weight_decay=0.0
    )


def _network_call(random: Random, core: Any) -> tuple[Any, ...]:
    dtype, rows = random.choice(("f8", "f4")), random.randint(1, 5)
    widths = tuple(random.randint(1, 5) for _ in range(random.randint(2, 4)))
    spec = maybe(random, _spec(random, dtype, widths))
    if random.random() < 0.3:
        spec, widths = _staged(random, dtype), (16, 3)
    x = _rows(random, rows, widths[0], dtype)
    t = _rows(random, rows, widths[-1], dtype)
    if random.random() < 0.5:
        t = np.array([random.randrange(widths[-1]) for _ in range(rows)])
        t = t if random.random() < 0.9 else array(random, (rows,), "i8")
    h = random.choice((1e-4, 1e-2, 1.0, 0.0, -1.0, np.inf, np.nan, 1e-320, 1e300, "h"))
    entries = np.array([random.randint(0, 6) for _ in range(random.randint(0, 3))], np.int64)
    entries = random.choice((entries, array(random, (2,), "i8"), anything(random)))
    return random.choice(
        (
            (core.forward, spec, x),
            (_answer_all, core, x, spec),
            (core.loss, spec, x, t),
            (core.loss, spec, x, t, True, True),
            (core.loss_and_gradient, spec, x, t),
            (core.loss_and_gradient, spec, x, t, True),
            (core.units, spec, x, False),
            (core.backward, spec, x, t, True),
            (core.loop, spec, x, t, h, entries),
            (core.incremental, spec, x, t, h),
            (core.nodal, spec, x, t, h),
            (core.hessian_diagonal, spec, x, t, h),
        )
    )


def _answer_all(core: Any, x: Any, spec: Any) -> Any:
    return core.Dataset(x).forward(spec)


def _train_call(random: Random, core: Any) -> tuple[Any, ...]:
    """One stretch of SGD, Momentum or another rule, with a dataset of its own."""
    dtype, rows = random.choice(("f8", "f4")), random.randint(1, 6)
    widths = (random.randint(1, 4), 3, 2)
    spec = _spec(random, dtype, widths)
    order = random.choice((np.arange(rows), array(random, (rows,), "i8"), anything(random)))
    labels = np.arange(rows) % 2
    data = core.Dataset(np.ones((rows, widths[0]), dtype)) if random.random() < 0.9 else anything(random)
    batches = types.SimpleNamespace(
        data=data,
        targets=random.choice((labels, array(random, (rows,), "i8"))),
        order=order,
        size=maybe(random, random.randint(1, rows)),
    )
    shapes = [shape for ends in itertools.pairwise(widths) for shape in (ends, ends[1:])]
    slots = tuple(tuple(np.zeros(shape, dtype) for shape in shapes) for _ in range(random.randint(0, 2)))
    update = types.SimpleNamespace(
        rule=maybe(random, random.randint(0, 5)),
        constants=tuple(0.9 for _ in range(random.randint(0, 3))),
        slots=maybe(random, slots),
        coefficients=random.choice((np.full((rows, random.randint(1, 2)), 0.1), array(random, (rows, 1), "f8"))),
    )
    losses = random.choice((np.zeros(rows), np.zeros(-(-rows // 2)), array(random, (rows,), "f8")))
    done = random.choice((np.zeros(1, np.int64), anything(random)))
    return core.train, spec, maybe(random, batches), maybe(random, random.randint(0, 3)), 1e-3, update, losses, done


def bindings(random: Random) -> bool:
    """One call of a function of the extension, with what Python's own checks would have refused."""
    core: Any = backends.get("cpp")._core
    kind = random.randrange(10)
    if kind < 6:
        function, *arguments = _network_call(random, core)
    elif kind < 7:
        function, *arguments = _train_call(random, core)
    else:
        dtype, rows, columns = random.choice(("f8", "f4")), random.randint(0, 5), random.randint(0, 5)
        x, y = _rows(random, rows, columns, dtype), _rows(random, columns, rows, dtype)
        bias, labels = _rows(random, columns, 1, dtype), array(random, (rows,), "i8")
        function, *arguments = random.choice(
            (
                (core.exp, x),
                (core.activation, random.randint(-1, 10), x, 0.1),
                (core.activation_derivative, random.randint(-1, 10), x, 0.1),
                (core.softmax, x),
                (core.add_bias, x, bias[:, 0] if bias.ndim == 2 and bias.shape[1] else bias),
                (core.matmul, x, y, random.random() < 0.3, random.random() < 0.3),
                (core.mean_loss, random.randint(-1, 5), x, random.choice((labels, x, y))),
                (core.Dataset, x),
                (core.all_finite, x),
            )
        )
        if random.random() < 0.1:
            arguments[random.randrange(len(arguments))] = anything(random)
    try:
        with little_memory():
            function(*arguments)
    except (TypeError, ValueError, MemoryError):
        return False
    return True


TARGETS: dict[str, Callable[[Random], bool]] = {
    "idx": idx,
    "parameters": parameters,
    "training": training,
    "pickles": pickles,
    "bindings": bindings,
}
