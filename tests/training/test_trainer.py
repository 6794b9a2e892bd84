"""Trainer: the order of its rows, its bits, the best parameters and its progress."""

from __future__ import annotations

import functools
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet._tools import progress
from fastnet.networks import TwoLayerNet
from fastnet.training import SaveBest, Trainer
from fastnet.training import trainer as trainer_module
from trainings import (
    CLASSES,
    INPUTS,
    OPTIMIZERS,
    ROWS,
    T_TEST,
    X_TEST,
    T,
    X,
    assert_same,
    bits_of,
    copy_params,
    make_layered,
    make_net,
    make_trainer,
)

# What it computes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_the_plain_loop(optimizer: str, gradient: str, dtype: str) -> None:
    """Bit for bit: the rows of each epoch in the stated order, a batch of the rest at its end, one update for each."""
    net, update = make_net(dtype), OPTIMIZERS[optimizer]()
    x, losses = X.astype(dtype), []
    for epoch in range(3):
        order = np.random.default_rng((4, epoch)).permutation(ROWS)
        for rows in np.split(order, [10, 20, 30, 40, 50]):
            if gradient == "backprop":
                loss, grads = net.loss_and_gradient(x[rows], T[rows])
            else:
                grads = net.numerical_gradient(x[rows], T[rows], h=1e-3)
                loss = grads.diagnostics.loss
            losses.append(loss)
            update.update(net.params, grads)

    trainer = make_trainer(make_net(dtype), optimizer=OPTIMIZERS[optimizer](), gradient=gradient, h=1e-3, seed=4)
    history = trainer.fit(epochs=3)
    assert_same(trainer.net.params, net.params)
    np.testing.assert_array_equal(history.losses, losses)
    np.testing.assert_array_equal(history["loss"], np.array(losses).reshape(3, 6).mean(axis=1))
    assert history.rows[-1].test_accuracy == net.accuracy(X_TEST, T_TEST)
    assert history.rows[-1].train_accuracy == net.accuracy(X, T)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("batch_size", [10, ROWS])
def test_without_shuffling_the_rows_stay_in_their_order(batch_size: int, fused: bool, dtype: str) -> None:
    net, update, x, losses = make_net(dtype), optimizers.Momentum(0.1), X.astype(dtype), []
    for _ in range(3):
        for first in range(0, ROWS, batch_size):
            rows = slice(first, first + batch_size)
            loss, grads = net.loss_and_gradient(x[rows], T[rows])
            losses.append(loss)
            update.update(net.params, grads)
    made = {"optimizer": optimizers.Momentum(0.1), "batch_size": batch_size, "shuffle": False, "fused": fused}
    trainer = make_trainer(make_net(dtype), **made)
    assert_same(trainer.net.params, make_net(dtype).params)
    np.testing.assert_array_equal(trainer.fit(epochs=3).losses, losses)
    assert_same(trainer.net.params, net.params)


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_it_is_the_plain_loop_layer_by_layer(gradient: str) -> None:
    """Each iteration has masks of its own, also for the numerical gradient, and leaves one trace in the statistics."""
    net, update, x = make_layered(), optimizers.Momentum(0.1), X
    for rows in np.split(np.random.default_rng((0, 0)).permutation(ROWS), [10, 20, 30, 40, 50]):
        grads = net.gradient(x[rows], T[rows])
        if gradient == "numerical":
            grads = net.numerical_gradient(x[rows], T[rows], h=1e-5)
        update.update(net.params, grads)
    trainer = make_trainer(make_layered(), optimizer=optimizers.Momentum(0.1), gradient=gradient, h=1e-5, epochs=1)
    row = trainer.fit().rows[0]
    assert_same(trainer.net.params, net.params)
    assert_same(trainer.net.state, net.state)
    assert row.test_accuracy == net.accuracy(X_TEST, T_TEST)


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_both_gradients_learn_digits(gradient: str) -> None:
    x, t = fastnet.datasets.make_digits(1500, seed=0)
    net = TwoLayerNet(784, 40, 10, dtype="float32", seed=0)
    trainer = Trainer(
        net,
        x,
        t,
        *fastnet.datasets.make_digits(500, seed=1),
        optimizer=optimizers.Momentum(0.1),
        epochs=15,
        gradient=gradient,
    )
    history = trainer.fit()
    assert history["test_accuracy"][-1] > 0.9
    assert history["train_accuracy"][-1] > 0.93
    assert history["loss"][-1] < 0.3 < 2 < history["loss"][0]


@pytest.mark.mnist
@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_both_gradients_learn_mnist(gradient: str, mnist_test_set: Any) -> None:
    (x, t), _ = fastnet.datasets.load_mnist()
    net = TwoLayerNet(784, 50, 10, dtype="float32", seed=0)
    trainer = Trainer(net, x[:6000], t[:6000], *mnist_test_set, optimizer=optimizers.Momentum(0.1), epochs=6)
    assert trainer.fit()["test_accuracy"][-1] > 0.9


