"""Damaged files, and files that were made by something else, are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.saving import load_arrays
from saved_files import assert_same

# Damaged files --------------------------------------------------------------------------------------------


def load_or_refuse(path, data):
    """What `load_arrays` gives for these bytes, or None for a ValueError that names the file."""
    path.unlink(missing_ok=True)  # some file systems wait for the disk where a file is emptied and written again
    path.write_bytes(data)
    try:
        return load_arrays(path)
    except ValueError as error:
        if not str(error).startswith(f"{path} is not a fastnet file, or it is damaged: "):
            raise
        return None


def test_truncated_anywhere(tmp_path, good_bytes):
    for length in range(len(good_bytes)):
        assert load_or_refuse(tmp_path / "cut", good_bytes[:length]) is None


@given(data=st.data())
def test_pieces_are_missing(tmp_path, good_bytes, data):
    first = data.draw(st.integers(0, len(good_bytes) - 1))
    last = data.draw(st.integers(first + 1, len(good_bytes)))
    assert load_or_refuse(tmp_path / "cut", good_bytes[:first] + good_bytes[last:]) is None


@pytest.mark.parametrize("flips", [(0xFF,), (0x01, 0x08, 0x40), (0x80, 0x02, 0x10), (0x20, 0x04, 0x80)])
def test_one_byte_is_wrong(tmp_path, good_bytes, flips):
    """Anywhere in the file, bits in turn: the same data, or a refusal; never other data, nor another exception."""
    refused = 0
    for i, byte in enumerate(good_bytes):
        flipped = bytes([byte ^ flips[i % len(flips)]])
        loaded = load_or_refuse(tmp_path / "flipped", good_bytes[:i] + flipped + good_bytes[i + 1 :])
        if loaded is None:
            refused += 1
        else:
            assert_same(loaded)
    assert refused > 0.8 * len(good_bytes)  # dates and attributes of the zip's entries mean nothing here


@given(data=st.data())
def test_many_bytes_are_wrong(tmp_path, good_bytes, data):
    changed = bytearray(good_bytes)
    for i in data.draw(st.lists(st.integers(0, len(good_bytes) - 1), min_size=1, max_size=8)):
        changed[i] = data.draw(st.integers(0, 255))
    loaded = load_or_refuse(tmp_path / "flipped", bytes(changed))
    if loaded is not None:
        assert_same(loaded)


@given(st.binary(max_size=300))
def test_any_bytes(tmp_path, noise):
    assert load_or_refuse(tmp_path / "noise", noise) is None
    assert load_or_refuse(tmp_path / "noise", b"PK\x03\x04" + noise) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"W1 = 3\n", "it begins with the bytes 57 31 20 3d, not with 50 4b 03 04"),
        (b"PK", "it begins with the bytes 50 4b, not with 50 4b 03 04"),
        # a zip file without entries
        (b"PK\x05\x06" + bytes(18), "it begins with the bytes 50 4b 05 06, not with 50 4b 03 04"),
    ],
)
def test_other_files(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not a fastnet file") as caught:
        load_arrays(str(path))
    assert str(caught.value) == f"{path} is not a fastnet file, or it is damaged: {message}"


# Files that were made by something else -------------------------------------------------------------------


def npy(array, **settings):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **settings)
    return file.getvalue()


def npy_header(shape, descr="'<f8'", data=b""):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def about_of(names, **changes):
    return npy(json.dumps({"format": "fastnet", "version": 1, "names": names, "about": {}} | changes))


def write_zip(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


ONES = npy(np.ones(3))
GIB = 2**30


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"W.npy": ONES}, "it has no entry 'about'"),
        ({"about": b"{}"}, "it has no entry 'about'"),
        ({"about.npy": b"{}"}, "reading magic string"),
        ({"about.npy": ONES}, "it has an array of dtype float64"),
        ({"about.npy": npy("hello")}, "Expecting value"),
        ({"about.npy": npy("[]")}, "its entry 'about' is of another format"),
        ({"about.npy": npy("{}")}, "its entry 'about' is of another format"),
        ({"about.npy": npy("[" * 100_000)}, ""),
        ({"about.npy": about_of([], version=2)}, "it has version 2 of the format, but this fastnet reads 1"),
        ({"about.npy": about_of(["a"])}, "it has the entries [] for the names ['a']"),
        ({"about.npy": about_of([]), "a.npy": ONES}, "it has the entries ['a.npy'] for the names []"),
        ({"about.npy": about_of([1]), "a.npy": ONES}, "it has the entries ['a.npy'] for the names [1]"),
        ({"about.npy": about_of(None)}, ""),
        ({"about.npy": about_of([], about=3)}, ""),
        ({"about.npy": about_of(["a"]), "a": ONES}, "it has the entries ['a'] for the names ['a']"),
        ({"about.npy": about_of(["a"]), "a.npy": b"text"}, "reading magic string"),
        ({"about.npy": about_of(["a"]), "a.npy": ONES[:-1]}, "it has 23 bytes for an array of float64 of shape (3,)"),
        (
            {"about.npy": about_of(["a"]), "a.npy": ONES + b"\0"},
            "it has 25 bytes for an array of float64 of shape (3,)",
        ),
        ({"about.npy": about_of(["a"]), "a.npy": npy("x")}, "it has an array of dtype <U1"),
        ({"about.npy": about_of(["a"]), "a.npy": npy(1j)}, "it has an array of dtype complex128"),
        ({"about.npy": about_of(["a"]), "a.npy": npy(np.ones(2), version=(2, 0))}, "version (2, 0) of the .npy format"),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((10**15,))}, "it has 0 bytes for an array of float64 of "),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((10**30, 10**30))}, "it has 0 bytes for an array of "),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((0, 10**30))}, ""),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((-1, -1), data=bytes(8))}, ""),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((1,) * 70, data=bytes(8))}, ""),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header("f()")}, ""),
        ({"about.npy": about_of(["a"]), "a.npy": npy_header((1,), "'<f16'", bytes(16))}, ""),
    ],
)
def test_foreign_files(tmp_path, entries, message):
    path = tmp_path / "foreign.npz"
    write_zip(path, entries)
    with pytest.raises(ValueError, match=r"foreign\.npz is not a fastnet file") as caught:
        load_arrays(path)
    assert message in str(caught.value)


def test_numpys_own_files(tmp_path):
    path = tmp_path / "numpy.npz"
    np.savez(path, W1=np.ones(3))
    with pytest.raises(ValueError, match=r"numpy\.npz is not .* it has no entry 'about'"):
        load_arrays(path)
    np.savez_compressed(path, about=np.array("{}"), W1=np.ones(3))
    with pytest.raises(ValueError, match="it has compressed entries"):
        load_arrays(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match="it begins with the bytes 93 4e 55 4d"):
        load_arrays(tmp_path / "one.npy")


class Bomb:
    """Runs when it is unpickled."""

    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.exploded  # it works
    Bomb.exploded = False
    path = tmp_path / "bomb.npz"
    array = np.array([Bomb()], dtype=object)
    for entries in (
        {"about.npy": about_of(["a"]), "a.npy": npy(array)},
        {"about.npy": npy(array)},
        {"about.npy": about_of(["a"]), "a.npy": pickle.dumps(Bomb())},
        {"about.npy": pickle.dumps(Bomb())},
    ):
        write_zip(path, entries)
        with pytest.raises(ValueError, match=r"bomb\.npz is not a fastnet file"):
            load_arrays(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"bomb\.npz is not a fastnet file"):
        load_arrays(path)
    assert not Bomb.exploded


def test_zip_bombs(tmp_path):
    zeros = npy_header((2**20,), "'|u1'", bytes(2**20))
    entries = {"about.npy": about_of(["a"]), "a.npy": zeros}
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write_zip(tmp_path / "bomb", entries, compression)
        assert (tmp_path / "bomb").stat().st_size < 10_000
        with pytest.raises(ValueError, match="it has compressed entries"):
            load_arrays(tmp_path / "bomb")
    names = [f"a{i}" for i in range(50)]  # 50 names for one entry's bytes
    write_zip(
        tmp_path / "bomb", {"about.npy": about_of(names), **dict.fromkeys([f"{name}.npy" for name in names], b"")}
    )
    with zipfile.ZipFile(tmp_path / "bomb", "a") as archive:
        archive.writestr("a.npy", zeros)
        for info in archive.infolist()[1:]:
            info.header_offset, info.file_size = archive.getinfo("a.npy").header_offset, len(zeros)
        archive._didModify = True
    with pytest.raises(ValueError, match="its entries overlap"):
        load_arrays(tmp_path / "bomb")


def test_an_encrypted_entry(tmp_path, good_bytes):
    """One flag in the directory, at an entry's bytes 8 and 9."""
    start = good_bytes.index(b"PK\x01\x02")
    changed = bytearray(good_bytes)
    changed[start + 8] |= 1
    assert load_or_refuse(tmp_path / "locked", bytes(changed)) is None
