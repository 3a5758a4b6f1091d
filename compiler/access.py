"""Where a statement reads or writes a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .affine import Affine
from .records import dataclass, field

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """A tensor, read or written at one affine expression of the indices for each of its axes.

    `names` are the indices, each once, in the order of the axes.

    >>> diagonal = Access("a", (Affine.index("i"), Affine.index("i"), Affine(())))
    >>> print(diagonal, diagonal.names)
    a[i,i,0] ('i',)
    """

    tensor: str
    subscripts: tuple[Affine, ...]
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys([name for axis in self.subscripts for name, _ in axis.terms])
        object.__setattr__(self, "names", tuple(names))

    @property
    def is_plain(self) -> bool:
        """Whether each axis is an index of its own.

        >>> Access("a", (Affine.index("i"), Affine.index("i"))).is_plain
        False
        """
        distinct = len(self.names) == len(self.subscripts)
        return distinct and all(axis.is_index for axis in self.subscripts)

    def ends_within(self, shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
        """Whether no index of its own on an axis goes on behind the end of that axis.

        Args:
            shape: the tensor's; axes beyond it are taken for long enough.
            sizes: the extents of indices.

        >>> Access("a", (Affine.index("i"),)).ends_within((3,), {"i": 4})
        False
        """
        return all(
            sizes[axis.names[0]] <= extent
            for axis, extent in zip(self.subscripts, shape, strict=False)
        )

    def replaced(self, values: Mapping[str, Affine]) -> Access:
        """The same with other expressions in place of some indices.

        >>> i, j, k = map(Affine.index, "ijk")
        >>> print(Access("a", (i, j)).replaced({"i": k}))
        a[k,j]
        """
        if values.keys().isdisjoint(self.names):
            return self
        return Access(self.tensor, tuple([axis.replaced(values) for axis in self.subscripts]))

    def __str__(self) -> str:
        listed = ",".join(map(str, self.subscripts))
        return f"{self.tensor}[{listed}]" if listed else self.tensor
