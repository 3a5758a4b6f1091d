"""Measure this machine: what `einsumc calibrate` does, in a few seconds.

Everything is measured through the same kernels that contractions run: peaks by a product in which
packing is a few percent, bandwidths by sums and copies of as much memory as each cache holds. All
probes take turns, and of each the fastest of several rounds counts: other work can only slow one
down, and rarely slows one down every time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..compiler.machine import Levels, Machine, Peak, Speeds
from ..compiler.records import dataclass, fields, replace
from ..compiler.resolve import resolve
from ..compiler.subscripts import parse
from . import threads
from .decorator import compile_einsum
from .execute import prepare_layouts
from .machine import host_machine
from .operands import Array

__all__ = ["calibrate"]

ROUNDS = 9
SAMPLE = 1e-3  # seconds; shorter calls are repeated until a sample lasts so long
SIDE = 576  # of the product that measures a peak: a multiple of all register tiles
ROWS = 64  # of what is summed or copied, so that there are tiles for some threads
ENOUGH = 4 << 20  # bytes that one call touches at least: starting it costs little beside that
LINE = 64  # bytes
MOST = 512 << 20  # bytes of memory used at most


def calibrate(progress: Callable[[str], None] = lambda what: None) -> Machine:
    """This host with measured speeds.

    Args:
        progress: told what is done next.

    Raises:
        KernelMissing: a kernel is in no store and compiling is forbidden.
    """
    host, cores = host_machine(), threads.default_threads()
    memory = min(4 * host.l3_bytes, MOST)
    places = {
        "l1": host.l1_bytes // 2,
        "l2": host.l2_bytes // 2,
        "l3": max(host.l3_bytes // 8, host.l2_bytes),
        "memory": memory,
    }
    progress("kernels")
    probes: dict[str, _Probe] = {}
    with _threads(1):
        for field in fields(Peak):
            probes[field.name] = _product(field.name)
        for place, size in places.items():
            probes[f"read {place}"] = _sum(size)
            probes[f"copy {place}"] = _copy(size)
        a = np.ones(4, "f4")
        probes["call"] = _call_probe(a, np.empty(4, "f4"))
    with _threads(cores):
        for place in ("l3", "memory"):
            probes[f"read all {place}"] = _sum(places[place])
            probes[f"copy all {place}"] = _copy(places[place])
    seconds: dict[str, float] = {}
    for number in range(ROUNDS):
        progress(f"round {number + 1} of {ROUNDS}")
        for name, probe in probes.items():
            with _threads(cores if " all " in name else 1):
                seconds[name] = min(seconds.get(name, np.inf), probe.sample())
    progress("threads")
    wake = _wake(host.speeds.wake) if cores > 1 else host.speeds.wake

    peak = Peak(**{f.name: _rounded(2 * SIDE**3 / seconds[f.name]) for f in fields(Peak)})
    rates = {name: probe.bytes / seconds[name] for name, probe in probes.items() if probe.bytes}
    read = _monotone({place: rates[f"read {place}"] for place in places})
    copy = _monotone({place: rates[f"copy {place}"] for place in places})
    # What every core has for itself is not measured together.
    all_read = {place: rates.get(f"read all {place}", cores * read[place]) for place in places}
    all_copy = {place: rates.get(f"copy all {place}", cores * copy[place]) for place in places}
    write = _writing(read, copy)
    speeds = Speeds(
        flops=peak,
        read=_levels(read),
        write=_levels(write),
        read_all=_levels(_monotone(all_read, read)),
        write_all=_levels(_monotone(_writing(all_read, all_copy), write)),
        call=_rounded(seconds["call"]),
        wake=_rounded(wake),
    )
    return replace(host, speeds=speeds)


_Rates = dict[str, float]
"""Bytes a second by level, the nearest first."""


def _monotone(rates: _Rates, least: _Rates | None = None) -> _Rates:
    """The same where no level is slower than those behind it, nor than in `least`.

    What looks otherwise is noise, or a loop that has other limits.
    """
    found: _Rates = {}
    rate = 0.0
    for place in reversed(rates):
        rate = max(rate, rates[place], least[place] if least else 0.0)
        found[place] = rate
    return {place: found[place] for place in rates}


def _writing(read: _Rates, copy: _Rates) -> _Rates:
    """Rates of writing; a copy of n bytes reads half of them and writes the other half.

    Writing counts as no faster than reading.
    """
    rest = {place: max(2 / copy[place] - 1 / read[place], 1 / read[place]) for place in read}
    return _monotone({place: 1 / seconds for place, seconds in rest.items()})


def _levels(rates: _Rates) -> Levels:
    return Levels(**{place: _rounded(rate) for place, rate in rates.items()})


def _rounded(value: float) -> float:
    """Three digits: there are no more."""
    return float(f"{value:.3g}")


# --- probes ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Probe:
    """A prepared einsum with its arrays; `bytes` are what a call reads and writes."""

    execution: Callable[[tuple[Array, ...], Array], Any]
    operands: tuple[Array, ...]
    out: Array
    bytes: int = 0
    repeats: int = 0

    def sample(self) -> float:
        """Seconds of a call."""
        if not self.repeats:
            self.run(1)
            self.repeats = max(1, round(SAMPLE / max(self.run(1), 1e-7)))
        return self.run(self.repeats)

    def run(self, repeats: int) -> float:
        """Seconds of each of so many calls."""
        begin = time.perf_counter()
        for _ in range(repeats):
            self.execution(self.operands, self.out)
        return max((time.perf_counter() - begin) / repeats, 1e-9)


def _probe(equation: str, *operands: Array, out: Array, touched: int = 0) -> _Probe:
    expression = resolve(parse(equation), [operand.shape for operand in operands])
    strides = [operand.strides for operand in operands]
    execution = prepare_layouts(expression, out.dtype, strides, out.strides)
    return _Probe(execution, operands, out, touched)


def _call_probe(operand: Array, out: Array) -> _Probe:
    """A call with next to nothing to compute, as users make it."""
    compiled = compile_einsum("i,i->i")
    return _Probe(lambda operands, out: compiled(*operands, out=out), (operand, operand), out)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use so many threads inside."""
    before = threads.chosen_threads()
    threads.set_num_threads(count)
    try:
        yield
    finally:
        threads.set_num_threads(before)


