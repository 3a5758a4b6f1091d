"""What the compiler knows about the machine it compiles for."""

from __future__ import annotations

from .records import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction set: what generated code may use. Part of every kernel's key.

    ``cpu`` is LLVM's name for it; ``vector_bytes`` and ``registers`` describe its vector unit, and
    ``fma`` says whether it multiplies and adds in one rounding.
    """

    name: str
    cpu: str
    vector_bytes: int
    registers: int
    fma: bool = True


TARGETS = {
    "x86-64-v2": Target("x86-64-v2", "x86-64-v2", 16, 16, fma=False),
    "x86-64-v3": Target("x86-64-v3", "x86-64-v3", 32, 16),
    "x86-64-v4": Target("x86-64-v4", "x86-64-v4", 64, 32),
}


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations on elements that one core does a second, by type; a multiply-add is two.

    A complex multiply-add counts as two like any other, so its rate is a quarter of the parts' or
    less. Half precision is computed in f4, bytes and bools in i2, unsigned integers as signed ones.
    """

    f4: float
    f8: float
    c8: float
    c16: float
    i2: float
    i4: float
    i8: float

    def of(self, element: str) -> float:
        """The rate for an element type such as ``f4`` or ``u1``."""
        kind, size = element[0], int(element[1:])
        if kind in "fc":
            return float(getattr(self, f"f{max(size, 4)}" if kind == "f" else element))
        return float(getattr(self, f"i{max(size, 2)}"))


@dataclass(frozen=True, slots=True)
class Levels:
    """Bytes a second by where they lie: in each cache, and in memory."""

    l1: float
    l2: float
    l3: float
    memory: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast a machine is. `einsumc calibrate` measures it, `estimate` guesses it.

    Attributes:
        flops: of one core.
        read, write: of one core, as kernels stream through tensors.
        read_all, write_all: of all cores together.
        call: seconds that a step costs before and after its kernel.
        wake: seconds until another thread works.
    """

    flops: Peak
    read: Levels
    write: Levels
    read_all: Levels
    write_all: Levels
    call: float
    wake: float


def estimate(target: Target, cores: int = 2, clock: float = 3e9) -> Speeds:
    """Usual speeds for an instruction set, number of cores and clock (in 1/s).

    Two vector multiply-adds a cycle; caches that keep up with part of that; memory of which one
    core reads 15 GB/s, and eight cores what there is.
    """
    lanes = target.vector_bytes // 4
    f4 = (4 if target.fma else 2) * lanes * clock
    flops = Peak(f4, f4 / 2, f4 / 5, f4 / 10, f4, f4 / 2, f4 / 8)
    cycle = target.vector_bytes * clock  # bytes a second, a vector a cycle
    read = Levels(0.8 * cycle, 0.6 * cycle, 0.4 * cycle, 15e9)
    write = Levels(0.5 * cycle, 0.4 * cycle, 0.3 * cycle, 10e9)
    return Speeds(flops, read, write, _all(read, cores), _all(write, cores), 0.3e-6, 40e-6)


def _all(one: Levels, cores: int) -> Levels:
    return Levels(one.l1 * cores, one.l2 * cores, one.l3 * cores, one.memory * min(cores, 8))


USUAL = estimate(TARGETS["x86-64-v3"])
"""The speeds of machines that nobody said more about."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's sizes and speeds: block sizes follow from sizes, costs from both, kernels do not.

    Cache sizes are bytes, the last level's shared by the cores, the others' one core's. Only costs
    follow from ``speeds``: they are measured, and what is measured may not decide a result's bits.
    From ``worth_packing`` multiply-adds on a microkernel repays its packing. At most
    ``partial_sum`` elements are summed one after the other, so that rounding errors stay small.
    """

    target: Target
    cores: int = 2
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    l3_bytes: int = 32 << 20
    speeds: Speeds = USUAL
    worth_packing: int = 48 << 10
    partial_sum: int = 4096
