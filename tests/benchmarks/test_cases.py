"""The benchmark cases are what their files say, shrink without changing character, and compute."""

import itertools
import json
import math

import einsumc
import numpy as np
import pytest
from benchmark_scripts import BENCHMARKS, benchmark

cases = benchmark("cases")
peers = benchmark("peers")

ALL = cases.load_all()
LIMITS = [(1e9, 128 * 2**20), (5e7, 8 * 2**20)]


def named(case):
    return case.name


def rows(suite):
    return json.loads((BENCHMARKS / "cases" / f"{suite}.json").read_text(encoding="utf-8"))


def miniature(case):
    """The case with extents so small that plain loops can compute it.

    Filters (k, l, m) stay where there is padding, which would be too much for smaller ones.
    """
    padded = any(axis.offset for access in case.expression.inputs for axis in access)
    return case.with_extents(
        {
            index: extent if padded and index in "klm" else min(extent, 2)
            for index, extent in case.extents.items()
        }
    )


def by_loops(case, operands):
    """The definition: loop over every index, read out of range as zero."""
    indices = case.expression.indices
    result = np.zeros(case.output_shape)
    for point in itertools.product(*(range(case.extents[index]) for index in indices)):
        at = dict(zip(indices, point, strict=True))
        product = 1.0
        for access, operand in zip(case.expression.inputs, operands, strict=True):
            place = tuple(a.offset + sum(c * at[i] for c, i in a.terms) for a in access)
            inside = all(0 <= p < n for p, n in zip(place, operand.shape, strict=True))
            product *= operand[place] if inside else 0.0
        result[tuple(at[index] for index in case.expression.output)] += product
    return result


def test_every_suite_loads():
    assert {path.stem for path in (BENCHMARKS / "cases").glob("*.json")} == set(cases.SUITES)
    assert len(ALL) == 175
    assert len({case.name for case in ALL}) == len(ALL)
    assert all(case.source and case.kind for case in ALL)


def test_dtype_can_be_chosen():
    assert {case.dtype for case in cases.load_all("float32")} == {"float32"}
    wide, narrow = cases.load("tccg", "float64")[0], cases.load("tccg", "float32")[0]
    assert wide.shapes != narrow.shapes  # the benchmark has sizes for each


def test_flops_are_those_of_the_files():
    for case, row in zip(cases.load("tccg"), rows("tccg"), strict=True):
        assert case.cost.flops == pytest.approx(row["gflop"] * 1e9)
    for case, row in zip(cases.load("hptt_transposes"), rows("hptt_transposes"), strict=True):
        assert math.prod(case.output_shape) == row["elements"]
    for case, row in zip(cases.load("norm_cases"), rows("norm_cases"), strict=True):
        for program in case.programs:
            flops, largest = case.program_cost(program)
            declared = row["programs"][program.name]
            assert (flops, largest) == (declared["flops"], declared["largest_intermediate"])


def test_indices_of_one_operand_alone_cost_their_sum():
    (case,) = (case for case in ALL if case.name == "oe112_repeated")  # nlp,nlq->l
    size = math.prod(case.shapes[0])
    assert case.cost.flops == size + 2 * 100 * 100


@pytest.mark.parametrize("case", ALL, ids=named)
@pytest.mark.parametrize("limits", LIMITS)
def test_shrunk_cases_fit_and_keep_their_character(case, limits):
    flops, size = limits
    small = case.shrink(flops, size)
    assert small.cost.flops <= flops
    assert small.cost.footprint <= size
    assert small.equation == case.equation
    assert small.same_operands == case.same_operands
    for index, extent in case.extents.items():
        assert min(extent, 2) <= small.extents[index] <= extent
        if extent <= 8 and "mera" not in case.name:  # a network of nothing but small extents
            assert small.extents[index] == extent
    equal = {}
    for index, extent in case.extents.items():
        assert equal.setdefault(extent, small.extents[index]) == small.extents[index]


@pytest.mark.parametrize("case", ALL, ids=named)
def test_a_case_that_fits_stays(case):
    assert case.shrink() is case


def test_shrinking_uses_most_of_what_it_may():
    for case in cases.load("tccg"):
        small = case.shrink(1e9, 128 * 2**20)
        assert small.cost.flops > 0.25e9 or small.cost.footprint > 32 * 2**20


@pytest.mark.parametrize("equation", ["ij,jk", "i j, j -> i+j", "ij->k", "i*j k->i", "2* k->k"])
def test_malformed_equations_are_refused(equation):
    with pytest.raises(ValueError, match=r"->|axis|output"):
        cases.Expression.parse(equation)


def test_padding_and_strides_are_read_from_the_equation():
    expression = cases.Expression.parse("n c 2*y+k-1, o c k -> n o y")
    (_, _, window), _ = expression.inputs
    assert window == cases.Axis(((2, "y"), (1, "k")), -1)
    assert window.span({"y": 4, "k": 3}) == 7
    assert expression.letters() == "abcd,ebd->aec"


@pytest.mark.parametrize(
    ("equation", "axes"),
    [("cba->bca", (1, 0, 2)), ("ab->a", None), ("aa->a", None), ("ab,b->ab", None)],
)
def test_transpositions_are_recognised(equation, axes):
    assert cases.Expression.parse(equation).permutation == axes


AFFINE = [case for case in ALL if not case.expression.is_plain]


