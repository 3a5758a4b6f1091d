"""The description of this machine that plans are made for: measured, or estimated.

`einsumc calibrate` writes `machine.toml` into the directory of the kernel store. It is used when it
describes this host; EINSUMC_MACHINE names another file, used whatever it describes. Without either,
sizes come from the operating system and speeds from the instruction set and the clock. A file that
cannot be used is one warning, and the estimate takes its place.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from ..compiler.machine import TARGETS, Machine, Target, estimate
from ..compiler.records import replace
from . import settings, target
from .levels import wanted_level
from .trouble import reason, warn_once

if TYPE_CHECKING:
    from .machine_file import Description

__all__ = ["FILE", "described", "forget", "host_machine", "machine", "source"]


FILE = "machine.toml"
"""The name of the description, in the directory of the kernel store."""


def machine() -> Machine:
    """The machine that plans are made for: the host, at the level that EINSUMC_TARGET names.

    Within `levels.planning_for` it is the level given there.
    """
    return _machine(*_wanted())[0]


def source() -> str:
    """Where the description in use comes from, in words."""
    return _machine(*_wanted())[1]


def forget() -> None:
    """Read the description anew when it is next asked for."""
    _machine.cache_clear()


def host_machine(level: Target | None = None) -> Machine:
    """This host as the operating system describes it, its speeds estimated."""
    facts = target.host()
    level = level or _target("native")
    return Machine(
        level,
        cores=facts.cores,
        l1_bytes=facts.l1d or 32 << 10,
        l2_bytes=facts.l2 or 512 << 10,
        l3_bytes=facts.l3 or 8 << 20,
        speeds=estimate(level, facts.cores, target.clock()),
    )


def described(machine: Machine) -> Description:
    """A machine as a description of this host."""
    from .machine_file import Description

    return Description(machine, target.cpu_model(), os.cpu_count() or 1)


def _wanted() -> tuple[str, str | None, str]:
    """All that decides about the description."""
    wishes = settings.current()
    return wanted_level(), wishes.machine, wishes.store_dir


def _target(name: str) -> Target:
    level = (target.host_level() or "x86-64-v1") if name == "native" else name
    return TARGETS.get(level, TARGETS["x86-64-v2"])


@lru_cache(maxsize=8)
def _machine(level: str, path: str | None, folder: str) -> tuple[Machine, str]:
    wanted = _target(level)
    if path is not None:
        found = _read(path, needed=True)
        if found is not None:
            return _for_target(found.machine, wanted), f"{path}, as EINSUMC_MACHINE says"
    else:
        path = os.path.join(folder, FILE)
        found = _read(path, needed=False)
        if found is not None and found.fits(target.cpu_model(), os.cpu_count() or 1):
            # Sizes decide about bits, and are the operating system's to tell.
            measured = _for_target(found.machine, wanted).speeds
            return replace(host_machine(wanted), speeds=measured), f"measured, in {path}"
        if found is not None:
            return host_machine(wanted), f"estimated; {path} is of another machine: {found.cpu}"
    return host_machine(wanted), "estimated; `einsumc calibrate` measures it"


def _read(path: str, needed: bool) -> Description | None:
    """The description in a file; None, with a warning, where it cannot be used."""
    if not needed and not _is_there(path):
        return None
    from .machine_file import MachineFileError, read

    try:
        return read(path)
    except OSError as error:
        warn_once(f"machine description {path} cannot be read: {reason(error)}")
    except MachineFileError as why:
        warn_once(
            f"machine description {path} is damaged: {why}. Estimates are used until"
            " `einsumc calibrate` writes it anew."
        )
    return None


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # reading it says what is wrong
    return True


def _for_target(machine: Machine, wanted: Target) -> Machine:
    """A machine whose vectors are those of an instruction set, its peaks in proportion."""
    old, new = estimate(machine.target).flops, estimate(wanted).flops
    peaks = {
        name: getattr(machine.speeds.flops, name) * getattr(new, name) / getattr(old, name)
        for name in type(new).__slots__
    }
    return replace(machine, target=wanted, speeds=replace(machine.speeds, flops=type(new)(**peaks)))
