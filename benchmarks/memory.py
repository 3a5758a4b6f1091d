"""How much memory one contraction takes beyond its operands and its output.

    python benchmarks/memory.py [--cases products,tccg] [--show 10]

Every case runs in a process of its own. A first call plans and compiles, so that what is measured
is the contraction: the peak of resident memory (VmHWM, reset through /proc/self/clear_refs) over
what was resident just before, operands and a written output among it. The measured call is made by
a new thread, since a thread keeps its scratch for its next call. Linux only.

A network has intermediates, which are not counted as extra of one contraction: only einsums of one
or two operands are run, unless `--networks` asks for the others.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from options import case_parser
from peers import limit_threads

CASES = "products,tccg,hptt_transposes,issue_cases,einsum_instances"

# The C library of a child gives freed memory back at once: none is there to be used again unseen.
CHILD = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def extra_bytes(suite: str, name: str, max_flops: float, max_bytes: float) -> dict[str, Any]:
    """Run one case in this process and say what its peak was."""
    import einsumc
    import numpy as np
    from cases import load

    (case,) = (case for case in load(suite) if case.name == name)
    case = case.shrink(max_flops, max_bytes)
    operands = case.random_operands()
    out = np.zeros(case.output_shape, case.dtype)
    out.fill(1)
    compiled = einsumc.compile_einsum(case.equation)
    compiled(*operands, out=out)
    run = threading.Thread(target=lambda: compiled(*operands, out=out))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run.start()
    run.join()
    return {
        "name": name,
        "suite": suite,
        "dtype": case.dtype,
        "operands": sum({id(each): each.nbytes for each in operands}.values()),
        "output": out.nbytes,
        "extra": max(0, status("VmHWM") - before),
    }


def in_child(arguments: Sequence[str]) -> dict[str, Any]:
    """`extra_bytes` in a fresh process."""
    child = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | CHILD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def main() -> None:
    parser = case_parser(__doc__, CASES)
    parser.add_argument("--networks", action="store_true", help="also three operands and more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=10, help="so many of the largest")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # suite and name
    options = parser.parse_args()
    limit_threads(options.threads)
    sizes = (options.max_gflop * 1e9, options.max_mib * 2**20)
    if options.child:
        suite, name = options.child
        print(json.dumps(extra_bytes(suite, name, *sizes)))
        return

    import cases

    chosen = [case for suite in options.cases.split(",") for case in cases.load(suite)]
    chosen = [case for case in chosen if options.only in case.name and case.expression.is_plain]
    if not options.networks:
        chosen = [case for case in chosen if len(case.operands) <= 2]
    limited = ["--max-gflop", str(options.max_gflop), "--max-mib", str(options.max_mib)]
    limited += ["--threads", str(options.threads)]
    rows = []
    for number, case in enumerate(cases.sample(chosen, options.sample), 1):
        print(f"[{number}] {case.name}", file=sys.stderr)
        rows.append(in_child([*limited, "--child", case.suite, case.name]))
    rows.sort(key=lambda row: -row["extra"])
    for row in rows[: options.show]:
        whole = (row["operands"] + row["output"]) / 2**20
        print(f"{row['extra'] / 2**20:8.2f} MiB beyond {whole:8.2f} MiB  {row['name']}")
    if rows:
        most = rows[0]["extra"] / options.threads / 2**20
        print(f"most extra memory: {most:.2f} MiB a thread ({len(rows)} cases)")
    if options.json:
        report = {"threads": options.threads, "cases": rows}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
