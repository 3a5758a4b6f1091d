"""What a kernel knows of an epilogue: a formula without names, and the types of its values.

A statement's formula reads tensors by name and holds numbers. A kernel serves many statements, so
in its formula tensors are told by position (`Input`), and numbers when it is called (`Parameter`):
scaling by 1/3 and by 1/4 is one kernel. Only small exponents stay: they decide what is computed.

Types follow NumPy's rules of promotion, numbers being as weak as Python's. Half precision is
widened where it is read, as it is in sums.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import numpy as np

from .formula import (
    FUNCTIONS,
    Apply,
    Constant,
    Contracted,
    Input,
    Leaf,
    Parameter,
    Read,
    Value,
    folded,
    replaced,
)
from .program import Statement
from .records import dataclass
from .schedule import wide

__all__ = [
    "Finish",
    "finish_of",
    "finished",
    "has_kernel",
    "inputs_of",
    "of_product",
    "typed",
    "wanted_where",
    "wide",
]


@dataclass(frozen=True, slots=True)
class Finish:
    """What becomes of a step's sum before it is written.

    ``Input(0)`` of the formula is the sum of products, and ``Input(n)`` what the n-th of the
    ``reads`` other tensors holds; ``numbers`` are its parameters, each as 64 bits, a complex one
    as two of them. The formula is summed over the indices ``over``.
    """

    formula: Value
    reads: int = 0
    over: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


def finish_of(statement: Statement) -> Finish | None:
    """A statement's epilogue without names.

    >>> from .access import Access
    >>> from .affine import Affine
    >>> from .program import Epilogue
    >>> a, b = (Access(name, (Affine.index("i"),)) for name in "ab")
    >>> scaled = Apply("multiply", (Apply("add", (Contracted(), Read(b))), Constant(0.5)))
    >>> finish = finish_of(Statement(a, (a,), Epilogue(scaled)))
    >>> print(finish.formula.text("$0"), [hex(bits) for bits in finish.numbers])
    ($0 + $1) * c0 ['0x3fe0000000000000']
    """
    if statement.epilogue is None:
        return None
    reads = statement.operands[len(statement.factors) :]
    places: dict[tuple[str, tuple[int, ...]], int] = {}
    numbers: list[int] = []

    def unnamed(value: Value) -> Value:
        match value:
            case Contracted():
                return Input(0)
            case Read(access):
                return Input(1 + reads.index(access))
            case Constant(number):
                key = np.result_type(number).kind, _bits(number)
                if key not in places:
                    places[key] = len(numbers)
                    numbers.extend(key[1])
                return Parameter(places[key], key[0])
            case Apply("power", (base, Constant() as exponent)) if is_simple(exponent):
                number = exponent.number
                plain = int(number) if isinstance(number, int) else float(number.real)
                return Apply("power", (unnamed(base), Constant(plain)))
            case Apply(function, arguments):
                return Apply(function, tuple(map(unnamed, arguments)))
            case _:
                return value

    formula = unnamed(statement.epilogue.value)
    return Finish(formula, len(reads), statement.epilogue.over, tuple(numbers))


def is_simple(exponent: Constant) -> bool:
    """Whether a power is a few multiplications, and at most a root and a division.

    >>> [is_simple(Constant(number)) for number in (2, -0.5, 1.5, 0.3, 1000)]
    [True, True, True, False, False]
    """
    number = exponent.number
    return isinstance(number, int | float) and abs(number) <= 64 and 2 * number == int(2 * number)


def _bits(number: complex) -> tuple[int, ...]:
    """A number as a kernel is told it: integers as they are, others as the bits of doubles."""
    if isinstance(number, int | np.integer | np.bool_):
        return struct.unpack("q", struct.pack("Q", int(number) % 2**64))
    parts = (number.real, number.imag) if np.iscomplexobj(number) else (number,)
    return tuple(struct.unpack("q", struct.pack("d", part))[0] for part in parts)


def of_product(formula: Value, factors: int) -> Value:
    """The same of the factors themselves: ``Input(0)`` becomes the product of so many inputs.

    >>> print(of_product(Apply("add", (Input(0), Input(1))), 2).text(""))
    ($0 * $1) + $2
    """
    first: list[Value] = [Input(n) for n in range(factors)]
    product = reduce(lambda x, y: Apply("multiply", (x, y)), first)

    def leaf(value: Leaf) -> Value:
        if not isinstance(value, Input):
            return value
        return product if value.position == 0 else Input(value.position + factors - 1)

    return replaced(formula, leaf)


def finished(formula: Value, inputs: Sequence[Any], numbers: Sequence[int]) -> Any:
    """A formula's value, by NumPy, for values of its inputs and the bits of its numbers.

    >>> finished(Apply("add", (Input(0), Parameter(0, "i"))), [np.float32(1)], [41])
    np.float32(42.0)
    """

    def leaf(value: Leaf) -> Any:
        match value:
            case Input(position):
                return inputs[position]
            case Parameter(position, kind):
                return _number(kind, numbers[position:])
        raise TypeError(f"{value} has no place in a kernel")

    with np.errstate(all="ignore"):
        return folded(formula, leaf, lambda function, *values: FUNCTIONS[function](*values))


def _number(kind: str, bits: Sequence[int]) -> bool | int | float | complex:
    """The inverse of :func:`_bits`."""
    if kind in "bi":
        return bool(bits[0]) if kind == "b" else bits[0]
    parts = [struct.unpack("d", struct.pack("q", part))[0] for part in bits[:2]]
    return complex(*parts) if kind == "c" else float(parts[0])


def inputs_of(formula: Value) -> set[int]:
    """The inputs that a formula depends on."""
    match formula:
        case Input(position):
            return {position}
        case Apply(_, arguments):
            return set().union(*map(inputs_of, arguments))
        case _:
            return set()


def wanted_where(formula: Value) -> Value | None:
    """The condition under which a formula depends on its sum; None if it always does.

    >>> same = Apply("equal", (Input(1), Input(2)))
    >>> masked = Apply("where", (same, Apply("exp", (Input(0),)), Parameter(0, "i")))
    >>> wanted_where(Apply("multiply", (masked, Input(3)))) == same
    True
    """
    if not isinstance(formula, Apply):
        return None
    parts = [place for place, part in enumerate(formula.arguments) if 0 in inputs_of(part)]
    if len(parts) != 1:
        return None
    if formula.function != "where" or parts == [0]:
        return wanted_where(formula.arguments[parts[0]])
    condition = formula.arguments[0]
    return condition if parts == [1] else Apply("logical_not", (condition,))


# --- types ----------------------------------------------------------------------------------------

_KINDS = {"b": True, "i": 1, "u": 1, "f": 1.0, "c": 1j}


def typed(value: Value, elements: Sequence[str]) -> str:
    """The element type of a formula of tensors of these types.

    >>> typed(Apply("divide", (Input(0), Parameter(0, "f"))), ["i4"])
    'f8'
    >>> typed(Apply("multiply", (Input(0), Parameter(0, "f"))), ["f4"])
    'f4'

    Raises:
        TypeError: NumPy has no such function of such numbers.
    """
    return element_name(sample(value, tuple(elements)))


def element_name(value: Any) -> str:
    """The element type of a sample."""
    dtype = np.asarray(value).dtype
    return wide(f"{dtype.kind}{dtype.itemsize}")


@cache
def sample(value: Value, elements: tuple[str, ...]) -> Any:
    """Something of a formula's type: an array, or a Python number where it is as weak as one."""
    match value:
        case Input(position):
            return np.ones(1, wide(elements[position]))
        case Parameter(_, kind):
            return _KINDS[kind]
        case Constant(number):
            return number
        case Apply(function, arguments):
            with np.errstate(all="ignore"):
                found = FUNCTIONS[function](*(sample(a, elements) for a in arguments))
            return np.ones(1, wide(f"{found.dtype.kind}{found.dtype.itemsize}"))
        case _:
            raise TypeError(f"{value} has no place in a kernel")


