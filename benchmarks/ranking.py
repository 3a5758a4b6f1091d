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
import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from einsumc.compiler.factorize import Path

STEPS = """
ij,jk->ik        i=64 j=64 k=64
ij,jk->ik        i=256 j=256 k=256
ij,jk->ik        i=1000 j=1000 k=1000
ij,kj->ik        i=500 j=500 k=500
ji,jk->ik        i=500 j=500 k=500
ij,jk->ik        i=13 j=1000 k=1000
ij,jk->ik        i=1000 j=1000 k=13
ij,jk->ik        i=1000 j=13 k=1000
ij,jk->ik        i=2000 j=5 k=2000
ij,jk->ik        i=4000 j=3 k=500
ij,jk->ik        i=3 j=2000 k=2000
ij,jk->ik        i=10 j=10 k=10
bij,bjk->bik     b=1000 i=8 j=8 k=8
bij,bjk->bik     b=500 i=32 j=32 k=32
bij,bjk->bik     b=100 i=64 j=64 k=64
bij,bkj->bik     b=2000 i=4 j=30 k=4
abij,abjk->abik  a=8 b=12 i=128 j=64 k=128
iajb,jkbc->ikac  i=20 a=20 j=20 b=20 k=20 c=20
abcd,dbea->ec    a=24 b=24 c=24 d=24 e=24
abcde,efbad->cf  a=16 b=8 c=24 d=16 e=16 f=24
ij,j->i          i=100 j=100
ij,j->i          i=1000 j=1000
ij,j->i          i=5000 j=5000
ij,i->j          i=1000 j=1000
ij,i->j          i=5000 j=5000
ijk,k->ij        i=200 j=200 k=200
ijk,j->ik        i=200 j=200 k=200
i,j->ij          i=300 j=300
i,j->ij          i=4000 j=4000
ij,ij->ij        i=100 j=100
ij,ij->ij        i=1000 j=1000
ij,ij->ij        i=4000 j=4000
ij,j->ij         i=2000 j=2000
ij,i->ij         i=2000 j=2000
ij->j            i=3000 j=1000
ij->i            i=3000 j=1000
ij->i            i=100000 j=20
ijk->j           i=100 j=100 k=100
ij->             i=1000 j=1000
i,i->            i=1000000
i,i->            i=1000
ij,ij->i         i=1000 j=1000
ij,ij->          i=2000 j=2000
ni,ni->n         n=100000 i=3
nc,nc->n         n=1000000 c=3
ij->ji           i=1000 j=1000
ij->ji           i=3000 j=3000
ijkl->lkji       i=40 j=40 k=40 l=40
ijkl->ljik       i=40 j=40 k=40 l=40
ijk->ikj         i=100 j=100 k=100
bi,bj->bij       b=500 i=60 j=60
ki,k,kj->ij      k=500 i=60 j=60
ij,jk,ik->ik     i=200 j=200 k=200
ijkl,jmik,jmil->jm  i=12 j=12 k=12 l=12 m=12
ab,cbe,ae->ac    a=60 b=60 c=60 e=60
i,i,i->i         i=100000
i,j,k->ijk       i=100 j=100 k=100
"""
"""Steps that nothing splits: equations and extents."""

ORDERS = """
ij,jk,kl->il              i=300 j=20 k=400 l=50
ij,jk,kl->il              i=600 j=600 k=600 l=4
ij,jk,kl,lm->im           i=100 j=500 k=60 l=400 m=30
ki,k,kj->ij               k=2000 i=100 j=100
ki,k,kj,k->ij             k=50 i=10 j=10
ab,cbe,ae->ac             a=50 b=60 c=70 e=80
ijkl,jmik,jmil->jm        i=24 j=24 k=24 l=24 m=24
bk,bgk,bkd->bgd           b=64 g=32 k=64 d=64
nti,nsi,ntj,nsj->n        n=16 t=32 s=32 i=256 j=128
ni,ni,nj,nj->n            n=256 i=300 j=500
abj,jk,abk->abk           a=20 b=15 j=200 k=310
ijab,jb,ka->ik            i=40 j=40 a=40 b=40 k=40
ea,fb,abcd,gc,hd->efgh    a=12 b=12 c=12 d=12 e=12 f=12 g=12 h=12
abc,bd,ce->ade            a=200 b=60 c=60 d=8 e=8
iak,jbk,kl->iajbl         i=20 a=10 j=20 b=10 k=30 l=16
i,ij,j->                  i=1000 j=1000
ij,ik,il->jkl             i=200 j=30 k=30 l=30
tb,tn,tc->bnc             t=500 b=4 n=40 c=50
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
    """The equations of a table, and the extents of their indices."""
    for line in text.strip().splitlines():
        equation, *extents = line.split()
        yield equation, {name: int(n) for name, _, n in (each.partition("=") for each in extents)}


def shapes_of(equation: str, extents: dict[str, int]) -> list[tuple[int, ...]]:
    """The operands' shapes."""
    terms = equation.partition("->")[0].split(",")
    return [tuple(extents[index] for index in term) for term in terms]


def orders(operands: int, most: int) -> list[Path]:
    """Orders of contraction: all at once and every sequence of pairs, or so many of them."""
    found: list[Path] = [()]
    for left in range(operands, 1, -1):
        pairs = list(itertools.combinations(range(left), 2))
        found = [(*path, pair) for path in found for pair in pairs]
    unsplit = (tuple(range(operands)),)
    return [unsplit, *random.Random(0).sample(found, min(most, len(found)))]


def measure_steps(dtypes: Sequence[str], rounds: int) -> list[Timed]:
    """Every step of `STEPS`, unsplit."""
    from einsumc import compile_einsum
    from einsumc.runtime.plan import virtual

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", default="f4,f8", help="of the steps, with commas")
    parser.add_argument("--orders", type=int, default=20, help="of each equation at most")
    parser.add_argument("--show", action="store_true", help="every measurement")
    parser.add_argument("--only", choices=("steps", "orders"))
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

    if options.only != "orders":
        steps = measure_steps(options.dtypes.split(","), options.rounds)
        if options.show:
            show(steps)
        print(f"steps, {summary(steps)}")
    if options.only == "steps":
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


if __name__ == "__main__":
    main()
