"""fastnet: the numerical gradient of a neural network at close to the cost of backprop."""

from importlib.metadata import version as _version

from fastnet import backends, datasets, layers, optimizers
from fastnet.backends import build_info, get_num_threads, set_num_threads, use_backend
from fastnet.checking import (
    GradientCheck,
    GradientCheckError,
    GradientComparison,
    StepComparison,
    check_gradient,
    check_layer,
    compare_gradients,
    compare_steps,
)
from fastnet.differentiation import (
    derivative,
    gradient_descent,
    numerical_gradient,
    numerical_gradient_2d,
    numerical_jacobian,
)
from fastnet.functions import (
    add_bias,
    binary_cross_entropy_with_logits,
    cross_entropy_error,
    elu,
    gelu,
    huber_loss,
    identity_function,
    leaky_relu,
    matmul,
    mean_absolute_error,
    mean_squared_error,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    step_function,
    tanh,
)
from fastnet.networks import MultiLayerNet, Network, SimpleNet, TwoLayerNet
from fastnet.perceptron import AND, NAND, OR, XOR
from fastnet.training import DivergenceError, EarlyStopping, EpochResult, History, SaveBest, Trainer

__all__ = [
    "AND",
    "NAND",
    "OR",
    "XOR",
    "DivergenceError",
    "EarlyStopping",
    "EpochResult",
    "GradientCheck",
    "GradientCheckError",
    "GradientComparison",
    "History",
    "MultiLayerNet",
    "Network",
    "SaveBest",
    "SimpleNet",
    "StepComparison",
    "Trainer",
    "TwoLayerNet",
    "add_bias",
    "backends",
    "binary_cross_entropy_with_logits",
    "build_info",
    "check_gradient",
    "check_layer",
    "compare_gradients",
    "compare_steps",
    "cross_entropy_error",
    "datasets",
    "derivative",
    "elu",
    "gelu",
    "get_num_threads",
    "gradient_descent",
    "huber_loss",
    "identity_function",
    "layers",
    "leaky_relu",
    "matmul",
    "mean_absolute_error",
    "mean_squared_error",
    "numerical_gradient",
    "numerical_gradient_2d",
    "numerical_jacobian",
    "optimizers",
    "relu",
    "set_num_threads",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "step_function",
    "tanh",
    "use_backend",
]

__version__ = _version("fastnet")
