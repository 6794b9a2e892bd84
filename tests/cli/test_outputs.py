"""What the command line does where its output, its files or its settings are of no use."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import cli, datasets, optimizers
from fastnet.cli import entry
from fastnet.networks import MultiLayerNet

SMALL = ["train", "--data", "digits", "--train-size", 200, "--test-size", 50, "--hidden", 8, "--batch", 20]
FULL = Path("/dev/full")
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


# Help -----------------------------------------------------------------------------------------------------


def actions(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        else:
            yield parser.prog, action


def test_every_option_has_a_help_text() -> None:
    found = list(actions(entry._parser()))
    assert len(found) > 40
    without = [f"{prog} {action.option_strings}" for prog, action in found if not (action.help or "").strip()]
    assert without == []
    bare = [f"{prog} {action.option_strings}" for prog, action in found if str(action.help).startswith("default:")]
    assert bare == []


# Mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--threads", 9999], "argument --threads: the number must be at most 1,024, not 9999"),
        (["compare", "--threads", 1025], "argument --threads: the number must be at most 1,024, not 1025"),
        (["compare", "--hidden", 10**18], "argument --hidden: the number must be at most 1,000,000,000, not 1000"),
        (["train", "--speed", 3], "unrecognized arguments: --speed 3"),
        (["info", "--speed\n3"], "unrecognized arguments: --speed 3"),
        (["train", "fast"], "unrecognized arguments: fast"),
    ],
)
def test_mistakes(arguments: list[object], message: str, refuse: Callable[..., str]) -> None:
    assert refuse(*arguments).startswith(message)


def test_the_hint_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["train", "--speed"], ["train", "--lr", "x"], ["train", "--warmup", "1"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert capsys.readouterr().err.endswith(" (see fastnet train --help)\n")


def test_the_most_threads_are_accepted(with_threads: Callable[[int], None], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*map(str, SMALL), "--iterations", "1", "--threads", "1024"]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def too_large(*arguments: Any, **named: Any) -> Any:
        raise MemoryError("Unable to allocate 57.0 TiB")

    monkeypatch.setattr(MultiLayerNet, "__init__", too_large)
    assert cli.main([str(argument) for argument in SMALL]) == 1
    assert capsys.readouterr().err == "fastnet: error: not enough memory: Unable to allocate 57.0 TiB\n"


@pytest.mark.skipif(not fastnet.backends.has_extension(), reason="there is no compiled extension")
@pytest.mark.parametrize("backend", ["", "numba"])
@pytest.mark.parametrize("command", ["info", "train"])
def test_an_unknown_instruction_set(start: Callable[..., subprocess.Popen[str]], command: str, backend: str) -> None:
    process = start(command, FASTNET_ISA="foo", FASTNET_BACKEND=backend)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("fastnet: error: unknown or unsupported instruction set 'foo': this processor can use ")
    assert err.count("\n") == 1


# The standard output --------------------------------------------------------------------------------------


COMMANDS = [["info"], ["--help"], ["train", "--help"], ["--version"], [*SMALL, "--iterations", 20]]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(map(str, arguments[:2])))
def test_a_closed_pipe(start: Callable[..., subprocess.Popen[str]], arguments: list[object], buffered: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # As head does when it has enough; here before anything is written.
    try:
        process = start(*arguments, stdout=writer, buffered=buffered)
    finally:
        os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@NEEDS_FULL
@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(map(str, arguments[:2])))
def test_a_full_disk_behind_the_output(
    start: Callable[..., subprocess.Popen[str]], arguments: list[object], buffered: bool
) -> None:
    with FULL.open("w") as full:
        process = start(*arguments, stdout=full, buffered=buffered)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "fastnet: error: can't write to the standard output: No space left on device\n"


def test_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["info"]) == 0


# Files ----------------------------------------------------------------------------------------------------


@NEEDS_FULL
@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("command", ["compare", "train"])
def test_a_full_disk_behind_a_file(
    option: str, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    small = fastnet.compare_gradients(fastnet.TwoLayerNet(4, 3, 2, seed=0), np.ones((2, 4)), [0, 1])
    monkeypatch.setattr("fastnet.cli.compare.compare_gradients", lambda *_, **__: small)  # it would take seconds
    link = tmp_path / "file.png"
    link.symlink_to(FULL)
    arguments = [*SMALL, "--iterations", 1] if command == "train" else ["compare", "--data", "digits", "--batch", 2]
    assert cli.main([*map(str, arguments), "--hidden", "3", option, str(link)]) == 1
    assert capsys.readouterr().err == f"fastnet: error: can't write {str(link)!r}: No space left on device\n"


@pytest.mark.skipif(not Path(os.devnull).exists(), reason="the null device is no file")
@pytest.mark.parametrize("option", ["--save", "--checkpoint"])
def test_devices_take_no_parameters(option: str, refuse: Callable[..., str]) -> None:
    message = refuse(*SMALL, option, os.devnull)
    assert message == f"argument {option}: can't write {os.devnull!r}: it is not a regular file"


def same(folder: Path, how: str) -> tuple[Path, Path]:
    """Two names of one file in `folder`."""
    file, other = folder / "file.png", folder / "other.png"
    if how == "equal":
        return file, file
    if how == "spelling":
        (folder / "sub").mkdir()
        return file, folder / "sub" / ".." / "file.png"
    if how == "link to the folder":
        (folder / "sub").symlink_to(folder)
        return file, folder / "sub" / "file.png"
    if how == "link to nothing yet":
        other.symlink_to(file)
        return file, other
    file.write_text("kept", encoding="utf-8")
    if how == "link":
        other.symlink_to(file)
    else:
        other.hardlink_to(file)
    return file, other


WAYS = ["equal", "spelling", "link to the folder", "link to nothing yet", "link", "hard link"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    "options",
    [("json", "plot"), ("save", "json"), ("save", "checkpoint"), ("checkpoint", "plot")],
    ids=" ".join,
)
def test_two_outputs_are_two_files(
    options: tuple[str, str], how: str, refuse: Callable[..., str], tmp_path: Path
) -> None:
    one, other = same(tmp_path, how)
    before = sorted(tmp_path.iterdir())
    message = refuse(*SMALL, f"--{options[0]}", one, f"--{options[1]}", other)
    assert message == f"argument --{options[1]}: {str(other)!r} is the file of --{options[0]} too"
    assert sorted(tmp_path.iterdir()) == before
    if one.exists():
        assert one.read_text(encoding="utf-8") == "kept"


def test_two_outputs_of_compare_are_two_files(refuse: Callable[..., str], tmp_path: Path) -> None:
    one, other = same(tmp_path, "spelling")
    message = refuse("compare", "--data", "digits", "--json", one, "--plot", other)
    assert message == f"argument --plot: {str(other)!r} is the file of --json too"


@pytest.mark.parametrize("option", ["--save", "--json", "--plot"])
def test_the_checkpoint_is_not_overwritten(option: str, refuse: Callable[..., str], tmp_path: Path) -> None:
    path, link = tmp_path / "training.npz", tmp_path / "link.png"
    net = MultiLayerNet(784, [8], 10, dtype="float32")
    trainer = fastnet.Trainer(
        net, *datasets.make_digits(200, seed=0), batch_size=20, epochs=1, optimizer=optimizers.Adam()
    )
    trainer.save(path)
    link.symlink_to(path)
    content = path.read_bytes()
    message = refuse(*SMALL, "--resume", path, option, link)
    assert message == f"argument {option}: {str(link)!r} is the checkpoint of --resume"
    assert path.read_bytes() == content


def test_a_link_to_nothing_is_written_through(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    link, target = tmp_path / "link.npz", tmp_path / "net.npz"
    link.symlink_to(target)
    assert cli.main([*map(str, SMALL), "--iterations", "1", "--save", str(link)]) == 0
    assert link.is_symlink()
    net = MultiLayerNet(784, [8], 10, dtype="float32")
    net.load_params(target)
    assert np.isfinite(net.params["W1"]).all()
