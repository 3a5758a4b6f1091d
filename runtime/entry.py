"""Calls without Python: the native entry (`compiler/entry/`) made a method of what users call.

A compiled einsum or function begins with the general method, in Python. When a layout comes for the
second time its plan is written down as `compiler/entry/` wants it and kept with the object; from
the third time on the native method finds it there. What it does not find, or is too unusual for it,
it hands back to the method in Python, so nothing depends on it but time.

There is no native method, and everything works as before, on other interpreters than CPython with
its GIL, on other machines than Linux on x86-64, where the code is not stored and may not be
compiled, and where objects do not look as they are expected to.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.alone import alone
from ..compiler.records import dataclass
from . import threads
from .load import LoadedImage, anonymous_pages
from .target import architecture
from .work import Work

if TYPE_CHECKING:
    from .native_plans import Direct

__all__ = ["encode", "facts", "install", "new_plans"]

_PAGE = 4096
_RECENT = 8  # plans that are looked at one by one
_HOLD_NS = 20_000  # after so much work without it, the GIL is given up
_LARGEST = 1 << 26  # results and workspaces from here on are compared with the memory that is left
_FAST_KEYWORDS = 0x80 | 0x02  # METH_FASTCALL | METH_KEYWORDS
_ALIGNED = 0x100

_pointer, _int64 = ctypes.c_void_p, ctypes.c_int64


# --- plans ----------------------------------------------------------------------------------------


def new_plans() -> list[Any]:
    """What an object's native plans are kept in: those by facts, then those used last."""
    return [{}] + [None] * _RECENT


def facts(owner: type, operands: Sequence[Any], out: Any) -> bytes | None:
    """What a class's native method would find a plan for these arrays by; None if it would not."""
    native = _installed.get(owner)
    if native is None:
        return None
    words = (_int64 * _plan_format().WORDS)()
    given = (_pointer * len(operands))(*map(id, operands))
    length = native.facts(given, len(operands), None if out is None else id(out), words)
    return bytes(words)[: 8 * length] or None


def encode(known: bytes, work: Work, direct: Direct) -> bytes | None:
    """A plan in the form that the native method reads; None if it is none for it.

    Args:
        known: the call's facts.
        work: what is to be computed.
        direct: what becomes of it.
    """
    # NumPy's own dtypes, which are never freed.
    results = [(np.dtype(dtype.char), layout) for dtype, layout in direct.results]
    size = sum(
        dtype.itemsize * int(np.prod(layout[0], dtype=object)) if layout else 0
        for dtype, layout in results
    )
    steps = _steps(work)
    if max(size, work.workspace) >= _LARGEST or steps is None:
        return None
    names = _plan_format().PLAN
    written_at = _plan_format().ARGUMENTS + work.arguments.nbytes
    workspace_at = written_at + 32 * len(results)
    if work.workspace:
        workspace_at = _whole_pages(workspace_at)
    scratch_at = _whole_pages(workspace_at + work.workspace)
    template_at = 8 * len(names) + len(known)
    fills_at = template_at + work.arguments.nbytes
    steps_at = fills_at + 24 * len(work.fills)
    results_at = steps_at + 48 * len(steps)
    records: list[tuple[int, int, int, int]] = []
    shapes: list[int] = []
    for dtype, layout in results:
        shape, strides = layout or ((), ())
        place = results_at + 32 * len(results) + 8 * len(shapes)
        records.append((int(layout is not None and not shape), len(shape), id(dtype), place))
        shapes += [*shape, *strides]
    head = {
        "facts_bytes": len(known),
        "results": len(results),
        "results_at": results_at,
        "written_at": written_at,
        "several": int(direct.several),
        "arguments_bytes": work.arguments.nbytes,
        "template": template_at,
        "fills": len(work.fills),
        "fills_at": fills_at,
        "steps": len(steps),
        "steps_at": steps_at,
        "workspace_at": workspace_at,
        "scratch_at": scratch_at,
        "block_bytes": scratch_at + max(stride for _, _, _, stride, _, _ in steps),
        "shared": int(any(worth > 1 for _, _, _, _, worth, _ in steps)),
        "returned": 0 if direct.returned is None else id(direct.returned),
    }
    fills = [(8 * place, tensor, offset) for place, tensor, offset in work.fills]
    parts = (
        np.array([head[name] for name in names], np.int64).tobytes(),
        known,
        work.arguments.tobytes(),
        np.array(fills, np.int64).tobytes(),
        np.array(steps, np.int64).tobytes(),
        np.array(records, np.int64).tobytes(),
        np.array(shapes, np.int64).tobytes(),
    )
    return b"".join(parts)


