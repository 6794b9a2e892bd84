"""Mistakes of users: one clear exception each, the same on every backend, and nothing modified."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import fastnet

INF, NAN = float("inf"), float("nan")


class Given:
    """What the calls of the table work on; `arrays` lists all that must not change."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.net = fastnet.TwoLayerNet(6, 5, 4, seed=0)
        self.simple = fastnet.SimpleNet(seed=0)
        self.x, self.t = rng.standard_normal((9, 6)), rng.integers(0, 4, 9)
        self.one_hot = np.eye(4)[self.t]
        self.y = fastnet.softmax(rng.standard_normal((9, 4)))
        self.point = np.array([3.0, 4.0])

    def arrays(self):
        named = {name: a for name, a in vars(self).items() if isinstance(a, np.ndarray)}
        return named | {f"params[{n!r}]": a for n, a in self.net.params.items()} | {"W": self.simple.W}

    def with_params(self, params):
        """The network with other parameters."""
        net = fastnet.TwoLayerNet(6, 5, 4, seed=0)
        net.params |= params
        return net


def square(x):
    return float((x**2).sum())


class Mistake(NamedTuple):
    """A call on a `Given`, what it must raise, and what the message must contain."""

    name: str
    call: Callable[[Given], object]
    error: type[Exception]
    message: str


T, V = TypeError, ValueError
X_SHAPE = "x must have shape (batch, 6) or (6,), not "
NO_NUMBERS = "must contain real numbers, not "
ROWS = "for 9 row(s) of x and 4 classes: it must be labels of shape (9,) or targets of shape (9, 4)"

# What comes as x and t, in every method that takes both.
BATCHES = [
    ("empty batch", lambda g: (g.x[:0], g.t[:0]), V, "x of shape (0, 6) is an empty batch"),
    ("columns", lambda g: (g.x[:, :5], g.t), V, "x has 5 columns for a network of 6 inputs"),
    ("rank", lambda g: (g.x[None], g.t), V, X_SHAPE + "(1, 9, 6)"),
    ("scalar", lambda g: (1.0, 1), V, X_SHAPE + "()"),
    ("text", lambda g: ([["a"] * 6], [0]), T, f"x {NO_NUMBERS}list of dtype <U1"),
    ("complex", lambda g: (g.x * 1j, g.t), T, f"x {NO_NUMBERS}ndarray of dtype complex128"),
    ("None", lambda g: (None, g.t), T, f"x {NO_NUMBERS}NoneType of dtype object"),
    ("ragged", lambda g: ([[1.0] * 6, [1.0] * 5], g.t), V, "x is not an array: "),
    ("long double", lambda g: (g.x.astype("g"), g.t), T, "x must be float32 or float64, not "),
    ("too few labels", lambda g: (g.x, g.t[:8]), V, "t has 8 labels for 9 rows of x"),
    ("too many labels", lambda g: (g.x[:8], g.t), V, "t has 9 labels for 8 rows of x"),
    ("label too large", lambda g: (g.x[:3], [0, 1, 4]), V, "t[2] is 4, which is not a label of 4 classes"),
    ("label below 0", lambda g: (g.x[:3], [0, -1, 4]), V, "t[1] is -1, which is not a label of 4 classes"),
    ("huge label", lambda g: (g.x[:1], np.array([2**64 - 1])), V, "t[0] is 18446744073709551615, which is not a label"),
    ("float labels", lambda g: (g.x, g.t * 1.0), T, "t has labels of dtype float64: class labels must be integers"),
    ("bool labels", lambda g: (g.x, g.t > 1), T, "t has labels of dtype bool: class labels must be integers"),
    ("one-hot of the wrong width", lambda g: (g.x, np.eye(5)[g.t]), V, "t has shape (9, 5) " + ROWS),
    ("one-hot of the wrong length", lambda g: (g.x, g.one_hot[:8]), V, "t has shape (8, 4) " + ROWS),
    ("labels in a column", lambda g: (g.x, g.t[:, None]), V, "t has shape (9, 1) " + ROWS),
    ("one label for a batch", lambda g: (g.x, 2), V, "t has shape () " + ROWS),
    ("two labels for a row", lambda g: (g.x[0], [1, 2]), V, "t has shape (1, 2) for 1 row(s) of x"),
    ("labels as text", lambda g: (g.x, ["a"] * 9), T, f"t {NO_NUMBERS}list of dtype <U1"),
    ("no targets", lambda g: (g.x, None), T, f"t {NO_NUMBERS}NoneType of dtype object"),
    ("complex targets", lambda g: (g.x, g.one_hot * 1j), T, f"t {NO_NUMBERS}ndarray of dtype complex128"),
]

