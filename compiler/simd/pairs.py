"""Rows whose lanes are two elements apart, as vectors of which every second element is taken.

    x0 .. x1 .. x2 .. x3        in memory
    x0 .. x1 ..                 two vectors, the second of which ends with the row's last element
             .. x2 .. x3
    x0 x1 x2 x3                 a row of four lanes

That is what a stride of 2 reads, of a convolution or of the real parts of complex numbers. Whether
a step is 2 is found out as the kernel runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..schedule import MASKED
from .emitter import Emitter, picks
from .runs import step_to
from .tiles import Pointer, Tile

__all__ = ["pairs_or"]


def pairs_or(
    e: Emitter,
    kind: Tile,
    base: Sequence[Any],
    row_step: tuple[Any, Any],
    lane_step: tuple[Any, Any],
    part: Sequence[Any],
    otherwise: Callable[[], list[Any]],
) -> list[Any]:
    """A tile's registers: loaded so if its lanes are two elements apart, and ``otherwise`` if not.

    With counts of rows and columns inside, columns outside are zero, and rows repeat the last one
    inside: of what is computed with those nothing is ever stored.
    """
    b = e.builder
    if isinstance(lane_step[0], Pointer) or kind.element not in MASKED or kind.lanes < 2:
        return otherwise()
    with b.if_else(b.icmp_signed("==", lane_step[1], e.integer(2))) as (then, other):
        with then:
            pairs, pairs_end = _of_pairs(e, kind, base, row_step, part), b.block
        with other:
            others, others_end = otherwise(), b.block
    merged = []
    for ways in zip(pairs, others, strict=True):
        merged.append(b.phi(kind.unit))
        for value, block in zip(ways, (pairs_end, others_end), strict=True):
            merged[-1].add_incoming(value, block)
    return merged


def _of_pairs(
    e: Emitter, kind: Tile, base: Sequence[Any], row_step: tuple[Any, Any], part: Sequence[Any]
) -> list[Any]:
    """Every second element of rows of vectors."""
    b, lanes, found = e.builder, kind.lanes, []
    taken = picks((*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)))
    reach = b.sub(b.shl(part[1], e.integer(1)), e.integer(1)) if part else None
    for row in range(kind.rows):
        number = e.integer(row)
        if part:
            last = b.sub(part[0], e.integer(1))
            number = b.select(b.icmp_signed("<", number, last), number, last)
        begin = b.add(base[1], step_to(e, row_step, number))
        for first in range(0, 2 * kind.columns, 2 * lanes):
            halves: list[Any] = []
            for start in (first, first + lanes - 1):
                at = e.address(kind.element, base[0], b.add(begin, e.integer(start)))
                mask = None if reach is None else e.lanes_below(reach, start, lanes)
                halves += e.load(kind.element, at, lanes, mask)
            found.append(b.shuffle_vector(*halves, taken))
    return found
