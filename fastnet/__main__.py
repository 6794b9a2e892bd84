"""Run the command line: ``python -m fastnet``."""

import sys

from fastnet.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
