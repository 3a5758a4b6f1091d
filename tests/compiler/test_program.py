"""A program prints, is verified, and evaluates to what np.einsum gives."""

from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.evaluate import VerificationError, evaluate, verify_program
from einsumc.compiler.formula import CONTRACTED, Apply, Constant, Read
from einsumc.compiler.program import (
    Access,
    Epilogue,
    Program,
    Statement,
    Tensor,
    bounds,
    from_expression,
)
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn, draw_equation
from strategies import evaluate as reference
from sweeps import examples

I, J, K = map(Affine.index, "ijk")


def program_of(text: str, *shapes: tuple[int, ...], **options) -> Program:
    return from_expression(resolve(parse(text), shapes), **options)


def matmul() -> Program:
    return program_of("ij,jk->ik", (2, 3), (3, 4))


def two_steps() -> Program:
    """out[i] = sum_j t0[j] * a[i,j], after t0[j] = sum_i a[i,j]."""
    program = program_of("ij,kj->i", (2, 3), (2, 3), names=["a", "b"], same=[0, 0])
    (statement,) = program.statements
    first = Statement(Access("t0", (J,)), (statement.factors[1],))
    return program.with_statements(
        [first, replace(statement, factors=(statement.factors[0], first.target))]
    )


# --- from an expression ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shapes", "printed"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], "out[i,k] = sum_j a[i,j] * b[j,k]"),
        ("ij,jk->", [(2, 3), (3, 4)], "out = sum_{i,j,k} a[i,j] * b[j,k]"),
        ("ij->ji", [(2, 3)], "out[j,i] = a[i,j]"),
        (",i->i", [(), (3,)], "out[i] = a * b[i]"),
        ("ij,ij->ij", [(1, 3), (2, 3)], "out[i,j] = a[0,j] * b[i,j]"),
        ("...i,i", [(4, 3), (3,)], "out[...0] = sum_i a[...0,i] * b[i]"),
        ("batch q d, d -> batch q", [(2, 3, 4), (4,)], "out[batch,q] = sum_d a[batch,q,d] * b[d]"),
        ("ii->", [(3, 3)], "out = sum_i a[i,i]"),
    ],
)
def test_an_expression_is_one_statement(text, shapes, printed):
    program = program_of(text, *shapes)
    verify_program(program)
    assert str(program) == printed


def test_the_same_array_is_one_tensor():
    program = program_of("nti,nsi,nt->nts", (2, 3, 4), (2, 3, 4), (2, 3), same=[0, 0, 2])
    assert program.inputs == ("a", "a", "c")
    assert program.shapes == {"a": (2, 3, 4), "c": (2, 3), "out": (2, 3, 3)}
    assert str(program) == "out[n,t,s] = sum_i a[n,t,i] * a[n,s,i] * c[n,t]"


def test_names_that_a_caller_gave_are_not_taken_again():
    program = program_of("ij,jk->ik", (2, 3), (3, 4), names=["out", "t0"])
    assert program.result == "out0"
    assert next(program.fresh_names()) == "t1"


def test_many_operands_are_numbered():
    program = program_of(",".join("i" * 30) + "->i", *[(2,)] * 30)
    assert program.inputs[29] == "x29"


def test_an_affine_axis_is_as_long_as_its_operand():
    program = program_of("2*y+k-1, k -> y", (9,), (3,))
    verify_program(program)
    assert program.shapes == {"a": (9,), "b": (3,), "out": (5,)}
    assert bounds(program.statements[0].factors[0].subscripts[0], program.sizes) == (-1, 9)


# --- what must hold -------------------------------------------------------------------------------


def with_statement(program: Program, **changes) -> Program:
    (statement,) = program.statements
    return replace(program, statements=(replace(statement, **changes),))


def with_factor(*subscripts: Affine) -> Program:
    program = matmul()
    factors = (Access("a", subscripts), program.statements[0].factors[1])
    return with_statement(program, factors=factors)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (replace(matmul(), tensors=(*matmul().tensors, Tensor("a", ()))), "declared twice"),
        (replace(matmul(), extents=(*matmul().extents, ("i", 9))), "two extents"),
        (replace(matmul(), inputs=("a", "c")), "operand 'c' is not declared"),
        (replace(matmul(), tensors=matmul().tensors[:2]), "'out' is not declared"),
        (replace(matmul(), extents=matmul().extents[:2]), "'k' has no extent"),
        (replace(matmul(), statements=()), "nothing writes the result"),
        (replace(matmul(), results=("a",)), "nothing writes the result"),
        (replace(matmul(), statements=2 * matmul().statements), "written again"),
        (replace(two_steps(), statements=two_steps().statements[::-1]), "before it is written"),
        (with_statement(matmul(), factors=()), "no factors"),
        (with_factor(I), "does not fit the rank"),
        (with_statement(matmul(), target=Access("out", (I, J))), "not written whole"),
        (with_statement(matmul(), target=Access("a", (I, J))), "an operand is written"),
    ],
)
def test_what_must_hold(program, message):
    with pytest.raises(VerificationError, match=message):
        verify_program(program)


def test_a_factor_may_be_left_and_a_target_too():
    for shifted in (Affine((("j", 1),), 1), Affine((("j", -1),)), Affine((), 3)):
        verify_program(with_factor(I, shifted))
    verify_program(with_statement(matmul(), target=Access("out", (I, I))))
    verify_program(with_statement(matmul(), target=Access("out", (I, Affine((("k", 2),), -1)))))


