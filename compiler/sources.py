"""A digest of the compiler's own files: its version, which nobody can forget to raise."""

from __future__ import annotations

import os
from functools import cache

try:  # `hashlib` would begin with OpenSSL, which takes longer than all that is hashed here
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = ["sources"]

_HERE = os.path.dirname(__file__)


@cache
def sources(names: tuple[str, ...]) -> str:
    """A digest of files and folders, by their paths from here without `.py`."""
    digest = blake2b()
    for name in names:
        path = os.path.join(_HERE, name)
        files = [f"{path}.py"]
        if os.path.isdir(path):
            found = (each for each in os.listdir(path) if each.endswith(".py"))
            files = [os.path.join(path, each) for each in sorted(found)]
        for file in files:
            digest.update(_digest(file))
    return digest.hexdigest()[:16]


@cache
def _digest(file: str) -> bytes:
    with open(file, "rb", buffering=0) as source:
        return blake2b(source.read()).digest()
