"""Register tiles: the small set of SIMD operations that generated kernels are written in.

A *tile* is a block of ``rows x columns`` values held in vector registers. Kernels load tiles from
memory, combine them with broadcasting (a side of length 1 stretches), and store them::

    x = load_rows(a, offset, row_stride, 6, 16, 8)      # 6 rows of 16 values, vectors of 8 lanes
    acc = multiply_add(acc, x, y)                       # acc + x * y

Sizes are literals, so every operation unrolls into straight vector code when it is lowered. Offsets
and strides count elements, not bytes. From the ground up:

    tiles        element types; the types that Numba sees
    emitter      LLVM code for elements, vectors and tiles
    registry     how an operation is declared
    addresses    operand, buffer, advance
    tables       tabulate, peek, is_run: offsets of composite groups
    integers     + - * // %, comparisons, args[i]
    loops        range and min
    memory       load_*, store_*, copy_part; made with `runs` (whole or through the stack) and
                 `transpose`
    holding      hold_part: short runs, into panels; made with `weave`
    lookups      load_found, store_found: where a table says
    rows         find_rows, load_each, load_along: of a tile, read where they are
    streams      write_runs, fence: past the caches
    updates      update_rows, update_part, prefetch_rows: blocks of a sum, added in the output
    framing      fill_frame, write_frame: images with zeros around them
    arithmetic   zeros, multiply, add, multiply_add, accumulate, total_rows, stretch,
                 holds_somewhere
    elementwise  what formulas are made of: divide, maximum, where, convert ...; collect
    functions    exp, log, tanh, power
    halves       halved: of a symmetric matrix

Importing this package declares all operations; `OPERATIONS` has them by name.
"""

from . import (  # noqa: F401 - they declare operations
    addresses,
    arithmetic,
    elementwise,
    framing,
    functions,
    halves,
    holding,
    integers,
    lookups,
    memory,
    rows,
    streams,
    tables,
    updates,
    weave,
)
from .loops import least, positions
from .registry import LOWERING, OPERATIONS, TYPING
from .tiles import Element, ElementName

__all__ = [
    "LOWERING",
    "OPERATIONS",
    "TYPING",
    "Element",
    "ElementName",
    "least",
    "positions",
]
