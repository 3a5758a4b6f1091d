"""`einsumc precompile`: fill a store ahead of time."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from ..settings import TARGET_CHOICES, current
from .common import Failure
from .common import console as make_console

if TYPE_CHECKING:
    from rich.console import Console

    from ..precompile import Job, Request
    from ..store import Store

__all__ = ["precompile"]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    help="The store to write to.  [default: the user's own]",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option(
    "--target",
    type=click.Choice(TARGET_CHOICES),
    help="The instruction set level to compile for.  [default: EINSUMC_TARGET, or the host's]",
)
@click.option(
    "--check", is_flag=True, help="Compile nothing; fail if a kernel is missing or damaged."
)
def precompile(
    file: str, output: str | None, jobs: int | None, target: str | None, check: bool
) -> None:
    """Compile every kernel that FILE, such as kernels.toml, asks for."""
    import time

    from ..precompile import build, read_requests
    from ..store import Store

    if target is not None:
        os.environ["EINSUMC_TARGET"] = target
    begin = time.perf_counter()
    store = Store(output if output is not None else current().store_dir)
    console = make_console(stderr=True)
    wanted = _plan(read_requests(file), console)
    level = next(job.target.name for job in wanted)
    if check:
        _check(wanted, store, level)
        return
    with _progress(console) as progress:
        task = progress.add_task("compiling", total=len(wanted))
        done = build(
            wanted,
            store=store,
            jobs=jobs,
            progress=lambda count, total: progress.update(task, completed=count, total=total),
        )
    new = [kernel for kernel in done if kernel.compiled]
    from ...compiler.show import size

    click.echo(
        f"{len(done)} kernels for {level} in {store.path}: {len(new)} compiled, "
        f"{len(done) - len(new)} there before; {size(sum(kernel.size for kernel in done))} of "
        f"code; {time.perf_counter() - begin:.1f} s"
    )


def _plan(requests: list[Request], console: Console) -> list[Job]:
    """The kernels of all requests, each once."""
    from ..precompile import jobs_for

    jobs: dict[str, Job] = {}
    with console.status("planning") if console.is_terminal else nullcontext():
        for request in requests:
            found = jobs_for(request.subscripts, request.signatures, request.optimize)
            jobs.update({job.key: job for job in found})
    return [jobs[key] for key in sorted(jobs)]


def _check(wanted: list[Job], store: Store, level: str) -> None:
    problems = [
        f"{job.recipe}: {problem}"
        for job in wanted
        if (problem := store.problem(job.key)) is not None
    ]
    if problems:
        head = f"{len(problems)} of {len(wanted)} kernels for {level} cannot be used:"
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise Failure("\n".join([head, *problems[:10], *more]))
    click.echo(f"{len(wanted)} kernels for {level} in {store.path}: all there and sound")


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
