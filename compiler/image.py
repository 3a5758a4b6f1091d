"""Object file -> code image: machine code that runs wherever it is copied to.

LLVM hands out an ELF object full of relocations, holes that a linker would fill. Nearly all of them
are distances within the code, and those are filled here, once. An `Image` is what remains: bytes to
copy to a page boundary, and a short list of 8-byte slots that depend on the process:

    text    functions, then one stub `jmp *slot(%rip)` for each imported function
    data    constants
    slots   addresses, filled in before the pages become executable

So a kernel needs no linker and no `dlopen`, and no file lies under its mapping. Only what a kernel
may contain is accepted: writable globals, thread-local variables, constructors, and functions other
than `IMPORTS` are errors that name the symbol.

Relocations: System V ABI, AMD64 supplement 1.0, section 4.4; the file format: System V gABI,
chapters 4 and 5.
"""

import struct
from typing import NamedTuple

from .records import dataclass

__all__ = ["IMPORTS", "PAGE", "Image", "ImageError", "link"]

_MEMORY = "bcmp memcmp memcpy memmove memset"
# Each also exists for float, with an f at its end.
_MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs
    fdim floor fma fmax fmin fmod frexp hypot ldexp lgamma log log10 log1p log2 logb modf nearbyint
    nextafter pow remainder rint round roundeven scalbn sin sincos sinh sqrt tan tanh tgamma trunc
"""
# 16-bit floats on CPUs without them, 128-bit integers, division of complex numbers.
_COMPILER = """
    __divdc3 __divsc3 __divti3 __extendhfsf2 __modti3 __muldc3 __mulsc3 __multi3 __powidf2 __powisf2
    __truncdfbf2 __truncdfhf2 __truncsfbf2 __truncsfhf2 __udivti3 __umodti3
"""
_THREADS = """
    clock_gettime pthread_attr_destroy pthread_attr_init pthread_attr_setdetachstate
    pthread_attr_setstacksize pthread_create pthread_sigmask syscall
"""

IMPORTS = frozenset(
    (_MEMORY + _MATH + _COMPILER + _THREADS).split() + [f"{name}f" for name in _MATH.split()]
)
"""Functions that an image may call. `runtime/load.py` has the same list and knows their libraries;
a test compares the two."""

_LINE = 64  # start of each part: functions, constants and slots share no cache line
PAGE = 4096
"""An image starts on a page, so no larger alignment can be kept."""

_TRAP, _ZERO = b"\xcc", b"\0"  # between functions, so that a wild jump stops; between data


class ImageError(ValueError):
    """An object file that cannot become an image; the message names the symbol or section."""


@dataclass(frozen=True, slots=True)
class Image:
    """Position-independent code. Equal objects give equal images.

    Attributes:
        code: the bytes to copy to a page boundary.
        entries: offset of each exported function, sorted by name.
        imports: `(offset, symbol)`: 8-byte slots that want the address of an imported function.
        rebase: offsets of 8-byte slots that hold an offset and want the address it stands for.
        data: where constants and slots begin; 0 unless they have pages of their own.
    """

    code: bytes
    entries: dict[str, int]
    imports: tuple[tuple[int, str], ...]
    rebase: tuple[int, ...]
    data: int = 0

    def header(self) -> dict[str, object]:
        """Return all but the code, for JSON: the keyword arguments of `runtime.load.load`."""
        return {
            "entries": dict(self.entries),
            "imports": [[offset, symbol] for offset, symbol in self.imports],
            "rebase": list(self.rebase),
        }


def link(data: bytes, more: frozenset[str] = frozenset(), *, split: bool = False) -> Image:
    """Turn an ELF object for x86-64, compiled with `reloc="pic"`, into an image.

    Args:
        data: the object file.
        more: symbols that it may import beside `IMPORTS`; whoever loads the image provides them.
        split: whether code has pages of its own, so that slots may be filled in while it is
            executable.

    Raises:
        ImageError: not such an object, or it needs what an image cannot have.
    """
    try:
        return _Linker(_Object(data), IMPORTS | more, split).image()
    except ImageError:
        raise
    except (struct.error, IndexError, KeyError, ValueError) as problem:
        raise ImageError(f"damaged object file: {problem}") from problem


# The object file

_EM_X86_64, _ET_REL = 62, 1
_SHT_SYMTAB, _SHT_RELA, _SHT_NOTE, _SHT_NOBITS, _SHT_UNWIND = 2, 4, 7, 8, 0x70000001
_SHT_ARRAYS = (14, 15, 16)  # constructors and destructors
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_TLS = 0x1, 0x2, 0x4, 0x400
_SHN_UNDEF, _SHN_ABS, _SHN_COMMON = 0, 0xFFF1, 0xFFF2
_STB_LOCAL, _STT_FUNC, _STT_SECTION, _STT_TLS, _STT_IFUNC = 0, 2, 3, 6, 10


class _Section(NamedTuple):
    """Elf64_Shdr, with the name looked up."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class _Symbol(NamedTuple):
    """Elf64_Sym, with the name looked up."""

    name: str
    binding: int
    kind: int
    section: int
    value: int


