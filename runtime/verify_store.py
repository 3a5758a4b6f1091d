"""Check a store: every byte of every kernel, and whether compiling again gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from ..compiler.records import dataclass, field
from .provenance import compare
from .store import Store
from .target import available_cores
from .workers import in_processes

__all__ = ["Verdict", "verify_store"]

_WORTH_A_PROCESS = 3  # kernels, which take as long as to start one


@dataclass
class Verdict:
    """What was found.

    Attributes:
        wrong: for every kernel that is damaged or not the same, what is wrong.
        others: why kernels were not compiled again, and how many.
    """

    wrong: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def verify_store(
    store: Store,
    keys: Sequence[str],
    quick: bool = False,
    jobs: int | None = None,
    done: Callable[[], object] = lambda: None,
) -> Verdict:
    """Check kernels of a store.

    Args:
        store: the directory.
        keys: of the kernels.
        quick: whether to leave out compiling again.
        jobs: the most processes to use; by default one a core.
        done: called after every kernel.
    """
    jobs = min(jobs or available_cores(), -(-len(keys) // _WORTH_A_PROCESS))
    check = partial(_check, store, quick)
    verdict = Verdict()
    wrong: dict[str, str] = {}
    here = quick or jobs <= 1
    parts = ((key, (key,)) for key in keys)
    results = ((key, check(key)) for key in keys) if here else in_processes(check, parts, jobs)
    for key, (problem, why) in results:
        if problem:
            wrong[key] = problem
        elif why:
            verdict.others[why] += 1
        done()
    verdict.wrong += [wrong[key] for key in keys if key in wrong]
    return verdict


def _check(store: Store, quick: bool, key: str) -> tuple[str, str]:
    """What is wrong with a kernel, and why it was not compiled again; empty texts for nothing."""
    if problem := store.problem(key):
        return problem, ""
    stored = None if quick else store.get(key)
    if stored is None:
        return "", ""
    try:
        different = compare(stored)
    except ValueError as why:
        return "", str(why)
    return f"kernel {key[:12]}: {different}" if different else "", ""
