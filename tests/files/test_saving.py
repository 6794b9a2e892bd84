"""Files of arrays: what comes back, paths, arguments, and what fits."""

from __future__ import annotations

import io
import json
import os
import pathlib
import stat
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet import saving
from fastnet.saving import check_fits, load_arrays, save_arrays
from saved_files import ABOUT, ARRAYS, POSIX, assert_same, posix_only

# What comes back ------------------------------------------------------------------------------------------


def test_round_trip(file):
    assert_same(load_arrays(file))
    assert os.listdir(file.parent) == ["model.npz"]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 0, 3), (2, 3, 4), (1,) * 8])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", ">f8", "i1", "i4", "i8", ">i2", "u1", "u8", "?"])
def test_every_dtype_and_shape(tmp_path, kind, shape):
    bits = np.random.default_rng(0).integers(0, 256, (*shape, np.dtype(kind).itemsize), dtype=np.uint8)
    array = (bits % 2 if kind == "?" else bits).view(kind).reshape(shape)
    save_arrays(tmp_path / "a", {"a": array}, {})
    assert_same(load_arrays(tmp_path / "a"), {"a": array}, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, np.nextafter(0, 1)])
def test_special_values(tmp_path, value):
    save_arrays(tmp_path / "a", {"a": np.array([value])}, {"a": value})
    found, about = load_arrays(tmp_path / "a")
    assert found["a"].tobytes() == np.array([value]).tobytes()
    assert np.array(about["a"]).tobytes() == np.array(value).tobytes()


def test_layouts(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    arrays = {
        "transposed": base.T,
        "strided": base[::2, ::-3],
        "row": base[1],
        "broadcast": np.broadcast_to(1.0, (2, 3)),
    }
    save_arrays(tmp_path / "a", arrays, {})
    found, _ = load_arrays(tmp_path / "a")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        found[name][...] = 0  # memory of their own, which can be written
    assert base[1, 1] == 7


@pytest.mark.parametrize(
    "name", ["a/b", "/a", "../a", "a/", "a.npy", "about.npy", "About", " ", "a b", "é", "日本語", "😀", "x" * 60_000]
)
def test_names(tmp_path, name):
    arrays = {name: np.ones(2), "b": np.zeros(1)}
    save_arrays(tmp_path / "a", arrays, {})
    assert_same(load_arrays(tmp_path / "a"), arrays, {})
    assert os.listdir(tmp_path) == ["a"]


@given(
    names=st.lists(st.text(min_size=1, max_size=20).filter(saving._is_storable), unique=True, max_size=5),
    about=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda values: st.lists(values) | st.dictionaries(st.text(), values),
            max_leaves=8,
        ),
        max_size=4,
    ),
)
def test_any_names_and_about(tmp_path, names, about):
    arrays = {name: np.full(i, float(i)) for i, name in enumerate(names)}
    save_arrays(tmp_path / "any", arrays, about)
    assert_same(load_arrays(tmp_path / "any"), arrays, about)


def test_nothing_at_all(tmp_path):
    save_arrays(tmp_path / "a", {}, {})
    assert load_arrays(tmp_path / "a") == ({}, {})


def test_numpy_reads_it_too(file):
    with np.load(file) as loaded:
        assert sorted(loaded.files) == sorted([*ARRAYS, "about"])
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)
        assert json.loads(str(loaded["about"]))["about"] == ABOUT


