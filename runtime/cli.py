"""The command `einsumc`: show, precompile, cache, bench, calibrate, versions.

What a command needs is imported when it runs, so that `einsumc cache path` is quick. Errors of the
package are plain messages: exit status 2 if the command line or a file is wrong, 1 if something
failed.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from .settings import SHOW_CHOICES, TARGET_CHOICES, SettingsError, current

if TYPE_CHECKING:
    from rich.console import Console

    from .operands import Array
    from .precompile import Job, Request
    from .store import Store

__all__ = ["command", "main"]


class _Failure(click.ClickException):
    """A plain message, and exit status 1."""


class _Misuse(_Failure):
    """A plain message, and exit status 2."""

    exit_code = 2


class _Group(click.Group):
    """Commands whose expected errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SettingsError as error:
            raise _Misuse(str(error)) from None
        except Exception as error:
            from ..compiler.errors import EinsumError, EinsumTypeError
            from .kernels import KernelMissing

            if isinstance(error, EinsumError | EinsumTypeError):
                raise _Misuse(str(error)) from None
            if isinstance(error, KernelMissing | OSError | MemoryError):
                raise _Failure(str(error) or type(error).__name__) from None
            raise


def _read_shapes(text: str) -> tuple[tuple[int, ...], ...]:
    """The shapes in a text such as "64x32,32x48"; a scalar's is "()"."""
    shapes = []
    for shape in text.split(","):
        extents = [] if shape.strip() in ("", "()") else shape.strip().split("x")
        if not all(extent.isascii() and extent.isdecimal() for extent in extents):
            raise click.BadParameter(f"{shape!r} is no shape: write 64x32, or () for a scalar")
        shapes.append(tuple(map(int, extents)))
    return tuple(shapes)


def _read_dtype(name: str) -> Any:
    """The dtype of this name, if kernels compute in it."""
    from .signatures import DTYPES

    if name not in DTYPES:
        codes = " ".join(code for code in DTYPES if len(code) < 4)
        raise click.BadParameter(f"{name!r} is none of {codes}")
    return DTYPES[name]


