"""A network's chain is made once and kept, but never where another one would be right."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastnet
from fastnet.backends.spec import Activation, NetworkSpec, Stage, StageKind
from fastnet.layers import Affine, HuberLoss, ReLU, SoftmaxWithLoss

X, T = np.random.default_rng(0).standard_normal((5, 4)), np.arange(5) % 3


def affine(inputs, outputs, seed=0):
    return Affine(np.random.default_rng(seed).standard_normal((inputs, outputs)), np.zeros(outputs))


NETS = {
    "two layers": lambda: fastnet.TwoLayerNet(4, 6, 3, seed=0),
    "many": lambda: fastnet.MultiLayerNet(4, [6, 5], 3, seed=0),
    "network": lambda: fastnet.Network([affine(4, 6), ReLU(), affine(6, 3)], SoftmaxWithLoss()),
}


def fresh(net):
    """The loss of the same parameters in a network that has kept nothing."""
    twin = pickle.loads(pickle.dumps(net))
    twin._kept._made = None
    return twin.loss(X, T)


@pytest.fixture(params=NETS)
def net(request):
    made = NETS[request.param]()
    assert made._computation() is made._computation()
    return made


def test_an_update_in_place_is_seen(net):
    before, kept = net.loss(X, T), net._computation()
    net.params["W1"] -= 0.5 * net.gradient(X, T)["W1"]
    assert net._computation() is kept
    assert net.loss(X, T) == fresh(net) < before


def test_new_arrays_are_seen(net):
    before, kept = net.loss(X, T), net._computation()
    net.params["b1"] = net.params["b1"] + 1
    assert net._computation() is not kept
    assert net.loss(X, T) == fresh(net) != before
    net.params = {name: 2 * p for name, p in net.params.items()}
    assert net.loss(X, T) == fresh(net) != before


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda p: p.astype(">f8"), lambda p: np.repeat(p, 2, -1)[..., ::2]]
)
def test_arrays_that_backends_have_copied_are_seen_to_change(net, change):
    net.params = {name: change(p) for name, p in net.params.items()}
    before = net.loss(X, T)
    net.params["W1"] *= 2
    assert net.loss(X, T) == fresh(net) != before


def test_mistakes_are_reported_at_every_call(net):
    kept, right = net._computation(), net.params["W1"]
    del net.params["W1"]
    for _ in range(2):
        with pytest.raises(KeyError, match="params has no 'W1'"):
            net.loss(X, T)
    net.params["W1"] = right[:, :-1].copy()
    for _ in range(2):
        with pytest.raises(ValueError, match="W1"):
            net.loss(X, T)
    net.params["W1"] = right
    assert net.loss(X, T) == kept.loss(X, T)


def test_the_same_array_of_another_shape_or_dtype():
    net = fastnet.TwoLayerNet(4, 6, 3, seed=0)
    net.loss(X, T)
    net.params["W2"].shape = (3, 6)
    with pytest.raises(ValueError, match=r"params\['W2'\] of shape \(3, 6\) does not fit"):
        net.loss(X, T)
    net.params["W2"].shape = (6, 3)
    net.loss(X, T)
    net.params["b2"].dtype = np.int64
    with pytest.raises(TypeError, match="b2"):
        net.loss(X, T)


def test_settings_that_change_are_seen():
    net = fastnet.Network([affine(4, 6), ReLU(), affine(6, 3)], HuberLoss(1.0))
    t = np.random.default_rng(1).standard_normal((5, 3))
    plain = net.loss(X, t)
    net.weight_decay_lambda = 0.1
    assert net.loss(X, t) > plain
    net.weight_decay_lambda = 0.0
    assert net.loss(X, t) == plain
    net.last_layer = HuberLoss(0.5)
    assert net.loss(X, t) < plain


def test_copies_are_networks_of_their_own(net):
    before, twin = net.loss(X, T), copy.deepcopy(net)
    twin.params["W1"] *= 2
    assert twin.loss(X, T) == fresh(twin) != before
    shallow = copy.copy(net)
    shallow.params = {name: 2 * p for name, p in net.params.items()}
    assert shallow.loss(X, T) == fresh(shallow) != before
    assert net.loss(X, T) == before


# What is a chain ------------------------------------------------------------------------------------------


def test_a_chain_is_its_layers():
    w, b = [np.ones((4, 3)), np.ones((3, 2))], [np.ones(3), None]
    spec = NetworkSpec.chain(w, b, [Activation.ELU, Activation.IDENTITY], loss_constant=2.0)
    assert [stage.kind for stage in spec.stages] == [StageKind.AFFINE, StageKind.ACTIVATION, StageKind.AFFINE]
    assert [(layer.activation, layer.constant) for layer in spec.layers] == [(Activation.ELU, 1.0), (0, 0.0)]
    assert all(layer.weight is one for layer, one in zip(spec.layers, w, strict=True))
    assert (spec.inputs, spec.classes, spec.loss_constant, len(spec.parameters)) == (4, 2, 2.0, 3)
    wide = spec.with_parameters(p.astype(np.float32) for p in spec.parameters)
    assert wide.dtype == np.float32
    assert wide.layers[1].bias is None


def test_what_is_no_chain():
    affine_stage = Stage(StageKind.AFFINE, 3, 3, weight=np.ones((3, 3)))
    act = Stage(StageKind.ACTIVATION, 3, 3, activation=Activation.RELU)
    drop = Stage(StageKind.DROPOUT, 3, 3, random=np.zeros(3, np.uint64))
    for stages in ((act, affine_stage), (affine_stage, act, act), (affine_stage, drop), (drop,)):
        assert NetworkSpec(stages).layers == ()
    assert len(NetworkSpec((affine_stage, affine_stage, act)).layers) == 2
