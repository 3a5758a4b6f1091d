"""From a schedule to callable machine code: memory first, then the stores, then the compiler.

However many threads ask for a kernel at once, one of them loads or compiles it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

from ..compiler.alone import alone
from ..compiler.records import dataclass
from . import settings, threads
from .key import KernelFields, text_digest
from .load import LoadedImage, LoadError, load
from .store import StoredKernel, default_stores
from .target import LEVELS, can_run

if TYPE_CHECKING:
    from ..compiler.image import Image
    from ..compiler.machine import Target
    from ..compiler.schedule import Schedule

ENTRY = "einsumc_kernel"
_ALIGNMENT = 64  # bytes, of every scratch buffer
_SLACK = 64  # bytes behind every one, for panels that are written in whole vectors


class KernelMissing(RuntimeError):
    """A kernel is in no store, and it may not or cannot be compiled.

    The message names the kernel; that of a call (`missing.py`) says how to compile what it needs.
    """


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in memory and its calling convention (see ``compiler.pipeline.Signature``)."""

    key: str
    address: int
    parameters: tuple[str, ...]
    tiles: tuple[tuple[str, int | str], ...]
    scratch: tuple[tuple[str, tuple[int | str, ...]], ...]
    origin: str  # "stored" or "compiled"

    def tile_count(self, values: dict[str, int]) -> int:
        """The number of tiles of a call with these arguments."""
        sizes = ((values[extent], _value(step, values)) for extent, step in self.tiles)
        return prod(-(-extent // step) for extent, step in sizes)

    def scratch_places(self, values: dict[str, int]) -> tuple[dict[str, int], int]:
        """Where such a call's scratch buffers begin, and the bytes each thread needs for all."""
        places, total = {}, 0
        for place, factors in self.scratch:
            places[place] = -(-total // _ALIGNMENT) * _ALIGNMENT
            size = prod(_value(factor, values) for factor in factors)
            total = places[place] + size + _SLACK
        return places, total


def _value(factor: int | str, values: dict[str, int]) -> int:
    return factor if isinstance(factor, int) else values[factor]


@dataclass
class Counts:
    """How kernels came to be in this process."""

    compiled: int = 0
    stored: int = 0


counts = Counts()
_kernels: dict[tuple[Any, Any], Kernel] = {}


def kernel(schedule: Schedule, target: Target) -> Kernel:
    """The kernel for a schedule, loaded or compiled when it is first asked for.

    Raises:
        KernelMissing: it is in no store and compiling is forbidden.
    """
    name = (schedule, target)
    found = _kernels.get(name)
    if found is not None:
        return found
    with alone:
        found = _kernels.get(name)
        if found is None:
            found = _kernels[name] = _obtain(schedule, target)
    return found


def fields(schedule: Schedule, target: Target) -> KernelFields:
    """What makes a schedule's kernel what it is."""
    from ..compiler.describe import describe, generator

    text = describe(schedule)
    return KernelFields(
        text=text_digest(text),
        dtypes=schedule.elements,
        layout=", ".join(f"{t}[{g}]={s or 'any'}" for t, g, s in schedule.strides),
        options={"accumulator": schedule.accumulator, "recipe": schedule.recipe},
        generator=generator(),
        llvm=toolchain(),
        target=target.name,
        features=LEVELS.get(target.name, ()),
    )


_toolchain: list[str] = []


def toolchain() -> str:
    """The versions of what turns source into machine code, found without importing any of it.

    Those of Numba and llvmlite are read off the names of the packages' metadata folders. Python
    counts as well: its bytecode is what Numba reads. "none" where they are not installed: then
    nothing can be compiled, but kernels that others built are found all the same.
    """
    if not _toolchain:
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        found = [_version(package) for package in ("llvmlite", "numba")]
        _toolchain.append(", ".join([*found, python]) if all(found) else "none")
    return _toolchain[0]


def _version(package: str) -> str:
    """Its name and version; "" if it is not installed."""
    try:
        spec = find_spec(package)
    except ValueError:  # what stands in for it in sys.modules is no module
        spec = None
    if spec is None:
        return ""
    folders = [os.path.dirname(path) for path in spec.submodule_search_locations or ()]
    found = [
        entry.removesuffix(".dist-info").replace("-", " ")
        for folder in folders
        for entry in sorted(os.listdir(folder))
        if entry.startswith(f"{package}-") and entry.endswith(".dist-info")
    ]
    if found:
        return found[-1]
    try:  # not installed as wheels are
        return f"{package} {import_module(package).__version__}"
    except ImportError:
        return ""


def may_compile() -> bool:
    """Whether kernels that no store has may be compiled: it is allowed, and Numba is there."""
    return settings.current().compile != "never" and toolchain() != "none"


def compiled(schedule: Schedule, target: Target) -> tuple[bytes, dict[str, Any]]:
    """Compile a schedule: the code and the header that a store keeps. Nothing is loaded."""
    from ..compiler.pipeline import compile_kernel, describe, signature

    code, image = compile_kernel(schedule, target)
    called = signature(schedule)
    return code, {
        "kind": "kernel",
        "fields": fields(schedule, target).fields(),
        "schedule": describe(schedule),
        "parameters": list(called.parameters),
        "tiles": [list(axis) for axis in called.tiles],
        "scratch": [[place, list(factors)] for place, factors in called.scratch],
        "image": image,
    }


def _obtain(schedule: Schedule, target: Target) -> Kernel:
    identity = fields(schedule, target)
    key = identity.key()
    if not can_run(identity.features):
        raise LoadError(f"kernels for {target.name} cannot run on this machine")

    def build() -> tuple[bytes, dict[str, Any]]:
        if not may_compile():
            *inputs, output = schedule.elements
            raise KernelMissing(
                f"{key[:12]}: {schedule.recipe}, {','.join(inputs)}->{output}, {identity.layout}"
            )
        return compiled(schedule, target)

    stored, origin = stored_or_built(key, build)
    if stored.key not in _addresses:
        _addresses[stored.key] = loaded(stored).entries[ENTRY]
    head = stored.header
    return Kernel(
        key=stored.key,
        address=_addresses[stored.key],
        parameters=tuple(head["parameters"]),
        tiles=tuple((extent, step) for extent, step in head["tiles"]),
        scratch=tuple((place, tuple(factors)) for place, factors in head["scratch"]),
        origin=origin,
    )


_addresses: dict[str, int] = {}  # of the kernels in memory, by key


def address(key: str) -> int:
    """Where a stored kernel is in memory, for who knows its key and all else about it.

    Raises:
        LookupError: no store has it.
        LoadError: it was made for instructions that this machine lacks.
    """
    found = _addresses.get(key)
    if found is not None:
        return found
    with alone:
        if key not in _addresses:
            stored = default_stores().find(key)
            if stored is None:
                raise LookupError(key)
            _addresses[key] = loaded(stored).entries[ENTRY]
            counts.stored += 1
        return _addresses[key]


def stored_or_built(
    key: str, build: Callable[[], tuple[bytes, dict[str, Any]]]
) -> tuple[StoredKernel, str]:
    """What the stores hold under ``key``; where they hold nothing, what ``build`` makes."""
    stores = default_stores()
    stored = stores.find(key)
    if stored is not None:
        counts.stored += 1
        return stored, "stored"
    code, header = build()
    counts.compiled += 1
    stores.put(key, header, code)
    return StoredKernel(key, header, code), "compiled"


def loaded(stored: StoredKernel, provided: Mapping[str, int] | None = None) -> LoadedImage:
    """Stored code, executable; `provided` are addresses of what only it may import.

    Raises:
        LoadError: it was made for instructions that this machine lacks.
    """
    if not can_run(stored.header["fields"]["features"]):
        target = stored.header["fields"]["target"]
        raise LoadError(f"kernel {stored.key[:12]} is for {target}, which this machine is not")
    image, label = stored.header["image"], stored.key[:12]
    return load(stored.image, **image, label=label, provided=provided)


def pool_fields() -> KernelFields:
    """What makes the thread pool's code what it is."""
    files = ("assemble", "image", "pool", "chain")
    return _program_fields("thread pool", f"pool {threads.POOL_ABI}", files)


def compiled_pool() -> tuple[bytes, dict[str, Any]]:
    """Compile the thread pool: the code and the header that a store keeps."""
    from ..compiler.assemble import assemble
    from ..compiler.chain import IR
    from ..compiler.image import link

    return _program("thread pool", pool_fields(), link(assemble(IR)))


def _pool_image() -> LoadedImage | None:
    """The thread pool's code; None where it is not stored and may not be compiled."""
    stored = _program_code(pool_fields().key(), compiled_pool)
    return loaded(stored) if stored else None


threads.provide(_pool_image)


def entry_fields() -> KernelFields:
    """What makes the native entry's code what it is."""
    return _program_fields("entry", "entry", ("assemble", "image", "entry"))


def compiled_entry() -> tuple[bytes, dict[str, Any]]:
    """Compile the native entry: the code and the header that a store keeps."""
    from ..compiler.assemble import assemble
    from ..compiler.entry import symbols
    from ..compiler.entry.program import IR
    from ..compiler.image import link

    return _program("entry", entry_fields(), link(assemble(IR), symbols()))


def entry_image(provided: Mapping[str, int]) -> LoadedImage | None:
    """The native entry's code, which finds CPython and NumPy at the addresses provided.

    None where it is not stored and may not be compiled.
    """
    stored = _program_code(entry_fields().key(), compiled_entry)
    return loaded(stored, provided) if stored else None


def _program_fields(name: str, abi: str, files: tuple[str, ...]) -> KernelFields:
    """The fields of a program that is written in LLVM IR, in these of the compiler's files."""
    from ..compiler.sources import sources

    return KernelFields(
        text=text_digest(name),
        dtypes=(),
        layout="",
        options={},
        generator=f"{abi} {sources(files)}",
        llvm=toolchain(),
        target="x86-64",
        features=(),
    )


def _program(name: str, fields: KernelFields, image: Image) -> tuple[bytes, dict[str, Any]]:
    header = {"kind": "kernel", "fields": fields.fields(), "schedule": name}
    return image.code, header | {"image": image.header()}


def _program_code(
    key: str, build: Callable[[], tuple[bytes, dict[str, Any]]]
) -> StoredKernel | None:
    if not may_compile() and default_stores().find(key) is None:
        return None
    with alone:
        return stored_or_built(key, build)[0]
