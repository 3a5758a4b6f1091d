"""Hoist: functions of elements, computed for fewer elements than they are written for.

A part of a formula that depends on few of its indices is computed once for them, where what it
reads is made (GCC calls it loop-invariant motion)::

    t2[i] = sum_k t1[i,k] * t1[i,k]               t2[i] = sqrt((sum_k t1[i,k] * t1[i,k]) / 768)
    out[i,k] = t1[i,k] / sqrt(t2[i] / 768)        out[i,k] = t1[i,k] / t2[i]
"""

from __future__ import annotations

from math import prod

from .formula import CONTRACTED, TRUTH, Apply, Constant, Read, Value, accesses_of, replaced
from .program import Epilogue, Program, Statement
from .records import replace

__all__ = ["hoisted"]

FEWER = 8
"""So many times the elements a formula has to be computed for to be computed apart for its own."""


def hoisted(program: Program) -> Program:
    """The program with parts of formulas that depend on few indices as statements of their own.

    They are computed of sums, and so merged with these (:mod:`.merge`). What is computed is the
    same to the bit.
    """
    sums = {s.target.tensor: s for s in program.statements if s.contracted and s.target.is_plain}
    if not sums or all(s.epilogue is None for s in program.statements):
        return program
    sizes, names = program.sizes, program.fresh_names()
    free = {tensor.name for tensor in program.tensors if tensor.element is None}
    made: dict[Value, tuple[str, Statement]] = {}  # by the formula in the indices of the sum
    statements: list[Statement] = []

    def apart(value: Value, elements: int) -> Value:
        """The formula of so many elements with reads of new tensors in place of parts."""
        if not isinstance(value, Apply):
            return value
        reads = [*accesses_of(value)]
        source = sums.get(reads[0].tensor) if reads else None
        if (
            source is None
            or len({*reads}) != 1
            or reads[0].tensor not in free
            or not reads[0].is_plain
            or prod(sizes[i] for i in reads[0].names) * FEWER > elements
            or not _is_of_one_type(value)
        ):
            return replace(value, arguments=tuple(apart(a, elements) for a in value.arguments))
        key = replaced(value, lambda _: Read(source.target))
        if key not in made:
            name = next(names)
            target = replace(source.target, tensor=name)
            formula = Epilogue(replaced(value, lambda _: CONTRACTED))
            made[key] = name, Statement(target, (source.target,), formula)
            statements.append(made[key][1])
        return Read(replace(reads[0], tensor=made[key][0]))

    for statement in program.statements:
        epilogue = statement.epilogue
        if epilogue is not None:
            elements = prod(sizes[i] for i in (*statement.kept, *epilogue.over))
            value = apart(epilogue.value, elements)
            if value != epilogue.value:
                statement = replace(statement, epilogue=replace(epilogue, value=value))
        statements.append(statement)
    return program.with_statements(statements) if made else program


def _is_of_one_type(value: Value) -> bool:
    """Whether a formula reads tensors alone, and has values of their type if they are of one."""
    match value:
        case Constant(number):
            return not isinstance(number, complex)
        case Apply(function, arguments):
            return function not in (*TRUTH, "where") and all(map(_is_of_one_type, arguments))
    return isinstance(value, Read)