def _steps(work: Work) -> list[tuple[int, int, int, int, int, int]] | None:
    """The steps in a plan's form; None if one needs the thread pool and there is none."""
    steps, held = [], 0.0
    for call in work.calls:
        worth = min(call.tiles, call.threads)
        held += call.work_ns
        long = worth > 1 or held > _HOLD_NS
        if long:
            held = 0.0
        stride = _whole_pages(call.scratch_bytes)
        steps.append((call.address, call.begin, call.tiles, stride, max(worth, 1), int(long)))
    if any(long for _, _, _, _, _, long in steps) and not _find_pool():
        return None
    return steps


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


@cache
def _plan_format() -> Any:
    """The module that says how plans look."""
    from ..compiler import entry

    return entry


# --- the method -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Native:
    """The native method of a class: what writes a call's facts down, and the image's own words."""

    facts: Callable[..., int]
    state: ctypes.Array[ctypes.c_int64]


_installed: dict[type, _Native | None] = {}
"""The classes that were asked for; None where there is no native method."""


def install(owner: type, slot: str, parameters: str) -> bool:
    """Make the native method `owner.__call__`, once a process; return whether it is.

    Args:
        owner: the class; its method `__call__` is what unusual calls are handed to.
        slot: the name of the slot (of `__slots__`) that holds an object's plans.
        parameters: those of the method as `inspect.signature` shows them, `$self, /, *operands`.
    """
    if owner not in _installed:
        with alone:
            if owner not in _installed:
                _installed[owner] = _install(owner, slot, parameters)
    return _installed[owner] is not None


