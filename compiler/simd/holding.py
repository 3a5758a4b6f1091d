"""Parts of blocks that become panels with their lanes beside each other.

Neighbours in memory become rows of the panel. Of fewer rows than a tile has there may be any
number: short sums have so few in all. How many, and whether lanes follow each other without gaps,
is found out as the kernel runs, so that one kernel serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba.core import types

from .elementwise import converted
from .emitter import Emitter
from .registry import literals, operation
from .tiles import Pointer, Tile, planes
from .weave import by_runs, sorted_rows


@operation
def hold_part(
    panel: Any,
    place: Any,
    pitch: Any,
    p: Any,
    offset: Any,
    step: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    lanes: Any,
) -> Any:
    """Copy ``rows`` neighbours of each of ``columns`` lanes, ``step`` apart, into rows of a panel.

    These are ``pitch`` apart. There are ``depth`` rows at most, and as many columns as ``lanes``
    make a vector; no other rows are written, and what other lanes hold means nothing.
    """
    sizes = literals(depth, lanes)
    if sizes is None or not (isinstance(panel, Pointer) and isinstance(p, Pointer)):
        return None
    most, width = sizes

    def lowering(e: Emitter, values: Sequence[Any]) -> None:
        b = e.builder
        to, at, pitch_, source, first, step_, rows_, columns_ = values[:8]

        def keep(row: int, unit: list[Any]) -> None:
            unit = converted(e, p.element, panel.element, unit)
            place = b.add(at, b.mul(pitch_, e.integer(row)))
            e.store(panel.element, e.address(panel.element, to, place), unit, width, None)

        def gapless(count: int) -> None:
            """As many vectors as there are rows: their lanes are sorted."""
            places = (b.add(first, e.integer(i * width)) for i in range(count))
            units = [
                e.load(p.element, e.address(p.element, source, place), width, None)
                for place in places
            ]
            turned = [sorted_rows(e, list(plane)) for plane in zip(*units, strict=True)]
            for row, unit in enumerate(zip(*turned, strict=True)):
                keep(row, list(unit))

        def runs(begin: int, left: Any, size: int, *, whole: bool) -> None:
            """Runs of ``size`` elements, or of so many as are inside: more than half of them."""
            tile = Tile(p.element, size, width, width)
            base = source, b.add(first, e.integer(begin)), step_
            inside = () if whole else (left, columns_)
            turned = by_runs(e, tile, base, step, e.integer(0), inside)
            for row, unit in enumerate(zip(*turned, strict=True)):
                if whole or row <= size // 2 < size - 1 or row == 0:
                    keep(begin + row, list(unit))
                else:
                    with b.if_then(b.icmp_signed("<", e.integer(row), left)):
                        keep(begin + row, list(unit))

        def shortest(begin: int, left: Any, size: int) -> None:
            """Runs of the least power of two that holds them, if not of a lower one."""
            if size >= most:  # all of them, in all lanes, are for another operation
                runs(begin, left, size, whole=False)
                return
            longest = size >= min(most - begin, width)
            enough = b.icmp_signed(">=" if longest else "==", left, e.integer(size))
            with b.if_else(b.and_(all_lanes, enough)) as (then, otherwise):
                with then:
                    runs(begin, left, size, whole=True)
                with otherwise:
                    if longest:
                        runs(begin, left, size, whole=False)
                        return
                    within = b.icmp_signed("<=", left, e.integer(size))
                    with b.if_else(within) as (here, beyond):
                        with here:
                            runs(begin, left, size, whole=False)
                        with beyond:
                            shortest(begin, left, 2 * size)

        def apart() -> None:
            for begin in range(0, most, width):
                left = b.sub(rows_, e.integer(begin))
                with b.if_then(b.icmp_signed(">", left, e.integer(0))):
                    shortest(begin, left, 2)

        all_lanes = b.icmp_signed("==", columns_, e.integer(width))
        if isinstance(step, Pointer) or planes(p.element) > 1:
            apart()
            return
        together = b.and_(all_lanes, b.icmp_signed("==", step_, rows_))
        together = b.and_(together, b.icmp_signed(">", rows_, e.integer(1)))
        with b.if_else(together) as (then, otherwise):
            with then:
                for count in range(2, most):
                    with b.if_then(b.icmp_signed("==", rows_, e.integer(count))):
                        gapless(count)
            with otherwise:
                apart()

    return types.void, lowering