# The step of a central difference, wherever there is one.
STEPS = [
    (0, V, "h must be positive, not 0"),
    (-1e-4, V, "h must be positive, not -0.0001"),
    (NAN, V, "h must be finite, not nan"),
    (INF, V, "h must be finite, not inf"),
    (-INF, V, "h must be finite, not -inf"),
    (10**400, V, "h must be finite, not 10000"),
    ("1e-4", T, "h must be a number, not str"),
    (True, T, "h must be a number, not bool"),
    (1j, T, "h must be a number, not complex"),
    (np.array([1e-4]), T, "h must be a number, not ndarray"),
]

W1, W2, B1 = "params['W1'] ", "params['W2'] ", "params['b1'] "
PARAMETERS = [
    ("integers", {"W1": np.zeros((6, 5), int)}, T, W1 + "must be float32 or float64, not int64"),
    ("integer biases", {"b2": np.zeros(4, int)}, T, "params['b2'] must be float32 or float64, not int64"),
    ("half precision", {"W1": np.zeros((6, 5), "f2")}, T, W1 + "must be float32 or float64, not float16"),
    ("long double", {"W2": np.zeros((5, 4), "g")}, T, W2 + "must be float32 or float64, not "),
    ("two dtypes", {"W2": np.zeros((5, 4), "f4")}, T, W2 + "is float32, but params['W1'] is float64"),
    ("a list", {"b1": [0.0] * 5}, T, B1 + "must be a NumPy array, not list"),
    ("None", {"b1": None}, T, B1 + "must be a NumPy array, not NoneType"),
    ("rank", {"W1": np.zeros(30)}, V, W1 + "must have 2 dimension(s), none of them 0, not (30,)"),
    (
        "rank of biases",
        {"b1": np.zeros((1, 5))},
        V,
        B1 + "must have shape (5,), not (1, 5): write ",
    ),
    ("no inputs", {"W1": np.zeros((0, 5))}, V, W1 + "must have 2 dimension(s), none of them 0, not (0, 5)"),
    ("next layer", {"W2": np.zeros((6, 4))}, V, W2 + "of shape (6, 4) does not fit the 5 units of the layer before it"),
    ("biases", {"b1": np.zeros(4)}, V, B1 + "of shape (4,) does not fit params['W1'] of shape (6, 5)"),
]

SIZES = [
    ({"input_size": 0}, V, "input_size must be at least 1, not 0"),
    ({"hidden_size": -1}, V, "hidden_size must be at least 1, not -1"),
    ({"output_size": 4.0}, T, "output_size must be an integer, not float"),
    ({"output_size": True}, T, "output_size must be an integer, not bool"),
    ({"weight_init_std": NAN}, V, "weight_init_std must be finite, not nan"),
    ({"weight_init_std": "he"}, T, "weight_init_std must be a number, not str"),
    ({"dtype": "float16"}, V, "dtype must be 'float32' or 'float64', not 'float16'"),
    ({"dtype": "single precision"}, T, "dtype must be 'float32' or 'float64', not 'single precision'"),
]

# What comes as y and t.
ANSWERS = [
    ("empty batch", lambda g: (g.y[:0], g.t[:0]), V, "y of shape (0, 4) is an empty batch"),
    ("no classes", lambda g: (g.y[:, :0], g.t), V, "y must have shape (n,) or (rows, n) with n >= 1, not (9, 0)"),
    ("scalar", lambda g: (0.5, 0), V, "y must have shape (n,) or (rows, n) with n >= 1, not ()"),
    ("rank", lambda g: (g.y[None], g.t), V, "y must have shape (n,) or (rows, n) with n >= 1, not (1, 9, 4)"),
    ("text", lambda g: (["a"], 0), T, f"y {NO_NUMBERS}list of dtype <U1"),
    ("label count", lambda g: (g.y, g.t[:8]), V, "t has 8 labels for 9 rows"),
    ("label range", lambda g: (g.y[:2], [0, 4]), V, "t[1] is 4, which is not a label of 4 classes"),
    ("float labels", lambda g: (g.y, g.t * 1.0), T, "class labels must be integers"),
    ("width", lambda g: (g.y, g.one_hot[:, :3]), V, "t has shape (9, 3) for 9 row(s)"),
    ("one row for a batch", lambda g: (g.y[:4], g.one_hot[0]), T, "class labels must be integers"),
]

