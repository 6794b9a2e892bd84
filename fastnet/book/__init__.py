"""The modules of *Deep Learning from Scratch* (K. Saitoh), by name, on fastnet's classes and functions.

The programs of the book's repository run on them with their import lines changed and nothing else:

=====================================  ===========================================================
in the book                            here
=====================================  ===========================================================
``from common.layers import *``        ``from fastnet.book.common.layers import *``
``from dataset.mnist import …``        ``from fastnet.book.dataset.mnist import …``
``from two_layer_net import …``        ``from fastnet.book.ch04.two_layer_net import …`` (or ch05)
``from layer_naive import *``          ``from fastnet.book.ch05.layer_naive import *``
``from gradient_2d import …``          ``from fastnet.book.ch04.gradient_2d import …``
``from simple_convnet import …``       ``from fastnet.book.ch07.simple_convnet import …``
``from deep_convnet import …``         ``from fastnet.book.ch08.deep_convnet import …``
``import pickle``                      ``from fastnet.book import pickle``
=====================================  ===========================================================

Names, arguments, defaults and attributes are the book's. Random numbers come from ``np.random``, so that
``np.random.seed`` repeats a run. Gradients are those of the loss that is computed: of −log(y + 1e-7), and with the
weight decay. Wrong arguments raise exceptions that name them, as everywhere in fastnet.
"""

from fastnet.book import ch04, ch05, ch07, ch08, common, dataset, pickle

__all__ = ["ch04", "ch05", "ch07", "ch08", "common", "dataset", "pickle"]
