"""The command line: its table, its files, its exit codes, and how it takes bad input and Ctrl-C."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, cli, datasets
from fastnet.checking import timing
from fastnet.cli import compare
from platforms import NEEDS_SIGINT

SMALL = ["compare", "--data", "digits", "--batch", "3", "--hidden", "4"]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], with_threads: Callable[[int], None]
) -> Iterator[Callable[..., str]]:
    """Runs the command line in this process, in little time, and gives back what it printed."""
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 0.02)
    monkeypatch.setattr(compare, "REPLAY_SECONDS", 0.01)
    monkeypatch.setattr(compare, "REPLAY_PAUSE", 0.0)

    def main(*arguments: object, code: int = 0) -> str:
        assert cli.main([str(argument) for argument in arguments]) == code
        return capsys.readouterr().out

    return main


# compare --------------------------------------------------------------------------------------------------


def test_compare(run: Callable[..., str]) -> None:
    out = run(*SMALL)
    lines = out.splitlines()
    assert lines[0] == "data: 3 digits drawn by fastnet"
    assert lines[1] == "784-4-10 network of 3,190 parameters, float64, batch of 3, h = 0.0001"
    for name in ("numpy loop", "numba loop", "backprop", *(["c++ loop"] if backends.has_extension() else [])):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1, out
    assert "FAILED" not in out
    assert "INCONCLUSIVE" not in out


def test_the_notes_program_is_replayed(run: Callable[..., str]) -> None:
    out = run(*SMALL)
    losses = [float(loss) for loss in re.findall(r"^loss .*  (\d+\.\d{6})$", out, re.MULTILINE)]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]
    assert re.search(r"\nin [\d.]+ (s|ms|µs); the NumPy loop takes [\d.,]+ (s|ms)\* \([\d.,]+ times as long\)\n", out)
    assert "as long)\n* measured on a sample of the parameters, and scaled up\n(turns: " in out
    assert re.search(r"\n\(turns: [^\n]+ to [^\n]+; of the loop: [^\n]+ to [^\n]+\)\n", out)


def test_json_and_plot(run: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, picture = tmp_path / "results.json", tmp_path / "times.png"
    out = run(*SMALL, "--seed", 4, "--h", "1e-3", "--json", results, "--plot", picture)
    read = json.loads(results.read_text(encoding="utf-8"))
    assert (read["data"], read["seed"]) == ("3 digits drawn by fastnet", 4)
    comparison = read["comparison"]
    assert (comparison["network"], comparison["batch"], comparison["h"]) == ("784-4-10", 3, 1e-3)
    for row in comparison["rows"]:
        assert f"\n{row['name']} " in out
        assert (row["check"] is None) == (row["name"] == "backprop")
        if row["check"] is not None:
            assert row["check"]["passed"]
    assert len(read["replay"]["losses"]) == 3
    replay = read["replay"]
    assert replay["loop_sampled"] is True
    for name in ("", "loop_"):
        assert replay[f"{name}seconds"] == statistics.median(replay[f"{name}turns"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_hidden_layers_in_float32_on_one_thread(run: Callable[..., str]) -> None:
    out = run(*SMALL, "--hidden", 5, 4, 3, "--dtype", "float32", "--threads", 1)
    assert "784-5-4-3-10 network of 4,004 parameters, float32, batch of 3, h = 0.01" in out
    assert re.search(r", 1 thread\n", out)
    assert fastnet.get_num_threads() == 1
    assert "FAILED" not in out


def test_full(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PIXELS", 6)
    monkeypatch.setattr(compare, "REPLAY_HIDDEN", 3)
    monkeypatch.setattr(datasets, "make_digits", lambda n, seed: (np.full((n, 6), 0.5, np.float32), np.arange(n) % 10))
    assert "*" not in run(*SMALL, "--full")


def test_mnist_is_found(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, mnist_test_set: Any, tmp_path: Path
) -> None:
    folder = os.environ["FASTNET_DATA_DIR"]
    assert run("compare", "--batch", 2, "--hidden", 3).startswith("data: the first 2 training images of MNIST\n")
    monkeypatch.setenv("FASTNET_DATA_DIR", str(tmp_path))
    out = run("compare", "--batch", 2, "--hidden", 3, "--data", "mnist", "--data-dir", folder)
    assert out.startswith("data: the first 2 training images of MNIST\n")


def test_digits_are_drawn_where_there_is_no_mnist(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "find_mnist", lambda data_dir=None: None)
    out = run("compare", "--batch", 2, "--hidden", 3)
    assert out.startswith("data: 2 digits drawn by fastnet, since there is no MNIST")


def test_a_chain_of_one_layer_is_as_long_as_it_says() -> None:
    net = compare._network("multi-layer", argparse.Namespace(hidden=[5, 4], dtype="float32", seed=0))
    assert {name: p.shape for name, p in net.params.items()} == {
        "W1": (784, 5),
        "b1": (5,),
        "W2": (5, 4),
        "b2": (4,),
        "W3": (4, 10),
        "b3": (10,),
    }
    assert all(p.dtype == np.float32 for p in net.params.values())
    assert net.predict(np.zeros((2, 784), np.float32)).shape == (2, 10)


def test_progress_goes_to_a_terminal_alone(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []
    compare_gradients = compare.compare_gradients

    def recorded(*arguments: Any, **named: Any) -> Any:
        wanted.append(named["progress"])
        return compare_gradients(*arguments, **named | {"progress": False})

    monkeypatch.setattr(compare, "compare_gradients", recorded)
    run(*SMALL)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(*SMALL)
    assert wanted == [False, False, True, True]


def test_a_terminal_that_knows_few_letters(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    run(*SMALL)
    terminal.flush()
    assert b" ?s " in terminal.buffer.getvalue()


# info and version -----------------------------------------------------------------------------------------


def test_info(run: Callable[..., str]) -> None:
    told = dict(line.split(maxsplit=1) for line in run("info").splitlines())
    assert told == {name: "-" if value is None else str(value) for name, value in fastnet.build_info().items()}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastnet {importlib.metadata.version('fastnet')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["info", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert "usage: fastnet" in capsys.readouterr().out


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["compare", "--batch", "0"], "argument --batch: the number must be at least 1, not 0"),
        (["compare", "--batch", "1.5"], "argument --batch: '1.5' is not an integer"),
        (["compare", "--hidden", "5", "-3"], "argument --hidden: the number must be at least 1, not -3"),
        (["compare", "--hidden"], "argument --hidden: expected at least one argument"),
        (["compare", "--threads", "0"], "argument --threads: the number must be at least 1, not 0"),
        (["compare", "--h", "0"], "argument --h: the number must be positive, not 0.0"),
        (["compare", "--h=-1e-4"], "argument --h: the number must be positive, not -0.0001"),
        (["compare", "--h", "nan"], "argument --h: the number must be finite, not nan"),
        (["compare", "--h", "small"], "argument --h: 'small' is not a number"),
        (["compare", "--h", "1e-60", "--dtype", "float32"], "argument --h: h must be positive and finite in float32"),
        (["compare", "--seed", "-1"], "argument --seed: the number must be at least 0, not -1"),
        (["compare", "--dtype", "float16"], "argument --dtype: invalid choice: 'float16'"),
        (["compare", "--data", "cifar"], "argument --data: invalid choice: 'cifar'"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, refuse: Callable[..., str]) -> None:
    assert refuse(*arguments).startswith(message)


@pytest.mark.parametrize("command", ["compare", "train"])
@pytest.mark.parametrize("data", ["auto", "mnist"])
@pytest.mark.parametrize("by", ["argument --data-dir", "FASTNET_DATA_DIR"])
def test_folders_without_mnist(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, command: str, data: str, by: str, tmp_path: Path
) -> None:
    for folder, told in (
        (tmp_path / "nowhere", "there is no folder {}"),
        (tmp_path, "there are no MNIST files in {}: it has no train-images-idx3-ubyte, train-labels-idx1-ubyte, "),
    ):
        monkeypatch.setenv("FASTNET_DATA_DIR", str(folder))
        option = ["--data-dir", folder] if by.startswith("argument") else []
        message = refuse(command, "--data", data, *option)
        assert message.startswith(f"{by}: {told.format(repr(str(folder)))}")


def test_a_folder_of_mnist_for_drawn_digits(refuse: Callable[..., str], tmp_path: Path) -> None:
    message = "argument --data-dir: it is for MNIST, not for --data digits"
    assert refuse(*SMALL, "--data-dir", tmp_path) == message


def test_damaged_mnist(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def damaged(**named: Any) -> Any:
        raise ValueError("train-images-idx3-ubyte is a damaged gzip file")

    monkeypatch.setattr(datasets, "find_mnist", lambda data_dir=None: tmp_path)
    monkeypatch.setattr(datasets, "load_mnist", damaged)
    assert refuse("compare") == "can't load MNIST: train-images-idx3-ubyte is a damaged gzip file"


def test_more_images_than_there_are(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = np.zeros((7, 784), np.float32), np.zeros(7, np.int64)
    monkeypatch.setattr(datasets, "find_mnist", lambda data_dir=None: tmp_path)
    monkeypatch.setattr(datasets, "load_mnist", lambda **named: (images, images))
    assert refuse("compare", "--batch", 8) == "argument --batch: MNIST has 7 training images, not 8"


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_files_that_cannot_be_written(option: str, refuse: Callable[..., str], tmp_path: Path) -> None:
    beyond = tmp_path / "nowhere" / "file.png"
    message = refuse(*SMALL, option, beyond)
    assert message.startswith(f"argument {option}: can't write {str(beyond)!r}: ")
    assert refuse(*SMALL, option, tmp_path).startswith(f"argument {option}: can't write {str(tmp_path)!r}: ")


def test_a_refused_call_leaves_files_alone(refuse: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept, new = tmp_path / "kept.json", tmp_path / "new.xyz"
    kept.write_text("kept", encoding="utf-8")
    assert refuse(*SMALL, "--json", kept, "--plot", new).startswith("argument --plot: a plot's file name must end in")
    assert kept.read_text(encoding="utf-8") == "kept"
    assert not new.exists()


def test_a_plot_without_matplotlib(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = refuse(*SMALL, "--plot", tmp_path / "times.png")
    assert message == 'argument --plot: a plot needs Matplotlib: pip install "fastnet[plot]"'


def test_an_unknown_backend(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, with_threads: Callable[[int], None]
) -> None:
    monkeypatch.setattr(backends.choice, "_active", None)
    monkeypatch.setenv("FASTNET_BACKEND", "fortran")
    assert refuse("info") == "unknown backend 'fortran': choose one of 'cpp', 'numba', 'numpy'"
    monkeypatch.undo()


# As a process ---------------------------------------------------------------------------------------------


def test_module(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--version")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, f"fastnet {fastnet.__version__}\n", "")


def test_a_mistake_is_one_line_without_a_traceback(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("compare", "--json", "nowhere/results.json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "Traceback" not in err
    assert err.startswith("fastnet: error: argument --json: can't write ")
    assert err.count("\n") == 1


@NEEDS_SIGINT
@pytest.mark.parametrize("after", [0.0, 0.7, 1.5])
def test_ctrl_c(start: Callable[..., subprocess.Popen[str]], after: float) -> None:
    process = start("compare", "--data", "digits", "--batch", "1000", "--full")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("data: ")
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted\n"
    assert time.monotonic() - before < 10
