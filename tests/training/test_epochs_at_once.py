"""Several epochs in one stretch, where nothing happens between them: the same as one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnet import optimizers
from fastnet.training import DivergenceError, Trainer, orders
from fastnet.training import trainer as trainer_module
from fastnet.training.fused import FusedTraining
from trainings import OPTIMIZERS, ROWS, T, X, make_layered, make_net


@pytest.fixture
def epochs_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many epochs each stretch had."""
    found: list[int] = []
    run = FusedTraining.run

    def recorded(self: Any, order: Any, batch_size: int, history: Any, epochs: int = 1) -> int:
        found.append(epochs)
        return run(self, order, batch_size, history, epochs)

    monkeypatch.setattr(FusedTraining, "run", recorded)
    monkeypatch.setattr(trainer_module, "STRETCH_SECONDS", 1e9)
    return found


def make(at_once: bool, net: Any = None, **options: Any) -> Trainer:
    """A training whose epochs may be one stretch, or may not because of a callback that does nothing."""
    callbacks = [] if at_once else [lambda trainer: None]
    options = {"batch_size": 10, "epochs": 40} | options
    net = make_net() if net is None else net
    return Trainer(net, X, T, evaluate_train=0, keep_best=False, progress=False, callbacks=callbacks, **options)


def result_of(trainer: Trainer) -> Any:
    """All but times."""
    rows = [(row.epoch, row.iteration, row.learning_rate, row.loss) for row in trainer.history.rows]
    arrays = trainer.net.params | getattr(trainer.net, "state", {}) | trainer.optimizer.state_dict()
    return (
        rows,
        trainer.history.losses.tolist(),
        trainer.best_epoch,
        {k: np.asarray(a).tobytes() for k, a in arrays.items()},
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [10, ROWS])
def test_the_same_as_one_by_one(
    trains: None, epochs_of: list[int], optimizer: str, shuffle: bool, batch_size: int
) -> None:
    found = []
    for at_once in (True, False):
        trainer = make(at_once, batch_size=batch_size, shuffle=shuffle, optimizer=OPTIMIZERS[optimizer]())
        trainer.fit()
        found.append(result_of(trainer))
        assert (max(epochs_of) > 10) == at_once
        epochs_of.clear()
        assert len(trainer.history.rows) == 40
        assert trainer.seconds == pytest.approx(sum(row.seconds for row in trainer.history.rows))
        assert all(row.seconds > 0 for row in trainer.history.rows)
    assert found[0] == found[1]


def test_layers_with_a_state(trains: None, epochs_of: list[int]) -> None:
    found = []
    for at_once in (True, False):
        trainer = make(at_once, make_layered())
        trainer.fit()
        found.append(result_of(trainer))
    assert max(epochs_of) > 10
    assert found[0] == found[1]


@pytest.mark.parametrize("end", [{"epochs": None, "iterations": 47}, {"epochs": 1}])
def test_the_end_of_the_training(trains: None, epochs_of: list[int], end: dict[str, Any]) -> None:
    """It may be within an epoch, and another fit goes on from there."""
    found = []
    for at_once in (True, False):
        trainer = make(at_once, **end)
        trainer.fit()
        trainer.fit(epochs=30)
        found.append(result_of(trainer))
    assert max(epochs_of) > 1
    assert found[0] == found[1]


@pytest.mark.parametrize("options", [{"keep_best": True}, {"evaluate_train": 5}, {"x_test": X, "t_test": T}])
def test_where_something_happens_between_epochs(epochs_of: list[int], options: dict[str, Any]) -> None:
    options = {"evaluate_train": 0, "keep_best": False, "epochs": 10, "batch_size": ROWS} | options
    Trainer(make_net(), X, T, **options).fit()
    assert set(epochs_of) == {1}


def test_orders_do_not_fill_the_memory(trains: None, epochs_of: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MOST_ORDERED", 3 * ROWS)
    make(True).fit()
    assert max(epochs_of) == 3


@pytest.mark.parametrize("ruined", ["b1", "W2"])
def test_divergence(trains: None, epochs_of: list[int], ruined: str) -> None:
    """Found at the end of the same epoch, and with the same words."""
    words = []
    for at_once in (True, False):
        net = make_net()
        trainer = make(at_once, net)
        trainer.fit(epochs=20)
        net.params[ruined].reshape(-1)[-1] = np.inf
        with pytest.raises(DivergenceError) as caught:
            trainer.fit(epochs=20)
        words.append((str(caught.value), trainer.iteration, len(trainer.history.rows)))
    assert words[0] == words[1]


@pytest.mark.parametrize("at", [3, 61, 150])
def test_a_rate_that_is_refused(trains: None, epochs_of: list[int], at: int) -> None:
    """The iterations before it are made, and their epochs are in the history."""
    found = []
    for at_once in (True, False):
        trainer = make(at_once, optimizer=optimizers.SGD(Refused(at)))
        with pytest.raises(ValueError, match="must be finite, not nan"):
            trainer.fit()
        assert trainer.iteration == at
        found.append(result_of(trainer))
    assert found[0] == found[1]


class Refused(optimizers.Schedule):
    """A rate that is no number from an iteration on."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, iteration: int) -> float:
        return 0.1 if iteration < self.at else float("nan")
