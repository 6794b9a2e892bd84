"""What ends a training early, and how it goes on: divergence, Ctrl-C, files."""

from __future__ import annotations

import math
import os
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
from fastnet import backends, optimizers, saving
from fastnet.networks import MultiLayerNet, TwoLayerNet
from fastnet.training import DivergenceError, Trainer
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

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
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


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends SIGINT to this process, whose handler is Python's own while the test runs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


NEEDS_SIGINT = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")


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


# Saving and going on --------------------------------------------------------------------------------------


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
