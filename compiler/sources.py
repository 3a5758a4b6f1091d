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


_MOST = 1 << 18
"""Bytes of a file that are read at once."""


@cache
def sources(names: tuple[str, ...]) -> str:
    """A digest of files and folders, by their paths from here without `.py`."""
    digest, room = blake2b(), memoryview(bytearray(_MOST))
    for name in names:
        path = os.path.join(_HERE, name)
        files = [f"{path}.py"]
        if os.path.isdir(path):
            found = (each for each in os.listdir(path) if each.endswith(".py"))
            files = [os.path.join(path, each) for each in sorted(found)]
        for file in files:
            if file not in _digests:
                _digests[file] = _digest(file, room)
            digest.update(_digests[file])
    return digest.hexdigest()[:16]


_digests: dict[str, bytes] = {}


def _digest(file: str, room: memoryview) -> bytes:
    """A file's digest, read by few calls of the system: there are 160 files, and a user waits."""
    digest = blake2b()
    source = os.open(file, os.O_RDONLY)
    try:
        while (count := os.readv(source, [room])) > 0:
            digest.update(room[:count])
            if count < len(room):
                break
    finally:
        os.close(source)
    return digest.digest()
