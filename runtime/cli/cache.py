"""`einsumc cache`: look at the kernel store of this user, or empty it."""

from __future__ import annotations

import click

from ..settings import current
from .common import Failure, console

__all__ = ["cache"]


@click.group()
def cache() -> None:
    """Look at the kernel store of this user, or empty it."""


@cache.command("path")
def cache_path() -> None:
    """Print the directory of the store."""
    click.echo(current().store_dir)


@cache.command("list")
def cache_list() -> None:
    """List the kernels."""
    from rich.markup import escape
    from rich.table import Table

    from ...compiler.show import size
    from ..store import Store

    store = Store(current().store_dir)
    entries = list(store.entries())
    table = Table("key", "recipe", "dtypes", "layout", "target", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    for entry in entries:
        fields = entry.header["fields"]
        *inputs, output = fields.get("dtypes") or [""]
        table.add_row(
            entry.key[:12],
            str(fields.get("options", {}).get("recipe") or entry.header.get("schedule", "")),
            f"{','.join(inputs)}->{output}" if inputs else output,
            escape(str(fields.get("layout", ""))),
            str(fields.get("target", "")),
            size(entry.size),
        )
    if entries:
        console().print(table)
    total = size(sum(entry.size for entry in entries))
    click.echo(f"{len(entries)} kernels, {total}, in {store.path}")


@cache.command("clear")
def cache_clear() -> None:
    """Delete every kernel. They are compiled again when they are needed."""
    from ..store import Store

    store = Store(current().store_dir)
    click.echo(f"{store.clear()} kernels deleted from {store.path}")
    if left := store.keys():
        raise Failure(f"{len(left)} kernels could not be deleted")
