"""Check the backprop of a network that is written by hand, as in the book's fourth and fifth chapters."""

import numpy as np

import fastnet


class TwoLayers:
    def __init__(self, inputs, hidden, outputs):
        rng = np.random.default_rng(0)
        self.params = {
            "W1": rng.standard_normal((inputs, hidden)) / np.sqrt(inputs),
            "b1": np.zeros(hidden),
            "W2": rng.standard_normal((hidden, outputs)) / np.sqrt(hidden),
            "b2": np.zeros(outputs),
        }

    def forward(self, x):
        z = np.maximum(x @ self.params["W1"] + self.params["b1"], 0)
        return z, fastnet.softmax(z @ self.params["W2"] + self.params["b2"])

    def loss(self, x, t):
        return fastnet.cross_entropy_error(self.forward(x)[1], t)

    def gradient(self, x, t):
        z, y = self.forward(x)
        dy = (y - np.eye(y.shape[1])[t]) / len(x)
        dz = dy @ self.params["W2"].T * (z > 0)
        return {"W1": x.T @ dz, "b1": dz.sum(axis=0), "W2": z.T @ dy, "b2": dy.sum(axis=0)}


rng = np.random.default_rng(1)
x, t = rng.standard_normal((20, 8)), rng.integers(0, 3, 20)
net = TwoLayers(8, 6, 3)
check = fastnet.check_gradient(net, net.gradient, (x, t))
print(check.verdict)
print(check.largest_relative < 1e-6)
# Prints:
# passed: 75 entries agree
# True
