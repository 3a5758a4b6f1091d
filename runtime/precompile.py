"""Compile kernels before anybody needs them: for signatures, before any array exists.

What a signature needs is for :mod:`.covering` to say. Here it is put together for all signatures,
and what no store has is compiled, in several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..compiler.alone import alone
from ..compiler.machine import Target
from ..compiler.records import dataclass
from ..compiler.schedule import Schedule
from ..compiler.subscripts import Subscripts, parse
from ..compiler.windows import Given
from .covering import schedules_for, schedules_for_function
from .kernels import (
    compiled,
    compiled_entry,
    compiled_pool,
    entry_fields,
    fields,
    pool_fields,
)
from .key import KernelFields
from .machine import machine
from .optimize import normalize_optimize
from .signatures import Signature, parse_signature
from .store import Store, StorePath, default_stores
from .target import available_cores
from .workers import in_processes

if TYPE_CHECKING:
    from .traced import CompiledFunction

__all__ = [
    "Job",
    "Precompiled",
    "build",
    "fields_of",
    "jobs_for",
    "jobs_for_function",
    "precompile",
]

_PROGRAMS = {"thread pool": (pool_fields, compiled_pool), "entry": (entry_fields, compiled_entry)}
"""What goes with the kernels into every store: their fields and how to compile them."""

Progress = Callable[[int, int], None]
"""Called with how many kernels there are by now, and how many there will be."""


@dataclass(frozen=True, slots=True)
class Job:
    """A kernel to compile, or one of the programs that every process needs, by name."""

    key: str
    schedule: Schedule | str
    target: Target

    @property
    def recipe(self) -> str:
        """The kind of kernel, or the program's name."""
        return self.schedule if isinstance(self.schedule, str) else self.schedule.recipe

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of the operands, then the output."""
        return () if isinstance(self.schedule, str) else self.schedule.elements

    @property
    def level(self) -> str:
        """The instruction set level that it needs; the programs' is that of every x86-64."""
        return "x86-64" if isinstance(self.schedule, str) else self.target.name


@dataclass(frozen=True, slots=True)
class Precompiled:
    """A kernel that is in the store now.

    Attributes:
        key: its name there.
        recipe: the kind of kernel.
        dtypes: of the operands, then the output.
        target: the instruction set level.
        size: bytes of code.
        compiled: whether it was compiled now; False if it was there.
    """

    key: str
    recipe: str
    dtypes: tuple[str, ...]
    target: str
    size: int
    compiled: bool


def precompile(
    equation: str,
    signatures: str | Iterable[str],
    optimize: Any = True,
    *,
    store: Store | StorePath | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Precompiled]:
    """Compile every kernel that an einsum of these signatures needs, unless the store has it.

    Args:
        equation: as for `einsum`.
        signatures: dtypes and axes of the operands, `"f4[i,j], f4[j,k]"`.
        optimize: as for `einsum`.
        store: where the kernels go; by default where einsumc looks for them.
        jobs: processes to compile in. More than one starts them by spawning, so the main module
            needs its `if __name__ == "__main__":`, as always with multiprocessing.
        progress: called with the number of kernels done and the number of all, after each.

    Returns:
        The kernels, in the order of their keys.

    Raises:
        EinsumError: (a ValueError) the equation or a signature is wrong.
        OSError: the store cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kernels = precompile("i,i->", ["f4[4096], f4[4096]"], store=Store(folder))
    >>> sorted({kernel.recipe for kernel in kernels if kernel.dtypes})
    ['general', 'streamed']
    """
    subscripts = parse(equation)
    signatures = (signatures,) if isinstance(signatures, str) else signatures
    checked = [parse_signature(signature, subscripts) for signature in signatures]
    wanted = jobs_for(subscripts, checked, optimize)
    return build(wanted, store=store, jobs=jobs, progress=progress)


# --- signatures -> kernels to compile -------------------------------------------------------------