def test_the_same_content_is_the_same_file(tmp_path, file, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # whenever it is written
    save_arrays(tmp_path / "other", ARRAYS, ABOUT)
    assert (tmp_path / "other").read_bytes() == file.read_bytes()


# Paths ----------------------------------------------------------------------------------------------------


class PathLike:
    def __init__(self, path):
        self._path = path

    def __fspath__(self):
        return self._path


@pytest.mark.parametrize("make", [str, pathlib.Path, lambda path: PathLike(str(path))], ids=["str", "Path", "PathLike"])
@pytest.mark.parametrize("name", ["model", "model.npz", "model.params", "模型"])
def test_the_file_is_named_exactly_so(tmp_path, make, name):
    save_arrays(make(tmp_path / name), ARRAYS, ABOUT)
    assert os.listdir(tmp_path) == [name]
    assert_same(load_arrays(make(tmp_path / name)))


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_arrays("model", ARRAYS, ABOUT)
    assert_same(load_arrays(tmp_path / "model"))


def test_the_longest_name(tmp_path):
    name = "x" * os.pathconf(tmp_path, "PC_NAME_MAX") if POSIX else "x" * 200
    save_arrays(tmp_path / name, ARRAYS, ABOUT)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("path", [None, 3, b"model", 1.5, io.BytesIO(), PathLike(b"model")])
def test_no_path(path):
    for call in (lambda: save_arrays(path, ARRAYS, ABOUT), lambda: load_arrays(path)):
        with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, not "):
            call()


@posix_only
def test_permissions(tmp_path):
    path = tmp_path / "model"
    before = os.umask(0o027)
    try:
        save_arrays(path, ARRAYS, ABOUT)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640  # as of any new file
        for mode in (0o600, 0o664, 0o755):
            path.chmod(mode)
            save_arrays(path, {}, {})
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@posix_only
def test_through_links(tmp_path):
    (tmp_path / "data").mkdir()
    target, link, chain = tmp_path / "data" / "target", tmp_path / "link", tmp_path / "chain"
    link.symlink_to(target)
    chain.symlink_to("link")
    for path in (link, chain):  # the first makes the file that the link was waiting for
        save_arrays(path, {"a": np.array(len(path.name))}, {})
        assert link.is_symlink()
        assert chain.is_symlink()
        assert not target.is_symlink()
        assert load_arrays(target)[0]["a"] == len(path.name)
    assert sorted(os.listdir(tmp_path)) == ["chain", "data", "link"]
    assert os.listdir(tmp_path / "data") == ["target"]


@posix_only
def test_a_hard_link_keeps_the_old_file(file, good_bytes):
    os.link(file, file.with_name("other"))
    save_arrays(file, {}, {})
    assert file.with_name("other").read_bytes() == good_bytes


# Arguments ------------------------------------------------------------------------------------------------


T, V = TypeError, ValueError
CIRCULAR: dict[str, object] = {}
CIRCULAR["self"] = CIRCULAR


@pytest.mark.parametrize(
    ("arrays", "about", "error", "message"),
    [
        ([np.ones(2)], {}, T, "arrays must be a dict, not list"),
        ({}, None, T, "about must be a dict, not NoneType"),
        ({1: np.ones(2)}, {}, T, "arrays must have strings as names, not 1"),
        ({}, {1: 2}, T, "about must have strings as names, not 1"),
        ({"a": [1.0]}, {}, T, "arrays['a'] must be a NumPy array, not list"),
        ({"a": 1.0}, {}, T, "arrays['a'] must be a NumPy array, not float"),
        ({"a": np.float64(1)}, {}, T, "arrays['a'] must be a NumPy array, not float64"),
        ({"a": np.array([None])}, {}, T, "arrays['a'] must contain real numbers of at most 64 bits, not object"),
        ({"a": np.array(["x"])}, {}, T, "arrays['a'] must contain real numbers of at most 64 bits, not <U1"),
        ({"a": np.ones(1, complex)}, {}, T, "arrays['a'] must contain real numbers of at most 64 bits, not complex128"),
        ({"a": np.zeros(1, "f4,i4")}, {}, T, "arrays['a'] must contain real numbers of at most 64 bits, not [("),
        ({"a": np.zeros(1, "M8[s]")}, {}, T, "arrays['a'] must contain real numbers of at most 64 bits, not datetime"),
        *(
            ({name: np.ones(1)}, {}, V, f"arrays can't have the name {name!r}")
            for name in ("", "about", "a\0b", "a\\b")
        ),
        ({"\ud800": np.ones(1)}, {}, V, "arrays can't have the name '\\ud800'"),
        ({"é" * 40_000: np.ones(1)}, {}, V, "arrays can't have the name 'ééé"),
        ({}, {"a": np.ones(1)}, T, "about can't be written as JSON: Object of type ndarray"),
        ({}, {"a": {1, 2}}, T, "about can't be written as JSON: Object of type set"),
        ({}, {"a": {(1, 2): 3}}, T, "about can't be written as JSON: keys must be"),
        ({}, CIRCULAR, V, "about can't be written as JSON: Circular reference"),
    ],
)
def test_what_can_not_be_saved(file, good_bytes, arrays, about, error, message):
    with pytest.raises(error) as caught:
        save_arrays(file, arrays, about)
    assert message in str(caught.value)
    assert file.read_bytes() == good_bytes
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="long double is float64 on this platform")
def test_no_long_double(tmp_path):
    with pytest.raises(TypeError, match=r"arrays\['a'\] must contain real numbers of at most 64 bits, not "):
        save_arrays(tmp_path / "a", {"a": np.ones(1, "g")}, {})


