"""Compute equal intermediates once, whatever their indices are called and their axes' order.

Before, where `b` and `a` are the same tensors in both:

    t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]
    t1[n,j,i] = sum_s b[n,s,i] * a[n,s,j]
    out[n] = sum_{i,j} t0[n,i,j] * t1[n,j,i]

After:

    t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]
    out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]

A result that is equal to an earlier tensor becomes a copy of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..access import Access
from ..program import Program, Statement
from ..records import replace
from .renaming import Sizes, fingerprint, renamings

__all__ = ["compute_once", "equal", "replaced", "without_unused"]


def compute_once(program: Program) -> Program:
    """Replace every intermediate by an earlier one that is equal; see the module."""
    alike: dict[object, list[Statement]] = defaultdict(list)
    stand_ins: dict[str, StandIn] = {}
    statements, sizes = [], program.sizes
    elements = {tensor.name: tensor.element for tensor in program.tensors}
    for statement in program.statements:
        if stand_ins:
            statement = statement.with_accesses(lambda access: replaced(access, stand_ins))
        name = statement.target.tensor
        known = alike[fingerprint(statement), elements[name]]
        found = next((e for e in (equal(k, statement, sizes) for k in known) if e), None)
        if found is None:
            known.append(statement)
        elif name in program.results:
            source = replaced(statement.target, {name: found})
            statement = Statement(statement.target, (source,))
        else:
            stand_ins[name] = found
            continue
        statements.append(statement)
    return without_unused(program.with_statements(statements))


StandIn = tuple[str, tuple[int, ...]]
"""A tensor, and for each axis of the one that it stands in for which of its own that is."""


def equal(first: Statement, second: Statement, sizes: Sizes) -> StandIn | None:
    """The first statement's target in place of the second's, if they are equal."""
    kept = first.kept
    if not (first.target.is_plain and second.target.is_plain):
        return None  # sums meet in elements of an affine target
    for names in renamings(first, second, sizes):
        if not names.keys() >= {*second.kept}:
            continue  # along an index that no factor has, all elements are the same
        return first.target.tensor, tuple(kept.index(names[name]) for name in second.kept)
    return None


def replaced(access: Access, stand_ins: Mapping[str, StandIn]) -> Access:
    """The access, with the tensor that stands in for its own."""
    if access.tensor not in stand_ins:
        return access
    tensor, places = stand_ins[access.tensor]
    subscripts = list(access.subscripts)
    for axis, place in zip(access.subscripts, places, strict=True):
        subscripts[place] = axis
    return Access(tensor, tuple(subscripts))


def without_unused(program: Program) -> Program:
    """The program without the statements and tensors that no result needs."""
    needed, statements = {*program.results}, []
    for statement in reversed(program.statements):
        if statement.target.tensor in needed:
            needed.update(access.tensor for access in statement.accesses)
            statements.append(statement)
    needed.update(program.inputs)
    tensors = tuple(tensor for tensor in program.tensors if tensor.name in needed)
    return replace(program, tensors=tensors, statements=tuple(reversed(statements)))
