"""Which kernels serve a signature, whatever arrays come.

Which kernel a call uses depends on its sizes and memory layouts, not only on the dtypes and ranks
that a signature fixes. So calls are drawn at random, the same ones every time: extents between 1
and `LARGEST` for the indices that the signature leaves open, and layouts as they occur in programs,
C and Fortran order most of all, then slices, steps, reversed and broadcast axes. They are planned,
which takes no memory and little time since nothing is computed. What most of them ask for is taken,
and besides that the general kernels, which compute whatever the others do not
(:mod:`einsumc.compiler.choose.general`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, combinations_with_replacement, product
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.choose import usual
from ..compiler.choose.general import Kind, general_packed_schedule, general_schedule
from ..compiler.errors import EinsumError
from ..compiler.records import dataclass
from ..compiler.resolve import resolve
from .execute import prepare_layouts
from .kernels import Kernel
from .layouts import virtual_of
from .machine import machine
from .memory import memory_order
from .operands import Array
from .views import distinct_output
from .virtual import virtual

if TYPE_CHECKING:
    from ..compiler.machine import Target
    from ..compiler.schedule import Schedule
    from ..compiler.subscripts import Expression, Subscripts
    from ..compiler.windows import Given
    from .signatures import Signature
    from .traced import CompiledFunction

__all__ = ["schedules_for", "schedules_for_function", "shapes_for"]

CALLS = 4000
"""How many calls are drawn, shared among the operands: planning many takes longer."""

LARGEST = 2048
"""The largest extent of an open index, where tensors are of few indices."""

MOST = 64
"""So many kernels at most, besides the general ones."""

ENOUGH = 0.99
"""The share of calls whose kernels are all to be there, if `MOST` allows."""

_SMALL = 24  # an extent of a few vectors
_EVERY = 4  # so many open extents are 1 or not in every combination
_ELEMENTS = 36  # the binary logarithm of the largest tensor's size
_PRODUCTS = 34  # that of the multiply-adds of a step: what one core does in about a second
_POSITIONS = 120  # that of the positions of all indices together

Layout = tuple[int, ...]
"""An array's strides, in bytes."""


def schedules_for(
    subscripts: Subscripts,
    signature: Signature,
    optimize: Any,
    memory_limit: int | None = None,
    sizes: Given = (),
) -> set[Schedule]:
    """The schedules of the kernels that serve a signature.

    Raises:
        EinsumError: (a ValueError) the equation does not go together with the signature's extents,
            or the memory limit is too low for all of them.
    """
    calls: Counter[_Call] = Counter()  # where extents are fixed, many are alike
    asked: Counter[frozenset[Schedule]] = Counter()
    problem: EinsumError | None = None
    for call in _calls(subscripts, signature, sizes):
        if isinstance(call, EinsumError):
            problem = call
        else:
            calls[call] += 1
    for call, times in calls.items():
        try:
            asked[call.schedules(optimize, memory_limit)] += times
        except EinsumError as error:  # sizes for which the limit is too low
            problem = error
    if not asked and problem is not None:
        raise problem
    every: frozenset[Schedule] = frozenset().union(*asked)
    return _most_wanted(asked) | (_general(every, len(signature.operands)) if every else set())


def schedules_for_function(
    function: CompiledFunction,
    signature: Signature,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    layouts: Sequence[tuple[str, ...]] = (),
) -> set[Schedule]:
    """The schedules of the kernels that serve calls of a compiled function.

    They serve calls too in which what the signature says to be one array is several.

    Args:
        function: that is called.
        signature: of the operands, and what they are in.
        arguments: further ones by name.
        layouts: of operands, beside C and Fortran order.

    Raises:
        EinsumError: (a ValueError) the function does not go together with the signature.
    """
    asked: Counter[frozenset[Schedule]] = Counter()
    known: set[Schedule] = set()
    plain: set[Schedule] = set()
    host = machine()
    problem: EinsumError | None = None
    dtypes = [operand.dtype for operand in signature.operands]
    others = tuple(range(len(dtypes)))
    for same, shapes in product({signature.same or others, others}, shapes_for(signature)):
        executions = None
        for kinds in ("C", "F", *layouts):
            if isinstance(kinds, str):
                drawn: list[Array | None] = [
                    _drawn(s, d, kinds, Random(0)) for s, d in zip(shapes, dtypes, strict=True)
                ]
            else:
                drawn = [*map(virtual_of, shapes, dtypes, kinds)]
            arrays = [array for first in same if (array := drawn[first]) is not None]
            if len(arrays) < len(dtypes):  # a layout is for another number of axes
                continue
            try:
                executions = function.planned_for(
                    signature, arrays, arguments, _nothing, executions
                )
            except EinsumError as error:  # sizes that do not go together in this function
                problem = error
                continue
            best, apart = executions
            schedules = frozenset(step.choice.schedule for step in best.steps)
            asked[schedules] += 1
            if not isinstance(kinds, str):
                known |= schedules
            for step in apart.steps:
                form = step.form.numbered_step
                if form.finish is None:  # which the general kernels do
                    plain.add(step.choice.schedule)
                else:
                    known.add(usual(form, host).schedule)
    if not asked and problem is not None:
        raise problem
    every: frozenset[Schedule] = frozenset().union(*asked)
    return _most_wanted(asked) | known | (_general(every | plain, 2) if every | plain else set())


