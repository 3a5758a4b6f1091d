"""What a process pays before its first result, when its kernels are in the store.

    python benchmarks/startup.py [--rounds 25] [--json FILE]

Three figures, each above a process that imports NumPy and multiplies two matrices: the time to the
first result; the time to load a kernel; and the memory of a process with 100 kernels. The first
result is measured as a service meets it: in a store that `einsumc precompile` made, with
EINSUMC_COMPILE=never; and in the user's own store, where the second process finds the plans of the
first. A process ends where it has its result, without Python's clearing up. Processes take turns,
and one that only imports NumPy stands beside each. Times are as passed and as spent on the CPU,
since other work on the machine counts in the first: the difference of the best of all rounds, and
the median of the differences of each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

NUMPY = """
import numpy as np
a, b, c = np.ones((64, 64)), np.ones((64, 64)), np.ones((64, 64))
a @ b
"""
END = "import os\nos._exit(0)\n"
CALL = "import einsumc\neinsumc.einsum({equation!r}, {operands})\n"
CALLS = {
    "product": CALL.format(equation="ij,jk->ik", operands="a, b"),
    "chain of three": CALL.format(equation="ij,jk,kl->il", operands="a, b, c"),
}
MANIFEST = """
[[kernel]]
equation = "ij,jk->ik"
signatures = ["f8[i,j], f8[j,k]"]

[[kernel]]
equation = "ij,jk,kl->il"
signatures = ["f8[i,j], f8[j,k], f8[k,l]"]
"""
LOAD = """
import json, os, time
from einsumc.runtime.kernels import loaded
from einsumc.runtime.store import Store
store = Store(os.environ["EINSUMC_CACHE_DIR"])
keys = [e.key for e in store.entries() if e.header["fields"].get("layout")]
loaded(store.get(keys[0]))
times = []
for _ in range(50):
    for key in keys:
        begin = time.perf_counter()
        loaded(store.get(key))
        times.append(time.perf_counter() - begin)
print(json.dumps(sorted(times)[len(times) // 2]))
"""
MEMORY = """
import numpy as np
a = np.ones((64, 64)); a @ a
def resident():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(x.split()[1]) for x in lines if x.startswith("Pss:"))
before = resident()
import os, json
from einsumc.runtime.kernels import loaded
import einsumc
from einsumc.runtime.store import Store
einsumc.einsum("ij,jk->ik", a, a.copy())
store = Store(os.environ["EINSUMC_CACHE_DIR"])
keys = [e.key for e in store.entries() if e.header["fields"].get("layout")]
for n in range(100):
    loaded(store.get(keys[n % len(keys)]))
print(json.dumps((resident() - before) * 1024))
"""


def timed(script: str, setting: dict[str, str]) -> tuple[float, float]:
    """Seconds of a process, as passed and on the CPU."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", script], check=True, env=os.environ | setting)
    passed = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


Rounds = list[tuple[float, float]]


def take_turns(
    processes: dict[str, tuple[str, dict[str, str]]], rounds: int
) -> tuple[Rounds, dict[str, tuple[Rounds, Rounds]]]:
    """The times of NumPy alone, and of each process with those of NumPy just before it."""
    times: dict[str, tuple[Rounds, Rounds]] = {name: ([], []) for name in processes}
    alone: Rounds = []
    for _ in range(rounds):
        for name, (script, setting) in processes.items():
            before = timed(NUMPY + END, {})
            alone.append(before)
            times[name][0].append(before)
            times[name][1].append(timed(script + END, setting))
    return alone, times


def precompile(folder: str) -> None:
    """Fill a store as CI does."""
    manifest = Path(folder) / "kernels.toml"
    manifest.write_text(MANIFEST)
    command = [sys.executable, "-P", "-m", "einsumc.runtime.cli", "precompile", str(manifest)]
    subprocess.run([*command, "--output", folder], check=True, capture_output=True)


def number(script: str) -> float:
    command = [sys.executable, "-P", "-c", script]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    for name in ("EINSUMC", "MKL", "OMP", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as shipped:
        precompile(shipped)
        never = {"EINSUMC_CACHE_DIR": shipped, "EINSUMC_COMPILE": "never"}
        processes = {
            f"{name}, {kind}": (NUMPY + call, setting)
            for kind, setting in (("precompiled", never), ("again", {"EINSUMC_CACHE_DIR": own}))
            for name, call in CALLS.items()
        }
        take_turns(processes, 1)  # compiles for the second kind, and writes bytecode
        alone, times = take_turns(processes, options.rounds)
        os.environ["EINSUMC_CACHE_DIR"] = own
        load, memory = number(LOAD), number(MEMORY)
    best = min(alone)[0], min(spent for _, spent in alone)
    print(f"import numpy and multiply: {1e3 * best[0]:.1f} ms, {1e3 * best[1]:.1f} ms of CPU time")
    print(f"above that, best and median of {options.rounds} rounds")
    report = {}
    for name, (before, after) in times.items():
        report[name] = [
            (
                min(times[kind] for times in after) - best[kind],
                median(y[kind] - x[kind] for x, y in zip(before, after, strict=True)),
            )
            for kind in (0, 1)
        ]
        (passed, passed_median), (spent, spent_median) = (
            [1e3 * seconds for seconds in each] for each in report[name]
        )
        print(
            f"  {name:28} {passed:5.1f} ms, {passed_median:5.1f} ms;"
            f" of CPU time {spent:5.1f} ms, {spent_median:5.1f} ms"
        )
    print(f"loading one kernel: {1e3 * load:.3f} ms")
    print(f"100 kernels loaded: {memory / 2**20:.2f} MiB above numpy")
    if options.json:
        found = {"numpy": best, "times": report, "load": load, "memory": memory}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
