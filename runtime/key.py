"""What makes two kernels the same.

A kernel's key is a digest of its *fields*, everything that could change the machine code, written
as canonical JSON. Equal fields give equal keys in every process, on every machine, at any time;
nothing of the environment enters.

A key has two parts. The first 48 of its 64 hexadecimal digits, the *request*, are of all fields but
one: whoever knows what kernel it wants, and with which version of einsumc's code generator, can
compute them. The last 16 are of the versions of the packages that made machine code of it, such as
LLVM. A process without a compiler does not know those, and need not: it takes any build of its
request (`Store.find`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ..compiler.records import dataclass
from .digests import sha256

__all__ = [
    "ABI_VERSION",
    "SCHEMA_VERSION",
    "KernelFields",
    "canonical_json",
    "kernel_key",
    "request",
    "text_digest",
]

SCHEMA_VERSION = 2
"""What the fields mean. Raise it when a field is added, dropped or changes its meaning."""

ABI_VERSION = 1
"""How a kernel is called. Raise it when its arguments or what it may rely on change."""

KEY_DIGITS, REQUEST_DIGITS = 64, 48
"""Hexadecimal digits of a key, and of its first part."""

_BUILDER = "llvm"  # the field that the last digits are of

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_MAX_DEPTH = 64


def canonical_json(value: object) -> bytes:
    r"""Return the one way to write `value` as JSON: ASCII, keys sorted, no spaces.

    Strings, whole numbers of 64 bits, True, False, None, lists, and dictionaries with string keys
    are allowed; nothing else is, not even a subclass (so no NumPy scalar slips in). Floats are
    refused because their text is a matter of taste, tuples because they would come back as lists.

    >>> canonical_json({"b": [1, None], "a": "é"})
    b'{"a":"\\u00e9","b":[1,null]}'

    Raises:
        TypeError: a value of another type.
        ValueError: a number too large, or lists and dictionaries nested too deeply.
    """
    _check(value, _MAX_DEPTH)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return
    if isinstance(value, int) and kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError("canonical JSON holds whole numbers of at most 64 bits")
    elif depth == 0:
        raise ValueError(f"canonical JSON may be nested {_MAX_DEPTH} deep at most")
    elif isinstance(value, list) and kind is list:
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, dict) and kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"canonical JSON has string keys, not {name!r}")
            _check(item, depth - 1)
    else:
        raise TypeError(f"canonical JSON cannot hold {value!r} of type {kind.__name__}")


def kernel_key(
    fields: Mapping[str, object], *, schema: int = SCHEMA_VERSION, abi: int = ABI_VERSION
) -> str:
    """Return the key of whatever these fields identify: 64 hexadecimal digits.

    Plans have keys of the same kind; a field `"kind": "plan"` sets them apart from kernels, which
    have `"kind": "kernel"` (see `KernelFields.fields`).

    Args:
        fields: what `canonical_json` accepts.
        schema: the version of the fields; another than the present one only to check an old file.
        abi: the version of the calling convention; likewise.
    """
    rest = dict(fields)
    builder = canonical_json(rest.pop(_BUILDER, None))
    text = canonical_json({"abi": abi, "fields": rest, "schema": schema})
    first, last = (sha256(part).hexdigest() for part in (text, builder))
    return str(first[:REQUEST_DIGITS] + last[: KEY_DIGITS - REQUEST_DIGITS])


def request(key: str) -> str:
    """Return the part of a key that says what is wanted, whoever built it."""
    return key[:REQUEST_DIGITS]


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, such as a printed loop nest, in hexadecimal."""
    return str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


@dataclass(frozen=True)
class KernelFields:
    """Everything that could change a kernel's machine code.

    Attributes:
        text: `text_digest` of the canonical equation and loop nest.
        dtypes: of the operands and the result, in order, as in `"float32"`.
        layout: the layout class the kernel was made for.
        options: every option of the compiler, by name.
        generator: version of the code generator.
        llvm: versions of LLVM and of whatever else turned source into machine code.
        target: CPU or level, as in `"x86-64-v3"`.
        features: instruction set features the code may use; order and repetition do not matter.
        abi: how the kernel is called.
    """

    text: str
    dtypes: tuple[str, ...]
    layout: str
    options: Mapping[str, str | int | bool | None]
    generator: str
    llvm: str
    target: str
    features: Collection[str]
    abi: int = ABI_VERSION

    def fields(self) -> dict[str, Any]:
        """Return the fields as the JSON object that a kernel's header holds."""
        return {
            "kind": "kernel",
            "text": self.text,
            "dtypes": list(self.dtypes),
            "layout": self.layout,
            "options": dict(self.options),
            "generator": self.generator,
            "llvm": self.llvm,
            "target": self.target,
            "features": sorted(set(self.features)),
            "abi": self.abi,
        }

    def key(self) -> str:
        """Return the key: `kernel_key` of `fields`.

        >>> fields = KernelFields("ij,jk->ik", ("float32",) * 3, "rowmajor", {"unroll": 4},
        ...                       "1", "20.1", "x86-64-v3", ["avx2", "fma"])
        >>> len(fields.key())
        64
        """
        return kernel_key(self.fields())
