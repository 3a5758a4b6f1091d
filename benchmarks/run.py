"""Measure einsumc against its peers on real cases.

    python benchmarks/run.py --cases issue_cases --peers numpy,torch --threads 1

All contenders take turns in one process on the same arrays; of each the fastest of several rounds
counts. Every result is compared with one computed in float64 before anything is timed. What the
columns mean is printed under the table; `benchmarks/README.md` says what is measured and what not.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from options import case_parser
from pages import forbid_huge
from peers import PEERS, SPECIAL, Peer, Unsupported, available, limit_threads
from torch_convolutions import TorchConvolutions

if TYPE_CHECKING:  # numpy, and what imports it, has to wait for limit_threads
    import numpy as np
    from cases import Case, Program
    from roofline import Roofline

OURS = "einsumc"
USUAL = [name for name in PEERS if name not in SPECIAL]  # who computes every kind of case
PEERS[TorchConvolutions.name] = TorchConvolutions
HOPELESS = 8.0  # a variant that took so many times longer than the best gets no more turns
SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are repeated until a sample lasts so long


@dataclass
class Variant:
    """One way of one contender to compute a case, and how fast it has been."""

    peer: str
    label: str
    call: Callable[[], Any]
    huge_forbidden: bool = False
    repeats: int = 1
    best: float = math.inf
    samples: int = 0

    def sample(self) -> None:
        """Take one turn."""
        call = self.call
        forbid_huge(self.huge_forbidden)
        call()  # whose caches are those of the contender before
        begin = time.perf_counter()
        for _ in range(self.repeats):
            call()
        seconds = (time.perf_counter() - begin) / self.repeats
        self.best = min(self.best, seconds)
        self.samples += 1


@dataclass
class Row:
    """What came out for one case."""

    case: Case
    bound: float = math.nan  # the least seconds the machine allows
    seconds: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def fastest_peer(self) -> str | None:
        """The name of the fastest contender that is not einsumc."""
        others = {name: seconds for name, seconds in self.seconds.items() if name != OURS}
        return min(others, key=others.__getitem__) if others else None

    @property
    def ratio(self) -> float | None:
        """Time of the fastest peer over ours: above one, einsumc is faster."""
        if self.fastest_peer is None or OURS not in self.seconds:
            return None
        return self.seconds[self.fastest_peer] / self.seconds[OURS]

    @property
    def roofline_share(self) -> float | None:
        """The least time the machine allows over the best time seen: ours if there is one."""
        seconds = self.seconds.get(OURS) or min(self.seconds.values(), default=None)
        return self.bound / seconds if seconds else None


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def reference(case: Case, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The result in float64, by opt_einsum over numpy."""
    peer = PEERS["opt_einsum"](1)
    wide = {name: array.astype("float64") for name, array in arrays.items()}
    function = peer.step(case.expression, case.extents, "float64", case.path)
    return peer.finish(function(*(wide[name] for name in case.operands)))


def tolerance(case: Case) -> float:
    """The error that rounding explains, relative to the largest entry of the result.

    Rounding errors of a sum of K products grow as sqrt(K) where they are independent; the factor
    leaves room for those that are not, and every contraction of a path adds its own.
    """
    import numpy as np

    cost = case.cost
    return 16 * float(np.finfo(case.dtype).eps) * math.sqrt(cost.longest_sum) * cost.steps


