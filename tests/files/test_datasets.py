"""IDX files good and bad, where MNIST is looked for, downloads, and the digits that are drawn."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastnet
from fastnet import datasets

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array, code=0x08):
    array = np.asarray(array, TYPES[code])
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, train=6, test=4, pack=True):
    """Four small files with MNIST's names: images of random bytes, labels in turn."""
    rng = np.random.default_rng(0)
    for (images, labels), n in zip((NAMES[:2], NAMES[2:]), (train, test), strict=True):
        for name, array in ((images, rng.integers(0, 256, (n, 28, 28))), (labels, np.arange(n) % 10)):
            data = idx(array)
            (folder / (f"{name}.gz" if pack else name)).write_bytes(gzip.compress(data, mtime=0) if pack else data)
    return folder


@pytest.fixture
def mnist_folder(tmp_path):
    return write_mnist(tmp_path)


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No FASTNET_DATA_DIR, and an empty cache."""
    monkeypatch.delenv("FASTNET_DATA_DIR", raising=False)
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.mnist, "cache_dir", lambda: cache)
    return cache / "mnist"


# IDX files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("pack", [False, True])
def test_every_type_comes_back(tmp_path, code, shape, pack):
    array = (np.arange(np.prod(shape, dtype=int)) - 3).reshape(shape).astype(TYPES[code])
    path = tmp_path / "file"  # whether it is packed is told from its content, not its name
    path.write_bytes(gzip.compress(idx(array, code), mtime=0) if pack else idx(array, code))
    read = datasets.read_idx(path)
    assert read.dtype == np.dtype(TYPES[code]).newbyteorder("=")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)
    read[...] = 0  # it is the caller's own


GOOD = idx(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"has 0 bytes: too few for an IDX header"),
        (GOOD[:3], r"has 3 bytes: too few"),
        (GOOD[:9], r"has 9 bytes: too few for an IDX header of 2 dimensions"),
        (b"PK\x03\x04" + GOOD, r"begins with the bytes 50 4b 03 04, not with 00 00"),
        (b"\0\0\x0a\x01" + GOOD[4:], r"unknown IDX element type 0x0a"),
        (GOOD[:-1], r"truncated: 5 bytes of data for shape \(2, 3\), which takes 6"),
        (GOOD + b"\0", r"too long: more than the 6 bytes of data that shape \(2, 3\) takes"),
        # A header that claims more than there is memory asks for none.
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"\0", r"truncated: 1 bytes of data for shape \(4294967295, "),
        (gzip.compress(GOOD, mtime=0)[:-9], r"damaged gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, r"damaged gzip file"),
        (b"\x1f\x8b nothing of the kind", r"damaged gzip file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, data, message):
    path = tmp_path / "digits"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_idx(path)
    assert str(path) in str(caught.value)


def test_no_more_is_unpacked_than_the_header_claims(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        file.write(GOOD)
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="too long"):
            datasets.read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=40))
def test_no_bytes_do_anything_else_than_load_or_raise_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    message, array = "", None
    try:
        array = datasets.read_idx(path)
    except ValueError as error:
        message = str(error)
    assert str(path) in message if array is None else len(idx(array, data[2])) == len(data)


# MNIST ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [False, True])
def test_normalize_flatten_and_one_hot(tmp_path, pack):
    folder = write_mnist(tmp_path, pack=pack)
    raw = datasets.read_idx(folder / (f"{NAMES[0]}.gz" if pack else NAMES[0]))
    (x, t), (x_test, t_test) = datasets.load_mnist(data_dir=folder)
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((6, 784), np.float32, (6,), np.int64)
    assert (x_test.shape, t_test.shape) == ((4, 784), (4,))
    np.testing.assert_array_equal(x, raw.reshape(6, 784) / np.float32(255))
    (pixels, one_hot), _ = datasets.load_mnist(normalize=False, flatten=False, one_hot_label=True, data_dir=folder)
    assert (pixels.shape, pixels.dtype) == ((6, 1, 28, 28), np.uint8)
    np.testing.assert_array_equal(pixels.reshape(6, 28, 28), raw)
    assert (one_hot.shape, one_hot.dtype) == ((6, 10), np.float32)
    np.testing.assert_array_equal(one_hot, np.eye(10)[t])


def test_the_notes_formula_of_the_cross_entropy(mnist_folder):
    """-t would wrap round in an unsigned type."""
    (_, t), _ = datasets.load_mnist(one_hot_label=True, data_dir=mnist_folder)
    guess = np.full((6, 10), 0.1)
    assert np.sum(-t * np.log(guess + 1e-7)) / 6 == pytest.approx(np.log(10), abs=1e-5)
    (_, labels), _ = datasets.load_mnist(data_dir=mnist_folder)
    assert (-labels).tolist() == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (("/nowhere",), "load_mnist(data_dir='/nowhere')"),
        ((Path("nowhere"),), "load_mnist(data_dir='nowhere')"),
        ((True,), "load_mnist(normalize=True)"),
        ((False, True, True, "/nowhere"), "load_mnist(normalize=False, flatten=True, one_hot_label=True, data_dir="),
    ],
)
def test_arguments_without_their_names(values, meant, monkeypatch):
    monkeypatch.setattr(datasets.mnist, "find_mnist", lambda data_dir: pytest.fail("looks for files"))
    with pytest.raises(TypeError, match=re.escape(f"load_mnist takes keywords alone: write {meant}")):
        datasets.load_mnist(*values)


@pytest.mark.parametrize("name", ["normalize", "flatten", "one_hot_label"])
@pytest.mark.parametrize("value", ["/nowhere", Path("nowhere"), 1, None])
def test_flags_are_true_or_false(name, value, mnist_folder):
    with pytest.raises(TypeError, match=f"{name} must be True or False, not {type(value).__name__} .*") as caught:
        datasets.load_mnist(**{name: value}, data_dir=mnist_folder)
    assert repr(value) in str(caught.value)


def test_the_other_spelling_of_the_names(mnist_folder):
    for path in list(mnist_folder.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert datasets.find_mnist(mnist_folder) == mnist_folder
    assert len(datasets.load_mnist(data_dir=mnist_folder)[0][0]) == 6


def test_where_it_looks(no_data, tmp_path, monkeypatch):
    assert datasets.find_mnist() is None
    no_data.mkdir(parents=True)
    write_mnist(no_data, train=1)
    assert datasets.find_mnist() == no_data
    for name, train in (("named", 2), ("given", 3)):
        (tmp_path / name).mkdir()
        write_mnist(tmp_path / name, train=train)
    monkeypatch.setenv("FASTNET_DATA_DIR", str(tmp_path / "named"))
    assert datasets.find_mnist() == tmp_path / "named"
    assert len(datasets.load_mnist()[0][0]) == 2
    assert len(datasets.load_mnist(data_dir=tmp_path / "given")[0][0]) == 3


@pytest.fixture(params=["data_dir", "FASTNET_DATA_DIR"])
def name_folder(request, no_data, monkeypatch):
    """Names a folder by the argument or the variable; the cache has MNIST, and a download would fail the test."""
    monkeypatch.setattr(datasets.mnist, "_download", lambda folder: pytest.fail("downloads"))
    no_data.mkdir(parents=True)
    write_mnist(no_data)

    def name(folder):
        if request.param == "data_dir":
            return {"data_dir": folder}
        monkeypatch.setenv("FASTNET_DATA_DIR", str(folder))
        return {}

    name.by = request.param
    return name


@pytest.mark.parametrize("function", [datasets.load_mnist, datasets.find_mnist])
@pytest.mark.parametrize("lacking", [NAMES[3:], NAMES[:2], NAMES])
def test_a_named_folder_that_lacks_files_is_refused(name_folder, mnist_folder, function, lacking):
    for name in lacking:
        (mnist_folder / f"{name}.gz").unlink()
    what = "are no MNIST files" if lacking == NAMES else "is only a part of MNIST"
    with pytest.raises(FileNotFoundError) as caught:
        function(**name_folder(mnist_folder))
    names = f"it has no {', '.join(lacking)} (each plain or .gz)"
    assert str(caught.value) == f"{name_folder.by}: there {what} in {str(mnist_folder)!r}: {names}"


def test_a_named_folder_that_does_not_exist_is_refused(name_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^{name_folder.by}: there is no folder '.*nowhere'$"):
        datasets.load_mnist(**name_folder(tmp_path / "nowhere"))


@pytest.mark.parametrize("pack", [False, True])
def test_the_folders_of_torchvision(name_folder, tmp_path, pack):
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_mnist(raw, train=3, pack=pack)
    named = name_folder(tmp_path / "root")
    assert datasets.find_mnist(**named) == raw
    assert len(datasets.load_mnist(**named)[0][0]) == 3
    next(raw.glob(f"{NAMES[2]}*")).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load_mnist(**named)
    assert f"in {str(raw)!r}: it has no {NAMES[2]} (each" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "code", "message"),
    [
        (NAMES[0], np.arange(6), 0x08, r"contains uint8 of shape \(6,\): MNIST's images are"),
        (NAMES[0], np.zeros((6, 27, 28)), 0x08, r"contains uint8 of shape \(6, 27, 28\)"),
        (NAMES[0], np.zeros((6, 28, 28)), 0x0D, r"contains float32 of shape \(6, 28, 28\)"),
        (NAMES[1], np.zeros((6, 28, 28)), 0x08, r"MNIST's labels are uint8 \(n,\)"),
        (NAMES[1], np.arange(5), 0x08, r"has 5 labels for the 6 images of"),
        (NAMES[1], [0, 1, 2, 17, 4, 5], 0x08, r"has the label 17 at 3: MNIST's labels are 0 to 9"),
    ],
)
def test_files_that_hold_something_else(mnist_folder, name, array, code, message):
    (mnist_folder / f"{name}.gz").write_bytes(gzip.compress(idx(array, code), mtime=0))
    with pytest.raises(ValueError, match=message):
        datasets.load_mnist(data_dir=mnist_folder)


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "{here}/fastnet"),
        ("linux", None, "{home}/.cache/fastnet"),
        ("darwin", None, "{home}/Library/Caches/fastnet"),
        ("win32", "LOCALAPPDATA", "{here}/fastnet"),
    ],
)
def test_the_cache_folder(monkeypatch, tmp_path, platform, variable, expected):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert datasets.cache_dir() == Path(expected.format(here=tmp_path, home=Path.home()))


# Downloads ------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch, no_data):
    """Mirrors that are folders: the first has nothing, the second has all four files, and pooch copies from them."""
    pytest.importorskip("pooch", reason="pooch, which downloads, is not installed")
    good = tmp_path / "mirror"
    good.mkdir()
    write_mnist(good)
    sums = {name: hashlib.md5((good / f"{name}.gz").read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(datasets.mnist, "_FILES", sums)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(datasets.mnist, "_MIRRORS", (f"file://{empty}/", f"file://{good}/"))

    import pooch

    def fetch(url, output_file, pooch):
        output = Path(output_file)
        output.write_bytes(Path(url.removeprefix("file://")).read_bytes())

    retrieve = pooch.retrieve
    monkeypatch.setattr(pooch, "retrieve", lambda url, **options: retrieve(url, downloader=fetch, **options))
    pooch.get_logger().setLevel("WARNING")
    return good


def test_the_next_mirror_is_tried_and_the_cache_used_from_then_on(served, no_data):
    (x, _), _ = datasets.load_mnist()
    assert len(x) == 6
    assert sorted(p.name for p in no_data.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    for path in served.iterdir():
        path.unlink()
    np.testing.assert_array_equal(datasets.load_mnist()[0][0], x)


def test_wrong_content_is_refused_and_leaves_nothing(served, no_data):
    (served / f"{NAMES[2]}.gz").write_bytes(b"something else")
    with pytest.raises(OSError, match=rf"{NAMES[2]}\.gz could not be downloaded to .*(?s:.*)hash"):
        datasets.load_mnist()
    assert not (no_data / f"{NAMES[2]}.gz").exists()
    assert datasets.find_mnist() is None


def test_without_pooch_the_error_says_what_to_do(no_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"fastnet\[download\].*FASTNET_DATA_DIR"):
        datasets.load_mnist()


def test_ctrl_c_during_a_download_is_not_taken_for_a_bad_mirror(no_data, monkeypatch):
    def retrieve(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    with pytest.raises(KeyboardInterrupt):
        datasets.load_mnist()


# The real files -------------------------------------------------------------------------------------------

MD5_OF_CONTENT = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.mark.mnist
def test_mnist_itself(mnist_test_set):
    folder = Path(os.environ["FASTNET_DATA_DIR"])
    for name, md5 in MD5_OF_CONTENT.items():
        packed = folder / f"{name}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5
    (x, t), (x_test, t_test) = datasets.load_mnist()
    assert (x.shape, x_test.shape, t.shape, t_test.shape) == ((60000, 784), (10000, 784), (60000,), (10000,))
    assert (x.min(), x.max()) == (0, 1)
    assert 0.80 < np.mean(x == 0) < 0.82
    assert t[:5].tolist() == [5, 0, 4, 1, 9]
    np.testing.assert_allclose(x_test, mnist_test_set[0], rtol=1e-7)
    np.testing.assert_array_equal(t_test, mnist_test_set[1])


# Drawn digits ---------------------------------------------------------------------------------------------


def test_drawn_digits_keep_their_promises():
    x, t = datasets.make_digits(1003, seed=3)
    assert (x.shape, x.dtype, t.shape, t.dtype) == ((1003, 784), np.float32, (1003,), np.int64)
    assert np.bincount(t).tolist() == [101] * 3 + [100] * 7
    assert x.min() == 0
    assert 0.9 < x.max() <= 1
    np.testing.assert_array_equal(x, np.round(x * 255) / np.float32(255))
    assert 0.76 < np.mean(x == 0) < 0.86
    assert 30 < np.mean([len(np.unique(image)) for image in x]) < 120  # MNIST: 67
    assert (x.sum(axis=1) > 10).all()  # none is empty


def test_drawn_digits_depend_on_number_and_seed_alone():
    x, t = datasets.make_digits(300, seed=1)
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter
    again, _ = datasets.make_digits(300, seed=1)
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x, datasets.make_digits(300, seed=2)[0])
    assert not np.array_equal(datasets.make_digits(50, seed=None)[0], datasets.make_digits(50, seed=None)[0])
    assert datasets.make_digits(1)[0].shape == (1, 784)
    assert not np.array_equal(t, np.sort(t))


def test_drawn_digits_can_be_learnt_but_are_not_trivial():
    x, t = datasets.make_digits(3000, seed=0)
    net = fastnet.TwoLayerNet(784, 50, 10, dtype="float32", seed=0)
    rng = np.random.default_rng(0)
    for _ in range(1500):
        rows = rng.integers(0, 2500, 100)
        for name, gradient in net.gradient(x[rows], t[rows]).items():
            net.params[name] -= np.float32(0.5) * gradient
    assert net.accuracy(x[2500:], t[2500:]) > 0.9
    means = np.stack([x[:2500][t[:2500] == digit].mean(axis=0) for digit in range(10)])
    nearest = ((x[2500:, np.newaxis] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == t[2500:]) < 0.95  # the nearest mean is not enough


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n must be at least 1, not 0"),
        (-3, ValueError, "n must be at least 1, not -3"),
        (2.0, TypeError, "n must be an integer, not float"),
        (True, TypeError, "n must be an integer, not bool"),
        ("10", TypeError, "n must be an integer, not str"),
    ],
)
def test_how_many_digits_is_checked(n, error, message):
    with pytest.raises(error, match=message):
        datasets.make_digits(n)
