"""`einsumc export`: an einsum as a shared object for C."""

from __future__ import annotations

import os

import click

from ..settings import TARGET_CHOICES
from .common import Misuse

__all__ = ["export"]


def _read_typical(texts: tuple[str, ...]) -> dict[str, int]:
    """Extents by index, from texts such as "i=64"."""
    found = {}
    for text in texts:
        index, sign, extent = text.partition("=")
        if not (sign and extent.isascii() and extent.isdecimal()):
            raise Misuse(f"{text!r} is no extent of an index: write i=64")
        found[index.strip()] = int(extent)
    return found


@click.command()
@click.argument("equation")
@click.option(
    "--signature",
    required=True,
    help="Dtypes and axes of the operands, as in 'f4[i,j], f4[j,k]'; all of one dtype.",
)
@click.option(
    "--output", type=click.Path(file_okay=False), required=True, help="The directory to write to."
)
@click.option("--name", default="contract", show_default=True, help="The name of the C function.")
@click.option("--typical", multiple=True, metavar="I=N", help="An extent to choose kernels for.")
@click.option(
    "--target",
    type=click.Choice(TARGET_CHOICES),
    help="The instruction set level to compile for.  [default: EINSUMC_TARGET, or the host's]",
)
def export(
    equation: str,
    signature: str,
    output: str,
    name: str,
    typical: tuple[str, ...],
    target: str | None,
) -> None:
    """Write EQUATION as a shared object for C, with a header and a program that tests it.

    Neither Python nor einsumc is needed to call it, and no compiler or linker to make it. The
    header says how it is called.
    """
    from ...compiler.show import size
    from ..export import export as make
    from ..export import write

    if target is not None:
        os.environ["EINSUMC_TARGET"] = target
    made = make(equation, signature, name, typical=_read_typical(typical))
    library, header, test = write(made, output)
    click.echo(f"{library}: {name} for {made.target}, {size(len(made.library))}")
    click.echo(f"{header}: how to call it")
    click.echo(f"{test}: to test it, in {output}:")
    click.echo(f"    cc {name}_test.c -L. -l{name} -Wl,-rpath,. -o {name}_test && ./{name}_test")
