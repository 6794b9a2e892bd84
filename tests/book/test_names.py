"""The modules of the book, their names, and the arguments and defaults that the book's programs rely on."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest

# What each module of the book defines, or hands on by a star import that programs rely on.
MODULES = {
    "common.functions": """
        identity_function step_function sigmoid sigmoid_grad relu relu_grad softmax sum_squared_error
        cross_entropy_error softmax_loss np
    """,
    "common.gradient": "numerical_gradient numerical_gradient_2d np",
    "common.layers": """
        Relu Sigmoid Affine SoftmaxWithLoss Dropout BatchNormalization Convolution Pooling im2col col2im
        identity_function step_function sigmoid sigmoid_grad relu relu_grad softmax sum_squared_error
        cross_entropy_error softmax_loss np
    """,
    "common.multi_layer_net": "MultiLayerNet",
    "common.multi_layer_net_extend": "MultiLayerNetExtend",
    "common.optimizer": "SGD Momentum Nesterov AdaGrad RMSprop Adam np",
    "common.trainer": "Trainer",
    "common.util": "smooth_curve shuffle_dataset conv_output_size im2col col2im np",
    "dataset.mnist": "load_mnist train_num test_num img_dim img_size",
    "ch04.gradient_1d": "numerical_diff function_1 tangent_line",
    "ch04.gradient_2d": "numerical_gradient function_2",
    "ch04.gradient_method": "gradient_descent",
    "ch04.gradient_simplenet": "simpleNet",
    "ch04.two_layer_net": "TwoLayerNet",
    "ch05.layer_naive": "MulLayer AddLayer",
    "ch05.two_layer_net": "TwoLayerNet",
    "ch07.simple_convnet": "SimpleConvNet",
    "ch08.deep_convnet": "DeepConvNet",
    "pickle": "load loads dump dumps UnpicklingError",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_star_import_gives_the_names_of_the_book(module):
    names: dict[str, object] = {}
    exec(f"from fastnet.book.{module} import *", names)
    assert [name for name in MODULES[module].split() if name not in names] == []
    if "np" in MODULES[module].split():
        assert names["np"] is np


NET = "input_size, hidden_size_list, output_size, activation='relu', weight_init_std='relu', weight_decay_lambda=0"
FILTERS = "{'filter_num': %d, 'filter_size': %d, 'pad': %d, 'stride': 1}"
CALLS = {
    "common.layers.Affine": "W, b",
    "common.layers.BatchNormalization": "gamma, beta, momentum=0.9, running_mean=None, running_var=None",
    "common.layers.Convolution": "W, b, stride=1, pad=0",
    "common.layers.Dropout": "dropout_ratio=0.5",
    "common.layers.Pooling": "pool_h, pool_w, stride=1, pad=0",
    "common.multi_layer_net.MultiLayerNet": NET,
    "common.multi_layer_net_extend.MultiLayerNetExtend": NET
    + ", use_dropout=False, dropout_ration=0.5, use_batchnorm=False",
    "common.multi_layer_net_extend.MultiLayerNetExtend.predict": "self, x, train_flg=False",
    "common.multi_layer_net_extend.MultiLayerNetExtend.loss": "self, x, t, train_flg=False",
    "common.optimizer.SGD": "lr=0.01",
    "common.optimizer.Momentum": "lr=0.01, momentum=0.9",
    "common.optimizer.Nesterov": "lr=0.01, momentum=0.9",
    "common.optimizer.AdaGrad": "lr=0.01",
    "common.optimizer.RMSprop": "lr=0.01, decay_rate=0.99",
    "common.optimizer.Adam": "lr=0.001, beta1=0.9, beta2=0.999",
    "common.trainer.Trainer": "network, x_train, t_train, x_test, t_test, epochs=20, mini_batch_size=100, "
    "optimizer='SGD', optimizer_param={'lr': 0.01}, evaluate_sample_num_per_epoch=None, verbose=True",
    "common.util.im2col": "input_data, filter_h, filter_w, stride=1, pad=0",
    "common.util.col2im": "col, input_shape, filter_h, filter_w, stride=1, pad=0",
    "common.util.conv_output_size": "input_size, filter_size, stride=1, pad=0",
    "common.util.shuffle_dataset": "x, t",
    "dataset.mnist.load_mnist": "normalize=True, flatten=True, one_hot_label=False",
    "ch04.gradient_method.gradient_descent": "f, init_x, lr=0.01, step_num=100",
    "ch04.two_layer_net.TwoLayerNet": "input_size, hidden_size, output_size, weight_init_std=0.01",
    "ch05.two_layer_net.TwoLayerNet": "input_size, hidden_size, output_size, weight_init_std=0.01",
    "ch07.simple_convnet.SimpleConvNet": f"input_dim=(1, 28, 28), conv_param={FILTERS % (30, 5, 0)}, "
    "hidden_size=100, output_size=10, weight_init_std=0.01",
    "ch07.simple_convnet.SimpleConvNet.accuracy": "self, x, t, batch_size=100",
    "ch07.simple_convnet.SimpleConvNet.save_params": "self, file_name='params.pkl'",
    "ch07.simple_convnet.SimpleConvNet.load_params": "self, file_name='params.pkl'",
    "ch08.deep_convnet.DeepConvNet": "input_dim=(1, 28, 28), "
    + ", ".join(
        f"conv_param_{n}={FILTERS % (filters, 3, pad)}"
        for n, filters, pad in ((1, 16, 1), (2, 16, 1), (3, 32, 1), (4, 32, 2), (5, 64, 1), (6, 64, 1))
    )
    + ", hidden_size=50, output_size=10",
    "ch08.deep_convnet.DeepConvNet.predict": "self, x, train_flg=False",
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_and_defaults_are_those_of_the_book(name):
    parts = name.split(".")
    found = importlib.import_module(".".join(["fastnet.book", *parts[:2]]))
    for attribute in parts[2:]:
        found = getattr(found, attribute)
    parameters = inspect.signature(found).parameters.values()
    assert ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) == CALLS[name]


def test_the_book_is_imported_when_it_is_asked_for():
    code = "import sys, fastnet; print([name for name in sys.modules if name.startswith('fastnet.book')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
