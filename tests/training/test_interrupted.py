"""What ends a training early: divergence and Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet.networks import MultiLayerNet
from fastnet.training import DivergenceError, Trainer
from platforms import NEEDS_SIGINT
from trainings import (
    CLASSES,
    INPUTS,
    T,
    X,
    assert_same,
    bits_of,
    copy_params,
    make_layered,
    make_net,
    make_trainer,
)

# Divergence -----------------------------------------------------------------------------------------------


class Ruins(optimizers.SGD):
    """SGD at a rate of 0.3 whose update number `at`, from 0, ends as that of a much higher one does.

    From number 9 on the rate is 0.15.
    """

    def __init__(self, at: int) -> None:
        super().__init__(optimizers.StepDecay(0.3, 9, 0.5))
        self.at = at

    def step(self, p: Any, g: Any, *others: Any) -> None:
        super().step(p, g, *others)
        if self.iteration == self.at:
            p *= np.inf


@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_a_loss_that_is_no_number(gradient: str, backend: Any) -> None:
    """The update after it is not made; the best parameters are kept, and the training can go on from them."""
    trainer = make_trainer(optimizer=Ruins(at=8), gradient=gradient)
    with pytest.raises(DivergenceError, match=r"^the loss is (nan|inf) at iteration 10 \(epoch 1\.667\)") as caught:
        trainer.fit()
    message = str(caught.value)
    assert "with the learning rate 0.15: train with a lower learning rate; restore_best() brings back" in message
    assert "the parameters of epoch 1, the best so far" in message
    assert isinstance(caught.value, FloatingPointError)
    assert (caught.value.iteration, caught.value.learning_rate) == (10, 0.15)
    assert trainer.iteration == trainer.optimizer.iteration == 9
    assert np.isfinite(trainer.history.losses).all()
    assert not math.isfinite(trainer.net.loss(X, T))

    expected = make_trainer(epochs=1, gradient=gradient)
    expected.fit()
    assert trainer.best_params is not None
    assert_same(trainer.best_params, expected.net.params)
    trainer.restore_best()
    trainer.optimizer.at = -1
    trainer.fit()
    assert trainer.iteration == 30


def test_divergence_leaves_the_state_alone() -> None:
    trainer = make_trainer(make_layered(), optimizer=Ruins(at=3))
    before: list[Any] = []
    update = trainer.optimizer.update

    def noted(*arguments: Any) -> None:
        update(*arguments)
        before[:] = [{name: array.copy() for name, array in trainer.net.state.items()}]

    trainer.optimizer.update = noted
    with pytest.raises(DivergenceError, match="the loss is nan at iteration 5"):
        trainer.fit()
    assert_same(trainer.net.state, before[0])


@pytest.mark.parametrize("name", backends.available())
def test_a_rate_that_is_too_high(name: str) -> None:
    """Whatever the backend: an error, and no warning before it."""
    with fastnet.use_backend(name):
        net = MultiLayerNet(INPUTS, [8, 8, 8], CLASSES, dtype="float32", seed=0)
        trainer = make_trainer(net, optimizer=optimizers.SGD(1e30))
        with pytest.raises(DivergenceError, match=r"with the learning rate 1e\+30: train with a lower learning rate"):
            trainer.fit()


def test_a_loss_that_is_no_number_from_the_start() -> None:
    trainer = make_trainer()
    trainer.net.params["b2"][0] = np.nan
    before = copy_params(trainer.net)
    with pytest.raises(DivergenceError, match=r"the loss is nan at iteration 1 .*; there are no best parameters to go"):
        trainer.fit()
    assert trainer.iteration == 0
    assert_same(trainer.net.params, before)


def test_the_last_update_of_an_epoch_ruins_it() -> None:
    """No loss tells: the parameters themselves do."""
    trainer = make_trainer(epochs=1, optimizer=Ruins(at=5))
    what = r"^params\['W1'\] holds NaN or infinities after the update at iteration 6 \(epoch 1\) with .* rate 0\.3: "
    with pytest.raises(DivergenceError, match=what) as caught:
        trainer.fit()
    assert caught.value.iteration == trainer.iteration == 6
    assert trainer.best_epoch is None
    assert trainer.history.rows == []


# Ctrl-C ---------------------------------------------------------------------------------------------------

INTERRUPTED = """
    import json, os, signal, threading, time
    import numpy as np
    import fastnet
    from fastnet import optimizers

    x, t = fastnet.datasets.make_digits(300, seed=0)

    def make():
        net = fastnet.TwoLayerNet(784, 20, 10, seed=0)
        return fastnet.Trainer(
            net, x, t, x[:50], t[:50], optimizer=optimizers.Adam(), batch_size=10, epochs=12, gradient=GRADIENT
        )

    def bits(trainer):
        arrays = {**trainer.net.params, **trainer.best_params, **trainer.optimizer.state_dict()}
        losses = trainer.history.losses.tolist()
        return [[a.tobytes().hex() for a in arrays.values()], losses, trainer.history["test_accuracy"].tolist()]

    expected = make()
    expected.fit()
    seconds = expected.history["seconds"].sum()
    interrupted = []
    trainer = make()
    rng = np.random.default_rng(0)
    done = False
    while not done:
        timer = threading.Timer(rng.uniform(0, seconds / 4), os.kill, (os.getpid(), signal.SIGINT))
        try:
            try:
                timer.start()
                trainer.fit()
                done = True
            finally:
                timer.cancel()
                timer.join()
        except KeyboardInterrupt:  # wherever it comes in all this
            same = trainer.iteration == trainer.optimizer.iteration == len(trainer.history.losses)
            interrupted.append([trainer.iteration, same])
    print(json.dumps([interrupted, bits(trainer) == bits(expected), trainer.iteration]))
