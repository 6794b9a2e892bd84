"""Files of arrays: what comes back, what a failure leaves behind, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import pickle
import stat
import tempfile
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet import saving
from fastnet.saving import check_fits, load_arrays, save_arrays

POSIX = os.name == "posix"
posix_only = pytest.mark.skipif(not POSIX, reason="permissions and links of POSIX")

ARRAYS = {
    "W1": np.arange(12.0).reshape(3, 4) - 5.5,
    "b1": np.array([0.1, -0.0, 5e-324], "f8"),
    "optimizer/velocity/W1": np.ones((3, 4), "f4"),
    "重み/ß": np.array(7),
}
ABOUT = {"kind": "test", "epoch": 3, "loss": [0.5, 0.25], "nested": {"a": None, "ü": True}}


def assert_same(loaded, arrays=ARRAYS, about=ABOUT):
    found, said = loaded
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert type(found[name]) is np.ndarray
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert said == about


@pytest.fixture
def file(tmp_path):
    """A good file in a folder of its own."""
    path = tmp_path / "model.npz"
    save_arrays(path, ARRAYS, ABOUT)
    return path


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "model.npz"
    save_arrays(path, ARRAYS, ABOUT)
    return path.read_bytes()


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


# Failures while writing -----------------------------------------------------------------------------------

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_at(monkeypatch, where, error):
    """Make a step of writing raise; the half of the data that fits is written before the disk is full."""

    def raising(*args, **kwargs):
        raise error

    class Full(io.FileIO):
        def write(self, data):
            super().write(bytes(data)[: len(data) // 2])
            raise error

    if where == "open":
        monkeypatch.setattr(saving, "open", raising, raising=False)
    elif where == "write":
        monkeypatch.setattr(saving, "open", Full, raising=False)
    else:
        module, name = {
            "array": (np.lib.format, "write_array"),
            "zip": (zipfile.ZipFile, "writestr"),
            "zip end": (zipfile.ZipFile, "close"),
            "fsync": (os, "fsync"),
            "chmod": (os, "chmod"),
            "replace": (os, "replace"),
        }[where]
        monkeypatch.setattr(module, name, raising)


WHERE = ["array", "zip", "zip end", "open", "write", "fsync", "chmod", "replace"]


@pytest.mark.parametrize(
    "error", [FULL, KeyboardInterrupt(), MemoryError(), SystemExit()], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("where", WHERE)
def test_a_failure_leaves_the_old_file(file, good_bytes, monkeypatch, where, error):
    with monkeypatch.context() as patch:
        fail_at(patch, where, error)
        with pytest.raises(type(error)) as caught:
            save_arrays(file, {"new": np.ones(1000)}, {})
    assert file.read_bytes() == good_bytes
    assert os.listdir(file.parent) == [file.name]
    if error is FULL and where not in ("array", "zip", "zip end"):  # these are in memory
        assert str(caught.value) == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: {str(file)!r}"
    save_arrays(file, {"new": np.ones(1000)}, {})  # and the next attempt succeeds
    assert_same(load_arrays(file), {"new": np.ones(1000)}, {})


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", [where for where in WHERE if where != "chmod"])
def test_a_failure_leaves_no_new_file(tmp_path, monkeypatch, where, error):
    with monkeypatch.context() as patch:
        fail_at(patch, where, error)
        with pytest.raises(type(error)):
            save_arrays(tmp_path / "model", ARRAYS, ABOUT)
    assert os.listdir(tmp_path) == []


def test_a_failure_of_cleaning_up_hides_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "replace", FULL)
        patch.setattr(os, "unlink", lambda path: os.stat(f"{path}/nothing"))
        with pytest.raises(OSError, match="No space left on device"):
            save_arrays(tmp_path / "model", ARRAYS, ABOUT)


def test_the_data_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        calls.append(("fsync", os.fstat(descriptor).st_size))
        real_fsync(descriptor)

    def replace(source, target):
        calls.append(("replace", os.path.getsize(source)))
        assert os.path.dirname(source) == os.path.dirname(target)  # a rename within one file system
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save_arrays(tmp_path / "model", ARRAYS, ABOUT)
    size = (tmp_path / "model").stat().st_size
    assert calls == [("fsync", size), ("replace", size)]


def test_a_killed_process_leaves_the_old_file(file, good_bytes, run_python):
    """Not even ``finally`` runs in it."""
    program = f"""
        import os
        import numpy as np
        from fastnet.saving import save_arrays
        os.replace = lambda *paths: os._exit(3)
        save_arrays({str(file)!r}, {{"new": np.ones(1000)}}, {{}})
    """
    run_python(program, fails=True)
    assert file.read_bytes() == good_bytes
    left = [name for name in os.listdir(file.parent) if name != file.name]
    assert [(name[:9], name[-4:]) for name in left] == [(".fastnet-", ".tmp")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_devices_are_left_alone():
    before = os.stat("/dev/full")
    with pytest.raises(OSError, match="/dev/full") as caught:
        save_arrays("/dev/full", ARRAYS, ABOUT)
    assert caught.value.errno == errno.EINVAL
    assert (os.stat("/dev/full").st_mode, os.stat("/dev/full").st_ino) == (before.st_mode, before.st_ino)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(IsADirectoryError, match="only a regular file can be replaced") as caught:
        save_arrays(tmp_path / "model", ARRAYS, ABOUT)
    assert caught.value.filename == str(tmp_path / "model")
    assert os.listdir(tmp_path / "model") == []
    with pytest.raises(OSError, match="model"):
        load_arrays(tmp_path / "model")


def test_no_folder(tmp_path):
    path = tmp_path / "missing" / "model"
    with pytest.raises(FileNotFoundError) as caught:
        save_arrays(path, ARRAYS, ABOUT)
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as caught:
        load_arrays(path)
    assert caught.value.filename == str(path)
    (tmp_path / "missing").write_bytes(b"")
    with pytest.raises(OSError, match="missing") as caught:
        save_arrays(path, ARRAYS, ABOUT)
    assert (tmp_path / "missing").read_bytes() == b""


@posix_only
def test_a_loop_of_links(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for call in (lambda: save_arrays(tmp_path / "a", ARRAYS, ABOUT), lambda: load_arrays(tmp_path / "a")):
        with pytest.raises(OSError, match=r"a'$") as caught:
            call()
        assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.fixture
def not_superuser():
    """Someone with ordinary permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed_folder(good_bytes):
    """A folder with a good file `model`, which nobody but the superuser may write to, nor read its file `secret`."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others than the superuser
        folder = pathlib.Path(name)
        for file, mode in (("model", 0o666), ("secret", 0o200)):
            (folder / file).write_bytes(good_bytes)
            (folder / file).chmod(mode)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o700)


@posix_only
@pytest.mark.parametrize("name", ["model", "new"])
def test_a_folder_that_can_not_be_written(closed_folder, not_superuser, good_bytes, name):
    with pytest.raises(PermissionError) as caught:
        save_arrays(closed_folder / name, {}, {})
    assert caught.value.filename == str(closed_folder / name)
    assert sorted(os.listdir(closed_folder)) == ["model", "secret"]
    assert (closed_folder / "model").read_bytes() == good_bytes


@posix_only
def test_a_file_that_can_not_be_read(closed_folder, not_superuser):
    with pytest.raises(PermissionError) as caught:
        load_arrays(closed_folder / "secret")
    assert caught.value.filename == str(closed_folder / "secret")


def test_a_read_only_file_is_not_replaced(file, good_bytes, monkeypatch):
    file.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & stat.S_IWUSR))  # also for root
    with pytest.raises(PermissionError) as caught:
        save_arrays(file, {}, {})
    file.chmod(0o600)
    assert caught.value.filename == str(file)
    assert file.read_bytes() == good_bytes
    assert os.listdir(file.parent) == [file.name]


# Arguments ------------------------------------------------------------------------------------------------

T, V = TypeError, ValueError
CIRCULAR: dict[str, object] = {}
CIRCULAR["self"] = CIRCULAR


@pytest.mark.parametrize(
    ("arrays", "about", "error", "message"),
    [
        ([np.ones(2)], {}, T, "arrays must be a dict, not list"),
        ({}, None, T, "about must be a dict, not NoneType"),
        ({1: np.ones(2)}, {}, T, "arrays must have names that are strings, not 1"),
        ({}, {1: 2}, T, "about must have names that are strings, not 1"),
        ({"a": [1.0]}, {}, T, "arrays['a'] must be a NumPy array, not list"),
        ({"a": 1.0}, {}, T, "arrays['a'] must be a NumPy array, not float"),
        ({"a": np.float64(1)}, {}, T, "arrays['a'] must be a NumPy array, not float64"),
        ({"a": np.array([None])}, {}, T, "arrays['a'] must hold real numbers of at most 64 bits, not object"),
        ({"a": np.array(["x"])}, {}, T, "arrays['a'] must hold real numbers of at most 64 bits, not <U1"),
        ({"a": np.ones(1, complex)}, {}, T, "arrays['a'] must hold real numbers of at most 64 bits, not complex128"),
        ({"a": np.zeros(1, "f4,i4")}, {}, T, "arrays['a'] must hold real numbers of at most 64 bits, not [("),
        ({"a": np.zeros(1, "M8[s]")}, {}, T, "arrays['a'] must hold real numbers of at most 64 bits, not datetime64"),
        *(
            ({name: np.ones(1)}, {}, V, f"arrays can't have the name {name!r}")
            for name in ("", "about", "a\0b", "a\\b")
        ),
        ({"\ud800": np.ones(1)}, {}, V, "arrays can't have the name '\\ud800'"),
        ({"é" * 40_000: np.ones(1)}, {}, V, "arrays can't have the name 'ééé"),
        ({}, {"a": np.ones(1)}, T, "about must hold what JSON can: Object of type ndarray"),
        ({}, {"a": {1, 2}}, T, "about must hold what JSON can: Object of type set"),
        ({}, {"a": {(1, 2): 3}}, T, "about must hold what JSON can: keys must be"),
        ({}, CIRCULAR, V, "about must hold what JSON can: Circular reference"),
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
    with pytest.raises(TypeError, match=r"arrays\['a'\] must hold real numbers of at most 64 bits, not "):
        save_arrays(tmp_path / "a", {"a": np.ones(1, "g")}, {})


# Damaged files --------------------------------------------------------------------------------------------


def load_or_refuse(path, data):
    """What `load_arrays` gives for these bytes, or None for a ValueError that names the file."""
    path.write_bytes(data)
    try:
        return load_arrays(path)
    except ValueError as error:
        if not str(error).startswith(f"{path} is not a file of fastnet's, or it is damaged: "):
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


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF])
def test_one_byte_is_wrong(tmp_path, good_bytes, flip):
    """Anywhere in the file: the same data, or a refusal; never other data, nor another exception."""
    refused = 0
    for i in range(len(good_bytes)):
        loaded = load_or_refuse(
            tmp_path / "flipped", good_bytes[:i] + bytes([good_bytes[i] ^ flip]) + good_bytes[i + 1 :]
        )
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
    with pytest.raises(ValueError, match="is not a file of fastnet's") as caught:
        load_arrays(str(path))
    assert str(caught.value) == f"{path} is not a file of fastnet's, or it is damaged: {message}"


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
        ({"about.npy": npy("[]")}, "its entry 'about' is of another kind"),
        ({"about.npy": npy("{}")}, "its entry 'about' is of another kind"),
        ({"about.npy": npy("[" * 100_000)}, ""),
        ({"about.npy": about_of([], version=2)}, "it has version 2 of the format; this fastnet knows 1"),
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
    with pytest.raises(ValueError, match=r"foreign\.npz is not a file of fastnet's") as caught:
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
        with pytest.raises(ValueError, match=r"bomb\.npz is not a file of fastnet's"):
            load_arrays(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"bomb\.npz is not a file of fastnet's"):
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
