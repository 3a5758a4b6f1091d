"""What `einsumc precompile` is asked for: manifests and modules, and the kernels that they need.

To find the kernels of one signature takes up to seconds, so signatures are planned in several
processes, as kernels are compiled in several.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import EinsumError
from ..compiler.records import dataclass, replace
from ..compiler.resolve import resolve
from .kernels import fields
from .key import ABI_VERSION, SCHEMA_VERSION
from .layouts import virtual_of
from .levels import planning_for
from .machine import machine
from .manifest import FunctionRequest, GradnormsRequest, Request, read_requests
from .plan import plan
from .precompile import Job, Progress, fields_of, jobs_for, jobs_for_function
from .workers import in_processes

if TYPE_CHECKING:
    from ..compiler.schedule import Schedule
    from .signatures import Signature
    from .store import Store
    from .traced import CompiledFunction

__all__ = [
    "Wanted",
    "imported",
    "jobs_of",
    "read_module",
    "read_source",
    "stale_kernels",
    "wanted_kernels",
]

_SIZES = (512, 24, 8)  # large, of a few vectors, of one
_EVERY = 4  # so many open extents have these sizes in every combination


AnyRequest = Request | FunctionRequest | GradnormsRequest


@dataclass(frozen=True, slots=True)
class Wanted:
    """A kernel, and the equations that need it."""

    job: Job
    equations: tuple[str, ...]


# --- sources --------------------------------------------------------------------------------------


def read_source(source: str) -> list[AnyRequest]:
    """The requests of a file, or of a Python module.

    Raises:
        EinsumError: (a ValueError) there is nothing of that name, or something is wrong in it.
        OSError: the file cannot be read.
    """
    if os.path.isfile(source) or source.endswith(".toml"):
        return read_requests(source)
    if not all(part.isidentifier() for part in source.split(".")):
        raise EinsumError(f"{source!r} is no file, and no module's name")
    return read_module(source)


def read_module(name: str) -> list[AnyRequest]:
    """The requests of a module: of every compiled einsum in it, and in its classes, that has
    signatures. Modules are looked for in the working directory too.

    Raises:
        EinsumError: (a ValueError) there is no such module, it cannot be imported, or it has no
            compiled einsum with signatures.
    """
    module = imported(name)
    found = [each.request() for each in _compiled_in(module)]
    if not found:
        raise EinsumError(f"module {name} has no compiled einsum with signatures")
    return found


def load_function(name: str) -> CompiledFunction:
    """The compiled function of this name, `package.module:name`; a plain one is compiled.

    Raises:
        EinsumError: (a ValueError) there is none.
    """
    from .decorator import compile_einsum
    from .traced import CompiledFunction

    module, _, path = name.partition(":")
    found: Any = imported(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, FunctionType):
        found = compile_einsum(found)
    if not isinstance(found, CompiledFunction):
        raise EinsumError(f"{name} is no function that compile_einsum has compiled")
    return found


def imported(name: str) -> ModuleType:
    """A module; those in the working directory are found too."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise EinsumError(f"there is no module {name!r}, nor a file of that name") from None
        raise EinsumError(f"importing {name} failed: {error}") from error
    except Exception as error:
        kind = type(error).__name__
        raise EinsumError(f"importing {name} failed: {kind}: {error}") from error


