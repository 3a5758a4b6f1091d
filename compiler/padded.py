"""Padded: a copy of a tensor with zeros around it, for what reads outside of the tensor."""

from __future__ import annotations

from collections.abc import Mapping

from .access import Access
from .affine import Affine, axis_index
from .program import Statement
from .records import dataclass

__all__ = ["Padded"]


@dataclass(frozen=True, slots=True)
class Padded:
    """A copy that is to be made.

    Attributes:
        name: what the copy is called.
        reach: the least and the greatest position that it has along each axis of the tensor.
    """

    name: str
    reach: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of the copy."""
        return tuple(high - low + 1 for low, high in self.reach)

    def read(self, factor: Access) -> Access:
        """What reads in the copy what a factor reads in its tensor."""
        axes = zip(factor.subscripts, self.reach, strict=True)
        return Access(self.name, tuple(axis.plus(-low) for axis, (low, _) in axes))

    def statement(self, factor: Access, sizes: Mapping[str, int]) -> Statement:
        """What makes the copy; `factor` is an access to the tensor that it is read instead of.

        Where all of an axis is read at an index alone, which reads no other axis, that names the
        axis of the copy too, so that slices cut both. `sizes` are the extents of indices.

        >>> subscripts = (Affine.index("c"), Affine.index("y").plus(-1))
        >>> copy = Padded("t", ((0, 2), (-1, 8)))
        >>> print(copy.statement(Access("a", subscripts), {"c": 3, "y": 10}))
        t[c,t.1] = a[c,t.1-1]
        """
        target, source = [], []
        used = [name for axis in factor.subscripts for name in axis.names]
        for number, (axis, extent) in enumerate(zip(factor.subscripts, self.shape, strict=True)):
            whole = axis.is_index and sizes[axis.names[0]] == extent
            alone = whole and used.count(axis.names[0]) == 1
            index = axis if alone else Affine.index(axis_index(self.name, number))
            target.append(index)
            source.append(index.plus(self.reach[number][0]))
        return Statement(Access(self.name, tuple(target)), (Access(factor.tensor, tuple(source)),))

    def extents(self, made: Statement) -> dict[str, int]:
        """The extents of the indices of the statement that makes the copy."""
        return dict(zip(made.kept, self.shape, strict=True))
