"""The command `fastnet`. It is not a part of the package, so that Ctrl-C while that is imported shows no traceback."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as in fastnet.cli


def main() -> int:
    """Run the command line; see `fastnet.cli.main`."""
    try:
        from fastnet.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
