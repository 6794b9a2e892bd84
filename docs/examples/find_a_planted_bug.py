"""Find which layer of a network has a wrong backward pass."""

import numpy as np

import fastnet
from fastnet.layers import Affine, ReLU, SoftmaxWithLoss, Tanh


class HastyTanh(Tanh):
    """Forgets the square in 1 - tanh²."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y)


rng = np.random.default_rng(0)
affine = [Affine(rng.standard_normal(shape) / 2, np.zeros(shape[1])) for shape in ((5, 7), (7, 6), (6, 3))]
net = fastnet.Network([affine[0], HastyTanh(), affine[1], ReLU(), affine[2]], SoftmaxWithLoss())
x, t = rng.standard_normal((10, 5)), rng.integers(0, 3, 10)

check = fastnet.check_gradient(net, net.gradient, (x, t))
print(check.passed)
print("the mistakes begin in", check.first_wrong)
# Prints:
# False
# the mistakes begin in layers[1], HastyTanh
