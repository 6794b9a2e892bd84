"""A training as a file: everything that it needs to go on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fastnet._tools import checks
from fastnet.saving import check_fits, load_arrays, save_arrays
from fastnet.training.history import History
from fastnet.training.state import Arrays

KIND = "a training of fastnet"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """How a training stands after an iteration.

    Attributes
    ----------
    identity : dict
        What the Trainer that loads it must agree in with the one that saved it, such as the seed.
    params, state : dict of str to ndarray
        Those of the network.
    optimizer : dict of str to ndarray
        What the optimizer's ``state_dict`` gives.
    best_params, best_state : dict of str to ndarray
        Those of the best epoch; empty if there was none, or none was kept.
    history : History
    best_epoch : float or None
    best_score : float
        What later epochs must exceed; −∞ before the first.
    seconds : float
        What the iterations since the last row of the history took.
    told : int
        How many rows of the history the callbacks have been told of.
    """

    identity: dict[str, Any]
    params: Arrays
    state: Arrays
    optimizer: Arrays
    best_params: Arrays
    best_state: Arrays
    history: History
    best_epoch: float | None
    best_score: float
    seconds: float
    told: int
    path: str = ""  # the file that it was loaded from, for messages

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, as `Trainer.save` describes."""
        arrays = {f"{group}/{name}": array for group in _groups() for name, array in getattr(self, group).items()}
        history = self.history.to_dict()
        arrays["losses"] = np.array(history.pop("losses"), np.float64)
        about = {
            "kind": KIND,
            "version": VERSION,
            **self.identity,
            "history": history,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score if self.best_epoch is not None else None,
            "seconds": self.seconds,
            "told": self.told,
        }
        save_arrays(path, arrays, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], identity: dict[str, Any]) -> Checkpoint:
        """Read a file of `save`; raise ValueError if it is damaged, or of another training than `identity`."""
        arrays, about = load_arrays(path)
        file = os.fspath(path)
        if about.get("kind") != KIND:
            raise ValueError(f"{file} is not {KIND}, but of another kind: {about.get('kind')!r}")
        if about.get("version") != VERSION:
            raise ValueError(f"{file} has version {about.get('version')!r} of its format, not {VERSION}")
        about.setdefault("shuffle", True)  # older files do not say it, and there was no choice
        for name, value in identity.items():
            if about.get(name) != value:
                raise ValueError(
                    f"{file} is of another training: {name} was {about.get(name)!r} there and is {value!r} here"
                )
        groups: dict[str, Arrays] = {group: {} for group in _groups()}
        try:
            for key in arrays.keys() - {"losses"}:
                group, _, name = key.partition("/")
                groups[group][name] = arrays[key]
            score = about["best_score"]
            return cls(
                identity=identity,
                **groups,
                history=History.from_dict({**about["history"], "losses": arrays["losses"].tolist()}),
                best_epoch=about["best_epoch"],
                best_score=-math.inf if score is None else score,
                seconds=float(about["seconds"]),
                told=int(about["told"]),
                path=file,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {type(error).__name__} {error}") from error

    def check_fits(self, params: Arrays, state: Arrays) -> None:
        """Raise ValueError unless its arrays have the names, shapes and dtypes of the network's."""
        check_fits(self.params, params, self.path)
        check_fits(self.state, state, self.path)
        if self.best_params:
            check_fits(self.best_params, params, self.path)
            check_fits(self.best_state, state, self.path)

    def load_optimizer(self, optimizer: Any, params: Arrays) -> None:
        """Let the optimizer of these parameters go on from here; raise ValueError if it cannot."""
        if callable(getattr(optimizer, "prepare", None)):
            optimizer.prepare(params)  # so that it can tell whether what it loads fits
        try:
            optimizer.load_state_dict(self.optimizer)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path} does not fit the optimizer: {error}") from error


def _groups() -> tuple[str, ...]:
    """The fields that hold arrays by name."""
    return tuple(f.name for f in fields(Checkpoint) if f.type == "Arrays")


def optimizer_state(optimizer: Any) -> Arrays:
    """Return what an optimizer needs to go on; raise TypeError if it cannot say."""
    if not callable(getattr(optimizer, "state_dict", None)):
        raise TypeError(f"optimizer must have a `state_dict` method to be saved, but {name_of(optimizer)} has none")
    state: Arrays = optimizer.state_dict()
    return state


def check_loads_state(optimizer: Any) -> None:
    """Raise TypeError unless an optimizer can go on from a saved state."""
    if not callable(getattr(optimizer, "load_state_dict", None)):
        raise TypeError(f"optimizer must have a `load_state_dict` method, but {name_of(optimizer)} has none")


def name_of(optimizer: object) -> str:
    """Return what an optimizer is called in a checkpoint."""
    return str(getattr(optimizer, "name", checks.type_name(optimizer)))