FUNCTIONS = [
    ("sigmoid: text", lambda g: fastnet.sigmoid("a"), T, f"x {NO_NUMBERS}str of dtype <U1"),
    ("relu: complex", lambda g: fastnet.relu(1j), T, f"x {NO_NUMBERS}complex of dtype complex128"),
    ("tanh: objects", lambda g: fastnet.tanh(np.array([None])), T, f"x {NO_NUMBERS}ndarray of dtype object"),
    ("step_function: dates", lambda g: fastnet.step_function(np.array(["2020"], "M8[Y]")), T, f"x {NO_NUMBERS}ndarray"),
    ("identity_function: ragged", lambda g: fastnet.identity_function([[1, 2], [3]]), V, "x is not an array: "),
    ("leaky_relu: slope", lambda g: fastnet.leaky_relu(g.x, slope=NAN), V, "slope must be finite, not nan"),
    ("leaky_relu: no slope", lambda g: fastnet.leaky_relu(g.x, None), T, "slope must be a number, not NoneType"),
    ("softmax: scalar", lambda g: fastnet.softmax(3.0), V, "x must have shape (..., classes) with at least one class"),
    ("softmax: no classes", lambda g: fastnet.softmax(np.empty((3, 0))), V, "with at least one class, not (3, 0)"),
    ("softmax: nothing", lambda g: fastnet.softmax([]), V, "with at least one class, not (0,)"),
    (
        "matmul: inner dimensions",
        lambda g: fastnet.matmul(g.x, g.x),
        V,
        "a of shape (9, 6) and b of shape (9, 6) can't be multiplied: 6 != 9",
    ),
    (
        "matmul: transposed",
        lambda g: fastnet.matmul(g.x, g.y[:8], transpose_a=True),
        V,
        "a of shape (9, 6) (transposed) and b of shape (8, 4) can't be multiplied: 9 != 8",
    ),
    (
        "matmul: flag",
        lambda g: fastnet.matmul(g.x, g.x, transpose_a="no", transpose_b=True),
        T,
        "transpose_a must be True or False, not str ('no')",
    ),
    ("matmul: rank of a", lambda g: fastnet.matmul(g.point, g.x), V, "a must have two dimensions, not shape (2,)"),
    ("matmul: rank of b", lambda g: fastnet.matmul(g.x, 3), V, "b must have two dimensions, not shape ()"),
    ("add_bias: size", lambda g: fastnet.add_bias(g.x, g.point), V, "b must have shape (6,) for x of shape (9, 6)"),
    (
        "add_bias: rank of b",
        lambda g: fastnet.add_bias(g.x, g.x[:1]),
        V,
        "b must have shape (6,) for x of shape (9, 6)",
    ),
    (
        "add_bias: rank of x",
        lambda g: fastnet.add_bias(g.point, g.point),
        V,
        "x must have two dimensions, not shape (2,)",
    ),
]

NO_FUNCTION = "pass the function itself, as in `lambda W: net.loss(x, t)`, not its value `net.loss(x, t)`"
SHAPES = "f returned arrays of shapes ("
DIFFERENCES = [
    ("derivative: a value", lambda g: fastnet.derivative(3.0, 1.0), T, NO_FUNCTION),
    ("numerical_jacobian: a value", lambda g: fastnet.numerical_jacobian(g.point, g.point), T, NO_FUNCTION),
    ("gradient_descent: a value", lambda g: fastnet.gradient_descent(g.point.sum(), g.point), T, NO_FUNCTION),
    (
        "numerical_gradient: the notes' slip",
        lambda g: fastnet.numerical_gradient(g.net.loss(g.x, g.t), g.net.params["W1"]),
        T,
        NO_FUNCTION,
    ),
    *(
        (
            f"numerical_gradient: f gives {name}",
            lambda g, y=y: fastnet.numerical_gradient(lambda _: y, g.point),
            T,
            message,
        )
        for name, y, message in [
            ("None", None, "f must return one real number, but it returned None"),
            ("an array", np.zeros(2), "f must return one real number, but it returned ndarray of shape (2,)"),
            ("a complex number", 1j, "f must return one real number, but it returned complex of dtype complex128"),
            ("text", "0", "f must return one real number, but it returned str of dtype <U1"),
        ]
    ),
    *(
        (f"numerical_jacobian: f gives {name}", lambda g, f=f: fastnet.numerical_jacobian(f, g.point), error, message)
        for name, f, error, message in [
            ("text", lambda x: "0", T, "array of real numbers, but it returned str of dtype <U1"),
            ("two shapes", lambda x: np.zeros(2 + (x[0] > 3)), V, SHAPES),
            ("two shapes, the second later", lambda x: np.zeros(2 + (x[1] > 4)), V, SHAPES),
            ("two shapes that broadcast", lambda x: np.zeros(1 if x[0] < 3 else 3), V, SHAPES),
            ("an array and then a number", lambda x: 0.0 if x[0] < 3 else np.zeros(3), V, SHAPES),
        ]
    ),
    ("derivative: x", lambda g: fastnet.derivative(square, "a"), T, f"x {NO_NUMBERS}str"),
    (
        "gradient_descent: lr",
        lambda g: fastnet.gradient_descent(square, g.point, lr=0),
        V,
        "lr must be positive, not 0",
    ),
    (
        "gradient_descent: nan",
        lambda g: fastnet.gradient_descent(square, g.point, NAN),
        V,
        "lr must be finite, not nan",
    ),
    (
        "gradient_descent: steps",
        lambda g: fastnet.gradient_descent(square, g.point, step_num=-1),
        V,
        "step_num must be at least 0, not -1",
    ),
    (
        "gradient_descent: float steps",
        lambda g: fastnet.gradient_descent(square, g.point, step_num=1e2),
        T,
        "step_num must be an integer, not float",
    ),
    ("gradient_descent: text", lambda g: fastnet.gradient_descent(square, "a"), T, f"init_x {NO_NUMBERS}str"),
]

