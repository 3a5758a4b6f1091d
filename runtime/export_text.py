"""The header of an exported einsum, and a program in C that tests it."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from ..compiler.affine import axis_index
from ..compiler.records import dataclass
from ..compiler.windows import length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..compiler.affine import Affine
    from ..compiler.driver import Layout
    from ..compiler.program import Program
    from ..compiler.subscripts import Expression

__all__ = ["Facts", "header_text", "test_text"]

_PLAIN = {"f2": "uint16_t", "f4": "float", "f8": "double", "b1": "uint8_t"}
_COMPLEX = {"c8": "float", "c16": "double"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the texts say.

    Attributes:
        name: of the function.
        expression: the equation, with typical extents.
        program: the steps.
        layout: indices, fixed extents, element types, the tensors in order.
        target: the instruction set level.
    """

    name: str
    expression: Expression
    program: Program
    layout: Layout
    target: str

    @property
    def element(self) -> str:
        """The type of all elements that a caller sees."""
        return self.layout.elements[self.layout.given[-1]]

    @property
    def axes(self) -> list[tuple[Affine | None, ...]]:
        """For every tensor what each axis is read at; None for an axis that is broadcast."""
        return [*self.expression.inputs, self.expression.output]

    @property
    def windows(self) -> list[tuple[str, int, Affine]]:
        """The axes that are no index: the tensor, the number, and what it is."""
        return [
            (tensor, number, axis)
            for tensor, axes in zip(self.layout.given, self.axes, strict=True)
            for number, axis in enumerate(axes)
            if axis is not None and not axis.is_index
        ]

    def extent(self, tensor: str, number: int, axis: Affine | None) -> int:
        """The place of an axis' extent among those that a caller gives, or -1."""
        if axis is None:
            return -1
        name = axis.names[0] if axis.is_index else axis_index(tensor, number)
        return self.layout.indices.index(name)


def header_text(facts: Facts) -> str:
    """The header."""
    name, layout = facts.name, facts.layout
    *operands, out = layout.given
    operation = "; ".join(map(str, facts.program.statements))
    windows = {axis_index(tensor, n): f"{tensor}[{axis}]" for tensor, n, axis in facts.windows}
    called = {i: windows.get(i, i) for i in layout.indices}
    indices = ", ".join(
        f"{called[i]} = {layout.fixed[i]}" if i in layout.fixed else called[i]
        for i in layout.indices
    )
    typical = ", ".join(
        f"{called[i]} = {layout.typical[i]}" for i in layout.indices if i not in layout.fixed
    )
    strides = ", ".join(
        f"{tensor}[{', '.join(str(axis) if axis else '1' for axis in axes)}]"
        for tensor, axes in zip(layout.given, facts.axes, strict=True)
        if axes
    )
    pointers = ", ".join(f"const {name}_element *{tensor}" for tensor in operands)
    guard = f"{name.upper()}_H"
    extents = f"of {_and_axes(facts)} {indices or '(none)'}, all at least 1.{_outside(facts)}"
    extents += f" Kernels are chosen for {typical}, and compute any." if typical else ""
    every = "of every axis of every tensor, in elements, of any sign:"
    every += f" {strides or '(none)'}. NULL for C order. What an index of extent 1 is broadcast"
    every += " along has any stride."
    return f"""\
/* {facts.expression} on {facts.element}, for {facts.target}.

   {operation}

{_item("extents", extents)}
{_item("strides", every)}
   workspace, scratch
            memory of {name}_workspace and {name}_scratch bytes, on a multiple of 64 bytes, with
            anything in it; NULL where that is 0.

   No tensor overlaps the output. Functions return 0, or 1 if an extent is wrong, and then
   nothing is written. They keep nothing between calls and may be called from any thread.
   The result has the same bits however the tiles are spread over threads.{_note(facts)} */

#ifndef {guard}
#define {guard}

#include <stdint.h>
{_typedef(facts)}
#ifdef __cplusplus
extern "C" {{
#endif

#define {name.upper()}_STEPS {len(layout.steps.statements)}

/* Compute everything on this thread. */
int {name}({pointers}, {name}_element *{out},
    const int64_t *extents, const int64_t *strides, void *workspace, void *scratch);

/* Bytes for what is kept between the steps, and for each thread alone. */
int64_t {name}_workspace(const int64_t *extents);
int64_t {name}_scratch(const int64_t *extents);

/* The number of tiles of a step, or -1 if an extent is wrong or there is no such step. */
int64_t {name}_tiles(int64_t step, const int64_t *extents, const int64_t *strides);

/* Compute the tiles from begin to end of a step, all of whose predecessors are complete. Tiles
   may be computed in any order, and at once with a scratch for each thread. The tensors are the
   operands, then the output. */
int {name}_range(int64_t step, int64_t begin, int64_t end, void *const *tensors,
    const int64_t *extents, const int64_t *strides, void *workspace, void *scratch);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _and_axes(facts: Facts) -> str:
    return "the indices and axes" if facts.windows else "the indices"


def _outside(facts: Facts) -> str:
    if not facts.windows:
        return ""
    return (
        " Beyond the ends of its axes an operand is zero, and what would be added to the output"
        " there is dropped; so these extents need not fit each other."
    )


def _item(name: str, text: str) -> str:
    """An explained parameter, in lines."""
    return fill(text, 98, initial_indent=f"   {name:9}", subsequent_indent=" " * 12)


def _note(facts: Facts) -> str:
    if facts.element == "f2":
        return "\n   Elements are the bits of IEEE half precision numbers."
    return "\n   Elements are 0 or 1." if facts.element == "b1" else ""


def _typedef(facts: Facts) -> str:
    element, name = facts.element, f"{facts.name}_element"
    if element in _COMPLEX:
        part = _COMPLEX[element]
        return (
            f"\n#ifdef __cplusplus\n#include <complex>\ntypedef std::complex<{part}> {name};\n"
            f"#else\n#include <complex.h>\ntypedef {part} complex {name};\n#endif\n"
        )
    sign = "u" if element[0] == "u" else ""
    plain = _PLAIN.get(element) or f"{sign}int{8 * int(element[1:])}_t"
    return f"\ntypedef {plain} {name};\n"


def test_text(facts: Facts) -> str:
    """A program that computes small examples, in C order and with other strides, and compares."""
    name, layout = facts.name, facts.layout
    given, axes = layout.given, facts.axes
    indices = layout.indices[: len(layout.indices) - len(facts.windows)]
    extents = _extents(facts, indices)
    placed = [
        (tensor, number, axis)
        for tensor, listed in zip(given, axes, strict=True)
        for number, axis in enumerate(listed)
    ]
    own = [facts.extent(*each) for each in placed]
    rows = "".join(f"    {{{', '.join(_factors(axis, indices))}}},\n" for _, _, axis in placed)
    tensors = len(given)
    arguments = ", ".join(f"tensors[{n}]" for n in range(tensors))
    return f"""\
