"""Calls of compiled functions in manifests: how one is written down, and read back.

    [[kernel]]
    function = "package.module:name"
    signatures = ["f4[n,i], f4[n,j]"]
    arguments = {axis = 1, scale = 0.5}
    layouts = ["C, F+"]

The operands are the function's first arguments but for those that are named in `arguments`. A
function of `einsumc.gradnorms` has a line of its own (`gradnorms/entries.py`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from inspect import BoundArguments, Parameter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import EinsumError
from ..compiler.trace import Place
from .layouts import layout_of, usual
from .signatures import DTYPES, OperandSignature, Signature
from .uses import FunctionUse, GradnormsUse, NotWritable, arguments_as_toml

if TYPE_CHECKING:
    from ..compiler.program import Program
    from .operands import Array
    from .traced import CompiledFunction

__all__ = ["arranged", "function_name", "use_of_function"]

_KNOWN = {*DTYPES.values()}


def use_of_function(
    function: CompiledFunction, bound: BoundArguments, leaves: Sequence[Any], program: Program
) -> FunctionUse | GradnormsUse:
    """What a call of a compiled function uses.

    Args:
        function: that is called.
        bound: its arguments, with places for the leaves.
        leaves: the operands as they were given, and numbers.
        program: what was made of it.

    Raises:
        NotWritable: a manifest cannot say it.
    """
    operands, named = _sorted_out(bound, leaves)
    try:
        again = arranged(bound.signature, operands, named)
        arguments = arguments_as_toml(named)
    except (EinsumError, TypeError) as problem:
        raise NotWritable(str(problem)) from None
    if _places(again.arguments, ()) != _places(bound.arguments, leaves):
        raise NotWritable("its operands are not its first arguments")
    dtypes = [operand.dtype.newbyteorder("=") for operand in operands]
    for dtype in dtypes:
        if dtype not in _KNOWN:
            raise NotWritable(f"no kernels are compiled for operands of {dtype}")
    axes = _axes(program, operands)
    wanted = Signature(tuple(map(OperandSignature, dtypes, axes)))
    if function.written is not None:
        return GradnormsUse(function.written(wanted))
    words = [layout_of(operand) for operand in operands]
    listed = "" if usual(words) else ", ".join(words)
    return FunctionUse(function_name(function), str(wanted), listed, arguments)


def _filled(arguments: tuple[Any, ...], leaves: Sequence[Any]) -> list[Any]:
    return [leaves[each.number] if isinstance(each, Place) else each for each in arguments]


def _places(arguments: Mapping[str, Any], leaves: Sequence[Any]) -> list[tuple[str, int]]:
    """Which argument every operand is."""
    return [
        (name, id(each))
        for name, value in arguments.items()
        for each in _filled(value if isinstance(value, tuple) else (value,), leaves)
        if isinstance(each, np.ndarray)
    ]


def _has_operands(value: Any) -> bool:
    """Whether it is a collection with operands among its items."""
    if isinstance(value, dict):
        return _has_operands(tuple(value.values()))
    return isinstance(value, list | tuple) and any(
        isinstance(each, Place) or _has_operands(each) for each in value
    )


def _sorted_out(bound: BoundArguments, leaves: Sequence[Any]) -> tuple[list[Array], dict[str, Any]]:
    """The operands, and by name all other arguments that are not what they are by default."""
    operands: list[Array] = []
    named: dict[str, Any] = {}
    for name, parameter in bound.signature.parameters.items():
        value = bound.arguments[name]
        if parameter.kind is Parameter.VAR_KEYWORD and value:
            raise NotWritable(f"it has further arguments by name, {', '.join(value)}")
        several = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        given = _filled(tuple(value) if several else (value,), leaves)
        if all(isinstance(each, np.ndarray) for each in given):
            operands += given
        elif several or _has_operands(value):
            raise NotWritable(f"its argument {name!r} is no array of its own")
        elif type(given[0]) is not type(parameter.default) or given[0] != parameter.default:
            named[name] = given[0]
    return operands, named


def arranged(
    function: inspect.Signature, operands: Sequence[Array], named: Mapping[str, Any]
) -> BoundArguments:
    """The arguments of a call with these operands, and further arguments by name.

    Raises:
        EinsumError: (a ValueError) the function does not take them.

    >>> def scaled(a, factor, b): ...
    >>> arranged(inspect.signature(scaled), ["A", "B"], {"factor": 2.0}).args
    ('A', 2.0, 'B')
    """
    bound, left = function.bind_partial(), list(operands)
    for name, parameter in function.parameters.items():
        if name in named:
            bound.arguments[name] = named[name]
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            bound.arguments[name], left = tuple(left), []
        elif parameter.kind is not Parameter.VAR_KEYWORD and left:
            bound.arguments[name] = left.pop(0)
        elif parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD:
            raise EinsumError(f"there are too few operands: {name!r} gets none")
    unknown = sorted(named.keys() - function.parameters.keys())
    if unknown:
        raise EinsumError(f"the function has no argument {unknown[0]!r}")
    if left:
        raise EinsumError(f"there are {len(operands)} operands, {len(left)} too many")
    bound.apply_defaults()
    return bound


def function_name(function: CompiledFunction) -> str:
    """What a manifest calls a function: `module:name`.

    Raises:
        NotWritable: it would not be found by that.
    """
    module, path = function.__module__, str(vars(function)["__qualname__"])
    if module == "__main__":
        raise NotWritable(f"{path} is in the script that is run; put it into a module")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not function and found is not vars(function)["__wrapped__"]:
        raise NotWritable(
            f"{path} is not found by that name in {module}, as a function inside of another is not"
        )
    return f"{module}:{path}"


def _axes(program: Program, operands: Sequence[Array]) -> list[tuple[str | int, ...]]:
    """The axes of signatures: those that must be as long as each other have one name."""
    parents: dict[tuple[str, int], tuple[str, int]] = {}

    def root(axis: tuple[str, int]) -> tuple[str, int]:
        while axis in parents:
            axis = parents[axis]
        return axis

    for statement in program.statements:
        first: dict[str, tuple[str, int]] = {}
        for access in (statement.target, *statement.accesses):
            for number, subscript in enumerate(access.subscripts):
                if subscript.is_index:
                    axis = root((access.tensor, number))
                    known = root(first.setdefault(subscript.names[0], axis))
                    if known != axis:
                        parents[axis] = known
    names: dict[tuple[str, int], str] = {}
    found: list[tuple[str | int, ...]] = []
    for tensor, operand in zip(program.inputs, operands, strict=False):
        axes: list[str | int] = []
        for number, extent in enumerate(operand.shape):
            name = names.setdefault(root((tensor, number)), _letter(len(names)))
            axes.append(1 if extent == 1 else name)
        found.append(tuple(axes))
    return found


def _letter(number: int) -> str:
    return "ijklmnopqrstuvwxyzabcdefgh"[number] if number < 26 else f"i{number}"