# --- what it means --------------------------------------------------------------------------------


@examples(100)
@given(st.data())
def test_evaluate_gives_what_numpy_gives(data):
    equation = draw_equation(Drawn(data.draw), repeated_output=False)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, shape) for shape in equation.shapes]
    program = program_of(equation.text, *equation.shapes)
    result = evaluate(program, dict(zip(program.inputs, arrays, strict=True)))
    expected = reference(equation, arrays)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_evaluate_several_statements():
    a = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(evaluate(two_steps(), {"a": a}), a @ a.sum(0))


def test_evaluate_an_affine_access():
    access = Access("a", (Affine((("y", 2), ("k", -1)), 2),))
    target = Access("out", (Affine.index("y"),))
    program = Program(
        (Tensor("a", (7,)), Tensor("b", (3,)), Tensor("out", (3,))),
        ("a", "b"),
        (Statement(target, (access, Access("b", (Affine.index("k"),)))),),
        ("out",),
        (("y", 3), ("k", 3)),
    )
    a, b = np.arange(7), np.array([1, 10, 100])
    expected = [sum(a[2 * y - k + 2] * b[k] for k in range(3)) for y in range(3)]
    np.testing.assert_array_equal(evaluate(program, {"a": a, "b": b}), expected)


@pytest.mark.parametrize("dtype", ["?", "i1", "f4", "c8"])
def test_evaluate_keeps_the_dtype(dtype):
    a = np.ones((2, 3), dtype)
    result = evaluate(program_of("ij,ij->i", (2, 3), (2, 3), same=[0, 0]), {"a": a})
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.einsum("ij,ij->i", a, a))


def test_evaluate_refuses_another_shape():
    with pytest.raises(ValueError, match=r"'a' has shape \(3, 2\), not \(2, 3\)"):
        evaluate(matmul(), {"a": np.ones((3, 2)), "b": np.ones((3, 4))})


# --- epilogues ------------------------------------------------------------------------------------


def gradient_norms(epilogue: Epilogue) -> Program:
    """Statements of `nti,ntj->n` whose sum over t comes before the epilogue."""
    program = program_of("nti,ntj->n", (3, 4, 5), (3, 4, 6))
    return program.with_statements([replace(program.statements[0], epilogue=epilogue)])


SQUARE = Apply("multiply", (CONTRACTED, CONTRACTED))


def test_an_epilogue_prints_and_is_evaluated():
    program = gradient_norms(Epilogue(SQUARE, ("i", "j")))
    assert str(program) == "out[n] = sum_{i,j} square(sum_t a[n,t,i] * b[n,t,j])"
    verify_program(program)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 6))
    expected = np.square(np.einsum("nti,ntj->nij", a, b)).sum((1, 2))
    np.testing.assert_allclose(evaluate(program, {"a": a, "b": b}), expected)


def test_a_map_reads_other_tensors():
    program = program_of("ij,j->ij", (2, 3), (3,))
    statement = program.statements[0]
    first, second = statement.factors
    value = Apply(
        "where",
        (
            Apply("greater", (CONTRACTED, Constant(0))),
            Apply("exp", (Read(second),)),
            Apply("subtract", (CONTRACTED, Apply("add", (Constant(1), Read(second))))),
        ),
    )
    program = program.with_statements([Statement(statement.target, (first,), Epilogue(value))])
    assert str(program) == "out[i,j] = where(a[i,j] > 0, exp(b[j]), a[i,j] - (1 + b[j]))"
    a, b = np.array([[1.0, -1, 0], [2, 3, -4]]), np.array([0.5, 1, 2])
    verify_program(program)
    expected = np.where(a > 0, np.exp(b), a - (1 + b))
    np.testing.assert_array_equal(evaluate(program, {"a": a, "b": b}), expected)


@pytest.mark.parametrize(
    ("epilogue", "problem"),
    [
        (Epilogue(Read(Access("a", (Affine.index("n"), Affine.index("t"), I))), ("i", "j")), "sum"),
        (Epilogue(SQUARE, ("i", "j", "n")), "'n' is both kept and summed"),
        (Epilogue(SQUARE, ("i", "j", "z")), "no tensor has the index 'z'"),
        (Epilogue(Read(Access("c", ())), ("i", "j")), "'c' is not declared"),
    ],
)
def test_a_wrong_epilogue_is_found(epilogue, problem):
    with pytest.raises(VerificationError, match=problem):
        verify_program(gradient_norms(epilogue))


def test_evaluate_reads_zero_outside():
    image, kernel = np.arange(1, 6), np.array([1, 10, 100])
    program = program_of("y+k-1, k -> y", (5,), (3,))
    expected = np.convolve(image, kernel[::-1], "same")
    np.testing.assert_array_equal(evaluate(program, {"a": image, "b": kernel}), expected)


def test_evaluate_adds_up_what_meets_in_a_target():
    image, kernel = np.arange(1, 6), np.array([1, 10, 100])
    program = program_of("y, k -> y+k", (5,), (3,))
    expected = np.convolve(image, kernel)
    np.testing.assert_array_equal(evaluate(program, {"a": image, "b": kernel}), expected)
