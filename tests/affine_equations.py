"""Draws equations with affine axes: windows, diagonals, scatters, and what leaves its tensors."""

from dataclasses import dataclass

from einsumc.compiler.program import Program, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse, parse_axis
from einsumc.compiler.windows import given_sizes
from hypothesis import strategies as st

NAMES = ("y", "x", "k", "l")


@dataclass(frozen=True)
class AffineEquation:
    """An equation with the shapes of its operands and the extents that it is called with."""

    text: str
    shapes: tuple[tuple[int, ...], ...]
    sizes: dict[str, int]

    @property
    def program(self) -> Program:
        """The program that it is before any pass."""
        return from_expression(resolve(parse(self.text), self.shapes, given_sizes(self.sizes)))


@st.composite
def axes(draw: st.DrawFn) -> str:
    """A plain index, or a sum of up to three."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        return f"1*{names[0]}"
    terms = [f"{draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])):+d}*{name}" for name in names]
    return f"{''.join(terms)}{draw(st.integers(-4, 4)):+d}"


@st.composite
def affine_equations(draw: st.DrawFn, *, affine_output: bool) -> AffineEquation:
    """One to three operands; the extents of indices and of tensors need not fit each other."""
    terms = [draw(st.lists(axes(), min_size=1, max_size=3)) for _ in range(draw(st.integers(1, 3)))]
    used = [name for name in NAMES if any(name in axis for term in terms for axis in term)]
    output = [f"1*{name}" for name in draw(st.permutations(used))]
    if affine_output:
        output = draw(st.lists(axes(), min_size=1, max_size=2))
        output = [axis for axis in output if all(n in used for n in NAMES if n in axis)]
    output = output[: draw(st.integers(0, len(output)))]
    sizes = {name: draw(st.integers(1, 5)) for name in used}

    def extent(text: str) -> int:
        axis = parse_axis(text, (0, len(text)))
        return sizes[axis.names[0]] if axis.is_index else draw(st.integers(1, 9))

    shapes = tuple(tuple(map(extent, term)) for term in terms)
    asked = sizes | {axis: extent(axis) for axis in output}
    return AffineEquation(f"{', '.join(map(' '.join, terms))} -> {' '.join(output)}", shapes, asked)
