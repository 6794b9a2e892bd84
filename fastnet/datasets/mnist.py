"""Find, download and read the files of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.importing import import_whole

# The four files, in the order in which `load_mnist` returns them, and the MD5 of the mirrors' .gz files.
_FILES = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

Images = npt.NDArray[Any]
Labels = npt.NDArray[Any]


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an array from a file in the IDX format, compressed with gzip or not.

    The header has two zero bytes, the code of the element type, the number of dimensions, and the size of each
    dimension, big-endian; the elements follow (Y. LeCun, C. Cortes and C. Burges, *The MNIST database*).

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ndarray
        The array, in this machine's byte order.

    Raises
    ------
    ValueError
        If the file is not an IDX file, or its length does not match its header.
    OSError
        If it can't be read.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     print(fastnet.datasets.read_idx(file))
    [7 2 1]
    """
    file = Path(path)
    with file.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
            try:
                return _read_idx(cast(BinaryIO, stream), file)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{file} is a damaged gzip file: {error}") from error


def _read_idx(stream: BinaryIO, file: Path) -> npt.NDArray[Any]:
    """Read no more than the header claims, and a byte to see that it is the end: a few bytes unpack to any number."""
    start = _at_most(stream, 4)
    if len(start) < 4:
        raise ValueError(f"{file} has {len(start)} bytes: too few for an IDX header")
    if start[:2] != b"\0\0":
        raise ValueError(f"{file} is not an IDX file: it begins with the bytes {start.hex(' ')}, not with 00 00")
    if start[2] not in _IDX_TYPES:
        raise ValueError(f"{file} has the unknown IDX element type 0x{start[2]:02x}")
    dtype, ndim = np.dtype(_IDX_TYPES[start[2]]), start[3]
    sizes = _at_most(stream, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"{file} has {4 + len(sizes)} bytes: too few for an IDX header of {ndim} dimensions")
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, 4 * ndim, 4))
    expected = math.prod(shape) * dtype.itemsize
    data = _at_most(stream, expected)
    if len(data) < expected:
        raise ValueError(f"{file} is truncated: {len(data)} bytes of data for shape {shape}, which takes {expected}")
    if stream.read(1):
        raise ValueError(f"{file} is too long: more than the {expected} bytes of data that shape {shape} takes")
    return np.ndarray(shape, dtype, data).astype(dtype.newbyteorder("="))


def _at_most(stream: BinaryIO, size: int) -> bytearray:
    """Read `size` bytes, or what there is, in pieces: a header may claim more than there is memory."""
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 20))):
        data += piece
    return data


def cache_dir() -> Path:
    """The folder for downloads: ``fastnet`` in the user's cache folder.

    Examples
    --------
    >>> import fastnet
    >>> fastnet.datasets.cache_dir().is_absolute()
    True
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastnet"


def _files_in(folder: Path) -> dict[str, Path]:
    """The files of MNIST that `folder` has, by their plain names; they exist under two spellings."""
    found = {}
    for name in _FILES:
        spellings = (name, name.replace("-idx", ".idx"))
        paths = (folder / f"{spelling}{suffix}" for spelling in spellings for suffix in (".gz", ""))
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[name] = path
    return found


def locate(folder: Path, named_by: str) -> Path:
    """Return the folder of the four files: `folder` itself, or ``MNIST/raw`` in it, where torchvision puts them.

    Raises
    ------
    FileNotFoundError
        If neither has all four; the message names `folder`, what is missing, and the setting `named_by`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{named_by}: there is no folder {str(folder)!r}")
    found = {place: _files_in(place) for place in (folder, folder / "MNIST" / "raw")}
    best = max(found, key=lambda place: len(found[place]))
    missing = [name for name in _FILES if name not in found[best]]
    if missing:
        what = "are no MNIST files" if len(missing) == len(_FILES) else "is only a part of MNIST"
        names = f"{', '.join(missing)} (each plain or .gz)"
        raise FileNotFoundError(f"{named_by}: there {what} in {str(best)!r}: it has no {names}")
    return best


