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

from ..compiler.affine import axis_index
from ..compiler.driver import Layout, driver, steps_of, wanted_kernels
from ..compiler.driver.sizes import Size, evaluate
from ..compiler.errors import EinsumError
from ..compiler.factorize import factorize
from ..compiler.image import link
from ..compiler.pipeline import stages
from ..compiler.program import Program, from_expression
from ..compiler.records import dataclass
from ..compiler.resolve import resolve
from ..compiler.shared_object import shared_object
from ..compiler.subscripts import Expression, Subscripts, parse
from ..compiler.windows import given_sizes
from .export_text import Facts, header_text, test_text
from .load import LIBRARIES
from .machine import machine
from .optimize import normalize_optimize
from .signatures import Signature, parse_signature
from .step import element

__all__ = ["TYPICAL", "Exported", "export", "write"]

TYPICAL = 512
"""The extent that kernels are chosen for where nothing else is said."""

WINDOW = 3
"""The same for an index that is read as a part of a sum, such as the taps of a convolution."""

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
        equation: as for `einsum`; its output may repeat no index. Where an axis is a sum of
            indices, its extent and theirs are given when the function is called, so any number of
            windows may be asked for; what is read outside is zero.
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
    if _FUNCTION.fullmatch(equation):
        problem = "a compiled function cannot be exported: name its equations one by one"
        raise EinsumError(problem, equation, (0, len(equation)))
    subscripts = parse(equation)
    wanted = parse_signature(signature, subscripts)
    dtype = _dtype(wanted, signature)
    expression = _expression(equation, subscripts, wanted, dict(typical or {}))
    host = machine()
    program = from_expression(expression, names=None)
    chosen = factorize(program, normalize_optimize(optimize), host, element(dtype))
    layout = _layout(program, chosen.program, expression, wanted, dtype)
    steps = wanted_kernels(layout, host, element(_wide(dtype)))
    text = driver(name, layout, steps)
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


_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")

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
    equation: str, subscripts: Subscripts, signature: Signature, typical: dict[str, int]
) -> Expression:
    """The equation with typical extents."""
    terms = [term for term in (*subscripts.inputs, subscripts.output) if term]
    affine = {axis.index for t in terms for axis in t.axes if not axis.index.is_index}
    windows = {name for axis in affine if len(axis.names) > 1 for name in axis.names}
    names = {axis for operand in signature.operands for axis in operand.axes}
    if unknown := sorted(typical.keys() - names.union(*(axis.names for axis in affine))):
        raise EinsumError(f"the signature has no axis {unknown[0]!r}", str(signature), (0, 0))

    def extent(axis: str | int) -> int:
        if isinstance(axis, int):
            return axis
        # At least 2: what has one element only is no loop, but it may have more when called.
        return max(2, typical.get(axis, WINDOW if axis in windows else TYPICAL))

    shapes = [tuple(map(extent, operand.axes)) for operand in signature.operands]
    if any(0 in shape for shape in shapes):
        raise EinsumError("an exported einsum has no axes of extent 0", str(signature), (0, 0))
    given = {name: typical[name] for name in typical if name not in names}
    axes = [axis.index for term in subscripts.inputs for axis in term.axes]
    known = {*given, *(axis.names[0] for axis in axes if axis.is_index)}
    for axis in axes:
        # Of indices that nothing says the extent of, one follows from that of the axis.
        unknown = [name for name in axis.names if name not in known]
        longest = max(unknown, key=lambda name: (abs(dict(axis.terms)[name]), name), default="")
        given |= {name: WINDOW for name in unknown if name != longest}
        known |= {*unknown}
    expression = resolve(subscripts, shapes, given_sizes(given))
    places = [axis for axis in expression.output if axis.is_index]
    if len(set(places)) < len(places):
        raise EinsumError("an exported einsum repeats no index of its output", equation, (0, 0))
    return expression


def _layout(
    program: Program, chosen: Program, expression: Expression, signature: Signature, dtype: Any
) -> Layout:
    """What is known of the tensors before the call."""
    given = (*program.inputs, program.result)
    indices = dict.fromkeys(index for index, _ in expression.extents)
    fixed: dict[str, int] = {}
    shapes: dict[str, tuple[Size, ...]] = {}
    typical = chosen.sizes
    axes = [*expression.inputs, expression.output]
    listed = [*(operand.axes for operand in signature.operands), ("",) * len(expression.output)]
    for tensor, terms, written in zip(given, axes, listed, strict=True):
        shape: list[Size] = []
        for number, (axis, extent) in enumerate(zip(terms, written, strict=True)):
            if axis is None:
                shape.append(1)
                continue
            name = axis.names[0] if axis.is_index else axis_index(tensor, number)
            indices[name] = None
            shape.append(name)
            typical.setdefault(name, program.shapes[tensor][number])
            if isinstance(extent, int):
                fixed[name] = extent
        shapes[tensor] = tuple(shape)
    # Where a step leaves an affine axis whole, an index of its own stands for it.
    whole: dict[str, Size] = {}
    for statement in chosen.statements:
        for factor in statement.factors:
            for axis, size in zip(factor.subscripts, shapes.get(factor.tensor, ()), strict=False):
                if axis.is_index and axis.names[0] not in indices:
                    whole[axis.names[0]] = size
        shapes.setdefault(statement.target.tensor, statement.target.names)
    steps = steps_of(chosen, {tensor: shapes[tensor] for tensor in given}, whole)
    for index, size in steps.sizes.items():
        typical[index] = evaluate(size, typical)
    typical = {name: fixed.get(name, max(2, extent)) for name, extent in typical.items()}
    wide = element(_wide(dtype))
    elements = dict.fromkeys(steps.shapes, wide) | dict.fromkeys(given, element(dtype))
    for view in steps.views.values():  # copies are of the same type
        if view.inside:
            elements[view.tensor] = elements[view.inside]
    return Layout(tuple(indices), fixed, elements, given, steps, typical)
