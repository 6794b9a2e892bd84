"""Optimizers and schedules against PyTorch's numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fastnet import optimizers

with np.load(Path(__file__).parents[1] / "data" / "optimizers.npz") as _file:  # see support/make_optimizer_reference.py
    STORED = {name: _file[name] for name in _file.files}
CASES, SCHEDULES = json.loads(str(STORED["cases"])), json.loads(str(STORED["schedules"]))
NAMES = [name.removeprefix("start/") for name in STORED if name.startswith("start/")]


def make_schedule(name):
    kind, settings = SCHEDULES[name]
    return getattr(optimizers, kind)(**settings)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_pytorchs(case, dtype):
    kind, settings = CASES[case]
    if isinstance(settings.get("lr"), str):
        settings = settings | {"lr": make_schedule(settings["lr"])}
    optimizer = getattr(optimizers, kind)(**settings)
    params = {name: STORED[f"start/{name}"].astype(dtype) for name in NAMES}
    expected = {name: STORED[f"{case}/{dtype}/{name}"] for name in NAMES}
    after = STORED["after"].tolist()[: len(expected["W1"])]
    largest = {name: abs(p) for name, p in params.items()}
    for k in range(after[-1]):
        optimizer.update(params, {name: STORED[f"gradients/{name}"][k].astype(dtype) for name in NAMES})
        for name, p in params.items():
            largest[name] = np.maximum(largest[name], abs(p))
            assert p.dtype == expected[name].dtype == dtype
            if k + 1 not in after:
                continue
            # PyTorch fuses some multiply-adds and computes some means as m + (g − m)·(1 − beta1). Each of the k + 1
            # updates rounds p by up to half an ulp on either side, and its step by a few of the step's: that adds up
            # like a random walk.
            bound = (2 + math.sqrt(k + 1)) * np.finfo(dtype).eps * largest[name]
            difference = abs(p - expected[name][after.index(k + 1)])
            assert np.all(difference <= bound), f"{name} after {k + 1} updates: {(difference / bound).max()}"


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_pytorchs(name):
    schedule, expected = make_schedule(name), STORED[f"rates/{name}"]
    rates = [schedule(k) for k in range(len(expected))]
    # PyTorch's cosine is computed from the rate before it: its rounding errors are of the largest rate's size.
    np.testing.assert_allclose(rates, expected, rtol=0, atol=8 * np.finfo(float).eps * schedule.lr)
