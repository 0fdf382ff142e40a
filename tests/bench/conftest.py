"""The bench is a folder of scripts beside the package: its modules are found there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