# What comes as x where it is changed in place.
POINTS = [
    (np.array([3, 4]), T, "x must be an array of floating-point numbers, not int64"),
    (np.array([True]), T, "x must be an array of floating-point numbers, not bool"),
    (np.array([1j]), T, "x must be an array of floating-point numbers, not complex128"),
    ([3.0, 4.0], T, "x must be a NumPy array, since it is changed in place, not list"),
    (3.0, T, "x must be a NumPy array, since it is changed in place, not float"),
    (
        np.broadcast_to(1.0, 2),
        V,
        "x is read-only, but its elements are changed one at a time and restored: pass x.copy()",
    ),
]

SETTINGS = [
    ("use_backend: unknown", lambda g: fastnet.use_backend("cuda"), V, "unknown backend 'cuda': choose one of 'cpp', "),
    ("use_backend: case", lambda g: fastnet.use_backend("NumPy"), V, "unknown backend 'NumPy'"),
    ("use_backend: None", lambda g: fastnet.use_backend(None), V, "unknown backend None"),
    ("use_backend: a list", lambda g: fastnet.use_backend(["numpy"]), V, "unknown backend ['numpy']"),
    ("set_num_threads: 0", lambda g: fastnet.set_num_threads(0), V, "count must be at least 1, not 0"),
    ("set_num_threads: -1", lambda g: fastnet.set_num_threads(-1), V, "count must be at least 1, not -1"),
    ("set_num_threads: float", lambda g: fastnet.set_num_threads(2.0), T, "count must be an integer"),
    ("set_num_threads: bool", lambda g: fastnet.set_num_threads(True), T, "count must be an integer"),
    ("set_num_threads: text", lambda g: fastnet.set_num_threads("2"), T, "count must be an integer"),
    ("predict: empty batch", lambda g: g.net.predict(g.x[:0]), V, "x of shape (0, 6) is an empty batch"),
    ("predict: columns", lambda g: g.net.predict(g.x.T), V, "x has 9 columns for a network of 6 inputs"),
    ("predict: row", lambda g: g.net.predict(g.x[0, :5]), V, "x has 5 columns for a network of 6 inputs"),
    ("predict: nothing", lambda g: g.net.predict([]), V, "x has 0 columns for a network of 6 inputs"),
    ("SimpleNet: x", lambda g: g.simple.predict([1, 2, 3]), V, "x has 3 columns for a network of 2 inputs"),
    (
        "SimpleNet: dtype",
        lambda g: fastnet.SimpleNet(dtype="i8"),
        V,
        "dtype must be 'float32' or 'float64', not 'int64'",
    ),
    ("accuracy: batch of 0", lambda g: g.net.accuracy(g.x, g.t, 0), V, "batch_size must be at least 1, not 0"),
    ("accuracy: batch of -5", lambda g: g.net.accuracy(g.x, g.t, -5), V, "batch_size must be at least 1, not -5"),
    ("accuracy: batch of 2.0", lambda g: g.net.accuracy(g.x, g.t, 2.0), T, "batch_size must be an integer, not float"),
]


