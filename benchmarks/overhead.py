"""What a call of einsumc costs before it computes anything.

    python benchmarks/overhead.py [--json FILE]

Times a product of two 2x2 matrices, whose arithmetic takes nanoseconds, and a chain of such
products along a given path: the difference, divided by the number of further steps, is what each
step adds. Then products of two 8x8 matrices, by whatever can compute them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peers import limit_threads

STEPS = 8
REPEATS = 2000
ROUNDS = 15


def chain(steps: int) -> Callable[[], Any]:
    """A call that multiplies matrices of 2x2 elements in so many steps, from left to right."""
    import einsumc
    import numpy as np

    letters = "abcdefghijklmnop"[: steps + 2]
    terms = [first + second for first, second in itertools.pairwise(letters)]
    path = [(0, 1)] + [(0, left - 1) for left in range(steps, 1, -1)]  # results go to the end
    equation = f"{','.join(terms)}->{letters[0]}{letters[-1]}"
    compiled = einsumc.compile_einsum(equation, optimize=["einsum_path", *path])
    operands = [np.eye(2) for _ in terms]
    return lambda: compiled(*operands)


def best_time(call: Callable[[], Any]) -> float:
    """The seconds of one call, in the fastest of several samples."""
    for _ in range(3):  # to make the plan, and to hand it over to native code
        call()
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(REPEATS):
            call()
        best = min(best, (time.perf_counter() - begin) / REPEATS)
    return best


def measure() -> dict[str, float]:
    """Seconds of a call with one step ("first"), and of each further one ("step")."""
    first, several = best_time(chain(1)), best_time(chain(STEPS))
    return {"first": first, "step": (several - first) / (STEPS - 1)}


def products() -> dict[str, float]:
    """Seconds of a product of two 8x8 matrices of f8."""
    import einsumc
    import numpy as np

    a, b = np.random.default_rng(0).random((2, 8, 8))
    compiled, out = einsumc.compile_einsum("ij,jk->ik"), np.empty((8, 8))
    calls: dict[str, Callable[[], Any]] = {
        "compiled einsum": lambda: compiled(a, b),
        "compiled einsum, out": lambda: compiled(a, b, out=out),
        "einsumc.einsum": lambda: einsumc.einsum("ij,jk->ik", a, b),
        "np.matmul": lambda: np.matmul(a, b),
        "np.matmul, out": lambda: np.matmul(a, b, out=out),
        "np.einsum": lambda: np.einsum("ij,jk->ik", a, b),
    }
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        c, d = torch.from_numpy(a), torch.from_numpy(b)
        calls["torch.matmul"] = lambda: torch.matmul(c, d)
        calls["torch.einsum"] = lambda: torch.einsum("ij,jk->ik", c, d)
    return {name: best_time(call) for name, call in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    limit_threads(1)
    found = measure()
    print(
        f"a call with one step: {found['first'] * 1e6:.2f} µs; "
        f"each further step: {found['step'] * 1e6:.2f} µs"
    )
    small = products()
    print("a product of two 8x8 matrices:")
    for name, seconds in small.items():
        print(f"  {name:20} {seconds * 1e6:6.2f} µs")
    if options.json:
        options.json.write_text(json.dumps(found | {"products": small}, indent=1) + "\n")


if __name__ == "__main__":
    main()
