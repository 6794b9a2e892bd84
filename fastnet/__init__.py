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
    cross_entropy_error,
    identity_function,
    leaky_relu,
    matmul,
    mean_squared_error,
    relu,
    sigmoid,
    softmax,
    step_function,
    tanh,
)
from fastnet.networks import DeepConvNet, MultiLayerNet, Network, SimpleConvNet, SimpleNet, TwoLayerNet
from fastnet.perceptron import AND, NAND, OR, XOR
from fastnet.training import DivergenceError, EarlyStopping, EpochResult, History, SaveBest, Trainer

__all__ = [
    "AND",
    "NAND",
    "OR",
    "XOR",
    "DeepConvNet",
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
    "SimpleConvNet",
    "SimpleNet",
    "StepComparison",
    "Trainer",
    "TwoLayerNet",
    "add_bias",
    "backends",
    "build_info",
    "check_gradient",
    "check_layer",
    "compare_gradients",
    "compare_steps",
    "cross_entropy_error",
    "datasets",
    "derivative",
    "get_num_threads",
    "gradient_descent",
    "identity_function",
    "layers",
    "leaky_relu",
    "matmul",
    "mean_squared_error",
    "numerical_gradient",
    "numerical_gradient_2d",
    "numerical_jacobian",
    "optimizers",
    "relu",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "step_function",
    "tanh",
    "use_backend",
]

__version__ = _version("fastnet")
