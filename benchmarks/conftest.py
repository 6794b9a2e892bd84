"""The benchmarks are scripts, which find `_measure` beside them; pytest looks for it here too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
