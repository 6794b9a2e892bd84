"""The table of errors by step."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastnet
from fastnet.cli import main


@pytest.fixture(scope="module")
def small():
    x, t = fastnet.datasets.make_digits(20, seed=0)
    return fastnet.TwoLayerNet(784, 6, 10, seed=0), x, t


def test_exact_differences_lose_only_truncation(backend, small):
    net, x, t = small
    if backend.name == "numpy":  # the reference takes its time for every entry
        net, x, t = fastnet.TwoLayerNet(9, 3, 10, seed=0), x[:4, 400:409], t[:4]
    steps = fastnet.compare_steps(net, x, t, steps=[1e-2, 1e-4, 1e-6, 1e-10], sample=200)
    coarse, usual, fine, tiny = steps.rows
    # h²: each hundredth of a step leaves a ten-thousandth of the error, down to rounding.
    assert usual.exact["float64"] == pytest.approx(coarse.exact["float64"] / 1e4, rel=0.01)
    assert fine.exact["float64"] < 1e-11
    assert tiny.exact["float64"] < 1e-13
    assert fine.exact["float32"] < 1e-5
    # The loop has its best step in between, and in float32 none that is of use.
    assert fine.loop["float64"] > 10 * fine.exact["float64"]
    assert tiny.loop["float64"] > 1e-6
    assert fine.loop["float32"] > 0.01


def test_the_network_is_as_it_was(small):
    net, x, t = small
    before = {name: p.copy() for name, p in net.params.items()}
    fastnet.compare_steps(net, x, t, steps=[1e-3], sample=10)
    for name, p in net.params.items():
        np.testing.assert_array_equal(p, before[name])


def test_the_table(small):
    steps = fastnet.compare_steps(*small, steps=[1e-3, 1e-5], sample=50)
    lines = str(steps).splitlines()
    assert lines[0].split("  ")[0] == "h"
    assert [line.split()[0] for line in lines[2:4]] == ["1e-03", "1e-05"]
    assert f"of the {784 * 6 + 6 + 60 + 10:,} parameters" in lines[-1]
    told = json.loads(json.dumps(steps.to_dict(), allow_nan=False))
    assert told["rows"][1]["exact"] == steps.rows[1].exact
    assert told["entries"] == steps.entries


def test_the_command(tmp_path, capsys):
    path = tmp_path / "steps.json"
    assert main(["compare", "--steps", "--data", "digits", "--batch", "5", "--hidden", "3", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "1e-12" in shown
    told = json.loads(path.read_text())["steps"]
    assert [row["h"] for row in told["rows"]] == pytest.approx([10.0**-k for k in range(1, 13)])


def test_there_is_no_picture_of_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--steps", "--plot", str(tmp_path / "steps.png")])
    assert ended.value.code == 2
    assert "argument --plot: --steps has no plot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": [1e-3, 0]}, ValueError, "steps must be positive, not 0"),
        ({"steps": [float("nan")]}, ValueError, "steps must be finite, not nan"),
        ({"sample": 0}, ValueError, "sample must be at least 1, not 0"),
    ],
)
def test_bad_arguments(small, arguments, error, message):
    with pytest.raises(error, match=message):
        fastnet.compare_steps(*small, **arguments)


def test_only_networks_have_steps():
    with pytest.raises(TypeError, match="net must be a network of fastnet, as TwoLayerNet is, not function"):
        fastnet.compare_steps(lambda x: x, np.zeros((1, 2)), [0])
