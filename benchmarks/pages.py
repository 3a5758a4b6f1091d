"""Huge pages for the process, which a library may switch off for everybody in it.

sesum does so when it is imported (prctl with PR_SET_THP_DISABLE). A new array of 128 MiB then costs
32768 page faults instead of a few hundred, four times the time, whoever makes it. Contenders take
turns in one process, so each turn is taken under the setting that its own library has made.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["forbid_huge", "huge_forbidden"]

# prctl(2)
PR_SET_THP_DISABLE = 41
PR_GET_THP_DISABLE = 42

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def huge_forbidden() -> bool:
    """Whether the process gets no huge pages; False where a process has no such setting."""
    return _prctl is not None and _prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1


def forbid_huge(forbidden: bool) -> None:
    """Give the process huge pages or none, in memory that is touched first from now on."""
    if _prctl is not None:
        _prctl(PR_SET_THP_DISABLE, int(forbidden), 0, 0, 0)
