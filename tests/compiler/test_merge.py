"""Statements that become one: which do, and that the result is the same."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from einsumc.compiler.access import Access
from einsumc.compiler.affine import Affine
from einsumc.compiler.evaluate import evaluate, evaluate_all, verify_program
from einsumc.compiler.follow import follow
from einsumc.compiler.formula import CONTRACTED, Apply, Constant, Read
from einsumc.compiler.machine import Machine
from einsumc.compiler.merge import merged
from einsumc.compiler.program import Epilogue, Program, Statement, Tensor, from_expression
from einsumc.compiler.regions import leaves
from einsumc.compiler.resolve import resolve
from einsumc.compiler.spread import spread
from einsumc.compiler.subscripts import parse
from einsumc.compiler.symmetry import gram_swap
from einsumc.runtime.target import LEVELS, can_run
from steps import V3, run_program

MACHINE = Machine(V3)


def access(text):
    """`a:ij` is the tensor a at i and j."""
    name, _, indices = text.partition(":")
    return Access(name, tuple(map(Affine.index, indices)))


def apply(function, *arguments):
    values = (Constant(a) if isinstance(a, int | float) else a for a in arguments)
    return Apply(function, tuple(values))


def read(text):
    return Read(access(text))


def step(target, factors, value=None, over=""):
    epilogue = None if value is None else Epilogue(value, tuple(over))
    return Statement(access(target), tuple(map(access, factors.split())), epilogue)


def program(inputs, *statements, **extents):
    """A program whose last statement makes the result."""
    tensors = [
        Tensor(a.tensor, tuple(extents[i] for i in a.names)) for a in map(access, inputs.split())
    ]
    names = tuple(tensor.name for tensor in tensors)
    results = (statements[-1].target.tensor,)
    found = Program(tuple(tensors), names, (), results, tuple(extents.items()))
    found = found.with_statements(statements)
    verify_program(found)
    return found


SQUARED = "t0:nij t0:nij"
PROGRAMS = {
    "norm": (
        program(
            "b:nti a:ntj",
            step("t0:nij", "b:nti a:ntj"),
            step("out:n", SQUARED),
            n=4,
            t=6,
            i=40,
            j=50,
        ),
        1,
    ),
    "norm-in-other-indices": (
        program(
            "b:nti a:ntj",
            step("t0:nij", "b:nti a:ntj"),
            step("out:t", "t0:tni t0:tni"),
            n=7,
            t=7,
            i=7,
            j=7,
        ),
        1,
    ),
    "chain": (
        program(
            "a:ij b:j",
            step("t0:ij", "a:ij", apply("multiply", CONTRACTED, 0.5)),
            step("t1:ij", "t0:ij", apply("add", CONTRACTED, read("b:j"))),
            step("out:ij", "t1:ij", apply("maximum", CONTRACTED, 0)),
            i=50,
            j=60,
        ),
        1,
    ),
    "layer": (
        program(
            "x:ij w:jk b:k",
            step("t0:ik", "x:ij w:jk"),
            step("t1:ik", "t0:ik", apply("add", CONTRACTED, read("b:k"))),
            step("out:ik", "t1:ik", apply("maximum", CONTRACTED, 0)),
            i=64,
            j=64,
            k=64,
        ),
        1,
    ),
    "map-that-an-epilogue-reads": (
        program(
            "x:ij w:jk c:ik",
            step("t0:ik", "c:ik", apply("multiply", CONTRACTED, CONTRACTED)),
            step("out:ik", "x:ij w:jk", apply("subtract", CONTRACTED, read("t0:ik"))),
            i=64,
            j=64,
            k=64,
        ),
        1,
    ),
    "diamond": (
        program(
            "a:ij",
            step("t0:ij", "a:ij", apply("add", CONTRACTED, 1)),
            step("t1:ij", "t0:ij t0:ij"),
            step("out:ij", "t1:ij t0:ij"),
            i=9,
            j=9,
        ),
        1,
    ),
    "sum-needed-at-another-index": (
        program("a:ij b:k", step("t0:i", "a:ij"), step("out:ik", "t0:i b:k"), i=9, j=9, k=9),
        2,
    ),
    "transposed-and-not": (
        program(
            "a:ij",
            step("t0:ij", "a:ij", apply("add", CONTRACTED, 1)),
            step("out:ij", "t0:ij t0:ji"),
            i=9,
            j=9,
        ),
        2,
    ),
    "operand-of-a-product": (
        program(
            "x:ij w:jk",
            step("t0:ij", "x:ij", apply("maximum", CONTRACTED, 0)),
            step("out:ik", "t0:ij w:jk"),
            i=256,
            j=256,
            k=256,
        ),
        2,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_statements_become_one_where_that_pays(name):
    before, count = PROGRAMS[name]
    after = merged(before, "f4", MACHINE)
    assert len(after.statements) == count, str(after)
    verify_program(after)
    rng = np.random.default_rng(1)
    arrays = {n: rng.integers(-3, 4, before.shapes[n]).astype("f8") for n in before.inputs}
    np.testing.assert_array_equal(evaluate(after, arrays), evaluate(before, arrays))
    left = {statement.target.tensor for statement in after.statements}
    assert {tensor.name for tensor in after.tensors} == left | {*before.inputs}


def test_a_result_stays():
    before, _ = PROGRAMS["chain"]
    after = merged(replace(before, results=("t0", "out")), "f4", MACHINE)
    assert [s.target.tensor for s in after.statements] == ["t0", "out"]


def test_a_map_that_several_statements_read_is_made_by_each_of_them():
    before, _ = PROGRAMS["diamond"]
    before = replace(before, results=("t1", "out"))
    after = merged(before, "f4", MACHINE)
    assert [s.target.tensor for s in after.statements] == ["t1", "out"]
    arrays = {"a": np.arange(81.0).reshape(9, 9)}
    made, expected = evaluate_all(after, arrays), evaluate_all(before, arrays)
    assert all(np.array_equal(made[name], expected[name]) for name in before.results)


def test_a_sum_that_several_statements_read_stays():
    square, total = step("t1:i", "t0:i t0:i"), step("out:", "t0:i")
    before = program("a:ij", step("t0:i", "a:ij"), square, total, i=9, j=9)
    after = merged(replace(before, results=("t1", "out")), "f4", MACHINE)
    assert len(after.statements) == 3


@pytest.mark.parametrize(
    ("inputs", "statement", "extents"),
    [
        (
            "b:nti a:ntj",
            step("out:", "b:nti a:ntj", apply("multiply", CONTRACTED, CONTRACTED), "nij"),
            {"n": 6},
        ),
        (
            "b:ti a:tj",
            step("out:", "b:ti a:tj", apply("multiply", CONTRACTED, CONTRACTED), "ij"),
            {},
        ),
        (
            "b:nti a:ntj c:ij",
            step("out:n", "b:nti a:ntj", apply("multiply", CONTRACTED, read("c:ij")), "ij"),
            {"n": 2},
        ),
    ],
    ids=["batch", "one", "two"],
)
def test_partial_sums_add_up(inputs, statement, extents):
    before = program(inputs, statement, t=32, i=768, j=256, **extents)
    after = spread(before, "f4", MACHINE)
    verify_program(after)
    assert len(after.statements) == 2
    first = after.statements[0]
    assert np.prod([after.sizes[i] for i in first.kept]) >= 6
    rng = np.random.default_rng(1)
    arrays = {n: rng.integers(-3, 4, before.shapes[n]).astype("f8") for n in before.inputs}
    expected = evaluate(before, arrays)
    np.testing.assert_array_equal(evaluate(after, arrays), expected)
    if can_run(LEVELS["x86-64-v3"]):
        (found,) = run_program(after, arrays, MACHINE, "f8").values()
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("left", "right", "extents"),
    [
        ("a:ki", "a:kj", {"k": 10000, "i": 100, "j": 100}),
        ("a:ik", "a:jk", {"k": 12000, "i": 90, "j": 90}),
        ("a:bkli", "a:bklj", {"b": 2, "k": 600, "l": 20, "i": 64, "j": 64}),
        ("a:ki", "a:kj", {"k": 10007, "i": 60, "j": 60}),  # a prime: the last piece is shorter
        ("a:i", "a:j", {"i": 2000, "j": 2000}),  # no sum at all
    ],
)
def test_long_symmetric_products_stay_symmetric(left, right, extents):
    kept = "".join(i for i in extents if i not in "kl")
    before = program(left, step(f"out:{kept}", f"{left} {right}"), **extents)
    after = spread(before, "f8", MACHINE)
    verify_program(after)
    assert gram_swap(after.statements[0]) is not None
    rng = np.random.default_rng(1)
    arrays = {n: rng.integers(-3, 4, before.shapes[n]).astype("f8") for n in before.inputs}
    if can_run(LEVELS["x86-64-v3"]):
        inside = not any(leaves(each, after.shapes, after.sizes) for each in after.statements)
        run = partial(run_program, machine=MACHINE, dtype="f8") if inside else evaluate_all
        (found,) = run(after, arrays).values()
        terms = ",".join(each.partition(":")[2] for each in (left, right))
        (array,) = arrays.values()
        expected = np.einsum(f"{terms}->{kept}", array, array, optimize=True)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3")
@pytest.mark.parametrize("name", ["norm", "chain", "layer", "map-that-an-epilogue-reads"])
def test_kernels_of_merged_programs(name):
    before, _ = PROGRAMS[name]
    rng = np.random.default_rng(2)
    arrays = {n: rng.integers(-3, 4, before.shapes[n]).astype("f4") for n in before.inputs}
    (found,) = run_program(merged(before, "f4", MACHINE), arrays, MACHINE, "f4").values()
    np.testing.assert_array_equal(found, evaluate(before, arrays))


@pytest.mark.parametrize("axis", ["i+j-1", "i+j"])
def test_what_leaves_its_tensor_stays_a_factor(axis):
    shapes = [(32, 16, 768), (32, 16, 768), (1535,)]
    expression = resolve(parse(f"n t i, n t j, {axis} -> n"), shapes)
    program = follow(from_expression(expression), ((0, 1), (0, 1)))
    inside = axis == "i+j"
    assert len(merged(program, "f4", MACHINE).statements) == (1 if inside else 2)
