"""Each backend and instruction set, forced in a process of its own, answers the same of random networks of every stage.

`python -m tests.stress agreement` compares many more.
"""

from __future__ import annotations

import agreement

COUNT = 12


def test_every_implementation_gives_the_same_answers(run_python):
    kinds = {stage.kind for seed in range(COUNT) for stage in agreement.network_of(seed)[0].stages}
    assert len(kinds) == 7  # all of them

    def ask(name, isa):
        variables = {"FASTNET_BACKEND": name, "FASTNET_ISA": isa, "OPENBLAS_NUM_THREADS": "1"}
        return run_python(f"import agreement; agreement.report(0, {COUNT})", **variables)

    tried, off = agreement.compare(COUNT, ask)
    assert tried >= COUNT
    assert off == []
