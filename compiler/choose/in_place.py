"""Rows in place: which operand of a packed product is read where it is, and not copied into panels.

The microkernel reads one value of each row at a time. That may be anywhere: for a row an address is
found before the loop over `k`, and for a position of `k` an offset, the same for all rows. So the
gradient of a convolution's weights,

    out[o,c,k,l] = sum_{y,x} g[o,y,x] * image[c,y+k,x+l]

has (c,k,l) as rows and reads them from the image, which has an element once where panels have it
once for every tap. Its lanes run along `o`, and `g` is packed.

A panel is also worth nothing where it is read about as often as it is written: once for each tile
of lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..geometry import Geometry

OVERLAP = 1.25
"""Positions that an operand has for each of its elements, where its elements are in windows."""

READS = 4
"""Tiles of lanes up to which rows that run along the sum are better read where they are.

Measured: 1000 x 512 times 512 x 16 took 1/1.4 of the time, with 64 columns 1/1.05, with 128 as
long."""

READS_ACROSS = 2
"""The same where neighbours are in rows next to each other; with 64 columns that took 1.2 times as
long."""

READS_APART = 8
"""The same where no elements are neighbours: 8 tiles took 1/1.1 of the time, 16 1.1 times."""

READS_NEAR = 32
"""The same times the number of neighbours, in different rows.

Measured on squared norms of gradients of convolutions whose windows do not overlap: with 2
neighbours and 8 tiles it took 1/1.5 of the time, with 4 and 8 1/1.05, with 8 and 2 1/1.6, but with
8 and 16 1.1 times."""

TURNED = 8
"""Neighbours along the sum from which on panels are filled by transposing squares."""

THIN = 8
"""The extent of m or n up to which the other operand is better read where it is."""

NARROW = 2
"""The same where the other operand's elements are in windows: its panels are not copied, and most
of a vector's lanes may be left unused rather than that."""


def is_of_windows(step: Geometry, operand: int, tile: Sequence[str]) -> bool:
    """Whether an operand's rows are read where they are: in panels it would have many times more.

    ``tile`` are the indices of the sums that the step makes.
    """
    if step.elements[operand] != step.accumulator:
        return False
    strides, other = step.strides[operand], step.strides[1 - operand]
    own = [i for i in strides if i in step.contracted or (i in tile and i not in other)]
    own = [i for i in own if strides[i]]
    span = 1 + sum((step.extents[i] - 1) * abs(strides[i]) for i in own)
    return OVERLAP * span <= step.volume(own)


def is_gathered(step: Geometry, operand: int, tile: Sequence[str], tiles: float) -> bool:
    """Whether an operand's rows are read where they are: panels would be filled element by element.

    So they are where only a few elements are neighbours, as in a convolution with a stride. Of
    ``tiles`` of lanes each reads a row again: as little as its elements are near each other.
    """
    if step.elements[operand] != step.accumulator:
        return False
    strides = step.strides[operand]
    if any(strides.get(i) == 1 and step.extents[i] >= TURNED for i in step.contracted):
        return False
    near = [step.extents[i] for i in tile if strides.get(i) == 1]
    if not near:
        return tiles <= READS_APART
    return max(near) * tiles <= READS_NEAR


def is_used_rarely(step: Geometry, operand: int, tiles: float) -> bool:
    """Whether an operand's rows are read where they are: panels would be read too few times.

    ``tiles`` of lanes read each row. Where a row's elements are neighbours along the sum, a cache
    line is used up by the tile that loaded it; where those of several rows are, by tiles that
    follow.
    """
    if step.elements[operand] != step.accumulator:
        return False
    strides = step.strides[operand]
    if any(strides.get(i) == 1 for i in step.contracted):
        return tiles <= READS
    return tiles <= (READS_ACROSS if 1 in strides.values() else 1)


def is_better_in_rows(
    step: Geometry, order: Sequence[int], tile: Sequence[str], lanes: int
) -> bool:
    """Whether the operand that would have the lanes had better be read in place, as rows.

    The output's neighbours are then in rows of the register tile, and stored one by one: the sums
    must be long for that, or the output must not have the index.
    """
    first, second = order
    x, y = step.strides[first], step.strides[second]
    m, n = _side(step, tile, x, y), _side(step, tile, y, x)
    if is_of_windows(step, second, tile):
        if is_of_windows(step, first, tile):
            return False
    else:
        vectors = 2 * lanes
        other = is_gathered(step, first, tile, step.volume(n) / vectors)
        if other or not is_gathered(step, second, tile, step.volume(m) / vectors):
            return False
    if step.volume(m) < fewest_lanes(step, second, tile):
        return False
    if all(i in step.over for i in n):
        return True
    run = any(y[i] == 1 and step.extents[i] >= lanes for i in n)  # and so vectors are copied
    return not run and step.volume(step.contracted) >= step.volume(m)


def _side(
    step: Geometry, tile: Sequence[str], one: Mapping[str, int], other: Mapping[str, int]
) -> list[str]:
    """The indices of a tile that one operand has alone; of several, those that are summed late."""
    own = [i for i in tile if i in one and i not in other]
    return [i for i in own if i in step.over] or own


def fewest_lanes(step: Geometry, rows: int, tile: Sequence[str]) -> int:
    """Positions along the lanes for which the operand that has the rows is better packed or read
    in place than streamed.
    """
    return NARROW if is_of_windows(step, rows, tile) else THIN + 1
