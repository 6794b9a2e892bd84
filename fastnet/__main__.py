"""``python -m fastnet``: the command line."""

import sys

from fastnet.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
