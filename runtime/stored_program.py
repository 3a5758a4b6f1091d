"""Plans of compiled functions on disk, as those of equations are: see `stored_plan.py`.

A function is traced in every process. What is made of the trace for operands of some shapes is a
program, and its plan is found by that, by the layouts of all arrays, and by what plans of equations
follow from. So it does not matter what the function is called or where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiler.records import dataclass
from . import settings
from .key import text_digest
from .stored_plan import circumstances, find, keep, run
from .work import Work

if TYPE_CHECKING:
    from ..compiler.program import Program
    from .programs import ProgramExecution
    from .step import Layouts

__all__ = ["StoredProgram", "prepare"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class StoredProgram:
    """A plan that was found, ready to run.

    Attributes:
        made: its kernels. Tensors are the operands, then the results, then the workspace.
        inputs: how many operands there are, and
        results: how many results.
    """

    made: Work
    inputs: int
    results: int

    def __call__(self, operands: Sequence[Array], results: Sequence[Array]) -> None:
        """Compute into ``results``; all arrays have the layouts that were planned for."""
        run(self.made, (*operands, *results))

    def work(self, constants: Sequence[Array]) -> Work | None:
        """The same for the native entry: see `ProgramExecution.work`."""
        return self.made.with_constants(self.inputs, constants)


def prepare(
    program: Program, layouts: Layouts, optimize: Any, memory_limit: int | None
) -> ProgramExecution | StoredProgram:
    """What `programs.prepare_program` returns, or the same from a store; see there."""
    fields = None
    if isinstance(optimize, bool | str | tuple) and not settings.current().show:
        fields = _fields(program, layouts, optimize, memory_limit)
        work = find(fields)
        if work is not None:
            return StoredProgram(work, len(program.inputs), len(program.results))
    from .programs import prepare_program

    execution = prepare_program(program, layouts, optimize, memory_limit=memory_limit)
    storable = execution.storable() if fields is not None else None
    if fields is not None and storable is not None:
        keep(fields, *storable)
    return execution


def _fields(
    program: Program, layouts: Layouts, optimize: Any, memory_limit: int | None
) -> dict[str, Any]:
    """All that a plan follows from."""
    listed = [
        [name, list(strides), f"{dtype.kind}{dtype.itemsize}"]
        for name, (strides, dtype) in layouts.items()
    ]
    return {
        "kind": "plan",
        "program": text_digest(repr(program)),
        "layouts": listed,
        "optimize": repr(optimize),
        "memory_limit": memory_limit,
        **circumstances(),
    }
