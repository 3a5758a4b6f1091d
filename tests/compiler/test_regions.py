"""Boxes of a statement stay inside of its tensors, and are together what the statement is."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from affine_equations import affine_equations
from einsumc.compiler.access import Access
from einsumc.compiler.affine import Affine
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.formula import CONTRACTED, Apply, Constant, Read
from einsumc.compiler.inside import ZERO, Box, boxes_of
from einsumc.compiler.limits import NotBoxes
from einsumc.compiler.pad import pad
from einsumc.compiler.program import Epilogue, Program, from_expression
from einsumc.compiler.regions import boxes, leaves
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.compiler.windows import given_sizes
from hypothesis import assume, given
from sweeps import examples

Arrays = Mapping[str, np.ndarray]


def program_of(text: str, *shapes: tuple[int, ...], **sizes: int) -> Program:
    return from_expression(resolve(parse(text), shapes, given_sizes(sizes)))


def numbers(program: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(-3, 4, program.shapes[name]) for name in program.inputs}


def place(array: np.ndarray, access: Access, position: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where an access is; it must be inside."""
    places = [np.asarray(axis.evaluate(position)) for axis in access.subscripts]
    for at, extent in zip(places, array.shape, strict=True):
        assert at.min() >= 0, access
        assert at.max() < extent, access
    return tuple(np.broadcast_arrays(*places)) if places else ()


def write(box: Box, values: dict[str, np.ndarray], written: np.ndarray) -> None:
    """Compute a box; `written` counts how often each element of the target is."""
    statement, extents = box.statement, box.extents
    grids = np.ogrid[tuple(slice(extents[name]) for name in statement.indices)]
    position = dict(zip(statement.indices, grids, strict=True))
    factors = [values[f.tensor][place(values[f.tensor], f, position)] for f in statement.factors]
    shape = tuple(extents[name] for name in statement.indices)
    products = np.broadcast_to(reduce(np.multiply, factors), shape)
    total = products.sum(tuple(range(len(statement.kept), len(shape))))
    kept = shape[: len(statement.kept)]
    at = dict(zip(statement.kept, np.indices(kept), strict=True))
    target = values[statement.target.tensor]
    here = place(target, statement.target, at)
    target[here] = total
    np.add.at(written, here, 1)


def compute(program: Program, arrays: Arrays) -> np.ndarray:
    """What the boxes of a padded program give, once each element was seen to be written."""
    values: dict[str, np.ndarray] = {ZERO: np.zeros((), int), **arrays}
    for statement in program.statements:
        name = statement.target.tensor
        shape = program.shapes[name]
        values[name], written = np.full(shape, 99), np.zeros(shape, int)
        found = boxes_of(statement, program.shapes, program.sizes, lambda *_: None)
        for box in found:
            write(box, values, written)
        assert (written >= 1).all()
        clears = found[0].statement.target.names[:1] == ("axis0",)
        assert clears or (written == 1).all()
    return values[program.result]


def check(program: Program) -> Program:
    arrays = numbers(program)
    padded = pad(program)
    verify_program(padded)
    expected = evaluate(program, arrays)
    np.testing.assert_array_equal(evaluate(padded, arrays), expected)
    np.testing.assert_array_equal(compute(padded, arrays), expected)
    return padded


def count(text: str, *shapes: tuple[int, ...], **sizes: int) -> int:
    """How many boxes an equation has, once they are known to be right."""
    program = check(program_of(text, *shapes, **sizes))
    (statement,) = program.statements
    return len(boxes(statement, program.shapes, program.sizes))


# --- forwards -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes", "expected"),
    [
        ("y+k, k -> y", [(9,), (3,)], 1),  # never outside
        ("y+k-1, k -> y", [(9,), (3,)], 3),
        ("2*y+k-1, k -> y", [(9,), (3,)], 3),
        ("2*y+k-1, k -> y", [(10,), (3,)], 2),  # the last window ends with the tensor
        ("y+2*k-2, k -> y", [(9,), (3,)], 3),
        ("y-k, k -> y", [(9,), (3,)], 5),
        ("y+k-5, k -> y", [(4,), (3,)], 7),  # some windows are all padding
        ("n c y+k-1 x+l-1, o c k l -> n o y x", [(2, 3, 5, 6), (4, 3, 3, 3)], 9),
        ("c x+k-1, k c -> x c", [(3, 7), (3, 3)], 3),
        ("g y+k-1, g o k -> g o y", [(2, 7), (2, 3, 3)], 3),
        ("y+k-1, y -> k", [(9,), (9,)], 3),  # the gradient of the weights
        ("2*y -> y", [(9,)], 1),
        ("2*y-4 -> y", [(9,)], 3),  # zeros on both sides
        ("k-y+8, k -> y", [(9,), (3,)], 5),
    ],
)
def test_windows(text, shapes, expected):
    assert count(text, *shapes) == expected


def test_longer_than_what_there_is():
    assert count("y+k-1, k -> y", (5,), (3,), y=50) == 5


def test_nothing_of_an_operand_is_read():
    assert count("y+k-9, k -> y", (4,), (3,), y=3) == 1


def test_the_largest_box_comes_first():
    program = program_of("y+k-1, k -> y", (9,), (3,))
    first, *_ = boxes(program.statements[0], program.shapes, program.sizes)
    assert str(first.statement) == "out[y+1] = sum_k a[k+y] * b[k]"
    assert first.extents == {"y": 7, "k": 3}


