"""Per-example gradient norms of linear layers, compiled ahead of time.

Whoever installs the wheel finds the kernels in it: no compiler runs, and none has to be installed.
"""

from pathlib import Path

import einsumc

from .norms import norms, sequence_norms

__all__ = ["norms", "sequence_norms"]

# Searched after the user's own store, and never written to.
einsumc.add_store(Path(__file__).parent / "kernels")
