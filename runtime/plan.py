"""Plans without kernels: what would run, for those who only want to know.

`explain` and `precompile` ask for the plan of a call that is not made. It needs neither compiled
kernels nor arrays, only layouts, which is all that arrays of `virtual` have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from .execute import Execution, prepare_layouts
from .kernels import Kernel, KernelMissing, fields, may_compile
from .memory import memory_order
from .operands import Array
from .store import default_stores
from .views import distinct_output
from .virtual import virtual

if TYPE_CHECKING:
    from ..compiler.machine import Target
    from ..compiler.schedule import Schedule
    from ..compiler.subscripts import Expression

__all__ = ["available", "plan", "planned"]


def plan(
    expression: Expression,
    operands: Sequence[Array],
    optimize: Any = True,
    names: Sequence[str] | None = None,
    same: Sequence[int] | None = None,
    memory_limit: int | None = None,
    obtain: Callable[[Schedule, Target], Kernel] | None = None,
    in_chains: bool = True,
) -> Execution | None:
    """What a call with operands like these would execute; it cannot be called itself.

    Args:
        expression: the equation with the operands' shapes.
        operands: arrays as kernels want them, or `virtual` ones.
        optimize: how to choose the order of contraction.
        names: what the operands are called.
        same: for each operand the first that is the same array; by default they all differ.
        memory_limit: bytes that intermediates may take.
        obtain: what a kernel is, given its schedule; by default as `planned` says.
        in_chains: whether steps may run together, block by block.

    Returns:
        The execution, its kernels without code; None if there is nothing to execute, since the
        result or a sum is empty.

    >>> from einsumc.compiler.resolve import resolve
    >>> from einsumc.compiler.subscripts import parse
    >>> a = virtual((640, 320), "f4")
    >>> print(plan(resolve(parse("ij,kj->ik"), [a.shape, a.shape]), [a, a]).program)
    out[i,k] = sum_j a[i,j] * b[k,j]
    """
    if not prod(extent for _, extent in expression.extents):
        return None
    distinct, part = distinct_output(expression)
    axes = memory_order(expression, operands, "K") if distinct is expression else None
    out = part(virtual(expression.output_shape, operands[0].dtype, axes))
    strides = [operand.strides for operand in operands]
    dtype = operands[0].dtype
    obtain = obtain or planned
    return prepare_layouts(
        distinct,
        dtype,
        strides,
        out.strides,
        optimize,
        same,
        names,
        obtain,
        memory_limit,
        in_chains,
    )


def planned(schedule: Schedule, target: Target) -> Kernel:
    """A kernel's key and calling convention; its address is 0."""
    from ..compiler.pipeline import signature

    called = signature(schedule)
    key = fields(schedule, target).key()
    return Kernel(key, 0, called.parameters, called.tiles, called.scratch, "planned")


def available(schedule: Schedule, target: Target) -> Kernel:
    """The same for a kernel that a call would get.

    Raises:
        KernelMissing: it is in no store and compiling is forbidden.
    """
    found = planned(schedule, target)
    if not may_compile() and default_stores().find(found.key) is None:
        raise KernelMissing(f"kernel {found.key[:12]} is in no store and EINSUMC_COMPILE=never")
    return found
