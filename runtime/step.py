"""Steps: one statement with its kernel, bound to the layouts of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.anonymous import Form, form_of
from ..compiler.choose import Choice, substitutes
from ..compiler.cost import statement_cost, worthwhile_threads
from ..compiler.geometry import Geometry, may_overlap
from ..compiler.machine import Machine, Target
from ..compiler.program import Access, Statement
from ..compiler.records import dataclass, replace
from ..compiler.runs import packed_cycles
from ..compiler.schedule import Schedule
from ..compiler.symmetry import are_twins
from . import threads
from .bind import argument_array, argument_values
from .kernels import Kernel, KernelMissing

if TYPE_CHECKING:
    from ..compiler.finish import Finish
    from ..compiler.frames import Windows

__all__ = ["Layouts", "Step", "Steps", "element", "geometry_of", "steps_along", "strides_of"]

Array = np.ndarray[Any, Any]

Layouts = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""The strides, in bytes, and the dtype of every tensor."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a factorized program, or a box of one, bound to layouts.

    It is a kernel and its arguments. `extents` are those of the statement's indices.
    """

    statement: Statement
    extents: Mapping[str, int]
    form: Form
    kernel: Kernel
    operands: tuple[str, ...]  # tensors in the kernel's order, the output last
    offsets: tuple[int, ...]  # bytes from where each of them begins to where the step does
    arguments: Array  # int64; the addresses at its head are filled in for each call
    tiles: int
    scratch_bytes: int
    threads: int  # worth having for its work
    seconds: float  # that one thread would take, by the cost model

    def run(self, arrays: Mapping[str, Array]) -> None:
        """Compute on arrays of the layouts that it was bound to, by the names of the tensors."""
        arguments = self.arguments.copy()
        for place, (name, offset) in enumerate(zip(self.operands, self.offsets, strict=True)):
            arguments[place] = arrays[name].__array_interface__["data"][0] + offset
        threads.run(
            self.kernel.address,
            arguments.__array_interface__["data"][0],
            self.tiles,
            self.scratch_bytes,
            most=self.threads,
        )

    @property
    def address(self) -> int:
        """Where the kernel's code is."""
        return self.kernel.address

    @property
    def key(self) -> str:
        """The kernel's."""
        return self.kernel.key

    @property
    def codes(self) -> tuple[tuple[int, str], ...]:
        """Places of addresses of other kernels among the arguments, and their keys."""
        return ()

    @property
    def places(self) -> range:
        """Where addresses belong among the arguments."""
        return range(len(self.operands))

    @property
    def geometry(self) -> Geometry:
        """The statement's canonical form."""
        return self.form.step

    @property
    def is_general(self) -> bool:
        """Whether its kernel is a slow one that serves any step, for want of its own."""
        return self.form.numbered_choice.schedule.recipe == "general"

    @property
    def choice(self) -> Choice:
        """How it is computed."""
        return self.form.choice