def _most_wanted(asked: Counter[frozenset[Schedule]]) -> set[Schedule]:
    """So many schedules that enough calls have all that they ask for."""
    wanted: Counter[Schedule] = Counter()
    for schedules, count in asked.items():
        wanted.update(dict.fromkeys(schedules, count))
    taken: set[Schedule] = set()
    for schedule, _ in wanted.most_common(MOST):
        served = sum(count for schedules, count in asked.items() if schedules <= taken)
        if served >= ENOUGH * asked.total():
            break
        taken.add(schedule)
    return taken


def _general(drawn: frozenset[Schedule], operands: int) -> set[Schedule]:
    """The general schedules for the element types of the steps that were drawn, and of all others
    that contract two operands or fewer at a time.
    """
    types = {(s.elements, s.accumulator) for s in drawn}
    for accumulator in {s.accumulator for s in drawn if s.accumulator[0] != "u"}:
        found = sorted({e for s in drawn if s.accumulator == accumulator for e in s.elements})
        for count in range(1, min(operands, 2) + 1):
            types |= {
                ((*factors, result), accumulator)
                for factors in combinations_with_replacement(found, count)
                for result in found
            }
    host = machine()
    schedules = set()
    for elements, accumulator in types:
        for kind in Kind if accumulator[0] != "u" else (Kind.MAP,):  # bits are only moved
            schedules.add(general_schedule(elements, accumulator, kind, host))
    for schedule in drawn:
        if schedule.recipe == "packed" and {*schedule.elements} == {schedule.accumulator}:
            schedules.add(general_packed_schedule(schedule.accumulator, host))
    return schedules


# --- calls that are not made ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """What the plan of a call depends on."""

    expression: Expression
    dtype: np.dtype[Any]
    strides: tuple[Layout, ...]
    out_strides: Layout
    same: tuple[int, ...]

    def schedules(self, optimize: Any, memory_limit: int | None) -> frozenset[Schedule]:
        """The schedules of all its steps."""
        execution = prepare_layouts(
            self.expression,
            self.dtype,
            self.strides,
            self.out_strides,
            optimize,
            self.same,
            obtain=_nothing,
            memory_limit=memory_limit,
            in_chains=False,  # with which a call does without if their kernels are missing
        )
        return frozenset(step.choice.schedule for step in execution.every_step)


def _nothing(schedule: Schedule, target: Target) -> Kernel:
    """A kernel without arguments: of a call that is only drawn nobody asks for more."""
    return Kernel("", 0, (), (), (), "")


SHAPES = 100
"""How many shapes are drawn where layouts are given."""


def shapes_for(signature: Signature) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes of operands as they may come, some of which may not go together in an equation."""
    random = Random(0)
    terms = [operand.axes for operand in signature.operands]
    drawn = [_shapes(terms, _extents(terms, random)) for _ in range(SHAPES)]
    yield from dict.fromkeys((*drawn, *_shapes_of_ones(terms)))


def _shapes_of_ones(terms: Sequence[Sequence[str | int]]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes in which some of the open extents are 1, since kernels have no loops over such."""
    names = _open(terms)
    if len(names) <= _EVERY:
        cases: Iterable[Collection[str]] = chain.from_iterable(
            combinations(names, count) for count in range(len(names) + 1)
        )
    else:
        apart = [[name] for name in names]
        cases = [names, *apart, *([each for each in names if [each] != one] for one in apart)]
    for ones in cases:
        yield _shapes(terms, {name: 1 if name in ones else _SMALL for name in names})


