"""Differentiate a function that takes long, on the workers of Dask: here threads of one process, or a whole cluster."""

import numpy as np
from distributed import Client

import fastnet


def energy(x):
    """A chain of springs with both ends fixed; pretend that it takes minutes."""
    ends = np.concatenate([[0.0], x, [1.0]])
    return np.sum((np.diff(ends) - 0.1) ** 2) + np.sum(np.cos(x))


def slope(x):
    ends = np.concatenate([[0.0], x, [1.0]])
    pull = 2 * (np.diff(ends) - 0.1)
    return pull[:-1] - pull[1:] - np.sin(x)


if __name__ == "__main__":
    x = np.linspace(0.1, 0.9, 9)
    # Client("scheduler-address:8786") uses the workers of a cluster instead.
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        executor = client.get_executor()
        result = fastnet.numerical_gradient(energy, x, h="auto", executor=executor, full_output=True)
        print(np.abs(result.value - slope(x)).max() < 1e-9)
        print(fastnet.check_gradient(energy, slope, x, executor=executor).verdict)
# Prints:
# True
# passed: 9 entries agree
