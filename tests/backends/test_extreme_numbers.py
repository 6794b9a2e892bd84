"""Numbers at their limits: the table of docs/limits.md on every backend. The floating-point mode is the program's."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

import extreme_numbers
import fastnet
from fastnet import backends

H = 1e-2
DOCUMENT = Path(__file__).parents[2] / "docs" / "limits.md"


@pytest.fixture(scope="module")
def documented():
    """The rows of the document's table by their cases."""
    if not DOCUMENT.exists():
        pytest.skip("the documents are not beside the tests")
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["", *extreme_numbers.COLUMNS]
    return {case: rest for case, *rest in cells[1:]}


def test_the_table(backend, dtype, documented):
    assert list(documented) == list(extreme_numbers.CASES)
    found = {case: extreme_numbers.row(case, dtype) for case in documented}
    for case, row in found.items():
        expected = documented[case]
        if "nodal" not in backend.algorithms:
            expected = [
                "" if column == "nodal" else w for column, w in zip(extreme_numbers.COLUMNS, expected, strict=True)
            ]
        assert row == expected, case


def answers(case, dtype):
    """What the exact ways give, in float64: one array for each parameter and way."""
    net, x, t = extreme_numbers.CASES[case](dtype)
    gradients = [net.gradient(x, t), net.numerical_gradient(x, t, h=H)]
    gradients.append(net.numerical_gradient(x, t, h=H, algorithm="incremental"))
    arrays = [net.predict(x), *(array for gradient in gradients for array in gradient.values())]
    return [array.astype(np.float64) for array in arrays]


def test_the_values(backend, dtype):
    """Each agrees with the reference to the digits of the dtype. A move h·x that is subnormal is rounded more."""
    limits = np.finfo(dtype)
    for case in extreme_numbers.CASES:
        with fastnet.use_backend("numpy"):
            expected = answers(case, dtype)
        for one, other in zip(answers(case, dtype), expected, strict=True):
            largest = np.nanmax(np.abs(other), initial=0)
            bound = 1e4 * limits.eps * largest + 100 * float(limits.smallest_subnormal) / H
            np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=case)


def test_gradients_of_subnormal_inputs_are_not_lost(backend, dtype):
    net, x, t = extreme_numbers.CASES["all of x subnormal"](dtype)
    gradients = [net.gradient(x, t), net.numerical_gradient(x, t, h=H)]
    for gradient in gradients:
        largest = np.abs(gradient["W1"]).max()
        assert 0 < largest < np.finfo(dtype).smallest_normal


# The floating-point mode ----------------------------------------------------------------------------------

MODES = (0, 0x400, 0x800, 0xC00)  # to nearest, down, up and to zero, as <fenv.h> numbers them on x86


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is asked as on Linux")
def test_the_floating_point_mode_is_the_programs(run_python):
    """Rounding, flags that flush subnormals, and errno are the same after import and calls, in each calling thread."""
    found = run_python(
        """
        import ctypes, json, sys, threading
        libm = ctypes.CDLL("libm.so.6", use_errno=True)
        place = ctypes.create_string_buffer(32)  # fenv_t: on x86-64, its last four bytes are MXCSR

        def mode():
            libm.fegetenv(place)
            control = int.from_bytes(place.raw[28:], "little") & ~0x3F  # without the exceptions that were raised
            return libm.fegetround(), control, 5e-324 * 3 / 3, ctypes.get_errno()

        ctypes.set_errno(7)
        before = mode()
        import numpy as np
        import fastnet

        after_import, found = mode(), []

        def use(dtype):
            ctypes.set_errno(7)
            net = fastnet.TwoLayerNet(60, 50, 5, dtype=dtype, seed=0)
            x, t = np.full((200, 60), 1e-310 if dtype == "float64" else 1e-40, dtype), np.arange(200) % 5
            for call in (net.predict, lambda x: net.loss(x, t), lambda x: net.gradient(x, t)):
                call(x)
            for algorithm in fastnet.backends.active().algorithms:
                net.numerical_gradient(x[:4], t[:4], algorithm=algorithm)
            found.append(mode())

        fastnet.set_num_threads(4)
        for dtype in ("float32", "float64"):
            use(dtype)
            thread = threading.Thread(target=use, args=(dtype,))
            thread.start()
            thread.join()
        print(json.dumps([before, after_import, *found]))
        """,
        FASTNET_BACKEND="cpp" if backends.has_extension() else "numpy",
    )
    assert len(found) == 6
    assert found.count(found[0]) == 6, found
    assert found[0][2:] == [5e-324, 7]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the modes have their numbers of Linux on x86-64"
)
@pytest.mark.skipif(not backends.has_extension(), reason="fastnet was installed without its extension")
@pytest.mark.parametrize("mode", MODES[1:])
def test_another_rounding_is_kept(mode):
    """A program that rounds otherwise has it after a call as before, and answers within the rounding error."""
    libm = ctypes.CDLL("libm.so.6")
    net, x, t = extreme_numbers.CASES["ordinary numbers"]("float64")
    with fastnet.use_backend("cpp"):
        expected = net.numerical_gradient(x, t)
        assert libm.fesetround(mode) == 0
        try:
            found = net.numerical_gradient(x, t)
            kept = libm.fegetround()
        finally:
            libm.fesetround(0)
    assert kept == mode
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-13)
