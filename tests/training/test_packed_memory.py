"""How much memory the rows take that the extension has prepared for training."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastnet import backends

if not backends.has_extension():
    pytest.skip("fastnet was installed without its extension", allow_module_level=True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is read from /proc")
def test_few_values_take_a_byte_each(run_python, dtype):
    """Beside them there are a mask of 8 bytes for 64 columns, and where the row begins."""
    program = f"""
    from pathlib import Path
    import numpy as np
    from fastnet import _core

    def resident_pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    x = np.zeros((20_000, 640), {dtype!r})
    x[:, ::5] = np.arange(1, x.size // 5 + 1).reshape(len(x), -1)
    few = np.where(x > 0, x % 255 + 1, 0).astype(x.dtype)
    kept, taken = [], []
    for data in (few, x):
        before = resident_pages()
        kept.append(_core.Dataset(data))
        taken.append(resident_pages() - before)
    print(taken)
    """
    few, many = run_python(program)
    assert few < 0.6 * many
