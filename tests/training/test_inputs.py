"""What a Trainer refuses before it begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet.networks import TwoLayerNet
from fastnet.training import EarlyStopping, Trainer
from trainings import CLASSES, ROWS, T_TEST, X_TEST, T, X, make_net, make_trainer

# Bad input ------------------------------------------------------------------------------------------------


def broken(**changes: Any) -> TwoLayerNet:
    net = make_net()
    net.params |= changes
    return net


def read_only() -> Any:
    array = np.zeros(8)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"batch_size": 54}, ValueError, r"batch_size is 54, but x_train has 53 row\(s\)"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, not 0"),
        ({"batch_size": 10.0}, TypeError, "batch_size must be an integer, not float"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, not 0"),
        ({"epochs": -2}, ValueError, "epochs must be at least 1, not -2"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer, not float"),
        ({"epochs": True}, TypeError, "epochs must be an integer, not bool"),
        ({"iterations": 0}, ValueError, "iterations must be at least 1, not 0"),
        ({"epochs": None}, ValueError, "give either epochs or iterations, not epochs=None and iterations=None"),
        ({"epochs": 1, "iterations": 2}, ValueError, "give either epochs or iterations, not epochs=1 and iterations=2"),
        ({"gradient": "forward"}, ValueError, "gradient must be one of 'backprop', 'numerical', not 'forward'"),
        ({"algorithm": "fast"}, ValueError, "algorithm must be one of 'auto', .*not 'fast'"),
        ({"h": 0}, ValueError, "h must be positive, not 0"),
        ({"h": "small"}, TypeError, "h must be a number, not str"),
        ({"seed": -1}, ValueError, "seed must be at least 0, not -1"),
        ({"seed": None}, TypeError, "seed must be an integer, not NoneType"),
        ({"evaluate_train": -1}, ValueError, "evaluate_train must be at least 0, not -1"),
        ({"evaluate_train": False}, TypeError, "evaluate_train must be an integer, not bool"),
        ({"optimizer": 0.1}, TypeError, "optimizer must have an `update` method, but float has none"),
        ({"optimizer": optimizers.SGD}, TypeError, "optimizer must be an object, not the class SGD"),
        ({"callbacks": EarlyStopping(1)}, TypeError, "callbacks must be a list, as in .*, not one EarlyStopping"),
        ({"callbacks": [print, 3]}, TypeError, "callbacks has a int, which can't be called"),
        ({"net": object()}, TypeError, "net must be a network, as TwoLayerNet is: object has no predict"),
        ({"net": broken(W1=[[1.0]])}, TypeError, r"params\['W1'\] must be an array of float32 or float64"),
        ({"net": broken(b1=np.zeros(8, int))}, TypeError, r"params\['b1'\] must be an array of float32 or float64"),
        ({"net": broken(b1=np.zeros(8, "f4"))}, TypeError, r"params\['b1'\] is float32, but params\['W1'\] is float64"),
        ({"net": broken(b1=np.full(8, np.inf))}, ValueError, r"params\['b1'\] holds NaN or infinities"),
        ({"net": broken(b1=read_only())}, ValueError, r"params\['b1'\] is read-only: it can't be trained"),
        ({"shuffle": 1}, TypeError, r"shuffle must be True or False, not int \(1\)"),
        ({"keep_best": "net.npz"}, TypeError, r"keep_best must be True or False, not str \('net.npz'\)"),
        ({"progress": "yes"}, TypeError, r"progress must be True or False, not str \('yes'\)"),
        ({"fused": 0}, TypeError, r"fused must be True or False, not int \(0\)"),
        ({"fused": True}, ValueError, "fused is True, but"),
    ],
)
def test_bad_arguments(named: dict[str, Any], error: type[Exception], message: str) -> None:
    with fastnet.use_backend("numpy"), pytest.raises(error, match=message):
        make_trainer(**named)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((X, T[:-1]), ValueError, "t_train has 52 labels for 53 rows of x_train"),
        ((X, T, X_TEST, T_TEST[1:]), ValueError, "t_test has 30 labels for 31 rows of x_test"),
        (
            (X[:0], T[:0]),
            ValueError,
            r"x_train must have shape .*, none of them 0, not \(0, 12\)",
        ),
        (
            (X[0], T[0]),
            ValueError,
            r"x_train must have shape .*, none of them 0, not \(12,\)",
        ),
        ((X, T, X_TEST[:0], T_TEST[:0]), ValueError, r"x_test must have shape \(rows, inputs\)"),
        ((X[:, 1:], T), ValueError, "x_train does not fit the network: x has 11 columns for a network of 12 inputs"),
        ((X, T, X_TEST[:, 1:], T_TEST), ValueError, "x_test does not fit the network: x has 11 columns"),
        ((X, T + 1), ValueError, r"t_train\[4\] is 5, which is not a label of 5 classes"),
        ((X, -T), ValueError, r"t_train\[1\] is -1, which is not a label of 5 classes"),
        ((X, T.astype(float)), TypeError, "t_train has labels of dtype float64: class labels must be integers"),
        ((X, np.eye(4)[T % 4]), ValueError, r"t_train has shape \(53, 4\) for 53 row\(s\) of x_train and 5 classes"),
        ((X.astype(complex), T), TypeError, "x_train must contain real numbers"),
        (("pixels", T), TypeError, "x_train must contain real numbers, not str"),
        ((np.where(X > 1, np.nan, X), T), ValueError, "x_train holds NaN or infinities"),
        ((X, T, np.where(X_TEST > 1, np.inf, X_TEST), T_TEST), ValueError, "x_test holds NaN or infinities"),
        ((X, np.full((ROWS, CLASSES), np.nan)), ValueError, "t_train holds NaN or infinities"),
        ((X, T, X_TEST), ValueError, "x_test and t_test go together: give both or neither"),
        ((X, T, None, T_TEST), ValueError, "x_test and t_test go together: give both or neither"),
    ],
)
def test_bad_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Trainer(make_net(), *data, epochs=1, batch_size=10)


def test_data_beyond_float32() -> None:
    with pytest.raises(ValueError, match="x_train holds NaN or infinities"):
        Trainer(make_net("float32"), 1e300 * X, T, epochs=1, batch_size=10)


def test_an_algorithm_that_the_backend_has_not() -> None:
    with fastnet.use_backend("numpy"):
        trainer = make_trainer(gradient="numerical", algorithm="nodal")
        if "nodal" in backends.active().algorithms:
            pytest.skip("every backend has every algorithm")
        with pytest.raises(ValueError, match="the 'numpy' backend has no algorithm 'nodal'"):
            trainer.fit()
    assert trainer.iteration == 0
