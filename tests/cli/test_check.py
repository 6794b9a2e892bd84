"""``fastnet check``: a function's and a network's gradient on the command line, its exit codes, and what it refuses."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

from fastnet import cli

MODULE = """
    import numpy as np, fastnet

    point = np.array([0.5, 1.0, 2.0])
    f = lambda x: np.sum(x * np.sin(x))
    right = lambda x: np.sin(x) + x * np.cos(x)
    wrong = lambda x: np.sin(x)

    def make():
        return fastnet.TwoLayerNet(4, 3, 2, seed=0)

    net = make()
    batch = np.ones((5, 4)), [0, 1, 0, 1, 1]

    def batch_made():
        return batch

    class Bare:
        params = net.params
        loss = net.loss

    bare, gradient_of_bare = Bare(), net.gradient
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the present folder, which is imported anew."""
    name = f"own_gradients_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("target", "options", "verdict"),
    [
        ("f", ["--at", "point", "--gradient", "right"], "passed: 3 entries agree"),
        ("net", ["--at", "batch"], "passed: 23 entries agree"),
        ("make", ["--at", "batch_made"], "passed: 23 entries agree"),
        ("bare", ["--at", "batch", "--gradient", "gradient_of_bare"], "passed: 23 entries agree"),
    ],
)
def test_right_gradients(module, capsys, target, options, verdict):
    assert cli.main(["check", f"{module}:{target}", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == verdict


def test_a_wrong_gradient(module, capsys):
    target = ["check", f"{module}:f", "--at", "point", "--gradient", "wrong", "--worst", "2", "--json", "result.json"]
    assert cli.main(target) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("FAILED: 3 of 3 entries differ\n")
    assert shown.err == "fastnet: error: the gradient does not pass\n"
    with open("result.json", encoding="utf-8") as file:
        result = json.load(file)
    assert (result["failed"], result["passed"], len(result["worst"])) == (3, False, 2)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("f", ["--at", "point"], "a function needs --gradient, and a network must be made without arguments: "),
        ("f", ["--at", "nowhere", "--gradient", "right"], "argument --at: '{module}' has no 'nowhere'"),
        ("nothing", ["--at", "point"], "argument TARGET: '{module}' has no 'nothing'"),
        ("f", ["--at", "point", "--gradient", "other"], "argument --gradient: '{module}' has no 'other'"),
        ("bare", ["--at", "batch"], "argument --gradient: the network has no gradient of its own"),
        ("net", ["--at", "point"], "for a network, x must be its batch, a pair (x, t), not"),
    ],
)
def test_what_is_refused(module, refuse, target, options, message):
    assert refuse("check", f"{module}:{target}", *options).startswith(message.format(module=module))


def test_targets_without_a_module(refuse):
    assert refuse("check", "net", "--at", "x") == "argument TARGET: must be module:name, as in mymodule:net, not 'net'"
    assert refuse("check", "no_such_module_here:net", "--at", "x").startswith("can't import 'no_such_module_here': ")
