"""Random formulas on random layouts and types, compared with NumPy."""

import numpy as np
import pytest
from einsumc.compiler.access import Access
from einsumc.compiler.affine import Affine
from einsumc.compiler.evaluate import evaluate
from einsumc.compiler.finish import finish_of, typed
from einsumc.compiler.formula import CONTRACTED, Apply, Constant, Read
from einsumc.compiler.machine import Machine
from einsumc.compiler.program import Epilogue, Program, Statement, Tensor
from einsumc.runtime.target import LEVELS, can_run
from hypothesis import given
from hypothesis import strategies as st
from steps import V3, run_statement
from sweeps import examples

pytestmark = pytest.mark.skipif(
    not can_run(LEVELS["x86-64-v3"]), reason="the kernels are for x86-64-v3"
)

SMALL = Machine(V3, l1_bytes=1 << 10, l2_bytes=1 << 12, partial_sum=3, worth_packing=1)
INDICES = "ijk"
FUNCTIONS = ("add", "subtract", "multiply", "minimum", "maximum", "negative", "absolute", "where")
FUNCTIONS += ("less", "equal", "logical_and", "sqrt", "exp", "tanh", "power", "divide")
ELEMENTS = ("f4", "f8", "f2", "i4", "i8", "b1", "u1")


def access(name, indices):
    return Access(name, tuple(map(Affine.index, indices)))


def some_indices(draw, among=INDICES):
    return "".join(draw(st.lists(st.sampled_from(among), unique=True, max_size=3)))


@st.composite
def formulas(draw, leaves, depth=2):
    """Functions of whole numbers that are exact, or nearly so in any order."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(leaves))
    inner = formulas(leaves, depth - 1)
    name = draw(st.sampled_from(FUNCTIONS))
    match name:
        case "negative" | "absolute":
            return Apply(name, (draw(inner),))
        case "where":
            return Apply(
                name, (Apply("greater", (draw(inner), draw(inner))), draw(inner), draw(inner))
            )
        case "less" | "equal" | "logical_and":
            return Apply("multiply", (Apply(name, (draw(inner), draw(inner))), draw(inner)))
        case "sqrt" | "exp" | "tanh":
            bounded = Apply("minimum", (Apply("absolute", (draw(inner),)), Constant(3)))
            return Apply(name, (bounded,))
        case "power":
            return Apply(name, (draw(inner), Constant(draw(st.sampled_from([2, 3])))))
        case "divide":
            bounded = Apply("maximum", (Apply("absolute", (draw(inner),)), Constant(1)))
            return Apply(name, (draw(inner), bounded))
    return Apply(name, (draw(inner), draw(inner)))


def values(rng, shape, element, stride):
    low = 0 if element[0] in "ub" else -3
    shape = [n * max(1, abs(stride)) for n in shape]
    found = np.array(rng.integers(low, 2 if element == "b1" else 4, shape), element)
    return found[(..., *(slice(None, None, stride) for _ in shape))]


@examples(20)
@given(st.data())
def test_random_statements(data):
    draw = data.draw
    accumulator = draw(st.sampled_from(["f4", "f8"]))
    factors = [access(f"a{n}", some_indices(draw)) for n in range(draw(st.integers(1, 2)))]
    inner = dict.fromkeys(i for f in factors for i in f.names)
    contracted = [i for i in inner if draw(st.booleans())][:2]
    outer = [i for i in INDICES if i not in contracted]
    reads = [access(f"b{n}", some_indices(draw, outer)) for n in range(draw(st.integers(0, 2)))]
    leaves = [CONTRACTED, *map(Read, reads), Constant(2), Constant(-1.5)]
    value = draw(formulas(leaves))
    used = {i for a in (*factors, *reads) for i in a.names}
    free = [i for i in outer if i in used]
    over = tuple(i for i in free if draw(st.booleans()))
    target = access("out", draw(st.permutations([i for i in free if i not in over])))
    statement = Statement(target, tuple(factors), Epilogue(value, over))
    used = {i for a in statement.accesses for i in a.names}
    if not {*target.names, *over, *contracted} <= used:
        return  # an index of a tensor that the formula does not read
    extents = {i: draw(st.sampled_from([1, 2, 3, 7, 9, 17])) for i in INDICES}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = {}
    for a in statement.accesses:
        element = accumulator if a in factors else draw(st.sampled_from(ELEMENTS))
        shape = [extents[i] for i in a.names]
        arrays.setdefault(a.tensor, values(rng, shape, element, draw(st.sampled_from([1, 2, -1]))))
    finish = finish_of(statement)
    reads_in_order = statement.operands[len(factors) :]
    elements = [f"{arrays[a.tensor].dtype.kind}{arrays[a.tensor].itemsize}" for a in reads_in_order]
    try:
        element = typed(finish.formula, [accumulator, *elements])
    except TypeError:
        return  # NumPy does not subtract or negate truth values
    if element == "b1":
        element = "i4"  # whose sums are counts
    tensors = [Tensor(name, array.shape) for name, array in arrays.items()]
    out = np.full([extents[i] for i in target.names], 99, element)
    exact = {
        name: array.astype("f4") if array.dtype == "f2" else array for name, array in arrays.items()
    }
    program = Program(
        (*tensors, Tensor("out", out.shape)),
        tuple(arrays),
        (statement,),
        ("out",),
        tuple(extents.items()),
    )
    with np.errstate(all="ignore"):
        expected = evaluate(program, exact)
    operands = [arrays[a.tensor] for a in statement.operands]
    run_statement(statement, extents, [*operands, out], accumulator, SMALL)
    if expected.dtype == bool:
        expected = expected.astype(element)
        if over:
            return  # NumPy's sum of truth values is a disjunction here
    # What NumPy and a kernel compute in f4, in whatever order; NumPy's roots of bytes are f2.
    tolerance = 1e-3 if expected.dtype == np.float16 else 1e-5
    size = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    np.testing.assert_allclose(
        out, expected, rtol=tolerance, atol=tolerance * size, err_msg=str(statement)
    )
