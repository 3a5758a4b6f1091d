"""`einsumc precompile`: fill a store ahead of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..settings import TARGET_CHOICES, current
from .common import Failure
from .common import console as make_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..precompile import Precompiled
    from ..store import Store
    from ..wanted import Wanted

__all__ = ["precompile"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    help="The store to write to.  [default: the user's own]",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option(
    "--target",
    "targets",
    type=click.Choice(TARGET_CHOICES),
    multiple=True,
    help="The instruction set level to compile for; may be repeated.  [default: EINSUMC_TARGET, or "
    "the host's]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Compile nothing; fail if a kernel is missing, damaged or of another version.",
)
def precompile(
    sources: tuple[str, ...],
    output: str | None,
    jobs: int | None,
    targets: tuple[str, ...],
    check: bool,
) -> None:
    """Compile every kernel that each SOURCE asks for.

    A SOURCE is a file such as kernels.toml, what a run with EINSUMC_RECORD has written, or the name
    of a Python module, mypkg.kernels: then every compiled einsum in it that has signatures.
    """
    import time

    from ..precompile import build
    from ..store import Store
    from ..target import available_cores
    from ..wanted import read_source, wanted_kernels

    begin = time.perf_counter()
    settings = current()
    store = Store(settings.store_dir if output is None else output, shipped=output is not None)
    processes = jobs or available_cores()
    requests = [request for source in sources for request in read_source(source)]
    with _progress() as progress:
        planning = progress.add_task("planning", total=None)
        wanted = wanted_kernels(
            requests,
            list(dict.fromkeys(targets or (settings.target,))),
            jobs=processes,
            progress=lambda n, total: progress.update(planning, completed=n, total=total),
        )
        if not check:
            compiling = progress.add_task("compiling", total=len(wanted))
            done = build(
                [each.job for each in wanted],
                store=store,
                jobs=processes,
                progress=lambda n, total: progress.update(compiling, completed=n, total=total),
            )
    if check:
        _check(wanted, store)
    else:
        _summarize(done, store, time.perf_counter() - begin)


def _summarize(done: Sequence[Precompiled], store: Store, seconds: float) -> None:
    """What there is for each level, and what was done."""
    from ...compiler.show import size, table

    rows = []
    for target in sorted({kernel.target for kernel in done}):
        here = [kernel for kernel in done if kernel.target == target]
        new = sum(kernel.compiled for kernel in here)
        code = size(sum(kernel.size for kernel in here))
        rows.append([target, str(len(here)), str(new), code])
    click.echo(table(["target", "kernels", "compiled", "code"], rows, "kernels compiled code"))
    new = sum(kernel.compiled for kernel in done)
    click.echo(
        f"{len(done)} kernels in {store.path}: {new} compiled, {len(done) - new} there before; "
        f"{size(sum(kernel.size for kernel in done))} of code; {seconds:.1f} s"
    )


def _check(wanted: Sequence[Wanted], store: Store) -> None:
    """Fail, with a list, if a kernel is missing or damaged, or if there are some of no use."""
    from ..wanted import stale_kernels

    problems = []
    for each in wanted:
        problem = store.problem(each.job.key)
        if problem is not None and store.find(each.job.key) is None:
            *inputs, output = each.job.dtypes or ("",)
            kind = f"{each.job.recipe} {','.join(inputs)}->{output}".removesuffix(" ->")
            problems.append(f"{kind} for {each.job.level}: {problem} ({', '.join(each.equations)})")
    missing = len(problems)
    stale = stale_kernels(store, wanted)
    problems += [f"stale: kernel {each}; other versions of einsumc made it" for each in stale]
    if stale:
        problems.append(f"to delete those: einsumc cache prune --others --store {store.path}")
    if problems:
        head = (
            f"{missing} of {len(wanted)} kernels in {store.path} cannot be used"
            f"{f', and {len(stale)} are stale' if stale else ''}:"
        )
        raise Failure("\n".join([head, *problems]))
    click.echo(f"{len(wanted)} kernels in {store.path}: all there and sound")


def _progress() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
