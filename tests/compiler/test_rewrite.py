"""Rewrites of programs: what they make of known cases, and that they change no value."""

from dataclasses import replace

import numpy as np
import pytest
from einsumc.compiler.access import Access
from einsumc.compiler.affine import Affine
from einsumc.compiler.cost import program_cost
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.factorize import factorize, follow
from einsumc.compiler.formula import CONTRACTED, Apply, Read
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.program import Epilogue, Program, Statement, Tensor, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.rewrite.common import compute_once
from einsumc.compiler.rewrite.describe import describe
from einsumc.compiler.rewrite.inline import inlinable, inlined
from einsumc.compiler.rewrite.renaming import is_symmetric, renamings
from einsumc.compiler.shared import shared_paths
from einsumc.compiler.subscripts import parse
from einsumc.compiler.symmetry import gram_swap
from hypothesis import given
from hypothesis import strategies as st
from sweeps import examples

MACHINE = Machine(TARGETS["x86-64-v3"])
EAGER = Machine(TARGETS["x86-64-v3"], speeds=replace(MACHINE.speeds, call=1e-30))


def program_of(text: str, operands: str, **extents: int) -> Program:
    """An equation whose operands are called so: equal letters are one tensor."""
    terms = text.partition("->")[0].split(",")
    expression = resolve(parse(text), [[extents[i] for i in term] for term in terms])
    return from_expression(expression, operands, [operands.index(name) for name in operands])


def access(text: str) -> Access:
    name, _, axes = text.partition("[")
    return Access(name, tuple(map(Affine.index, axes.rstrip("]"))))


def product(target: str, *factors: str, epilogue: Epilogue | None = None) -> Statement:
    return Statement(access(target), tuple(map(access, factors)), epilogue)


def program(statements: list[Statement], *results: str, **extents: int) -> Program:
    """A program of statements; what none of them makes is an input."""
    made = {statement.target.tensor for statement in statements}
    reads = [read for statement in statements for read in statement.accesses]
    shapes = {r.tensor: tuple(extents[i] for i in r.names) for r in reads if r.tensor not in made}
    tensors = tuple(Tensor(name, axes) for name, axes in shapes.items())
    empty = Program(tensors, tuple(shapes), (), results, tuple(extents.items()))
    return empty.with_statements(statements)


def arrays_of(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-3, 4, program.shapes[name]) for name in program.inputs}


def same_value(first: Program, second: Program) -> None:
    verify_program(second)
    arrays = arrays_of(first)
    np.testing.assert_array_equal(evaluate(second, arrays), evaluate(first, arrays))


NORM = {"n": 4, "t": 5, "s": 5, "i": 6, "j": 7}


# --- equal up to names ----------------------------------------------------------------------------


def test_statements_are_equal_up_to_names_of_indices_and_order_of_factors():
    first = product("x[nij]", "b[nti]", "a[ntj]")
    second = product("y[jni]", "a[nsj]", "b[nsi]")
    sizes = dict(NORM)
    assert list(renamings(first, second, sizes)) == [{"n": "n", "s": "t", "j": "j", "i": "i"}]


@pytest.mark.parametrize(
    "other",
    [
        product("y[nij]", "b[nti]", "b[ntj]"),  # another tensor
        product("y[nij]", "b[nti]", "a[nsj]"),  # two sums
        product("y[nit]", "b[nti]", "a[ntj]"),  # another sum
        product("y[nij]", "b[nti]", "a[ntj]", epilogue=Epilogue(CONTRACTED)),
    ],
)
def test_other_statements_are_not(other):
    assert not list(renamings(product("x[nij]", "b[nti]", "a[ntj]"), other, dict(NORM)))


def test_indices_of_different_extents_are_not_exchanged():
    gram = program_of("nti,nsi->nts", "bb", **NORM).statements[0]
    assert is_symmetric(gram, NORM, {"t": "s"})
    assert not is_symmetric(gram, NORM | {"s": 4}, {"t": "s"})


def test_affine_axes_match_term_by_term():
    def window(y: str, k: str) -> Statement:
        axis = Affine(((y, 2), (k, 1)), -1)
        return Statement(access(f"q[{y}{k}]"), (Access("x", (axis,)),))

    sizes = {"y": 3, "k": 3, "b": 3, "a": 3}
    assert list(renamings(window("y", "k"), window("b", "a"), sizes)) == [{"a": "k", "b": "y"}]


