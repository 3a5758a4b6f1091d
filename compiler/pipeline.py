"""The compiler, top to bottom.

An equation becomes a program of one statement, the program is factorized into steps, and every step
becomes a kernel::

    subscripts  text and shapes -> checked expression
    program     expression -> statements
    rewrite     statements -> fewer, cheaper statements
    factorize   statements -> pairwise (or deliberately n-ary) steps, equal ones once
    margin      what many boxes would read -> a copy with zeros around it
    hoist       parts of formulas that few indices tell apart -> computed once for these
    merge       a step and the only one that reads it -> one; long sums -> partial ones
    pad         operands that boxes cannot keep a step inside of -> copies framed in zeros
    slices      statements -> loops over pieces, in less memory; only if it is limited
    axis order  intermediates lie as the steps that write and read them like best
    relayout    small operands that steps would read badly -> copies of them
    workspace   intermediates -> offsets in one piece of memory
    regions     a step that leaves its tensors -> boxes, steps that do not
    geometry    a step on concrete strides -> its canonical form
    choose      canonical form -> schedule
    lower       schedule -> loop nest
    passes      loop nest -> scheduled loop nest
    emit        scheduled loop nest -> Numba source
    build       source -> machine code
    image       machine code -> what the store keeps

What comes before the schedule depends on sizes and is cheap; what comes after depends on the
schedule alone, is stored, and is done once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .choose import Choice
from .describe import describe, generator
from .emit import emit
from .geometry import Geometry
from .loopnest import Nest, Tiles, parameters, place_of, scratch_buffers
from .lower import lower
from .machine import Target
from .passes import PASSES
from .records import dataclass
from .schedule import Schedule
from .verify import verify

__all__ = [
    "Signature",
    "Stages",
    "assembly",
    "compile_kernel",
    "describe",
    "generator",
    "signature",
    "stages",
    "stages_of",
]


@dataclass(frozen=True, slots=True)
class Stages:
    """Every form that a kernel takes on its way, by the name of the stage that made it."""

    nests: tuple[tuple[str, Nest], ...]
    source: str

    @property
    def final(self) -> Nest:
        """The nest after the last pass."""
        return self.nests[-1][1]


@lru_cache(maxsize=256)
def stages(schedule: Schedule) -> Stages:
    """All stages of a schedule's kernel, whatever the indices of the step that asked for it."""
    return _stages(schedule, lower(schedule))


def stages_of(choice: Choice, step: Geometry) -> Stages:
    """The same with the step's own indices in the first nest."""
    tensors = (*choice.operands, len(step.strides) - 1)
    uses = [tuple(step.strides[tensor]) for tensor in tensors]
    return _stages(choice.schedule, lower(choice.schedule, choice.members, uses))


def _stages(schedule: Schedule, nest: Nest) -> Stages:
    """Run all passes over a nest, and emit its source."""
    verify(nest)
    nests = [("lower", nest)]
    for name, run in PASSES:
        nest = run(nest, schedule)
        verify(nest, after=name)
        nests.append((name, nest))
    return Stages(tuple(nests), emit(nest, schedule))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a caller must know of a kernel: how to fill its arguments and how many tiles it has.

    ``parameters`` names the arguments in order (see :func:`.loopnest.parameters`), ``tiles`` are
    the (extent, step) of the parallel loop's axes, ``scratch`` for every scratch buffer the
    parameter that is its place, and the factors of its size in bytes. Names stand for arguments.
    """

    parameters: tuple[str, ...]
    tiles: tuple[tuple[str, int | str], ...]
    scratch: tuple[tuple[str, tuple[int | str, ...]], ...]


def signature(schedule: Schedule) -> Signature:
    """The calling convention of a schedule's kernel."""
    nest = stages(schedule).final
    (tiles,) = nest.body
    assert isinstance(tiles, Tiles)
    return Signature(
        parameters=parameters(nest),
        tiles=tuple((extent, step) for _, extent, step in tiles.axes),
        scratch=tuple((place_of(b), (*b.size, int(b.element[1:]))) for b in scratch_buffers(nest)),
    )


def compile_kernel(schedule: Schedule, target: Target) -> tuple[bytes, dict[str, Any]]:
    """Machine code for a schedule: the image's bytes and its header fields.

    This is the step that needs Numba; nothing before it does.
    """
    from .build import builder
    from .image import link

    image = link(builder(target).object_code(stages(schedule).source))
    return image.code, image.header()


def assembly(schedule: Schedule, target: Target) -> str:
    """The assembler text of a schedule's kernel."""
    from .build import builder

    return builder(target).assembly(stages(schedule).source)
