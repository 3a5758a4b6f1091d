"""Explain a contraction: the plan of a call, from the equation to the source of every kernel.

Nothing is computed for it and nothing is compiled, unless somebody asks for assembler text. The
same stages are what `EINSUMC_SHOW` prints while a program runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..compiler import pipeline, show
from ..compiler.cost import Cost, statement_cost
from ..compiler.program import Program, from_expression
from ..compiler.records import dataclass, field, replace
from ..compiler.sliced import Slice, with_extents
from . import explain_text
from .execute import Execution, prepare_layouts, same_arrays
from .kernels import KernelMissing
from .machine import machine
from .operands import KERNEL_DTYPES, Array
from .plan import available, plan, planned
from .step import Step, element
from .store import default_stores
from .views import as_view

if TYPE_CHECKING:
    from ..compiler.chains import Chain
    from ..compiler.factorize import Factorization
    from ..compiler.machine import Target
    from ..compiler.subscripts import Expression
    from .chain import ChainStep

_Planned = TypeVar("_Planned", Execution, Execution | None)

__all__ = ["ExplainedGroup", "ExplainedStep", "Explanation", "explain", "print_stages"]


@dataclass(frozen=True, slots=True)
class ExplainedGroup:
    """Indices that a kernel walks as one loop.

    Attributes:
        name: the loop's name in the kernel.
        indices: those of the equation, outermost first.
        extent: the product of theirs.
        role: whether it is kept or summed, and whether it is a side of the register tile.
        blocks: the steps in which it is walked, from the outermost loop to the innermost.
    """

    name: str
    indices: tuple[str, ...]
    extent: int
    role: str
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One step of a factorization and the kernel that does it.

    Attributes:
        statement: the step in full, `t0[i,k] = sum_j a[i,j] * b[j,k]`.
        subscripts: its equation, `ij,jk->ik`.
        computes: which tensors it takes and makes, `t0 = a * b`.
        runs: how often it runs: once, or for each of the slices that it depends on.
        cost: operations, traffic in bytes, and predicted seconds on one core, of all runs.
        recipe: the kind of schedule.
        key: the kernel's name in a store.
        origin: where the kernel is: "stored" or "not stored".
        groups: the loops' indices.
        tiles: into how many independent parts the step is cut for threads.
        threads: how many are to work on it.
        predicted: seconds with these threads.
        least: seconds that these threads need at least: the roofline.
        scratch_bytes: what each thread needs besides the tensors.
        measured: the same measured, by `Explanation.measure`; None before.
    """

    statement: str
    subscripts: str
    computes: str
    runs: int
    cost: Cost
    recipe: str
    key: str
    origin: str
    groups: tuple[ExplainedGroup, ...]
    tiles: int
    scratch_bytes: int
    threads: int
    predicted: float
    least: float
    measured: float | None
    _header: str = field(repr=False)
    _step: Step = field(repr=False, compare=False)
    _target: Target = field(repr=False)

    @property
    def share(self) -> float:
        """Of the roofline: the least time over what was measured, or else over what is predicted.

        It is above 1 where tensors are in a nearer cache than all of them together fit in.
        """
        return self.least / (self.predicted if self.measured is None else self.measured)

    @property
    def schedule(self) -> str:
        """How the kernel goes about it."""
        return show.schedule(self._step.choice.schedule)

    @property
    def nests(self) -> list[tuple[str, str]]:
        """The loop nest after lowering and after every pass: (name of the pass, text)."""
        stages = pipeline.stages_of(self._step.choice, self._step.geometry)
        return [(name, show.show(nest)) for name, nest in stages.nests]

    @property
    def source(self) -> str:
        """The Python source that Numba compiles, below a header that says what it is."""
        return self._header + pipeline.stages(self._step.choice.schedule).source

    def assembly(self) -> str:
        """The kernel as assembler text. This compiles it."""
        return self._header + pipeline.assembly(self._step.choice.schedule, self._target)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The plan of a contraction; print it, or look at its parts.

    Attributes:
        equation: with its output.
        sizes: the extent of each index.
        dtype: what is computed in.
        program: what is computed, before it is cut into steps.
        factorization: the candidates and their costs; None where there is nothing to execute.
        intermediates: where each of them is: "registers", "tile 48.0 KiB" if there is a block of it
            in each thread's scratch, or "memory 75.0 MiB".
        steps: in order of execution.
        temporaries: shape and dtype of each tensor between the steps; of one slice, if there are
            any.
        slices: the loops around the steps, outermost first.
        chains: which statements run block by block, `1 to 4: i in 256 blocks of 32`.
        peak_memory: bytes of the workspace that temporaries share: what the call needs besides
            operands, result and scratch.
        note: what happens instead, if no kernel is needed.

    >>> from einsumc import compile_einsum
    >>> a, b, c = np.ones((640, 320)), np.ones((320, 480)), np.ones((480, 200))
    >>> plan = compile_einsum("ij,jk,kl->il").explain(a, b, c)
    >>> [step.subscripts for step in plan.steps]
    ['jk,kl->jl', 'ij,jl->il']
    >>> plan.flops, plan.peak_memory
    (143360000, 512000)
    >>> plan = compile_einsum("ij,jk,kl->il", memory_limit="200 KiB").explain(a, b, c)
    >>> [str(each) for each in plan.slices], plan.peak_memory
    (['l in 4 blocks of 56'], 143360)
    """

    equation: str
    sizes: Mapping[str, int]
    dtype: np.dtype[Any]
    program: str
    factorization: Factorization | None = None
    intermediates: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[ExplainedStep, ...] = ()
    temporaries: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    chains: tuple[str, ...] = ()
    peak_memory: int = 0
    note: str = ""

    @property
    def cost(self) -> Cost:
        """The predicted cost of all steps."""
        return sum((step.cost for step in self.steps), Cost())

    @property
    def flops(self) -> int:
        """Operations of all steps; a multiply-add is two."""
        return self.cost.flops

    @property
    def bytes(self) -> int:
        """Bytes read and written by all steps, each tensor of a step once."""
        return self.cost.bytes

    @property
    def predicted(self) -> float:
        """Seconds of all steps, with as many threads as each is worth."""
        return sum(step.predicted for step in self.steps)

    @property
    def measured(self) -> float | None:
        """Seconds of all steps as `measure` found them; None before."""
        times = [step.measured for step in self.steps]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None

    def measure(self, rounds: int = 5) -> Explanation:
        """The same plan with the measured time of every step beside the predicted one.

        Every step's kernel is run on memory of its own with ones in it, so that arrays need not
        exist. Kernels that are not stored are compiled.

        Args:
            rounds: how often each step is measured; the fastest counts.

        Raises:
            KernelMissing: a kernel is in no store and compiling is forbidden.
            MemoryError: there is no room for a step's tensors.
        """
        from .measure import measured_seconds

        steps = (
            replace(s, measured=s.runs * measured_seconds(s._step, rounds)) for s in self.steps
        )
        return replace(self, steps=tuple(steps))

    @property
    def temporary_bytes(self) -> int:
        """Bytes of all temporaries, which need not exist at the same time."""
        return sum(prod(shape) * dtype.itemsize for shape, dtype in self.temporaries.values())

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch for each thread: what the step with most of it needs."""
        return max((step.scratch_bytes for step in self.steps), default=0)

    def stage(self, name: str) -> str:
        """One stage as text: "program", "tree", "loops", "source" or "asm" (which compiles)."""
        return explain_text.STAGES[name](self)

    def __str__(self) -> str:
        return explain_text.whole(self)

    def __repr__(self) -> str:
        time = show.seconds(self.cost.seconds)
        return f"<Explanation of {self.equation!r}: {len(self.steps)} steps, {time} predicted>"


