"""Rewrites of programs: the algebra that comes before and after a product is cut into steps.

Each is one file with one rewrite, shown before and after at its head, and leaves a program that
`verify_program` accepts and that computes the same. In order:

    inline       products of products -> one product              the whole program
    lonely       sums over what one factor depends on come first  each product, before its split
    common       equal tensors -> one, whatever their indices     before and after the split
    pixels       products of windows -> products of pixels        each candidate, after its split

`renaming` says which statements are equal up to the names of indices; `common`, and the search for
trees in which parts repeat (`compiler/shared.py`), are built on it.

A pass is imported when a program has what it is about: most equations have nothing of the kind, and
to import a module takes a process longer than to plan its first call.
"""

from __future__ import annotations

from collections import Counter

from ..machine import Machine
from ..program import Program, Statement

__all__ = ["finish", "simplify"]


def simplify(program: Program, machine: Machine, element: str) -> Program:
    """Run the passes that come before a product is split, its last statement.

    The last statement's factors keep their places.

    Args:
        program: statements of which the last one is to be split.
        machine: what the costs are for.
        element: type of all elements, such as ``f4``.
    """
    if _has_lonely_indices(program.statements[-1]):
        from .lonely import sum_lonely_indices

        program = sum_lonely_indices(program, machine, element)
    return _computed_once(program)


def finish(program: Program, machine: Machine, element: str) -> Program:
    """Run the passes that come after products are split into steps, on all of them.

    Args: as for `simplify`.
    """
    program = _computed_once(program)
    if not all(statement.is_plain for statement in program.statements):
        from .pixels import pixels_first

        program = pixels_first(program, machine, element)
    return program


def _computed_once(program: Program) -> Program:
    if len(program.statements) == 1:
        return program  # there is nothing that it could be equal to
    from .common import compute_once

    return compute_once(program)


def _has_lonely_indices(statement: Statement) -> bool:
    """Whether an index is summed that only one of several factors has."""
    factors = statement.factors
    uses = Counter(index for factor in factors for index in factor.names)
    return len(factors) > 1 and any(uses[index] == 1 for index in statement.contracted)