def find_mnist(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Find the folder from which `load_mnist` loads MNIST without a download.

    Parameters
    ----------
    data_dir : path-like, optional
        The only folder to look in; by default ``FASTNET_DATA_DIR`` if it is set, otherwise the user's cache. The files
        may also be in ``MNIST/raw`` of the folder that is named, where torchvision puts them.

    Returns
    -------
    Path or None
        The folder that holds all four files; None if no folder is named and the cache does not hold them.

    Raises
    ------
    FileNotFoundError
        If a folder is named, by `data_dir` or ``FASTNET_DATA_DIR``, and files are missing there.
    """
    if data_dir is not None:
        return locate(Path(data_dir), "data_dir")
    named = os.environ.get("FASTNET_DATA_DIR")
    if named:
        return locate(Path(named), "FASTNET_DATA_DIR")
    cache = cache_dir() / "mnist"
    return cache if len(_files_in(cache)) == len(_FILES) else None


def _download(folder: Path) -> None:
    try:
        pooch = import_whole("pooch")
    except ImportError as error:
        raise ImportError(
            "MNIST is not on this machine, and the download needs pooch: pip install 'fastnet[download]', or name the "
            "folder of the four files in data_dir or FASTNET_DATA_DIR"
        ) from error
    present = _files_in(folder)
    for name, md5 in _FILES.items():
        if name in present:
            continue
        failures = []
        for mirror in _MIRRORS:
            try:  # pooch verifies the checksum of a temporary file before renaming it.
                pooch.retrieve(f"{mirror}{name}.gz", known_hash=f"md5:{md5}", fname=f"{name}.gz", path=folder)
                break
            except Exception as error:  # Whatever the network libraries raise, the next mirror may work.
                failures.append(f"{mirror}: {error}")
        else:
            raise OSError(f"{name}.gz could not be downloaded to {folder}: " + "; ".join(failures))


def _read_split(images_path: Path, labels_path: Path) -> tuple[Images, npt.NDArray[np.int64]]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_path} contains {images.dtype} of shape {images.shape}: "
            f"MNIST's images are uint8 of shape (n, 28, 28)"
        )
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise ValueError(
            f"{labels_path} contains {labels.dtype} of shape {labels.shape}: MNIST's labels are uint8 (n,)"
        )
    if len(images) != len(labels):
        raise ValueError(f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path}")
    if len(labels) and labels.max() > 9:
        wrong = int(labels.argmax())
        raise ValueError(f"{labels_path} has the label {labels[wrong]} at {wrong}: MNIST's labels are 0 to 9")
    return images, labels.astype(np.int64)


def load_mnist(
    *positional: NoReturn,
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Load the MNIST database of handwritten digits: 60,000 training and 10,000 test images.

    All arguments are keywords.

    Parameters
    ----------
    normalize : bool, default True
        Return pixels as float32 from 0 to 1; otherwise as uint8 from 0 to 255.
    flatten : bool, default True
        Return images of shape (784,); otherwise (1, 28, 28).
    one_hot_label : bool, default False
        Return labels as one-hot rows of ten, float32; otherwise as integers, int64.
    data_dir : path-like, optional
        The folder of the four IDX files, compressed with gzip or not, or one with torchvision's ``MNIST/raw``. By
        default ``FASTNET_DATA_DIR`` if it is set, otherwise the user's cache, to which missing files are downloaded
        (this needs ``fastnet[download]``).

    Returns
    -------
    ((x_train, t_train), (x_test, t_test))
        Images of shape (n, 784) or (n, 1, 28, 28); labels of shape (n,) or (n, 10).

    Raises
    ------
    TypeError
        If an argument is given without its name, or a flag is not True or False.
    FileNotFoundError
        If a file is missing from the folder that `data_dir` or ``FASTNET_DATA_DIR`` names.
    ValueError
        If a file is damaged, or does not contain what its name says.
    ImportError, OSError
        If a download is needed and pooch is not installed, or no mirror serves the right files.
    """
    if positional:
        raise TypeError(f"load_mnist takes keywords alone: write {_with_keywords(*positional)}")
    normalize = checks.as_flag(normalize, "normalize")
    flatten = checks.as_flag(flatten, "flatten")
    one_hot_label = checks.as_flag(one_hot_label, "one_hot_label")
    folder = find_mnist(data_dir)
    if folder is None:
        folder = cache_dir() / "mnist"
        _download(folder)
    paths = list(_files_in(folder).values())
    splits = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images, t = _read_split(images_path, labels_path)
        x = images.reshape((-1, 784) if flatten else (-1, 1, 28, 28))
        labels = np.eye(10, dtype=np.float32)[t] if one_hot_label else t
        splits.append((x / np.float32(255) if normalize else x, labels))
    return splits[0], splits[1]


def _with_keywords(*values: object) -> str:
    """The call of `load_mnist` that was probably meant by positional `values`."""
    names = iter(("normalize", "flatten", "one_hot_label"))
    words = []
    for value in values:
        name = "data_dir" if isinstance(value, (str, os.PathLike)) else next(names, "data_dir")
        words.append(f"{name}={(os.fspath(value) if isinstance(value, os.PathLike) else value)!r}")
    return f"load_mnist({', '.join(words)})"
