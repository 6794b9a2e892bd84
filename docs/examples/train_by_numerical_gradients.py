"""Train one network by numerical gradients and its twin by backprop, on drawn digits."""

import numpy as np

import fastnet

x_train, t_train = fastnet.datasets.make_digits(1000, seed=0)
x_test, t_test = fastnet.datasets.make_digits(500, seed=1)


def train(gradient):
    net = fastnet.TwoLayerNet(784, 50, 10, dtype="float32", seed=0)
    trainer = fastnet.Trainer(
        net,
        x_train,
        t_train,
        x_test,
        t_test,
        optimizer=fastnet.optimizers.Adam(lr=0.003),
        batch_size=100,
        iterations=150,
        gradient=gradient,
        seed=0,
    )
    return trainer.fit()


numerical, backprop = train("numerical"), train("backprop")
print(numerical["test_accuracy"][-1] > 0.85)
print(np.abs(numerical.losses - backprop.losses).max() < 1e-2)
# Prints:
# True
# True
