"""A traced function is a program that evaluates to what NumPy makes of the same body."""

import numpy as np
import pytest
from einsumc.compiler.evaluate import evaluate_all, verify_program
from einsumc.compiler.trace import Place, filled, trace, unfold
from traced_bodies import BODIES, check, numpys, operands_of


def run(function, arrays, traced=None):
    """What a function returns, by way of its trace and the slow interpreter."""
    if traced is None:
        places = tuple(Place(n) for n in range(len(arrays)))
        traced = trace(function, (places, {}), arrays)
    shapes = [array.shape for array in arrays]
    unfolded = unfold(traced, shapes)
    verify_program(unfolded.program)
    given = [*arrays, *unfolded.constants]
    found = evaluate_all(unfolded.program, dict(zip(unfolded.program.inputs, given, strict=True)))
    results = []
    for result in unfolded.results:
        array = found[result.tensor].transpose(np.argsort(result.order)).reshape(result.shape)
        assert array.dtype == result.dtype
        results.append(array)
    return filled(traced.returned(traced.shapes(shapes)), results)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_function_is_what_numpy_makes_of_it(name, seed):
    function, arrays = operands_of(name, seed)
    check(run(function, arrays), numpys(function, arrays), arrays)
