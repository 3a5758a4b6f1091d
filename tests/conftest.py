"""Makes the helpers beside this file, such as `strategies.py`, importable from any test."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
