"""Which kernels calls get, where a signature was compiled beforehand and nothing else may be.

    python benchmarks/served.py [--calls 50] [--only bij] [--jobs 2] [--write]

All signatures are compiled into one store. Then processes that may not compile make calls with
random operands: extents as often between 1 and 2 as between 2 and 4 and so on; of the operands 60 %
in C or Fortran order, the others transposed, slices, with steps, reversed or broadcast. Every
result is compared with `np.einsum`. Counted are the calls that get the kernels that they would have
compiled; those that get some of other sizes; and those with a general one; beside the last two the
geometric mean of how many times as long they take. A second table has how many times as long
general kernels take in larger products, with panels and without. `--write` puts both into
docs/coverage.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory
from typing import Any

DOCUMENT = Path(__file__).parents[1] / "docs" / "coverage.md"

SIGNATURES = (
    ("ij,jk->ik", "f4"),
    ("ij,j->i", "f8"),
    ("ij->i", "f4"),
    ("ij->j", "i4"),
    ("ij,ij->ij", "f4"),
    ("i,j->ij", "f8"),
    ("i,i->", "f4"),
    ("bij,bjk->bik", "f4"),
    ("ij,jk,kl->il", "f8"),
    ("bhqd,bhkd->bhqk", "f4"),
)

TIMED = (  # shapes, and how operands lie: axes from the slowest on, "*" for every second element
    ("ij,jk->ik", "300 x 300 x 300, C order", ((300, 300), (300, 300)), ("01", "01")),
    ("ij,jk->ik", "the same, the first in Fortran order", ((300, 300), (300, 300)), ("10", "01")),
    ("ij,jk->ik", "the same, every second column", ((300, 300), (300, 300)), ("01*", "01*")),
    ("bij,bjk->bik", "10 times 100 x 100 x 100", ((10, 100, 100),) * 2, ("012", "012")),
    ("bhqd,bhkd->bhqk", "2 x 4 x 100 x 100 x 64", ((2, 4, 100, 64),) * 2, ("0123", "0123")),
    ("abc,cbd->da", "40 x 20 x 30 x 50", ((40, 20, 30), (30, 20, 50)), ("012", "012")),
)


def drawn(shape, dtype, rng):
    """An array as it may come: in C or Fortran order, a view, or something rarer."""
    import numpy as np

    kind = rng.choice(
        ["C", "F", "transposed", "slice", "steps", "backwards", "broadcast"],
        p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05],
    )
    values = rng.integers(0, 3, [n + 2 for n in shape]).astype(dtype)
    if kind == "steps":
        values = rng.integers(0, 3, [2 * n for n in shape]).astype(dtype)
        return values[tuple(slice(None, 2 * n, 2) for n in shape)]
    if kind == "transposed":
        return np.ascontiguousarray(values[tuple(slice(n) for n in shape)].T).T
    values = values[tuple(slice(1, n + 1) for n in shape)]
    if kind == "slice":
        return values
    if kind == "backwards":
        return values.copy()[(slice(None, None, -1),) * bool(shape)]
    if kind == "broadcast" and shape and shape[0]:
        return np.broadcast_to(values[:1].copy(), shape)
    return np.array(values, order="F" if kind == "F" else "C")


def drawn_operands(equation, dtype, rng, powers):
    """Operands of random sizes up to 2 to the `powers`, and at times 0."""
    terms = equation.split("->")[0].split(",")
    sizes = {i: int(2 ** rng.uniform(0, powers)) for i in "".join(terms)}
    if rng.random() < 0.05:
        sizes[rng.choice(list(sizes))] = 0
    return [drawn([sizes[i] for i in term], dtype, rng) for term in terms]


def signature_of(equation, dtype):
    """With all extents open."""
    return ", ".join(f"{dtype}[{','.join(term)}]" for term in equation.split("->")[0].split(","))


# --- which kernels calls get ----------------------------------------------------------------------


def calls_of(equation: str, dtype: str, calls: int) -> Iterator[list[Any]]:
    """Operands of so many calls, the same ones every time."""
    import numpy as np

    rng = np.random.default_rng(2)
    powers = 6 if len(set(equation) - set(",->")) > 4 else 9
    for _ in range(calls):
        yield drawn_operands(equation, dtype, rng, powers)


def counted(equation: str, dtype: str, calls: int) -> list[tuple[str, float]]:
    """Make calls in this process, where nothing may be compiled: kinds of kernels, and seconds."""
    import einsumc
    import numpy as np

    compiled = einsumc.compile_einsum(equation)
    found = []
    for operands in calls_of(equation, dtype, calls):
        result = compiled(*operands)  # of small whole numbers: exact in any order
        if not (result == np.einsum(equation, *operands, optimize=True)).all():
            raise AssertionError(f"{equation} {[x.shape for x in operands]} is wrong")
        used = compiled.explain(*operands).steps
        os.environ["EINSUMC_COMPILE"] = "auto"
        best = compiled.explain(*operands).steps
        os.environ["EINSUMC_COMPILE"] = "never"
        if [step.key for step in used] == [step.key for step in best]:
            kind = "own"
        elif any("general" in step.recipe for step in used):
            kind = "general"
        else:
            kind = "other sizes"
        found.append((kind, 0.0 if kind == "own" else least_seconds(compiled, operands)))
    return found


def compiled_ones(equation: str, dtype: str, kinds: list[str]) -> list[float]:
    """The seconds of those calls that did not have their own kernels, now that they do."""
    import einsumc

    compiled = einsumc.compile_einsum(equation)
    calls = zip(calls_of(equation, dtype, len(kinds)), kinds, strict=True)
    return [0.0 if kind == "own" else least_seconds(compiled, each) for each, kind in calls]


def least_seconds(compiled: Any, operands: list[Any], together: float = 0.05) -> float:
    """Of a call, on one thread, in about so many seconds of trying."""
    import einsumc

    einsumc.set_num_threads(1)
    compiled(*operands)
    compiled(*operands)  # the native entry comes with the second call
    best, end = math.inf, time.perf_counter() + together
    while time.perf_counter() < end:
        begin = time.perf_counter()
        compiled(*operands)
        best = min(best, time.perf_counter() - begin)
    return best


def coverage(signatures: list[tuple[str, str]], calls: int, jobs: int) -> list[list[str]]:
    """The first table's rows."""
    from einsumc.compiler.subscripts import parse
    from einsumc.runtime.precompile import build, jobs_for
    from einsumc.runtime.signatures import parse_signature
    from einsumc.runtime.store import Store

    rows = []
    with TemporaryDirectory() as folder:
        wanted: dict[str, Any] = {}
        for equation, dtype in signatures:
            subscripts = parse(equation)
            signature = parse_signature(signature_of(equation, dtype), subscripts)
            made = jobs_for(subscripts, [signature])
            wanted |= {job.key: job for job in made}
            rows.append([f"`{equation}` {dtype}", str(len(made))])
        kernels = build(list(wanted.values()), store=Store(f"{folder}/made"), jobs=jobs)
        size = sum(kernel.size for kernel in kernels)
        for row, (equation, dtype) in zip(rows, signatures, strict=True):
            found = in_process(f"{folder}/made", "count", [equation, dtype, calls])
            kinds = [kind for kind, _ in found]
            best = in_process(f"{folder}/own", "own", [equation, dtype, kinds], compile="auto")
            row.append(str(kinds.count("own")))
            for kind in ("other sizes", "general"):
                pairs = zip(found, best, strict=True)
                times = [took / own for (each, took), own in pairs if each == kind]
                row.append(f"{len(times)} ({geometric_mean(times):.2g})" if times else "")
            print(*row, sep="  ", file=sys.stderr)
        kib = f"{size / 1024:.0f} KiB of code"
        rows.append(["all of them", f"{len(wanted)}, {kib}", "", "", ""])
    return rows


