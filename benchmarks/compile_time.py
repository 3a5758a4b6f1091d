"""How long kernels take to compile, in a process that has compiled before.

    python benchmarks/compile_time.py [--cases issue_cases,tccg] [--rounds 3] [--show 10]

Compiles the kernels that the plain einsums of the case files need, as f2, f4, f8, c16 and i2, and
prints the slowest ones, each with its best round. Nothing is stored and nothing is run: what counts
is from a schedule to machine code, ready for the store.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from cases import Case, load, load_all, sample
from einsumc.compiler.pipeline import compile_kernel
from einsumc.compiler.resolve import resolve
from einsumc.compiler.schedule import Schedule
from einsumc.compiler.subscripts import parse
from einsumc.runtime.machine import machine
from einsumc.runtime.plan import plan
from einsumc.runtime.virtual import virtual

DTYPES = ("f2", "f4", "f8", "c16", "i2")


def schedules(cases: Iterable[Case], dtypes: Iterable[str] = DTYPES) -> dict[Schedule, str]:
    """Every schedule that the cases need, with the name of one that needs it."""
    found: dict[Schedule, str] = {}
    for case in cases:
        if not case.expression.is_plain:
            continue
        expression = resolve(parse(case.expression.letters()), case.shapes)
        for dtype in dtypes:
            execution = plan(expression, [virtual(shape, dtype) for shape in case.shapes])
            for step in execution.steps if execution else ():
                found.setdefault(step.choice.schedule, f"{case.name} {dtype}")
    return found


def measure(wanted: Iterable[Schedule], rounds: int) -> dict[Schedule, float]:
    """The seconds that each takes, the best of some rounds in turn."""
    target = machine().target
    best: dict[Schedule, float] = {}
    for _ in range(rounds + 1):  # the first one pays for what is done once a process
        for schedule in wanted:
            begin = time.perf_counter()
            compile_kernel(schedule, target)
            took = time.perf_counter() - begin
            best[schedule] = min(best.get(schedule, took), took)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", help="suites, with commas between them; all by default")
    parser.add_argument("--sample", type=int, help="only so many cases, evenly spread")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--show", type=int, default=10, help="so many of the slowest")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    names = options.cases.split(",") if options.cases else None
    cases = [case for name in names for case in load(name)] if names else load_all()
    wanted = schedules(sample(cases, options.sample), options.dtypes.split(","))
    seconds = measure(wanted, options.rounds)
    for schedule in sorted(wanted, key=lambda s: -seconds[s])[: options.show]:
        print(f"{seconds[schedule]:6.3f} s  {schedule.recipe:8}  {wanted[schedule]}")
    for recipe in ("packed", "streamed"):
        times = sorted(seconds[s] for s in wanted if s.recipe == recipe)
        if times:
            median = statistics.median(times)
            print(f"{recipe}: {len(times)} kernels, median {median:.3f} s, most {times[-1]:.3f} s")
    if options.json:
        kernels = [
            {"name": wanted[schedule], "recipe": schedule.recipe, "seconds": seconds[schedule]}
            for schedule in wanted
        ]
        report = {"kernels": kernels}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
