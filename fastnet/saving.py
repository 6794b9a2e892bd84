"""Files of named arrays: written completely or not at all, and read without executing their contents."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_fits", "load_arrays", "save_arrays", "write_file"]

Array = npt.NDArray[Any]

_ABOUT = "about"  # The one entry that is not an array of the caller's.
_FORMAT, _VERSION = "fastnet", 1


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write arrays to a file; a crash or a full disk leaves the old file unchanged.

    The file is an uncompressed ``.npz``, which `numpy.load` reads too. It is written under another name in the same
    folder, flushed to the disk, and then renamed in one step: a reader of `path` finds the complete old file or the
    complete new one. After an exception no other file is left. A process that a signal ends, such as SIGKILL or, where
    the program does not handle it, SIGTERM, can leave a ``.fastnet-….tmp``: no code of Python runs then.

    Parameters
    ----------
    path : path-like
        The file's exact name; no suffix is added. An existing file is replaced and its permissions are kept (its owner
        and other hard links to it are not); a new file gets the default permissions. If `path` is a symbolic link, the
        link stays and the file it points to is replaced.
    arrays : dict of str to ndarray
        Arrays of real numbers, of any shape. A name may contain slashes but no backslashes, and must not be empty or
        ``"about"``.
    about : dict
        Other data to store, as JSON: strings as keys; numbers, strings, None, lists and dicts as values.

    Raises
    ------
    TypeError
        If an argument or an entry is of the wrong type.
    ValueError
        If a name can't be used, or `about` contains itself.
    OSError
        If the file can't be written, for example because it is read-only, or `path` is a folder or a device. The
        exception names `path`.
    MemoryError
        If there is no room for the file's bytes, about twice those of `arrays`.
    """
    named = _as_path(path)
    write_file(named, _pack(arrays, about))


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes to a file, complete or not at all, as `save_arrays` describes.

    Parameters
    ----------
    path : path-like
        The file's exact name.
    data : bytes

    Raises
    ------
    TypeError
        If `path` is not path-like.
    OSError
        If the file can't be written; the exception names `path`.
    """
    named = _as_path(path)
    try:
        _replace(os.path.realpath(named), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, named) from error  # not the name of the temporary file


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file that `save_arrays` wrote.

    Nothing in the file is executed, and its checksums and sizes are verified before an array is created.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    arrays : dict of str to ndarray
        The arrays, each in its own memory.
    about : dict

    Raises
    ------
    TypeError
        If `path` is not path-like.
    ValueError
        If the file is truncated or damaged, or was not written by `save_arrays`. The exception names `path`.
    OSError
        If it can't be read: FileNotFoundError if there is none.
    """
    named = _as_path(path)
    with open(named, "rb") as file:
        data = file.read()
    try:
        return _unpack(data)
    except MemoryError:
        raise
    except Exception as error:  # Whatever the readers of zip, npy and JSON raise for invalid data.
        raise ValueError(f"{named} is not a fastnet file, or it is damaged: {error}") from error


