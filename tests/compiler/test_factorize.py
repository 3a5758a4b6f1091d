"""Whatever the path, the value is that of np.einsum; and the path is a good one."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import combinations
from math import prod
from pathlib import Path
from random import Random

import numpy as np
import opt_einsum
import pytest
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.evaluate import evaluate, verify_program
from einsumc.compiler.factorize import MOST_FACTORS, Factorization, factorize, follow
from einsumc.compiler.machine import TARGETS, Machine
from einsumc.compiler.paths import pairwise
from einsumc.compiler.program import Program, from_expression
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from hypothesis import given
from hypothesis import strategies as st
from opt_einsum.testing import rand_equation
from strategies import Drawn, draw_equation
from strategies import evaluate as reference
from sweeps import examples

MACHINE = Machine(TARGETS["x86-64-v3"])
EAGER = Machine(TARGETS["x86-64-v3"], speeds=replace(MACHINE.speeds, call=1e-30))
"""Where starting a step costs nothing, as beside large operands."""

CASES = Path(__file__).parents[2] / "benchmarks" / "cases"


def program_of(text: str, **extents: int) -> Program:
    terms = text.partition("->")[0].split(",")
    return from_expression(resolve(parse(text), [[extents[i] for i in term] for term in terms]))


def chosen(text: str, **extents: int) -> list[str]:
    return str(factorize(program_of(text, **extents), True, MACHINE, "f8").program).splitlines()


# --- values ---------------------------------------------------------------------------------------


def random_path(data: st.DataObject, operands: int) -> list[tuple[int, ...]]:
    """A path with contractions of one, two and more operands."""
    path = []
    left = operands
    while left > 1 or not path:
        step = data.draw(
            st.lists(st.integers(0, left - 1), min_size=1, max_size=3, unique=True).map(tuple)
        )
        path.append(step)
        left += 1 - len(step)
        if len(path) == 8:
            path.append(tuple(range(left)))
            break
    return path


NAMED = [
    True,
    False,
    None,
    "greedy",
    "optimal",
    "auto",
    "branch-2",
    "dp",
    ("greedy", 8),
    ["optimal", 50.0],
    ("greedy", -1),
    opt_einsum.BranchBound(nbranch=1),
    lambda inputs, output, sizes, limit: [tuple(range(len(inputs)))],
]


@examples(100)
@given(st.data())
def test_every_choice_gives_the_value_of_the_equation(data):
    equation = draw_equation(Drawn(data.draw), repeated_output=False)
    optimize = data.draw(st.sampled_from([*NAMED, "path", "einsum_path"]))
    if optimize in ("path", "einsum_path"):
        path = random_path(data, len(equation.shapes))
        optimize = [optimize, *path] if optimize == "einsum_path" else path
    elif isinstance(optimize, opt_einsum.BranchBound):
        optimize = opt_einsum.BranchBound(nbranch=1)  # it is good for one equation
    program = from_expression(resolve(parse(equation.text), equation.shapes))
    result = factorize(program, optimize, data.draw(st.sampled_from([MACHINE, EAGER])), "f8")
    verify_program(result.program)
    assert result.chosen in dict(result.candidates)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, shape) for shape in equation.shapes]
    named = dict(zip(program.inputs, arrays, strict=True))
    np.testing.assert_array_equal(evaluate(result.program, named), reference(equation, arrays))


@examples(30)
@given(st.integers(0, 10**6), st.integers(3, 5))
def test_networks_give_the_value_of_the_equation(seed, operands):
    text, shapes = rand_equation(operands, 3, 1, d_max=4, seed=seed)[:2]
    program = from_expression(resolve(parse(text), shapes))
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-2, 3, shape).astype(float) for shape in shapes]
    result = factorize(program, True, EAGER, "f8").program
    verify_program(result)
    expected = np.einsum(text, *arrays, optimize="greedy")
    np.testing.assert_array_equal(
        evaluate(result, dict(zip(program.inputs, arrays, strict=True))), expected
    )


# --- choices --------------------------------------------------------------------------------------


def test_two_sums_of_squares_and_their_product():
    expression = resolve(parse("ni,ni,nj,nj->n"), [(256, 1024)] * 2 + [(256, 784)] * 2)
    program = from_expression(expression, names="bcad", same=[0, 0, 2, 2])
    assert str(factorize(program, True, MACHINE, "f4").program).splitlines() == [
        "t0[n] = sum_i b[n,i] * b[n,i]",
        "t1[n] = sum_j a[n,j] * a[n,j]",
        "out[n] = t0[n] * t1[n]",
    ]


def test_a_chain_is_contracted_from_its_thin_end():
    assert chosen("ij,jk,kl->il", i=500, j=500, k=500, l=3) == [
        "t0[j,l] = sum_k b[j,k] * c[k,l]",
        "out[i,l] = sum_j a[i,j] * t0[j,l]",
    ]
    assert chosen("ij,jk,kl->il", i=3, j=500, k=500, l=500) == [
        "t0[i,k] = sum_j a[i,j] * b[j,k]",
        "out[i,l] = sum_k t0[i,k] * c[k,l]",
    ]


def test_small_operands_stay_in_one_step():
    assert len(chosen("ki,k,kj,k->ij", k=8, i=4, j=4)) == 1
    assert len(chosen("ki,k,kj,k->ij", k=1000, i=100, j=100)) > 1


def test_the_cheapest_candidate_is_chosen():
    result = factorize(
        program_of("ij,jk,kl,lm->im", i=9, j=80, k=7, l=60, m=5), True, MACHINE, "f4"
    )
    assert result.cost.seconds == min(cost.seconds for _, cost in result.candidates)
    assert [name for name, _ in result.candidates] == [
        "unsplit",
        "searched",
        "searched 2",
        "left to right",
        "opt_einsum greedy",
        "opt_einsum auto",
    ]


def test_the_choice_is_the_same_every_time():
    program = program_of("ij,jk,kl,lm->im", i=9, j=80, k=7, l=60, m=5)
    assert factorize(program, True, MACHINE, "f4") == factorize(program, True, MACHINE, "f4")


# --- paths ----------------------------------------------------------------------------------------


def test_a_path_is_followed_exactly():
    program = program_of("ij,jk,kl->l", i=2, j=3, k=4, l=5)
    result = factorize(program, [(2,), (0,), (0, 1, 2)], MACHINE, "f8")
    assert str(result.program).splitlines() == [
        "t0[k,l] = c[k,l]",
        "t1[j] = sum_i a[i,j]",
        "out[l] = sum_{j,k} t1[j] * b[j,k] * t0[k,l]",
    ]
    assert result.chosen == "path"
    assert factorize(program, ["einsum_path", (2,), (0,), (0, 1, 2)], MACHINE, "f8") == result


def test_without_optimization_nothing_is_split():
    program = program_of("ij,jk,kl->l", i=200, j=300, k=400, l=500)
    assert factorize(program, False, MACHINE, "f8").program == program


def test_an_intermediate_has_shared_axes_first_and_the_neighbours_of_the_result_last():
    program = program_of("bij,bjk,bkl->bil", b=2, i=3, j=4, k=5, l=6)
    assert str(follow(program, ((0, 1), (0, 1)))).startswith("t0[b,i,k] = ")
    program = program_of("lj,jk,ki->il", i=3, j=4, k=5, l=6)
    assert str(follow(program, ((0, 1), (0, 1)))).startswith("t0[k,l] = ")


@pytest.mark.parametrize(
    ("optimize", "message"),
    [
        ([(0, 3), (0, 1)], r"at step \(0, 3\), 3 operands are left"),
        ([(0, 1), (0, 1), (1,)], r"at step \(1,\), 1 operand is left"),
        ([(-1, 0), (0, 1)], r"at step \(-1, 0\), 3 operands"),
        ([(0, 0), (0, 1)], r"at step \(0, 0\), 3 operands"),
        ([(), (0, 1, 2)], r"at step \(\), 3 operands"),
        ([(0, 1)], "leaves 2 operands"),
        ([], "invalid path"),
        (["einsum_path"], "leaves 3 operands"),
        (lambda *_: [(0, 1)], "leaves 2 operands"),
        ("fastest", "no path search called 'fastest'"),
        (("fastest", 10), "no path search called 'fastest'"),
    ],
)
def test_a_wrong_choice_is_refused(optimize, message):
    with pytest.raises(EinsumError, match=message):
        factorize(program_of("ij,jk,kl->l", i=2, j=3, k=4, l=5), optimize, MACHINE, "f8")


def test_a_callable_is_called_as_opt_einsum_calls_it():
    seen = []

    def search(inputs, output, sizes, memory_limit):
        seen.append((inputs, output, sizes, memory_limit))
        return [(0, 1), (0, 1)]

    result = factorize(program_of("ij,jk,kl->il", i=2, j=3, k=4, l=5), search, MACHINE, "f8")
    assert result.candidates[0][0] == result.chosen == "search"
    ((inputs, output, sizes, limit),) = seen
    assert [sorted(sizes[symbol] for symbol in term) for term in inputs] == [[2, 3], [3, 4], [4, 5]]
    assert (sorted(sizes[symbol] for symbol in output), limit) == ([2, 5], None)


def test_a_memory_limit_is_kept():
    program = program_of("ij,jk,kl->il", i=50, j=2, k=50, l=2)
    result = factorize(program, ("optimal", 200), MACHINE, "f8").program
    intermediates = [result.shapes[step.target.tensor] for step in result.statements[:-1]]
    assert all(prod(shape) <= 200 for shape in intermediates)


# --- large networks -------------------------------------------------------------------------------


def planned(text: str, shapes: list[tuple[int, ...]]) -> Factorization:
    program = from_expression(resolve(parse(text), shapes))
    result = factorize(program, True, MACHINE, "f8")
    verify_program(result.program)
    return result


def test_a_network_of_hundreds_has_a_step_fewer_than_operands():
    text, shapes = rand_equation(300, 3, n_out=2, d_max=4, seed=0)[:2]
    assert len(planned(text, shapes).program.statements) == 299


def test_cotengra_is_a_candidate_where_it_is_installed():
    pytest.importorskip("cotengra")
    text, shapes = rand_equation(40, 3, n_out=2, d_max=6, seed=0)[:2]
    result = planned(text, shapes)
    assert any("cotengra" in name for name in dict(result.candidates))
    assert planned(text, shapes) == result


def load(name: str) -> list[dict]:
    path = CASES / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


@pytest.mark.parametrize(
    "case",
    [*load("einsum_instances.json"), *load("issue_cases.json")],
    ids=lambda case: case["name"],
)
def test_cases_are_planned(case):
    result = planned(case["eq"], [tuple(shape) for shape in case["shapes"]])
    operands = len(case["shapes"])
    sums = sum(len(step.factors) == 1 for step in result.program.statements)
    assert len(result.program.statements) - sums <= max(operands - 1, 1)
    assert max(len(step.factors) for step in result.program.statements) <= MOST_FACTORS


@pytest.mark.parametrize("case", load("einsum_instances.json"), ids=lambda case: case["name"])
def test_the_paths_of_cases_are_followed(case):
    program = from_expression(resolve(parse(case["eq"]), case["shapes"]))
    for record in case["paths"].values():
        followed = factorize(program, record["path"], MACHINE, "f8").program
        verify_program(followed)
        assert [len(step.factors) for step in followed.statements] == list(map(len, record["path"]))


# --- windows --------------------------------------------------------------------------------------


def windows_of(text: str, *shapes: tuple[int, ...]) -> Program:
    return from_expression(resolve(parse(text), shapes))


def test_an_axis_that_a_step_leaves_alone_stays_whole():
    program = windows_of("n c y+k-1, c r, r k -> n r y", (2, 3, 9), (3, 4), (4, 3))
    split = follow(program, ((0, 1), (0, 1)))
    assert str(split) == (
        "t0[r,n,t0.0] = sum_c a[n,c,t0.0] * b[c,r]\nout[n,r,y] = sum_k t0[r,n,k+y-1] * c[r,k]"
    )
    assert split.shapes["t0"] == (4, 2, 9)


def test_an_axis_whose_indices_a_step_needs_does_not():
    program = windows_of("n c y+k-1, c y, c k -> n y", (2, 3, 9), (3, 9), (3, 3))
    split = follow(program, ((0, 1), (0, 1)))
    assert str(split.statements[0]) == "t0[c,y,n,k] = a[n,c,k+y-1] * b[c,y]"


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("n c y+k-1, c r, r k -> n r y", [(2, 3, 9), (3, 4), (4, 3)]),
        ("c 2*y+k-1 x+l, c k r, r l o, o p -> p y x", [(2, 9, 6), (2, 3, 2), (2, 2, 3), (3, 2)]),
        ("y+k-1, y+k-1, k, j -> y", [(6,), (6,), (3,), (2,)]),
        ("y+k+m-2, k, m, j -> y j", [(6,), (3,), (2,), (2,)]),
        ("c y+k-1, c, k -> y", [(3, 6), (3,), (3,)]),
        ("n o y, o r, r k -> n 2*y+k-1", [(2, 3, 5), (3, 2), (2, 3)]),
    ],
)
def test_any_path_over_windows_gives_the_same(text, shapes):
    program = windows_of(text, *shapes)
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(-3, 4, program.shapes[name]) for name in program.inputs}
    expected = evaluate(program, arrays)
    for path in paths(len(shapes)):
        np.testing.assert_array_equal(evaluate(follow(program, path), arrays), expected)


def paths(factors: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every order of pairwise contractions."""
    if factors == 1:
        yield ()
        return
    for pair in combinations(range(factors), 2):
        yield from ((pair, *rest) for rest in paths(factors - 1))


