"""`einsumc show`: how an equation would be contracted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..settings import SHOW_CHOICES
from .common import dtype_option, shapes_option

if TYPE_CHECKING:
    from ..operands import Array

__all__ = ["show"]


@click.command()
@click.argument("equation")
@shapes_option
@dtype_option
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
    from ..decorator import compile_einsum
    from ..virtual import virtual

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