def test_formulas_are_compared():
    square = Apply("multiply", (CONTRACTED, CONTRACTED))
    scaled = [Apply("multiply", (CONTRACTED, Read(access(f"c[{i}]")))) for i in "ij"]
    first = product("x[i]", "a[ik]", epilogue=Epilogue(scaled[0]))
    assert list(
        renamings(
            first, product("x[j]", "a[jk]", epilogue=Epilogue(scaled[1])), {"i": 2, "j": 2, "k": 3}
        )
    )
    assert not list(
        renamings(first, product("x[i]", "a[ik]", epilogue=Epilogue(square)), {"i": 2, "k": 3})
    )


# --- once -----------------------------------------------------------------------------------------


def test_equal_intermediates_become_one_whatever_the_order_of_their_axes():
    before = program(
        [
            product("t0[nij]", "b[nti]", "a[ntj]"),
            product("t1[nji]", "b[nsi]", "a[nsj]"),
            product("out[n]", "t0[nij]", "t1[nji]"),
        ],
        "out",
        **NORM,
    )
    after = compute_once(before)
    assert str(after).splitlines() == [
        "t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]",
        "out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]",
    ]
    assert "t1" not in after.shapes
    same_value(before, after)


def test_what_is_equal_once_its_factors_are_one_is_one_too():
    before = program(
        [
            product("t0[i]", "a[ik]"),
            product("t1[j]", "a[jk]"),
            product("t2[ij]", "t0[i]", "t1[j]"),
            product("t3[ij]", "t1[j]", "t0[i]"),
            product("out[ij]", "t2[ij]", "t3[ij]"),
        ],
        "out",
        i=3,
        j=3,
        k=4,
    )
    after = compute_once(before)
    assert [s.target.tensor for s in after.statements] == ["t0", "t2", "out"]
    same_value(before, after)


def test_a_result_that_is_computed_already_is_a_copy():
    before = program(
        [product("x[ik]", "a[ij]", "b[jk]"), product("y[ki]", "a[ij]", "b[jk]")],
        "x",
        "y",
        i=2,
        j=3,
        k=4,
    )
    after = compute_once(before)
    assert str(after.statements[1]) == "y[k,i] = x[i,k]"
    verify_program(after)


def test_what_no_result_needs_is_gone():
    before = program([product("t0[i]", "a[ij]"), product("out[j]", "a[ij]")], "out", i=2, j=3)
    assert [str(s) for s in compute_once(before).statements] == ["out[j] = sum_i a[i,j]"]


# --- inlined --------------------------------------------------------------------------------------


def test_an_intermediate_that_is_read_twice_is_inlined_twice():
    before = program(
        [product("g[nij]", "b[nti]", "a[ntj]"), product("out[n]", "g[nij]", "g[nij]")],
        "out",
        **NORM,
    )
    assert inlinable(before) == ["g"]
    after = inlined(before, ["g"])
    assert str(after) == "out[n] = sum_{t,i,j,u} b[n,t,i] * a[n,t,j] * b[n,u,i] * a[n,u,j]"
    same_value(before, after)


def test_a_diagonal_of_an_intermediate_is_inlined():
    before = program(
        [product("g[ij]", "a[ik]", "a[kj]"), product("out[i]", "g[ii]")], "out", i=3, j=3, k=3
    )
    after = inlined(before, ["g"])
    assert str(after) == "out[i] = sum_k a[i,k] * a[k,i]"
    same_value(before, after)


def test_results_and_what_formulas_read_or_make_stay():
    square = Epilogue(Apply("multiply", (CONTRACTED, CONTRACTED)))
    added = Epilogue(Apply("add", (CONTRACTED, Read(access("t1[i]")))))
    before = program(
        [
            product("t0[i]", "a[ij]", epilogue=square),
            product("t1[i]", "b[ij]"),
            product("x[i]", "b[ij]", "t0[i]"),
            product("y[i]", "t0[i]", "x[i]", epilogue=added),
        ],
        "x",
        "y",
        i=2,
        j=3,
    )
    assert inlinable(before) == []


# --- the choice -----------------------------------------------------------------------------------


