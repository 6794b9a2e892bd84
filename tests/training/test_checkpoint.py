"""A training that is saved goes on with the same bits; damaged files and those of another training are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnet import optimizers, saving
from fastnet.networks import TwoLayerNet
from fastnet.training import Trainer
from trainings import (
    CLASSES,
    INPUTS,
    OPTIMIZERS,
    T,
    X,
    assert_same,
    bits_of,
    copy_params,
    make_layered,
    make_net,
    make_trainer,
)


@pytest.mark.parametrize("epochs", [2, 1.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_saved_training_goes_on_with_the_same_bits(optimizer: str, epochs: float, dtype: str, tmp_path: Path) -> None:
    expected = make_trainer(make_net(dtype), optimizer=OPTIMIZERS[optimizer]())
    expected.fit()
    first = make_trainer(make_net(dtype), optimizer=OPTIMIZERS[optimizer](), iterations=30)
    first.iterations = round(6 * epochs)
    first.fit()
    if first.history.rows[-1].iteration % 6:
        first.history.rows.pop()  # as Ctrl-C leaves it within an epoch, without a row
    first.save(tmp_path / "training.npz")
    before = bits_of(first)

    second = make_trainer(make_net(dtype, seed=99), optimizer=OPTIMIZERS[optimizer]())
    second.load(tmp_path / "training.npz")
    assert bits_of(second) == before
    assert second.history.rows == first.history.rows
    second.fit()
    assert second.iteration == 30
    if epochs == 2:
        assert bits_of(second) == bits_of(expected)
    assert_same(second.net.params, expected.net.params)
    assert second.history.losses.tolist() == expected.history.losses.tolist()


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_statistics_and_masks_are_saved_too(gradient: str, tmp_path: Path) -> None:
    def make(seed: int, epochs: int) -> Trainer:
        named: dict[str, Any] = {"optimizer": optimizers.Adam(0.02), "gradient": gradient, "h": 1e-5}
        return make_trainer(make_layered(seed), epochs=epochs, **named)

    expected, first, second = make(0, 2), make(0, 1), make(99, 2)
    expected.fit()
    first.fit()
    first.save(tmp_path / "training.npz")
    second.load(tmp_path / "training.npz")
    assert bits_of(second) == bits_of(first)
    second.fit()
    assert bits_of(second) == bits_of(expected)


def test_loading_keeps_the_networks_arrays(tmp_path: Path) -> None:
    trainer = make_trainer(epochs=1)
    trainer.save(tmp_path / "new.npz")  # before any iteration
    weights = trainer.net.params["W1"]
    start = copy_params(trainer.net)
    trainer.fit()
    trainer.load(tmp_path / "new.npz")
    assert trainer.net.params["W1"] is weights
    assert_same(trainer.net.params, start)
    assert (trainer.iteration, trainer.optimizer.iteration, trainer.best_epoch) == (0, 0, None)
    assert trainer.history.rows == []


def test_callbacks_after_loading(tmp_path: Path) -> None:
    """What a callback saves is the training before its own end: it is called once more for that epoch."""
    path = tmp_path / "training.npz"
    first = make_trainer(epochs=2, callbacks=[lambda trainer: trainer.save(path)])
    first.fit()
    calls: list[float] = []
    second = make_trainer(epochs=3, callbacks=[lambda trainer: calls.append(trainer.epoch)])
    second.load(path)
    second.fit()
    assert calls == [2, 3]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"seed": 1}, "is of another training: seed was 0 there and is 1 here"),
        ({"shuffle": False}, "is of another training: shuffle was True there and is False here"),
        ({"batch_size": 11}, "is of another training: batch_size was 10 there and is 11 here"),
        ({"optimizer": optimizers.Adam()}, "is of another training: optimizer was 'momentum' there and is 'adam' here"),
        ({"net": make_net("float32")}, "is of another training: dtype was 'float64' there and is 'float32' here"),
        ({"net": TwoLayerNet(INPUTS, 9, CLASSES)}, r"does not fit: .*'W1' has shape \(12, 8\), not \(12, 9\)"),
    ],
)
def test_another_training_is_refused(named: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "training.npz"
    saved = make_trainer(optimizer=optimizers.Momentum(0.1), epochs=1)
    saved.fit()
    saved.save(path)
    other = make_trainer(**{"optimizer": optimizers.Momentum(0.1), "epochs": 2} | named)
    other.fit(epochs=1)
    before = bits_of(other)
    with pytest.raises(ValueError, match=message) as caught:
        other.load(path)
    assert str(path) in str(caught.value)
    assert bits_of(other) == before


def test_a_file_from_before_there_was_a_choice_of_shuffling(tmp_path: Path) -> None:
    path = tmp_path / "training.npz"
    saved = make_trainer(epochs=2)
    saved.fit(epochs=1)
    saved.save(path)
    arrays, about = saving.load_arrays(path)
    assert about.pop("shuffle") is True
    saving.save_arrays(path, arrays, about)
    loaded = make_trainer(epochs=2)
    loaded.load(path)
    assert bits_of(loaded) == bits_of(saved)
    with pytest.raises(ValueError, match="shuffle was True there and is False here"):
        make_trainer(epochs=2, shuffle=False).load(path)


def test_other_data_are_refused(tmp_path: Path) -> None:
    make_trainer().save(tmp_path / "training.npz")
    other = Trainer(make_net(), X[:50], T[:50], epochs=1, batch_size=10, optimizer=optimizers.SGD())
    with pytest.raises(ValueError, match="is of another training: rows was 53 there and is 50 here"):
        other.load(tmp_path / "training.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.npz"
    trainer = make_trainer(epochs=1, optimizer=optimizers.Momentum(0.1))
    trainer.fit()
    before = bits_of(trainer)

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            trainer.load(path)
        assert str(path) in str(caught.value)
        assert bits_of(trainer) == before

    with pytest.raises(FileNotFoundError):
        trainer.load(path)
    path.write_bytes(b"nonsense")
    refused("not a fastnet file, or it is damaged")
    saving.save_arrays(path, trainer.net.params, {"kind": "a network"})
    refused("is not a training of fastnet, but of another kind: 'a network'")
    trainer.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    refused("damaged")
    trainer.save(path)
    arrays, about = saving.load_arrays(path)
    for key, message in (
        ("losses", "is damaged: KeyError 'losses'"),
        ("params/W1", "'W1' is missing"),
        ("optimizer/velocity/W1", "does not fit the optimizer: .*velocity"),
        ("optimizer/iteration", "does not fit the optimizer: .*iteration"),
        ("best_params/b1", "'b1' is missing"),
    ):
        saving.save_arrays(path, {name: array for name, array in arrays.items() if name != key}, about)
        refused(message)
    for change, message in (
        ({"version": 2}, "has version 2 of its format, not 1"),
        ({"history": None}, "is damaged: TypeError"),
        ({"history": {"iterations_per_epoch": 6, "rows": [{"a": 1}]}}, "is damaged: TypeError"),
        ({"seconds": "long"}, "is damaged: ValueError"),
    ):
        saving.save_arrays(path, arrays, about | change)
        refused(message)
    saving.save_arrays(path, arrays | {"other/W1": arrays["losses"]}, about)
    refused("is damaged: KeyError 'other'")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "training.npz"
    with pytest.raises(OSError, match="nowhere"):
        make_trainer().save(path)


class Plain:
    """An optimizer with as little as can be."""

    def update(self, params: dict[str, Any], grads: dict[str, Any]) -> None:
        for name in params:
            params[name] -= 0.1 * grads[name]


def test_an_optimizer_of_ones_own(tmp_path: Path) -> None:
    trainer = make_trainer(optimizer=Plain(), epochs=2)
    history = trainer.fit()
    assert np.isnan(history["learning_rate"]).all()
    assert "       -" in str(history)
    expected = make_trainer(optimizer=optimizers.SGD(0.1), epochs=2)
    expected.fit()
    for name, p in expected.net.params.items():
        np.testing.assert_allclose(trainer.net.params[name], p, rtol=1e-12)
    with pytest.raises(TypeError, match="optimizer must have a `state_dict` method to be saved, but Plain has none"):
        trainer.save(tmp_path / "training.npz")
    with pytest.raises(TypeError, match="optimizer must have a `load_state_dict` method, but Plain has none"):
        trainer.load(tmp_path / "training.npz")