def _shapes(
    terms: Sequence[Sequence[str | int]], extents: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(extents[a] if isinstance(a, str) else a for a in term) for term in terms)


def _calls(
    subscripts: Subscripts, signature: Signature, sizes: Given
) -> Iterator[_Call | EinsumError]:
    """Calls with arrays of a signature, or what is wrong with their extents."""
    random = Random(0)
    dtype = np.result_type(*(operand.dtype for operand in signature.operands))
    terms = [operand.axes for operand in signature.operands]
    for _ in range(max(CALLS // len(terms), 100)):
        shapes = _shapes(terms, _extents(terms, random))
        try:
            expression = resolve(subscripts, shapes, sizes)
        except EinsumError as error:  # extents that do not go together in this equation
            yield error
            continue
        if not all(extent for _, extent in expression.extents):
            continue
        alike = [terms.index(term) for term in terms]
        distinct = random.random() < 0.5
        same = tuple(range(len(terms))) if distinct else tuple(alike)
        kinds = _kinds(len(terms), random)
        arrays: list[Array] = []
        for place, shape in enumerate(shapes):
            known = same[place] < place
            arrays.append(
                arrays[same[place]] if known else _drawn(shape, dtype, kinds[place], random)
            )
        written, part = distinct_output(expression)
        out = part(_output(expression, written is expression, arrays, random))
        yield _Call(written, dtype, tuple(a.strides for a in arrays), out.strides, same)


def _open(terms: Sequence[Sequence[str | int]]) -> list[str]:
    """The names of the axes that may have any extent."""
    return list(dict.fromkeys(axis for term in terms for axis in term if isinstance(axis, str)))


def _extents(terms: Sequence[Sequence[str | int]], random: Random) -> dict[str, int]:
    """An extent for every open index: as often between 1 and 2 as between 2 and 4, and so on."""
    names = _open(terms)
    rank = max(map(len, terms))
    together = max(min(len(names), 2 * rank), 1)  # indices of one step, of two tensors
    most = min(
        LARGEST.bit_length() - 1,
        _ELEMENTS / max(rank, 1),
        _PRODUCTS / together,
        _POSITIONS / max(len(names), 1),
    )
    extents = {}
    for name in names:
        extent = int(2 ** (most * random.random()))
        if extent > 8 and random.random() < 0.3:
            extent -= extent % 8  # round numbers are more frequent than others
        extents[name] = extent
    return extents


_LAYOUTS = "CCCCCCCCFFFFTTVVSSRB"
"""C and Fortran order; some axes order with a gap or without; steps; reversed; broadcast."""


def _kinds(count: int, random: Random) -> str:
    """A kind of layout for each operand: often that of C or Fortran order for all."""
    chance = random.random()
    if chance < 0.3:
        return ("C" if chance < 0.2 else "F") * count
    return "".join(_LAYOUTS[int(len(_LAYOUTS) * random.random())] for _ in range(count))


def _drawn(shape: Sequence[int], dtype: np.dtype[Any], kind: str, random: Random) -> Array:
    """An array of a kind of layout, without memory."""
    axes = list(range(len(shape)))
    if kind == "T":
        axes.sort(key=lambda _: random.random())
    elif kind == "F" or (kind != "C" and random.random() < 0.25):
        axes.reverse()
    if not axes:
        return virtual(shape, dtype)
    some = axes if random.random() < 0.5 else [axes[int(len(axes) * random.random())]]
    room = list(shape)
    if kind == "S":
        for axis in some:
            room[axis] *= 2
    elif kind == "V" or (kind == "T" and random.random() < 0.5):
        room[axes[-1]] += 1
    array = virtual(room, dtype, axes)
    strides = list(array.strides)
    for axis in some:
        strides[axis] *= {"S": 2, "R": -1}.get(kind, 1)
    if kind == "B":
        strides[some[0]] = 0
    return np.lib.stride_tricks.as_strided(array, shape, strides)


def _output(
    expression: Expression, plain: bool, operands: Sequence[Array], random: Random
) -> Array:
    """The result as `einsum` makes it, or at times one that the caller has."""
    chance, rank = random.random(), len(expression.output_shape)
    axes = memory_order(expression, operands, "K") if plain and chance < 0.85 else None
    if chance > 0.95:
        axes = tuple(reversed(range(rank)))
    return virtual(expression.output_shape, operands[0].dtype, axes)