def chosen(text: str, operands: str, **extents: int) -> tuple[str, list[str]]:
    found = factorize(program_of(text, operands, **extents), True, MACHINE, "f4")
    return describe(found.program), str(found.program).splitlines()


def test_short_sequences_make_gram_matrices_and_long_ones_the_gradient():
    text, operands = "nti,nsi,ntj,nsj->n", "bbaa"
    assert chosen(text, operands, n=8, t=32, s=32, i=256, j=256)[0] == "Gram"
    assert chosen(text, operands, n=8, t=900, s=900, i=64, j=64) == (
        "instantiated",
        [
            "t0[n,i,j] = sum_t b[n,t,i] * a[n,t,j]",
            "out[n] = sum_{i,j} t0[n,i,j] * t0[n,i,j]",
        ],
    )


def test_both_forms_are_candidates_by_name():
    found = factorize(
        program_of("nti,nsi,ntj,nsj->n", "bbaa", n=8, t=64, s=64, i=64, j=64), True, MACHINE, "f4"
    )
    names = {*dict(found.candidates)}
    assert "instantiated" in names
    assert any("Gram" in name for name in names)


@pytest.mark.parametrize(
    ("text", "operands", "steps"),
    [
        (
            "nlp,nlq->l",
            "aa",
            ["t0[n,l] = sum_p a[n,l,p]", "out[l] = sum_n t0[n,l] * t0[n,l]"],
        ),
        (
            "nti,nsi->n",
            "bb",
            ["t0[n,i] = sum_t b[n,t,i]", "out[n] = sum_i t0[n,i] * t0[n,i]"],
        ),
        (
            "nct,nct,ncs,ncs->n",
            "bxbx",
            ["t0[n,c] = sum_t b[n,c,t] * x[n,c,t]", "out[n] = sum_c t0[n,c] * t0[n,c]"],
        ),
        (
            "ni,ni,nj,nj->n",
            "bbaa",
            [
                "t0[n] = sum_i b[n,i] * b[n,i]",
                "t1[n] = sum_j a[n,j] * a[n,j]",
                "out[n] = t0[n] * t1[n]",
            ],
        ),
        (
            "nto,or,nti,nsp,pr,nsi->n",
            "bwabwa",
            [
                "t0[n,t,r] = sum_o b[n,t,o] * w[o,r]",
                "t1[n,r,i] = sum_t t0[n,t,r] * a[n,t,i]",
                "out[n] = sum_{r,i} t1[n,r,i] * t1[n,r,i]",
            ],
        ),
    ],
)
def test_known_forms(text, operands, steps):
    extents = {index: 90 for index in text if index.isalpha()} | {"n": 16, "r": 8}
    assert chosen(text, operands, **extents)[1] == steps


def test_norms_of_outer_products_take_as_many_operations_as_their_factors_have_elements():
    n, i, j = 64, 300, 500
    found = factorize(program_of("ni,ni,nj,nj->n", "bbaa", n=n, i=i, j=j), True, MACHINE, "f4")
    assert found.cost.flops == 2 * n * (i + j) + n


def test_a_function_has_the_plan_of_the_equation():
    extents = {"n": 8, "t": 500, "i": 64, "j": 32}
    body = program(
        [product("g[nij]", "b[nti]", "a[ntj]"), product("out[n]", "g[nij]", "g[nij]")],
        "out",
        **extents,
    )
    short = body.with_statements(body.statements)
    found = factorize(short, True, MACHINE, "f4")
    assert describe(found.program) == "instantiated"
    few = program(
        [product("g[nij]", "b[nti]", "a[ntj]"), product("out[n]", "g[nij]", "g[nij]")],
        "out",
        n=8,
        t=8,
        i=640,
        j=320,
    )
    found = factorize(few, True, MACHINE, "f4")
    assert found.chosen == "g inlined: Gram"
    same_value(few, found.program)


def test_kept_where_inlining_costs_more():
    several = program(
        [
            product("g[ik]", "a[ij]", "b[jk]"),
            product("x[il]", "g[ik]", "c[kl]"),
            product("y[il]", "g[ik]", "d[kl]"),
        ],
        "x",
        "y",
        i=100,
        j=100,
        k=100,
        l=100,
    )
    found = factorize(several, True, MACHINE, "f4")
    assert len(found.program.statements) == 3
    verify_program(found.program)


