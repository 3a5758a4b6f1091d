"""What a process pays before its first result, when its kernels are in the store.

    python benchmarks/startup.py [--rounds 15] [--json FILE]

Three figures, each above a process that imports NumPy and multiplies two matrices: the time to the
first result, with the plan in the store and with the kernels alone; the time to load a kernel; and
the memory of a process with 100 kernels. Times of processes are the best of some rounds in turn, as
passed and as spent on the CPU, since other work on the machine counts in the first.
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

NUMPY = """
import numpy as np
a, b, c = np.ones((64, 64)), np.ones((64, 64)), np.ones((64, 64))
a @ b
"""
CALL = "import einsumc\neinsumc.einsum({equation!r}, {operands})\n"
FORGET = """
import os, einsumc.runtime.store as stores
found = stores.Store(os.environ["EINSUMC_CACHE_DIR"])
for entry in list(found.entries()):
    if entry.header["kind"] == "plan":
        found.remove(entry.key)
"""
PROCESSES = {
    "numpy": NUMPY,
    "product, plan stored": NUMPY + CALL.format(equation="ij,jk->ik", operands="a, b"),
    "chain of three, plan stored": NUMPY + CALL.format(equation="ij,jk,kl->il", operands="a, b, c"),
}
PLANNING = {
    "product, kernel stored": PROCESSES["product, plan stored"],
    "chain of three, kernels stored": PROCESSES["chain of three, plan stored"],
}
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


def timed(script: str) -> tuple[float, float]:
    """Seconds of a process, as passed and on the CPU."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
    passed = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(scripts: dict[str, str], rounds: int, before: str = "") -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, script in scripts.items():
            if before:
                subprocess.run([sys.executable, "-P", "-c", before], check=True)
            passed, spent = timed(script)
            old = found.get(name, (passed, spent))
            found[name] = min(old[0], passed), min(old[1], spent)
    return found


def number(script: str) -> float:
    command = [sys.executable, "-P", "-c", script]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    for name in ("EINSUMC", "MKL", "OMP", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EINSUMC_CACHE_DIR"] = folder
        best(PROCESSES, 1)  # compiles
        times = best(PROCESSES, options.rounds)
        times |= best(PLANNING, max(1, options.rounds // 3), FORGET)
        load, memory = number(LOAD), number(MEMORY)
    base = times.pop("numpy")
    print(f"import numpy and multiply: {1e3 * base[0]:.1f} ms, {1e3 * base[1]:.1f} ms of CPU time")
    for name, (passed, spent) in times.items():
        above = f"{1e3 * (passed - base[0]):6.1f} ms, {1e3 * (spent - base[1]):6.1f} ms of CPU time"
        print(f"  {name:32} {above} above that")
    print(f"loading one kernel: {1e3 * load:.3f} ms")
    print(f"100 kernels loaded: {memory / 2**20:.2f} MiB above numpy")
    if options.json:
        report = {"numpy": base, "times": times, "load": load, "memory": memory}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
