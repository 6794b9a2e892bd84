"""The names that users may rely on: those of the package, of each of its folders, and those in the README."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import fastnet

# What each face offers, once more: a name that comes or goes must do so here too.
FACES = {
    "fastnet": """
        AND DeepConvNet DerivativeResult DivergenceError EarlyStopping EpochResult GradientCheck GradientCheckError
        GradientComparison History MultiLayerNet NAND Network OR SaveBest SimpleConvNet SimpleNet StepComparison
        Trainer TwoLayerNet XOR add_bias backends binary_cross_entropy_with_logits build_info check_gradient
        check_layer compare_gradients compare_steps cross_entropy_error datasets derivative directional_derivative elu
        gelu get_num_threads
        gradient_descent huber_loss identity_function layers leaky_relu matmul mean_absolute_error
        mean_squared_error numerical_gradient numerical_gradient_2d numerical_hessian numerical_jacobian optimizers relu
        set_num_threads sigmoid silu softmax softplus step_function tanh use_backend
    """,
    "fastnet.backends": """
        MOST_THREADS NAMES Backend Dataset SecondOrderBackend TrainingBackend active available
        build_info get get_num_threads has_extension set_num_threads use_backend
    """,
    "fastnet.book": "ch04 ch05 ch07 ch08 common dataset pickle",
    "fastnet.checking": """
        EntryCheck GradientCheck GradientCheckError GradientComparison MethodResult StepComparison StepErrors
        check_gradient check_layer compare_gradients compare_steps
    """,
    "fastnet.cli": "main",
    "fastnet.datasets": "cache_dir find_mnist load_mnist make_digits read_idx",
    "fastnet.differentiation": """
        DerivativeResult derivative directional_derivative gradient_descent numerical_gradient numerical_gradient_2d
        numerical_hessian numerical_jacobian
    """,
    "fastnet.layers": """
        Add Affine AveragePooling BatchNorm BinaryCrossEntropyWithLogits Convolution Dropout ELU Flatten GELU HuberLoss
        IdentityWithLoss L1Loss Layer LeakyReLU LossLayer MaxPooling Mul ReLU Reshape SiLU Sigmoid SoftmaxWithLoss
        Softplus Step Tanh
    """,
    "fastnet.networks": """
        ALGORITHMS AffineChain DeepConvNet HessianDiagonal MultiLayerNet Network NumericalGradient SimpleConvNet
        SimpleNet TwoLayerNet
    """,
    "fastnet.optimizers": """
        OPTIMIZERS SGD AdaGrad Adam Constant CosineAnnealing Momentum Nesterov Optimizer RMSprop Schedule StepDecay
    """,
    "fastnet.training": "DivergenceError EarlyStopping EpochResult History SaveBest Trainer",
}
PACKAGE = Path(fastnet.__file__).parent
README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("face", FACES)
def test_each_face_offers_its_names(face):
    module = importlib.import_module(face)
    assert len(module.__all__) == len(set(module.__all__))
    assert set(module.__all__) == set(FACES[face].split())
    for name in module.__all__:
        assert hasattr(module, name), name


def test_every_public_folder_has_a_face():
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert {f"fastnet.{name}" for name in folders if not name.startswith("_")} == FACES.keys() - {"fastnet"}


def test_star_imports_give_the_names_of_the_book():
    names: dict[str, object] = {}
    exec("from fastnet import *", names)
    assert set(FACES["fastnet"].split()) == names.keys() - {"__builtins__"}


@pytest.mark.parametrize("face", FACES)
def test_faces_define_nothing(face):
    """They hand on what their folder's files define: docstring, imports, `__all__`, and the package's version."""
    tree = ast.parse(Path(importlib.import_module(face).__file__).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    rest = [node for node in tree.body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    assigned = [ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ast.unparse(node) for node in rest]
    assert assigned == ["__all__", "__version__"] if face == "fastnet" else ["__all__"]


def find(name):
    """What the README means by `name`: it is in the package, in a face that it hands on, or in one of its classes."""
    first, *rest = name.split(".")
    places = [fastnet, fastnet.layers, fastnet.optimizers, fastnet.datasets]
    places += [fastnet.SimpleNet(seed=0), fastnet.layers.Affine, fastnet.Trainer]
    places = [place for place in places if hasattr(place, first)]
    assert places, f"{name} is nowhere in fastnet"
    found = getattr(places[0], first)
    for attribute in rest:
        found = getattr(found, attribute)
    return found


def test_what_the_readme_lists_is_there():
    if not README.exists():
        pytest.skip("the README is not beside the tests")
    (table,) = re.findall(r"^## What is there\n(.*?)^## ", README.read_text(encoding="utf-8"), re.M | re.S)
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row[2])}
    assert len(names) > 60
    for name in names - {"FASTNET_DATA_DIR", "data_dir"}:  # a variable of the environment, and an argument
        assert find(name) is not None