# --- values ---------------------------------------------------------------------------------------


@st.composite
def repeated_operands(draw):
    """An equation of up to six factors, several of which are one tensor."""
    extents = {name: draw(st.integers(1, 4)) for name in "abcdef"}
    kinds = [
        draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
        for _ in range(draw(st.integers(1, 3)))
    ]
    by_extent: dict[int, list[str]] = {}
    for name, extent in extents.items():
        by_extent.setdefault(extent, []).append(name)
    terms, operands = [], ""
    for _ in range(draw(st.integers(2, 6))):
        kind = draw(st.integers(0, len(kinds) - 1))
        shape = [sorted(by_extent)[axis % len(by_extent)] for axis in kinds[kind]]
        terms.append("".join(draw(st.sampled_from(by_extent[extent])) for extent in shape))
        operands += "xyz"[kind]
    used = sorted({*"".join(terms)})
    output = "".join(draw(st.lists(st.sampled_from(used), unique=True, max_size=3)))
    return program_of(f"{','.join(terms)}->{output}", operands, **extents)


@examples(100)
@given(repeated_operands(), st.sampled_from([MACHINE, EAGER]))
def test_every_candidate_has_the_value_of_the_equation(equation, machine):
    found = factorize(equation, True, machine, "f8")
    for candidate in found.programs.values():
        same_value(equation, candidate)


@examples(70)
@given(repeated_operands())
def test_computing_once_never_costs_more(equation):
    for path in shared_paths(equation.statements[0], equation.sizes, "f8", EAGER):
        split = follow(equation, path)
        once = compute_once(split)
        assert program_cost(once, "f8", EAGER).seconds <= program_cost(split, "f8", EAGER).seconds
        same_value(equation, once)
        once_more = [s for s in once.statements if list(renamings(s, s, once.sizes))]
        assert len(once_more) == len(once.statements)  # each is equal to itself


@examples(70)
@given(st.data())
def test_inlining_and_splitting_again_keep_the_value(data):
    equation = data.draw(repeated_operands())
    paths = shared_paths(equation.statements[0], equation.sizes, "f8", EAGER)
    split = follow(equation, paths[0]) if paths else equation
    once = compute_once(split)
    names = inlinable(once)
    some = [name for name in names if data.draw(st.booleans())]
    same_value(equation, inlined(once, some))
    for candidate in factorize(once, True, EAGER, "f8").programs.values():
        same_value(equation, candidate)


def test_gram_matrices_are_known_by_their_swap():
    sizes = dict(NORM) | {"h": 2}
    gram = program_of("nthi,nshi->nhts", "bb", **sizes).statements[0]
    assert gram_swap(gram) == {"t": "s"}
    assert gram_swap(program_of("nti,nsi->nts", "ba", **sizes).statements[0]) is None
    assert gram_swap(program_of("nti,nti->nt", "bb", **sizes).statements[0]) is None
    assert gram_swap(program_of("ts,si->ti", "bb", t=5, s=5, i=5).statements[0]) is None


@pytest.mark.parametrize("form", ["instantiated", "Gram"])
def test_errors_of_norms_that_cancel_stay_within_the_bound(form):
    rng = np.random.default_rng(0)
    n, t, i, j = 4, 60, 40, 30
    half_b, half_a = (rng.standard_normal((n, t // 2, e)).astype("f4") for e in (i, j))
    b = np.concatenate([half_b, -half_b], axis=1)
    a = np.concatenate([half_a, half_a], axis=1)  # every term has its negative
    equation = program_of("nti,nsi,ntj,nsj->n", "bbaa", n=n, t=t, s=t, i=i, j=j)
    found = factorize(equation, True, MACHINE, "f4")
    split = next(p for p in found.programs.values() if describe(p) == form)
    sizes = np.linalg.norm(b, axis=2) * np.linalg.norm(a, axis=2)
    bound = (max(t * t, i * j) + 2) * 2.0**-24 * sizes.sum(axis=1) ** 2
    result = evaluate(split, {"b": b, "a": a}).astype("f8")
    assert (np.abs(result) <= bound).all()
    if form == "instantiated":
        assert (result >= 0).all()
