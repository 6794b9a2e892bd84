"""Networks in files: back bit for bit, going on as if never saved, and refused whole where they do not fit."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fastnet
from fastnet.layers import Affine, BatchNorm, IdentityWithLoss, Tanh
from fastnet.saving import load_arrays, save_arrays

NETWORKS = {
    "simple": fastnet.SimpleNet,
    "two layers": lambda seed, **dtype: fastnet.TwoLayerNet(6, 5, 3, seed=seed, **dtype),
    "chain": lambda seed, **dtype: fastnet.MultiLayerNet(6, [5, 4], 3, seed=seed, **dtype),
    "all": lambda seed, **dtype: fastnet.MultiLayerNet(
        6, [5, 4], 3, use_batchnorm=True, dropout_ratio=0.3, seed=seed, **dtype
    ),
}


def batch_of(net):
    rng = np.random.default_rng(0)
    inputs = next(iter(net.params.values())).shape[0]
    return rng.standard_normal((20, inputs)), rng.integers(0, 3, 20)


def train(net, steps):
    x, t = batch_of(net)
    for _ in range(steps):
        for name, gradient in net.gradient(x, t).items():
            net.params[name] -= (0.1 * gradient).astype(gradient.dtype)


def bits(net):
    return {
        group: {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
        for group, arrays in (("params", net.params), ("state", net.state))
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_back_bit_for_bit_and_on_as_if_never_saved(backend, dtype, name, tmp_path):
    """Parameters, running statistics, and the masks to come."""
    net, other = NETWORKS[name](seed=0, dtype=dtype), NETWORKS[name](seed=1, dtype=dtype)
    train(net, 3)
    net.save_params(tmp_path / "net.npz")
    saved = bits(net)
    train(other, 2)
    other.load_params(str(tmp_path / "net.npz"))
    assert bits(net) == bits(other) == saved
    assert all(a.flags.writeable for a in other.params.values())
    x, t = batch_of(net)
    repeated = other.numerical_gradient(x, t, 1e-2).diagnostics.loss  # of the pass to come
    assert other.training_loss(x, t) == pytest.approx(repeated, rel=10 * float(np.finfo(dtype).eps))
    net.training_loss(x, t)
    train(net, 2)
    train(other, 2)
    assert bits(net) == bits(other) != saved
    assert os.listdir(tmp_path) == ["net.npz"]


def test_what_is_in_the_file(tmp_path):
    net = NETWORKS["all"](seed=0)
    net.save_params(tmp_path / "net")
    arrays, about = load_arrays(tmp_path / "net")
    assert about == {"kind": "parameters of a network of fastnet"}
    assert list(arrays) == [*(f"params/{name}" for name in net.params), *(f"state/{name}" for name in net.state)]
    with np.load(tmp_path / "net", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["params/W1"], net.params["W1"])


def test_a_file_of_float32_fits_float64(tmp_path):
    single, double = NETWORKS["all"](seed=0, dtype="float32"), NETWORKS["all"](seed=1)
    single.save_params(tmp_path / "net")
    double.load_params(tmp_path / "net")
    for name, p in double.params.items():
        assert p.dtype == np.float64
        np.testing.assert_array_equal(p, single.params[name])
    assert double.state["running_var1"].dtype == np.float64


def test_parameters_of_other_layouts(tmp_path):
    net, other = NETWORKS["all"](seed=0), NETWORKS["all"](seed=1)
    for name, p in net.params.items():
        net.params[name] = np.asfortranarray(p.astype(">f8"))
        other.params[name] = other.params[name].astype(">f8")
    net.save_params(tmp_path / "net")
    other.load_params(tmp_path / "net")
    for name, p in other.params.items():
        assert p.dtype is np.dtype(np.float64) or p.dtype == np.dtype("=f8")
        assert p.flags.c_contiguous
        np.testing.assert_array_equal(p, net.params[name])


def test_the_layers_see_what_was_loaded(tmp_path):
    rng = np.random.default_rng(0)
    nets = []
    for _ in range(2):
        first, norm = Affine(rng.standard_normal((6, 5))), BatchNorm(np.ones(5), np.zeros(5))
        nets.append(fastnet.Network([first, norm, Tanh()], IdentityWithLoss()))
    x = rng.standard_normal((9, 6))
    nets[0].training_loss(x, rng.standard_normal((9, 5)))
    nets[0].save_params(tmp_path / "net")
    nets[1].load_params(tmp_path / "net")
    np.testing.assert_array_equal(nets[0].predict(x), nets[1].predict(x))
    assert nets[1].layers[0].W is nets[1].params["W1"]
    assert nets[1].layers[1].running_var is nets[1].state["running_var1"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


SMALLER = fastnet.MultiLayerNet(6, [5, 3], 3, use_batchnorm=True, dropout_ratio=0.3, seed=0)
ARRAYS = {"params/W1": np.ones(2)}
FILES = [
    (lambda path: truncate(path), ValueError, "is not a fastnet file, or it is damaged"),
    (lambda path: flip(path), ValueError, "is not a fastnet file, or it is damaged"),
    (lambda path: path.write_bytes(b""), ValueError, "is not a fastnet file, or it is damaged: it is empty"),
    (lambda path: path.write_bytes(b"\x93NUMPY"), ValueError, "is not a fastnet file, or it is damaged"),
    (lambda path: path.unlink(), FileNotFoundError, "No such file"),
    (lambda path: save_arrays(path, ARRAYS, {}), ValueError, "has no parameters of a network of fastnet, but None"),
    (
        lambda path: save_arrays(path, ARRAYS, {"kind": "a training of fastnet"}),
        ValueError,
        "has no parameters of a network of fastnet, but 'a training of fastnet'",
    ),
    (lambda path: NETWORKS["chain"](seed=0).save_params(path), ValueError, "'params/gamma1' is missing; "),
    (lambda path: SMALLER.save_params(path), ValueError, "'params/W2' has shape (5, 3), not (5, 4); "),
    (
        lambda path: fastnet.MultiLayerNet(6, [5, 4, 4], 3, use_batchnorm=True, dropout_ratio=0.3).save_params(path),
        ValueError,
        "'params/gamma3' is unexpected",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), FILES, ids=[row[2] for row in FILES])
def test_a_file_that_does_not_fit_changes_nothing(make, error, message, tmp_path):
    net = NETWORKS["all"](seed=1)
    path = tmp_path / "net.npz"
    NETWORKS["all"](seed=0).save_params(path)
    make(path)
    train(net, 1)
    before = bits(net)
    with pytest.raises(error) as caught:
        net.load_params(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert bits(net) == before


def test_float64_does_not_fit_float32(tmp_path):
    net = fastnet.TwoLayerNet(6, 5, 3, dtype="float32", seed=0)
    fastnet.TwoLayerNet(6, 5, 3, seed=0).save_params(tmp_path / "net")
    before = bits(net)
    with pytest.raises(ValueError, match="'params/W1' is float64, which float32 can't hold exactly"):
        net.load_params(tmp_path / "net")
    assert bits(net) == before


def test_what_can_not_be_saved_leaves_the_old_file(tmp_path):
    net = fastnet.TwoLayerNet(6, 5, 3, seed=0)
    net.save_params(tmp_path / "net")
    before = (tmp_path / "net").read_bytes()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        net.save_params(tmp_path / "nowhere" / "net")
    with pytest.raises(OSError, match="regular file"):
        net.save_params(tmp_path)
    with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, not NoneType"):
        net.save_params(None)
    net.params["W2"] = np.ones((6, 3))
    with pytest.raises(ValueError, match="does not fit the 5 units of the layer before it"):
        net.save_params(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == before
    assert os.listdir(tmp_path) == ["net"]