def _compiled_in(module: ModuleType) -> list[Any]:
    """What a module has compiled and declared signatures for, in the order of its making."""
    from .decorator import CompiledEinsum
    from .traced import CompiledFunction

    found: dict[int, Any] = {}
    spaces: list[Mapping[str, Any]] = [vars(module)]
    spaces += [
        vars(each)
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    for space in spaces:
        for value in space.values():
            value = value.__func__ if isinstance(value, staticmethod) else value
            if isinstance(value, CompiledEinsum | CompiledFunction) and value.signatures:
                found[id(value)] = value
    return list(found.values())


# --- the kernels of requests ----------------------------------------------------------------------


def wanted_kernels(
    requests: Sequence[AnyRequest],
    levels: Sequence[str],
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Wanted]:
    """The kernels that all requests need at each of these levels, in the order of their keys.

    Args:
        requests: from `read_source`.
        levels: names such as "x86-64-v3", or "native".
        jobs: processes to plan in.
        progress: called with the number of signatures planned and the number of all.
    """
    parts = dict.fromkeys(
        (replace(request, signatures=(signature,)), level)
        for request in requests
        for signature in request.signatures
        for level in levels
    )
    found: dict[str, Job] = {}
    equations: dict[str, set[str]] = {}
    for done, (request, planned) in enumerate(_plan_all(list(parts), jobs)):
        if progress is not None:
            progress(done + 1, len(parts))
        for job in planned:
            found[job.key] = job
            equations.setdefault(job.key, set()).add(request.text)
    return [Wanted(found[key], tuple(sorted(equations[key]))) for key in sorted(found)]


_Part = tuple[AnyRequest, str]


def _plan_all(parts: Sequence[_Part], jobs: int) -> Iterator[tuple[AnyRequest, list[Job]]]:
    """The kernels of each part, as they become known."""
    # Functions, which may say how to contract, cannot go to other processes.
    here = [part for part in parts if jobs <= 1 or len(parts) == 1 or callable(part[0].optimize)]
    yield from ((part[0], _plan(*part)) for part in here)
    away = [part for part in parts if part not in here]
    if not away:
        return
    yield from in_processes(_plan, ((part[0], part) for part in away), min(jobs, len(away)))


def _plan(request: AnyRequest, level: str) -> list[Job]:
    with planning_for(level):
        return jobs_of(request)


def jobs_of(request: AnyRequest) -> list[Job]:
    """The kernels that one request needs at the level that plans are made for."""
    if isinstance(request, FunctionRequest):
        return jobs_for_function(
            load_function(request.function),
            request.signatures,
            dict(request.arguments),
            request.layouts,
        )
    if isinstance(request, GradnormsRequest):
        from ..gradnorms.entries import read_entry

        function, _ = read_entry(request.text)
        return jobs_for_function(function, request.signatures)
    found = jobs_for(
        request.subscripts,
        request.signatures,
        request.optimize,
        request.memory_limit,
        request.sizes,
    )
    keys = {job.key for job in found}
    target = machine().target
    for schedule in _schedules_of_layouts(request):
        key = fields(schedule, target).key()
        if key not in keys:
            keys.add(key)
            found.append(Job(key, schedule, target))
    return sorted(found, key=lambda job: job.key)


def _schedules_of_layouts(request: Request) -> set[Schedule]:
    """The schedules of representative calls with the layouts that are asked for by name."""
    found: set[Schedule] = set()
    for signature in request.signatures if request.layouts else ():
        dtype = np.result_type(*(operand.dtype for operand in signature.operands))
        for shapes in _shapes(signature):
            try:
                expression = resolve(request.subscripts, shapes, request.sizes)
            except EinsumError:  # sizes that do not go together in this equation
                continue
            for words in request.layouts:
                arrays = [
                    virtual_of(shape, dtype, word)
                    for shape, word in zip(shapes, words, strict=True)
                ]
                operands = [array for array in arrays if array is not None]
                if len(operands) < len(arrays):
                    continue
                planning = partial(
                    plan,
                    expression,
                    operands,
                    request.optimize,
                    memory_limit=request.memory_limit,
                )
                try:
                    execution = planning(in_chains=False)
                except EinsumError:  # the limit is too low for these sizes
                    continue
                if execution is None:
                    continue
                found.update(step.choice.schedule for step in execution.every_step)
                if len(execution.program.statements) > 1:
                    chained = planning()
                    steps = chained.steps if chained is not None and chained.chains else ()
                    found.update(step.choice.schedule for step in steps)
    return found


def _shapes(signature: Signature) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Shapes of the operands of representative calls: open extents are large, small, or both."""
    axes = [axis for operand in signature.operands for axis in operand.axes]
    names = list(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))
    alike = ((size,) * len(names) for size in _SIZES)
    for extents in product(_SIZES, repeat=len(names)) if len(names) <= _EVERY else alike:
        value = dict(zip(names, extents, strict=True))
        yield tuple(
            tuple(value[axis] if isinstance(axis, str) else axis for axis in operand.axes)
            for operand in signature.operands
        )


# --- what is there for nobody ---------------------------------------------------------------------


def stale_kernels(store: Store, current: Sequence[Wanted]) -> list[str]:
    """Which files of a store no program with this einsumc can ever ask for, in words.

    Those are kernels of other versions of einsumc's code generator.
    """

    def made_by(header: Mapping[str, Any]) -> tuple[Any, ...]:
        made = header["fields"]
        return header["schema"], header["abi"], made.get("generator")

    def header(job: Job) -> dict[str, Any]:
        return {"fields": fields_of(job).fields(), "schema": SCHEMA_VERSION, "abi": ABI_VERSION}

    today = {made_by(header(each.job)) for each in current}
    return [
        f"{entry.key[:12]}, made by {entry.header['fields'].get('generator')}"
        for entry in store.entries()
        if entry.header["kind"] == "kernel" and made_by(entry.header) not in today
    ]
