"""Plans on disk: a process that makes a call that was made before needs no planner.

To plan the first call takes tens of milliseconds, most of it to import the compiler's first half.
What comes of it is little: which kernels, in what order, and their arguments but for the addresses.
That is kept beside the kernels, in files of the same kind, and found by everything that it follows
from: the equation, shapes, strides and dtype, the options, the description of the machine, the
number of threads, and a digest of all code that takes part.

A plan is a hint. One that is not there, or whose kernels are not, is made anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..compiler.records import dataclass
from ..compiler.sources import sources
from ..compiler.subscripts import Expression
from . import kernels, settings, target, threads, workspaces
from .digests import sha256
from .key import kernel_key
from .levels import wanted_level
from .load import LoadError
from .store import StoredKernel, default_stores
from .work import CHAIN, ZERO_AT, Call, Work

__all__ = ["StoredPlan", "circumstances", "find", "keep", "prepare", "run"]

Array = np.ndarray[Any, Any]

MOST = 64
"""Plans that a process keeps: what it begins with, not all that it may ever do."""

_FILES = (".", "choose", "passes", "rewrite", "simd")
_RUNTIME = (
    "bind",
    "bound",
    "chain",
    "buffers",
    "entry",
    "execute",
    "function_plan",
    "kernels",
    "levels",
    "load",
    "machine",
    "operands",
    "pieces",
    "programs",
    "step",
    "stored_plan",
    "stored_program",
    "target",
    "threads",
    "work",
    "workspaces",
)


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan that was found, ready to run. Calling it writes the result into `out`."""

    made: Work

    def __call__(self, operands: Sequence[Array], out: Array) -> None:
        """Compute into ``out``; the arrays have the layouts that were planned for."""
        run(self.made, (*operands, out))

    def work(self) -> Work:
        """The same for the native entry."""
        return self.made.settled()


def run(work: Work, arrays: Sequence[Array]) -> None:
    """Run all kernels on arrays, which are the tensors by number."""
    addresses = [array.__array_interface__["data"][0] for array in arrays]
    buffer = None
    if work.workspace:
        buffer = workspaces.take(work.workspace)
        addresses.append(buffer.address)
    addresses.append(ZERO_AT)
    arguments = work.arguments.copy()
    for place, tensor, offset in work.fills:
        arguments[place] = addresses[tensor] + offset
    begin = arguments.__array_interface__["data"][0]
    for call in work.calls:
        threads.run(
            call.address, begin + call.begin, call.tiles, call.scratch_bytes, most=call.threads
        )
    if buffer is not None:
        workspaces.give_back(buffer)


def prepare(
    expression: Expression,
    operands: Sequence[Array],
    out: Array,
    optimize: Any = True,
    memory_limit: int | None = None,
) -> Any:
    """What `execute.prepare` returns, or the same from a store; see there."""
    wishes = settings.current()
    fields = None if wishes.show else _fields(expression, operands, out, optimize, memory_limit)
    if fields is not None:
        work = find(fields)
        if work is not None:
            return StoredPlan(work)
    from .execute import prepare as prepare_anew

    execution = prepare_anew(expression, operands, out, optimize, memory_limit)
    storable = execution.storable() if fields is not None else None
    if fields is not None and storable is not None:
        keep(fields, *storable)
    return execution


def _fields(
    expression: Expression,
    operands: Sequence[Array],
    out: Array,
    optimize: Any,
    memory_limit: int | None,
) -> dict[str, Any] | None:
    """All that a plan follows from; None if that cannot be written down."""
    if not isinstance(optimize, bool | str | tuple):
        return None
    first: dict[Any, int] = {}
    layouts = [(a.__array_interface__["data"][0], a.shape, a.strides) for a in operands]
    return {
        "kind": "plan",
        "equation": expression.text,
        "dtype": f"{operands[0].dtype.kind}{operands[0].dtype.itemsize}",
        "shapes": [list(array.shape) for array in (*operands, out)],
        "extents": [list(each) for each in expression.extents],
        "strides": [list(array.strides) for array in (*operands, out)],
        "same": [first.setdefault(layout, n) for n, layout in enumerate(layouts)],
        "optimize": repr(optimize),
        "memory_limit": memory_limit,
        **circumstances(),
    }


