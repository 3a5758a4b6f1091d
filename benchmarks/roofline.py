"""What the machine can do at most, measured: P in flop/s, and W in byte/s.

P comes from a loop of fused multiply-adds that never leaves the registers: LLVM IR, compiled for
this host, with enough independent accumulators to hide the latency of the multiply-add. W comes
from `numpy.copyto` between arrays much larger than the last-level cache: a plain copy with whatever
stores the C library chooses for that size (often non-temporal ones), of which each byte read and
each byte written counts once.

    python benchmarks/roofline.py [--threads N]

prints both, for float32 and float64.
"""

from __future__ import annotations

import argparse
import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

__all__ = ["Roofline", "measure"]

ACCUMULATORS = 12  # 4 or 5 cycles of latency times 2 units, and some to spare
ROUNDS = 7


@dataclass(frozen=True)
class Roofline:
    """The machine, for one dtype and number of threads.

    Attributes:
        flops: P, floating point operations a second, two for each multiply-add.
        bandwidth: W, bytes a second, reads and writes together.
    """

    dtype: str
    threads: int
    flops: float
    bandwidth: float

    def time(self, flops: float, traffic: float) -> float:
        """The least seconds for so many operations on so many bytes: max(flops/P, bytes/W)."""
        return max(flops / self.flops, traffic / self.bandwidth)

    def best_of(self, other: Roofline) -> Roofline:
        """The better of two measurements in each respect."""
        return Roofline(
            self.dtype,
            self.threads,
            max(self.flops, other.flops),
            max(self.bandwidth, other.bandwidth),
        )


def vector_bytes() -> int:
    """The widest vector that this host has multiply-adds for."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


def peak_loop(dtype: str) -> str:
    """LLVM IR of `void peak(i64 n, T *out)`: n rounds of one multiply-add on each accumulator."""
    scalar = {"float32": "float", "float64": "double"}[dtype]
    lanes = vector_bytes() // np.dtype(dtype).itemsize
    vector = f"<{lanes} x {scalar}>"
    fma = f"llvm.fma.v{lanes}f{8 * np.dtype(dtype).itemsize}"
    accumulators = range(ACCUMULATORS)
    phis = "\n".join(
        f"  %a{n} = phi {vector} [ %start, %entry ], [ %b{n}, %loop ]" for n in accumulators
    )
    steps = "\n".join(
        f"  %b{n} = call {vector} @{fma}({vector} %a{n}, {vector} %x, {vector} %y)"
        for n in accumulators
    )
    stores = "\n".join(
        f"  %p{n} = getelementptr {vector}, ptr %out, i64 {n}\n"
        f"  store {vector} %b{n}, ptr %p{n}, align 4"
        for n in accumulators
    )
    return f"""
declare {vector} @{fma}({vector}, {vector}, {vector})

define void @peak(i64 %n, ptr %out) {{
entry:
  ; what is multiplied comes from memory, once, so that nothing can be computed in advance
  %start = load {vector}, ptr %out, align 4
  %px = getelementptr {vector}, ptr %out, i64 1
  %x = load {vector}, ptr %px, align 4
  %py = getelementptr {vector}, ptr %out, i64 2
  %y = load {vector}, ptr %py, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{stores}
  ret void
}}
"""


@cache
def _compiled_peak(dtype: str) -> tuple[Callable[[int, int], None], object]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    module = llvm.parse_assembly(peak_loop(dtype))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    # ctypes lets go of the GIL while the function runs.
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(
        engine.get_function_address("peak")
    )
    return call, engine  # the code lives as long as its engine


def best_time(work: Callable[[int], None], threads: int) -> float:
    """The shortest of several runs of `work(thread number)` on so many threads at once.

    A run lasts from the first thread's beginning to the last one's end.
    """
    best = float("inf")
    for _ in range(ROUNDS):
        barrier = threading.Barrier(threads)
        times: list[tuple[float, float]] = []

        def run(number: int, barrier: threading.Barrier, times: list[tuple[float, float]]) -> None:
            barrier.wait()
            begin = time.perf_counter()
            work(number)
            times.append((begin, time.perf_counter()))

        team = [threading.Thread(target=run, args=(n, barrier, times)) for n in range(threads)]
        for member in team:
            member.start()
        for member in team:
            member.join()
        best = min(best, max(end for _, end in times) - min(begin for begin, _ in times))
    return best


def measure_flops(dtype: str, threads: int) -> float:
    """P: multiply-adds on registers alone."""
    peak, _ = _compiled_peak(dtype)
    lanes = vector_bytes() // np.dtype(dtype).itemsize
    memory = [np.full(ACCUMULATORS * lanes, 0.5, dtype) for _ in range(threads)]
    repeats = 4_000_000
    seconds = best_time(lambda number: peak(repeats, memory[number].ctypes.data), threads)
    return 2.0 * ACCUMULATORS * lanes * repeats * threads / seconds


def last_level_cache() -> int:
    """Bytes of the largest cache, or 32 MiB where that cannot be read."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = [32 << 20]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdecimal() and text[-1] in units:
            found.append(int(text[:-1]) * units[text[-1]])
    return max(found)


def measure_bandwidth(dtype: str, threads: int) -> float:
    """W: a copy of arrays four times the last-level cache, and 128 MiB at least."""
    elements = max(4 * last_level_cache(), 128 << 20) // np.dtype(dtype).itemsize
    source, target = np.ones(elements, dtype), np.zeros(elements, dtype)
    cuts = np.linspace(0, elements, threads + 1).astype(int)

    def copy(number: int) -> None:
        part = slice(cuts[number], cuts[number + 1])
        np.copyto(target[part], source[part])

    return 2.0 * source.nbytes / best_time(copy, threads)


def measure(dtype: str, threads: int) -> Roofline:
    """Measure P and W: about a second."""
    return Roofline(
        dtype, threads, measure_flops(dtype, threads), measure_bandwidth(dtype, threads)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure peak flop/s and copy bandwidth.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    print(f"{8 * vector_bytes()}-bit vectors, largest cache {last_level_cache() / 2**20:.0f} MiB")
    for threads in options.threads:
        for dtype in ("float32", "float64"):
            roof = measure(dtype, threads)
            print(
                f"{dtype}, {threads} thread(s): P = {roof.flops / 1e9:.1f} GFLOP/s, "
                f"W = {roof.bandwidth / 1e9:.1f} GB/s"
            )


if __name__ == "__main__":
    main()
