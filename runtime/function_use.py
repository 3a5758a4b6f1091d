"""Calls of compiled functions in manifests: how one is written down, and read back.

    [[kernel]]
    function = "package.module:name"
    signatures = ["f4[n,i], {w: f4[i,j], b: None}"]
    arguments = {axis = 1, scale = 0.5}
    layouts = ["C, F+"]

A signature has what the function is called with (`signatures.py`): arguments by their place, which
go to those of its parameters that have no name in `arguments`, then arguments by name. Of the
arguments without operands, those that are what they are by default are left out, and those that
TOML has words for are in `arguments`.

A function of `einsumc.gradnorms` has a line of its own (`gradnorms/entries.py`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from inspect import BoundArguments, Parameter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.errors import EinsumError
from ..compiler.trace import Place, told_apart
from .arguments import Collection, Node, static_of
from .layouts import layout_of, usual
from .signature import DTYPES, Argument, OperandSignature, Signature
from .signatures import parse_signature
from .uses import FunctionUse, GradnormsUse, NotWritable, arguments_as_toml, has_words

if TYPE_CHECKING:
    from ..compiler.program import Program
    from .operands import Array
    from .traced import CompiledFunction

__all__ = ["arranged", "function_name", "named_tuple", "use_of_function"]

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
    told = _Told(function, leaves)
    told.tell(bound)
    operands = told.operands
    if not operands:
        raise NotWritable("it has no operands")
    dtypes = [operand.dtype.newbyteorder("=") for operand in operands]
    for dtype in dtypes:
        if dtype not in _KNOWN:
            raise NotWritable(f"no kernels are compiled for operands of {dtype}")
    axes = _axes(program, operands)
    names = program.inputs[: len(operands)]  # what is the same array has one name
    wanted = Signature.of(
        [*map(OperandSignature, dtypes, axes)], told.arguments, [*map(names.index, names)]
    )
    if function.written is not None:
        return GradnormsUse(function.written(wanted))
    _check_text(wanted)
    words = [layout_of(operand) for operand in operands]
    listed = "" if usual(words) else ", ".join(words)
    arguments = arguments_as_toml(told.constants)
    return FunctionUse(function_name(function), str(wanted), listed, arguments)


def _check_text(signature: Signature) -> None:
    """Raise NotWritable unless the text of a signature is read as what it is."""
    with suppress(EinsumError):
        if parse_signature(str(signature)) == signature:
            return
    raise NotWritable(f"its signature would not be understood: {signature}")


class _Told:
    """The arguments of a call in the words of a manifest.

    Attributes:
        arguments: those that the signature has.
        constants: all others, by name; nothing of those that are as by default.
        operands: in the order of the signature.
    """

    def __init__(self, function: CompiledFunction, leaves: Sequence[Any]) -> None:
        self.function, self.leaves = function, leaves
        self.arguments: list[Argument] = []
        self.constants: dict[str, Any] = {}
        self.operands: list[Array] = []

    def tell(self, bound: BoundArguments) -> None:
        parameters = bound.signature.parameters
        rest = any(  # whether there are more by place than parameters: then none is left out
            parameter.kind is Parameter.VAR_POSITIONAL and bound.arguments[name]
            for name, parameter in parameters.items()
        )
        by_name = False  # whether one was left out: then those to come need their names
        for name, parameter in parameters.items():
            value = bound.arguments[name]
            if parameter.kind is Parameter.VAR_POSITIONAL:
                self.arguments += [("", self.node(name, each)) for each in value]
                rest, by_name = False, True
            elif parameter.kind is Parameter.VAR_KEYWORD:
                for key, each in value.items():
                    if key in parameters:
                        raise NotWritable(f"two of its arguments are called {key!r}")
                    self.add(key, each, True)
            elif rest or self.has_operands(value) or not self.is_default(value, parameter):
                self.add(name, value, by_name)
            else:
                by_name = True

    def add(self, name: str, value: Any, by_name: bool) -> None:
        """One argument: to the constants if TOML has it; a list there is read as a tuple."""
        plain = self.leaves[value.number] if isinstance(value, Place) else value
        if (type(plain) is tuple or not isinstance(plain, tuple | list)) and has_words(plain):
            self.constants[name] = plain
        else:
            self.arguments.append((name if by_name else "", self.node(name, value)))

    def is_default(self, value: Any, parameter: Parameter) -> bool:
        if isinstance(value, Place):
            value = self.leaves[value.number]
        return bool(_key(value) == _key(parameter.default))

    def has_operands(self, value: Any) -> bool:
        """Whether it is an operand, or a collection with some."""
        if isinstance(value, Place):
            return isinstance(self.leaves[value.number], np.ndarray)
        if isinstance(value, dict):
            return any(map(self.has_operands, value.values()))
        return isinstance(value, list | tuple) and any(map(self.has_operands, value))

    def node(self, name: str, value: Any) -> Node:
        """What a signature has for an argument of this name or a part of it."""
        if isinstance(value, Place):
            value = self.leaves[value.number]
            if isinstance(value, np.ndarray):
                self.operands.append(value)
                return len(self.operands) - 1
        if isinstance(value, dict):
            keys = tuple(self.key(name, key) for key in value)
            return Collection("{}", tuple(self.node(name, each) for each in value.values()), keys)
        if isinstance(value, tuple | list):
            kind, fields = self.kind(type(value)), getattr(value, "_fields", ())
            items = tuple(self.node(name, each) for each in value)
            return Collection(kind, items, tuple(map(static_of, fields)))
        return self.constant(name, value)

    def key(self, name: str, key: Any) -> Node:
        if type(key) is tuple:
            return Collection("()", tuple(self.key(name, each) for each in key))
        return self.constant(name, key)

    def constant(self, name: str, value: Any) -> Node:
        try:
            return static_of(value)
        except TypeError as kind:
            problem = f"there is no word for the {kind} that its argument {name!r} is or has"
            raise NotWritable(problem) from None

    def kind(self, kind: type) -> str:
        """What a signature calls a kind of tuple or list."""
        if kind in (tuple, list):
            return "()" if kind is tuple else "[]"
        module, path = kind.__module__, kind.__qualname__
        name = path if module == self.function.__module__ else f"{module}:{path}"
        if module == "__main__" or not hasattr(kind, "_fields") or self.found(name) is not kind:
            raise NotWritable(f"{module}.{path} is no named tuple that is found by that name")
        return name

    def found(self, name: str) -> Any:
        """The class of this name, if there is one."""
        try:
            return named_tuple(self.function, name)
        except EinsumError:
            return None


def _key(value: Any) -> Any:
    """What tells arguments apart."""
    return told_apart(value, lambda each: each)


def named_tuple(function: CompiledFunction, name: str) -> type[Any]:
    """The class of a named tuple, as signatures for a function call it.

    Raises:
        EinsumError: (a ValueError) there is none.
    """
    module, _, path = name.rpartition(":")
    found: Any = sys.modules.get(module or function.__module__)
    if found is None:
        from .wanted import imported

        found = imported(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")):
        where = module or function.__module__
        raise EinsumError(f"there is no named tuple {path!r} in {where}")
    return found


def arranged(
    function: inspect.Signature, given: Sequence[Any], named: Mapping[str, Any]
) -> BoundArguments:
    """The arguments of a call, of which some are given by name and others fill the gaps in order.

    Raises:
        EinsumError: (a ValueError) the function does not take them.

    >>> def scaled(a, factor, b): ...
    >>> arranged(inspect.signature(scaled), ["A", "B"], {"factor": 2.0}).args
    ('A', 2.0, 'B')
    """
    bound, left, further = function.bind_partial(), list(given), dict(named)
    several: dict[Any, str] = {}
    for name, parameter in function.parameters.items():
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            several[parameter.kind] = name
            if parameter.kind is Parameter.VAR_POSITIONAL:
                bound.arguments[name], left = tuple(left), []
        elif name in further:
            bound.arguments[name] = further.pop(name)
        elif left:
            bound.arguments[name] = left.pop(0)
        elif parameter.default is Parameter.empty:
            raise EinsumError(f"there are too few arguments: {name!r} gets none")
    if Parameter.VAR_KEYWORD in several:
        bound.arguments[several[Parameter.VAR_KEYWORD]] = further
    elif further:
        raise EinsumError(f"the function has no argument {min(further)!r}")
    if left:
        raise EinsumError(f"there are {len(given)} arguments by place, {len(left)} too many")
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
