"""Chains bound to the layouts of their tensors: what `compiler/chain.py` runs, as one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..compiler.chains import Chain, own_workspace
from ..compiler.cost import worthwhile_threads
from ..compiler.machine import Machine
from ..compiler.program import Program
from ..compiler.records import dataclass
from ..compiler.schedule import Schedule
from ..compiler.sliced import Sliced, with_extents
from ..compiler.workspace import Workspace
from . import threads
from .bound import Bound
from .kernels import Kernel, kernel
from .pieces import moves_of
from .step import Layouts, Step
from .work import CHAIN

if TYPE_CHECKING:
    from ..compiler.machine import Target

__all__ = ["ChainStep", "bind_chain", "chain_runner", "runs_of"]

Array = np.ndarray[Any, Any]

_PAGE = 4096
_LINE = 64


@dataclass(frozen=True, slots=True)
class ChainStep:
    """The steps of a chain as one, with the attributes that binding and calling a step need.

    Attributes:
        steps: those of a whole block.
        blocks: how many there are, which are its tiles.
        workspace: a block of each intermediate of its own, in each thread's scratch.
        operands: whose address goes to each of the `places`.
        offsets: bytes to add to each.
        places: of addresses among the arguments.
        arguments: for `chain_run`.
        codes: places of addresses of kernels among these, and their keys.
    """

    key: ClassVar[str] = CHAIN

    steps: tuple[Step, ...]
    blocks: int
    workspace: Workspace
    address: int
    operands: tuple[str, ...]
    offsets: tuple[int, ...]
    places: tuple[int, ...]
    arguments: Array
    scratch_bytes: int
    threads: int
    seconds: float
    codes: tuple[tuple[int, str], ...]

    @property
    def tiles(self) -> int:
        """The number of blocks."""
        return self.blocks


def bind_chain(
    chain: Chain,
    program: Program,
    given: Layouts,
    make: Callable[[Program], Sequence[Step]],
    host: Machine,
    address: int,
    element: str,
) -> ChainStep:
    """Bind a chain.

    Args:
        chain: of the program.
        program: in the order of execution, with the indices' whole extents.
        given: the layouts of all tensors that are not the chain's own.
        make: the steps of the chain's statements, for a program with the extents of a block.
        host: says how many threads are worth having.
        address: of `chain_run`.
        element: type of the intermediates that have none of their own.
    """
    *_, inner = chain.slices
    blocks = {each.index: each.block for each in chain.slices}
    whole = with_extents(program, blocks, chain.local)
    placed = own_workspace(whole, chain, element)
    variants = [(whole, make(whole))]
    rest = inner.extent % inner.block
    if rest:
        part = with_extents(program, {**blocks, inner.index: rest}, chain.local)
        variants.append((part, make(part)))
    # Of a thread's scratch: arguments, then the chain's own intermediates, then the kernels'.
    longest = max(sum(len(step.arguments) for step in made) for _, made in variants)
    own_at = -(-8 * longest // _LINE) * _LINE
    scratch_at = -(-(own_at + placed.size) // _PAGE) * _PAGE
    kernels = max(step.scratch_bytes for _, made in variants for step in made)
    words = [len(chain.slices), 0, 0, scratch_at, *(each.count for each in chain.slices)]
    places: list[int] = []
    operands: list[str] = []
    offsets: list[int] = []
    codes: list[tuple[int, str]] = []
    for number, (_, made) in enumerate(variants):
        words[1 + number] = 8 * len(words)
        fills, begin, called = [], 0, []
        for step in made:
            called += [step.kernel.address, 8 * begin, step.tiles]
            moves = moves_of(step, chain.slices, given)
            for place, (name, offset) in enumerate(zip(step.operands, step.offsets, strict=True)):
                own = placed.offsets.get(name)
                base = 0 if own is None else own_at + own + offset
                by = [each[place] * s.block for each, s in zip(moves, chain.slices, strict=True)]
                fills.append((name, offset, [8 * (begin + place), base, int(own is not None), *by]))
            begin += len(step.arguments)
        codes += [(len(words) + 3 + 3 * n, step.kernel.key) for n, step in enumerate(made)]
        words += [len(made), len(fills), 8 * begin, *called]
        for name, offset, record in fills:
            if name not in placed.offsets:
                places.append(len(words) + 1)
                operands.append(name)
                offsets.append(offset)
            words += record
        words += [word for step in made for word in step.arguments.tolist()]
    if not rest:
        words[2] = words[1]
    steps = tuple(variants[0][1])
    seconds = chain.blocks * sum(step.seconds for step in steps)
    return ChainStep(
        steps=steps,
        blocks=chain.blocks,
        workspace=placed,
        address=address,
        operands=tuple(operands),
        offsets=tuple(offsets),
        places=tuple(places),
        arguments=np.array(words, np.int64),
        scratch_bytes=scratch_at + kernels,
        threads=worthwhile_threads(seconds, host, threads.get_num_threads()),
        seconds=seconds,
        codes=tuple(codes),
    )


def chain_runner(obtain: Callable[[Schedule, Target], Kernel]) -> int | None:
    """The address of what runs chains; None if there is nothing, 0 if nothing will run."""
    if obtain is not kernel:
        return 0
    pool = threads.pool()
    return None if pool is None else pool.chain


def runs_of(bound: Bound, sliced: Sliced) -> Iterator[tuple[Step, int, ChainStep | None]]:
    """The steps with kernels, those of chains for a whole block.

    Each with how often it runs, and its chain.
    """
    for step, level in zip(bound.steps, bound.levels, strict=True):
        if isinstance(step, ChainStep):
            for each in step.steps:
                yield each, step.blocks, step
        else:
            yield step, sliced.runs(level), None