@pytest.mark.parametrize("case", AFFINE, ids=named)
def test_peers_read_windows_rightly(case):
    small = miniature(case)
    operands = small.random_operands()
    step = peers.Numpy(1).step(small.expression, small.extents, small.dtype, small.path)
    np.testing.assert_allclose(step(*operands), by_loops(small, operands), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suite", ["products", "transposed_products"])
def test_generated_products_are_square_matrix_products(suite):
    found = cases.load(suite)
    assert len({case.name for case in found}) == len(found)
    assert {case.dtype for case in found} == {"float32", "float64"}
    for case in found:
        assert case.suite == suite
        assert case.cost.flops == 2 * case.extents["i"] ** 3
    assert {case.dtype for case in cases.load(suite, "float64")} == {"float64"}


LAYERS = cases.load("conv_layers")


@pytest.mark.parametrize("case", LAYERS, ids=named)
def test_layers_are_read_rightly(case):
    small = miniature(case)
    operands = small.random_operands()
    step = peers.Numpy(1).step(small.expression, small.extents, small.dtype, small.path)
    np.testing.assert_allclose(step(*operands), by_loops(small, operands), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [*LAYERS, *cases.load("conv_cases")], ids=named)
def test_torch_convolutions_compute_every_convolution(case):
    torch = pytest.importorskip("torch")
    from torch_convolutions import TorchConvolutions

    small = miniature(case)
    arrays = dict(zip(small.operands, small.random_operands(), strict=True))
    peer = TorchConvolutions(torch.get_num_threads())
    expected = by_loops(small, list(arrays.values()))
    found = list(peer.variants(small, arrays, ()))
    assert found
    for _, call in found:
        np.testing.assert_allclose(peer.get(call()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "equation", ["ij,jk->ik", "ij,jk->ki", "ji,jk->ik", "jk,ij->ik", "ki,ij->jk", "ji,kj->ik"]
)
def test_blas_multiplies_in_any_order(equation):
    letters = equation[:5].replace(",", "")
    shared = next(letter for letter in letters if letters.count(letter) == 2)
    arrays = [  # 3 along the index that is summed, 4 and 5 along the others
        np.arange(math.prod(shape), dtype="f8").reshape(shape)
        for number, term in enumerate(equation[:5].split(","))
        for shape in [tuple(3 if letter == shared else 4 + number for letter in term)]
    ]
    multiply = peers.Blas(1).contraction(equation, [], "float64", None)
    np.testing.assert_array_equal(multiply(*arrays), np.einsum(equation, *arrays))


@pytest.mark.parametrize(
    "equation", ["ij,jk->i", "ij,ij->ij", "bij,bjk->bik", "ii,ij->ij", "ij,kl->ik", "ij->ji"]
)
def test_blas_leaves_other_equations_alone(equation):
    with pytest.raises(peers.Unsupported):
        peers.Blas(1).contraction(equation, [], "float64", None)


def test_blas_and_einsumc_write_into_one_array_where_the_case_says_so():
    case = next(c for c in cases.load("products", "float64") if c.extents["i"] == 64)
    arrays = dict(zip(case.operands, case.random_operands(), strict=True))
    try:
        for peer in (peers.Blas(1), peers.Einsumc(1)):
            ((_, call),) = peer.variants(case, arrays, ())
            assert call() is call()
            np.testing.assert_allclose(call(), arrays["A0"] @ arrays["A1"])
    finally:
        einsumc.set_num_threads(None)


@pytest.mark.parametrize(("count", "picked"), [(None, 10), (0, 10), (4, 4), (10, 10), (99, 10)])
def test_samples_are_spread_evenly(count, picked):
    found = cases.sample(ALL[:10], count)
    assert len(found) == picked
    assert found[0] is ALL[0]
    if count == 4:
        assert [ALL.index(case) for case in found] == [0, 2, 5, 7]


@pytest.mark.parametrize("case", [case for case in ALL if case.programs], ids=named)
def test_competing_programs_compute_the_equation(case):
    small = miniature(case)
    arrays = dict(zip(small.operands, small.random_operands(), strict=True))
    arrays |= {name: np.ones(shape, small.dtype) for name, shape in (small.arrays or {}).items()}
    expected = by_loops(small, [arrays[name] for name in small.operands])
    for program in small.programs:
        function, names = peers.Numpy(1).program(small, program)
        result = function(*(arrays[name] for name in names))
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5, err_msg=program.name)


def test_norms_of_convolutions_are_the_squares_of_their_gradients():
    """Each program, of windows that are laid out, against the equation's definition."""
    for case in cases.load("conv_norms")[-8:]:
        small = case.with_extents(
            {i: n if i in "klm" else min(n, 2) for i, n in case.extents.items()}
        )
        operands = small.random_operands()
        given = dict(zip(small.operands, operands, strict=True))
        given |= {name: small.unfold(operands, name) for name in small.unfolded}
        expected = by_loops(small, operands) if math.prod(small.extents.values()) < 1e5 else None
        found = []
        for program in small.programs:
            values = dict(given)
            for result, equation, names in program.steps:
                values[result] = np.einsum(equation, *(values[name] for name in names))
            found.append(values["r"])
        np.testing.assert_allclose(*found, rtol=1e-4)
        if expected is not None:
            np.testing.assert_allclose(found[0], expected, rtol=1e-4)
