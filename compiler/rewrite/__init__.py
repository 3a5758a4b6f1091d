"""Rewrites of programs: the algebra that comes before and after a product is cut into steps.

Each is one file with one rewrite, shown before and after at its head, and leaves a program that
`verify_program` accepts and that computes the same. In order:

    inline       products of products -> one product              the whole program
    lonely       sums over what one factor depends on come first  each product, before its split
    common       equal tensors -> one, whatever their indices     before and after the split
    pixels       products of windows -> products of pixels        each candidate, after its split

`renaming` says which statements are equal up to the names of indices; `common`, and the search for
trees in which parts repeat (`compiler/shared.py`), are built on it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..machine import Machine
from ..program import Program
from .common import compute_once, without_unused
from .lonely import sum_lonely_indices

__all__ = ["AFTER", "BEFORE", "compute_once", "finish", "simplify", "without_unused"]

BEFORE: tuple[Callable[[Program, Machine, str], Program], ...] = (
    sum_lonely_indices,
    lambda program, machine, element: compute_once(program),
)
"""What is done to a product before it is split; the last statement's factors keep their places."""

AFTER: tuple[Callable[[Program], Program], ...] = (compute_once,)
"""What is done to all statements after that."""


def simplify(program: Program, machine: Machine, element: str) -> Program:
    """Run the passes that come before a product is split, its last statement.

    Args:
        program: statements of which the last one is to be split.
        machine: what the costs are for.
        element: type of all elements, such as ``f4``.
    """
    for rewrite in BEFORE:
        program = rewrite(program, machine, element)
    return program


def finish(program: Program) -> Program:
    """Run the passes that come after products are split into steps."""
    for rewrite in AFTER:
        program = rewrite(program)
    return program