def all_mistakes():
    """Every row of every table, with each call that takes it."""
    for name, make, error, message in BATCHES:
        for method in ("loss", "gradient", "numerical_gradient", "accuracy"):
            yield Mistake(f"{method}: {name}", lambda g, m=method, a=make: getattr(g.net, m)(*a(g)), error, message)
    for h, error, message in STEPS:
        yield Mistake(f"network: {message}", lambda g, h=h: g.net.numerical_gradient(g.x, g.t, h), error, message)
        if h is None or isinstance(h, np.ndarray):
            continue  # of a function: the default step, and a step for each entry
        for f in (fastnet.numerical_gradient, fastnet.numerical_jacobian, fastnet.derivative):
            yield Mistake(f"{f.__name__}: {message}", lambda g, f=f, h=h: f(square, g.point, h), error, message)
    for algorithm in ("backprop", "LOOP", "", None, 3):
        yield Mistake(
            f"algorithm={algorithm!r}",
            lambda g, a=algorithm: g.net.numerical_gradient(g.x, g.t, algorithm=a),
            V,
            f", not {algorithm!r}",
        )
    for name, params, error, message in PARAMETERS:
        yield Mistake(f"params: {name}", lambda g, p=params: g.with_params(p).gradient(g.x, g.t), error, message)
    for sizes, error, message in SIZES:
        yield Mistake(
            f"TwoLayerNet: {sizes}",
            lambda g, s=sizes: fastnet.TwoLayerNet(**({"input_size": 6, "hidden_size": 5, "output_size": 4} | s)),
            error,
            message,
        )
    for name, make, error, message in ANSWERS:
        for f in (fastnet.cross_entropy_error, fastnet.mean_squared_error):
            yield Mistake(f"{f.__name__}: {name}", lambda g, f=f, a=make: f(*a(g)), error, message)
    for x, error, message in POINTS:
        for f in (fastnet.numerical_gradient, fastnet.numerical_jacobian):
            yield Mistake(f"{f.__name__}: {message}", lambda g, f=f, x=x: f(square, x), error, message)
    for row in (*FUNCTIONS, *DIFFERENCES, *SETTINGS):
        yield Mistake(*row)


def raised(call):
    """The exception of `call` on fresh arrays, after which these are what they were."""
    g = Given()
    before = {name: a.copy() for name, a in g.arrays().items()}
    threads = fastnet.get_num_threads()
    try:
        call(g)
    except Exception as error:
        caught = error
    else:
        pytest.fail("nothing was raised")
    for name, a in g.arrays().items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
    assert fastnet.get_num_threads() == threads
    return caught


@pytest.mark.parametrize("mistake", list(all_mistakes()), ids=lambda mistake: mistake.name)
def test_mistake(backend, mistake):
    error = raised(mistake.call)
    assert type(error) is mistake.error
    assert mistake.message in str(error)
    assert fastnet.backends.active() is backend
    with fastnet.use_backend("numpy"):
        reference = raised(mistake.call)
    assert (type(error), str(error)) == (type(reference), str(reference))


# x is restored, whatever happens --------------------------------------------------------------------------


class BrokenError(Exception):
    """What the function of a test raises."""


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("difference", [fastnet.numerical_gradient, fastnet.numerical_jacobian])
@pytest.mark.parametrize("last_call", range(1, 9))
def test_x_is_restored_when_f_raises(difference, error, last_call):
    x = np.array([[0.1, 0.2], [1e300, -1e-300]])
    before, calls = x.copy(), 0

    def f(at):
        nonlocal calls
        calls += 1
        if calls == last_call:
            raise error
        return float(np.tanh(at).sum())

    with pytest.raises(error):
        difference(f, x)
    assert calls == last_call
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("result", [None, "text", np.zeros(3), 1j])
def test_x_is_restored_when_f_returns_no_number(result):
    x = np.array([0.1, 0.2])
    before = x.copy()
    with pytest.raises(TypeError):
        fastnet.numerical_gradient(lambda at: result, x)
    assert x.tobytes() == before.tobytes()


def test_parameters_are_restored_when_the_loss_raises(backend):
    """The notes' idiom, with a batch that does not fit."""
    g = Given()
    W1 = g.net.params["W1"]
    before = W1.copy()
    with pytest.raises(ValueError, match="t has 8 labels for 9 rows of x"):
        fastnet.numerical_gradient(lambda W: g.net.loss(g.x, g.t[:8]), W1)
    assert W1.tobytes() == before.tobytes()


def test_descent_leaves_its_start_alone_when_f_raises():
    start = np.array([3.0, 4.0])

    def f(at):
        if at[0] < 2:
            raise BrokenError
        return square(at)

    with pytest.raises(BrokenError):
        fastnet.gradient_descent(f, start, lr=0.1)
    assert start.tolist() == [3, 4]
