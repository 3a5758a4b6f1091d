"""A program of any number of statements as steps that kernels can do.

    compute once    equal tensors, whatever their indices
    factorize       products -> steps, intermediates inlined where that is cheaper
    margin          what many boxes would read -> a copy with zeros around it
    merge           a step and the only one that reads its result -> one, with an epilogue
    spread          a sum of much into little -> partial sums, for several threads

These rewrites know one element type. So the program's *main* type is found, that of most of its
intermediates, and these lose theirs; what is of another type stays as it is, and is never moved
over: a cast is a border.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

from .factorize import Factorization, factorize
from .inside import with_margins
from .machine import Machine
from .program import Program, Statement, Tensor
from .records import dataclass, field, replace
from .spread import in_registers

__all__ = ["Stepped", "elements_of", "steps", "with_elements"]


@dataclass(frozen=True, slots=True)
class Stepped:
    """A program in steps.

    Attributes:
        program: the steps; every tensor has an element type.
        factorization: how they were chosen, before any were merged; None if nothing was.
        element: the element type of most of what is computed.
        candidates: the programs that there were to choose from, by name, if they were asked for.
    """

    program: Program
    factorization: Factorization | None
    element: str
    candidates: Mapping[str, Program] = field(default_factory=dict)

    def choosing(self, name: str) -> Stepped:
        """The same with another candidate."""
        found = self.factorization
        if found is not None:
            found = replace(found, program=found.programs[name], chosen=name)
        return replace(self, program=self.candidates[name], factorization=found)


def steps(
    program: Program,
    optimize: Any,
    machine: Machine,
    memory_limit: int | None = None,
    apart: bool = False,
) -> Stepped:
    """The same program in the order and the pieces in which it is computed.

    Args:
        program: every tensor of it has an element type.
        optimize: as for `factorize`; a path is for programs of one statement.
        machine: what the costs are for.
        memory_limit: bytes that intermediates are wanted to take; there are more candidates then,
            and all of them are returned.
        apart: whether to leave statements as they are written, each on its own.
    """
    element = _main(program)
    if not program.statements or 0 in program.sizes.values():
        return Stepped(program, None, element, {} if memory_limit is None else {"": program})
    largest = None if memory_limit is None else memory_limit // int(element[1:])
    found = factorize(
        _without(program, element), optimize, machine, element, largest, inlining=not apart
    )

    def merged(program: Program) -> Program:
        if apart:
            return with_elements(program)
        program = with_margins(program, element, machine)
        uneven = memory_limit is None  # parts that differ are not computed in slices
        return with_elements(in_registers(program, element, machine, uneven=uneven))

    if memory_limit is None:
        return Stepped(merged(found.program), found, element)
    distinct = {id(each): each for each in found.programs.values()}
    made = {key: merged(each) for key, each in distinct.items()}
    candidates = {name: made[id(each)] for name, each in found.programs.items()}
    return Stepped(candidates[found.chosen], found, element, candidates)


def _main(program: Program) -> str:
    """The element type of most of what is computed."""
    sizes: Counter[str] = Counter()
    elements, shapes = elements_of(program), program.shapes
    for statement in program.statements:
        name = statement.target.tensor
        sizes[elements[name]] += prod(shapes[name]) if elements[name][:1] in "fc" else 0
        for factor in statement.factors:
            sizes[elements[factor.tensor]] += int(elements[factor.tensor][:1] in "fc")
    return sizes.most_common(1)[0][0] if sizes else "f8"


def _without(program: Program, element: str) -> Program:
    """The program in which intermediates of this type, made of such, have no type of their own."""
    elements = elements_of(program)
    free = {
        statement.target.tensor
        for statement in program.statements
        if statement.target.tensor not in program.results
        and elements[statement.target.tensor] == element
        and _is_of(statement, element, elements)
    }
    tensors = (
        Tensor(t.name, t.axes, None if t.name in free else t.element) for t in program.tensors
    )
    return replace(program, tensors=tuple(tensors))


def _is_of(statement: Statement, element: str, elements: dict[str, str]) -> bool:
    return all(elements[factor.tensor] == element for factor in statement.factors)


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
