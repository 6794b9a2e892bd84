"""The base of all networks: their answers, their derivatives, and their files."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from fastnet.networks.first_order import FirstOrder
from fastnet.networks.second_order import SecondOrder
from fastnet.saving import check_fits, load_arrays, save_arrays

KIND = "parameters of a network of fastnet"  # what the file format calls such a file


class BaseNetwork(FirstOrder, SecondOrder):
    """What all networks have in common.

    `predict`, `loss` and `accuracy` are inference. `training_loss`, `gradient`, `loss_and_gradient` and
    `numerical_gradient` are training, where Dropout and BatchNorm behave differently.

    A subclass may have methods of its own, which the others then use: `loss` and `accuracy` call `predict`, and
    `numerical_gradient` differentiates `loss`, or `training_loss` if the subclass has that. `gradient` is backprop of
    the network that the base class computes; in a subclass with its own `predict` or `loss` it raises TypeError unless
    the subclass has its own `gradient`, too.

    Attributes
    ----------
    params : dict of str to ndarray
        The parameters by name, float32 or float64. Update them in place or put new arrays of the same shapes.
    """

    def save_params(self, path: str | os.PathLike[str]) -> None:
        """Write `params` and `state` to a file.

        The file is an ``.npz`` without pickle. It is written beside `path` and replaces it when it is complete.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be written. A file that was there before is unchanged.
        ValueError, TypeError
            If parameters are missing or do not fit.
        """
        self._computation()  # raises rather than write a file that could not be loaded
        arrays = {f"params/{name}": array for name, array in self.params.items()}
        arrays |= {f"state/{name}": array for name, array in self.state.items()}
        save_arrays(path, arrays, {"kind": KIND})

    def load_params(self, path: str | os.PathLike[str]) -> None:
        """Replace `params` and `state` by those of a file that `save_params` wrote.

        Each array must have the name and the shape of a present one, whose dtype is kept: a float32 file can be loaded
        into a float64 network, but not the reverse. Either everything is loaded or nothing.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file can't be read: FileNotFoundError if it does not exist.
        ValueError
            If it is damaged, was not written by `save_params`, or its names, shapes or dtypes do not fit; it names
            `path`.
        """
        self._computation()
        found, about = load_arrays(path)
        if about.get("kind") != KIND:
            raise ValueError(f"{os.fspath(path)} does not hold {KIND}, but {about.get('kind')!r}")
        groups: dict[str, dict[str, npt.NDArray[Any]]] = {"params/": self.params, "state/": self.state}
        expected = {prefix + name: array for prefix, group in groups.items() for name, array in group.items()}
        check_fits(found, expected, path)
        for key, array in expected.items():
            found[key] = found[key].astype(array.dtype.newbyteorder("="), order="C")
        for prefix, group in groups.items():
            group.update({name: found[prefix + name] for name in group})
