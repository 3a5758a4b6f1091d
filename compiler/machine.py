"""What the compiler knows about the machine it compiles for."""

from __future__ import annotations

from dataclasses import dataclass


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
class Machine:
    """A machine's sizes and speeds: block sizes and costs follow from it, kernels do not.

    Cache sizes are bytes per core, except the last level's. ``flops`` is the peak of one core in
    f4 operations a second; ``bandwidth`` one core's copy rate, in bytes read and written a second.
    From ``worth_packing`` multiply-adds on a microkernel repays its packing. At most
    ``partial_sum`` elements are summed one after the other, so that rounding errors stay small.
    """

    target: Target
    cores: int = 2
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    l3_bytes: int = 32 << 20
    flops: float = 100e9
    bandwidth: float = 20e9
    worth_packing: int = 1 << 17
    partial_sum: int = 4096
