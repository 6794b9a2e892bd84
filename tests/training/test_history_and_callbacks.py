"""The history of a training, and its callbacks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet.networks import MultiLayerNet, TwoLayerNet
from fastnet.training import EarlyStopping, History, Trainer, evaluation
from fastnet.training import trainer as trainer_module
from trainings import INPUTS, ROWS, T_TEST, X_TEST, T, X, bits_of, make_net, make_trainer

# History --------------------------------------------------------------------------------------------------


def test_history_is_a_table() -> None:
    trainer = make_trainer(epochs=2, optimizer=optimizers.SGD(optimizers.StepDecay(0.5, 6)), evaluate_train=0)
    lines = str(trainer.fit()).splitlines()
    assert lines[0].split() == ["epoch", "iteration", "rate", "loss", "train", "test", "time"]
    first, second = lines[2].split(), lines[3].split()
    assert (first[:3], second[:3]) == (["1", "6", "0.5"], ["2", "12", "0.05"])
    assert first[3] == f"{np.mean(trainer.history.losses[:6]):.4f}"
    assert first[4] == "-"
    assert second[5] == f"{trainer.net.accuracy(X_TEST, T_TEST):.4f}"
    assert len({len(line) for line in lines[:4]}) == 1
    assert "print it for the table" in repr(trainer.history)


def test_history_as_json() -> None:
    history = make_trainer(iterations=8).fit()
    told = json.loads(json.dumps(history.to_dict(), allow_nan=False))
    assert told["losses"] == history.losses.tolist()
    assert [row["iteration"] for row in told["rows"]] == [6, 8]
    again = History.from_dict(told)
    assert again.rows == history.rows
    assert again.to_dict() == history.to_dict()


def test_columns_of_the_history() -> None:
    history = Trainer(make_net(), X, T, epochs=2, batch_size=10).fit()
    assert np.isnan(history["test_accuracy"]).all()
    assert history["learning_rate"].tolist() == [0.1, 0.1]  # of the optimizer by default
    assert (history["seconds"] > 0).all()
    assert (history["evaluation_seconds"] > 0).all()
    with pytest.raises(KeyError, match="'accuracy' is not a column of a History; these are 'epoch', "):
        history["accuracy"]


def test_evaluation_is_not_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: clock[0])
    net = make_net()

    def taking(seconds: float, method: Any) -> Any:
        def slow(*arguments: Any) -> Any:
            clock[0] += seconds
            return method(*arguments)

        return slow

    monkeypatch.setattr(net, "loss_and_gradient", taking(1.0, net.loss_and_gradient))
    monkeypatch.setattr(net, "accuracy", taking(100.0, net.accuracy))
    history = make_trainer(net, epochs=2, fused=False).fit()
    assert history["seconds"].tolist() == [6, 6]
    assert history["evaluation_seconds"].tolist() == [200, 200]


@pytest.mark.parametrize(("asked", "rows"), [(None, 53), (53, 53), (1000, 53), (9, 9), (1, 1)])
def test_on_how_many_rows_to_evaluate(asked: int | None, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", 8)
    net, sizes = make_net(), []
    accuracy = net.accuracy

    def counted(x: Any, t: Any) -> float:
        sizes.append(len(x))
        return accuracy(x, t)

    monkeypatch.setattr(net, "accuracy", counted)
    trainer = Trainer(net, X, T, epochs=1, batch_size=10, evaluate_train=asked)
    row = trainer.fit().rows[-1]
    assert sum(sizes) == rows
    assert max(sizes) <= 8
    some = np.arange(rows) * ROWS // rows
    assert row.train_accuracy == pytest.approx(accuracy(X[some], T[some]), abs=1e-15)
    assert "train_accuracy" in trainer.measured


@pytest.mark.parametrize("backend", backends.available())
@pytest.mark.parametrize("kind", ["chain", "batch norm", "own"])
@pytest.mark.parametrize("fused", [None, False])
def test_accuracies_are_those_of_the_network(backend: str, kind: str, fused: bool | None) -> None:
    """Of each epoch: rows that are asked for again are prepared by the backend, unless `accuracy` is somebody's own."""

    class Own(TwoLayerNet):
        def accuracy(self, x: Any, t: Any, batch_size: int | None = None) -> float:
            return super().accuracy(x, (np.asarray(t) + 1) % 10, batch_size)

    x, t = fastnet.datasets.make_digits(230, seed=0)
    with fastnet.use_backend(backend):
        nets: dict[str, Any] = {
            "chain": lambda: TwoLayerNet(784, 6, 10, seed=0),
            "batch norm": lambda: MultiLayerNet(784, [6, 5], 10, use_batchnorm=True, dropout_ratio=0.2, seed=0),
            "own": lambda: Own(784, 6, 10, seed=0),
        }
        net, found = nets[kind](), []
        data = x[:130], t[:130], x[130:], t[130:]

        def measure(_: Trainer) -> None:
            found.append((net.accuracy(*data[:2]), net.accuracy(*data[2:])))

        rows = Trainer(net, *data, epochs=3, batch_size=50, fused=fused, callbacks=[measure]).fit().rows
    assert [(row.train_accuracy, row.test_accuracy) for row in rows] == found
    assert len(found) == 3


