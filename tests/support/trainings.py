"""Small trainings for the tests, and their bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet import optimizers
from fastnet.networks import MultiLayerNet, TwoLayerNet
from fastnet.training import Trainer

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: optimizers.SGD(0.3),
    "momentum": lambda: optimizers.Momentum(0.1),
    "nesterov": lambda: optimizers.Nesterov(0.1),
    "adagrad": lambda: optimizers.AdaGrad(0.05),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "adam": lambda: optimizers.Adam(0.02),
    "cosine": lambda: optimizers.Momentum(optimizers.CosineAnnealing(0.2, 30, warmup=4)),
}
ROWS, INPUTS, CLASSES = 53, 12, 5  # 6 iterations of 10 rows, the last of an epoch of 3


def make_data(rows: int = ROWS, seed: int = 0) -> tuple[Any, Any]:
    """Rows around a centre for each class, which a network can tell apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows) % CLASSES
    centres = np.random.default_rng(7).random((CLASSES, INPUTS))
    return centres[t] + 0.15 * rng.standard_normal((rows, INPUTS)), t


X, T = make_data()
X_TEST, T_TEST = make_data(31, 1)


def make_net(dtype: str = "float64", seed: int = 0) -> TwoLayerNet:
    return TwoLayerNet(INPUTS, 8, CLASSES, weight_init_std=0.3, dtype=dtype, seed=seed)


def make_layered(seed: int = 0) -> MultiLayerNet:
    """A network that is no chain, and keeps more than its parameters: running statistics, and which masks come next."""
    return MultiLayerNet(INPUTS, [7, 6], CLASSES, use_batchnorm=True, dropout_ratio=0.2, seed=seed)


def make_trainer(net: Any = None, **named: Any) -> Trainer:
    named = {"batch_size": 10, "optimizer": optimizers.SGD(0.3)} | named
    if "iterations" not in named:
        named.setdefault("epochs", 5)
    return Trainer(make_net() if net is None else net, X, T, X_TEST, T_TEST, **named)


def bits_of(trainer: Trainer) -> dict[str, bytes]:
    """Everything that must be the same where a training is repeated or goes on: all but times."""
    rows = [(row.epoch, row.iteration, row.loss, row.train_accuracy, row.test_accuracy) for row in trainer.history.rows]
    arrays = {f"params/{name}": p for name, p in trainer.net.params.items()}
    arrays |= {f"state/{name}": p for name, p in getattr(trainer.net, "state", {}).items()}
    arrays |= trainer.optimizer.state_dict()
    arrays |= {f"best/{name}": p for name, p in (trainer.best_params or {}).items()}
    arrays |= {f"best state/{name}": p for name, p in (trainer.best_state or {}).items()}
    arrays |= {"losses": trainer.history.losses, "best": np.array(trainer.best_epoch or 0)}
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()} | {"rows": repr(rows).encode()}


def copy_params(net: Any) -> dict[str, Any]:
    return {name: p.copy() for name, p in net.params.items()}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
