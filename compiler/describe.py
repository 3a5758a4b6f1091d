"""What a kernel's key is made from: its schedule as text, and the version of the generator."""

from __future__ import annotations

from typing import Any

from .records import fields, is_dataclass
from .schedule import Schedule
from .sources import sources

__all__ = ["describe", "generator"]

_FILES = (
    *("affine", "build", "describe", "emit", "express", "finish", "formula", "frames", "image"),
    *("loopnest", "lower", "machine", "pipeline", "records", "schedule", "passes", "simd"),
    "tile_source",
)


def generator() -> str:
    """The version of everything between a schedule and its machine code. Part of every key.

    It is a digest of the sources that do the work, so no change to them can be forgotten, and two
    einsumc versions share kernels exactly where they would make the same ones.
    """
    return sources(_FILES)


def describe(schedule: Schedule) -> str:
    """A schedule as text: equal texts, equal kernels. This is what a key is made from."""
    return _describe(schedule)


def _describe(value: Any) -> str:
    if is_dataclass(value):
        parts = (f"{f.name}={_describe(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        return f"[{', '.join(_describe(item) for item in value)}]"
    return repr(value)
