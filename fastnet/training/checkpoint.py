"""A training put back to how it stood: its arrays in memory, and all of it in a file."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.interrupts import HeldInterrupts
from fastnet.saving import check_fits, load_arrays, save_arrays
from fastnet.training.history import History

if TYPE_CHECKING:
    from fastnet.training.trainer import Trainer

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

KIND = "a training of fastnet"
VERSION = 1


def state_of(net: Any) -> Arrays:
    """Return what a network keeps but does not train."""
    state: Arrays = getattr(net, "state", {})
    return state


def copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def put(values: Arrays, into: Arrays) -> None:
    """Copy the values into the arrays of the same names."""
    for name, value in values.items():
        into[name][...] = value


def save_training(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Save what `Trainer.save` says."""
    net, optimizer = trainer.net, trainer.optimizer
    if not callable(getattr(optimizer, "state_dict", None)):
        raise TypeError(f"optimizer must have a method state_dict to be saved, which {_name_of(optimizer)} has not")
    groups = {
        "params": net.params,
        "state": state_of(net),
        "optimizer": optimizer.state_dict(),
        "best_params": trainer.best_params or {},
        "best_state": trainer.best_state or {},
    }
    arrays = {f"{group}/{name}": array for group, named in groups.items() for name, array in named.items()}
    history = trainer.history.to_dict()
    arrays["losses"] = np.array(history.pop("losses"), np.float64)
    about = {
        "kind": KIND,
        "version": VERSION,
        **_must_agree(trainer),
        "history": history,
        "best_epoch": trainer.best_epoch,
        "best_score": trainer._best_score if trainer.best_epoch is not None else None,
        "seconds": trainer._seconds,
        "told": trainer._told,
    }
    save_arrays(path, arrays, about)


def load_training(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Load what `Trainer.load` says."""
    optimizer = trainer.optimizer
    if not callable(getattr(optimizer, "load_state_dict", None)):
        raise TypeError(f"optimizer must have a method load_state_dict, which {_name_of(optimizer)} has not")
    arrays, about = load_arrays(path)
    if about.get("kind") != KIND:
        raise ValueError(f"{os.fspath(path)} is not {KIND}, but of another kind: {about.get('kind')!r}")
    if about.get("version") != VERSION:
        raise ValueError(f"{os.fspath(path)} has version {about.get('version')!r} of its format, not {VERSION}")
    for name, value in _must_agree(trainer).items():
        if about.get(name) != value:
            raise ValueError(
                f"{os.fspath(path)} is of another training: {name} was {about.get(name)!r} there and is {value!r} here"
            )
    params, state = trainer.net.params, state_of(trainer.net)
    groups: dict[str, Arrays] = {"params": {}, "state": {}, "optimizer": {}, "best_params": {}, "best_state": {}}
    try:
        for key in arrays.keys() - {"losses"}:
            group, _, name = key.partition("/")
            groups[group][name] = arrays[key]
        history = History.from_dict({**about["history"], "losses": arrays["losses"].tolist()})
        best_epoch, best_score = about["best_epoch"], about["best_score"]
        seconds, told = float(about["seconds"]), int(about["told"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is damaged: {type(error).__name__} {error}") from error
    check_fits(groups["params"], params, path)
    check_fits(groups["state"], state, path)
    if groups["best_params"]:
        check_fits(groups["best_params"], params, path)
        check_fits(groups["best_state"], state, path)
    with HeldInterrupts():
        if callable(getattr(optimizer, "prepare", None)):
            optimizer.prepare(params)  # so that it can tell whether what it loads fits
        try:
            optimizer.load_state_dict(groups["optimizer"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not fit the optimizer: {error}") from error
        put(groups["params"], params)
        state.update(groups["state"])
        trainer.history = history
        trainer.best_epoch = best_epoch
        trainer.best_params = trainer.best_state = None
        if groups["best_params"] and trainer.keep_best:
            trainer.best_params, trainer.best_state = groups["best_params"], groups["best_state"]
        trainer._best_score = -math.inf if best_score is None else best_score
        trainer._seconds, trainer._told = seconds, told


def _must_agree(trainer: Trainer) -> dict[str, Any]:
    return {
        "seed": trainer.seed,
        "batch_size": trainer.batch_size,
        "rows": trainer.rows,
        "dtype": trainer.dtype.name,
        "optimizer": _name_of(trainer.optimizer),
    }


def _name_of(optimizer: object) -> str:
    return str(getattr(optimizer, "name", checks.type_name(optimizer)))
