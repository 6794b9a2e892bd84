"""The loss of a network of the library's layers in long double, layer by layer: what its differences are judged by."""

from __future__ import annotations

import numpy as np

from fastnet.layers import (
    Affine,
    AveragePooling,
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    MaxPooling,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)

LONG = np.longdouble
NORM_EPSILON, LOG_EPSILON = LONG("1e-6"), LONG("1e-7")


def masks_of(net, x, t):
    """The masks of the dropout layers in the pass that a numerical gradient of the network repeats."""
    twin = net._computation()
    with twin._bound(twin.params, twin.last_pass.start(twin.state)):
        twin._loss(twin.rows(x), t, training=True)
        return [named.layer.mask for named in twin.layers if isinstance(named.layer, Dropout)]


def loss(net, params, masks, x, t):
    """Softmax with cross entropy, in training, without the penalty; `params` are in long double."""
    z, masks = x.astype(LONG), iter(masks)
    for named in net._computation().layers:
        layer, own = named.layer, {name: params[full] for name, full in named.params.items()}
        if isinstance(layer, Affine):
            z = z @ own["W"] + own.get("b", LONG(0))
        elif isinstance(layer, BatchNorm):
            axes = (0,) if z.ndim == 2 else (0, 2, 3)
            shape = (1, -1) if z.ndim == 2 else (1, -1, 1, 1)
            c = z - z.mean(axis=axes, keepdims=True)
            normal = c / np.sqrt((c * c).mean(axis=axes, keepdims=True) + NORM_EPSILON)
            z = own["gamma"].reshape(shape) * normal + own["beta"].reshape(shape)
        elif isinstance(layer, Dropout):
            z = z * next(masks).astype(LONG)
        elif isinstance(layer, Convolution):
            z = np.einsum("nchwij,fcij->nfhw", windows(z, own["W"].shape[2:], layer, 0), own["W"])
            z = z + own["b"].reshape(1, -1, 1, 1) if "b" in own else z
        elif isinstance(layer, MaxPooling):
            z = windows(z, layer.window, layer, -np.inf).max(axis=(4, 5))
        elif isinstance(layer, AveragePooling):
            z = windows(z, layer.window, layer, 0).mean(axis=(4, 5))
        elif isinstance(layer, (Flatten, Reshape)):
            z = z.reshape(len(z), *(layer.shape if isinstance(layer, Reshape) else (-1,)))
        else:
            z = ACTIVATIONS[type(layer)](z)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return -np.log(y[np.arange(len(t)), t] + LOG_EPSILON).mean()


ACTIVATIONS = {ReLU: lambda a: np.maximum(a, 0), Tanh: np.tanh, Sigmoid: lambda a: 1 / (1 + np.exp(-a))}


def windows(images, size, layer, border):
    (y, x), (down, right) = layer.pad, layer.stride
    padded = np.pad(images, ((0, 0), (0, 0), (y, y), (x, x)), constant_values=border)
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))[:, :, ::down, ::right]


def difference(net, masks, x, t, h, name, index):
    """The central difference with respect to one parameter, with the penalty's."""
    params = {key: p.astype(LONG) for key, p in net.params.items()}
    value, step = params[name][index], LONG(h)
    params[name][index] = value + step
    above = loss(net, params, masks, x, t)
    params[name][index] = value - step
    below = loss(net, params, masks, x, t)
    decay = net.weight_decay_lambda if name.startswith("W") else 0
    return (above - below) / (2 * step) + LONG(decay) * value
