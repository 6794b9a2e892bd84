"""Each backend and instruction set, forced in a process of its own, answers the same of random networks of every stage.

`python -m tests.stress agreement` compares many more.
"""

from __future__ import annotations

import agreement
from fastnet import backends

COUNT = 12
PROGRAM = """
    import json
    import agreement
    from fastnet import build_info
    info = build_info()
    print(json.dumps([info["backend"], info["isa"], [agreement.answers_of(seed) for seed in range({count})]]))
"""


def test_every_implementation_gives_the_same_answers(run_python):
    def answers(name, isa=""):
        """What a process says, which must compute with what it was told."""
        variables = {"FASTNET_BACKEND": name, "FASTNET_ISA": isa, "OPENBLAS_NUM_THREADS": "1"}
        used, used_isa, found = run_python(PROGRAM.format(count=COUNT), **variables)
        assert used == name
        assert isa in ("", used_isa)
        return found

    reference = answers("numpy")
    kinds = {stage.kind for seed in range(COUNT) for stage in agreement.network_of(seed)[0].stages}
    assert len(kinds) == 7  # all of them
    implementations = [("numba", "")] if "numba" in backends.available() else []
    if backends.has_extension():
        from fastnet import _core

        implementations += [("cpp", isa) for isa in _core.available_isas()]
    for name, isa in implementations:
        for seed, (found, expected) in enumerate(zip(answers(name, isa), reference, strict=True)):
            dtype = agreement.network_of(seed)[0].dtype.name
            assert agreement.differences(found, expected, dtype) == [], (name, isa, seed)