/* Tests lib{name}.so on small whole numbers, against a loop over all indices at once:

       cc {name}_test.c -L. -l{name} -Wl,-rpath,. -o {name}_test && ./{name}_test */

#if !defined(__cplusplus) && __STDC_VERSION__ < 201112L
#error "this program needs C11, as with -std=c11"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "{name}.h"

enum {{ TENSORS = {tensors}, INDICES = {len(indices)} }};
static const int64_t extents[] = {{{", ".join(map(str, [*extents, 1]))}}};
static const int ranks[TENSORS] = {{{", ".join(str(len(tensor)) for tensor in axes)}}};
/* For every axis of every tensor the place of its extent; -1 if that is 1. */
static const int lengths[] = {{{", ".join(map(str, [*own, -1]))}}};
/* And its position: so many times each index, and a constant. */
static const int factors[][INDICES + 1] = {{
{rows}    {{0}}}};

{_conversion(facts)}
static void *aligned(int64_t size) {{
    return size ? aligned_alloc(64, (size + 63) / 64 * 64) : NULL;
}}

/* Elements lie `gap` apart; in tiles, from the last to the first, if asked for. */
static int test(int64_t gap, int in_tiles) {{
    int64_t strides[sizeof lengths / sizeof *lengths], sizes[TENSORS];
    int64_t positions[INDICES + 1] = {{0}};
    {name}_element *tensors[TENSORS];
    int first = 0, wrong = 0, done = 0;
    for (int t = 0; t < TENSORS; first += ranks[t++]) {{
        int64_t size = gap;
        for (int axis = ranks[t] - 1; axis >= 0; axis--) {{
            strides[first + axis] = size;
            size *= lengths[first + axis] < 0 ? 1 : extents[lengths[first + axis]];
        }}
        sizes[t] = size;
        tensors[t] = malloc(size * sizeof({name}_element));
        for (int64_t n = 0; n < size; n++)
            tensors[t][n] = from_small((n * 7 + t) % 4);
    }}
    number *expected = calloc(sizes[TENSORS - 1], sizeof(number));
    while (!done) {{
        number product = 1;
        int64_t place = 0;
        int outside = 0;
        first = 0;
        for (int t = 0; t < TENSORS; first += ranks[t++]) {{
            place = 0;
            for (int axis = first; axis < first + ranks[t]; axis++) {{
                int64_t position = factors[axis][INDICES];
                int64_t end = lengths[axis] < 0 ? 1 : extents[lengths[axis]];
                for (int index = 0; index < INDICES; index++)
                    position += factors[axis][index] * positions[index];
                outside |= position < 0 || position >= end;
                place += strides[axis] * position;
            }}
            if (t < TENSORS - 1 && !outside)
                product *= to_number(tensors[t][place]);
        }}
        if (!outside)
            expected[place] += product;
        int index = INDICES - 1;
        while (index >= 0 && ++positions[index] == extents[index])
            positions[index--] = 0;
        done = index < 0;
    }}
    const int64_t *given = gap == 1 ? NULL : strides;
    void *workspace = aligned({name}_workspace(extents));
    void *scratch = aligned({name}_scratch(extents));
    if (in_tiles) {{
        for (int64_t step = 0; step < {name.upper()}_STEPS; step++)
            for (int64_t tile = {name}_tiles(step, extents, given); tile-- > 0;)
                wrong += {name}_range(step, tile, tile + 1, (void *const *)tensors, extents, given,
                    workspace, scratch);
    }} else {{
        wrong += {name}({arguments}, extents, given, workspace, scratch);
    }}
    for (int64_t n = 0; n < sizes[TENSORS - 1]; n++) {{
        if (n % gap) /* what lies between is not touched */
            expected[n] = to_number(from_small((n * 7 + TENSORS - 1) % 4));
        wrong += !equal(tensors[TENSORS - 1][n], expected[n]);
    }}
    for (int t = 0; t < TENSORS; t++)
        free(tensors[t]);
    free(expected), free(workspace), free(scratch);
    const char *how = in_tiles ? "in tiles" : "at once";
    printf("%s, elements %d apart: %d wrong\\n", how, (int)gap, wrong);
    return wrong;
}}