class Steps:
    """Makes steps. Those that differ in names alone share their arguments and all else."""

    def __init__(
        self,
        host: Machine,
        obtain: Callable[[Schedule, Target], Kernel],
        accumulator: np.dtype[Any],
    ) -> None:
        self._host, self._obtain, self._accumulator = host, obtain, accumulator
        self._threads = threads.get_num_threads()
        self._made: dict[object, Step] = {}

    def windows(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        layouts: Layouts,
        statement: Statement,
        extents: Mapping[str, int],
    ) -> Windows | None:
        """The windows of a statement that is best computed in frames, as it is."""
        if len(statement.factors) != 2 or statement.epilogue is not None:
            return None
        tensors = {access.tensor for access in (*statement.factors, statement.target)}
        if not tensors <= layouts.keys():
            return None
        strides = {
            name: [stride // layouts[name][1].itemsize for stride in layouts[name][0]]
            for name in tensors
        }
        if statement.is_plain and not any(
            may_overlap(shapes[f.tensor], strides[f.tensor]) for f in statement.factors
        ):
            return None
        from ..compiler.frames import windows_of

        found = windows_of(statement, shapes, extents, strides)
        if found is None:
            return None
        step = geometry_of(layouts, extents, self._accumulator, statement, found)
        form = form_of(step, self._host)
        if form.numbered_choice.schedule.framed is None:
            return None
        try:
            self._kernel(form)
        except KernelMissing:
            return None
        return found

    def make(
        self,
        statement: Statement,
        extents: Mapping[str, int],
        layouts: Layouts,
        windows: Windows | None = None,
        sliced: Collection[str] = (),
    ) -> Step:
        """The step that computes a statement with tensors of these layouts.

        ``sliced`` indices begin anywhere: see :func:`are_twins`.
        """
        step = geometry_of(layouts, extents, self._accumulator, statement, windows, sliced)
        form = form_of(step, self._host)
        alike = self._made.get(form.key) or self._made.setdefault(
            form.key, self._first(statement, extents, form)
        )
        numbered, choice = alike.form.numbered_step, alike.form.numbered_choice
        accesses = (*statement.operands, statement.target)
        order = (*choice.operands, len(accesses) - 1)
        operands = tuple([accesses[i].tensor for i in order])
        if choice is not form.numbered_choice:
            form = replace(form, numbered_step=numbered, numbered_choice=choice)
        offsets = tuple([_offset(accesses[i], layouts[accesses[i].tensor][0]) for i in order])
        return replace(
            alike,
            statement=statement,
            extents=extents,
            form=form,
            operands=operands,
            offsets=offsets,
        )

    def _first(self, statement: Statement, extents: Mapping[str, int], form: Form) -> Step:
        step, choice, code = self._kernel(form)
        form = replace(form, numbered_step=step, numbered_choice=choice)
        pieces = packed_cycles(step, choice, self._host)
        cost = statement_cost(statement, extents, step.accumulator, self._host, pieces=pieces)
        count = worthwhile_threads(cost.seconds, self._host, self._threads)
        values = argument_values(choice, step, self._host, count)
        places, scratch_bytes = code.scratch_places(values)
        return Step(
            statement=statement,
            extents=extents,
            form=form,
            kernel=code,
            operands=(),
            offsets=(),
            arguments=argument_array(code.parameters, choice, step, values | places),
            tiles=code.tile_count(values),
            scratch_bytes=scratch_bytes,
            threads=count,
            seconds=cost.seconds,
        )

    def _kernel(self, form: Form) -> tuple[Geometry, Choice, Kernel]:
        """A step's form, its schedule and its kernel: the best one, or if it may not be compiled,
        the most suitable one that there is.
        """
        best = form.numbered_choice
        try:
            return form.numbered_step, best, self._obtain(best.schedule, self._host.target)
        except KernelMissing as error:
            missing = error
        tried = {best.schedule}
        for step, choice in substitutes(form.numbered_step, form.numbered_plain, self._host):
            if choice.schedule in tried:  # steps of many sizes have the same one
                continue
            try:
                return step, choice, self._obtain(choice.schedule, self._host.target)
            except KernelMissing:
                tried.add(choice.schedule)
        raise missing


# --- statements and layouts -> geometry ----------------------------------------------------------


def geometry_of(
    layouts: Layouts,
    extents: Mapping[str, int],
    accumulator: np.dtype[Any],
    statement: Statement,
    windows: Windows | None = None,
    sliced: Collection[str] = (),
) -> Geometry:
    """A statement's sizes and strides, in elements."""
    accesses = (*statement.operands, statement.target)
    return Geometry(
        elements=tuple(element(layouts[a.tensor][1]) for a in accesses),
        accumulator=element(accumulator),
        extents={i: extents[i] for i in statement.indices},
        strides=tuple(steps_along(a, *layouts[a.tensor]) for a in accesses),
        twins=are_twins(statement, sliced),
        finish=_finish_of(statement),
        windows=windows,
    )


def moving(
    layouts: Layouts, extents: Mapping[str, int], accumulator: np.dtype[Any]
) -> Callable[[Statement, Mapping[str, Sequence[int]]], Geometry]:
    """`geometry_of`, given the strides of intermediates that are to lie otherwise, in elements."""

    def geometry(statement: Statement, moved: Mapping[str, Sequence[int]]) -> Geometry:
        size = accumulator.itemsize
        there = {n: (tuple([s * size for s in steps]), accumulator) for n, steps in moved.items()}
        return geometry_of({**layouts, **there}, extents, accumulator, statement)

    return geometry


def _finish_of(statement: Statement) -> Finish | None:
    if statement.epilogue is None:
        return None
    from ..compiler.finish import finish_of  # an equation alone has no epilogues

    return finish_of(statement)


def element(dtype: np.dtype[Any]) -> str:
    """A dtype's name in kernels: ``f4``, ``c16``, ``b1``."""
    return f"{dtype.kind}{dtype.itemsize}"


def steps_along(access: Access, strides: Sequence[int], dtype: np.dtype[Any]) -> dict[str, int]:
    """An access's stride along every index, in elements: its address is linear in the indices."""
    total: dict[str, int] = {}
    for subscript, stride in zip(access.subscripts, strides, strict=True):
        for name, coefficient in subscript.terms:
            total[name] = total.get(name, 0) + coefficient * (stride // dtype.itemsize)
    return total


def _offset(access: Access, strides: Sequence[int]) -> int:
    """How many bytes behind its tensor's first element an access begins."""
    pairs = zip(access.subscripts, strides, strict=True)
    return sum([subscript.constant * stride for subscript, stride in pairs])


def strides_of(shape: Sequence[int], item: int) -> tuple[int, ...]:
    """The strides of a C-ordered array, in bytes."""
    strides = [item]
    for extent in reversed(shape[1:]):
        strides.append(strides[-1] * extent)
    return tuple(reversed(strides)) if shape else ()
