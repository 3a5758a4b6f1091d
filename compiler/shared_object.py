"""Image -> shared object: a file that `dlopen` and linkers take, written without a linker.

An image (:mod:`.image`) runs wherever it is copied to. To be a shared object it needs but a frame
around it that says so, in three pieces that are mapped one after the other:

    tables    headers, names of what is exported and imported, relocations    read
    code      the image's functions                                           read, executed
    data      the image's constants and slots, and the dynamic section        filled in, then read

The loader writes addresses into the slots and then makes them read-only (RELRO); code is never
written. Layout in memory and in the file are the same. System V gABI, chapters 4 and 5; AMD64
supplement, section 4.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from .image import PAGE, Image
from .records import dataclass

__all__ = ["shared_object"]

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
_EXECUTE, _WRITE, _READ = 1, 2, 4
_PROGBITS, _STRTAB, _RELA, _HASH, _DYNAMIC, _DYNSYM = 1, 3, 4, 5, 6, 11
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECUTE = 1, 2, 4
_R_GLOB_DAT, _R_RELATIVE = 6, 8
_GLOBAL_FUNCTION = 0x12
_HEADER, _SEGMENT, _SECTION, _SYMBOL, _ENTRY = 64, 56, 64, 24, 16  # bytes of each
_NEEDED, _SONAME, _END = 1, 14, 0


def shared_object(
    image: Image, name: str, exports: Iterable[str], libraries: Mapping[str, str]
) -> bytes:
    """Write an image as an ELF shared object for x86-64. Equal images give equal files.

    Args:
        image: linked with `split=True`.
        name: what programs that are linked to it will look for, as in "libproduct.so".
        exports: which of the image's functions others may call.
        libraries: for every function that the image imports, the library that has it; "" for the C
            library.

    Raises:
        ValueError: the image is not split, or one of the functions is not there.
    """
    if not image.data or image.data % PAGE:
        raise ValueError("a shared object is made from an image that is split")
    return _Writer(image, name, tuple(exports), libraries).file()


@dataclass
class _Part:
    """A section: where it is and what it holds."""

    name: str
    kind: int
    flags: int
    data: bytes
    align: int = 8
    link: str = ""
    info: int = 0
    entry: int = 0
    address: int = 0


class _Names:
    """A table of names, each ended by a zero byte."""

    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, name: str) -> int:
        place = len(self.data)
        self.data += name.encode() + b"\0"
        return place


class _Writer:
    def __init__(
        self, image: Image, name: str, exports: tuple[str, ...], libraries: Mapping[str, str]
    ) -> None:
        self.image, self.exports = image, exports
        self.imports = tuple(dict.fromkeys(symbol for _, symbol in image.imports))
        if unknown := [s for s in self.imports if s not in libraries]:
            raise ValueError(f"no library is known that has {unknown[0]!r}")
        if absent := [s for s in exports if s not in image.entries]:
            raise ValueError(f"the image has no function {absent[0]!r}")
        self.names = _Names()
        needed = dict.fromkeys(libraries[symbol] or "libc.so.6" for symbol in self.imports)
        self.needed = [self.names.add(library) for library in needed]
        self.soname = self.names.add(name)
        self.symbol_names = [self.names.add(symbol) for symbol in (*self.imports, *exports)]

    def file(self) -> bytes:
        """Lay out twice: sizes do not depend on addresses, so the second time all is known."""
        parts = self._parts({})
        segments = self._place(parts)
        places = {part.name: part.address for part in parts}
        sizes = {f"{part.name} size": len(part.data) for part in parts}
        parts = self._parts(places | sizes)
        assert self._place(parts) == segments
        return self._write(parts, segments)

    def _parts(self, at: Mapping[str, int]) -> list[_Part]:
        """The sections, in the order of the file; `at` are the addresses and sizes of all."""
        code = self.image.code
        symbols = (*self.imports, *self.exports)
        alloc, write = _SHF_ALLOC, _SHF_ALLOC | _SHF_WRITE
        return [
            _Part(".hash", _HASH, alloc, _hash_table(symbols), link=".dynsym", entry=4),
            _Part(
                ".dynsym", _DYNSYM, alloc, self._symbols(at), link=".dynstr", info=1, entry=_SYMBOL
            ),
            _Part(".dynstr", _STRTAB, alloc, self.names.data, 1),
            _Part(".rela.dyn", _RELA, alloc, self._relocations(at), link=".dynsym", entry=_SYMBOL),
            _Part(".text", _PROGBITS, alloc | _SHF_EXECUTE, code[: self.image.data], PAGE),
            _Part(".data.rel.ro", _PROGBITS, write, self._data(at), PAGE),
            _Part(".dynamic", _DYNAMIC, write, self._dynamic(at), link=".dynstr", entry=_ENTRY),
        ]

    def _address(self, at: Mapping[str, int], offset: int) -> int:
        """The address of an offset in the image."""
        if offset < self.image.data:
            return at.get(".text", 0) + offset
        return at.get(".data.rel.ro", 0) + offset - self.image.data

    def _symbols(self, at: Mapping[str, int]) -> bytes:
        rows = [bytes(_SYMBOL)]
        for number, symbol in enumerate((*self.imports, *self.exports)):
            exported = number >= len(self.imports)
            address = self._address(at, self.image.entries[symbol]) if exported else 0
            section = _TEXT if exported else 0
            row = (self.symbol_names[number], _GLOBAL_FUNCTION, 0, section, address, 0)
            rows.append(struct.pack("<IBBHQQ", *row))
        return b"".join(rows)

    def _relocations(self, at: Mapping[str, int]) -> bytes:
        """What the loader fills in: addresses within the image first, then those of imports."""
        rows = []
        for offset in self.image.rebase:
            (target,) = struct.unpack_from("<Q", self.image.code, offset)
            rows.append((self._address(at, offset), _R_RELATIVE, self._address(at, target)))
        for offset, symbol in self.image.imports:
            number = self.imports.index(symbol) + 1
            rows.append((self._address(at, offset), number << 32 | _R_GLOB_DAT, 0))
        return b"".join(struct.pack("<QQq", *row) for row in rows)

    def _data(self, at: Mapping[str, int]) -> bytes:
        """Constants and slots; slots hold the address without the base, as relocations say."""
        data = bytearray(self.image.code[self.image.data :])
        for offset in self.image.rebase:
            place = offset - self.image.data
            (target,) = struct.unpack_from("<Q", data, place)
            struct.pack_into("<Q", data, place, self._address(at, target))
        return bytes(data)

    def _dynamic(self, at: Mapping[str, int]) -> bytes:
        entries = [
            *((_NEEDED, library) for library in self.needed),
            (_SONAME, self.soname),
            (4, at.get(".hash", 0)),
            (5, at.get(".dynstr", 0)),
            (6, at.get(".dynsym", 0)),
            (10, len(self.names.data)),
            (11, _SYMBOL),
            (7, at.get(".rela.dyn", 0)),
            (8, at.get(".rela.dyn size", 0)),
            (9, _SYMBOL),
            (0x6FFFFFF9, len(self.image.rebase)),  # so many of them are relative
            (30, 8),  # bind now: there is nothing to bind later
            (_END, 0),
        ]
        return b"".join(struct.pack("<QQ", *entry) for entry in entries)

    def _place(self, parts: Sequence[_Part]) -> list[tuple[int, int, int, int]]:
        """Give every section its address; return flags, begin, end of the segments' memory."""
        place = _HEADER + _SEGMENT * _SEGMENTS
        first: dict[int, int] = {_READ: 0}
        last: dict[int, int] = {}
        for part in parts:
            flags = _READ
            flags |= _EXECUTE if part.flags & _SHF_EXECUTE else 0
            flags |= _WRITE if part.flags & _SHF_WRITE else 0
            place = -(-place // part.align) * part.align
            part.address = place
            first.setdefault(flags, place)
            place += len(part.data)
            last[flags] = place
        return [(flags, begin, last[flags], PAGE) for flags, begin in first.items()]

    def _write(
        self, parts: Sequence[_Part], segments: Sequence[tuple[int, int, int, int]]
    ) -> bytes:
        dynamic = parts[-1]
        _, begin, end, _ = segments[-1]
        whole_pages = -(-end // PAGE) * PAGE - begin
        heads = [_segment(_PT_LOAD, flags, b, e - b, e - b, a) for flags, b, e, a in segments]
        # What the loader protects ends with a page: the last segment reaches so far in memory.
        heads[-1] = _segment(_PT_LOAD, _READ | _WRITE, begin, end - begin, whole_pages, PAGE)
        size = len(dynamic.data)
        heads += [
            _segment(_PT_DYNAMIC, _READ | _WRITE, dynamic.address, size, size, 8),
            _segment(_PT_GNU_RELRO, _READ, begin, end - begin, whole_pages, 1),
            _segment(_PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 16),
        ]
        names = _Names()
        shown = [names.add(part.name) for part in parts]
        own = names.add(".shstrtab")
        table = -(-(end + len(names.data)) // 8) * 8
        header = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, _HEADER, table, 0),
            *(_HEADER, _SEGMENT, len(heads), _SECTION, len(parts) + 2, len(parts) + 1),
        )
        numbers = {part.name: number for number, part in enumerate(parts, 1)}
        rows = [bytes(_SECTION)]
        for name, part in zip(shown, parts, strict=True):
            where = (part.address, part.address, len(part.data), numbers.get(part.link, 0))
            row = (name, part.kind, part.flags, *where, part.info, part.align, part.entry)
            rows.append(struct.pack("<IIQQQQIIQQ", *row))
        strings = (own, _STRTAB, 0, 0, end, len(names.data), 0, 0, 1, 0)
        rows.append(struct.pack("<IIQQQQIIQQ", *strings))
        blob = bytearray(header + b"".join(heads))
        for part in parts:
            blob += bytes(part.address - len(blob)) + part.data
        blob += names.data
        blob += bytes(table - len(blob)) + b"".join(rows)
        return bytes(blob)


_SEGMENTS = 6
_TEXT = 5  # the number of the section .text


def _segment(kind: int, flags: int, place: int, size: int, memory: int, align: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, place, place, place, size, memory, align)


def _hash_table(symbols: Sequence[str]) -> bytes:
    """The hash table of the dynamic symbols: gABI, chapter 5, "Hash Table"."""
    buckets = [0] * max(1, len(symbols))
    chains = [0] * (len(symbols) + 1)
    for number, symbol in enumerate(symbols, 1):
        place = _hash(symbol) % len(buckets)
        chains[number], buckets[place] = buckets[place], number
    words = (len(buckets), len(chains), *buckets, *chains)
    return struct.pack(f"<{len(words)}I", *words)


def _hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value
