"""`einsumc cache`: look at a kernel store, check it, or make it smaller."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from ..settings import current
from .common import Failure, Misuse, console, progress

if TYPE_CHECKING:
    from ..store import Entry, Store, StoredKernel

__all__ = ["cache"]

_AGES = ((86400 * 365, "years"), (86400 * 30, "months"), (86400, "days"))

_store = click.option(
    "--store",
    "path",
    type=click.Path(file_okay=False),
    help="The directory.  [default: the user's own store]",
)


def _open(path: str | None) -> Store:
    from ..store import Store

    if path is not None and not os.path.isdir(path):
        raise Misuse(f"there is no directory {path}")
    return Store(current().store_dir if path is None else path)


@click.group()
def cache() -> None:
    """Look at a kernel store, check it, or make it smaller."""


@cache.command("path")
def cache_path() -> None:
    """Print the directory of the user's own store."""
    click.echo(current().store_dir)


# --- what is there --------------------------------------------------------------------------------


@cache.command("list")
@_store
def cache_list(path: str | None) -> None:
    """List the kernels: what they compute, for what, how large they are, when they were last used.

    An equation's letters stand for any number of indices each. A target in parentheses is one that
    this machine lacks; "other" versions are never looked for by this version of einsumc.
    """
    from rich.markup import escape
    from rich.table import Table

    from ...compiler.show import size
    from ..provenance import provenance

    store = _open(path)
    entries = list(store.entries())
    table = Table("key", "kind", "equation", "signature", "target", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    for column in ("used", "generator", "built by"):
        table.add_column(column)
    for entry in entries:
        facts = provenance(entry.header)
        table.add_row(
            entry.key[:12],
            facts.kind,
            facts.equation,
            escape(facts.signature),
            facts.target if facts.runs_here else f"({facts.target})",
            size(entry.size),
            _age(entry),
            "this" if facts.current else "other",
            facts.versions,
        )
    if entries:
        console().print(table)
        click.echo("none of them needs Numba, llvmlite or a linker to be loaded")
    total = size(sum(entry.size for entry in entries))
    click.echo(f"{len(entries)} kernels, {total}, in {store.path}")


def _age(entry: Entry) -> str:
    age = time.time() - entry.used
    count, unit = next(((int(age // s), unit) for s, unit in _AGES if age >= 2 * s), (0, ""))
    return f"{count} {unit} ago" if count else "yesterday" if age >= 86400 else "today"


@cache.command("show")
@click.argument("key")
@_store
@click.option("--source", "want_source", is_flag=True, help="Print the source alone.")
@click.option("--asm", "want_assembly", is_flag=True, help="Print the assembler text alone.")
def cache_show(key: str, path: str | None, want_source: bool, want_assembly: bool) -> None:
    """Print what is known of the kernel whose key begins with KEY."""
    from ..provenance import assembly, source

    stored = _stored(_open(path), key)
    try:
        if want_source:
            click.echo(source(stored).rstrip())
        if want_assembly:
            click.echo(assembly(stored).rstrip())
    except ValueError as problem:
        raise Failure(f"kernel {stored.key[:12]}: {problem}") from None
    if not want_source and not want_assembly:
        _show(stored)


def _stored(store: Store, begin: str) -> StoredKernel:
    """The one kernel whose key begins so, whole and sound."""
    keys = [*filter(lambda key: key.startswith(begin.lower()), store.keys())]
    if len(keys) != 1:
        found = f"{len(keys)} kernels" if keys else "no kernel"
        raise Misuse(f"{found} in {store.path} with a key that begins with {begin!r}")
    stored = store.get(keys[0])
    if stored is None:
        raise Failure(str(store.problem(keys[0])))
    return stored


def _show(stored: StoredKernel) -> None:
    from ...compiler.show import size
    from ..provenance import provenance

    facts = provenance(stored.header)
    imports = sorted({name for _, name in stored.header.get("image", {}).get("imports", ())})
    lines = {
        "key": stored.key,
        "kind": facts.kind,
        "equation": facts.equation,
        "signature": facts.signature,
        "target": facts.target + ("" if facts.runs_here else ", which this machine is not"),
        "generator": facts.generator + ("" if facts.current else ", another than this einsumc's"),
        "built by": facts.versions,
        "code": f"{size(len(stored.image))}, which calls {', '.join(imports) or 'nothing'}",
        "arguments": ", ".join(stored.header.get("parameters", ())),
        "schedule": str(stored.header.get("schedule", "")),
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<11}{value}")


# --- checking -------------------------------------------------------------------------------------


@cache.command("verify")
@_store
@click.option("--quick", is_flag=True, help="Compile nothing: check every byte's digest alone.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
def cache_verify(path: str | None, quick: bool, jobs: int | None) -> None:
    """Check every kernel, compile it again, and compare byte by byte.

    Kernels that other versions built are checked for damage alone.
    """
    from ..verify_store import verify_store

    store = _open(path)
    keys = store.keys()
    with progress() as bar:
        task = bar.add_task("verifying", total=len(keys))
        found = verify_store(store, keys, quick, jobs, lambda: bar.advance(task))
    wrong, others = found.wrong, found.others
    if wrong:
        raise Failure("\n".join([f"{len(wrong)} of {len(keys)} kernels are wrong:", *wrong]))
    click.echo(f"{len(keys)} kernels in {store.path}: all sound")
    if not quick:
        same = len(keys) - sum(others.values())
        click.echo(f"{same} compiled again: the same bytes")
        for why, count in sorted(others.items()):
            click.echo(f"{count} not compiled again: {why}")


# --- making it smaller ----------------------------------------------------------------------------


def _read_size(text: str) -> int:
    from ..memory import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


@cache.command("prune")
@_store
@click.option(
    "--size",
    "limit",
    type=_read_size,
    metavar="SIZE",
    help="What all files may have, as in 500MB.  [default: EINSUMC_CACHE_SIZE]",
)
@click.option("--others", is_flag=True, help="Also delete what this version never looks for.")
def cache_prune(path: str | None, limit: int | None, others: bool) -> None:
    """Delete damaged kernels, and those not used for longest until the rest fits into SIZE."""
    from ...compiler.show import size
    from ..provenance import provenance

    store = _open(path)
    there = {entry.key: entry for entry in store.entries()}
    unwanted = sorted({*store.keys()} - there.keys())
    if others:
        unwanted += [key for key, e in there.items() if not provenance(e.header).current]
    removed = sum(map(store.remove, unwanted))
    limit = current().cache_size if limit is None else limit
    gone, left = store.prune((1 << 63) if limit is None else limit)
    click.echo(f"{removed + gone} kernels deleted from {store.path}; {size(left)} left")


@cache.command("clear")
@_store
def cache_clear(path: str | None) -> None:
    """Delete every kernel. They are compiled again when they are needed."""
    store = _open(path)
    click.echo(f"{store.clear()} kernels deleted from {store.path}")
    if left := store.keys():
        raise Failure(f"{len(left)} kernels could not be deleted")
