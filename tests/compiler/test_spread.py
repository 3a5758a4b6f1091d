"""Long sums into few elements, which are cut into parts."""

import numpy as np
import pytest
from einsumc import einsum, set_num_threads
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.spread import spread
from einsumc.compiler.subscripts import parse
from einsumc.runtime import threads
from sweeps import every

MACHINE = Machine(TARGETS["x86-64-v3"])


def program(equation, shapes):
    return from_expression(resolve(parse(equation), shapes))


CUT = [
    ("ik,jk->ij", [(32, 60000), (24, 60000)], "f4"),
    ("ki,kj->ij", [(60000, 32), (60000, 24)], "f8"),
    ("ki,kj->ij", [(60013, 32), (60013, 24)], "f4"),  # a prime: the last part is shorter
    ("dca,cbd->ba", [(60, 80, 33), (80, 35, 60)], "f4"),  # a whole index makes the parts
    ("bik,bjk->bij", [(2, 24, 40000), (2, 24, 40000)], "c8"),
    ("ik,k->i", [(10, 300000), (300000,)], "f4"),
    ("i,i->", [(10**6,), (10**6,)], "f8"),
    ("ik,jk->ij", [(32, 70000), (24, 70000)], "i4"),
]


@pytest.mark.parametrize(("equation", "shapes", "element"), every(2, CUT, first=1))
def test_parts_add_up_and_need_little_memory(equation, shapes, element):
    before = program(equation, shapes)
    after = spread(before, element, MACHINE)
    verify_program(after)
    first, last = after.statements
    parts = np.prod(after.shapes[first.target.tensor]) // np.prod(after.shapes[last.target.tensor])
    assert 4 <= parts <= 64
    assert np.prod(after.shapes[first.target.tensor]) * 8 <= 4 << 20
    random = np.random.default_rng(0)
    arrays = {n: random.integers(-3, 4, before.shapes[n]).astype("f8") for n in before.inputs}
    np.testing.assert_array_equal(evaluate(after, arrays), evaluate(before, arrays))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ik,kj->ij", [(2000, 300), (300, 100)]),  # outputs enough for threads
        ("ik,jk->ij", [(32, 500), (32, 500)]),  # little work
        ("ik,jk->ij", [(2000, 5000), (1000, 5000)]),
        ("bik,bjk->bij", [(40, 24, 4000), (40, 24, 4000)]),  # a batch
        ("gba,bad->gd", [(399, 727, 6), (727, 6, 22)]),  # 727 is prime, and 6 are neighbours
    ],
)
def test_other_sums_stay_whole(equation, shapes):
    before = program(equation, shapes)
    assert spread(before, "f4", MACHINE) == before


def test_long_sums_in_half_precision_are_cut():
    before = program("ik,kj->ij", [(1000, 100000), (100000, 1000)])
    assert spread(before, "f4", MACHINE) == before
    part, _ = spread(before, "f2", MACHINE).statements
    assert len(part.kept) == 3


@pytest.mark.parametrize(("equation", "shapes", "element"), every(2, CUT))
def test_bits_do_not_depend_on_threads(equation, shapes, element):
    random = np.random.default_rng(0)
    operands = [(random.standard_normal(shape) * 9).astype(element) for shape in shapes]
    chosen, found = threads.chosen_threads(), []
    try:
        for count in (1, 2, 3, 16):
            set_num_threads(count)
            found.append(einsum(equation, *operands))
    finally:
        set_num_threads(chosen)
    assert len({each.tobytes() for each in found}) == 1
    wide = "c16" if element[0] == "c" else "i8" if element[0] == "i" else "f8"
    expected = np.einsum(equation, *(x.astype(wide) for x in operands), optimize=True)
    np.testing.assert_allclose(found[0], expected.astype(element), 1e-3, 1e-1)
