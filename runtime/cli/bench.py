"""`einsumc bench` and `einsumc calibrate`: what is measured on this machine."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import click

from ..settings import current
from .common import Failure, dtype_option, shapes_option
from .common import console as make_console

__all__ = ["bench", "calibrate"]


def _limit_threads(ctx: click.Context, _: click.Parameter, threads: int | None) -> None:
    """Most libraries ask for the number once, when they are imported: this comes before."""
    if threads is not None:
        for name in ("EINSUMC", "MKL", "OMP", "OPENBLAS"):
            os.environ[f"{name}_NUM_THREADS"] = str(threads)


@click.command()
@click.argument("equation")
@shapes_option
@dtype_option
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
    from ...compiler import show
    from ..bench import bench as measure
    from ..bench import random_operands

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
        raise Failure("the results differ by more than rounding explains")


@click.command()
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
    from ..machine import FILE, described, forget, machine, source
    from ..machine_file import to_text, write

    if only_show:
        click.echo(f"# {source()}\n{to_text(described(machine()))}".rstrip())
        return
    from ..calibrate import calibrate as measure

    console = make_console(stderr=True)
    with console.status("calibrating") if console.is_terminal else nullcontext() as status:
        found = measure(status.update if status is not None else lambda what: None)
    path = output if output is not None else os.path.join(current().store_dir, FILE)
    write(path, described(found))
    forget()
    click.echo(f"{to_text(described(found))}\nwritten to {path}")
