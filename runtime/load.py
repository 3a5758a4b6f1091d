"""Machine code -> functions: an image of `compiler/image.py` becomes executable memory.

The bytes are copied to fresh pages, their slots are filled in, and the pages change from writable
to executable, never both at once. No file is mapped, so none can change under running code. Nothing
is ever unmapped: a thread of the pool may be inside an image until the process ends.

With EINSUMC_PERF_MAP=1 the functions are listed in /tmp/perf-<pid>.map, where `perf` looks up the
names of code that came from no file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache

from ..compiler.records import dataclass
from .target import architecture

__all__ = ["LIBRARIES", "LoadError", "LoadedImage", "anonymous_pages", "load", "wipe_on_fork"]

_PROCESS = """
    bcmp memcmp memcpy memmove memset
    clock_gettime pthread_attr_destroy pthread_attr_init pthread_attr_setdetachstate
    pthread_attr_setstacksize pthread_create pthread_sigmask syscall
"""
# Each also exists for float, with an f at its end.
_MATH = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs
    fdim floor fma fmax fmin fmod frexp hypot ldexp lgamma log log10 log1p log2 logb modf nearbyint
    nextafter pow remainder rint round roundeven scalbn sin sincos sinh sqrt tan tanh tgamma trunc
"""
_COMPILER = """
    __divdc3 __divsc3 __divti3 __extendhfsf2 __modti3 __muldc3 __mulsc3 __multi3 __powidf2 __powisf2
    __truncdfbf2 __truncdfhf2 __truncsfbf2 __truncsfhf2 __udivti3 __umodti3
"""

LIBRARIES: dict[str, str] = {
    **dict.fromkeys(_PROCESS.split(), ""),
    **dict.fromkeys(_MATH.split(), "libm.so.6"),
    **dict.fromkeys([f"{name}f" for name in _MATH.split()], "libm.so.6"),
    **dict.fromkeys(_COMPILER.split(), "libgcc_s.so.1"),
}
"""Every function an image may import, and its library; "" is what the process itself is linked to.

The library is named because names clash: a process that also holds another vendor's libm must not
get other bits from it."""

_MADV_WIPEONFORK = 18  # Linux 4.14
_MAP_FAILED = ctypes.c_void_p(-1).value


class LoadError(RuntimeError):
    """An image that cannot be made executable here; the message says why."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """Code in memory, for as long as the process lives.

    Attributes:
        address: of the first byte.
        size: in bytes.
        entries: the address of each function, by name.
    """

    address: int
    size: int
    entries: dict[str, int]


def load(
    code: bytes,
    imports: Iterable[Sequence[object]] = (),
    rebase: Iterable[int] = (),
    entries: Mapping[str, int] | None = None,
    *,
    label: str = "einsumc",
    provided: Mapping[str, int] | None = None,
) -> LoadedImage:
    """Make an image executable.

    Args:
        code: the image.
        imports: `(offset, symbol)` of each slot that wants an imported function's address.
        rebase: offsets of the slots that hold an offset and want an address.
        entries: offset of each function, by name.
        label: what profilers show before the functions' names.
        provided: addresses of symbols that this image may import beside `LIBRARIES`.

    The arguments after the code may come straight from a file's header: whatever they hold, nothing
    outside the image is written.

    Raises:
        LoadError: another architecture, an offset outside the image, a symbol that images may not
            or cannot import, or a system that forbids new executable memory.
    """
    if architecture() != "x86_64":
        raise LoadError(f"compiled kernels hold x86-64 code; this process is {architecture()}")
    size = len(code)
    offsets = {name: _checked(offset, size - 1) for name, offset in (entries or {}).items()}
    slots = [_import(entry, size - 8, provided or {}) for entry in imports]
    base = anonymous_pages(size)
    try:
        for offset in rebase:
            _checked(offset, size - 8)
            target = int.from_bytes(code[offset : offset + 8], "little")
            slots.append((offset, base + _checked(target, size)))
        ctypes.memmove(base, code, size)
        for offset, address in slots:
            ctypes.c_uint64.from_address(base + offset).value = address
        if _libc().mprotect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
            raise LoadError(
                f"the system forbids new executable memory: {os.strerror(ctypes.get_errno())} "
                "(SELinux's execmem and systemd's MemoryDenyWriteExecute do this)"
            )
    except BaseException:
        _libc().munmap(base, size)
        raise
    loaded = LoadedImage(base, size, {name: base + offset for name, offset in offsets.items()})
    if os.environ.get("EINSUMC_PERF_MAP") == "1":
        _write_perf_map(loaded, label)
    return loaded


def anonymous_pages(size: int) -> int:
    """Return the address of fresh zeroed pages, private to the process and never unmapped.

    Raises:
        LoadError: no memory, or `size` is not positive.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address is None or address == _MAP_FAILED:
        raise LoadError(f"no memory for {size} bytes: {os.strerror(ctypes.get_errno())}")
    return int(address)


def wipe_on_fork(address: int, size: int) -> bool:
    """Have the system hand zeroed pages to forked children; return whether it will."""
    return int(_libc().madvise(address, size, _MADV_WIPEONFORK)) == 0


def _checked(offset: object, limit: int) -> int:
    if type(offset) is not int or not 0 <= offset <= limit:
        raise LoadError(f"damaged kernel: offset {offset!r} is outside its code")
    return offset


def _import(entry: Sequence[object], limit: int, provided: Mapping[str, int]) -> tuple[int, int]:
    """Return the slot's offset and the address it wants."""
    match entry:
        case (offset, str(symbol)) if symbol in provided:
            return _checked(offset, limit), provided[symbol]
        case (offset, str(symbol)) if symbol in LIBRARIES:
            return _checked(offset, limit), _resolve(symbol)
        case (_, symbol):
            raise LoadError(f"{symbol!r} is not a function that kernels may call")
    raise LoadError(f"damaged kernel: {entry!r} is not an import")


@cache
def _resolve(symbol: str) -> int:
    """Return the address of a function in `LIBRARIES`."""
    library = LIBRARIES[symbol]
    # A C library other than glibc has all of it in one.
    for name in (library, ""):
        if (found := _library(name)) is not None and hasattr(found, symbol):
            return int(ctypes.cast(getattr(found, symbol), ctypes.c_void_p).value or 0)
    raise LoadError(f"{symbol!r} is in neither {library or 'the C library'} nor the process")


@cache
def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name or None)
    except OSError:
        return None


@cache
def _libc() -> ctypes.CDLL:
    # A CDLL of its own: argument types set on a shared one would be seen by everybody.
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.mmap.restype = pointer
    libc.munmap.argtypes = (pointer, size)
    libc.mprotect.argtypes = (pointer, size, number)
    libc.madvise.argtypes = (pointer, size, number)
    return libc


def _write_perf_map(loaded: LoadedImage, label: str) -> None:
    """Append the functions to the list that `perf` reads; see perf's jit-interface.txt."""
    starts = sorted((address, name) for name, address in loaded.entries.items())
    ends = [address for address, _ in starts[1:]] + [loaded.address + loaded.size]
    lines = "".join(
        f"{start:x} {end - start:x} {label}:{name}\n"
        for (start, name), end in zip(starts, ends, strict=True)
    )
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        file = os.open(f"/tmp/perf-{os.getpid()}.map", flags, 0o600)
        try:
            os.write(file, lines.encode("utf-8", "replace"))
        finally:
            os.close(file)
