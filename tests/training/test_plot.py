"""The picture of a training: what its title and labels say, and that they can be read."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import optimizers
from fastnet.layers import Affine, SoftmaxWithLoss
from fastnet.training import EpochResult, History, Trainer
from fastnet.training.inputs import describe_network, describe_optimizer
from trainings import T_TEST, X_TEST, T, X, make_net, make_trainer

pytest.importorskip("matplotlib")

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def history_of(
    losses: Any,
    per_epoch: int,
    accuracies: tuple[float, float] | None = (0.9, 0.9),
    lowest: float = 0.6,
    rates: tuple[float, float] = (0.001, 0.001),
    optimizer: str = "Adam, learning rate 0.001",
) -> History:
    """A history with these losses, with accuracies that rise from `lowest` to `accuracies`, and with these rates."""
    history = History(per_epoch)
    history.network, history.optimizer = "784-100-100-100-100-100-100-10 network", optimizer
    history.add_losses([float(loss) for loss in losses])
    epochs = math.ceil(len(losses) / per_epoch) if accuracies else 0
    for k in range(1, epochs + 1):
        share = k / epochs
        train, test = (lowest + (last - lowest) * share for last in accuracies or ())
        rate = rates[0] + (rates[1] - rates[0]) * (k - 1) / max(epochs - 1, 1)
        history.rows.append(EpochResult(k, min(k * per_epoch, len(losses)), rate, 1.0, train, test, 1.0, 1.0))
    return history


COSINE = "SGD, learning rate CosineAnnealing(lr=0.1, iterations=20000, warmup=500, final=0.0)"
RNG = np.random.default_rng(0)
HISTORIES = {
    "short": history_of([2.3, 2.2, 2.1, 2.0, 1.9, 1.8], 2),
    "one iteration": history_of([2.3], 600, None),
    "one iteration of an epoch": history_of([2.3], 1, (0.1, 0.1), 0.1),
    "one epoch": history_of(np.linspace(2.3, 0.4, 600), 600, (0.91, 0.905)),
    "within an epoch": history_of(np.linspace(2.3, 0.4, 7), 600, None),
    "long": history_of(0.05 + 2.3 * np.exp(-np.linspace(0, 6, 30_000)), 600, (1.0, 0.9812)),
    "very long": history_of(0.3 + RNG.random(12_345), 3, (1.0, 1.0), 1.0),
    "very small losses": history_of(1e-9 * np.linspace(3, 2.9, 100), 10, (1.0, 1.0), 0.9999),
    "far apart": history_of(np.geomspace(3, 1e-12, 5000), 500, (1.0, 0.1), 0.1),
    "spikes": history_of(np.where(np.arange(4000) % 1000 == 7, 500.0, 1.0), 400, (0.5, 0.5), 0.0),
    "spikes on a logarithmic scale": history_of(
        np.geomspace(3, 1e-2, 4000) * np.where(np.arange(4000) % 1000 == 7, 1e3, 1.0), 400
    ),
    "large losses": history_of(np.linspace(3.1e8, 2.9e8, 100), 10),
    "only zeros": history_of(np.zeros(20), 5),
    "negative": history_of(np.linspace(1, -4, 50), 5),
    "only negative": history_of(np.linspace(-1, -4, 50), 5),
    "schedule": history_of(np.linspace(2.3, 0.4, 600), 60, rates=(0.1, 1e-4), optimizer=COSINE),
}


@pytest.fixture(params=HISTORIES)
def history(request: pytest.FixtureRequest) -> History:
    return HISTORIES[request.param]


def drawn(figure: Any) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def shown_texts(figure: Any) -> list[Text]:
    """All texts that are drawn; an axis keeps labels of ticks that are out of view, too."""
    out_of_view = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - slack <= tick.get_loc() <= high + slack:
                out_of_view |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in out_of_view
    ]


def assert_readable(figure: Any) -> None:
    renderer = drawn(figure).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown_texts(figure)]
    assert len(boxes) > 5
    for text, box in boxes:
        assert box.x0 >= 0, f"{text!r} is cut off"
        assert box.y0 >= 0, f"{text!r} is cut off"
        assert box.x1 <= figure.bbox.x1, f"{text!r} is cut off"
        assert box.y1 <= figure.bbox.y1, f"{text!r} is cut off"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), f"{one!r} and {other!r} overlap"


def test_no_texts_touch(history: History) -> None:
    assert_readable(history.plot())


@pytest.mark.parametrize("last", [(1.0, 1.0), (1.0, 0.999), (0.9, 0.9), (0.0, 0.0), (0.6, 0.61), (0.2, 1.0)])
@pytest.mark.parametrize("lowest", [0.0, 0.6])
def test_the_accuracies_at_the_end_do_not_touch(last: tuple[float, float], lowest: float) -> None:
    assert_readable(history_of(np.linspace(2.3, 0.01, 50), 5, last, lowest).plot())


def test_the_bars_of_a_comparison_can_be_read() -> None:
    x, t = fastnet.datasets.make_digits(2, seed=0)
    methods = ["numpy loop", "backprop"]
    comparison = fastnet.compare_gradients(
        fastnet.TwoLayerNet(784, 4, 10, seed=0), x, t, methods=methods, sample=10, repeat=1
    )
    figure = comparison.plot()
    assert figure.axes[0].get_xlabel().startswith("time, logarithmic scale")
    assert_readable(figure)


def test_the_axes_say_how_they_are_scaled(history: History) -> None:
    losses, *accuracies = history.plot().axes
    label = losses.get_ylabel()
    assert ("logarithmic" in label) == (losses.get_yscale() == "log")
    bottom, top = losses.get_ylim()
    outside = int(((history.losses < bottom) | (history.losses > top)).sum())
    assert (f"{outside:,} of {len(history.losses):,} are outside" in label) == (outside > 0)
    assert losses.get_yscale() == "log" or bottom <= 0
    assert losses.get_xlim()[0] == 0
    for axes in accuracies:
        bottom, top = axes.get_ylim()
        assert top == 1
        assert axes.get_ylabel() == ("accuracy" if bottom == 0 else f"accuracy, axis from {100 * bottom:.0f} %")


def test_what_is_outside_is_counted() -> None:
    assert "4 of 4,000 are outside" in HISTORIES["spikes"].plot().axes[0].get_ylabel()
    label = HISTORIES["spikes on a logarithmic scale"].plot().axes[0].get_ylabel()
    assert label.startswith("loss, logarithmic scale\n")
    assert label.endswith(" of 4,000 are outside")
    assert HISTORIES["short"].plot().axes[0].get_ylabel() == "loss"


# The title ------------------------------------------------------------------------------------------------


def title_of(history: History) -> str:
    return " ".join(text.get_text() for text in history.plot().texts).replace("\n", " ")


def test_the_title_names_network_optimizer_and_learning_rate() -> None:
    net = fastnet.MultiLayerNet(12, [8, 7], 5, use_batchnorm=True, seed=0)
    trainer = Trainer(net, X, T, X_TEST, T_TEST, batch_size=10, epochs=2, optimizer=optimizers.Momentum(0.02))
    assert title_of(trainer.fit()) == "12-8-7-5 (batch norm) network, Momentum, learning rate 0.02"


def test_the_title_gives_a_schedule_and_its_range() -> None:
    history = make_trainer(epochs=2, optimizer=optimizers.SGD(optimizers.StepDecay(0.5, 6))).fit()
    schedule = "StepDecay(lr=0.5, step_size=6, gamma=0.1)"
    assert title_of(history).endswith(f" network, SGD, learning rate {schedule} (0.5 to 0.05)")


def test_a_learning_rate_that_was_changed_is_in_the_title(tmp_path: Any) -> None:
    trainer = make_trainer(epochs=1, optimizer=optimizers.SGD(0.5))
    trainer.fit()
    trainer.save(tmp_path / "training.npz")
    again = make_trainer(epochs=2, optimizer=optimizers.SGD(0.25))
    again.load(tmp_path / "training.npz")
    assert title_of(again.history).endswith("SGD, learning rate 0.5")
    again.optimizer.lr = 0.25
    assert title_of(again.fit()).endswith("SGD, learning rate 0.25 (0.5 to 0.25)")


def test_a_history_of_nobody_has_no_title() -> None:
    history = History(6)
    history.add_losses([1.0, 0.5])
    assert title_of(history) == ""


def test_networks_and_optimizers_of_others() -> None:
    class Own:
        def __init__(self) -> None:
            self.params = {"A": np.ones((3, 2)), "B": np.ones((3, 2))}

    class Rule:
        def update(self, params: Any, grads: Any) -> None:
            pass

    own: Any = Own()
    assert describe_network(own, X) == "Own"
    own.params["B"] = np.ones((2, 4))
    assert describe_network(own, X) == "3-2-4 network"
    own.params["filters"] = np.ones((4, 1, 3, 3))
    assert describe_network(own, X) == "Own"
    assert describe_optimizer(Rule()) == "Rule"
    net = fastnet.Network([Affine(np.ones((3, 2))), Affine(np.ones((2, 4)))], SoftmaxWithLoss())
    assert describe_network(net, X[:, :3]) == "3-2-4 network"
    assert describe_network(make_net(), X).endswith(" network")
    conv = fastnet.SimpleConvNet((1, 6, 6), {"filter_num": 2, "filter_size": 3, "pad": 0, "stride": 1}, 5, 3)
    assert describe_network(conv, np.zeros((2, 1, 6, 6))) == "1×6×6-2×4×4-5-3 (max pooling) network"
