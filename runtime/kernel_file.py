"""The format of a kernel's file. In little-endian order:

    magic            8 bytes   "EINSUMC" and a zero byte
    format version   4 bytes
    header length    8 bytes
    image length     8 bytes
    digest          32 bytes   SHA-256 of version, lengths, header and image
    header                     canonical JSON with at least key, fields, kind, schema and abi
    image                      position-independent machine code; may be empty for a plan

The digest finds accidents, not attacks. What is wrong with a file is told by a ValueError or
another of the exceptions that reading JSON raises; `trouble.damage` makes one of them all.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from .digests import sha256
from .key import ABI_VERSION, SCHEMA_VERSION, canonical_json, kernel_key

__all__ = [
    "FORMAT_VERSION",
    "MAX_HEADER",
    "MAX_IMAGE",
    "PREFIX",
    "digest_of",
    "encode",
    "header_text",
    "parse_header",
    "parse_prefix",
]

FORMAT_VERSION = 1
MAX_HEADER = 1 << 20
MAX_IMAGE = 64 << 20

PREFIX = struct.Struct("<8sIQQ32s")
"""Magic, format version, header length, image length, digest."""

_MAGIC = b"EINSUMC\0"
_COUNTS = struct.Struct("<IQQ")  # the part of the prefix that the digest covers


def header_text(key: str, header: Mapping[str, object], image: bytes) -> bytes:
    """The header completed, checked and written as JSON; ValueError if it contradicts itself."""
    full: dict[str, object] = {"kind": "kernel", **header}
    for name, value in (("key", key), ("schema", SCHEMA_VERSION), ("abi", ABI_VERSION)):
        if full.setdefault(name, value) != value:
            raise ValueError(f"header[{name!r}] is {full[name]!r}, expected {value!r}")
    text = canonical_json(full)
    parse_header(text, key, len(image))
    return text


def encode(text: bytes, image: bytes) -> bytes:
    """The whole file."""
    counts = (FORMAT_VERSION, len(text), len(image))
    return PREFIX.pack(_MAGIC, *counts, digest_of(text, image)) + text + image


def digest_of(text: bytes, image: bytes) -> bytes:
    """The digest in the prefix of a file."""
    digest = sha256(_COUNTS.pack(FORMAT_VERSION, len(text), len(image)))
    digest.update(text)
    digest.update(image)
    return bytes(digest.digest())


def parse_prefix(prefix: bytes, size: int) -> tuple[int, int, bytes]:
    """Return header length, image length and digest, if a file of `size` bytes may have them."""
    if len(prefix) < PREFIX.size:
        raise ValueError("it is too short")
    magic, version, header_length, image_length, digest = PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise ValueError("it does not begin as a kernel does")
    if version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, this program's {FORMAT_VERSION}")
    if header_length > MAX_HEADER or image_length > MAX_IMAGE:
        raise ValueError("it claims to be too large")
    expected = PREFIX.size + header_length + image_length
    if size != expected:
        raise ValueError(f"it has {size} bytes where it should have {expected}")
    return header_length, image_length, digest


def parse_header(text: bytes, key: str, image_length: int) -> dict[str, Any]:
    """The header of the kernel `key`, checked; ValueError says what is wrong with it."""
    header = json.loads(text.decode("ascii"))
    if not isinstance(header, dict) or canonical_json(header) != text:
        raise ValueError("the header is not canonical JSON")
    fields, schema, abi = (header.get(name) for name in ("fields", "schema", "abi"))
    if not (isinstance(fields, dict) and isinstance(schema, int) and isinstance(abi, int)):
        raise ValueError("the header lacks fields, schema or abi")
    # A file of another version of einsumc is sound under its own versions. This one never asks for
    # it, since its keys differ, but lists and verifies it.
    if header.get("key") != key or kernel_key(fields, schema=schema, abi=abi) != key:
        raise ValueError("the fields in the header belong to another key")
    kind = header.get("kind")
    if kind not in ("kernel", "plan") or (kind == "kernel" and not image_length):
        raise ValueError(f"the header says kind {kind!r}, with {image_length} bytes of code")
    return header
