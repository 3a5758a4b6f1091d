"""Where a stored kernel comes from: what it computes, for what, built by whom, from what source.

All of it is read from the kernel's file or made again from it. To compile it again takes Numba, and
the version of einsumc's code generator that built it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..compiler.records import dataclass
from .target import LEVELS, can_run

if TYPE_CHECKING:
    from ..compiler.schedule import Schedule
    from .store import StoredKernel

__all__ = ["Provenance", "assembly", "compare", "provenance", "source"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the file of a kernel says of it.

    Attributes:
        kind: the recipe of a kernel, or a program's name, or "plan".
        equation: what it computes. Each letter stands for any number of indices of one part, as `m`
            for those of the first operand that are kept; so one kernel serves many equations.
        signature: dtypes, and strides that are fixed: `f4[m,k:1]` has neighbours along `k`.
        target: the instruction set level.
        runs_here: whether this machine has it.
        generator: the digest of the part of einsumc that generated the code.
        current: whether that is the part of this einsumc.
        versions: what turned it into machine code.
    """

    kind: str
    equation: str
    signature: str
    target: str
    runs_here: bool
    generator: str
    current: bool
    versions: str


def provenance(header: Mapping[str, Any]) -> Provenance:
    """What the header of a kernel says. Fields that it lacks are empty."""
    fields = header["fields"]
    schedule = _schedule(header)
    target = str(fields.get("target", ""))
    features = fields.get("features", LEVELS.get(target, ()))
    return Provenance(
        kind=_kind(header),
        equation=_equation(schedule) if schedule else str(fields.get("equation", "")),
        signature=_signature(schedule) if schedule else _layout(fields),
        target=target,
        runs_here=can_run(map(str, features if isinstance(features, list) else ())),
        generator=str(fields.get("generator", fields.get("version", ""))),
        current=_is_current(header),
        versions=str(fields.get("llvm", "")),
    )


def source(stored: StoredKernel) -> str:
    """The source that a kernel was compiled from: Numba's, or for a program LLVM's.

    Raises:
        ValueError: another version of einsumc generated it.
    """
    _check_current(stored.header)
    if (schedule := _schedule(stored.header)) is not None:
        from ..compiler.pipeline import stages

        return stages(schedule).source
    return _program_text(_kind(stored.header))


def assembly(stored: StoredKernel) -> str:
    """The assembler text of a kernel, compiled anew; `compare` tells whether it is the same code.

    Raises:
        ValueError: another version of einsumc generated it, or it is no kernel.
    """
    _check_current(stored.header)
    schedule = _schedule(stored.header)
    if schedule is None:
        raise ValueError(f"{_kind(stored.header)!r} is written in LLVM's language; see its source")
    from ..compiler.machine import TARGETS
    from ..compiler.pipeline import assembly

    return assembly(schedule, TARGETS[stored.header["fields"]["target"]])


def compare(stored: StoredKernel) -> str | None:
    """Compile a kernel again and compare: None if every byte is the same, else what is different.

    Raises:
        ValueError: it was built by other versions than those that are installed, so that a
            difference would mean nothing; the message says by which.
    """
    from .kernels import toolchain

    header = stored.header
    if _kind(header) == "plan":
        raise ValueError("plans, of which nothing is compiled")
    _check_current(header)
    if header["fields"].get("llvm") != toolchain():
        raise ValueError(f"built by {header['fields'].get('llvm')}; {toolchain()} is here")
    code, fresh = _build(header)()
    if code != stored.image:
        return "compiled again, it is other code"
    wrong = sorted(name for name, value in fresh.items() if header.get(name) != value)
    return f"compiled again, it has another {wrong[0]} in its header" if wrong else None


def _build(header: Mapping[str, Any]) -> Callable[[], tuple[bytes, dict[str, Any]]]:
    from . import kernels

    if (schedule := _schedule(header)) is not None:
        from ..compiler.machine import TARGETS

        target = TARGETS[header["fields"]["target"]]
        return lambda: kernels.compiled(schedule, target)
    programs = {"thread pool": kernels.compiled_pool, "entry": kernels.compiled_entry}
    return programs[_kind(header)]


def _program_text(name: str) -> str:
    from ..compiler import pool
    from ..compiler.entry import program

    return {"thread pool": pool.IR, "entry": program.IR}[name]


_PROGRAMS = ("thread pool", "entry")


def _kind(header: Mapping[str, Any]) -> str:
    text = str(header.get("schedule", ""))
    if text in _PROGRAMS:
        return text
    return str(header["fields"].get("options", {}).get("recipe", header.get("kind", "")))


def _schedule(header: Mapping[str, Any]) -> Schedule | None:
    """The schedule in a header, if this version of the compiler can read it."""
    from ..compiler.described import read

    try:
        return read(str(header.get("schedule", "")))
    except ValueError:
        return None


def _is_current(header: Mapping[str, Any]) -> bool:
    """Whether the generator that built a kernel is the one of this einsumc."""
    from .kernels import entry_fields, pool_fields
    from .stored_plan import version

    built = header["fields"].get("generator")
    kind = _kind(header)
    if kind == "plan":
        return bool(header["fields"].get("version") == version())
    if kind in _PROGRAMS:
        return bool(built == (pool_fields() if kind == "thread pool" else entry_fields()).generator)
    from ..compiler.describe import generator

    return bool(built == generator()) and _schedule(header) is not None


def _check_current(header: Mapping[str, Any]) -> None:
    if not _is_current(header):
        built = header["fields"].get("generator", "an unknown one")
        raise ValueError(f"built by another version of einsumc's code generator ({built})")


def _groups(schedule: Schedule) -> dict[str, list[tuple[str, int | None]]]:
    """For every tensor its groups, each with the stride along it if that is fixed."""
    found: dict[str, list[tuple[str, int | None]]] = {name: [] for name in schedule.names}
    for tensor, group, stride in schedule.strides:
        found[tensor].append((group, stride))
    return found


def _equation(schedule: Schedule) -> str:
    *inputs, output = ("".join(name for name, _ in row) for row in _groups(schedule).values())
    return f"{','.join(inputs)}->{output}"


def _layout(fields: Mapping[str, Any]) -> str:
    """Dtype and shapes of a plan; else whatever the fields say of a layout."""
    if "shapes" not in fields:
        return str(fields.get("layout", ""))
    return ", ".join(f"{fields['dtype']}[{','.join(map(str, s))}]" for s in fields["shapes"])


def _signature(schedule: Schedule) -> str:
    terms = []
    for (_, groups), element in zip(_groups(schedule).items(), schedule.elements, strict=True):
        axes = (name if stride is None else f"{name}:{stride}" for name, stride in groups)
        terms.append(f"{element}[{','.join(axes)}]")
    return f"{', '.join(terms[:-1])} -> {terms[-1]}"
