"""Pickled weights: what is read, and that nothing else is executed."""

from __future__ import annotations

import io
import os
import pickle as python
import struct
from collections import OrderedDict

import numpy as np
import pytest

import fastnet
from fastnet.book import pickle
from fastnet.book.ch05.two_layer_net import TwoLayerNet

WEIGHTS = {
    "W1": np.arange(6.0).reshape(2, 3),
    "b1": np.zeros(3, np.float32),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f8"),
    "half": np.arange(3, dtype=np.float16),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 4)),
    "number": np.array(2.5),
}


def same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype.newbyteorder("=")
        assert found.flags.writeable
        assert found.flags.owndata
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(python.HIGHEST_PROTOCOL + 1))
def test_arrays_dicts_and_lists_come_back(protocol):
    shared = np.ones(2)
    given = {**WEIGHTS, "more": [1, 2.5, "text", None, True, (np.float64(3.0), [np.zeros(1)]), shared, {"s": shared}]}
    same(pickle.loads(python.dumps(given, protocol)), given)
    same(pickle.load(io.BytesIO(python.dumps(given, protocol))), given)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_old_and_new_versions_of_numpy(module):
    data = python.dumps(WEIGHTS, 2)
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    data = data.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module)
    same(pickle.loads(data), WEIGHTS)


def test_an_array_that_occurs_twice_is_one_array():
    array = np.ones(2)
    found = pickle.loads(python.dumps([array, array]))
    assert found[0] is found[1]


def test_a_list_that_holds_itself():
    loop: list[object] = [np.ones(1)]
    loop.append((loop, np.zeros(1)))
    found = pickle.loads(python.dumps(loop))
    assert found[1][0] is found
    np.testing.assert_array_equal(found[1][1], [0.0])