# --- what general kernels cost --------------------------------------------------------------------


def laid_out(shape, layout, rng):
    """A random f4 array of a shape and a layout."""
    order = [int(axis) for axis in layout.rstrip("*")]
    step = 2 if layout.endswith("*") else 1
    there = [shape[axis] for axis in order]
    there[-1] *= step
    values = rng.standard_normal(there).astype("f4")[..., ::step]
    return values.transpose([order.index(axis) for axis in range(len(order))])


def timed(equation: str, shapes: Any, layouts: Any) -> float:
    """The least seconds of a call in this process."""
    import einsumc
    import numpy as np

    rng = np.random.default_rng(0)
    operands = [laid_out(s, w, rng) for s, w in zip(shapes, layouts, strict=True)]
    return least_seconds(einsumc.compile_einsum(equation), operands, together=2)


def general_costs(only: str) -> list[list[str]]:
    """The second table's rows: the time with general kernels, over that with their own."""
    from einsumc.compiler.choose.general import general_packed_schedule
    from einsumc.compiler.subscripts import parse
    from einsumc.runtime.machine import machine
    from einsumc.runtime.precompile import build, jobs_for
    from einsumc.runtime.signatures import parse_signature
    from einsumc.runtime.store import Store

    rows = []
    panels = general_packed_schedule("f4", machine())
    with TemporaryDirectory() as folder:
        for equation, what, *given in TIMED:
            if only not in equation:
                continue
            subscripts = parse(equation)
            jobs = jobs_for(subscripts, [parse_signature(signature_of(equation, "f4"), subscripts)])
            programs = [job for job in jobs if job.recipe in ("thread pool", "entry")]
            plain = [job for job in jobs if job.recipe == "general"]
            packed = [job for job in jobs if job.schedule == panels]
            store = {name: f"{folder}/{name}" for name in ("own", "panels", "without")}
            build(programs + plain, store=Store(store["without"]))
            build(programs + packed, store=Store(store["panels"]))
            took = {
                name: in_process(
                    path, "time", [equation, *given], compile="auto" if name == "own" else "never"
                )
                for name, path in store.items()
            }
            ratios = [f"{took[name] / took['own']:.2g}" for name in ("panels", "without")]
            rows.append([f"`{equation}`, {what}", *ratios])
            print(*rows[-1], sep="  ", file=sys.stderr)
    return rows


