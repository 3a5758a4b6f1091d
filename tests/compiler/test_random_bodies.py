"""Random bodies: whatever is made of the operations that can be traced is what NumPy computes."""

from math import prod

import numpy as np
from einsumc.compiler.evaluate import evaluate_all, verify_program
from einsumc.compiler.trace import Place, filled, trace, unfold
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn
from sweeps import examples
from traced_bodies import check

_DTYPES = ("f4", "f8", "i4", "?", "c16")
_EXTENTS = (1, 2, 3, 4, 6)


class Body:
    """A list of operations, each on arrays that operations before it have made."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, *operands):
        made = list(operands)
        for function, places in self.steps:
            made.append(function(*(made[place] for place in places)))
        return made[-1], tuple(made[len(operands) : -1 : 2])


def unary(source, array):
    """An operation on one array."""
    rank, shape = array.ndim, array.shape
    axis = source.integer(0, rank - 1) if rank else 0
    choices = [
        lambda x: x * 2,
        lambda x: x + x,
        lambda x: abs(x),
        lambda x: x > 0.5 if x.dtype.kind != "c" else x != 0,
        lambda x: np.where(x != 0, x, 0.25),
        lambda x: x.astype("f8") if x.dtype.kind != "c" else x,
        lambda x: np.tanh(abs(x) * 1.0),  # of bools without it: half precision, kept wider here
        lambda x: x.T,
        lambda x: x[None],
        lambda x: x.sum(),
    ]
    if rank:
        order = list(range(rank))
        order[0], order[axis] = order[axis], order[0]
        choices += [
            lambda x: x.sum(axis=axis),
            lambda x: x.mean(axis=axis, keepdims=True),
            lambda x: x.transpose(order),
            lambda x: np.expand_dims(x, axis),
            lambda x: x[(slice(None),) * axis + (slice(None, None, -1),)],
            lambda x: x[(slice(None),) * axis + (-1,)],
            lambda x: x.reshape(-1),
            lambda x: x.reshape(*x.shape[:axis], -1),
        ]
        if shape[axis] % 2 == 0:
            choices.append(
                lambda x: x.reshape(*x.shape[:axis], 2, x.shape[axis] // 2, *x.shape[axis + 1 :])
            )
    if rank == 2:
        choices += [lambda x: x @ x.T, lambda x: np.einsum("ij,ij->i", x, x), np.diagonal]
    return source.choice(choices)


BINARY = [
    lambda x, y: x + y,
    lambda x, y: x * y,
    lambda x, y: np.where(x == y, x, y),
    lambda x, y: np.tensordot(x, y, axes=0) if x.ndim + y.ndim < 4 else x * 1,
    lambda x, y: x @ y if x.ndim and y.ndim and x.shape[-1] == y.shape[max(-2, -y.ndim)] else y * 1,
]


@st.composite
def bodies(draw):
    """A body, and operands for it."""
    source = Drawn(draw)
    numbers = np.random.default_rng(source.integer(0, 99))
    operands = []
    for _ in range(source.integer(1, 3)):
        shape = [source.choice(_EXTENTS) for _ in range(source.integer(0, 3))]
        dtype = np.dtype(source.choice(_DTYPES))
        operands.append(np.array(numbers.integers(-2, 3, shape) / 2).astype(dtype))
    made, steps = list(operands), []
    for _ in range(source.integer(1, 6)):
        places = [source.integer(0, len(made) - 1)]
        if source.chance(40):
            places.append(source.integer(0, len(made) - 1))
            function = source.choice(BINARY)
        else:
            function = unary(source, made[places[0]])
        try:
            with np.errstate(all="ignore"):
                result = np.asarray(function(*(made[place] for place in places)))
        except (ValueError, TypeError):  # shapes that do not go together
            continue
        if prod(result.shape) <= 5000 and result.ndim <= 5:
            made.append(result)
            steps.append((function, places))
    return Body(steps or [(lambda x: x * 1, [0])]), operands


@examples(80)
@given(bodies())
def test_a_random_body_is_what_numpy_computes(drawn):
    body, operands = drawn
    with np.errstate(all="ignore"):
        expected = body(*operands)
    places = tuple(Place(n) for n in range(len(operands)))
    try:
        traced = trace(body, (places, {}), operands)
        shapes = [array.shape for array in operands]
        unfolded = unfold(traced, shapes)
    except ValueError as error:  # a reshape that no access can express
        known = ("cannot become", "cannot be walked", "a part of an axis that was merged")
        assert any(text in str(error) for text in known), error
        return
    verify_program(unfolded.program)
    given = [*operands, *unfolded.constants]
    found = evaluate_all(unfolded.program, dict(zip(unfolded.program.inputs, given, strict=True)))
    results = [
        found[result.tensor].transpose(np.argsort(result.order)).reshape(result.shape)[()]
        for result in unfolded.results
    ]
    with np.errstate(all="ignore"):
        expected = body(*map(np.asarray, operands))
    check(filled(traced.returned(traced.shapes(shapes)), results), expected, operands)