def test_one_output_has_no_accuracy() -> None:
    """There is no likeliest class then: the best epoch is that of the lowest loss."""
    net = TwoLayerNet(INPUTS, 3, 1, seed=0)
    trainer = Trainer(net, X, np.zeros(ROWS, int), X_TEST, np.zeros(31, int), epochs=1, batch_size=10)
    assert trainer.measured == ("loss",)
    row = trainer.fit().rows[0]
    assert (row.train_accuracy, row.test_accuracy) == (None, None)


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    history = make_trainer().fit()
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    losses, accuracies = figure.axes
    np.testing.assert_allclose(accuracies.lines[1].get_ydata(), history["test_accuracy"])
    texts = [text.get_text() for text in accuracies.texts]
    assert f"test data {100 * history['test_accuracy'][-1]:.2f} %" in texts
    assert losses.get_xlim() == (0, 5)
    assert losses.lines[-1].get_ydata()[-1] == pytest.approx(history.losses[-1])
    assert accuracies.get_xlabel() == "epochs of 6 iterations"
    history.plot(tmp_path / "curves.svg")
    history.plot()


def test_plots_of_other_histories(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="history has no iterations"):
        make_trainer().history.plot()
    with pytest.raises(ValueError, match="a plot's file name must end in one of"):
        make_trainer(iterations=1).fit().plot(tmp_path / "curves.xyz")
    alone = Trainer(make_net(), X, T, iterations=1, batch_size=10, evaluate_train=0).fit()
    assert len(alone.plot(tmp_path / "one.png").axes) == 1
    history = History(6)
    history.add_losses(list(np.geomspace(3, 1e-3, 600)))  # interrupted within its first epoch
    (axes,) = history.plot(tmp_path / "long.png").axes
    assert axes.get_yscale() == "log"
    for line in axes.lines:
        low, high = axes.get_ylim()
        assert low < np.min(line.get_ydata()) * 2
        assert high > np.max(line.get_ydata())
    history.add_losses([0.0])
    assert history.plot().axes[0].get_yscale() in ("linear", "log")


# Callbacks ------------------------------------------------------------------------------------------------


def test_callbacks_come_after_each_epoch_in_their_order() -> None:
    calls: list[Any] = []
    trainer = make_trainer(
        epochs=2,
        callbacks=[
            lambda trainer: calls.append((trainer, len(trainer.history.rows), trainer.best_epoch is not None)),
            lambda trainer: calls.append("second"),
        ],
    )
    trainer.fit()
    assert calls == [(trainer, 1, True), "second", (trainer, 2, True), "second"]


