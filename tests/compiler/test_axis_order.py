"""The order of intermediates' axes: what is found, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from einsumc import compile_einsum, einsum
from einsumc.compiler import axis_order
from einsumc.compiler.axis_order import with_ordered_axes
from einsumc.compiler.cost import Cost
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.factorize import factorize
from einsumc.compiler.geometry import Geometry
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Program, Statement, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse

MACHINE = Machine(TARGETS["x86-64-v3"])
WINDING = "aefi,bfgj,cghk,dhel,ijkl->abcd"
LONG = {"a": 40, "b": 40, "c": 20, "d": 20, **dict.fromkeys("efgh", 6), **dict.fromkeys("ijkl", 4)}


def split(equation: str, shapes: Sequence[tuple[int, ...]], optimize: object = True) -> Program:
    program = from_expression(resolve(parse(equation), shapes))
    return factorize(program, optimize, MACHINE, "f4").program


def ordered(program: Program) -> Program:
    sizes, shapes = program.sizes, program.shapes

    def geometry(statement: Statement, moved: Mapping[str, Sequence[int]]) -> Geometry:
        accesses = (*statement.factors, statement.target)
        strides = []
        for access in accesses:
            steps = moved.get(access.tensor)
            if steps is None:
                axes = shapes[access.tensor]
                steps = [int(np.prod(axes[n + 1 :])) for n in range(len(axes))]
            found: dict[str, int] = {}
            for axis, step in zip(access.subscripts, steps, strict=True):
                for name, factor in axis.terms:
                    found[name] = found.get(name, 0) + factor * step
            strides.append(found)
        extents = {index: sizes[index] for index in statement.indices}
        return Geometry(("f4",) * len(accesses), "f4", extents, tuple(strides))

    return with_ordered_axes(program, geometry, "f4", MACHINE)


def test_what_belongs_together_in_the_next_step_is_written_so() -> None:
    shapes = [tuple(LONG[i] for i in term) for term in WINDING.split("->")[0].split(",")]
    program = ordered(split(WINDING, shapes))
    verify_program(program)
    *_, second, last = program.statements
    assert str(second.target) == "t2[f,g,j,a,c,d]"
    assert str(last) == "out[a,b,c,d] = sum_{f,g,j} t2[f,g,j,a,c,d] * b[b,f,g,j]"
    assert ordered(program).statements[1:] == program.statements[1:]  # nothing is left to do


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        (WINDING, [(2, 3, 4, 2), (3, 4, 2, 3), (4, 2, 3, 2), (2, 3, 3, 4), (2, 3, 2, 4)]),
        ("abcd,cdef,fegh,ghij->abij", [(2, 3, 4, 2), (4, 2, 3, 2), (2, 3, 2, 4), (2, 4, 3, 2)]),
        ("n c y+k, o k c, o p, y q -> n p q", [(2, 3, 6), (4, 3, 3), (4, 2), (4, 5)]),
    ],
)
def test_any_order_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, equation: str, shapes: list[tuple[int, ...]]
) -> None:
    random = np.random.default_rng(0)
    monkeypatch.setattr(axis_order, "LEAST", 1)
    monkeypatch.setattr(axis_order, "SHARE", 0)
    monkeypatch.setattr(axis_order, "GAIN", 1)
    cost = lambda *_, **__: Cost(seconds=random.uniform(1, 9))  # noqa: E731
    monkeypatch.setattr(axis_order, "packed_cycles", lambda *_: None)
    program = split(equation, shapes, "greedy")
    monkeypatch.setattr(axis_order, "statement_cost", cost)
    arrays = dict(zip(program.inputs, map(random.random, shapes), strict=True))
    expected, found = evaluate(program, arrays), set()
    for _ in range(8):
        moved = ordered(program)
        verify_program(moved)
        np.testing.assert_allclose(evaluate(moved, arrays), expected)
        found.add(str(moved))
    assert len(found) > 1


def test_kernels_compute_the_same() -> None:
    random = np.random.default_rng(0)
    terms = WINDING.split("->")[0].split(",")
    arrays = [random.random([LONG[i] for i in term]).astype("f4") for term in terms]
    plan = compile_einsum(WINDING).explain(*arrays)
    assert any("t2[f,g,j,a,c,d]" in step.statement for step in plan.steps)
    path = ["einsum_path", (2, 3), (2, 3), (0, 2), (0, 1)]  # products of matrices all along
    expected = np.einsum(WINDING, *arrays, optimize=path)
    np.testing.assert_allclose(einsum(WINDING, *arrays), expected, rtol=1e-4)