def in_process(store: str, what: str, arguments: list[Any], compile: str = "never") -> Any:
    """What this script prints when it is run with a store."""
    environment = {**os.environ, "EINSUMC_CACHE_DIR": store, "EINSUMC_COMPILE": compile}
    done = subprocess.run(
        [sys.executable, __file__, "--in-process", json.dumps([what, *arguments])],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print the tables, or put them into the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--calls", type=int, default=50, help="of each signature")
    parser.add_argument("--only", default="", help="signatures whose equation contains this")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="into docs/coverage.md")
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        what, *arguments = json.loads(options.in_process)
        print(json.dumps({"count": counted, "own": compiled_ones, "time": timed}[what](*arguments)))
        return
    signatures = [pair for pair in SIGNATURES if options.only in pair[0]]
    heads = ["signature", "kernels", "own", "of other sizes", "general"]
    tables = {
        "calls": table(heads, coverage(signatures, options.calls, options.jobs)),
        "general": table(["step", "with panels", "without"], general_costs(options.only)),
    }
    for name, text in tables.items():
        print(f"{text}\n")
        if options.write:
            document = DOCUMENT.read_text()
            before, rest = document.split(f"<!-- {name} -->\n")
            _, after = rest.split("<!-- end -->", 1)
            DOCUMENT.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end -->{after}")


if __name__ == "__main__":
    main()