"""


@NEEDS_SIGINT
@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
def test_ctrl_c(run_python: Callable[..., Any], gradient: str) -> None:
    """However often it comes, at whatever time: a whole number of updates, and the same bits in the end."""
    program = INTERRUPTED.replace("GRADIENT", repr(gradient))
    interrupted, same, iterations = run_python(program, OMP_NUM_THREADS="1")
    assert len(interrupted) > 1
    assert all(consistent for _, consistent in interrupted)
    assert [made for made, _ in interrupted] == sorted(made for made, _ in interrupted)
    assert any(0 < made < 360 for made, _ in interrupted)
    assert iterations == 360
    assert same


@NEEDS_SIGINT
def test_ctrl_c_waits_for_the_end_of_an_update(ctrl_c: Callable[[], None]) -> None:
    class Interrupted(optimizers.Momentum):
        def step(self, *arguments: Any) -> None:
            if self.iteration == 8:
                ctrl_c()  # four times, once for each parameter
            super().step(*arguments)

    trainer = make_trainer(optimizer=Interrupted(0.1))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.iteration == trainer.optimizer.iteration == 9
    trainer.fit()
    expected = make_trainer(optimizer=optimizers.Momentum(0.1))
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)


@NEEDS_SIGINT
@pytest.mark.parametrize("make", [make_net, make_layered])
@pytest.mark.parametrize("where", ["accuracy", "loss_and_gradient"])
@pytest.mark.parametrize("call", [1, 2, 7])
def test_ctrl_c_elsewhere(
    make: Callable[[], Any], where: str, call: int, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a pass in training has already changed the state, in an iteration that is not made."""
    net = make()
    method, calls = getattr(net, where), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        answer = method(*arguments)
        if len(calls) == call:
            ctrl_c()
        return answer

    monkeypatch.setattr(net, where, interrupted)
    trainer = make_trainer(net, fused=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.iteration == trainer.optimizer.iteration
    trainer.fit()
    expected = make_trainer(make())
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)


