"""What a statement costs: operations, memory traffic, and the seconds they take on a machine.

The seconds are for one core and meant for comparing plans, so the formulas are few:

    seconds = max(time to compute, time to move each tensor once) + overhead of a step

**Compute.** A share of the machine's peak that depends on the kind of the statement. A contraction
of two factors whose m, n and k groups (indices of the left, of the right, and summed ones) are all
long enough for a register tile runs packed, near the peak. Any other statement of one or two
factors is streamed: at best a multiply-add for each pair of loads, and mostly fewer. With more
factors hardly anything is reused from registers, and the share is smaller still.

**Memory.** What fits in a cache is taken to be in it: an intermediate that was just written, or an
operand of a call that is repeated. So an intermediate that outgrows the caches costs its writing
and its reading at the bandwidth of memory, and a small one next to nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from .machine import Machine
from .program import Access, Program, Statement, bounds

__all__ = ["Cost", "program_cost", "statement_cost"]

PACKED, STREAMED, MANY_FACTORS = 0.85, 0.25, 0.125
"""Shares of the peak, by kind of statement."""

TILE = 8
"""The extent of m, n and k from which on a contraction fills register tiles."""

SLOWDOWN = {8: 2, 16: 8}
"""Against f4, by bytes of an element: half the lanes, and four products for a complex one."""

L2_SPEED, L3_SPEED = 4, 2
"""The bandwidth of a cache, in bandwidths of memory."""

STEP_SECONDS = 2e-6
"""Of starting a kernel: arguments, dispatch, tables of offsets."""

_MOST = 10**300  # what a float can hold; the unfactored form of a network has more products


@dataclass(frozen=True, slots=True)
class Cost:
    """Work and its predicted time.

    Attributes:
        flops: floating-point operations on elements; a multiply-add is two.
        bytes: read and written, each tensor of a statement once.
        seconds: on one core.

    >>> Cost(10, 8, 1e-6) + Cost(2, 4, 1e-6)
    Cost(flops=12, bytes=12, seconds=2e-06)
    """

    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops, self.bytes + other.bytes, self.seconds + other.seconds
        )


def program_cost(program: Program, itemsize: int, machine: Machine) -> Cost:
    """The cost of all statements, one after the other."""
    sizes = program.sizes
    costs = (statement_cost(step, sizes, itemsize, machine) for step in program.statements)
    return sum(costs, Cost())


def statement_cost(
    statement: Statement, extents: Mapping[str, int], itemsize: int, machine: Machine
) -> Cost:
    """The cost of a statement whose elements all have `itemsize` bytes; 16 bytes are complex.

    >>> from .machine import TARGETS
    >>> from .program import from_expression
    >>> from .resolve import resolve
    >>> from .subscripts import parse
    >>> program = from_expression(resolve(parse("ij,jk->ik"), [(1000, 1000)] * 2))
    >>> matmul, machine = program.statements[0], Machine(TARGETS["x86-64-v3"], flops=100e9)
    >>> cost = statement_cost(matmul, program.sizes, 4, machine)
    >>> cost.flops, cost.bytes, f"{cost.seconds:.4f}"
    (2000000000, 12000000, '0.0235')
    """
    indices = statement.indices
    reduced = indices[len(statement.kept) :]
    flops = _volume(indices, extents) * (len(statement.factors) - 1 + bool(reduced))
    peak = machine.flops / SLOWDOWN.get(itemsize, 1)
    computing = min(flops, _MOST) / (peak * _share(statement, reduced, extents))

    # An access that occurs twice is one: the square of an array reads it once.
    accesses = dict.fromkeys((statement.target, *statement.factors))
    sizes = [_elements(access, extents) * itemsize for access in accesses]
    moving = sum(min(size, _MOST) / _bandwidth(size, machine) for size in sizes)
    return Cost(flops, sum(sizes), max(computing, moving) + STEP_SECONDS)


def _share(statement: Statement, k: Sequence[str], extents: Mapping[str, int]) -> float:
    """The share of the peak that a statement can reach; `k` are its reduced indices."""
    if len(statement.factors) > 2:
        return MANY_FACTORS
    if len(statement.factors) == 2:
        left, right = ({*factor.names} for factor in statement.factors)
        m = [name for name in statement.kept if name not in right]
        n = [name for name in statement.kept if name not in left]
        if all(_volume(group, extents) >= TILE for group in (m, n, k)):
            return PACKED
    return STREAMED


def _elements(access: Access, extents: Mapping[str, int]) -> int:
    """How many elements of its tensor an access touches; for an affine one, about as many."""
    touched = _volume(access.names, extents)
    if len(access.names) > len(access.subscripts):
        spans = (bounds(axis, extents) for axis in access.subscripts)
        touched = min(touched, prod(high - low + 1 for low, high in spans))
    return touched


def _bandwidth(size: int, machine: Machine) -> float:
    """Bytes a second at which a tensor of so many bytes is moved."""
    if size <= machine.l2_bytes:
        return L2_SPEED * machine.bandwidth
    if size <= machine.l3_bytes:
        return L3_SPEED * machine.bandwidth
    return machine.bandwidth


def _volume(names: Iterable[str], extents: Mapping[str, int]) -> int:
    return prod([extents[name] for name in names])
