"""Kernels for a call: at the best level that the stores have, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..compiler.alone import alone
from . import settings
from .kernels import KernelMissing
from .levels import levels, planning_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .operands import Array
    from .uses import AnyUse

__all__ = ["at_best_level", "explain_missing", "hooks"]

_T = TypeVar("_T")

hooks: list[Callable[[KernelMissing], object]] = []
"""Called with every error that says that a kernel is missing, before it is raised."""


def at_best_level(prepare: Callable[[], _T], explain: Callable[[KernelMissing], str]) -> _T:
    """What `prepare` makes, at the first level (`levels.levels`) whose kernels can be had.

    One call is prepared at a time, and a fork waits until it is.

    Args:
        prepare: plans a call and obtains its kernels.
        explain: what to say if there are none.

    Raises:
        KernelMissing: there are none.
    """
    first = None
    for level in levels():
        with planning_for(level):
            try:
                with alone:
                    return prepare()
            except KernelMissing as problem:
                first = first or problem
    assert first is not None
    error = KernelMissing(explain(first))
    for hook in hooks:
        hook(error)
    raise error from None


def explain_missing(
    problem: KernelMissing, what: str, operands: Sequence[Array], use: Callable[[], AnyUse]
) -> str:
    """The error for a call whose kernels are missing: which call, and how to compile them.

    Args:
        problem: says which kernel.
        what: the equation or the function.
        operands: as they were given.
        use: makes the entry of a manifest; NotWritable if there is none.
    """
    import shlex
    import textwrap

    from .layouts import layout_of
    from .store import default_stores
    from .uses import NotWritable, to_text

    if settings.current().compile == "never":
        reason = "EINSUMC_COMPILE=never forbids to compile it"
    else:
        reason = "without Numba it cannot be compiled"
    stores = default_stores().stores
    given = [f"{a.dtype} {'x'.join(map(str, a.shape)) or '()'} {layout_of(a)}" for a in operands]
    target = next(levels())
    command = ["einsumc", "precompile", "kernels.toml", "--target", target]
    command += ["--output", stores[0].path]
    searched = "\n             ".join(
        f"{store.path} ({store.trouble})" if store.trouble else store.path for store in stores
    )
    head = (
        f"a kernel is in no store, and {reason}\n"
        f"  {what}\n"
        f"  operands   {', '.join(given)}\n"
        f"  target     {target}\n"
        f"  kernel     {problem}\n"
        f"  searched   {searched}\n"
    )
    try:
        entry = textwrap.indent(to_text([use()]), "    ")
    except NotWritable as why:
        return (
            f"{head}No entry of a kernels.toml can stand for this call: {why}.\n"
            "Make it once where compiling is allowed, with "
            f"EINSUMC_CACHE_DIR={shlex.quote(stores[0].path)}: that store then has its kernels."
        )
    return (
        f"{head}Put this into kernels.toml:\n\n{entry}\n\n"
        f"and run where compiling is allowed:\n\n    {shlex.join(command)}\n"
    )
