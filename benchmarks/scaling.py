"""What a second thread is worth to einsumc: its time on one thread over its time on several.

    python benchmarks/scaling.py [--threads 2] [--cases products,tccg] [--rounds 5]

Both numbers of threads take turns in one process (`einsumc.set_num_threads`), on the same arrays;
of each the fastest of several rounds counts, and both results must have the same bits. A case is
bound by compute or by memory as the roofline of one thread has it. Cases that take one thread less
than `--shortest` are left out: handing over work has a price.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bounds import bound_by
from options import case_parser
from peers import limit_threads
from run import SHORTEST_SAMPLE, geometric_mean

if TYPE_CHECKING:  # numpy has to wait for limit_threads
    from cases import Case
    from roofline import Roofline

CASES = "products,tccg,hptt_transposes,issue_cases"


@dataclass(frozen=True)
class Scaling:
    """One case on one thread and on several.

    Attributes:
        bound: "compute" or "memory".
        one: seconds on one thread.
        several: seconds on the asked number of threads.
    """

    name: str
    suite: str
    dtype: str
    bound: str
    one: float
    several: float

    @property
    def ratio(self) -> float:
        """How many times faster several threads are."""
        return self.one / self.several


def best_of(call: Callable[[], Any], counts: Sequence[int], rounds: int) -> dict[int, float]:
    """The fastest call with each number of threads, which take turns.

    A plan shares out its work for the number of threads at its making, so that the first call after
    a change plans anew; that one is not timed.
    """
    import einsumc

    best = dict.fromkeys(counts, math.inf)
    for _ in range(rounds):
        for count in counts:
            einsumc.set_num_threads(count)
            call()
            begin = time.perf_counter()
            call()
            once = time.perf_counter() - begin
            repeats = max(1, min(2000, round(SHORTEST_SAMPLE / max(once, 1e-7))))
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            took = (time.perf_counter() - begin) / repeats
            best[count] = min(best[count], took, once)
    return best


def measure(
    case: Case, roof: Roofline, threads: int, rounds: int, shortest: float
) -> Scaling | None:
    """Time one case; None if it is too short, or not of a kind that einsumc computes yet.

    Args:
        case: what to compute.
        roof: the machine with one thread.
        threads: how many to compare with one.
        rounds: turns for each number.
        shortest: seconds on one thread below which a case is left out.

    Raises:
        AssertionError: the results differ in some bit.
    """
    import einsumc
    import numpy as np

    if not case.expression.is_plain:
        return None
    operands = case.random_operands()
    compiled = einsumc.compile_einsum(case.equation)
    out = np.zeros(case.output_shape, case.dtype)

    def call() -> Any:
        return compiled(*operands, out=out)

    einsumc.set_num_threads(1)
    call()
    begin = time.perf_counter()
    call()
    if time.perf_counter() - begin < shortest:
        return None
    expected = out.copy()
    out.fill(np.nan)
    einsumc.set_num_threads(threads)
    call()
    if not np.array_equal(out, expected):
        raise AssertionError(f"{case.name}: other bits on {threads} threads")
    best = best_of(call, (1, threads), rounds)
    if best[1] < shortest:
        return None
    bound = bound_by(case.cost.flops, case.cost.traffic, asdict(roof))
    return Scaling(case.name, case.suite, case.dtype, bound, best[1], best[threads])


def print_table(found: Sequence[Scaling], threads: int) -> None:
    for each in sorted(found, key=lambda each: (each.bound, each.ratio)):
        print(
            f"{each.bound:8} {each.ratio:5.2f}  {each.one * 1e3:9.3f} ms "
            f"{each.several * 1e3:9.3f} ms  {each.name}"
        )
    for bound in ("compute", "memory"):
        ratios = [each.ratio for each in found if each.bound == bound]
        if ratios:
            print(
                f"bound by {bound}: {threads} threads are {geometric_mean(ratios):.2f} times as "
                f"fast as one ({len(ratios)} cases, least {min(ratios):.2f})"
            )


def main() -> None:
    parser = case_parser(__doc__, CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shortest", type=float, default=200.0, help="microseconds")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    limit_threads(options.threads)

    import cases
    import roofline

    chosen = [case for suite in options.cases.split(",") for case in cases.load(suite)]
    chosen = cases.sample([c for c in chosen if options.only in c.name], options.sample)
    roofs = {
        (dtype, threads): roofline.measure(dtype, threads)
        for dtype in sorted({case.dtype for case in chosen})
        for threads in (1, options.threads)
    }
    found = []
    for number, case in enumerate(chosen, 1):
        small = case.shrink(options.max_gflop * 1e9, options.max_mib * 2**20)
        if small != case and case.suite in cases.GENERATED:
            continue  # there is a case of that size
        print(f"[{number}/{len(chosen)}] {case.name}", file=sys.stderr)
        row = measure(
            small, roofs[case.dtype, 1], options.threads, options.rounds, options.shortest * 1e-6
        )
        if row is not None:
            found.append(row)
    # Other work on the machine can only make it look slower.
    for (dtype, threads), roof in roofs.items():
        roofs[dtype, threads] = roof.best_of(roofline.measure(dtype, threads))
    print_table(found, options.threads)
    for (dtype, threads), roof in roofs.items():
        if threads > 1:
            one = roofs[dtype, 1]
            print(
                f"the machine itself, {dtype}: P x {roof.flops / one.flops:.2f}, "
                f"W x {roof.bandwidth / one.bandwidth:.2f}"
            )
    if options.json:
        report = {
            "threads": options.threads,
            "roofline": [asdict(roof) for roof in roofs.values()],
            "cases": [asdict(each) | {"ratio": each.ratio} for each in found],
        }
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