def check_fits(found: Mapping[str, Array], expected: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
    """Raise unless the arrays of a file can replace other arrays exactly.

    Parameters
    ----------
    found : dict of str to ndarray
        The arrays in the file.
    expected : dict of str to ndarray
        The arrays to be replaced. `found` must have the same names and shapes, and dtypes that convert to these without
        rounding: float32 to float64 is exact, float64 to float32 is not.
    path : path-like
        The file that the message names.

    Raises
    ------
    ValueError
        If they do not match; the message lists every name that is missing, unexpected or different.
    """
    wrong = [f"{name!r} is missing" for name in expected if name not in found]
    wrong += [f"{name!r} is unexpected" for name in found if name not in expected]
    for name in (name for name in expected if name in found):
        have, want = found[name], expected[name]
        if have.shape != want.shape:
            wrong.append(f"{name!r} has shape {have.shape}, not {want.shape}")
        if have.dtype.kind != want.dtype.kind or not np.can_cast(have.dtype, want.dtype, "safe"):
            wrong.append(f"{name!r} is {have.dtype}, which {want.dtype} can't hold exactly")
    if wrong:
        raise ValueError(f"{os.fspath(path)} does not fit: {'; '.join(wrong)}")


def _as_path(path: object) -> str:
    named = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(named, str):
        raise TypeError(f"path must be a str or os.PathLike, not {type(path).__name__}")
    return named


def _is_storable(name: str) -> bool:
    """Whether a zip file can hold the name: it is cut off at a NUL, backslashes may become slashes, and it is UTF-8."""
    if name in ("", _ABOUT) or "\0" in name or "\\" in name:
        return False
    try:
        return len(name.encode()) < 65_000  # Zip files allow 65,535 bytes.
    except UnicodeEncodeError:  # The name has half of a surrogate pair.
        return False


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8


# Bytes ----------------------------------------------------------------------------------------------------


def _pack(arrays: Mapping[str, Array], about: Mapping[str, Any]) -> bytes:
    for argument, value in (("arrays", arrays), ("about", about)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{argument} must be a dict, not {type(value).__name__}")
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{argument} must have strings as names, not {name!r}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"arrays[{name!r}] must be a NumPy array, not {type(array).__name__}")
        if not _is_real(array.dtype):
            raise TypeError(f"arrays[{name!r}] must contain real numbers of at most 64 bits, not {array.dtype}")
        if not _is_storable(name):
            raise ValueError(f"arrays can't have the name {name!r}")
    try:
        text = json.dumps({"format": _FORMAT, "version": _VERSION, "names": list(arrays), "about": dict(about)})
    except (TypeError, ValueError) as error:
        raise type(error)(f"about can't be written as JSON: {error}") from error
    try:
        return _zip({_ABOUT: np.array(text), **arrays})
    except ValueError as error:  # A BytesIO for which memory runs out is closed, and ZipFile fails to write its end.
        if _is_of_memory(error):
            raise MemoryError("not enough memory for the file's bytes") from None
        raise


def _is_of_memory(error: BaseException) -> bool:
    cause = error.__context__
    return cause is not None and (isinstance(cause, MemoryError) or _is_of_memory(cause))


def _zip(arrays: Mapping[str, Array]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())  # ZipInfo's date is constant.
    return packed.getvalue()


def _unpack(data: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    if data[:4] != b"PK\x03\x04":
        raise ValueError(
            f"it begins with the bytes {data[:4].hex(' ')}, not with 50 4b 03 04" if data else "it is empty"
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if f"{_ABOUT}.npy" not in entries:
            raise ValueError(f"it has no entry {_ABOUT!r}")
        # Entries are uncompressed, and together no larger than the file, so reading them can't exhaust the memory.
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("it has compressed entries")
        if sum(info.file_size for info in entries.values()) > len(data):
            raise ValueError("its entries overlap")
        # ZipFile.read() reads to the end of an entry and verifies its checksum.
        text = _read_array(archive.read(entries.pop(f"{_ABOUT}.npy")), text=True)
        header = json.loads(str(text))
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise ValueError(f"its entry {_ABOUT!r} is of another format")
        if header.get("version") != _VERSION:
            raise ValueError(f"it has version {header.get('version')} of the format, but this fastnet reads {_VERSION}")
        # The zip file's checksums do not cover the names, so they are compared with this list.
        names = header["names"]
        if sorted(entries) != sorted(f"{name}.npy" for name in names):
            raise ValueError(f"it has the entries {sorted(entries)} for the names {sorted(names)}")
        return {name: _read_array(archive.read(f"{name}.npy")) for name in names}, dict(header["about"])


def _read_array(data: bytes, text: bool = False) -> Array:
    """The array of a .npy file: real numbers, or text. NumPy's own reader would trust any shape."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"it has an array in version {version} of the .npy format")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if not (dtype.kind == "U" if text else _is_real(dtype)):
        raise ValueError(f"it has an array of dtype {dtype}")
    size = len(data) - file.tell()
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it has {size} bytes for an array of {dtype} of shape {shape}")
    array: Array = np.ndarray(shape, dtype, data, offset=file.tell(), order="F" if fortran_order else "C")
    return array.copy(order="A")


# The file -------------------------------------------------------------------------------------------------


def _replace(target: str, data: bytes) -> None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None:
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, f"{os.strerror(number)} (only a regular file can be replaced)")
        if not os.access(target, os.W_OK):  # A rename ignores this permission.
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = os.path.join(os.path.dirname(target), f".fastnet-{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:  # KeyboardInterrupt, too.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