@functools.cache  # for every implementation
def trained_by_the_reference(gradient: str) -> Trainer:
    with fastnet.use_backend("numpy"):
        trainer = make_trainer(gradient=gradient, epochs=3)
        trainer.fit()
    return trainer


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_every_backend_trains_to_the_same(backend: Any, gradient: str) -> None:
    expected = trained_by_the_reference(gradient)
    trainer = make_trainer(gradient=gradient, epochs=3)
    history = trainer.fit()
    for name, p in expected.net.params.items():
        np.testing.assert_allclose(trainer.net.params[name], p, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(history.losses, expected.history.losses, rtol=1e-10)
    np.testing.assert_array_equal(history["test_accuracy"], expected.history["test_accuracy"])


def test_every_algorithm_of_the_numerical_gradient() -> None:
    expected = make_trainer(gradient="numerical", epochs=1)
    expected.fit()
    for algorithm in (*backends.active().algorithms, "loop"):
        trainer = make_trainer(gradient="numerical", algorithm=algorithm, epochs=1)
        trainer.fit()
        np.testing.assert_allclose(trainer.net.params["W1"], expected.net.params["W1"], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(trainer.history.losses, expected.history.losses, rtol=1e-6)


def test_the_step_depends_on_the_dtype() -> None:
    assert [make_trainer(make_net(dtype)).h for dtype in ("float32", "float64")] == [1e-2, 1e-4]


def test_seeds() -> None:
    trainers = [make_trainer(seed=seed) for seed in (0, 0, 1, 2**70)]
    for trainer in trainers:
        trainer.fit()
    first, again, *others = [bits_of(trainer) for trainer in trainers]
    assert first == again
    assert len({bits["losses"] for bits in (first, *others)}) == 3


def test_how_often_the_bar_moves_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seconds in (0.0, 1e-3, 1e9):
        monkeypatch.setattr(trainer_module, "STRETCH_SECONDS", seconds)
        trainer = make_trainer()
        trainer.fit()
        found.append(bits_of(trainer))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32, np.float64, list])
def test_data_of_other_types(kind: Any) -> None:
    """Converted to the network's dtype, once; left alone where they come in it."""
    x = np.random.default_rng(0).integers(0, 2, (20, INPUTS))
    given = x.tolist() if kind is list else x.astype(kind)
    trainer = Trainer(make_net(), given, np.eye(CLASSES, dtype=int)[T[:20]], epochs=2, batch_size=10)
    trainer.fit()
    expected = Trainer(make_net(), x.astype(np.float64), np.eye(CLASSES)[T[:20]], epochs=2, batch_size=10)
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)
    if kind is not list:
        np.testing.assert_array_equal(given, x)


# Epochs and iterations ------------------------------------------------------------------------------------


def test_epochs_and_iterations() -> None:
    trainer = make_trainer(epochs=3)
    assert (trainer.iterations_per_epoch, trainer.iterations, trainer.iteration, trainer.epoch) == (6, 18, 0, 0)
    history = trainer.fit()
    assert (trainer.iteration, trainer.epoch, trainer.optimizer.iteration) == (18, 3, 18)
    np.testing.assert_array_equal(history["epoch"], [1, 2, 3])
    np.testing.assert_array_equal(history["iteration"], [6, 12, 18])
    assert history.losses.shape == (18,)
    assert make_trainer(iterations=10_000).iterations == 10_000


def test_a_training_that_ends_within_an_epoch() -> None:
    trainer = make_trainer(iterations=15)
    history = trainer.fit()
    np.testing.assert_array_equal(history["epoch"], [1, 2, 2.5])
    np.testing.assert_array_equal(history["iteration"], [6, 12, 15])
    assert history.rows[-1].loss == np.mean(history.losses[12:])
    trainer.fit(epochs=1)
    np.testing.assert_array_equal(history["iteration"], [6, 12, 15, 18, 21])
    assert history.rows[-2].loss == np.mean(history.losses[15:18])
    expected = make_trainer(iterations=21)
    expected.fit()
    assert_same(trainer.net.params, expected.net.params)


def test_fit_again() -> None:
    trainer = make_trainer(epochs=2)
    trainer.fit()
    before = bits_of(trainer)
    assert trainer.fit() is trainer.history
    assert bits_of(trainer) == before
    trainer.fit(epochs=3)
    expected = make_trainer(epochs=5)
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)


