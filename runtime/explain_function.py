"""Explain a compiled function: its statements, and the kernels that do them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..compiler.program import Program, Statement
from ..compiler.show import intermediates
from .explain import Explanation, explained, tiles
from .plan import planned
from .programs import ProgramExecution, prepare_program
from .step import Layouts, element

__all__ = ["explain_program", "print_stages"]


def explain_program(name: str, program: Program, execution: ProgramExecution) -> Explanation:
    """The plan of a function.

    Args:
        name: the function's.
        program: as it was traced.
        execution: how it is executed. Statements without a kernel are not among its steps.

    >>> from einsumc import compile_einsum
    >>> @compile_einsum
    ... def norms(a, b):
    ...     return ((a @ b) ** 2).sum(axis=1)
    >>> plan = norms.explain(np.ones((640, 320)), np.ones((320, 480)))
    >>> print(plan.stage("program"))
    norms    i=640 j=320 k=480    float64
      t0[i,k] = sum_j a[i,j] * b[j,k]
      out[i] = sum_k t0[i,k] * t0[i,k]
    >>> [step.subscripts for step in plan.steps]
    ['jk,lk->jl', 'ij,jl,il->i', 'i->i']
    """
    done, dtypes = execution.program, execution.dtypes
    steps = []
    for number, (step, runs, chain) in enumerate(execution.runs, start=1):
        title = f"step {number} of {len(execution.steps)}: {step.statement}"
        target = step.statement.target.tensor  # a factor may be the zero around a tensor
        kind = element(dtypes.get(step.statement.factors[0].tensor, dtypes[target]))
        steps.append(explained(step, runs, kind, [name, title], chain))
    missing = sum(isinstance(stage, Statement) for stage in execution.stages)
    shapes = done.shapes
    placed = execution.workspace.offsets
    temporaries = {each: (shapes[each], dtypes[each]) for each in placed if each in shapes}
    found = execution.stepped.factorization
    before = done if found is None else found.program
    places = dict(intermediates(before, done, execution.stepped.element))
    stored = {each: dtype.itemsize for each, dtype in dtypes.items()}
    return Explanation(
        equation=name,
        sizes=program.sizes,
        dtype=np.result_type(*(dtypes[result] for result in done.results)),
        program=str(program),
        factorization=found,
        steps=tuple(steps),
        intermediates=places | tiles(done, execution.chains, stored),
        chains=tuple(map(str, execution.chains)),
        temporaries=temporaries,
        slices=execution.sliced.slices,
        peak_memory=execution.workspace.size,
        note=f"{missing} statements are evaluated by NumPy" if missing else "",
    )


def print_stages(
    stages: Iterable[str],
    name: str,
    program: Program,
    layouts: Layouts,
    optimize: Any,
    memory_limit: int | None,
) -> None:
    """Print stages of what is about to be prepared to stderr: this is EINSUMC_SHOW."""
    execution = prepare_program(program, layouts, optimize, planned, memory_limit)
    explanation = explain_program(name, program, execution)
    text = "\n\n".join(explanation.stage(stage).rstrip() for stage in stages)
    print(f"{text}\n", file=sys.stderr, flush=True)
