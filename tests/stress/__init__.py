"""Long runs of faults: `python -m tests.stress`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
