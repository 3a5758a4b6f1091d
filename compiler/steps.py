"""A program of any number of statements as steps that kernels can do.

This is where rewrites of whole programs come in. Until they do, every product is factorized by
itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .factorize import factorize
from .machine import Machine
from .program import Program, Statement, Tensor

__all__ = ["elements_of", "steps"]


def steps(program: Program, optimize: Any, machine: Machine) -> Program:
    """The same program with no statement that multiplies more than is worth it.

    Args:
        program: every tensor of it has an element type.
        optimize: as for `factorize`; a path is for programs of one statement.
        machine: what the costs are for.
    """
    done: list[Statement] = []
    for statement in program.statements:
        made = [statement]
        if len(statement.factors) > 1 and statement.epilogue is None:
            element = elements_of(program)[statement.factors[0].tensor]
            alone = replace(program, statements=(statement,), results=(statement.target.tensor,))
            split = factorize(alone, optimize, machine, element).program
            made = list(split.statements)
            program = replace(program, tensors=split.tensors, extents=split.extents)
        done += made
        program = with_elements(replace(program, statements=tuple(done)))
    return program


def with_elements(program: Program) -> Program:
    """The program with an element type for the tensors that have none: that of what they are made
    of, or f4 if that is f2.
    """
    known = {tensor.name: tensor.element for tensor in program.tensors}
    for statement in program.statements:
        if known[statement.target.tensor] is None:
            element = known[statement.factors[0].tensor]
            known[statement.target.tensor] = "f4" if element == "f2" else element
    tensors = tuple(Tensor(t.name, t.axes, known[t.name]) for t in program.tensors)
    return replace(program, tensors=tensors)


def elements_of(program: Program) -> dict[str, str]:
    """The element type of every tensor; a program has them all or none."""
    return {tensor.name: tensor.element or "" for tensor in program.tensors}