def _product(element: str) -> _Probe:
    """A product that stays in the caches."""
    a, b = np.ones((SIDE, SIDE), element), np.ones((SIDE, SIDE), element)
    return _probe("ij,jk->ik", a, b, out=np.empty((SIDE, SIDE), element))


def _sum(size: int) -> _Probe:
    """Sums of rows on so many bytes."""
    rows = _rows(size)
    return _probe("rj->r", rows, out=np.empty(len(rows), "f4"), touched=4 * rows.size)


def _copy(size: int) -> _Probe:
    """A copy of rows, from half of so many bytes to the other half."""
    rows = _rows(size // 2)
    return _probe("rj->rj", rows, out=_rows(size // 2), touched=8 * rows.size)


def _rows(size: int) -> Array:
    """Rows of f4 on `size` bytes of memory; where that is little, they overlap.

    Each begins a cache line after the one before.
    """
    if size >= ENOUGH:
        return np.ones((ROWS, size // (4 * ROWS)), "f4")
    rows = min(ENOUGH // size, size // (2 * LINE))
    row = (size - rows * LINE) // 4
    memory = np.ones(row + rows * LINE // 4, "f4")
    return np.lib.stride_tricks.as_strided(memory, (rows, row), (LINE, 4))


def _wake(usual: float) -> float:
    """Seconds until a second thread works, shortly after it worked before.

    Of work that takes T on one thread, one that comes D late leaves (T + D) / 2. A quarter of the
    turns is faster than what counts: the fastest may be luck, the slowest are other work.
    """
    rows = _rows(1 << 18)
    out = np.empty((4, len(rows)), "f4")
    rows = np.lib.stride_tricks.as_strided(rows, (4, *rows.shape), (4, *rows.strides))
    probes = []
    for count in (1, 2):
        with _threads(count):
            probes.append(_probe("irj->ir", rows, out=out))
    delays = []
    for _ in range(40):
        with _threads(1):
            alone = min(probes[0].run(1), probes[0].run(1))
        with _threads(2):
            probes[1].run(1)
            delays.append(2 * probes[1].run(1) - alone)
    _, found, *_ = sorted(delays)[:: len(delays) // 4]
    return min(max(found, usual / 8), usual * 8)