@pytest.mark.parametrize("seed", range(20))
def test_small_products_need_no_other_search(seed):
    random = Random(seed)
    letters = "abcdefgh"[: random.randint(4, 8)]
    sizes = {letter: int(2 ** random.uniform(0, 9)) for letter in letters}
    terms = ["".join(random.sample(letters, random.randint(1, 4))) for _ in range(3)]
    output = "".join(sorted({*"".join(terms)})[: random.randint(0, 3)])
    program = program_of(f"{','.join(terms)}->{output}", **sizes)
    found = factorize(program, True, MACHINE, "f8")
    assert not any(name.startswith("opt_einsum") for name, _ in found.candidates)
    for name in ("greedy", "optimal"):
        other = factorize(program, name, MACHINE, "f8")
        assert found.cost.seconds <= other.cost.seconds


def test_pairs_without_any_other_package():
    text = "ab,bc,cd,de,ef,fg,gh,hi,ij,jk->ak"
    sizes = dict.fromkeys("abcdefghijk", 9)
    program = program_of(text, **sizes)
    found = factorize(program, pairwise, MACHINE, "f4")
    assert all(len(statement.factors) == 2 for statement in found.program.statements)
    arrays = {n: np.random.default_rng(0).random((9, 9)) for n in found.program.inputs}
    expected = reduce(np.matmul, arrays.values())
    np.testing.assert_allclose(evaluate(found.program, arrays), expected)


def test_the_windows_path_is_that_of_least_work():
    shapes = [(8, 64, 34, 34), (64, 16), (16, 16, 3, 3), (16, 64)]
    text = "n c h+k w+l, c r, r s k l, s o -> n o h w"
    found = factorize(windows_of(text, *shapes), True, MACHINE, "f4")
    flops = {name: cost.flops for name, cost in found.candidates}
    assert flops["windows"] == min(flops.values()) < flops["searched"]
