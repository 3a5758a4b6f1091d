"""A machine's description as a file: TOML that people can read, write and send.

Rates are per second, times in seconds, sizes in bytes. A file has every value, each a positive
number; anything else is damage. Nothing in it is code.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from ..compiler.machine import TARGETS, Levels, Machine, Peak, Speeds
from ..compiler.records import dataclass, fields

__all__ = ["Description", "MachineFileError", "from_text", "read", "to_text", "write"]

FORMAT = 1
"""Raise it when a value gets another meaning."""

_SIZES = ("cores", "l1_bytes", "l2_bytes", "l3_bytes")
_TABLES = {
    "flops": ("operations on elements a second, one core; a multiply-add is two", Peak),
    "read": ("bytes a second, one core", Levels),
    "write": ("bytes a second, one core", Levels),
    "read_all": ("bytes a second, all cores together", Levels),
    "write_all": ("bytes a second, all cores together", Levels),
}
_TIMES = {"call": "of a step, around its kernel", "wake": "until another thread works"}


class MachineFileError(ValueError):
    """A file is no machine description; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Description:
    """A machine, and which one it is.

    Attributes:
        machine: its sizes and speeds.
        cpu: the model's name, as the operating system has it.
        processors: how many the operating system has.
    """

    machine: Machine
    cpu: str
    processors: int

    def fits(self, cpu: str, processors: int) -> bool:
        """Whether it describes a host with this CPU model and number of processors."""
        return (self.cpu, self.processors) == (cpu, processors)


def to_text(description: Description) -> str:
    """A description as TOML.

    >>> machine = Machine(TARGETS["x86-64-v3"])
    >>> from_text(to_text(Description(machine, "some CPU", 2))).machine == machine
    True
    """
    machine = description.machine
    cpu = "".join(c if c.isprintable() and c not in '"\\' else " " for c in description.cpu)
    lines = [
        "# A machine as einsumc's cost model sees it. Units: seconds, bytes, and per second.",
        f"format = {FORMAT}",
        "",
        "[host]",
        f'cpu = "{cpu}"',
        f"processors = {description.processors}",
        f'level = "{machine.target.name}"',
        *(f"{name} = {getattr(machine, name)}" for name in _SIZES),
        "",
        "[seconds]",
        *(
            f"{name} = {_number(getattr(machine.speeds, name))}  # {of}"
            for name, of in _TIMES.items()
        ),
    ]
    for table, (unit, record) in _TABLES.items():
        values = getattr(machine.speeds, table)
        lines += ["", f"[{table}]  # {unit}"]
        lines += [f"{f.name} = {_number(getattr(values, f.name))}" for f in fields(record)]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """A number with three digits, if that is all of it."""
    short = f"{value:.2e}"
    return short if float(short) == value else repr(float(value))


def from_text(text: str) -> Description:
    """The description in a text.

    Raises:
        MachineFileError: it is damaged.
    """
    import tomllib  # here, since most processes have no file to read

    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MachineFileError(f"it is no TOML: {error}") from None
    if content.get("format") != FORMAT:
        raise MachineFileError(f"it has format {content.get('format')!r}, not {FORMAT}")
    host, seconds = _table(content, "host"), _table(content, "seconds")
    level, cpu = host.get("level"), host.get("cpu")
    if not isinstance(level, str) or level not in TARGETS:
        raise MachineFileError(f"host.level is {level!r}, none of {', '.join(TARGETS)}")
    if not isinstance(cpu, str):
        raise MachineFileError(f"host.cpu is {cpu!r}, no text")
    times = {name: _positive(seconds, "seconds", name) for name in _TIMES}
    rates = {
        table: record(
            **{f.name: _positive(_table(content, table), table, f.name) for f in fields(record)}
        )
        for table, (_, record) in _TABLES.items()
    }
    sizes = {name: _count(host, name) for name in _SIZES}
    speeds: Any = {**rates, **times}
    machine = Machine(TARGETS[level], **sizes, speeds=Speeds(**speeds))
    return Description(machine, cpu, _count(host, "processors"))


def _table(content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name)
    if not isinstance(table, dict):
        raise MachineFileError(f"it has no table [{name}]")
    return table


def _positive(table: dict[str, Any], owner: str, name: str) -> float:
    value = table.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e300:
        return float(value)
    raise MachineFileError(f"{owner}.{name} is {value!r}, no positive number")


def _count(table: dict[str, Any], name: str) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 50:
        raise MachineFileError(f"host.{name} is {value!r}, no positive whole number")
    return value


def read(path: str) -> Description:
    """The description in a file.

    Raises:
        MachineFileError: the file is damaged.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(1 << 16)
    try:
        return from_text(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise MachineFileError("it is no UTF-8 text") from None


def write(path: str, description: Description) -> None:
    """Write a description, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    import tempfile  # here, since few processes write such a file

    handle, temporary = tempfile.mkstemp(prefix=".machine-", dir=folder)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(to_text(description))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
