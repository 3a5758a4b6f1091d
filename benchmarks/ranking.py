"""Check the cost model against the clock: does it put steps and orders of contraction in order?

    python benchmarks/ranking.py [--threads N] [--rounds 5] [--show]

The orders of contraction among which plans choose are compared by predicted time. Two checks:

- Steps, from microseconds to a fraction of a second, of every recipe: predicted against measured.
  Printed are Spearman's correlation of the two (1: the same order) and the median of their ratio.
- Equations of three to five operands, each in every order of contraction, or a sample where there
  are many: the same two figures, and the regret, the time of the order that the model chooses over
  that of the fastest.

Predictions use the description of this machine that einsumc uses; `einsumc calibrate` first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einsumc.compiler.factorize import Path as Order

STEPS = """
ij,jk->ik          64x64x64 256x256x256 1000x1000x1000 13x1000x1000 1000x1000x13
ij,jk->ik          1000x13x1000 2000x5x2000 4000x3x500 3x2000x2000 10x10x10
ij,kj->ik          500x500x500
ji,jk->ik          500x500x500
bij,bjk->bik       1000x8x8x8 500x32x32x32 100x64x64x64
bij,bkj->bik       2000x4x30x4
abij,abjk->abik    8x12x128x64x128
iajb,jkbc->ikac    20x20x20x20x20x20
abcd,dbea->ec      24x24x24x24x24
abcde,efbad->cf    16x8x24x16x16x24
ij,j->i            100x100 1000x1000 5000x5000
ij,i->j            1000x1000 5000x5000
ijk,k->ij          200x200x200
ijk,j->ik          200x200x200
i,j->ij            300x300 4000x4000
ij,ij->ij          100x100 1000x1000 4000x4000
ij,j->ij           2000x2000
ij,i->ij           2000x2000
ij->j              3000x1000
ij->i              3000x1000 100000x20
ijk->j             100x100x100
ij->               1000x1000
i,i->              1000000 1000
ij,ij->i           1000x1000
ij,ij->            2000x2000
ni,ni->n           100000x3
nc,nc->n           1000000x3
ij->ji             1000x1000 3000x3000
ijkl->lkji         40x40x40x40
ijkl->ljik         40x40x40x40
ijk->ikj           100x100x100
bi,bj->bij         500x60x60
ki,k,kj->ij        500x60x60
ij,jk,ik->ik       200x200x200
ijkl,jmik,jmil->jm 12x12x12x12x12
ab,cbe,ae->ac      60x60x60x60
i,i,i->i           100000
i,j,k->ijk         100x100x100
"""
"""Steps that nothing splits: equations, and extents in the order in which their indices come."""

ORDERS = """
ij,jk,kl->il              300x20x400x50 600x600x600x4
ij,jk,kl,lm->im           100x500x60x400x30
ki,k,kj->ij               2000x100x100
ki,k,kj,k->ij             50x10x10
ab,cbe,ae->ac             50x60x70x80
ijkl,jmik,jmil->jm        24x24x24x24x24
bk,bgk,bkd->bgd           64x64x32x64
nti,nsi,ntj,nsj->n        16x32x256x32x128
ni,ni,nj,nj->n            256x300x500
abj,jk,abk->abk           20x15x200x310
ijab,jb,ka->ik            40x40x40x40x40
ea,fb,abcd,gc,hd->efgh    12x12x12x12x12x12x12x12
abc,bd,ce->ade            200x60x60x8x8
iak,jbk,kl->iajbl         20x10x30x20x10x16
i,ij,j->                  1000x1000
ij,ik,il->jkl             200x30x30x30
tb,tn,tc->bnc             500x4x40x50
"""
"""Equations whose orders of contraction are compared."""


@dataclass(frozen=True)
class Timed:
    """A prediction beside its measurement, in seconds."""

    what: str
    predicted: float
    measured: float


def spearman(pairs: Sequence[Timed]) -> float:
    """Spearman's rank correlation of predictions with measurements."""

    def ranks(values: Sequence[float]) -> list[float]:
        return [
            sum(other < value for other in values) + (values.count(value) - 1) / 2
            for value in values
        ]

    x, y = ranks([pair.predicted for pair in pairs]), ranks([pair.measured for pair in pairs])
    if len({*x}) < 2 or len({*y}) < 2:
        return math.nan
    return statistics.correlation(x, y)


