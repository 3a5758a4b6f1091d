"""Maps: where functions of elements are computed that are not part of one statement alone.

A part of a formula that depends on few of its indices is computed once for them, where what it
reads is made (GCC calls it loop-invariant motion)::

    t2[i] = sum_k t1[i,k] * t1[i,k]               t2[i] = sqrt((sum_k t1[i,k] * t1[i,k]) / 768)
    out[i,k] = t1[i,k] / sqrt(t2[i] / 768)        out[i,k] = t1[i,k] / t2[i]

And a map that several statements read is computed again in each of them, where that is predicted to
take less time than to write it to memory and to read it from there::

    t1[i,k] = x[i,k] - m[i]
    t2[i] = sum_k square(t1[i,k])                 t2[i] = sum_k square(x[i,k] - m[i])
    out[i,k] = t1[i,k] / t2[i]                    out[i,k] = (x[i,k] - m[i]) / t2[i]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from .formula import CONTRACTED, Apply, Constant, Read, Value, accesses_of
from .merge import TRUTH, Uses, in_one, may_vanish, renamed
from .program import Epilogue, Program, Statement
from .records import replace

__all__ = ["computed_again", "hoisted"]

FEWER = 8
"""So many times the elements a formula has to be computed for to be computed apart for its own."""

READERS = 4
"""Statements that compute the same map at most."""


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
        key = _put(value, Read(source.target))
        if key not in made:
            name = next(names)
            target = replace(source.target, tensor=name)
            formula = Epilogue(_put(value, CONTRACTED))
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


def _put(value: Value, made: Value) -> Value:
    """A formula with something else in place of everything that it reads."""
    match value:
        case Read():
            return made
        case Apply(function, arguments):
            return Apply(function, tuple(_put(a, made) for a in arguments))
    return value


def computed_again(program: Program, seconds: Callable[[Iterable[Statement]], float]) -> Program:
    """The program with maps computed by each of their readers, where that takes less time.

    Args:
        program: whose statements may be merged.
        seconds: the predicted time of statements.
    """
    while (better := _better(program, seconds)) is not None:
        program = better
    return program


def _better(program: Program, seconds: Callable[[Iterable[Statement]], float]) -> Program | None:
    """The program with one map fewer; None if none is worth it."""
    uses = Uses.of(program)
    for producer in program.statements:
        name = producer.target.tensor
        if producer.contracted or producer.epilogue is None or uses.readers[name] < 2:
            continue
        readers = [s for s in program.statements if any(a.tensor == name for a in s.accesses)]
        if len(readers) > READERS or not may_vanish(uses, producer, readers):
            continue
        made = {
            reader: one
            for reader in readers
            for again, _ in renamed(program, producer, reader)
            if (one := in_one(again, reader)) is not None
        }
        if len(made) < len(readers) or seconds(made.values()) >= seconds((producer, *readers)):
            continue
        rest = [made.get(s, s) for s in program.statements if s is not producer]
        kept = tuple(t for t in program.tensors if t.name != name)
        return replace(program, tensors=kept).with_statements(rest)
    return None