# Fitting --------------------------------------------------------------------------------------------------


EXPECTED = {"W1": np.ones((2, 3)), "b1": np.ones(3), "W2": np.ones((3, 1)), "seen": np.array(5)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"W1": np.ones((2, 3), "f4")}, {"b1": np.ones(3, "f2")}, {"b1": np.ones(3, ">f8")}, {"seen": np.int8(5)}],
)
def test_what_fits(changes):
    check_fits({name: np.asarray(a) for name, a in (EXPECTED | changes).items()}, EXPECTED, "file")
    check_fits(dict(reversed(EXPECTED.items())), EXPECTED, "file")
    check_fits({}, {}, "file")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"W1": None}, ["'W1' is missing"]),
        ({"W1": None, "b1": None}, ["'W1' is missing", "'b1' is missing"]),
        ({"W3": np.ones(1)}, ["'W3' is unexpected"]),
        ({"W1": np.ones((3, 2))}, ["'W1' has shape (3, 2), not (2, 3)"]),
        ({"b1": np.ones((1, 3))}, ["'b1' has shape (1, 3), not (3,)"]),
        ({"seen": np.array(5.0)}, ["'seen' is float64, which int64 can't hold exactly"]),
        ({"b1": np.ones(3, int)}, ["'b1' is int64, which float64 can't hold exactly"]),
        (
            {"W2": None, "b1": np.ones(4, int), "X": np.ones(1)},
            [
                "'W2' is missing",
                "'X' is unexpected",
                "'b1' has shape (4,), not (3,)",
                "'b1' is int64, which float64 can't ",
            ],
        ),
    ],
)
def test_what_does_not_fit(tmp_path, changes, wrong):
    found = {name: a for name, a in (EXPECTED | changes).items() if a is not None}
    for path in (str(tmp_path / "file"), tmp_path / "file"):
        with pytest.raises(ValueError, match="does not fit") as caught:
            check_fits(found, EXPECTED, path)
        assert str(caught.value).startswith(f"{tmp_path / 'file'} does not fit: {'; '.join(wrong)}")


def test_float64_does_not_fit_float32():
    with pytest.raises(ValueError, match=r"^f does not fit: 'W' is float64, which float32 can't hold exactly$"):
        check_fits({"W": np.ones(2)}, {"W": np.ones(2, "f4")}, "f")


def test_a_large_array(tmp_path):
    array = np.random.default_rng(0).standard_normal((1500, 784))
    save_arrays(tmp_path / "a", {"W": array}, {})
    assert_same(load_arrays(tmp_path / "a"), {"W": array}, {})
    assert (tmp_path / "a").stat().st_size < array.nbytes + 4096