def read(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The equations of a table, each as often as it has sizes, and the extents of their indices."""
    for line in text.strip().splitlines():
        equation, *sizes = line.split()
        names = dict.fromkeys(filter(str.isalpha, equation))
        for each in sizes:
            yield equation, dict(zip(names, map(int, each.split("x")), strict=True))


def shapes_of(equation: str, extents: dict[str, int]) -> list[tuple[int, ...]]:
    """The operands' shapes."""
    terms = equation.partition("->")[0].split(",")
    return [tuple(extents[index] for index in term) for term in terms]


def orders(operands: int, most: int) -> list[Order]:
    """Orders of contraction: all at once and every sequence of pairs, or so many of them."""
    found: list[Order] = [()]
    for left in range(operands, 1, -1):
        pairs = list(itertools.combinations(range(left), 2))
        found = [(*path, pair) for path in found for pair in pairs]
    unsplit = (tuple(range(operands)),)
    return [unsplit, *random.Random(0).sample(found, min(most, len(found)))]


def measure_steps(dtypes: Sequence[str], rounds: int) -> list[Timed]:
    """Every step of `STEPS`, unsplit."""
    from einsumc import compile_einsum
    from einsumc.runtime.virtual import virtual

    found = []
    for equation, extents in read(STEPS):
        for dtype in dtypes:
            operands = [virtual(shape, dtype) for shape in shapes_of(equation, extents)]
            plan = compile_einsum(equation, optimize=False).explain(*operands)
            if not plan.steps:
                continue
            measured = plan.measure(rounds)
            sizes = " ".join(f"{name}={n}" for name, n in extents.items())
            what = f"{equation} {sizes} {dtype} {plan.steps[0].recipe}"
            found.append(Timed(what, measured.predicted, measured.measured or math.nan))
    return found


def measure_orders(
    equation: str, extents: dict[str, int], dtype: str, rounds: int, most: int, seconds: float
) -> list[Timed]:
    """An equation in several orders of contraction, in turns; hopeless ones are left out."""
    import numpy as np
    from einsumc import compile_einsum

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes_of(equation, extents)]
    calls, predicted = [], []
    for path in orders(len(arrays), most):
        call = compile_einsum(equation, optimize=path)
        plan = call.explain(*arrays)
        if plan.predicted <= seconds and plan.peak_memory <= 1 << 30:
            calls.append(call)
            predicted.append(plan)
    best = [math.inf] * len(calls)
    for number in range(rounds + 1):  # the first one plans and compiles
        for place, call in enumerate(calls):
            begin = time.perf_counter()
            call(*arrays)
            if number:
                best[place] = min(best[place], time.perf_counter() - begin)
    return [
        Timed(
            plan.factorization.chosen + " " + "; ".join(s.subscripts for s in plan.steps),
            plan.predicted,
            took,
        )
        for plan, took in zip(predicted, best, strict=True)
        if plan.factorization is not None
    ]


def summary(pairs: Sequence[Timed]) -> str:
    """Correlation, and how far predictions are off."""
    ratios = sorted(pair.predicted / pair.measured for pair in pairs)
    off = sorted(max(ratio, 1 / ratio) for ratio in ratios)
    return (
        f"{len(pairs)}: Spearman {spearman(pairs):.3f}, predicted/measured median "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"off by {statistics.median(off):.2f} at the median, "
        f"{off[int(0.9 * len(off))]:.2f} for nine in ten"
    )


def statistics_of(pairs: Sequence[Timed]) -> dict[str, float]:
    """The same as numbers."""
    ratios = sorted(pair.predicted / pair.measured for pair in pairs)
    off = sorted(max(ratio, 1 / ratio) for ratio in ratios)
    return {
        "count": len(pairs),
        "spearman": spearman(pairs),
        "ratio": statistics.median(ratios),
        "off": statistics.median(off),
        "off_nine_in_ten": off[int(0.9 * len(off))],
    }


def write(found: Mapping[str, Any], path: Path | None) -> None:
    """Keep the statistics, if a file is named."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", default="f4,f8", help="of the steps, with commas")
    parser.add_argument("--orders", type=int, default=20, help="of each equation at most")
    parser.add_argument("--show", action="store_true", help="every measurement")
    parser.add_argument("--only", choices=("steps", "orders"))
    parser.add_argument("--json", type=Path, help="write the statistics to this file")
    options = parser.parse_args()
    os.environ["EINSUMC_NUM_THREADS"] = str(options.threads)

    from einsumc.compiler.show import seconds
    from einsumc.runtime.machine import source

    print(f"machine: {source()}; {options.threads} thread(s)")

    def show(pairs: Sequence[Timed]) -> None:
        for pair in sorted(pairs, key=lambda pair: pair.predicted / pair.measured):
            ratio = f"{pair.predicted / pair.measured:5.2f}"
            print(
                f"  {ratio}  {seconds(pair.predicted):>8}  {seconds(pair.measured):>8}  {pair.what}"
            )

    found: dict[str, Any] = {"machine": source(), "threads": options.threads}
    if options.only != "orders":
        steps = measure_steps(options.dtypes.split(","), options.rounds)
        if options.show:
            show(steps)
        print(f"steps, {summary(steps)}")
        found["steps"] = statistics_of(steps)
    if options.only == "steps":
        write(found, options.json)
        return
    regrets, every, correlations = [], [], []
    for equation, extents in read(ORDERS):
        pairs = measure_orders(equation, extents, "f8", options.rounds, options.orders, seconds=0.2)
        if options.show:
            show(pairs)
        chosen = min(pairs, key=lambda pair: pair.predicted)
        best = min(pairs, key=lambda pair: pair.measured)
        regret = chosen.measured / best.measured
        regrets.append(regret)
        every += pairs
        correlations.append(spearman(pairs))
        print(
            f"{equation:26} {len(pairs):3} orders, Spearman {correlations[-1]:5.2f}, "
            f"regret {regret:.2f}"
        )
    print(f"orders, {summary(every)}")
    known = [each for each in correlations if not math.isnan(each)]
    print(f"orders of one equation: Spearman, median {statistics.median(known):.2f}")
    mean = math.exp(statistics.fmean(map(math.log, regrets)))
    print(f"regret: geometric mean {mean:.2f}, largest {max(regrets):.2f}")
    found["orders"] = statistics_of(every)
    found["equations"] = len(regrets)
    found["regret"] = {"mean": mean, "largest": max(regrets)}
    write(found, options.json)


if __name__ == "__main__":
    main()