# The best parameters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tested", [True, False])
def test_the_best_parameters(tested: bool) -> None:
    """By test accuracy, the first of equals; without test data by the mean loss. The rate makes it worse at the end."""
    seen: list[dict[str, Any]] = []
    test = (X_TEST, T_TEST) if tested else ()
    rates = [*6 * [0.1], *24 * [3.0], *12 * [100.0]]

    class Rates(optimizers.Schedule):
        def __call__(self, iteration: int) -> float:
            return rates[iteration]

    trainer = Trainer(
        make_net(),
        X,
        T,
        *test,
        batch_size=10,
        optimizer=optimizers.SGD(Rates()),
        epochs=7,
        callbacks=[lambda trainer: seen.append(copy_params(trainer.net))],
    )
    history = trainer.fit()
    best = int(np.argmax(history["test_accuracy"]) if tested else np.argmin(history["loss"]))
    assert 0 < best < 6
    assert trainer.best_epoch == best + 1
    assert trainer.best_params is not None
    assert_same(trainer.best_params, seen[best])
    first = trainer.net.params["W1"]
    trainer.restore_best()
    assert_same(trainer.net.params, seen[best])
    assert trainer.net.params["W1"] is first
    trainer.net.params["W1"][0, 0] += 1
    assert_same(trainer.best_params, seen[best])


def test_the_first_of_equals_is_the_best() -> None:
    trainer = make_trainer(optimizer=optimizers.SGD(1e-12))
    history = trainer.fit()
    assert len(set(history["test_accuracy"])) == 1
    assert trainer.best_epoch == 1


def test_the_state_goes_with_the_best_parameters() -> None:
    accuracies: list[float] = []
    trainer = make_trainer(
        make_layered(),
        optimizer=optimizers.SGD(3.0),
        epochs=12,
        callbacks=[lambda trainer: accuracies.append(trainer.net.accuracy(X_TEST, T_TEST))],
    )
    trainer.fit()
    assert accuracies[-1] < max(accuracies)
    trainer.restore_best()
    assert trainer.net.accuracy(X_TEST, T_TEST) == max(accuracies)
    assert trainer.best_state is not None
    assert_same(trainer.net.state, trainer.best_state)


@pytest.mark.parametrize(("make", "rate"), [(make_net, 3.0), (make_layered, 0.01)])
def test_the_best_are_saved_as_soon_as_they_are_known(make: Callable[[], Any], rate: float, tmp_path: Path) -> None:
    path, net, seen = tmp_path / "best.npz", make(), []

    def look(trainer: Trainer) -> None:
        net.load_params(path)
        assert trainer.best_params is not None
        assert_same(net.params, trainer.best_params)
        assert_same(net.state, trainer.best_state or {})
        seen.append(trainer.best_epoch)

    make_trainer(make(), epochs=12, optimizer=optimizers.SGD(rate), callbacks=[SaveBest(path), look]).fit()
    assert 1 < len(set(seen)) < 12


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    net = make_net()
    bare = types.SimpleNamespace(**{name: getattr(net, name) for name in ("predict", "accuracy", "loss_and_gradient")})
    bare.params = net.params
    message = "SaveBest needs a network with a `save_params` method, but SimpleNamespace has none"
    with pytest.raises(TypeError, match=message):
        make_trainer(bare, callbacks=[SaveBest(tmp_path / "best.npz")])
    with pytest.raises(FileNotFoundError, match=r"SaveBest can't write .*nowhere.*: there is no such folder"):
        make_trainer(callbacks=[SaveBest(tmp_path / "nowhere" / "best.npz")])


def test_a_network_of_ones_own() -> None:
    """Nothing more is needed than what is asked for."""
    net = make_net()
    bare = types.SimpleNamespace(**{name: getattr(net, name) for name in ("predict", "accuracy", "loss_and_gradient")})
    bare.params = net.params
    make_trainer(bare).fit()
    expected = make_trainer()
    expected.fit()
    assert_same(net.params, expected.net.params)


def test_without_best_parameters() -> None:
    trainer = make_trainer(keep_best=False)
    trainer.fit()
    assert trainer.best_epoch is not None
    assert trainer.best_params is None
    with pytest.raises(RuntimeError, match="there are no best parameters: keep_best is False"):
        trainer.restore_best()
    with pytest.raises(RuntimeError, match="there are no best parameters: no epoch has ended yet"):
        make_trainer().restore_best()


# Progress -------------------------------------------------------------------------------------------------


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    net = make_net()
    accuracy = net.accuracy
    monkeypatch.setattr(net, "accuracy", lambda x, t: time.sleep(0.1) or accuracy(x, t))  # tqdm shows no more often
    make_trainer(net, progress=True, epochs=3).fit()
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1/3" in err
    assert "epoch 3/3  loss 1." in err
    assert "test 0." in err
    make_trainer().fit()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    make_trainer(progress=False).fit()
    assert capsys.readouterr() == ("", "")
    make_trainer(make_net(), epochs=2).fit()
    assert "epoch 1/2" in capsys.readouterr().err


def test_the_bar_makes_room_for_what_callbacks_print(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(progress.ProgressBar, "hide", lambda bar: calls.append("hide"))
    make_trainer(epochs=2, callbacks=[lambda trainer: calls.append("callback")]).fit()
    assert calls == 2 * ["hide", "callback"]


def test_no_progress_without_tqdm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    make_trainer(progress=True).fit()
    assert capsys.readouterr() == ("", "")