class Run:
    """Its pickle calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Plain:
    pass


def write(path):
    path.write_text("executed")


HOSTILE = {
    "os.system": lambda path: Run(os.system, f"touch {path}"),
    "eval": lambda path: Run(eval, f"open({str(path)!r}, 'w')"),
    "a function": lambda path: Run(write, path),
    "inside a dict": lambda path: {"W1": np.ones(2), "b1": [Run(os.system, f"touch {path}")]},
    "a class": lambda path: Plain(),
    "an object array": lambda path: np.array([Run(os.system, f"touch {path}"), None], dtype=object),
    "an array of names": lambda path: np.array(["a", "b"]),
    "a record array": lambda path: np.zeros(2, dtype=[("a", "f8")]),
    "dates": lambda path: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "complex numbers": lambda path: np.ones(2, complex),
    "a masked array": lambda path: np.ma.masked_array([1.0], [True]),
    "a matrix": lambda path: Run(np.ndarray, (2, 2)),
    "numpy.load": lambda path: Run(np.load, str(path)),
    "an ordered dict": lambda path: OrderedDict(a=1),
    "a set": lambda path: {1, 2},
    "bytes": lambda path: [b"bytes"],
    "a bytearray": lambda path: bytearray(b"bytes"),
    "a complex number": lambda path: 1j,
    "a key": lambda path: {(1, 2): 3},
    "a dtype": lambda path: np.dtype("f8"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("what", HOSTILE)
def test_all_else_is_refused_and_not_executed(what, protocol, tmp_path):
    witness = tmp_path / "witness"
    data = python.dumps(HOSTILE[what](witness), protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"pickle (names|has|is)"):
        pickle.loads(data)
    assert not witness.exists()


def opcodes(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\nU\x02f8\x85R"  # dtype("f8"), without the state that follows
ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85U\x01b\x87R"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        python.dumps(WEIGHTS)[:-20],
        opcodes(ARRAY),  # an array without a state
        opcodes(ARRAY, b"K\x01b"),  # a state that is no tuple
        opcodes(ARRAY, b"(K\x01K\x05\x85", DTYPE, b"K\x00U\x08" + bytes(8) + b"tb"),  # 8 bytes for 5 numbers
        opcodes(ARRAY, b"(K\x01J\xff\xff\xff\xff\x85", DTYPE, b"K\x00U\x08" + bytes(8) + b"tb"),  # shape (-1,)
        opcodes(ARRAY, b"(K\x01K\x01\x85", DTYPE, b"K\x00]tb"),  # a list for the bytes
        opcodes(ARRAY, b"(K\x01K\x01\x85K\x07K\x00U\x08" + bytes(8) + b"tb"),  # 7 for the dtype
        opcodes(b"cnumpy\ndtype\nU\x02O8\x85R"),
        opcodes(RECONSTRUCT, b"}b"),  # a state for a function
        opcodes(RECONSTRUCT, b"N}U\x08__doc__K\x01s\x86b"),  # attributes for a function
        opcodes(NDARRAY, b"J\x00\x00\x00\x7f\x85R"),  # a large array without contents
        opcodes(NDARRAY, b")\x81"),  # ndarray.__new__
        opcodes(b"\x82\x01"),  # an extension's code
        opcodes(b"U\x01xQ"),  # a persistent identifier
        opcodes(b"c__builtin__\neval\nU\x031+1\x85R"),
        opcodes(b"c_codecs\nencode\nU\x01aU\x05rot13\x86R"),
        opcodes(b"]" * 100_000 + b"a" * 99_999),  # lists in lists
    ],
)
def test_damaged_and_forged_pickles(data):
    with pytest.raises(pickle.UnpicklingError) as error:
        pickle.loads(data)
    assert isinstance(error.value, ValueError)


def test_every_cut_and_every_changed_byte_is_an_error_or_plain_data():
    data = python.dumps({"W": np.ones(2), "b": [1, 2.0]}, 4)
    rng = np.random.default_rng(0)
    forged = [data[:length] for length in range(len(data))]
    forged += [data[:at] + struct.pack("B", rng.integers(256)) + data[at + 1 :] for at in range(len(data))]
    for changed in forged:
        try:
            found = pickle.loads(changed)
        except (pickle.UnpicklingError, MemoryError):
            continue
        assert type(found) in (dict, list, tuple, str, int, float, bool, type(None), np.ndarray)


def test_a_file_that_is_no_file():
    with pytest.raises(TypeError, match="file must be open for reading bytes"):
        pickle.load("params.pkl")


# Networks -------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    np.random.seed(0)
    return TwoLayerNet(4, 3, 2)


def test_files_are_exchanged_with_the_book(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net.save_params()
    with open("params.pkl", "rb") as file:
        params = python.load(file)  # as the book's load_params does
    same(params, net.params)
    doubled = {name: 2 * array for name, array in params.items()}
    with open("params.pkl", "wb") as file:
        python.dump(doubled, file)  # as its save_params does
    net.load_params()
    same(net.params, doubled)
    assert net.layers["Affine1"].W is net.params["W1"]
    assert os.listdir() == ["params.pkl"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([np.ones(1)], "holds a list, not a dict of arrays"),
        ({"W1": [1.0]}, "has 'W1', a list: it must be an array"),
        ({1: np.ones(1)}, "has 1, a ndarray"),
        ({"W1": np.ones((4, 3))}, "'b1' is missing; 'W2' is missing; 'b2' is missing"),
        ({"W1": Run(os.system, "true")}, "the pickle names"),
        ("shape", r"'b2' has shape \(3,\), not \(2,\)"),
        ("dtype", "'b2' is complex|the pickle has an array of dtype 'c16'"),
        ("more", "'W3' is unexpected"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(net, params, message, tmp_path):
    before = {name: array.copy() for name, array in net.params.items()}
    if isinstance(params, str):
        extra = {"shape": {"b2": np.ones(3)}, "dtype": {"b2": np.ones(2, complex)}, "more": {"W3": np.ones(1)}}
        params = {**net.params, **extra[params]}
    path = tmp_path / "weights.pkl"
    path.write_bytes(python.dumps(params))
    with pytest.raises(ValueError, match=message) as error:
        net.load_params(path)
    assert "weights.pkl" in str(error.value)
    same(net.params, before)


def test_a_file_that_is_not_there(net, tmp_path):
    with pytest.raises(FileNotFoundError):
        net.load_params(tmp_path / "none.pkl")
    with pytest.raises(OSError, match="none"):
        net.save_params(tmp_path / "none" / "params.pkl")


def test_the_networks_of_fastnet_keep_their_own_files(net, tmp_path):
    fastnet.TwoLayerNet(4, 3, 2).save_params(tmp_path / "net.npz")
    with pytest.raises(pickle.UnpicklingError, match=r"net\.npz"):
        net.load_params(tmp_path / "net.npz")
