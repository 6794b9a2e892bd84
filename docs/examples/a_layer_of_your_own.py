"""Write a layer with parameters, check it alone, and train it among the library's layers."""

import numpy as np

import fastnet
from fastnet.layers import Affine, Layer, ReLU, SoftmaxWithLoss


class Scale(Layer):
    """Multiplies each column by a factor of its own."""

    def __init__(self, columns):
        self.params = {"factors": np.ones(columns)}

    def forward(self, x):
        self.x = x
        return x * self.params["factors"]

    def backward(self, dout):
        self.grads = {"factors": (dout * self.x).sum(axis=0)}
        return dout * self.params["factors"]


rng = np.random.default_rng(0)
print(fastnet.check_layer(Scale(4), rng.standard_normal((5, 4))).passed)

x, t = fastnet.datasets.make_digits(500, seed=0)
affine = [Affine(rng.standard_normal(shape) / np.sqrt(shape[0]), np.zeros(shape[1])) for shape in ((784, 20), (20, 10))]
net = fastnet.Network([affine[0], ReLU(), Scale(20), affine[1]], SoftmaxWithLoss())
print(fastnet.check_gradient(net, net.gradient, (x[:2], t[:2])).passed)

trainer = fastnet.Trainer(net, x, t, optimizer=fastnet.optimizers.Adam(lr=0.01), batch_size=50, iterations=100)
print(trainer.fit()["train_accuracy"][-1] > 0.9)
# Prints:
# True
# True
# True
