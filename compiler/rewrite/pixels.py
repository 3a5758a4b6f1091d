"""Pixels: sum what windows have nothing to do with first, for pixels instead of windows.

Before, for all pairs of windows of an image:

    t0[n,y,a] = sum_{c,k} x[n,c,y+k-1] * x[n,c,a+k-1]

after, for all pairs of pixels, and then along the diagonals of those:

    t1[n,t1.1,t1.2] = sum_c x[n,c,t1.1] * x[n,c,t1.2]
    t0[n,y,a] = sum_k t1[n,y+k-1,a+k-1]

Windows overlap, so there are fewer products of pixels than of windows: with many channels and taps,
and few pixels, it takes a fraction of the operations. It is done where it is predicted to take less
time.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..access import Access
from ..affine import Affine
from ..cost import statement_cost
from ..machine import Machine
from ..program import Program, Statement
from ..records import replace

__all__ = ["pixels_first"]


def pixels_first(program: Program, machine: Machine, element: str) -> Program:
    """Rewrite the statements for which that is predicted to take less time.

    Args:
        program: steps.
        machine: what the costs are for.
        element: type of the elements, such as ``f4``.

    >>> from ..machine import TARGETS
    >>> from ..program import from_expression
    >>> from ..resolve import resolve
    >>> from ..subscripts import parse
    >>> given = tuple((Affine.index(name), 12) for name in "ya")
    >>> text = "n c y+k-1, n c a+k-1 -> n y a"
    >>> expression = resolve(parse(text), [(64, 512, 12)] * 2, given)
    >>> program = from_expression(expression, "xx", same=[0, 0])
    >>> print(pixels_first(program, Machine(TARGETS["x86-64-v3"]), "f4"))
    t0[n,t0.0,t0.1] = sum_c x[n,c,t0.0] * x[n,c,t0.1]
    out[n,y,a] = sum_k t0[n,k+y-1,a+k-1]
    """
    names, shapes, sizes = program.fresh_names(), program.shapes, program.sizes
    statements: list[Statement] = []
    for statement in program.statements:
        if statement.epilogue is None and not all(f.is_plain for f in statement.factors):
            name = next(names)
            found = _of_pixels(statement, name, shapes, sizes)
            if found is not None:
                *steps, extents = found
                known = sizes | extents

                def seconds(*made: Statement, known: Mapping[str, int] = known) -> float:
                    return sum(statement_cost(s, known, element, machine).seconds for s in made)

                if seconds(*steps) < seconds(statement):
                    sizes = known
                    statements += steps
                    continue
        statements.append(statement)
    if len(statements) == len(program.statements):
        return program
    return replace(program, extents=tuple(sizes.items())).with_statements(statements)


def _of_pixels(
    statement: Statement,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
) -> tuple[Statement, Statement, dict[str, int]] | None:
    """The two statements, and the extents of their new indices; None if there are no such sums.

    Some indices that are summed are in windows, others are not, and no index of a window is an axis
    of its own as well.
    """
    if len(statement.factors) != 2:
        return None
    windows = {
        index
        for factor in statement.factors
        for axis in factor.subscripts
        if not axis.is_index
        for index in axis.names
    }
    plain = {axis.names[0] for f in statement.factors for axis in f.subscripts if axis.is_index}
    summed = {*statement.contracted}
    if windows & plain or not (summed & windows) or not (summed - windows):
        return None
    axes: dict[Affine, None] = {}  # of the products of pixels, as they are read
    extents: dict[str, int] = {}
    factors: list[Access] = []
    target: list[Affine] = []
    for factor in statement.factors:
        read: list[Affine] = []
        for axis, extent in zip(factor.subscripts, shapes[factor.tensor], strict=True):
            if axis.is_index:
                read.append(axis)
                if axis.names[0] not in summed and axis not in axes:
                    axes[axis] = None
                    target.append(axis)
                continue
            index = f"{name}.{len(extents)}"
            if axis in axes:  # both are read at the same window
                return None
            extents[index] = extent
            axes[axis] = None
            target.append(Affine.index(index))
            read.append(Affine.index(index))
        factors.append(Access(factor.tensor, tuple(read)))
    return (
        Statement(Access(name, tuple(target)), tuple(factors)),
        Statement(statement.target, (Access(name, tuple(axes)),)),
        extents,
    )