class _Relocation(NamedTuple):
    """Elf64_Rela, with the symbol looked up: fill the hole at `offset` of `section`."""

    section: int
    offset: int
    kind: int
    symbol: _Symbol
    addend: int


class _Object:
    """The parts of an ELF object that matter here."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ImageError("not a little-endian ELF64 object")
        kind, machine = struct.unpack_from("<HH", data, 16)
        if (kind, machine) != (_ET_REL, _EM_X86_64):
            raise ImageError(f"not a relocatable x86-64 object (type {kind}, machine {machine})")
        self._data = data
        (table,) = struct.unpack_from("<Q", data, 40)
        count, names = struct.unpack_from("<HH", data, 60)
        raw = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
        self.sections = [
            _Section(self._text(raw[names][4] + header[0]), *header[1:]) for header in raw
        ]
        self.symbols = [
            symbol
            for section in self.sections
            if section.kind == _SHT_SYMTAB
            for symbol in self._symbols(section)
        ]
        self.relocations = [
            relocation
            for section in self.sections
            if section.kind == _SHT_RELA
            for relocation in self._relocations(section)
        ]

    def contents(self, section: _Section) -> bytes:
        if section.offset + section.size > len(self._data):
            raise ImageError(f"damaged object file: section {section.name} is cut off")
        return self._data[section.offset : section.offset + section.size]

    def _text(self, offset: int) -> str:
        return self._data[offset : self._data.index(b"\0", offset)].decode()

    def _symbols(self, table: _Section) -> list[_Symbol]:
        names = self.sections[table.link].offset
        found = []
        for name, info, _, section, value, _ in struct.iter_unpack("<IBBHQQ", self.contents(table)):
            text = self._text(names + name)
            if not text and info & 15 == _STT_SECTION:
                text = self.sections[section].name
            found.append(_Symbol(text, info >> 4, info & 15, section, value))
        return found

    def _relocations(self, table: _Section) -> list[_Relocation]:
        return [
            _Relocation(table.info, offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend)
            for offset, info, addend in struct.iter_unpack("<QQq", self.contents(table))
        ]


# Linking

_R_64 = 1
_R_PC32 = (2, 4)  # PC32 and PLT32
_R_GOTPCREL = (9, 41, 42)  # plain, GOTPCRELX and REX_GOTPCRELX
_R_NAMES = {
    0: "NONE", 1: "64", 2: "PC32", 3: "GOT32", 4: "PLT32", 8: "RELATIVE", 9: "GOTPCREL", 10: "32",
    11: "32S", 17: "DTPOFF64", 18: "TPOFF64", 19: "TLSGD", 20: "TLSLD", 21: "DTPOFF32",
    22: "GOTTPOFF", 23: "TPOFF32", 24: "PC64", 25: "GOTOFF64", 26: "GOTPC32", 27: "GOT64",
    28: "GOTPCREL64", 29: "GOTPC64", 34: "GOTPC32_TLSDESC", 35: "TLSDESC_CALL", 41: "GOTPCRELX",
    42: "REX_GOTPCRELX", 43: "CODE_4_GOTPCRELX",
}  # fmt: skip


class _Linker:
    """One object on its way to an image.

    Attributes:
        allowed: names that may be imported.
        split: whether constants and slots begin on a page of their own.
        code: the image so far.
        places: offset in the image of each section that is kept, by its index.
    """

    def __init__(self, source: _Object, allowed: frozenset[str], split: bool) -> None:
        self.source = source
        self.allowed = allowed
        self.split = split
        self.code = bytearray()
        self.places: dict[int, int] = {}
        self.slots: dict[str | int, int] = {}  # of an imported symbol, or of an offset
        self.stubs: dict[str, int] = {}
        self.imports: list[tuple[int, str]] = []
        self.rebase: list[int] = []

    def image(self) -> Image:
        """Lay out, then fill the holes. All orders are the object's own, so equal in every run."""
        wanted = [r for r in self.source.relocations if self._kept(r.section)]
        for relocation in wanted:
            self._check(relocation)
        self._place(executable=True)
        self._make_stubs(wanted)
        if self.split:
            self._pad(PAGE, _TRAP)
        data = len(self.code) if self.split else 0
        self._place(executable=False)
        self._make_slots(wanted)
        for relocation in wanted:
            self._fill(relocation)
        imports, rebase = tuple(sorted(self.imports)), tuple(sorted(self.rebase))
        return Image(bytes(self.code), self._entries(), imports, rebase, data)

    def _kept(self, index: int) -> bool:
        """Whether a section belongs in the image: code and constants do."""
        section = self.source.sections[index]
        if section.kind in _SHT_ARRAYS or section.name.startswith((".ctors", ".dtors")):
            raise ImageError(f"section {section.name}: an image runs no constructors")
        if not section.flags & _SHF_ALLOC or not section.size:
            return False
        if section.kind in (_SHT_NOTE, _SHT_UNWIND) or section.name == ".eh_frame":
            return False
        # .data.rel.ro holds addresses, and is read-only once they are filled in.
        return not section.flags & _SHF_WRITE or section.name.startswith(".data.rel.ro")

    def _check(self, relocation: _Relocation) -> None:
        _, _, kind, symbol, _ = relocation
        section = self.source.sections[relocation.section]
        in_code = section.flags & _SHF_EXECINSTR
        if kind in _R_PC32 or kind in _R_GOTPCREL or (kind == _R_64 and not in_code):
            return
        name = f"R_X86_64_{_R_NAMES.get(kind, kind)}"
        raise ImageError(f"relocation {name} in {section.name} against symbol {symbol.name!r}")

    def _place(self, *, executable: bool) -> None:
        self._pad(_LINE, _ZERO)
        for index, section in enumerate(self.source.sections):
            if not self._kept(index) or bool(section.flags & _SHF_EXECINSTR) != executable:
                continue
            if section.align > PAGE or section.kind == _SHT_NOBITS:
                raise ImageError(f"section {section.name} cannot be part of an image")
            self._pad(section.align, _TRAP if executable else _ZERO)
            self.places[index] = len(self.code)
            self.code += self.source.contents(section)

    def _pad(self, align: int, filler: bytes) -> None:
        self.code += filler * (-len(self.code) % max(align, 1))

    def _make_stubs(self, relocations: list[_Relocation]) -> None:
        for relocation in relocations:
            name = relocation.symbol.name
            if self._imported(relocation) and relocation.kind in _R_PC32 and name not in self.stubs:
                self._pad(8, _TRAP)
                self.stubs[name] = len(self.code)
                self.code += b"\xff\x25\0\0\0\0"  # jmp *slot(%rip)

    def _make_slots(self, relocations: list[_Relocation]) -> None:
        self._pad(_LINE, _ZERO)
        for name, stub in self.stubs.items():
            self._write32(stub + 2, self._import_slot(name) - (stub + 6), name)
        for relocation in relocations:
            if relocation.kind in _R_GOTPCREL:
                if self._imported(relocation):
                    self._import_slot(relocation.symbol.name)
                else:
                    self._address_slot(self._target(relocation))

    def _import_slot(self, name: str) -> int:
        if name not in self.slots:
            self.slots[name] = len(self.code)
            self.imports.append((len(self.code), name))
            self.code += bytes(8)
        return self.slots[name]

    def _address_slot(self, target: int) -> int:
        if target not in self.slots:
            self.slots[target] = len(self.code)
            self.rebase.append(len(self.code))
            self.code += struct.pack("<Q", target)
        return self.slots[target]

    def _fill(self, relocation: _Relocation) -> None:
        symbol, addend = relocation.symbol, relocation.addend
        place = self.places[relocation.section] + relocation.offset
        imported = self._imported(relocation)
        if relocation.kind in _R_PC32:  # the distance to a function or a constant
            target = self.stubs[symbol.name] if imported else self._target(relocation)
            self._write32(place, target + addend - place, symbol.name)
        elif relocation.kind in _R_GOTPCREL:  # the distance to a slot that holds the address
            slot = self.slots[symbol.name if imported else self._target(relocation)]
            self._write32(place, slot + addend - place, symbol.name)
        else:
            self._fill_address(place, relocation, imported)

    def _fill_address(self, place: int, relocation: _Relocation, imported: bool) -> None:
        """An address among the constants: the place becomes a slot itself."""
        if place % 8 or (imported and relocation.addend):
            raise ImageError(f"odd address of {relocation.symbol.name!r} among the constants")
        if imported:
            self.imports.append((place, relocation.symbol.name))
        else:
            target = self._target(relocation) + relocation.addend
            self.code[place : place + 8] = struct.pack("<Q", target)
            self.rebase.append(place)

    def _write32(self, place: int, value: int, name: str) -> None:
        if not -(2**31) <= value < 2**31:
            raise ImageError(f"symbol {name!r} is more than 2 GiB away")
        self.code[place : place + 4] = struct.pack("<i", value)

    def _imported(self, relocation: _Relocation) -> bool:
        """Whether the symbol is another library's; an error when it is not allowed."""
        symbol = relocation.symbol
        if symbol.section != _SHN_UNDEF:
            return False
        if symbol.kind != _STT_TLS and symbol.name not in self.allowed:
            raise ImageError(f"{symbol.name!r} is not a function that kernels may call")
        return True

    def _target(self, relocation: _Relocation) -> int:
        """Return the offset in the image of the symbol, which must be in a section kept."""
        name, _, kind, index, value = relocation.symbol
        if index in self.places and kind not in (_STT_IFUNC, _STT_TLS):
            return self.places[index] + value
        if index == _SHN_COMMON:
            raise ImageError(f"{name!r} is a writable variable; kernels have none")
        if index == _SHN_ABS or index >= len(self.source.sections):
            raise ImageError(f"{name!r} is an absolute symbol; kernels have none")
        section = self.source.sections[index]
        if section.flags & _SHF_WRITE:
            what = "thread-local" if section.flags & _SHF_TLS else "writable"
            raise ImageError(f"{name!r} is a {what} variable; kernels have none")
        raise ImageError(f"{name!r} in section {section.name} cannot be part of an image")

    def _entries(self) -> dict[str, int]:
        return {
            symbol.name: self.places[symbol.section] + symbol.value
            for symbol in sorted(self.source.symbols)
            if symbol.binding != _STB_LOCAL
            and symbol.kind == _STT_FUNC
            and symbol.section in self.places
        }
