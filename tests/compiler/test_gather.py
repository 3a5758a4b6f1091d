"""Sums into affine axes of any kind, as boxes that write each element once."""

import random

import numpy as np
import pytest
from einsumc import EinsumError
from einsumc.compiler.evaluate import evaluate, evaluate_statement, verify_program
from einsumc.compiler.inside import ZERO
from einsumc.compiler.pad import pad
from einsumc.compiler.program import from_expression
from einsumc.compiler.regions import boxes
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse


def check(text, *shapes):
    """Boxes write what the equation means; each element once, or zeros first."""
    program = from_expression(resolve(parse(text), shapes))
    rng = np.random.default_rng(0)
    values = {
        name: rng.integers(-3, 4, shape).astype("f8")
        for name, shape in zip(program.inputs, shapes, strict=True)
    }
    expected = evaluate(program, values)
    padded = pad(program)
    verify_program(padded)
    values[ZERO] = np.zeros(())
    for statement in padded.statements:
        made = np.full(padded.shapes[statement.target.tensor], np.nan)
        for box in boxes(statement, padded.shapes, padded.sizes):
            value = evaluate_statement(box.statement, values, box.extents)
            target = box.statement.target
            position = dict(zip(target.names, np.indices(value.shape), strict=True))
            places = [axis.evaluate(position) for axis in target.subscripts]
            made[tuple(np.broadcast_to(place, value.shape) for place in places)] = value
        values[statement.target.tensor] = made
    np.testing.assert_array_equal(values[padded.result], expected)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("y, k m -> 2*y+k+m", [(9,), (3, 2)]),
        ("y, k m -> y+k+m", [(9,), (3, 2)]),
        ("n o y x, o c k l m -> n c 2*y+k+3*m-1 2*x+l+m-1", [(2, 4, 4, 5), (4, 3, 3, 3, 2)]),
        ("y+m-1, k m -> y+k", [(9,), (3, 2)]),
        ("y x, k m -> 2*y+k+m 2*x+k-m", [(4, 5), (3, 2)]),
        ("y k -> y+k y+k", [(4, 3)]),
        ("y k, k -> 2*y 3*y+k k-1", [(4, 3), (3,)]),
        ("y k m -> 2*y+k+m k+m m", [(4, 3, 3)]),
        ("y k m -> 2*y+k+m k m", [(4, 3, 3)]),
        ("x y k -> y+k x+k y+x", [(4, 3, 2)]),
    ],
)
def test_positions_that_meet(text, shapes):
    check(text, *shapes)


def random_equation(rng):
    """Terms of a few indices, and an output of sums of them."""
    names = list("yxkm")[: rng.randint(1, 4)]
    extents = {name: rng.randint(1, 4) for name in names}

    def axis():
        taken = rng.sample(names, rng.randint(1, min(3, len(names))))
        factors = [rng.choice([1, 1, 1, 2, 3, -1, -2]) for _ in taken]
        text = "".join(f"{f:+d}*{name}" for f, name in zip(factors, taken, strict=True))
        return f"{text.removeprefix('+')}{rng.choice([0, 0, -1, 1]):+d}"

    terms = [rng.sample(names, rng.randint(1, len(names))) for _ in range(rng.randint(1, 2))]
    terms[0] += [name for name in names if not any(name in term for term in terms)]
    shapes = [tuple(extents[name] for name in term) for term in terms]
    if rng.random() < 0.3:
        terms[0].append(axis())
        shapes[0] += (rng.randint(1, 6),)
    output = [rng.choice(names) if rng.random() < 0.3 else axis() for _ in range(rng.randint(1, 3))]
    return f"{', '.join(map(' '.join, terms))} -> {' '.join(output)}", shapes


@pytest.mark.parametrize("seed", range(60))
def test_any_sum_of_indices_may_be_an_output(seed):
    rng = random.Random(seed)
    for _ in range(5):
        text, shapes = random_equation(rng)
        try:
            resolve(parse(text), shapes)
        except EinsumError:  # nothing of it is left
            continue
        check(text, *shapes)