_shapes = click.option(
    "--shapes", type=_read_shapes, required=True, metavar="SHAPES", help="As in 64x32,32x48."
)
_dtype = click.option(
    "--dtype",
    type=_read_dtype,
    default="f4",
    show_default=True,
    metavar="DTYPE",
    help="Of all operands.",
)


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from .. import __version__

        click.echo(f"einsumc {__version__}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def command() -> None:
    """Compile einsums for CPUs ahead of time."""


def main() -> None:
    """Run the command line of this process; this is the script `einsumc`."""
    warnings.showwarning = lambda message, *_: click.echo(f"Warning: {message}", err=True)
    command(prog_name="einsumc")


# --- show -----------------------------------------------------------------------------------------


@command.command()
@click.argument("equation")
@_shapes
@_dtype
@click.option(
    "--stage",
    type=click.Choice([*SHOW_CHOICES, "all"]),
    multiple=True,
    help="What to print; may be repeated.  [default: all but asm]",
)
@click.option("--memory-limit", metavar="SIZE", help="What temporaries may take, as in 64MiB.")
@click.option("--measure", is_flag=True, help="Run every step and print its time as well.")
def show(
    equation: str,
    shapes: tuple[tuple[int, ...], ...],
    dtype: Any,
    stage: tuple[str, ...],
    memory_limit: str | None,
    measure: bool,
) -> None:
    """Print how EQUATION would be contracted: plan, loop nests, generated source.

    No arrays are made and nothing is compiled, except for asm and --measure.
    """
    from .decorator import compile_einsum
    from .plan import virtual

    operands: list[Array] = [virtual(shape, dtype) for shape in shapes]
    plan = compile_einsum(equation, memory_limit=memory_limit).explain(*operands)
    if measure:
        plan = plan.measure()
    if "all" in stage:
        click.echo(f"{plan}\n\n{plan.stage('asm')}".rstrip())
    elif stage:
        parts = (plan.stage(name).rstrip() for name in SHOW_CHOICES if name in stage)
        click.echo("\n\n".join(parts))
    else:
        click.echo(str(plan))


# --- precompile -----------------------------------------------------------------------------------


@command.command()
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

    from .precompile import build, read_requests
    from .store import Store

    if target is not None:
        os.environ["EINSUMC_TARGET"] = target
    begin = time.perf_counter()
    store = Store(output if output is not None else current().store_dir)
    console = _console(stderr=True)
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
    from ..compiler.show import size

    click.echo(
        f"{len(done)} kernels for {level} in {store.path}: {len(new)} compiled, "
        f"{len(done) - len(new)} there before; {size(sum(kernel.size for kernel in done))} of "
        f"code; {time.perf_counter() - begin:.1f} s"
    )


def _plan(requests: list[Request], console: Console) -> list[Job]:
    """The kernels of all requests, each once."""
    from .precompile import jobs_for

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
        raise _Failure("\n".join([head, *problems[:10], *more]))
    click.echo(f"{len(wanted)} kernels for {level} in {store.path}: all there and sound")


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


# --- cache ----------------------------------------------------------------------------------------


@command.group()
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

    from ..compiler.show import size
    from .store import Store

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
        _console().print(table)
    total = size(sum(entry.size for entry in entries))
    click.echo(f"{len(entries)} kernels, {total}, in {store.path}")


@cache.command("clear")
def cache_clear() -> None:
    """Delete every kernel. They are compiled again when they are needed."""
    from .store import Store

    store = Store(current().store_dir)
    click.echo(f"{store.clear()} kernels deleted from {store.path}")
    if left := store.keys():
        raise _Failure(f"{len(left)} kernels could not be deleted")


# --- bench, calibrate and versions ----------------------------------------------------------------


def _limit_threads(ctx: click.Context, _: click.Parameter, threads: int | None) -> None:
    """Most libraries ask for the number once, when they are imported: this comes before."""
    if threads is not None:
        for name in ("EINSUMC", "MKL", "OMP", "OPENBLAS"):
            os.environ[f"{name}_NUM_THREADS"] = str(threads)


@command.command()
@click.argument("equation")
@_shapes
@_dtype
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    is_eager=True,
    expose_value=False,
    callback=_limit_threads,
    help="Of every library.  [default: their own]",
)
def bench(equation: str, shapes: tuple[tuple[int, ...], ...], dtype: Any, rounds: int) -> None:
    """Time EQUATION against np.einsum, and opt_einsum and torch where they are installed."""
    from ..compiler import show
    from .bench import bench as measure
    from .bench import random_operands

    results = measure(equation, random_operands(shapes, dtype), rounds)
    ours = results[0].seconds
    rows = []
    for result in results:
        if result.note:
            rows.append([result.name, "", "", "", result.note])
        else:
            verdict = f"{result.error:.0e}" if result.correct else f"WRONG: {result.error:.0e}"
            ratio = f"{result.seconds / ours:.2f}"
            rows.append([result.name, show.seconds(result.seconds), ratio, verdict, ""])
    click.echo(show.table(["", "best", "ratio", "error", "note"], rows, "best ratio error"))
    click.echo("ratio: time over that of einsumc; above 1, einsumc is faster")
    if not all(result.correct for result in results):
        raise _Failure("the results differ by more than rounding explains")


@command.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    help="The file to write.  [default: machine.toml in the user's own store]",
)
@click.option("--show", "only_show", is_flag=True, help="Measure nothing; print what is in use.")
def calibrate(output: str | None, only_show: bool) -> None:
    """Measure how fast this machine is, for choosing plans: some seconds without other work.

    What is written is used from then on for as long as it describes this machine. Without it
    speeds are estimated.
    """
    from .machine import described, forget, machine, source
    from .machine_file import FILE, to_text, write

    if only_show:
        click.echo(f"# {source()}\n{to_text(described(machine()))}".rstrip())
        return
    from .calibrate import calibrate as measure

    console = _console(stderr=True)
    with console.status("calibrating") if console.is_terminal else nullcontext() as status:
        found = measure(status.update if status is not None else lambda what: None)
    path = output if output is not None else os.path.join(current().store_dir, FILE)
    write(path, described(found))
    forget()
    click.echo(f"{to_text(described(found))}\nwritten to {path}")


@command.command()
def versions() -> None:
    """Print versions, the machine and the stores, for a report of a problem."""
    from .versions import show_versions

    show_versions()


def _console(stderr: bool = False) -> Console:
    """A terminal; what is no terminal is wide enough for every line."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 240)


if __name__ == "__main__":
    main()
