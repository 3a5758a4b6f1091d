"""One contraction step on concrete sizes and strides, and its canonical form.

Canonicalisation makes equal what differs only in spelling: axes of extent 1 are dropped, indices
that are adjacent in every tensor are merged into one (``abc,abc->abc`` on contiguous arrays is one
loop), and names are gone. What is left decides the schedule, and with it the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from .records import dataclass, field, replace

if TYPE_CHECKING:
    from .finish import Finish
    from .frames import Windows


@dataclass(frozen=True, slots=True)
class Geometry:
    """A step ``out = sum of products`` by its extents and strides.

    ``elements`` are the tensors' element types, the output last; before it, those that only the
    epilogue reads; ``strides[t][i]`` is tensor t's
    stride along index i in elements, and the tensor does not depend on the index where it has no
    entry. An affine access needs nothing more: its address is linear in the indices.
    ``twins``: the first two operands are one tensor, read at two places, and to exchange these
    changes nothing of what the epilogue reads.
    ``windows``: those of a step that reads beyond the ends of an operand; its indices stay as they
    are.
    ``merged[i]`` are the indices that ``i`` stands for, outermost first, where it is not one alone.
    """

    elements: tuple[str, ...]
    accumulator: str
    extents: Mapping[str, int]
    strides: tuple[Mapping[str, int], ...]
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    twins: bool = False
    finish: Finish | None = None
    windows: Windows | None = None

    @property
    def factors(self) -> int:
        """How many operands are multiplied; those that follow are read by the epilogue."""
        return len(self.elements) - 1 - (self.finish.reads if self.finish else 0)

    @property
    def kept(self) -> tuple[str, ...]:
        """The indices of the output, those with the largest strides first."""
        return tuple(i for i in self.extents if i in self.strides[-1])

    @property
    def reduced(self) -> tuple[str, ...]:
        """The indices that are summed over."""
        return tuple(i for i in self.extents if i not in self.strides[-1])

    @property
    def over(self) -> tuple[str, ...]:
        """Those of them that are summed after the epilogue's formula."""
        over = self.finish.over if self.finish else ()
        return tuple(i for i in self.reduced if i in over)

    @property
    def contracted(self) -> tuple[str, ...]:
        """Those that are summed before it."""
        return tuple(i for i in self.reduced if i not in self.over)

    def volume(self, indices: Sequence[str]) -> int:
        """The product of some indices' extents."""
        product = 1
        for index in indices:
            product *= self.extents[index]
        return product


def canonical(geometry: Geometry, merging: bool = True) -> Geometry:
    """The same step without axes of extent 1 and, if `merging`, with adjacent indices merged.

    Indices are ordered for traversal: the output's axes by falling stride, then the reduced ones
    by falling stride in the operands, so that the innermost index has the smallest step.
    """
    windows = geometry.windows
    fixed = {*windows.kept, *windows.taps} if windows is not None else set()
    extents = {i: n for i, n in geometry.extents.items() if n != 1 or i in fixed}
    strides = [{i: s for i, s in t.items() if i in extents} for t in geometry.strides]
    finish = geometry.finish
    over = {*finish.over} if finish is not None else set()

    def weight(index: str) -> tuple[bool, int, int]:
        steps = [abs(t[index]) for t in strides if index in t]
        out = abs(strides[-1].get(index, 0))
        return (index not in strides[-1], -out, -max(steps, default=0))

    order = sorted(extents, key=weight)
    members: dict[str, tuple[str, ...]] = {i: (i,) for i in order}
    merged = merging
    while merged:
        merged = False
        for outer in order:
            inner = next(
                (
                    i
                    for i in order
                    if i != outer
                    and fixed.isdisjoint((i, outer))
                    and (i in over) == (outer in over)
                    and _adjacent(strides, extents, outer, i)
                ),
                None,
            )
            if inner is not None:
                extents[inner] *= extents.pop(outer)
                members[inner] = members.pop(outer) + members[inner]
                strides = [{i: s for i, s in t.items() if i != outer} for t in strides]
                order.remove(outer)
                merged = True
                break
    return Geometry(
        geometry.elements,
        geometry.accumulator,
        {i: extents[i] for i in order},
        tuple({i: t[i] for i in order if i in t} for t in strides),
        {i: indices for i, indices in members.items() if len(indices) > 1},
        geometry.twins,
        finish and replace(finish, over=tuple(i for i in order if i in over)),
        windows,
    )


def _adjacent(
    strides: Sequence[Mapping[str, int]], extents: Mapping[str, int], outer: str, inner: str
) -> bool:
    """Whether a step along ``outer`` equals a whole run along ``inner`` in every tensor."""
    return all(
        (outer in t) == (inner in t) and t.get(outer, 0) == t.get(inner, 0) * extents[inner]
        for t in strides
    )


def may_overlap(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether an array has more positions than there are elements between its ends.

    >>> may_overlap((6, 3), (1, 1)), may_overlap((6, 3), (3, 1))
    (True, False)
    """
    axes = [(n, abs(s)) for n, s in zip(shape, strides, strict=True) if s]
    return prod(n for n, _ in axes) > 1 + sum((n - 1) * s for n, s in axes)
