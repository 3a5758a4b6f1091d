"""The passes, in the order in which they run: each is one file and one rewrite.

Every pass is a function ``(nest, schedule) -> nest`` that leaves a valid nest (:mod:`..verify`)
which computes the same (:mod:`..interpret`).
"""

from __future__ import annotations

from collections.abc import Callable

from ..loopnest import Nest
from ..schedule import Schedule
from .frame import frame
from .fuse import fuse
from .mirror import mirror
from .pack import pack
from .panels import panels
from .parallelize import parallelize
from .reorder import reorder
from .stage import stage
from .tabulate import tabulate
from .tile import tile
from .vectorize import vectorize

Pass = Callable[[Nest, Schedule], Nest]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("fuse", fuse),
    ("tile", tile),
    ("reorder", reorder),
    ("mirror", mirror),
    ("pack", pack),
    ("frame", frame),
    ("panels", panels),
    ("vectorize", vectorize),
    ("stage", stage),
    ("parallelize", parallelize),
    ("tabulate", tabulate),
)