def test_stop() -> None:
    def after_two(trainer: Trainer) -> None:
        if trainer.epoch == 2:
            trainer.stop()

    trainer = make_trainer(callbacks=[after_two])
    trainer.fit()
    assert trainer.epoch == 2
    trainer.fit()
    assert trainer.epoch == 5


def test_a_callback_that_raises_is_called_again() -> None:
    calls: list[float] = []

    def fails_once(trainer: Trainer) -> None:
        calls.append(trainer.epoch)
        if len(calls) == 2:
            raise RuntimeError("no")

    trainer = make_trainer(epochs=3, callbacks=[fails_once])
    with pytest.raises(RuntimeError, match="no"):
        trainer.fit()
    assert trainer.epoch == 2
    trainer.fit()
    assert calls == [1, 2, 2, 3]
    expected = make_trainer(epochs=3)
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)


def test_a_callback_must_not_call_fit() -> None:
    trainer = make_trainer(callbacks=[lambda trainer: trainer.fit()])
    with pytest.raises(RuntimeError, match="fit is already running"):
        trainer.fit()


class Recorded:
    """As much of a Trainer as EarlyStopping looks at."""

    measured = ("loss", "test_accuracy")

    def __init__(self, name: str, values: list[float]) -> None:
        self.history: Any = {name: np.array(values)}
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("named", "values", "stops"),
    [
        ({"patience": 2}, [0.1, 0.5, 0.4], False),
        ({"patience": 2}, [0.1, 0.5, 0.4, 0.5], True),
        ({"patience": 2}, [0.1, 0.5, 0.4, 0.6, 0.5], False),
        ({"patience": 1}, [0.5], False),
        ({"patience": 1}, [0.5, 0.5], True),
        ({"patience": 2, "min_delta": 0.05}, [0.5, 0.54, 0.549], True),
        ({"patience": 2, "min_delta": 0.05}, [0.5, 0.54, 0.551], False),
        ({"patience": 2, "monitor": "loss"}, [3.0, 2.0, 1.0], False),
        ({"patience": 2, "monitor": "loss"}, [1.0, 2.0, 3.0], True),
    ],
)
def test_early_stopping(named: dict[str, Any], values: list[float], stops: bool) -> None:
    trainer: Any = Recorded(named.get("monitor", "test_accuracy"), values)
    EarlyStopping(**named)(trainer)
    assert trainer.stopped is stops


def test_early_stopping_ends_a_training() -> None:
    """Without learning, after as many epochs more as it has patience."""
    trainer = make_trainer(optimizer=optimizers.SGD(1e-12), epochs=50, callbacks=[EarlyStopping(3)])
    trainer.fit()
    assert trainer.epoch == 4


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience must be at least 1, not 0"),
        ({"patience": 1.5}, TypeError, "patience must be an integer"),
        (
            {"patience": 1, "monitor": "accuracy"},
            ValueError,
            "monitor must be one of 'test_accuracy', .*not 'accuracy'",
        ),
        ({"patience": 1, "min_delta": -0.1}, ValueError, "min_delta must be at least 0, not -0.1"),
        ({"patience": 1, "min_delta": math.nan}, ValueError, "min_delta must be finite"),
    ],
)
def test_early_stopping_of_nonsense(named: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EarlyStopping(**named)


def test_early_stopping_by_what_is_not_measured() -> None:
    with pytest.raises(ValueError, match="EarlyStopping monitors the test_accuracy, which this training does not"):
        Trainer(make_net(), X, T, epochs=1, batch_size=10, callbacks=[EarlyStopping(1)])
    with pytest.raises(ValueError, match="EarlyStopping monitors the train_accuracy"):
        make_trainer(evaluate_train=0, callbacks=[EarlyStopping(1, monitor="train_accuracy")])
    make_trainer(
        callbacks=[EarlyStopping(1), EarlyStopping(1, monitor="train_accuracy"), EarlyStopping(1, monitor="loss")]
    )
