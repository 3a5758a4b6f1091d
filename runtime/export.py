"""Einsums for C: a shared object, a header, and a program that tests it.

Whoever can call a C function, in C++, Rust, Fortran or Julia, can call an exported einsum. No
Python is needed, nor anything of einsumc, and no linker to make it. Threads are the caller's: steps
are cut into tiles, which may run in any order and at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..compiler.driver import Layout, driver, wanted_kernels
from ..compiler.errors import EinsumError
from ..compiler.factorize import factorize
from ..compiler.image import link
from ..compiler.pipeline import stages
from ..compiler.program import Program, from_expression
from ..compiler.records import dataclass
from ..compiler.resolve import resolve
from ..compiler.shared_object import shared_object
from ..compiler.subscripts import Expression, parse
from .export_text import Facts, header_text, test_text
from .load import LIBRARIES
from .machine import machine
from .optimize import normalize_optimize
from .signatures import Signature, parse_signature
from .step import element

__all__ = ["TYPICAL", "Exported", "export", "write"]

TYPICAL = 512
"""The extent that kernels are chosen for where nothing else is said."""

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported einsum.

    Attributes:
        name: of the function, and what the names of all others begin with.
        library: the bytes of the shared object, `lib<name>.so`.
        header: the text of `<name>.h`.
        test: the text of `<name>_test.c`.
        target: the instruction set level that it needs.
    """

    name: str
    library: bytes
    header: str
    test: str
    target: str

    @property
    def files(self) -> dict[str, bytes]:
        """What belongs into a directory, by file name."""
        return {
            f"lib{self.name}.so": self.library,
            f"{self.name}.h": self.header.encode(),
            f"{self.name}_test.c": self.test.encode(),
        }


def export(
    equation: str,
    signature: str,
    name: str = "contract",
    optimize: Any = True,
    typical: Mapping[str, int] | None = None,
) -> Exported:
    """Compile an einsum into a shared object for C, for the level that EINSUMC_TARGET names.

    Args:
        equation: as for `einsum`; its output may repeat no index.
        signature: dtypes and axes of the operands, `"f4[i,j], f4[j,k]"`, all of one dtype. An axis
            with a name has any extent when the function is called, one with a number that extent.
        name: of the function in C.
        optimize: how to choose the order of contraction.
        typical: extents to choose for, by index; any other fits as well, but may be slower.

    Raises:
        EinsumError: (a ValueError) the equation, the signature or the name cannot be exported.

    >>> sorted(export("i,i->", "f4[i], f4[i]", "dot").files)
    ['dot.h', 'dot_test.c', 'libdot.so']
    """
    if not _NAME.fullmatch(name) or name in _KEYWORDS:
        raise EinsumError("this is no name of a C function", name, (0, len(name)))
    subscripts = parse(equation)
    wanted = parse_signature(signature, subscripts)
    dtype = _dtype(wanted, signature)
    expression, fixed = _expression(equation, wanted, dict(typical or {}))
    host = machine()
    program = from_expression(expression, names=None)
    chosen = factorize(program, normalize_optimize(optimize), host, element(dtype))
    layout = _layout(program, chosen.program, expression, fixed, dtype)
    steps = wanted_kernels(chosen.program, layout, host, element(_wide(dtype)))
    text = driver(name, chosen.program, layout, steps)
    from ..compiler.build import builder

    sources = {k.symbol: stages(k.choice.schedule).source for step in steps for k in step}
    image = link(builder(host.target).combined(text, sources), split=True)
    exports = [f"{name}{part}" for part in ("", "_range", "_tiles", "_workspace", "_scratch")]
    library = shared_object(image, f"lib{name}.so", exports, LIBRARIES)
    facts = Facts(name, expression, chosen.program, layout, host.target.name)
    return Exported(name, library, header_text(facts), test_text(facts), host.target.name)


def write(exported: Exported, folder: str | os.PathLike[str]) -> list[str]:
    """Write the files of an exported einsum into a directory, which is made; return their paths."""
    os.makedirs(folder, exist_ok=True)
    paths = []
    for name, content in exported.files.items():
        paths.append(os.path.join(folder, name))
        with open(paths[-1], "wb") as file:
            file.write(content)
    return paths


_WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long main register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while
"""
_KEYWORDS = frozenset(_WORDS.split())


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What is computed in."""
    return np.dtype("f4") if dtype == np.float16 else dtype


def _dtype(signature: Signature, text: str) -> np.dtype[Any]:
    dtypes = {operand.dtype for operand in signature.operands}
    if len(dtypes) > 1:
        raise EinsumError("the operands of an exported einsum have one dtype", text, (0, len(text)))
    return dtypes.pop()


def _expression(
    equation: str, signature: Signature, typical: dict[str, int]
) -> tuple[Expression, dict[str, int]]:
    """The equation with typical extents, and the extents that are fixed."""
    names = {axis for operand in signature.operands for axis in operand.axes if axis in typical}
    if unknown := sorted(typical.keys() - names):
        raise EinsumError(f"the signature has no axis {unknown[0]!r}", str(signature), (0, 0))

    def shapes(least: int) -> list[tuple[int, ...]]:
        # At least 2: what has one element only is no loop, but it may have more when called.
        return [
            tuple(
                axis if isinstance(axis, int) else max(2, typical.get(axis, TYPICAL)) + least
                for axis in operand.axes
            )
            for operand in signature.operands
        ]

    expression, other = (resolve(parse(equation), shapes(more)) for more in (0, 1))
    for axis in (*(a for term in expression.inputs for a in term if a), *expression.output):
        if not axis.is_index:
            problem = f"the affine axis {axis} cannot be exported: what it reads depends on extents"
            raise EinsumError(problem, equation, (0, 0))
    places = [axis.names for axis in expression.output]
    if len(set(places)) < len(places):
        raise EinsumError("an exported einsum repeats no index of its output", equation, (0, 0))
    later = other.sizes
    return expression, {i: n for i, n in expression.extents if later[i] == n}


def _layout(
    program: Program,
    steps: Program,
    expression: Expression,
    fixed: Mapping[str, int],
    dtype: np.dtype[Any],
) -> Layout:
    given = (*program.inputs, program.result)
    wide = element(_wide(dtype))
    elements = {s.target.tensor: wide for s in steps.statements}
    elements |= dict.fromkeys(given, element(dtype))
    return Layout(tuple(i for i, _ in expression.extents), fixed, elements, given)