def jobs_for(
    subscripts: Subscripts,
    signatures: Iterable[Signature],
    optimize: Any = True,
    memory_limit: int | None = None,
    sizes: Given = (),
) -> list[Job]:
    """The kernels that calls like these need, each once, in the order of their keys.

    They are for the level that EINSUMC_TARGET names, or for the host's.
    """
    target = machine().target
    jobs = {}
    for signature in signatures:
        chosen = normalize_optimize(optimize)
        for schedule in schedules_for(subscripts, signature, chosen, memory_limit, sizes):
            key = fields(schedule, target).key()
            jobs[key] = Job(key, schedule, target)
    for name, (program, _) in _PROGRAMS.items():
        key = program().key()
        jobs[key] = Job(key, name, target)
    return [jobs[key] for key in sorted(jobs)]


def jobs_for_function(
    function: CompiledFunction,
    signatures: Iterable[Signature],
    arguments: Mapping[str, Any] = MappingProxyType({}),
    layouts: Sequence[tuple[str, ...]] = (),
) -> list[Job]:
    """The kernels that calls of a compiled function like these need, as `jobs_for` has them.

    What a signature has goes to the function's parameters in their order, but for those that are
    named there or in `arguments`.
    """
    target = machine().target
    schedules: set[Schedule] = set()
    for signature in signatures:
        schedules |= schedules_for_function(function, signature, arguments, layouts)
    keys = {fields(schedule, target).key(): schedule for schedule in schedules}
    jobs = {key: Job(key, schedule, target) for key, schedule in keys.items()}
    for name, (program, _) in _PROGRAMS.items():
        key = program().key()
        jobs[key] = Job(key, name, target)
    return [jobs[key] for key in sorted(jobs)]


# --- compiling ------------------------------------------------------------------------------------


def build(
    wanted: Sequence[Job],
    *,
    store: Store | StorePath | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Precompiled]:
    """Compile what the store lacks, in several processes, and put it there.

    Args:
        wanted: from `jobs_for`.
        store: where the kernels go; by default where einsumc looks for them.
        jobs: the most processes to use; by default one a core.
        progress: called with the number of kernels done and the number of all, after each.

    Raises:
        OSError: the store cannot be written.
    """
    place = default_stores() if store is None else store
    there = {job.key: found for job in wanted if (found := place.get(job.key)) is not None}
    sizes = {key: len(found.image) for key, found in there.items()}
    missing = [job for job in wanted if job.key not in sizes]
    if progress is not None:
        progress(len(sizes), len(wanted))
    for job, (code, header) in _compile_all(missing, jobs or available_cores()):
        if not place.put(job.key, header, code):
            raise OSError(f"kernel {job.key[:12]} could not be written to {place}")
        sizes[job.key] = len(code)
        if progress is not None:
            progress(len(sizes), len(wanted))
    return [
        Precompiled(
            job.key, job.recipe, job.dtypes, job.level, sizes[job.key], job.key not in there
        )
        for job in wanted
    ]


_Code = tuple[bytes, dict[str, Any]]


def _compile_all(missing: Sequence[Job], jobs: int) -> Iterator[tuple[Job, _Code]]:
    """The code and header of each, as they become ready."""
    jobs = min(jobs, -(-len(missing) // 3))  # to start a process takes as long as three kernels
    if jobs <= 1:
        yield from ((job, _compile(job)) for job in missing)
        return
    yield from in_processes(_compile, ((job, (job,)) for job in missing), jobs)


def _compile(job: Job) -> _Code:
    with alone:
        if isinstance(job.schedule, str):
            return _PROGRAMS[job.schedule][1]()
        return compiled(job.schedule, job.target)


def fields_of(job: Job) -> KernelFields:
    """What makes a job's kernel what it is."""
    if isinstance(job.schedule, str):
        return _PROGRAMS[job.schedule][0]()
    return fields(job.schedule, job.target)
