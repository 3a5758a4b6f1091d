"""Programs in slices: the same values, in no more memory than was asked for."""

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.factorize import factorize, follow
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Program, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.sliced import Element, Sliced, arrange
from einsumc.compiler.slices import fit
from einsumc.compiler.subscripts import parse
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn, draw_equation
from sweeps import examples

MACHINE = Machine(TARGETS["x86-64-v3"])
EIGHT = Element("f8", "f8")


def program_of(text: str, *shapes: tuple[int, ...]) -> Program:
    return from_expression(resolve(parse(text), shapes))


def in_pieces(sliced: Sliced, whole: Program, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What running all pieces gives, with slices of the operands and an interpreter for each."""
    sizes = whole.sizes
    out = np.zeros([sizes[index] for index in whole.statements[-1].kept], np.int64)
    for piece in sliced.pieces():
        blocks = {
            s.index: np.arange(p, min(p + s.block, s.extent))
            for p, s in zip(piece, sliced.slices, strict=True)
        }
        # Sliced operands are read one access after the other: the same array may be read twice.
        values: dict[str, np.ndarray] = {}
        for statement in sliced.program.statements:
            names = {index: n for n, index in enumerate(statement.indices)}
            operands = []
            for access in statement.factors:
                if access.tensor in values:
                    array, axes = values[access.tensor], access.names
                else:
                    extents = {i: len(blocks.get(i, range(sizes[i]))) for i in access.names}
                    grids = np.ogrid[tuple(slice(n) for n in extents.values())]
                    at = {
                        i: blocks[i][grid] if i in blocks else grid
                        for i, grid in zip(extents, grids, strict=True)
                    }
                    where = tuple(axis.evaluate(at) for axis in access.subscripts)
                    array, axes = arrays[access.tensor][where], access.names
                    array = np.broadcast_to(array, tuple(extents.values()))
                operands += [array, [names[i] for i in axes]]
            target = [names[i] for i in statement.kept]
            values[statement.target.tensor] = np.einsum(*operands, target)
        part = tuple(
            slice(blocks[i][0], blocks[i][-1] + 1) if i in blocks else slice(None)
            for i in whole.statements[-1].kept
        )
        out[part] += values[whole.result]
    return out


@examples(60)
@given(st.data())
def test_pieces_add_up_to_the_whole(data):
    equation = draw_equation(Drawn(data.draw), repeated_output=False)
    expression = resolve(parse(equation.text), equation.shapes)
    count = len(expression.inputs)
    if count < 2 or not all(extent for _, extent in expression.extents):
        return
    path = tuple((0, left) for left in range(count - 1, 0, -1))
    program = follow(from_expression(expression), path)
    limit = data.draw(st.integers(0, arrange(program, EIGHT).workspace.size))
    try:
        _, sliced = fit({"path": program}, limit, EIGHT, MACHINE)
    except EinsumError:
        return
    verify_program(sliced.program)
    assert sliced.workspace.size <= limit
    assert list(sliced.levels) == sorted(sliced.levels)
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(0, 9, program.shapes[n]) for n in program.inputs}
    np.testing.assert_array_equal(in_pieces(sliced, program, arrays), evaluate(program, arrays))


def sliced_chain(limit: int, text: str = "ij,jk,kl->il", n: int = 100) -> Sliced:
    program = follow(program_of(text, (n, n), (n, n), (n, n)), ((0, 1), (0, 1)))
    return fit({"path": program}, limit, EIGHT, MACHINE)[1]


def test_a_kept_index_is_sliced_rather_than_a_summed_one():
    """It makes disjoint parts of the result, and nothing is computed twice."""
    sliced = sliced_chain(20_000)
    assert [s.index for s in sliced.slices] == ["i"]
    assert not sliced.adds
    assert sliced.workspace.size <= 20_000


def test_what_does_not_depend_on_the_index_is_outside_of_the_loop():
    program = program_of("ab,bc,cd,di->i", (8, 8), (8, 8), (8, 4000), (4000, 40))
    program = follow(program, ((0, 1), (0, 2), (0, 1)))  # (a b) first, then c, then d
    _, sliced = fit({"path": program}, 10_000, EIGHT, MACHINE)
    assert sliced.hoisted
    assert [s.index for s in sliced.slices] == ["d"]
    assert sliced.adds
    assert sliced.levels == (0, 1, 1)
    assert sliced.runs(0) == 1
    assert sliced.runs(1) == sliced.slices[0].count > 1


def test_a_path_under_the_limit_is_taken_before_slices():
    """The one with little to keep may take longer, as long as slices would take longer still."""
    program = program_of("ij,jk,kl->il", (2, 50), (50, 50), (50, 50))
    found = factorize(program, True, MACHINE, "f8", 1000)
    _, sliced = fit(found.programs, 64 * 13, EIGHT, MACHINE)
    assert not sliced.slices
    assert sliced.workspace.size == 2 * 50 * 8 + 32  # a multiple of 64


def test_too_low_a_limit_says_what_can_be_reached():
    with pytest.raises(EinsumError, match=r"memory_limit=0: .* need at least (\d+) bytes") as error:
        sliced_chain(0)
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert sliced_chain(least).workspace.size == least
    with pytest.raises(EinsumError, match="memory_limit"):
        sliced_chain(least - 1)


def test_half_precision_has_room_for_its_sum():
    program = follow(program_of("ijk,k,ij->", (90, 90, 9), (9,), (90, 90)), ((0, 1), (0, 1)))
    _, sliced = fit({"path": program}, 6000, Element("f2", "f4"), MACHINE)
    assert sliced.adds
    assert len(sliced.sizes) == 3  # t0, a piece of the result, and the sum of the pieces
    assert {4} <= set(sliced.sizes.values())


def test_a_network_of_a_hundred_tensors_is_sliced():
    letters = [chr(0x4E00 + n) for n in range(400)]
    rows, columns = 10, 10
    terms = [[] for _ in range(rows * columns)]
    edge = iter(letters)
    for r in range(rows):
        for c in range(columns):
            for down, right in ((1, 0), (0, 1)):
                if r + down < rows and c + right < columns:
                    name = next(edge)
                    terms[r * columns + c].append(name)
                    terms[(r + down) * columns + c + right].append(name)
    text = ",".join("".join(term) for term in terms) + "->"
    program = program_of(text, *[(2,) * len(term) for term in terms])
    found = factorize(program, "greedy", MACHINE, "f8")
    size = arrange(found.program, EIGHT).workspace.size
    _, sliced = fit(found.programs, size // 8, EIGHT, MACHINE)
    assert sliced.workspace.size <= size // 8
