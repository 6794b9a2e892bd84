"""``fastnet train``: what it prints and writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import cli, datasets, optimizers, saving
from fastnet._tools import progress
from platforms import NEEDS_SIGINT

SMALL = ["train", "--data", "digits", "--train-size", 200, "--test-size", 50, "--hidden", 8, "--batch", 20]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], with_threads: Callable[[int], None]) -> Callable[..., str]:
    """Runs the command line in this process, and gives back what it printed."""

    def main(*arguments: object, code: int = 0) -> str:
        assert cli.main([str(argument) for argument in arguments]) == code
        return capsys.readouterr().out

    return main


def rows_of(out: str) -> list[list[str]]:
    """The cells of the table, without the times."""
    return [line.split()[:6] for line in out.splitlines() if re.fullmatch(r" +[\d.]+ +[\d,]+ +.* (s|ms|µs)", line)]


def accuracy_of(out: str) -> float:
    found = re.fullmatch(r"test accuracy: (0\.\d{4}|1\.0000)", out.splitlines()[-1])
    assert found, out
    return float(found[1])


# What it does ---------------------------------------------------------------------------------------------


def test_without_any_option(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find_mnist", lambda data_dir=None: None)
    out = run("train")
    lines = out.splitlines()
    why = ", since there is no MNIST (see --data-dir)"
    assert lines[0] == f"data: 5,000 digits drawn by fastnet{why}, to train with; 1,000 to test with"
    assert lines[1] == "784-50-10 network of 39,760 parameters, float32, relu"
    assert lines[2] == (
        "backprop, Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08), batches of 100: 500 iterations, 10 epochs"
    )
    assert [row[:2] for row in rows_of(out)] == [[str(k), str(50 * k)] for k in range(1, 11)]
    assert accuracy_of(out) > 0.9
    assert max(row[5] for row in rows_of(out)) == f"{accuracy_of(out):.4f}"


@pytest.mark.mnist
def test_mnist(run: Callable[..., str], mnist_test_set: Any) -> None:
    out = run("train", "--train-size", 6000, "--epochs", 5)
    assert out.startswith("data: 6,000 images of MNIST to train with; 10,000 to test with\n")
    assert accuracy_of(out) > 0.9


def test_numerical_gradients_learn_as_backprop_does(run: Callable[..., str]) -> None:
    arguments = [*SMALL, "--activation", "sigmoid", "--optimizer", "momentum", "--lr", 0.2, "--dtype", "float64"]
    by_backprop, by_numerical = (run(*arguments, "--gradient", kind) for kind in ("backprop", "numerical"))
    assert "\nnumerical gradients (h = 0.0001, auto), Momentum(lr=0.2, momentum=0.9), batches of 20" in by_numerical
    assert rows_of(by_backprop) == rows_of(by_numerical)
    out = run(*SMALL, "--gradient", "numerical", "--algorithm", "loop", "--h", "1e-2", "--iterations", 1)
    assert "\nnumerical gradients (h = 0.01, loop), Adam" in out


def test_the_training_is_the_trainers(run: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    out = run(*SMALL, "--optimizer", "sgd", "--seed", 3, "--epochs", 2, "--save", path)
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32", seed=3)
    trainer = fastnet.Trainer(
        net,
        *datasets.make_digits(200, seed=6),
        *datasets.make_digits(50, seed=7),
        optimizer=optimizers.SGD(0.1),
        batch_size=20,
        epochs=2,
        seed=3,
    )
    history = trainer.fit()
    assert out.splitlines()[4:8] == str(history).splitlines()[:4] or rows_of(out) == rows_of(str(history))
    trainer.restore_best()
    saved = fastnet.MultiLayerNet(784, [8], 10, dtype="float32", seed=99)
    saved.load_params(path)
    for name, p in net.params.items():
        np.testing.assert_array_equal(saved.params[name], p)


def test_networks(run: Callable[..., str]) -> None:
    out = run(*SMALL, "--hidden", 7, 6, "--activation", "tanh", "--weight-decay", "1e-4", "--dtype", "float64")
    assert "\n784-7-6-10 network of 5,613 parameters, float64, tanh, weight decay 0.0001\n" in out
    out = run(*SMALL, "--batchnorm", "--dropout", 0.2, "--init", "xavier", "--epochs", 2)
    assert "\n784-8-10 (batch norm, dropout) network of 6,386 parameters, float32, relu, dropout ratio 0.2\n" in out


@pytest.mark.parametrize(
    ("activation", "given", "std"),
    [
        ("relu", None, np.sqrt(2 / 784)),
        ("leaky_relu", None, np.sqrt(2 / 784)),
        ("sigmoid", None, np.sqrt(1 / 784)),
        ("tanh", None, np.sqrt(1 / 784)),
        ("relu", "xavier", np.sqrt(1 / 784)),
        ("sigmoid", "he", np.sqrt(2 / 784)),
        ("relu", "0.01", 0.01),
    ],
)
def test_the_weights_at_the_start(
    activation: str, given: str | None, std: float, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(fastnet.Trainer, "fit", lambda trainer: seen.append(trainer.net.params["W1"].std()))
    run(*SMALL, "--hidden", 100, "--activation", activation, *(["--init", given] if given else []))
    assert seen[0] == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--optimizer", "sgd"], "SGD(lr=0.1)"),
        (["--optimizer", "momentum"], "Momentum(lr=0.01, momentum=0.9)"),
        (["--optimizer", "nesterov", "--momentum", "0.5", "--lr", "0.2"], "Nesterov(lr=0.2, momentum=0.5)"),
        (["--optimizer", "adagrad"], "AdaGrad(lr=0.01, eps=1e-10)"),
        (["--optimizer", "rmsprop", "--lr", "1e-3"], "RMSprop(lr=0.001, decay_rate=0.99, eps=1e-08)"),
        (["--optimizer", "sgd", "--schedule", "step"], "SGD(lr=StepDecay(lr=0.1, step_size=7, gamma=0.1))"),
        (
            ["--optimizer", "sgd", "--schedule", "cosine", "--warmup", "5"],
            "SGD(lr=CosineAnnealing(lr=0.1, iterations=20, warmup=5, final=0.0))",
        ),
    ],
)
def test_optimizers_and_schedules(arguments: list[str], shown: str, run: Callable[..., str]) -> None:
    assert f"\nbackprop, {shown}, batches of 20: 20 iterations, 2 epochs\n" in run(*SMALL, "--epochs", 2, *arguments)


def test_iterations(run: Callable[..., str]) -> None:
    out = run(*SMALL, "--iterations", 25)
    assert [row[:2] for row in rows_of(out)] == [["1", "10"], ["2", "20"], ["2.5", "25"]]
    assert re.search(r"\n25 iterations in [\d.]+ (s|ms)\n", out)


def test_threads(run: Callable[..., str]) -> None:
    run(*SMALL, "--iterations", 1, "--threads", 1)
    assert fastnet.get_num_threads() == 1


# Files ----------------------------------------------------------------------------------------------------


def test_json_and_plot(run: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, picture = tmp_path / "results.json", tmp_path / "curves.png"
    out = run(*SMALL, "--epochs", 3, "--lr", 0.01, "--json", results, "--plot", picture)
    read = json.loads(results.read_text(encoding="utf-8"))
    assert read["data"] == "200 digits drawn by fastnet, to train with; 50 to test with"
    assert read["parameters"] == {"W1": [784, 8], "b1": [8], "W2": [8, 10], "b2": [10]}
    assert read["options"]["lr"] == 0.01
    assert read["options"]["plot"] == str(picture)
    assert len(read["history"]["losses"]) == 30
    assert [f"{row['test_accuracy']:.4f}" for row in read["history"]["rows"]] == [row[5] for row in rows_of(out)]
    assert f"{read['test_accuracy']:.4f}" == f"{accuracy_of(out):.4f}"
    assert read["complete"] is True
    assert read["build_info"] == fastnet.build_info()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_best_parameters_are_saved(run: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    out = run(*SMALL, "--optimizer", "rmsprop", "--lr", 0.05, "--epochs", 8, "--save", path)
    found = re.search(r"\nbest test accuracy: ([\d.]+), after epoch (\d)\n", out)
    assert found
    assert f"\nthe parameters of epoch {found[2]}, the best, are in {path}\n" in out
    assert float(found[1]) == max(float(row[5]) for row in rows_of(out))
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(path)
    assert f"{net.accuracy(*datasets.make_digits(50, seed=1)):.4f}" == found[1]


def test_the_last_line_is_the_accuracy_of_what_was_saved(run: Callable[..., str], tmp_path: Path) -> None:
    path, results = tmp_path / "net.npz", tmp_path / "results.json"
    for seed in range(20):
        out = run(*SMALL, "--lr", 0.1, "--epochs", 6, "--seed", seed, "--save", path, "--json", results)
        if rows_of(out)[-1][5] < max(row[5] for row in rows_of(out)):
            break  # The end is not the best.
    else:
        pytest.fail("each training was best at its end")
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(path)
    accuracy = net.accuracy(*datasets.make_digits(50, seed=2 * seed + 1))
    assert f"{accuracy:.4f}" == f"{accuracy_of(out):.4f}"
    assert json.loads(results.read_text(encoding="utf-8"))["test_accuracy"] == accuracy


def test_a_training_without_best_parameters_saves_those_of_the_end(run: Callable[..., str], tmp_path: Path) -> None:
    checkpoint, path = tmp_path / "training.npz", tmp_path / "net.npz"
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32", seed=0)
    digits = (*datasets.make_digits(200, seed=0), *datasets.make_digits(50, seed=1))
    trainer = fastnet.Trainer(net, *digits, batch_size=20, epochs=1, optimizer=optimizers.Adam(), keep_best=False)
    trainer.fit()
    trainer.save(checkpoint)
    out = run(*SMALL, "--epochs", 1, "--resume", checkpoint, "--save", path)
    assert f"\nthe parameters of the end are in {path}\n" in out
    saved = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    saved.load_params(path)
    np.testing.assert_array_equal(saved.params["W1"], net.params["W1"])
    assert f"{net.accuracy(*digits[2:]):.4f}" == f"{accuracy_of(out):.4f}"


def test_going_on(run: Callable[..., str], tmp_path: Path) -> None:
    path, net, again = tmp_path / "training.npz", tmp_path / "net.npz", tmp_path / "again.npz"
    whole = run(*SMALL, "--epochs", 4, "--save", net)
    run(*SMALL, "--epochs", 2, "--checkpoint", path)
    out = run(*SMALL, "--epochs", 4, "--resume", path, "--checkpoint", path, "--save", again)
    assert f"\ncontinuing after 20 iterations (2 epochs), from {path}\n" in out
    assert rows_of(out) == rows_of(whole)
    assert accuracy_of(out) == accuracy_of(whole)
    assert again.read_bytes() == net.read_bytes()
    assert re.search(r"\n40 iterations in ", run(*SMALL, "--epochs", 4, "--resume", path, "--save", again))
    assert again.read_bytes() == net.read_bytes()


def test_files_that_cannot_be_written_after_all(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "net.npz")

    monkeypatch.setattr(fastnet.MultiLayerNet, "save_params", full)
    assert cli.main([*map(str, SMALL), "--save", str(tmp_path / "net.npz")]) == 1
    assert capsys.readouterr().err == ("fastnet: error: can't write: [Errno 28] No space left on device: 'net.npz'\n")


# What goes wrong ------------------------------------------------------------------------------------------


def test_divergence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, results, checkpoint = tmp_path / "net.npz", tmp_path / "results.json", tmp_path / "training.npz"
    files = ["--save", path, "--json", results, "--checkpoint", checkpoint]
    arguments = [*SMALL, "--hidden", 8, 8, 8, "--optimizer", "sgd", "--lr", "1e30", *files]
    assert cli.main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert re.match(r"fastnet: error: the loss is (nan|inf) at iteration \d .* with the learning rate 1e\+30: ", err)
    assert err.count("\n") == 1
    assert "test accuracy" not in out
    read = json.loads(results.read_text(encoding="utf-8"))
    assert (read["complete"], read["test_accuracy"]) == (False, None)
    assert not path.exists()
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", 0], "argument --epochs: the number must be at least 1, not 0"),
        (["--iterations", "many"], "argument --iterations: 'many' is not an integer"),
        (["--epochs", 1, "--iterations", 1], "argument --iterations: not allowed with argument --epochs"),
        (["--batch", 201], "argument --batch: there are 200 images to train with, not 201"),
        (["--train-size", 0], "argument --train-size: the number must be at least 1, not 0"),
        (["--lr", 0], "argument --lr: the number must be positive, not 0.0"),
        (["--lr", "nan"], "argument --lr: the number must be finite, not nan"),
        (["--momentum", 0.5], "argument --momentum: it is for momentum and nesterov, not for adam"),
        (["--momentum", 1], "argument --momentum: the number must be at least 0 and less than 1, not 1.0"),
        (["--dropout", 1], "argument --dropout: the number must be at least 0 and less than 1, not 1.0"),
        (["--weight-decay", -1], "argument --weight-decay: the number must be at least 0, not -1.0"),
        (["--init", "big"], "argument --init: 'big' is not a number"),
        (["--warmup", 5], "argument --warmup: it is for --schedule cosine"),
        (["--schedule", "cosine", "--warmup", 100], "argument --warmup: warmup must be less than the 100 iterations"),
        (["--h", 0.1], "argument --h: it is for --gradient numerical"),
        (["--algorithm", "loop"], "argument --algorithm: it is for --gradient numerical"),
        (["--gradient", "numerical", "--h", "1e-60"], "argument --h: h must be positive and finite in float32"),
        (["--optimizer", "lion"], "argument --optimizer: invalid choice: 'lion'"),
        (["--activation", "swish"], "argument --activation: invalid choice: 'swish'"),
        (["--seed", -1], "argument --seed: the number must be at least 0, not -1"),
        (["--resume", "nowhere.npz"], "argument --resume: there is no file 'nowhere.npz'"),
        (["--save", "nowhere/net.npz"], "argument --save: can't write 'nowhere/net.npz': "),
        (["--checkpoint", "nowhere/net.npz"], "argument --checkpoint: can't write 'nowhere/net.npz': "),
        (["--json", "."], "argument --json: can't write '.': "),
    ],
)
def test_bad_arguments(arguments: list[object], message: str, refuse: Callable[..., str]) -> None:
    assert refuse(*SMALL, *arguments).startswith(message)


def test_sizes_beyond_mnist(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = np.zeros((7, 784), np.float32), np.zeros(7, np.int64)
    monkeypatch.setattr(datasets, "find_mnist", lambda data_dir=None: tmp_path)
    monkeypatch.setattr(datasets, "load_mnist", lambda **named: (images, images))
    for what in ("train", "test"):
        message = f"argument --{what}-size: MNIST has 7 such images, not 8"
        assert refuse("train", f"--{what}-size", 8) == message
    assert refuse("train") == "argument --batch: there are 7 images to train with, not 100"


def test_another_training_is_not_gone_on_with(refuse: Callable[..., str], run: Any, tmp_path: Path) -> None:
    path = tmp_path / "training.npz"
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    x, t = datasets.make_digits(200, seed=0)
    fastnet.Trainer(net, x, t, batch_size=20, epochs=1, optimizer=optimizers.Adam()).save(path)
    start = f"argument --resume: {path} "
    other = f"{start}is of another training: seed was 0 there and is 1 here"
    assert refuse(*SMALL, "--resume", path, "--seed", 1) == other
    assert refuse(*SMALL, "--resume", path, "--hidden", 9).startswith(f"{start}does not fit")
    saving.save_arrays(path, {}, {})
    assert refuse(*SMALL, "--resume", path).startswith(f"{start}is not a training of fastnet")
    path.write_bytes(b"")
    assert refuse(*SMALL, "--resume", path).startswith(f"{start}is not a fastnet file, or it is damaged")


def test_an_algorithm_that_is_not_for_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    with fastnet.use_backend("numpy"), pytest.raises(SystemExit) as ended:
        cli.main([*map(str, SMALL), "--batchnorm", "--gradient", "numerical", "--algorithm", "nodal"])
    assert ended.value.code == 2
    assert "error: the 'numpy' backend has no algorithm 'nodal'" in capsys.readouterr().err


# Ctrl-C ---------------------------------------------------------------------------------------------------


@NEEDS_SIGINT
def test_ctrl_c_keeps_what_was_learnt(
    start: Callable[..., subprocess.Popen[str]], run: Callable[..., str], tmp_path: Path
) -> None:
    files = ["--save", tmp_path / "net.npz", "--checkpoint", tmp_path / "training.npz", "--json", tmp_path / "r.json"]
    process = start(*SMALL, "--epochs", 100_000, *files)
    assert process.stdout is not None
    lines = []
    while len(lines) < 10:
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted\n"
    assert re.search(r"\ninterrupted after [\d,]+ iterations \([\d.]+ epochs\)\n", out)
    assert 0 < accuracy_of(out) <= 1
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(tmp_path / "net.npz")
    found = re.search(r"\nbest test accuracy: ([\d.]+), after epoch ", out)
    assert found
    assert f"{net.accuracy(*datasets.make_digits(50, seed=1)):.4f}" == found[1]
    read = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert read["complete"] is False
    made = len(read["history"]["losses"])
    out = run(*SMALL, "--iterations", made + 10, "--resume", tmp_path / "training.npz")
    assert f"\ncontinuing after {made:,} iterations" in out


def test_a_crash_leaves_the_best_so_far(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start(*SMALL, "--epochs", 100_000, "--save", "net.npz", "--checkpoint", "training.npz")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("     3"):
        assert process.poll() is None
    process.kill()
    process.communicate()
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(tmp_path / "net.npz")
    assert saving.load_arrays(tmp_path / "training.npz")[0]["losses"].size >= 20


def test_ctrl_c_before_a_row_is_printed(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The history has it already, and so does the table."""
    calls: list[int] = []

    def interrupted(bar: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.ProgressBar, "hide", interrupted)
    out = run(*SMALL, code=130)
    assert [row[:2] for row in rows_of(out)] == [["1", "10"], ["2", "20"]]
    assert "\ninterrupted after 20 iterations (2 epochs)\n" in out


def test_ctrl_c_within_the_first_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No epoch has ended, so that there is no best one: the present parameters are saved."""
    calls = []
    method = fastnet.MultiLayerNet.loss_and_gradient

    def interrupted(net: Any, x: Any, t: Any) -> Any:
        calls.append(net)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return method(net, x, t)

    monkeypatch.setattr(fastnet.MultiLayerNet, "loss_and_gradient", interrupted)
    path = tmp_path / "net.npz"
    assert cli.main([*map(str, SMALL), "--save", str(path)]) == 130
    out = capsys.readouterr().out
    assert "\ninterrupted after 3 iterations (0.3 epochs)\n" in out
    assert f"\nthe parameters of the end are in {path}\n" in out
    net = fastnet.MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(path)
    np.testing.assert_array_equal(net.params["W1"], calls[0].params["W1"])
    assert accuracy_of(out) >= 0
    calls[:] = [None, None, None]  # now in the first iteration
    path.unlink()
    assert cli.main([*map(str, SMALL), "--save", str(path)]) == 130
    assert not path.exists()
