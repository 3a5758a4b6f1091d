"""SHA-256 without OpenSSL, whose start takes longer than all that is hashed here.

`hashlib` asks OpenSSL first. The function that CPython falls back on without it is the same and
begins at once; where it is not (other interpreters, other builds) `hashlib` takes its place.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

__all__ = ["sha256"]


def _sha256() -> Any:
    for module in ("_sha2" if sys.version_info >= (3, 12) else "_sha256", "hashlib"):
        try:
            return import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    raise ImportError("there is no SHA-256")


sha256 = _sha256()
