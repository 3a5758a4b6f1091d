"""Common names: what walks an axis of a tensor has one name in all statements, where it may.

Before::

    t0[i,j] = sum_k x[i,j,k]
    t1[n,a] = sum_t g[n,t,a] * t0[n,t]

after::

    t0[i,j] = sum_k x[i,j,k]
    t1[i,a] = sum_j g[i,j,a] * t0[i,j]

Statements that were traced apart name their indices each in its own way. The search for loops that
several statements share (:mod:`.chains`) goes by names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from operator import methodcaller

from .access import Access
from .affine import Affine
from .program import Program, Statement
from .records import replace

__all__ = ["with_common_names"]


def with_common_names(program: Program) -> Program:
    """The program with names in common.

    >>> from .program import Tensor
    >>> def access(name, axes):
    ...     return Access(name, tuple(map(Affine.index, axes)))
    >>> rows = Statement(access("t0", "ij"), (access("x", "ijk"),))
    >>> out = Statement(access("t1", "na"), (access("g", "nta"), access("t0", "nt")))
    >>> tensors = [Tensor("x", (2, 3, 4)), Tensor("g", (2, 3, 5)), Tensor("t1", (2, 5))]
    >>> extents = (("i", 2), ("j", 3), ("k", 4), ("n", 2), ("t", 3), ("a", 5))
    >>> program = Program(tuple(tensors), ("x", "g"), (), ("t1",), extents)
    >>> print(with_common_names(program.with_statements([rows, out])))
    t0[i,j] = sum_k x[i,j,k]
    t1[i,a] = sum_j g[i,j,a] * t0[i,j]
    """
    sizes = program.sizes
    fresh = (f"i{number}" for number in count() if f"i{number}" not in sizes)
    known: dict[str, tuple[str, ...]] = {}
    extents: dict[str, int] = {}
    statements = []
    for statement in program.statements:
        names = _names(statement, known, sizes, fresh)
        values = {old: Affine.index(new) for old, new in names.items()}
        extents.update({new: sizes[old] for old, new in names.items()})
        made = statement.with_accesses(methodcaller("replaced", values))
        if made.epilogue is not None:
            over = tuple(names[index] for index in made.epilogue.over)
            made = replace(made, epilogue=replace(made.epilogue, over=over))
        for access in (*made.accesses, made.target):
            if all(axis.is_index for axis in access.subscripts):
                known.setdefault(access.tensor, access.names)
        sizes = {**sizes, **extents}
        statements.append(made)
    return replace(program, statements=tuple(statements), extents=tuple(extents.items()))


def _names(
    statement: Statement,
    known: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, int],
    fresh: Iterator[str],
) -> dict[str, str]:
    """A name for each index of a statement, where possible that of the tensors' axes."""
    names: dict[str, str] = {}
    taken: set[str] = set()

    def give(index: str, name: str) -> None:
        if index not in names and name not in taken and sizes[index] == sizes[name]:
            names[index] = name
            taken.add(name)

    for access in (*statement.operands, statement.target):
        axes = known.get(access.tensor, ())
        if _is_whole(access, axes):
            for axis, name in zip(access.subscripts, axes, strict=True):
                give(axis.names[0], name)
    for index in statement.indices:
        give(index, index)
        if index not in names:
            names[index] = next(fresh)
    return names


def _is_whole(access: Access, axes: tuple[str, ...]) -> bool:
    """Whether each axis is walked by an index of its own, and the axes have names."""
    plain = all(axis.is_index for axis in access.subscripts)
    return plain and len(access.subscripts) == len(axes) == len({*access.names})
