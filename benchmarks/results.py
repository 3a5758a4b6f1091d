"""What a new array for the result costs: the same call into one that is there already.

    python benchmarks/results.py [--cases tccg,einsum_instances] [--show 10]

A large array is fresh memory at every call: the system maps its pages one by one, and fills them
with zeros, before a kernel can write to them. Both calls take turns in one process, and of each the
fastest counts. Cases with results of 32 MiB and more are run, from which on the C library gives
memory back to the system when an array is deleted.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

from options import case_parser
from peers import limit_threads

LARGE = 32 << 20  # bytes


def main() -> None:
    parser = case_parser(__doc__, "tccg,einsum_instances")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--show", type=int, default=10, help="so many that lose most")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    limit_threads(options.threads)

    import cases
    import einsumc
    import numpy as np

    sizes = (options.max_gflop * 1e9, options.max_mib * 2**20)
    chosen = [case for suite in options.cases.split(",") for case in cases.load(suite)]
    chosen = [case.shrink(*sizes) for case in chosen if options.only in case.name]
    bytes_of = {c.name: math.prod(c.output_shape) * np.dtype(c.dtype).itemsize for c in chosen}
    chosen = [case for case in chosen if bytes_of[case.name] >= LARGE]
    rows = []
    for number, case in enumerate(cases.sample(chosen, options.sample), 1):
        print(f"[{number}] {case.name}", file=sys.stderr)
        operands = case.random_operands()
        out = np.ones(case.output_shape, case.dtype)
        call = einsumc.compile_einsum(case.equation)
        best = {"new": math.inf, "existing": math.inf}
        for _ in range(options.rounds + 1):  # the first round plans and compiles
            begin = time.perf_counter()
            call(*operands)
            middle = time.perf_counter()
            call(*operands, out=out)
            end = time.perf_counter()
            best["new"] = min(best["new"], middle - begin)
            best["existing"] = min(best["existing"], end - middle)
        row = {"name": case.name, "dtype": case.dtype, "output": bytes_of[case.name]}
        rows.append(row | best)
    rows.sort(key=lambda row: row["existing"] / row["new"])
    for row in rows[: options.show]:
        print(
            f"{row['name']:40} {row['output'] / 2**20:6.0f} MiB  into a new array "
            f"{1e3 * row['new']:7.1f} ms, into one that exists {1e3 * row['existing']:7.1f} ms"
        )
    if options.json:
        text = json.dumps({"threads": options.threads, "results": rows}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