int main(void) {{
    int wrong = 0;
    for (int64_t gap = 1; gap <= 3; gap++)
        wrong += test(gap, 0) + test(gap, 1);
    return wrong != 0;
}}
"""


def _factors(axis: Affine | None, indices: Sequence[str]) -> list[str]:
    """How many times each index an axis is read at, and the constant."""
    terms = dict(axis.terms) if axis else {}
    return [str(terms.get(index, 0)) for index in indices] + [str(axis.constant if axis else 0)]


def _extents(facts: Facts, indices: Sequence[str]) -> list[int]:
    """Small extents, all others, and of axes that are no index so that windows leave them."""
    fixed = facts.layout.fixed
    sizes = (2,) if len(indices) > 7 else (3, 5, 7, 4, 6, 2)
    found = {i: fixed.get(i, sizes[n % len(sizes)]) for n, i in enumerate(indices)}
    for number, (tensor, place, axis) in enumerate(facts.windows):
        name = axis_index(tensor, place)
        found[name] = fixed.get(name, max(1, length(axis, found) - number % 2))
    return list(found.values())


def _conversion(facts: Facts) -> str:
    text = _CONVERSION.get(facts.element) or _numbers(facts.element)
    return text.replace("ELEMENT", f"{facts.name}_element")


def _numbers(element: str) -> str:
    """Conversions of elements from and to what the loop computes in."""
    kind = {"f": "double", "c": "double complex", "i": "int64_t", "u": "uint64_t"}[element[0]]
    imaginary = " * (1 + I)" if element[0] == "c" else ""
    cast = "(number)" if element[0] in "fc" else ""
    compared = "expected" if cast else "(ELEMENT)expected"
    return f"""\
typedef {kind} number;
static ELEMENT from_small(int n) {{ return n{imaginary}; }}
static number to_number(ELEMENT x) {{ return x; }}
static int equal(ELEMENT x, number expected) {{ return {cast}x == {compared}; }}
"""


_CONVERSION = {
    "b1": """\
typedef int64_t number;
static ELEMENT from_small(int n) { return n == 1; }
static number to_number(ELEMENT x) { return x; }
static int equal(ELEMENT x, number expected) { return x == (expected != 0); }
""",
    "f2": """\
typedef double number;
static ELEMENT from_small(int n) { return (ELEMENT[]){0, 0x3c00, 0x4000, 0x4200}[n]; }
static number to_number(ELEMENT x) {
    int exponent = x >> 10 & 31;
    double number = exponent ? (x & 1023) + 1024 : x & 1023;
    for (int n = exponent ? exponent : 1; n < 25; n++) number /= 2;
    for (int n = 25; n < exponent; n++) number *= 2;
    return x >> 15 ? -number : number;
}
static int equal(ELEMENT x, number expected) {
    double off = to_number(x) - expected;
    return off * 1000 <= expected && -off * 1000 <= expected;
}
""",
}
