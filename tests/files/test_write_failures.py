"""What a failure while a file is written leaves behind."""

from __future__ import annotations

import errno
import io
import os
import pathlib
import stat
import sys
import tempfile
import zipfile

import numpy as np
import pytest

from fastnet import saving
from fastnet.saving import load_arrays, save_arrays
from saved_files import ABOUT, ARRAYS, assert_same, posix_only

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


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is measured and limited as on Linux")
def test_memory_runs_out(run_python):
    """Wherever it does: within the zip file, too, whose writer then fails for another reason."""
    found = run_python(
        """
        import json, resource
        import numpy as np
        from fastnet.saving import save_arrays
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        arrays, found = {"a": np.zeros(2**20), "b": np.zeros(2**20)}, []  # 16 MiB
        for room in range(0, 96, 2):
            resource.setrlimit(resource.RLIMIT_AS, (used + (16 + room) * 2**20, resource.RLIM_INFINITY))
            try:
                save_arrays("model", arrays, {})
                found.append("saved")
            except Exception as error:
                found.append(type(error).__name__)
        print(json.dumps(sorted(set(found))))
        """
    )
    assert found == ["MemoryError", "saved"]


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