def circumstances() -> dict[str, Any]:
    """What every plan follows from, whatever it is of."""
    return {"machine": _machine(), "threads": threads.get_num_threads(), "version": version()}


def version() -> str:
    """A digest of all code that makes plans or reads them."""
    return sources((*_FILES, *(f"../runtime/{name}" for name in _RUNTIME)))


def _machine() -> str:
    """What describes the machine: the level, the host's sizes, and the file of speeds if any."""
    wishes = settings.current()
    path = wishes.machine or os.path.join(wishes.store_dir, "machine.toml")
    try:
        status = os.stat(path)
        file = (path, status.st_mtime_ns, status.st_size)
    except OSError:
        file = None
    return _described(wanted_level(), file)


@lru_cache(maxsize=8)
def _described(level: str, file: tuple[str, int, int] | None) -> str:
    host = target.host()
    sizes = (host.level, host.cores, host.l1d, host.l2, host.l3, int(target.clock()))
    digest = sha256(repr((level, sizes, target.cpu_model(), os.cpu_count())).encode())
    if file is not None:
        try:
            with open(file[0], "rb") as text:
                digest.update(text.read())
        except OSError:
            digest.update(b"unreadable")
    return str(digest.hexdigest()[:32])


# --- files ----------------------------------------------------------------------------------------

_kept = 0


def find(fields: dict[str, Any]) -> Work | None:
    """The plan with these fields, if it is stored and its kernels are."""
    stored = default_stores().get(kernel_key(fields))
    return None if stored is None else _read(stored)


def keep(
    fields: dict[str, Any], names: Sequence[str], codes: Sequence[tuple[int, str]], work: Work
) -> None:
    """Write a plan down, where kernels are written and there is a store of the user's own.

    Args:
        fields: all that it follows from.
        names: the key of the kernel that each call is of, or `CHAIN`.
        codes: places of addresses of kernels among the arguments, and their keys.
        work: what to run.
    """
    global _kept
    own = default_stores().stores[0]
    if _kept >= MOST or not own.writable or settings.current().compile == "never":
        return
    _kept += 1  # whoever plans is alone
    header = {
        "kind": "plan",
        "fields": fields,
        "calls": [
            [key, call.begin, call.tiles, call.scratch_bytes, call.threads, int(call.work_ns)]
            for key, call in zip(names, work.calls, strict=True)
        ],
        "codes": [list(code) for code in codes],
        "arguments": _without(work.arguments, codes),
        "fills": [list(fill) for fill in work.fills],
        "workspace": work.workspace,
    }
    default_stores().put(kernel_key(fields), header, b"")


def _without(arguments: Array, codes: Sequence[tuple[int, str]]) -> list[int]:
    """Arguments as they are in every process: addresses of kernels are not."""
    found: list[int] = arguments.tolist()
    for place, _ in codes:
        found[place] = 0
    return found


def _address(key: str) -> int:
    """Of a stored kernel, or of what runs chains."""
    if key != CHAIN:
        return kernels.address(key)
    pool = threads.pool()
    if pool is None:
        raise LookupError("there is no thread pool")
    return pool.chain


def _read(stored: StoredKernel) -> Work | None:
    """The plan in a file with its kernels; None if one of them is not there."""
    head = stored.header
    try:
        calls = tuple(
            Call(_address(key), begin, tiles, scratch, most, float(nanoseconds))
            for key, begin, tiles, scratch, most, nanoseconds in head["calls"]
        )
        arguments = np.array(head["arguments"], np.int64)
        for place, key in head["codes"]:
            arguments[place] = _address(key)
    except (LookupError, LoadError):
        return None
    fills = tuple((place, tensor, offset) for place, tensor, offset in head["fills"])
    return Work(calls, arguments, fills, head["workspace"])
