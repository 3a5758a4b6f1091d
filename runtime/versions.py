"""What einsumc runs with: versions, the machine and the stores, for reports of problems."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from ..compiler.alone import alone

__all__ = ["show_versions", "versions"]

_PACKAGES = ("numpy", "numba", "llvmlite", "opt_einsum")


def versions() -> dict[str, str]:
    """Everything that `show_versions` prints, by name.

    Nothing of it is imported for its version, so this is quick and works where a package is broken.
    """
    from .. import __version__
    from . import settings, target
    from .machine import source
    from .store import default_stores
    from .threads import get_num_threads

    host = target.host()
    level = settings.current().target
    if level == "native":
        level = f"native, which is {host.level or host.arch}"
    caches = {"L1": host.l1d, "L2": host.l2, "L3": host.l3}
    own, *added = default_stores().stores
    described = {
        "einsumc": __version__,
        "Python": f"{sys.version.split()[0]} ({sys.platform}, {host.arch})",
        **{package: _version(package) for package in _PACKAGES},
        "target": level,
        "threads": f"{get_num_threads()} of {host.cores} cores",
        "caches": ", ".join(f"{name} {size >> 10} KiB" for name, size in caches.items() if size),
        "speeds": source(),
        "store": own.path,
    }
    if added:
        described["more stores"] = ", ".join(store.path for store in added)
    return described


def show_versions() -> None:
    """Print the versions of einsumc and of what it builds on, the machine, and the kernel stores.

    >>> show_versions()  # doctest: +ELLIPSIS
    einsumc      ...
    Python       ...
    """
    with alone:
        found = versions()
    for name, value in found.items():
        print(f"{name:<13}{value}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