@NEEDS_SIGINT
def test_a_training_that_becomes_shorter_than_what_was_made(ctrl_c: Callable[[], None]) -> None:
    """Its last row has the accuracies of the parameters that there are."""

    class Interrupted(optimizers.Momentum):
        def step(self, *arguments: Any) -> None:
            if self.iteration == 8:
                ctrl_c()
            super().step(*arguments)

    trainer = make_trainer(optimizer=Interrupted(0.1))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.iterations = 8
    trainer.fit()
    assert [row.iteration for row in trainer.history.rows] == [6, 9]
    assert trainer.history.rows[-1].test_accuracy is not None


@NEEDS_SIGINT
@pytest.mark.parametrize("shuffle", [True, False])
def test_ctrl_c_in_a_stretch_of_several_epochs(ctrl_c: Callable[[], None], shuffle: bool) -> None:
    """It leaves the rows of the epochs that have ended, and the training goes on with the same bits."""

    def make() -> Trainer:
        options = {"epochs": 10**6, "shuffle": shuffle, "batch_size": 10, "evaluate_train": 0, "keep_best": False}
        return Trainer(make_net(), X, T, **options)

    interrupted, whole, complete = make(), make(), []
    for _ in range(3):
        timer = threading.Timer(0.3, ctrl_c)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            interrupted.fit()
        timer.join()
        epochs, rest = divmod(interrupted.iteration, interrupted.iterations_per_epoch)
        assert epochs > 10
        rows = len(interrupted.history.rows)
        assert rows <= epochs
        complete.append(rows >= epochs - (rest == 0))
    assert any(complete)  # all, unless Ctrl-C comes just between a stretch and its rows: then `fit` adds them
    interrupted.iterations = whole.iterations = (epochs + 3) * whole.iterations_per_epoch
    interrupted.fit()
    whole.fit()
    assert bits_of(interrupted) == bits_of(whole)


def interrupted_at(line: int, trainer: Trainer) -> bool:
    """Fit with a Ctrl-C at that line of what keeps the books, counted from 0. Returns whether there were so many."""
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if Path(frame.f_code.co_filename).name not in ("trainer.py", "fused.py", "interrupts.py", "staged.py"):
            return None
        if event == "line":
            left -= 1
            if left == -1:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        trainer.fit()
    except KeyboardInterrupt:
        assert left < 0
    finally:
        sys.settrace(None)
    return left < 0


@NEEDS_SIGINT
@pytest.mark.parametrize(("make", "every"), [(make_net, 3), (make_layered, 41)])
@pytest.mark.parametrize("fused", [None, False])
def test_ctrl_c_at_any_line(
    make: Callable[[], Any], every: int, fused: bool | None, ctrl_c: Callable[[], None]
) -> None:
    """What was trained is counted once, wherever Ctrl-C comes, and the training goes on with the same bits.

    The same lines come in each iteration, so that every third line leaves none out. Layers have many more.
    """
    expected = make_trainer(make(), iterations=3, fused=False)
    params = [copy_params(expected.net)]
    for iteration in range(3):
        expected.iterations = iteration + 1
        expected.fit()
        params.append(copy_params(expected.net))
    line = 0
    while True:
        trainer = make_trainer(make(), iterations=3, fused=fused)
        if not interrupted_at(line, trainer):
            break
        assert trainer.iteration == trainer.optimizer.iteration == len(trainer.history.losses), line
        assert_same(trainer.net.params, params[trainer.iteration])
        trainer.fit()
        assert trainer.iteration == trainer.optimizer.iteration == 3, line
        assert_same(trainer.net.params, params[3])
        line += every
    assert line > 100


@NEEDS_SIGINT
def test_a_handler_that_raises_nothing_ends_nothing() -> None:
    """A program with a handler of its own, which takes a note, trains on, also where a kernel was running."""
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        trainer, expected = make_trainer(), make_trainer()
        expected.fit()
        assert interrupted_at(60, trainer)
        assert came == [1]
        assert bits_of(trainer) == bits_of(expected)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread() -> None:
    trainer = make_trainer()
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    expected = make_trainer()
    expected.fit()
    assert bits_of(trainer) == bits_of(expected)


@NEEDS_SIGINT
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_are_not_pythons_are_left_alone(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        make_trainer(epochs=1).fit()
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)