def error(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, relative to the largest entry; infinite if the shapes differ."""
    import numpy as np

    if result.shape != expected.shape:
        return math.inf
    if not expected.size:
        return 0.0
    largest = float(np.max(np.abs(expected)))
    difference = float(np.max(np.abs(result.astype("float64") - expected)))
    if not math.isfinite(difference):
        return math.inf
    return difference / largest if largest else difference


def worthwhile(case: Case, max_bytes: float) -> list[Program]:
    """The competing programs that might win: few flops, and intermediates that fit."""
    import numpy as np

    item = np.dtype(case.dtype).itemsize
    costs = [(*case.program_cost(program), program) for program in case.programs]
    costs.sort(key=lambda each: each[0])
    most = 4 * max(case.cost.flops, costs[0][0] if costs else 0)
    fit = [each for each in costs if each[1] * item <= max_bytes and each[0] <= most]
    return [program for _, _, program in fit[:2]]


def measure_case(
    case: Case,
    contenders: Mapping[str, Peer],
    *,
    rounds: int,
    seconds: float,
    max_bytes: float,
) -> Row:
    """Check and time one case.

    Args:
        case: what to compute.
        contenders: who computes it.
        rounds: turns for every contender.
        seconds: stop taking turns after so long; every contender has had one by then.
        max_bytes: leave out programs with larger intermediates.
    """
    import numpy as np

    row = Row(case)
    operands = case.random_operands()
    arrays = dict(zip(case.operands, operands, strict=True))
    for name, shape in (case.arrays or {}).items():
        arrays[name] = np.ones(shape, case.dtype)
    arrays |= {name: case.unfold(operands, name) for name in case.unfolded or {}}
    programs = worthwhile(case, max_bytes)
    expected = reference(case, arrays)
    allowed = tolerance(case)
    deadline = time.perf_counter() + seconds

    variants: list[Variant] = []
    for name, peer in contenders.items():
        forbid_huge(peer.huge_forbidden)
        found = peer.variants(case, arrays, programs)
        try:
            for label, call in found:
                try:
                    wrong = error(peer.get(call()), expected)  # also compiles, plans, warms up
                except Unsupported as reason:
                    row.notes[name] = str(reason)
                    continue
                if wrong > allowed:
                    row.notes[name] = f"wrong: relative error {wrong:.1e}, allowed {allowed:.1e}"
                    print(f"{case.name}: {name} {label}: {row.notes[name]}", file=sys.stderr)
                    continue
                begin = time.perf_counter()
                call()
                once = time.perf_counter() - begin
                repeats = max(1, min(2000, round(SHORTEST_SAMPLE / max(once, 1e-7))))
                variants.append(Variant(name, label, call, peer.huge_forbidden, repeats, best=once))
        except Exception as problem:  # whatever a peer raises, the others go on
            row.notes[name] = f"{type(problem).__name__}: {problem}".splitlines()[0][:160]

    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            best = min((each.best for each in variants), default=0.0)
            # Each round begins with another: threads of whoever was before may still be spinning.
            first = number % max(len(variants), 1)
            for each in variants[first:] + variants[:first]:
                if each.best <= HOPELESS * best or each.peer == OURS:
                    each.sample()
            if number and time.perf_counter() > deadline:
                break
    finally:
        gc.enable()
        forbid_huge(False)

    for each in variants:
        if each.best < row.seconds.get(each.peer, math.inf):
            row.seconds[each.peer] = each.best
            row.labels[each.peer] = each.label
    return row


def format_seconds(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def print_table(rows: Sequence[Row], names: Sequence[str], roofs: Sequence[Roofline]) -> None:
    """The table, and under it what it means."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(title="Best time of each contender")
    table.add_column("case", overflow="fold", max_width=36)
    for heading in ("MFLOP", "MiB", "bound", *names, "ratio", "roofline"):
        table.add_column(heading, justify="right")
    for row in rows:
        cost = row.case.cost
        fastest = min(row.seconds, key=row.seconds.__getitem__) if row.seconds else None
        cells = []
        for name in names:
            text = format_seconds(row.seconds.get(name))
            if row.labels.get(name):
                text += f"\n{row.labels[name]}"
            cells.append(f"[bold]{text}[/bold]" if name == fastest else text)
        share = row.roofline_share
        table.add_row(
            row.case.name,
            f"{cost.flops / 1e6:.4g}",
            f"{cost.traffic / 2**20:.3g}",
            format_seconds(row.bound),
            *cells,
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            "-" if share is None else f"{share:.0%}",
        )
    console.print(table)
    for roof in roofs:
        console.print(
            f"{roof.dtype}, {roof.threads} thread(s): P = {roof.flops / 1e9:.1f} GFLOP/s (fused "
            f"multiply-adds on registers), W = {roof.bandwidth / 1e9:.1f} GB/s (plain copy)"
        )
    console.print(
        "bound: max(flops/P, bytes/W); ratio: fastest peer over einsumc, above 1 where einsumc is\n"
        "faster; roofline: bound over einsumc's time, or over the fastest where einsumc is absent.",
        highlight=False,
    )
    for name in names:
        skipped = [row.case.name for row in rows if name in row.notes and name not in row.seconds]
        if skipped:
            reasons = sorted({row.notes[name] for row in rows if name in row.notes})
            console.print(f"{name} left out {len(skipped)} case(s): {'; '.join(reasons[:3])}")
    for name in names:
        if name == OURS:
            continue
        both = [r.seconds[name] / r.seconds[OURS] for r in rows if {name, OURS} <= r.seconds.keys()]
        if both:
            console.print(
                f"geometric mean, {name} over einsumc: {geometric_mean(both):.2f} "
                f"({len(both)} cases)"
            )
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if ratios:
        slower = sum(ratio < 1 for ratio in ratios)
        console.print(
            f"geometric mean, fastest peer over einsumc: {geometric_mean(ratios):.2f} "
            f"({len(ratios)} cases, slower than a peer in {slower})"
        )
    shares = [row.roofline_share for row in rows if row.roofline_share]
    if shares:
        console.print(f"geometric mean, share of the roofline: {geometric_mean(shares):.0%}")


def as_json(
    rows: Sequence[Row], roofs: Sequence[Roofline], contenders: Mapping[str, Peer]
) -> dict[str, Any]:
    """Everything measured, for keeping."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: peer.version for name, peer in contenders.items()},
        "roofline": [asdict(roof) for roof in roofs],
        "cases": [
            {
                "name": row.case.name,
                "suite": row.case.suite,
                "equation": row.case.equation,
                "operands": row.case.operands,
                "shapes": row.case.shapes,
                "dtype": row.case.dtype,
                "flops": row.case.cost.flops,
                "bytes": row.case.cost.traffic,
                "steps": row.case.cost.steps,
                "bound": row.bound,
                "seconds": row.seconds,
                "variants": {name: label for name, label in row.labels.items() if label},
                "ratio": row.ratio,
                "roofline_share": row.roofline_share,
                "notes": row.notes,
            }
            for row in rows
        ],
    }


def plot(rows: Sequence[Row], names: Sequence[str], path: Path) -> None:
    """Every contender's share of the roofline, case by case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.22 * len(rows)), layout="constrained")
    heights = range(len(rows))
    for name in names:
        shares = [row.bound / row.seconds.get(name, math.inf) or math.nan for row in rows]
        ours = name == OURS
        axes.plot(
            shares, heights, "D" if ours else "o", label=name, markersize=6 if ours else 4, zorder=2
        )
    axes.set_yticks(heights, [row.case.name for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("share of the roofline (bound / time); 1 is the machine's limit")
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = case_parser(
        "Measure einsumc against its peers on real cases.",
        "issue_cases",
        "suites, by comma (files of cases/, products, transposed_products), or 'all' files",
    )
    parser.add_argument("--peers", default=",".join(USUAL), help="contenders, by comma")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "float64"), help="for all cases")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for the rounds of a case")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--plot", type=Path, help="write a figure (matplotlib)")
    options = parser.parse_args(arguments)
    options.peers = list(filter(None, options.peers.split(",")))
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if OURS not in options.peers:
        options.peers.insert(0, OURS)
    return options


