"""Stretches of training inside a backend: the bits of single steps, and single steps where they can't be."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, layers, optimizers
from fastnet.backends.training import GradientKind, Rule
from fastnet.layers import ReLU, SoftmaxWithLoss
from fastnet.training import DivergenceError
from fastnet.training.fused import FusedTraining
from layer_networks import affine


def digits(rows: int = 230, classes: int = 10) -> tuple[Any, Any]:
    x, t = fastnet.datasets.make_digits(rows, seed=0)
    return x, t % classes


def chain(dtype: str = "float32", **options: Any) -> fastnet.MultiLayerNet:
    return fastnet.MultiLayerNet(784, [20, 15], 10, activation="tanh", dtype=dtype, seed=0, **options)


def trained(net: Any, fused: bool | None, data: Any = None, **options: Any) -> fastnet.Trainer:
    x, t = digits() if data is None else data
    options = {"epochs": 2, "batch_size": 50, "progress": False, "evaluate_train": 0} | options
    trainer = fastnet.Trainer(net, x, t, fused=fused, **options)
    trainer.fit()
    return trainer


def assert_same_bits(make_net: Any, **options: Any) -> None:
    """Fused and by steps: parameters, losses and what the optimizer keeps. `make_…` give a new object each time."""
    results = []
    for fused in (True, False):
        net = make_net()
        made = {
            name.removeprefix("make_"): make() if name.startswith("make_") else make for name, make in options.items()
        }
        trainer = trained(net, fused, **made)
        state = trainer.optimizer.state_dict()
        arrays = net.params | {f"optimizer/{name}": array for name, array in state.items()}
        results.append(({name: a.tobytes() for name, a in arrays.items()}, list(trainer.history.losses)))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_the_bits_of_single_steps(backend: Any, dtype: str, name: str, gradient: str) -> None:
    if not isinstance(backend, backends.TrainingBackend):
        pytest.skip(f"the {backend.name} backend trains step by step")
    assert_same_bits(lambda: chain(dtype), make_optimizer=optimizers.OPTIMIZERS[name], gradient=gradient)


@pytest.mark.parametrize("options", [{"weight_decay_lambda": 0.01}, {"weight_init_std": 0.1}])
def test_other_chains(trains: None, dtype: str, options: dict[str, Any]) -> None:
    assert_same_bits(lambda: chain(dtype, **options), algorithm="incremental", gradient="numerical")
    assert_same_bits(lambda: chain(dtype, **options), batch_size=7, epochs=1)


def test_a_two_layer_net_and_one_hot_targets(trains: None, dtype: str) -> None:
    x, t = digits()
    data = x, np.eye(10)[t]
    assert_same_bits(lambda: fastnet.TwoLayerNet(784, 12, 10, dtype=dtype, seed=0), data=data, gradient="numerical")


def test_a_schedule(trains: None, dtype: str) -> None:
    schedule = optimizers.CosineAnnealing(0.2, iterations=10, warmup=3)
    assert_same_bits(lambda: chain(dtype), make_optimizer=lambda: optimizers.Momentum(schedule))


def test_it_is_the_default(trains: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastnet.Trainer, "_step", None)
    trained(chain(), None)


class OwnGradient(fastnet.TwoLayerNet):
    def loss_and_gradient(self, x: Any, t: Any) -> Any:
        loss, gradients = super().loss_and_gradient(x, t)
        return loss, {name: -g for name, g in gradients.items()}


class OwnOptimizer(optimizers.SGD):
    pass


class OwnLayer(ReLU):
    def forward(self, x: Any) -> Any:
        return super().forward(x)


def with_a_layer_of_its_own() -> fastnet.Network:
    rng = np.random.default_rng(0)
    return fastnet.Network([affine(rng, 784, 5), OwnLayer(), affine(rng, 5, 10)], SoftmaxWithLoss())


NOT_FUSED = {
    "the network has layers that the backend does not know": {"net": lambda: with_a_layer_of_its_own()},
    "OwnGradient has its own loss_and_gradient": {"net": lambda: OwnGradient(784, 5, 10, seed=0)},
    "the optimizer, OwnOptimizer, is not one of fastnet.optimizers": {"optimizer": OwnOptimizer(lr=0.1)},
    "the algorithm is 'loop'": {"gradient": "numerical", "algorithm": "loop"},
}


@pytest.mark.parametrize("reason", NOT_FUSED)
def test_what_single_steps_must_do(trains: None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(NOT_FUSED[reason])
    make_net: Any = options.pop("net", lambda: fastnet.TwoLayerNet(784, 2, 10, seed=0))
    data = digits(4)
    with pytest.raises(ValueError, match=f"fused is True, but {reason}"):
        trained(make_net(), True, data, batch_size=2, **options)
    monkeypatch.setattr(FusedTraining, "run", None)
    net = make_net()
    before = {name: p.copy() for name, p in net.params.items()}
    trained(net, None, data, batch_size=2, epochs=1, **options)
    assert any(not np.array_equal(p, before[name]) for name, p in net.params.items())


def test_the_reference_trains_step_by_step() -> None:
    with fastnet.use_backend("numpy"):
        with pytest.raises(ValueError, match="fused is True, but the 'numpy' backend does not train by itself"):
            trained(chain(), True)
        assert trained(chain(), None).iteration == 10


def test_own_gradients_are_not_bypassed(trains: None) -> None:
    net = OwnGradient(784, 5, 10, seed=0)
    before = net.loss(*digits())
    trained(net, None)
    assert net.loss(*digits()) > before  # uphill


def test_parameters_in_another_layout(trains: None) -> None:
    """They would be copied for the backend: single steps change them in place."""
    net, expected = chain(), chain()
    net.params["W2"] = np.asfortranarray(net.params["W2"])
    trained(expected, True)
    trained(net, None)
    np.testing.assert_allclose(net.params["W2"], expected.params["W2"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="a parameter is read-only, not contiguous"):
        trained(net, True)


def test_parameters_replaced_between_epochs(trains: None) -> None:
    """A callback may put new arrays: they are the ones that are trained from then on."""
    for fused in (True, False):
        net = chain()

        def replace(trainer: Any, net: Any = net) -> None:
            net.params["W1"] = np.zeros_like(net.params["W1"])

        trained(net, fused, callbacks=[replace], epochs=1)
        trainer = fastnet.Trainer(net, *digits(), epochs=1, batch_size=50, fused=fused, progress=False)
        trainer.fit()
        assert net.params["W1"].any()


def test_a_loss_that_is_not_finite(trains: None) -> None:
    """The same error, at the same iteration, with the same parameters."""
    messages, params = [], []
    for fused in (True, False):
        net = chain(weight_decay_lambda=1e30)
        with pytest.raises(DivergenceError) as caught:
            trained(net, fused, optimizer=optimizers.SGD(lr=1.0))
        messages.append(str(caught.value))
        params.append([p.tobytes() for p in net.params.values()])
    assert messages[0] == messages[1]
    assert "at iteration" in messages[0]
    assert params[0] == params[1]


class Ending(optimizers.Schedule):
    """A schedule with nothing to say from iteration 7 on."""

    def __call__(self, iteration: int) -> float:
        return 0.1 if iteration < 7 else float("nan")


def test_a_schedule_that_fails_within_a_stretch(trains: None) -> None:
    results = []
    for fused in (True, False):
        net, trainer = chain(), None
        trainer = fastnet.Trainer(
            net, *digits(), epochs=3, batch_size=50, optimizer=optimizers.SGD(Ending()), fused=fused, progress=False
        )
        with pytest.raises(ValueError, match=re.escape("lr at iteration 7")):
            trainer.fit()
        results.append((trainer.iteration, [p.tobytes() for p in net.params.values()]))
    assert results[0] == results[1]
    assert results[0][0] == 7


def test_the_numbers_of_the_extension() -> None:
    assert [kind.name for kind in GradientKind] == ["BACKPROP", "INCREMENTAL", "NODAL"]
    assert [rule.name.lower() for rule in Rule] == list(optimizers.OPTIMIZERS)


def test_a_layered_network_of_affine_layers_is_a_chain(trains: None) -> None:
    rng = np.random.default_rng(0)

    def make() -> fastnet.Network:
        first = layers.Affine(rng.standard_normal((784, 8)).astype("f4") / 28, np.zeros(8, "f4"))
        last = layers.Affine(rng.standard_normal((8, 10)).astype("f4"), np.zeros(10, "f4"))
        return fastnet.Network([first, layers.LeakyReLU(0.2), last], layers.SoftmaxWithLoss())

    state = rng.bit_generator.state

    def again() -> fastnet.Network:
        rng.bit_generator.state = state
        return make()

    assert_same_bits(again)
