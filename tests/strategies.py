"""Random einsum calls with every kind of operand, and what they must give.

`draw_call` makes one from a source of choices: `Seeded` for many reproducible ones, `calls()` for
Hypothesis. `check` runs a call and compares it with np.einsum in higher precision.
"""

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[Any]
T = TypeVar("T")

LETTERS = "abcijkXY"
FLOATS = ("f2", "f4", "f8", "c8", "c16")
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
DTYPES = ("?", *INTEGERS, *FLOATS)
HIGHER = {"f2": "f8", "f4": "f8", "f8": "g", "c8": "c16", "c16": "G"}
MOST_PRODUCTS = 20_000
"""Points in the index space of a call, so that the reference takes no time."""


class Source(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int:
        """From `low` up to and including `high`."""

    def chance(self, percent: int) -> bool:
        """True so often."""

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""


class Seeded:
    """The choices of a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def choice(self, options: Sequence[T]) -> T:
        return self.random.choice(options)


class Drawn:
    """The choices of Hypothesis, which shrink to what is plain."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]


# --- equations ------------------------------------------------------------------------------------


@dataclass
class Equation:
    """An equation, the shapes of its operands, and what the reference needs to know.

    `output` has the indices of the result, "..." among them, or is None where it is implicit.
    """

    inputs: list[str]
    shapes: list[tuple[int, ...]]
    output: list[str] | None
    text: str

    @property
    def repeats(self) -> bool:
        """Whether the output repeats an index, which np.einsum does not allow."""
        return self.output is not None and len({*self.output}) < len(self.output)


def draw_equation(source: Source, repeated_output: bool = True) -> Equation:
    letters = shuffled(source, LETTERS)[: source.integer(1, 5)]
    empty = source.choice(letters) if source.chance(6) else ""
    extents: dict[str, int] = {}
    for letter in letters:
        room = MOST_PRODUCTS // max(prod(extents.values()), 1)
        extents[letter] = 0 if letter == empty else min(source.integer(1, 7), max(room, 1))
    ellipsis = [source.integer(1, 3) for _ in range(source.integer(1, 2))]
    if not source.chance(25):
        ellipsis = []

    inputs, shapes = [], []
    for _ in range(source.choice((1, 2, 2, 2, 3, 3, 4))):
        term = [source.choice(letters) for _ in range(source.integer(0, 4))]
        if not source.chance(20):  # otherwise diagonals may stay
            term = list(dict.fromkeys(term))
        ones = {letter for letter in term if source.chance(8)}
        shape = [1 if letter in ones else extents[letter] for letter in term]
        if ellipsis and source.chance(70):
            count = source.integer(0, len(ellipsis))
            place = source.integer(0, len(term))
            broadcast = [1 if source.chance(15) else n for n in ellipsis[len(ellipsis) - count :]]
            term.insert(place, "...")
            shape[place:place] = broadcast
        inputs.append("".join(term))
        shapes.append(tuple(shape))

    output = None
    if source.chance(75):
        used = [letter for letter in letters if any(letter in term for term in inputs)]
        output = [letter for letter in shuffled(source, used) if source.chance(60)]
        if repeated_output and output and source.chance(6):
            output.insert(source.integer(0, len(output)), source.choice(output))
        if any("..." in term for term in inputs):
            output.insert(source.integer(0, len(output)), "...")
    comma = ", " if source.chance(10) else ","
    arrow = " -> " if source.chance(10) else "->"
    text = comma.join(inputs) + ("" if output is None else arrow + "".join(output))
    return Equation(inputs, shapes, output, text)


def shuffled(source: Source, items: Sequence[T]) -> list[T]:
    left = list(items)
    return [left.pop(source.integer(0, len(left) - 1)) for _ in items]


def evaluate(equation: Equation, arrays: Sequence[Array]) -> Array:
    """The result by np.einsum; a repeated output is put in place by indexing."""
    if not equation.repeats:
        return np.asarray(np.einsum(equation.text, *arrays, optimize=False))
    assert equation.output is not None
    names = list(dict.fromkeys(equation.output))
    text = f"{','.join(equation.inputs)}->{''.join(names)}"
    distinct = np.asarray(np.einsum(text, *arrays, optimize=False))
    if "..." in names:  # its axes one by one
        place = names.index("...")
        axes = [f"...{n}" for n in range(distinct.ndim - len(names) + 1)]
        names[place : place + 1] = axes
        place = equation.output.index("...")
        output = [*equation.output[:place], *axes, *equation.output[place + 1 :]]
    else:
        output = equation.output
    grids = dict(zip(names, np.ogrid[tuple(slice(n) for n in distinct.shape)], strict=True))
    extents = dict(zip(names, distinct.shape, strict=True))
    result = np.zeros([extents[name] for name in output], distinct.dtype)
    result[tuple(grids[name] for name in output)] = distinct
    return result


# --- arrays ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How an array lies in memory.

    `order` are its axes, slowest first; `steps` its slices' steps, 0 for an axis of stride 0.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    offset: int = 0
    packed: bool = False
    swapped: bool = False
    readonly: bool = False


def draw_layout(source: Source, rank: int, writeable: bool = False) -> Layout:
    order = tuple(range(rank))
    kind = source.integer(0, 9)
    if kind >= 6:
        order = tuple(reversed(order)) if kind < 8 else tuple(shuffled(source, order))
    steps = [1] * rank
    if source.chance(30):
        steps = [source.choice((1, 1, 2, -1, -2, 3)) for _ in order]
    if not writeable and source.chance(10):
        steps = [0 if source.chance(50) else step for step in steps]
    return Layout(
        order,
        tuple(steps),
        offset=source.choice((1, 4)) if source.chance(6) else 0,
        packed=source.chance(4),
        swapped=source.chance(6),
        readonly=not writeable and source.chance(10),
    )


def lay_out(values: Array, layout: Layout) -> tuple[Array, Array]:
    """An array of these values in this layout, and all of the memory it is cut out of, as bytes."""
    dtype = values.dtype.newbyteorder("S") if layout.swapped else values.dtype
    shape = [
        min(extent, 1) if step == 0 else extent * abs(step)
        for extent, step in zip(values.shape, layout.steps, strict=True)
    ]
    record = np.dtype([("pad", "u1"), ("value", dtype)]) if layout.packed else dtype
    memory = np.full(prod(shape) * record.itemsize + layout.offset, 0xA5, np.uint8)
    base: Array = np.ndarray(
        [shape[axis] for axis in layout.order], record, memory.data, layout.offset
    )
    if layout.packed:
        base = base["value"]
    inverse = sorted(range(len(shape)), key=layout.order.__getitem__)
    slices: list[Any] = [slice(None, None, step or 1) for step in layout.steps]
    array = base.transpose(inverse)[..., *slices]
    first = tuple(slice(0, 1) if step == 0 else slice(None) for step in layout.steps)
    array[...] = values[first]
    if 0 in layout.steps:
        array = np.broadcast_to(array, values.shape)
    if layout.readonly:
        array.flags.writeable = False
    return array, memory


def draw_values(source: Source, shape: tuple[int, ...], dtype: str, wrap: bool) -> Array:
    """Values that fit any dtype, at most 1; or, to see integers wrap, of their whole range."""
    rng = np.random.default_rng(source.integer(0, 2**32 - 1))
    kind = np.dtype(dtype).kind
    if kind in "iu":
        low = -1 if kind == "i" else 0
        info = np.iinfo(dtype)
        return rng.integers(*((info.min, info.max) if wrap else (low, 1)), shape, dtype, True)
    if kind == "b":
        return rng.random(shape) < 0.7
    values = rng.uniform(-1, 1, shape)
    if kind == "c":
        return np.asarray(values + 1j * rng.uniform(-1, 1, shape)).astype(dtype)
    return np.asarray(values).astype(dtype)


# --- calls ----------------------------------------------------------------------------------------


@dataclass
class Call:
    """A call of einsum; `memory` is what `out` is cut out of."""

    equation: Equation
    arrays: list[Array]
    out: Array | None = None
    memory: Array | None = None
    options: dict[str, Any] = field(default_factory=dict)
    overlapping: bool = False

    def __repr__(self) -> str:
        arrays = [*self.arrays, *([self.out] if self.out is not None else [])]
        lines = [f"einsum({self.equation.text!r}, **{self.options})"]
        for n, array in enumerate(arrays):
            same = [m for m in range(n) if arrays[m] is array]
            lines.append(
                f"  {'out' if array is self.out else n}: {array.dtype.str}{array.shape} "
                f"strides {array.strides} {'' if array.flags.aligned else 'unaligned '}"
                f"{'' if array.flags.writeable else 'read-only '}"
                f"{f'the same as {same[0]}' if same else ''}"
            )
        return "\n".join(lines)


def draw_call(source: Source) -> Call:
    """Any call that NumPy would take, or would but for a repeated output."""
    equation = draw_equation(source)
    dtypes = [source.choice(DTYPES)] * len(equation.shapes)
    if source.chance(25):
        dtypes = [source.choice(DTYPES) for _ in dtypes]
    wrap = all(np.dtype(dtype).kind in "biu" for dtype in dtypes) and source.chance(50)
    wrap = wrap and np.result_type(*dtypes).kind in "biu"
    arrays: list[Array] = []
    for shape, dtype in zip(equation.shapes, dtypes, strict=True):
        alike = [a for a in arrays if a.shape == shape and a.dtype == dtype]
        if alike and source.chance(40):
            arrays.append(alike[0])
            continue
        layout = draw_layout(source, len(shape))
        arrays.append(lay_out(draw_values(source, shape, dtype, wrap), layout)[0])
    options = draw_options(source, len(arrays))
    call = Call(equation, arrays, options=options)

    natural = np.result_type(*arrays).newbyteorder("=")
    if source.chance(10) and not wrap:
        options["dtype"] = np.result_type(natural, source.choice(DTYPES))
    if source.chance(35):
        shape = evaluate(equation, [np.zeros(a.shape, "?") for a in arrays]).shape
        chosen = options.get("dtype", natural)
        if source.chance(25) and not wrap:
            compute = {d: options.get("dtype", np.result_type(natural, d)) for d in DTYPES}
            choices = [d for d in DTYPES if np.can_cast(compute[d], d, "same_kind")]
            chosen = np.dtype(source.choice(choices))
            options["casting"] = "same_kind"
        layout = draw_layout(source, len(shape), writeable=True)
        call.out, call.memory = lay_out(np.zeros(shape, chosen), layout)
    return call


def draw_overlapping_call(source: Source) -> Call:
    """A call whose `out` is cut out of the same memory as its operands."""
    equation = draw_equation(source)
    dtype = source.choice(("i4", "i8", "f4", "f8", "c8"))
    pool = draw_values(source, (6000,), dtype, wrap=False)
    shape = evaluate(equation, [np.zeros(shape, "?") for shape in equation.shapes]).shape

    def cut(shape: tuple[int, ...]) -> Array:
        layout = draw_layout(source, len(shape), writeable=True)
        padded = [n * abs(step) for n, step in zip(shape, layout.steps, strict=True)]
        size = prod(padded)
        if size > len(pool):
            return np.ones(shape, dtype)
        start = source.integer(0, min(len(pool) - size, 40))
        base = pool[start : start + size].reshape([padded[axis] for axis in layout.order])
        inverse = sorted(range(len(shape)), key=layout.order.__getitem__)
        slices: list[Any] = [slice(None, None, step) for step in layout.steps]
        return base.transpose(inverse)[..., *slices]

    arrays = [cut(shape) for shape in equation.shapes]
    alike = [array for array in arrays if array.shape == shape]
    out = alike[0] if alike and source.chance(40) else cut(shape)
    return Call(equation, arrays, out, pool, draw_options(source, len(arrays)), True)


def draw_options(source: Source, operands: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if source.chance(40):
        options["optimize"] = source.choice((True, False, "greedy", "optimal", "path"))
    if options.get("optimize") == "path":
        path, left = ["einsum_path"], operands
        while left > 1:
            first, second = shuffled(source, range(left))[:2]
            path.append((first, second))  # type: ignore[arg-type]
            left -= 1
        options["optimize"] = path if operands > 1 else ["einsum_path", (0,)]
    if source.chance(25):
        options["order"] = source.choice("KCFA")
    return options


@st.composite
def calls(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Call:
    """Hypothesis's way to `draw_call`."""
    return draw_call(Drawn(draw))


@st.composite
def overlapping_calls(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Call:
    """Hypothesis's way to `draw_overlapping_call`."""
    return draw_overlapping_call(Drawn(draw))


# --- what must be true ----------------------------------------------------------------------------


def check(einsum: Callable[..., Any], call: Call) -> None:
    """Run a call; compare its result with NumPy's, and see that nothing else was written to."""
    arrays, out, options = call.arrays, call.out, call.options
    involved = [*arrays, *([out] if out is not None else [])]
    compute = np.dtype(options.get("dtype") or np.result_type(*involved)).newbyteorder("=")
    inputs = [array.copy() for array in arrays]
    before = None if call.memory is None else call.memory.copy()
    old = None if out is None else out.copy()

    result = einsum(call.equation.text, *arrays, out=out, **options)
    expected, bound = reference(call, inputs, compute)

    assert np.shape(result) == expected.shape, call
    if out is None:
        view = len(arrays) == 1 and np.shares_memory(result, arrays[0])
        assert result.dtype == arrays[0].dtype if view else result.dtype == compute, call
        if options.get("order") in ("C", "F"):
            contiguous = np.asarray(result).flags
            order = contiguous.c_contiguous if options["order"] == "C" else contiguous.f_contiguous
            assert order, call
        assert np.ndim(result) or not isinstance(result, np.ndarray), call
    else:
        assert result is out, call
    compare(result, expected, bound, compute, call)

    if not call.overlapping:
        for array, copy in zip(arrays, inputs, strict=True):
            assert np.array_equal(array, copy), call
    if out is not None and call.memory is not None and before is not None:
        out[...] = old
        assert np.array_equal(call.memory, before), f"written outside of out: {call}"


def reference(
    call: Call, inputs: Sequence[Array], compute: np.dtype[Any]
) -> tuple[Array, Array | None]:
    """The result, exact or in higher precision; and, if it is inexact, of the absolute values."""
    cast = [array.astype(compute) for array in inputs]
    if compute.kind in "biu":
        return evaluate(call.equation, cast), None
    higher = [array.astype(HIGHER[compute.str[1:]]) for array in cast]
    return (
        evaluate(call.equation, higher),
        evaluate(call.equation, [np.abs(array) for array in higher]),
    )


def compare(
    result: Any, expected: Array, bound: Array | None, compute: np.dtype[Any], call: Call
) -> None:
    """See that a result is as near as rounding allows."""
    result = np.asarray(result)
    if bound is None:
        kind = result.dtype.newbyteorder("=")
        if kind.kind in "biu":
            assert np.array_equal(result, expected.astype(kind)), call
            return
        bound = np.abs(expected.astype(kind))
    epsilon = np.finfo(compute).eps if compute.kind in "fc" else 0.0
    if result.dtype.kind in "fc":
        epsilon = max(epsilon, np.finfo(result.dtype).eps)
    points = reduce(operator.mul, (max(array.size, 1) for array in call.arrays))
    terms = min(points / max(result.size, 1), MOST_PRODUCTS)
    allowed = epsilon * (8 + 2 * len(call.arrays) + 2 * terms**0.5) * bound
    error = np.abs(result - expected)
    worst = np.max(error - allowed, initial=0.0)
    assert worst <= 0, f"wrong by {np.max(error)}, of which rounding allows less: {call}"