def explain(
    expression: Expression,
    operands: Sequence[Array],
    optimize: Any = True,
    names: Sequence[str] | None = None,
    memory_limit: int | None = None,
) -> Explanation:
    """The plan of a call.

    Args:
        expression: the equation with the operands' shapes.
        operands: as kernels want them: all of one dtype, native and aligned. Only their layouts
            matter, and which are the same.
        optimize: how to choose the order of contraction.
        names: what the operands are called, if not `a`, `b` and so on.
        memory_limit: bytes that temporaries may take.

    Raises:
        EinsumError: (a ValueError) they cannot take so little.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> a = np.ones((8, 8))
    >>> print(explain(resolve(parse("ij->ji"), [a.shape]), [a]).note)
    a view of the operand: nothing is computed
    """
    dtype = operands[0].dtype
    note, execution = "", None
    if as_view(expression) is not None:
        note = "a view of the operand: nothing is computed"
    elif dtype not in KERNEL_DTYPES:
        note = f"no kernels compute in {dtype}: np.multiply and np.add do, from left to right"
    else:
        same = same_arrays(operands)
        planning = partial(plan, expression, operands, optimize, names, same, memory_limit)
        execution = _as_it_would_run(planning)
        note = "" if execution else "an index has no positions: the result is empty or zero"
    if execution is None:
        program = str(from_expression(expression, names))
        return Explanation(expression.text, expression.sizes, dtype, program, note=note)
    return _explain(execution, expression, dtype, names)


def print_stages(
    stages: Iterable[str],
    expression: Expression,
    dtype: np.dtype[Any],
    strides: Sequence[tuple[int, ...]],
    out_strides: tuple[int, ...],
    optimize: Any,
    same: Sequence[int],
    memory_limit: int | None = None,
) -> None:
    """Print stages of what is about to be prepared to stderr: this is EINSUMC_SHOW.

    Args:
        stages: as for `Explanation.stage`.
        expression: the equation with the operands' shapes.
        dtype: of the operands.
        strides: of each operand, in bytes.
        out_strides: of the output.
        optimize: how to choose the order of contraction.
        same: for each operand the first that is the same array.
        memory_limit: bytes that temporaries may take.
    """
    planning = partial(
        prepare_layouts, expression, dtype, strides, out_strides, optimize, same, None
    )
    execution = _as_it_would_run(partial(planning, memory_limit=memory_limit))
    explanation = _explain(execution, expression, dtype)
    text = "\n\n".join(explanation.stage(name).rstrip() for name in stages)
    print(f"{text}\n", file=sys.stderr, flush=True)