# --- what kernels can do --------------------------------------------------------------------------

_ALL, _REAL, _FLOATS = "biufc", "biuf", "f"
_FOR = {
    **dict.fromkeys(("add", "multiply", "conjugate", "where", "equal", "not_equal"), _ALL),
    **dict.fromkeys(("subtract", "negative"), "iufc"),
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal"), _REAL),
    **dict.fromkeys(("minimum", "maximum"), _REAL),
    **dict.fromkeys(("logical_and", "logical_or", "logical_not"), "b"),
    **dict.fromkeys(("sqrt", "exp", "log", "tanh", "power"), _FLOATS),
    "absolute": "iuf",
    "divide": "fc",
}
"""The kinds of numbers for which there is code, by function."""


def has_kernel(formula: Value, elements: Sequence[str]) -> bool:
    """Whether kernels can compute a formula of inputs of these element types.

    >>> root = Apply("sqrt", (Input(0),))
    >>> has_kernel(root, ["f4"]), has_kernel(root, ["c8"]), has_kernel(root, ["i4"])
    (True, False, False)
    """
    match formula:
        case Apply(function, arguments):
            numbers = arguments[function == "where" :]
            try:
                types = [np.asarray(sample(a, tuple(elements))).dtype for a in numbers]
                result = np.asarray(sample(formula, tuple(elements))).dtype
                common = np.result_type(*(sample(a, tuple(elements)) for a in numbers))
            except TypeError:
                return False
            kinds = _FOR.get(function, "")
            simple = function == "power" and isinstance(arguments[1], Constant)
            if simple:
                kinds, common = ("iufc" if types[0].kind != "b" else ""), result
            return common.kind in kinds and all(has_kernel(a, elements) for a in arguments)
        case _:
            return True
