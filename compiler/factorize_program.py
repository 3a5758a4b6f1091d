"""Cut a program of several statements into steps, and choose which intermediates it keeps.

Intermediates that are products may be inlined (:mod:`.rewrite.inline`), so that what several
statements multiply is contracted in another order; keeping them competes with that. So does the
program with common factors taken out of its sums (:mod:`.rewrite.distribute`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .affine import Affine, axis_index
from .cost import Cost, program_cost
from .factorize import Factorization, cheapest, factorize
from .machine import Machine
from .program import Program, Statement
from .records import replace
from .rewrite.common import compute_once
from .rewrite.describe import describe
from .rewrite.distribute import distributed
from .rewrite.inline import inlinable, inlined

__all__ = ["factorize_program"]

MOST_INLINED = 12
"""Factors that a statement may have once intermediates are inlined."""

MOST_TRIED = 8
"""Of more intermediates than this, all or none are inlined."""


def factorize_program(
    program: Program,
    optimize: Any,
    machine: Machine,
    element: str,
    largest: int | None,
    inlining: bool,
) -> Factorization:
    """Cut every statement of a program into steps, and choose which intermediates it keeps.

    Intermediates are inlined one after the other for as long as that is cheaper, beginning with
    none, and with all.

    Args: see :func:`.factorize.factorize`.
    """
    program = compute_once(program)
    splits: dict[Statement, Program] = {}
    tried: dict[tuple[Statement, ...], tuple[Program, Cost]] = {}
    inside: dict[tuple[str, ...], Program] = {}  # a form with these intermediates inlined

    def cut(whole: Program) -> tuple[Program, Cost]:
        if whole.statements not in tried:
            names, extents = whole.fresh_names(), whole.sizes
            steps: list[Statement] = []
            for statement in whole.statements:
                if statement not in splits:
                    alone = _alone(whole, statement)
                    found = factorize(alone, optimize, machine, element, largest)
                    splits[statement] = found.program
                steps += _renamed(splits[statement], whole.sizes, names, extents)
            whole_program = replace(whole, extents=tuple(extents.items()))
            split = compute_once(whole_program.with_statements(steps))
            tried[whole.statements] = split, program_cost(split, element, machine)
        return tried[whole.statements]

    def written_with(names: Sequence[str]) -> Program:
        if (form, *names) not in inside:
            inside[form, *names] = inlined(written, names, real)
        return inside[form, *names]

    def fits(whole: Program) -> bool:
        return all(len(statement.factors) <= MOST_INLINED for statement in whole.statements)

    if not inlining:
        return cheapest({_WRITTEN: cut(program)})
    candidates, real = {}, element.startswith("f")
    for form, written in _forms(program):
        candidates[form] = cut(written)
        every = inlinable(written)
        alone = [name for name in every if fits(written_with([name]))]
        for chosen in ([], every) if alone else ():
            whole = written_with(chosen)
            if not fits(whole):
                continue
            best, improved = cut(whole), True
            while improved:
                improved = False
                for name in alone if len(alone) <= MOST_TRIED else ():
                    others = [n for n in every if (n in chosen) != (n == name)]
                    changed = written_with(others)
                    if fits(changed) and cut(changed)[1].seconds < best[1].seconds:
                        best, chosen, improved = cut(changed), others, True
            if chosen:
                name = f"{', '.join(chosen)} inlined: {describe(best[0])}"
                candidates[name if form == _WRITTEN else f"{form}, {name}"] = best
    return cheapest(candidates)


_WRITTEN = "as written"


def _forms(program: Program) -> Iterator[tuple[str, Program]]:
    """The program, and what it is with common factors taken out of its sums."""
    yield _WRITTEN, program
    other = distributed(program)
    if other is not None:
        yield "common factors", other


def _alone(program: Program, statement: Statement) -> Program:
    """One of a program's statements as a program of its own."""
    read = tuple(dict.fromkeys(access.tensor for access in statement.accesses))
    names = {*read, statement.target.tensor}
    return Program(
        tensors=tuple(tensor for tensor in program.tensors if tensor.name in names),
        inputs=read,
        statements=(statement,),
        results=(statement.target.tensor,),
        extents=tuple((i, n) for i, n in program.extents if i in statement.indices),
    )


def _renamed(
    split: Program, sizes: Mapping[str, int], names: Iterator[str], extents: dict[str, int]
) -> Iterator[Statement]:
    """The steps of a statement, of which the last makes a tensor of the whole program.

    The others make new tensors, with indices that are not among `sizes`, the program's, where one
    stands for an affine axis; those are named after the new tensor, and added to `extents`.
    """
    own = {step.target.tensor: next(names) for step in split.statements[:-1]}
    for step in split.statements:
        target = own.get(step.target.tensor, step.target.tensor)
        indices: dict[str, Affine] = {}
        for index in step.indices:
            if index not in sizes:
                name = axis_index(target, len(indices))
                indices[index], extents[name] = Affine.index(name), split.sizes[index]
        yield replace(
            step,
            target=replace(step.target, tensor=target).replaced(indices),
            factors=tuple(
                replace(each, tensor=own.get(each.tensor, each.tensor)).replaced(indices)
                for each in step.factors
            ),
        )
