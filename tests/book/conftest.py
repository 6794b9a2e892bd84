"""What the programs of the chapters need: matplotlib without windows, and digits in the place of MNIST."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet import datasets


@pytest.fixture
def plt(monkeypatch):
    """matplotlib, whose figures are closed where a program shows them."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))
    return pyplot


@pytest.fixture
def mnist(monkeypatch):
    """Drawn digits in the place of MNIST: 400 to train with and 200 to test with."""

    def load_mnist(*, normalize, flatten, one_hot_label):
        splits = []
        for n, seed in ((400, 0), (200, 1)):
            x, t = datasets.make_digits(n, seed)
            x = x if normalize else np.rint(255 * x).astype(np.uint8)
            splits.append(
                (x if flatten else x.reshape(-1, 1, 28, 28), np.eye(10, dtype="f4")[t] if one_hot_label else t)
            )
        return splits

    monkeypatch.setattr(datasets, "load_mnist", load_mnist)