def main() -> int:
    options = parse_arguments()
    limit_threads(options.threads)

    import cases
    import roofline

    suites = cases.SUITES if options.cases == "all" else options.cases.split(",")
    chosen = [case for suite in suites for case in cases.load(suite, options.dtype)]
    chosen = cases.sample([c for c in chosen if options.only in c.name], options.sample)
    contenders, absent = available(options.peers, options.threads)
    for name, reason in absent.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    max_bytes = options.max_mib * 2**20
    roofs = {dtype: roofline.measure(dtype, options.threads) for dtype in {c.dtype for c in chosen}}
    rows = []
    for number, case in enumerate(chosen, 1):
        small = case.shrink(options.max_gflop * 1e9, max_bytes)
        print(f"[{number}/{len(chosen)}] {case.name}", file=sys.stderr)
        rows.append(
            measure_case(
                small,
                contenders,
                rounds=options.rounds,
                seconds=options.seconds,
                max_bytes=max_bytes,
            )
        )
    # Other work on the machine can only make it look slower: what it did best is what it can do.
    for dtype, roof in roofs.items():
        roofs[dtype] = roof.best_of(roofline.measure(dtype, options.threads))
    for row in rows:
        row.bound = roofs[row.case.dtype].time(row.case.cost.flops, row.case.cost.traffic)
    print_table(rows, list(contenders), list(roofs.values()))
    if options.json:
        report = as_json(rows, list(roofs.values()), contenders)
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if options.plot:
        plot(rows, list(contenders), options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