def _as_it_would_run(planning: Callable[..., _Planned]) -> _Planned:
    """A plan with the kernels that a call would get, or if there are none for it, the best ones."""
    try:
        return planning(obtain=available)
    except KernelMissing:
        return planning(obtain=planned)


# --- from an execution to its explanation ---------------------------------------------------------


def _explain(
    execution: Execution,
    expression: Expression,
    dtype: np.dtype[Any],
    names: Sequence[str] | None = None,
) -> Explanation:
    equation = f"{expression.text}, {show.sizes(expression.sizes)}, {dtype}"
    tree = f"tree: {show.tree(execution.program.statements)}"
    steps = []
    for number, (step, runs, chain) in enumerate(execution.runs, start=1):
        title = f"step {number} of {len(execution.runs)}: {step.statement}"
        steps.append(explained(step, runs, element(dtype), [equation, title, tree], chain))
    done, item = execution.program, 4 if dtype == np.float16 else dtype.itemsize
    stored = dict.fromkeys(done.shapes, item)
    return Explanation(
        equation=expression.text,
        sizes=expression.sizes,
        dtype=dtype,
        program=str(from_expression(expression, names)),
        factorization=execution.factorization,
        intermediates=_intermediates(execution, dtype) | tiles(done, execution.chains, stored),
        chains=tuple(map(str, execution.chains)),
        steps=tuple(steps),
        temporaries=execution.temporaries,
        slices=execution.sliced.slices,
        peak_memory=execution.sliced.workspace.size,
    )


def _intermediates(execution: Execution, dtype: np.dtype[Any]) -> dict[str, str]:
    """Where each intermediate is: those of the steps as they were chosen, and copies."""
    found = execution.factorization
    before = found.programs.get(found.chosen, execution.program)
    wide = "f4" if dtype == np.float16 else element(dtype)
    return dict(show.intermediates(before, execution.program, wide))


def tiles(
    program: Program, chains: Iterable[Chain], item_bytes: Mapping[str, int]
) -> dict[str, str]:
    """The intermediates of which there is a block in each thread's scratch."""
    found = {}
    for chain in chains:
        shapes = with_extents(program, {s.index: s.block for s in chain.slices}).shapes
        for name in chain.local:
            found[name] = f"tile {show.size(prod(shapes[name]) * item_bytes[name])}"
    return found


def explained(
    step: Step, runs: int, kind: str, context: Sequence[str], chain: ChainStep | None = None
) -> ExplainedStep:
    """A step for people.

    Args:
        step: what is executed.
        runs: how often.
        sizes: the extent of each index.
        kind: type of the elements, such as `f4`.
        context: lines for the head of its source.
        chain: the one that it is part of.
    """
    host, choice, merged = machine(), step.choice, step.geometry.merged
    schedule = choice.schedule
    values = dict(zip(step.kernel.parameters, step.arguments.tolist(), strict=False))
    groups = tuple(
        ExplainedGroup(
            group.name,
            tuple(
                index
                for member in choice.members[group.name]
                for index in merged.get(member, (member,))
            ),
            values[group.extent],
            show.role(schedule, group),
            tuple(
                split.step if isinstance(split.step, int) else values[split.step]
                for split in schedule.split_of(group.name)
            ),
        )
        for group in schedule.groups
    )
    stored = "stored" if default_stores().find(step.kernel.key) else "not stored"
    tensors = zip(schedule.names, step.operands, schedule.elements, strict=True)
    header = [
        *context,
        ", ".join(f"{name} = {tensor} {element}" for name, tensor, element in tensors),
        ", ".join(f"{group.name} = {show.indices(group.indices)}" for group in groups),
        show.schedule(schedule),
    ]
    sizes, is_packed = step.extents, schedule.recipe == "packed"
    once = statement_cost(step.statement, sizes, kind, host)
    shared = statement_cost(step.statement, sizes, kind, host, step.threads)
    return ExplainedStep(
        statement=str(step.statement),
        subscripts=show.subscripts(step.statement),
        computes=show.product(step.statement),
        runs=runs,
        cost=Cost(runs * once.flops, runs * once.bytes, runs * once.seconds, runs * once.least),
        recipe="packed, general" if is_packed and schedule.is_general else schedule.recipe,
        key=step.kernel.key,
        origin=stored,
        groups=groups,
        tiles=step.tiles,
        scratch_bytes=(chain or step).scratch_bytes,
        threads=step.threads,
        predicted=runs * shared.seconds,
        least=runs * shared.least,
        measured=None,
        _header=show.comment("\n".join(header)),
        _step=step,
        _target=host.target,
    )
