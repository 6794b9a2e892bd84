"""The command line: ``fastnet compare``, ``fastnet train`` and ``fastnet info``."""

from fastnet.cli.entry import main

__all__ = [
    "main",
]
