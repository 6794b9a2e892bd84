"""Writes tests/data/optimizers.npz: what PyTorch's optimizers and schedulers make of a sequence of gradients.

Run it by ``pip install torch==2.13.0 numpy`` and ``python tests/support/make_optimizer_reference.py``. The tests need
the file alone, not PyTorch.

The file holds ``cases`` and ``schedules`` (JSON: names, and the settings as fastnet's classes take them), the steps
after which parameters are stored (``after``), ``start/<parameter>`` and ``gradients/<parameter>`` (float32, one row for
each step), ``<case>/<dtype>/<parameter>`` (the parameters after each of the steps `after`), and
``rates/<schedule>`` (the rate of every update).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parents[1] / "data" / "optimizers.npz"
STEPS = 200
AFTER = [1, 2, 3, 10, 50, 200]
SHAPES = {"W1": (3, 4), "b1": (4,), "W2": (4, 2), "b2": (2,), "scale": ()}
SCALES = {"W1": 1.0, "b1": 1e-5, "W2": 30.0, "b2": 1e-3, "scale": 1.0}  # of the gradients

COSINE = {"lr": 0.05, "iterations": 150, "warmup": 20, "final": 0.001}
SCHEDULES = {
    "step": ("StepDecay", {"lr": 0.3, "step_size": 7, "gamma": 0.5}),
    "step-default": ("StepDecay", {"lr": 0.1, "step_size": 60}),
    "cosine": ("CosineAnnealing", {"lr": 0.2, "iterations": 100}),
    "cosine-warmup": ("CosineAnnealing", COSINE),
    "cosine-warmup-2": ("CosineAnnealing", {"lr": 1.0, "iterations": 12, "warmup": 2}),
}
CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd-step": ("SGD", {"lr": "step"}),
    "momentum": ("Momentum", {"lr": 0.01, "momentum": 0.9}),
    "momentum-cosine": ("Momentum", {"lr": "cosine-warmup", "momentum": 0.5}),
    "nesterov": ("Nesterov", {"lr": 0.01, "momentum": 0.9}),
    "nesterov-half": ("Nesterov", {"lr": 0.3, "momentum": 0.5}),
    "adagrad": ("AdaGrad", {}),
    "adagrad-eps": ("AdaGrad", {"lr": 0.5, "eps": 1e-3}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop-fast": ("RMSprop", {"lr": 0.002, "decay_rate": 0.9, "eps": 1e-6}),
    "adam": ("Adam", {}),
    "adam-fast": ("Adam", {"lr": 0.02, "beta1": 0.8, "beta2": 0.98, "eps": 1e-5}),
    "adam-cosine": ("Adam", {"lr": "cosine-warmup"}),
}


def make_optimizer(kind, params, settings):
    """PyTorch's optimizer for fastnet's arguments; what is not among them is PyTorch's own default."""
    settings = dict(settings)
    if kind in ("SGD", "Momentum", "Nesterov"):
        return torch.optim.SGD(params, nesterov=kind == "Nesterov", **settings)
    if kind == "AdaGrad":
        return torch.optim.Adagrad(params, **settings)
    if kind == "RMSprop":
        names = {"decay_rate": "alpha"}
        return torch.optim.RMSprop(params, **{names.get(name, name): value for name, value in settings.items()})
    betas = {"betas": (settings.pop("beta1"), settings.pop("beta2"))} if "beta1" in settings else {}
    return torch.optim.Adam(params, **betas, **settings)


def make_scheduler(kind, optimizer, settings):
    """PyTorch's scheduler for fastnet's arguments, but for `lr`, which is the optimizer's."""
    if kind == "StepDecay":
        return torch.optim.lr_scheduler.StepLR(optimizer, settings["step_size"], settings.get("gamma", 0.1))
    warmup = settings.get("warmup", 0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=settings["iterations"] - warmup, eta_min=settings.get("final", 0.0)
    )
    if not warmup:
        return cosine
    # fastnet's rate at update k of the warm-up is lr·(k + 1)/warmup: 1/warmup at first, 1 at update warmup − 1.
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], milestones=[warmup])


def make_data():
    """Parameters to start from, and gradients: a third of them 0, some entries' always, some's for the first steps."""
    rng = np.random.default_rng(0)
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    gradients = {}
    for name, shape in SHAPES.items():
        drift = rng.standard_normal(shape)
        g = SCALES[name] * (drift + rng.standard_normal((STEPS, *shape))) * (rng.random((STEPS, *shape)) > 1 / 3)
        gradients[name] = g.astype(np.float32)
    gradients["W1"][:, 1] = 0
    gradients["b2"][:60, 0] = 0
    return start, gradients


def train(kind, settings, dtype, start, gradients):
    """The parameters after each of the steps `AFTER`."""
    settings = dict(settings)
    schedule = SCHEDULES.get(settings.get("lr"))
    if schedule:
        settings["lr"] = schedule[1]["lr"]
    params = {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in start.items()}
    optimizer = make_optimizer(kind, params.values(), settings)
    scheduler = make_scheduler(schedule[0], optimizer, schedule[1]) if schedule else None
    rows = []
    for k in range(STEPS if not schedule else min(STEPS, schedule[1].get("iterations", STEPS))):
        for name, p in params.items():
            p.grad = torch.tensor(gradients[name][k], dtype=dtype)
        optimizer.step()
        if scheduler:
            scheduler.step()
        if k + 1 in AFTER:
            rows.append({name: p.detach().numpy().copy() for name, p in params.items()})
    return {name: np.stack([row[name] for row in rows]) for name in params}


def make_rates(kind, settings):
    """The rate of every update, and for the cosine also the one after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=settings["lr"])
    scheduler = make_scheduler(kind, optimizer, settings)
    rates = []
    for _ in range(settings.get("iterations", STEPS) + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def main():
    torch.set_num_threads(1)
    start, gradients = make_data()
    stored = {
        "torch": np.array(torch.__version__),
        "cases": np.array(json.dumps(CASES)),
        "schedules": np.array(json.dumps(SCHEDULES)),
        "after": np.array(AFTER),
    }
    stored |= {f"start/{name}": value for name, value in start.items()}
    stored |= {f"gradients/{name}": value for name, value in gradients.items()}
    for case, (kind, settings) in CASES.items():
        for dtype in (torch.float32, torch.float64):
            params = train(kind, settings, dtype, start, gradients)
            stored |= {f"{case}/{str(dtype).removeprefix('torch.')}/{name}": rows for name, rows in params.items()}
    stored |= {f"rates/{name}": make_rates(*schedule) for name, schedule in SCHEDULES.items()}
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **stored)
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes by PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
