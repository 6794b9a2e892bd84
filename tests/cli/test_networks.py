"""``--network`` of the command line: every kind of network is compared and trained."""

from __future__ import annotations

import json

import pytest

from fastnet import backends, cli

SMALL = ["--data", "digits", "--batch", "2", "--hidden", "3"]
TRAIN = ["train", *SMALL, "--train-size", "40", "--test-size", "10", "--iterations", "2"]
NETWORKS = ("two-layer", "multi-layer", "batch-norm", "dropout", "conv")


LINES = (
    "784-3-10 network of 2,395 parameters, float32, relu",
    "784-3-10 network of 2,395 parameters, float32, relu",
    "784-3-10 (batch norm) network of 2,401 parameters, float32, relu",
    "784-3-10 (dropout) network of 2,395 parameters, float32, relu, dropout ratio 0.3",
    "1×28×28-30×24×24-3-10 (max pooling) network of 13,783 parameters, float32, relu",
)


@pytest.mark.parametrize(("kind", "line"), list(zip(NETWORKS, LINES, strict=True)))
def test_train(kind, line, capsys):
    assert cli.main([*TRAIN, "--network", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == line
    assert lines[-1].startswith("test accuracy: ")


@pytest.mark.skipif(not backends.has_extension(), reason="the extension alone computes these networks as a whole")
@pytest.mark.parametrize(("kind", "name"), [("batch-norm", "batch norm"), ("dropout", "dropout"), ("conv", "30×24×24")])
def test_compare(kind, name, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("fastnet.checking.timing.BUDGET_SECONDS", 0.01)
    monkeypatch.setattr("fastnet.cli.compare.REPLAY_STEPS", 0)
    file = tmp_path / "results.json"
    assert cli.main(["compare", *SMALL, "--network", kind, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert name in out
    assert "FAILED" not in out
    rows = {row["name"]: row for row in json.loads(file.read_text())["comparison"]["rows"]}
    assert rows["nodal"]["times_faster"] > rows["numpy loop"]["times_faster"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--network", "conv", "--hidden", "3", "4"], "a conv network has one hidden layer, not 2"),
        (["train", "--network", "two-layer", "--hidden", "3", "4"], "a two-layer network has one hidden layer, not 2"),
        (["compare", "--network", "dropout", "--steps"], "it is for networks of affine layers and activations alone"),
        (["train", "--network", "conv", "--dropout", "0.2"], "conv has no --batchnorm, --dropout"),
        (["compare", "--network", "deep"], "invalid choice: 'deep'"),
    ],
)
def test_mistakes(arguments, message, capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
