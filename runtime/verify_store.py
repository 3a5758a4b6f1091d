"""Check a store: every byte of every kernel, and whether compiling again gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

from ..compiler.records import dataclass, field
from .provenance import compare
from .store import Store
from .target import available_cores

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
    with ExitStack() as stack:
        results: Iterable[tuple[str, str]]
        if quick or jobs <= 1:
            results = map(check, keys)
        else:
            pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
            results = stack.enter_context(pool).map(check, keys)
        for wrong, why in results:
            if wrong:
                verdict.wrong.append(wrong)
            elif why:
                verdict.others[why] += 1
            done()
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