def _install(owner: type, slot: str, parameters: str) -> _Native | None:
    offset = _slot_offset(owner, slot) if _is_supported() else None
    if offset is None or not _objects_are_as_expected():
        return None
    state = anonymous_pages(_PAGE)
    image = _load(state)
    if image is None:
        return None
    slow, option, count = vars(owner)["__call__"], sys.intern("out"), threads.get_num_threads
    words = (_int64 * (_PAGE // 8)).from_address(state)
    values = {"slot": offset, "slow": id(slow), "out": id(option), "threads": id(count)}
    for name, value in values.items():
        words[_plan_format().STATE.index(name)] = value
    for kept in (slow, option, count):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # not even at exit are they freed
    text = f"__call__({parameters})\n--\n\n{(slow.__doc__ or '').strip()}"
    method = _method(owner, image.entries[_plan_format().CALL], text)
    describe = ctypes.PYFUNCTYPE(_int64, _pointer, _int64, _pointer, _pointer)
    made = _Native(describe(image.entries[_plan_format().FACTS]), words)
    if not any(_installed.values()):
        threads.when_set.append(_tell_changes)
    _tell_change(made)
    setattr(owner, "__call__", method)  # noqa: B010
    return made


def _load(state: int) -> LoadedImage | None:
    from .kernels import entry_image

    try:
        return entry_image(_provided(state))
    except Exception:  # no compiler, a store that cannot be read, forbidden executable memory
        return None


def _method(owner: type, address: int, text: str) -> Any:
    """A method of this class that is the native function at this address."""
    name, doc = b"__call__\0", text.encode() + b"\0"
    memory = anonymous_pages(_whole_pages(32 + len(name) + len(doc)))  # as long as the process
    ctypes.memmove(memory + 32, name + doc, len(name) + len(doc))
    fields = (memory + 32, address, _FAST_KEYWORDS, memory + 32 + len(name))  # PyMethodDef
    ctypes.memmove(memory, (_int64 * 4)(*fields), 32)
    python = ctypes.PyDLL(None)
    python.PyDescr_NewMethod.restype = ctypes.py_object
    python.PyDescr_NewMethod.argtypes = (ctypes.py_object, _pointer)
    return python.PyDescr_NewMethod(owner, memory)


def _provided(state: int) -> dict[str, int]:
    """The addresses of what the image imports of CPython and NumPy, and of its own state."""
    python = ctypes.PyDLL(None)
    found = {"_Py_NoneStruct": id(None), "PyArray_Type": id(np.ndarray), "einsumc_state": state}
    numbers = {"PyArray_NewFromDescr": 94, "PyArray_Scalar": 60}  # stable: numpy's __init__.pxd
    table = _numpy_functions()
    for name in _plan_format().symbols() - found.keys():
        if name in numbers:
            found[name] = table[numbers[name]]
        else:
            found[name] = ctypes.cast(getattr(python, name), _pointer).value or 0
    return found


def _numpy_functions() -> Any:
    """NumPy's C API, a table of addresses; its third is the type of arrays."""
    module = import_module("numpy._core._multiarray_umath")
    python = ctypes.PyDLL(None)
    python.PyCapsule_GetPointer.restype = _pointer
    python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    address = python.PyCapsule_GetPointer(module._ARRAY_API, None)
    table = (_int64 * 128).from_address(address)
    if table[2] != id(np.ndarray):
        raise ValueError("NumPy's C API is not what it was")
    return table


def _find_pool() -> bool:
    """Tell the native code where the thread pool is; return whether there is one."""
    pool = threads.pool()
    if pool is None:
        return False
    names = _plan_format().STATE
    address = ctypes.cast(pool.call, _pointer).value  # type: ignore[arg-type]
    for native in filter(None, _installed.values()):
        native.state[names.index("pool_run")] = address or 0
        native.state[names.index("pool")] = pool.state
        native.state[names.index("processors")] = threads.processors()
    return True


def _tell_changes() -> None:
    """Make all facts written down so far those of other settings."""
    for native in filter(None, _installed.values()):
        _tell_change(native)


def _tell_change(native: _Native) -> None:
    native.state[_plan_format().STATE.index("changes")] = threads.changes


# --- what objects look like -----------------------------------------------------------------------


def _is_supported() -> bool:
    return (
        sys.implementation.name == "cpython"
        and (3, 11) <= sys.version_info < (3, 15)
        and sys.abiflags == ""  # neither free-threaded nor a debugging build
        and sys.platform == "linux"
        and architecture() == "x86_64"
    )


def _slot_offset(owner: type, slot: str) -> int | None:
    """Where an object has the pointer that a slot is; None if that is not certain."""
    offset = object.__basicsize__
    value = object()
    sample: Any = object.__new__(owner)
    setattr(sample, slot, value)
    return offset if _word(id(sample) + offset) == id(value) else None


def _objects_are_as_expected() -> bool:
    """Whether all that native code reads of objects is where it expects it."""
    samples = [
        np.ones((3, 4, 5), "f4")[::-1, :, ::2],
        np.ones((4, 2), "c16").T,
        np.ones(7, "i2")[1:],
        np.array(1.0),
        np.frombuffer(bytes(17), "f8", 2, 1),
    ]
    given = ("a", "b", "c")
    return (
        all(map(_array_is_as_expected, samples))
        and len({_word(id(array.dtype) + 24) for array in samples[:4]}) == 4
        and _list_is_as_expected([*given])
        and _word(id(given) + 16) == 3
        and _word(id(b"four") + 16) == 4
        and ctypes.string_at(id(b"four") + 32, 4) == b"four"
    )


def _array_is_as_expected(array: np.ndarray[Any, Any]) -> bool:
    address, rank = id(array), array.ndim
    extents, strides = (_word(address + offset) for offset in (32, 40))
    return (
        _word(address + 8) == id(np.ndarray)
        and _word(address + 16) == array.__array_interface__["data"][0]
        and _word(address + 24) & 0xFFFFFFFF == rank
        and tuple(_word(extents + 8 * n) for n in range(rank)) == array.shape
        and tuple(_word(strides + 8 * n) for n in range(rank)) == array.strides
        and _word(address + 56) == id(array.dtype)
        and _word(address + 64) & 0xFFFFFFFF == array.flags.num
        and bool(array.flags.num & _ALIGNED) == array.flags.aligned
        and ctypes.string_at(id(array.dtype) + 24, 3).decode()
        == array.dtype.kind + array.dtype.char + array.dtype.byteorder
        and _word(id(array.dtype) + 24) >> 32 == array.dtype.num
        and _word(id(array.dtype) + 40) == array.itemsize
    )


def _list_is_as_expected(items: list[Any]) -> bool:
    begin = _word(id(items) + 24)
    return _word(id(items) + 16) == len(items) and all(
        _word(begin + 8 * n) == id(item) for n, item in enumerate(items)
    )


def _word(address: int) -> int:
    return _int64.from_address(address).value