def test_long_axes_take_no_longer():
    assert len(boxes(program_of("y+k-1, k -> y", (10**9,), (3,)).statements[0], *long())) == 3


def long() -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    program = program_of("y+k-1, k -> y", (10**9,), (3,))
    return program.shapes, program.sizes


# --- padding --------------------------------------------------------------------------------------


def test_two_summed_indices_in_one_axis_are_padded():
    program = check(program_of("y+k+m-1, k m -> y", (9,), (3, 2)))
    assert str(program) == "t0[t0.0] = a[t0.0-1]\nout[y] = sum_{k,m} t0[k+m+y] * b[k,m]"


def test_so_is_what_would_be_too_many_boxes():
    program = check(program_of("c y+k-40 x+l-1, k l -> c y x", (2, 41, 5), (81, 3)))
    assert str(program.statements[0]) == "t0[c,t0.1,t0.2] = a[c,t0.1-40,t0.2]"
    assert program.statements[1].factors[0].subscripts[1].constant == 0
    assert len(boxes(program.statements[1], program.shapes, program.sizes)) == 3


def test_zeros_behind_a_tensor_alone():
    """The copy begins where its tensor does, so that no subscript shows that it reads beyond."""
    program = check(program_of("y+k+m, k m -> y", (9,), (3, 2), y=9))
    assert str(program.statements[0]) == "t0[t0.0] = a[t0.0]"


def test_the_same_expression_in_tensors_of_several_lengths():
    program = check(program_of("k+l, k+l -> ", (2,), (1,), k=2, l=2))
    assert [statement.target.tensor for statement in program.statements] == ["t0", "t1", "out"]


def test_only_what_needs_it_is_padded():
    program = program_of("y+k-1 x, k -> y x", (9, 4), (3,))
    assert pad(program) == program


# --- affine targets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes", "expected"),
    [
        ("y, k -> y+k", [(9,), (3,)], 5),
        ("y, k -> y+k-1", [(9,), (3,)], 3),
        ("y, k -> 2*y+k-1", [(9,), (3,)], 2),
        ("y, k -> 2*y+2*k", [(9,), (3,)], 6),  # odd places are zero
        ("y, k -> 3*y+2*k-1", [(9,), (3,)], 5),
        ("n o y x, o c k l -> n c 2*y+k-1 2*x+l-1", [(2, 4, 5, 6), (4, 3, 3, 3)], 4),
        ("y k -> y+k", [(5, 3)], 5),  # fold
        ("y -> y y+1", [(5,)], 2),
        ("y -> y-2", [(9,)], 1),
        ("y k -> y+k k", [(5, 3)], 7),
        ("y k -> 2*y+k k", [(5, 3)], 4),
        ("y k -> k-y+4", [(5, 3)], 5),
    ],
)
def test_targets(text, shapes, expected):
    assert count(text, *shapes) == expected


@pytest.mark.parametrize("text", ["y+k -> y+k", "y-k -> y-k", "y+k, k -> y+k"])
def test_equal_products_are_counted(text):
    """What several positions have in common is added once for each of them."""
    shapes = [(4,), (2,)][: 1 + text.count(",")]
    check(program_of(text, *shapes, y=3, k=2, **{text.split()[-1]: 4}))


def test_a_target_of_any_length():
    assert count("y, k -> 2*y+k-1", (4,), (3,), **{"2*y+k-1": 8}) == 3
    assert count("y, k -> 2*y+k-1", (4,), (3,), **{"2*y+k-1": 3}) >= 1


# --- epilogues ------------------------------------------------------------------------------------


def test_an_epilogue_is_that_of_each_part():
    program = program_of("y+k-1, k -> y", (9,), (3,), y=20)
    (statement,) = program.statements
    y = Affine.index("y")
    value = Apply("add", (CONTRACTED, Apply("add", (Constant(1.0), Read(Access("b", (y,)))))))
    with_bias = replace(statement, epilogue=Epilogue(value))
    found = boxes(with_bias, program.shapes, program.sizes)
    assert str(found[0].statement) == "out[y+1] = (sum_k a[k+y] * b[k]) + (1 + b[y+1])"
    assert any(
        box.statement.factors == (Access(ZERO, ()),)
        and str(box.statement).endswith("= 0 + (1 + b[y+10])")
        for box in found
    )


def test_what_an_epilogue_sums_is_not_cut():
    program = program_of("y+k-1, k -> ", (9,), (3,), y=9)
    (statement,) = program.statements
    square = Apply("multiply", (CONTRACTED, CONTRACTED))
    norm = replace(statement, epilogue=Epilogue(square, ("y",)))
    with pytest.raises(NotBoxes):
        boxes(norm, program.shapes, program.sizes)
    padded = pad(replace(program, statements=(norm,)))
    assert not leaves(padded.statements[1], padded.shapes, padded.sizes)
    arrays = numbers(program)
    want = evaluate(replace(program, statements=(norm,)), arrays)
    np.testing.assert_array_equal(evaluate(padded, arrays), want)


# --- anything -------------------------------------------------------------------------------------


@examples(50)
@given(affine_equations(affine_output=False))
def test_any_program(equation):
    check(equation.program)


@examples(50)
@given(affine_equations(affine_output=True))
def test_any_target(equation):
    program = equation.program
    try:
        pad(program)
    except ValueError as error:
        assert "beyond einsumc" in str(error)
        assume(False)
    check(program)
