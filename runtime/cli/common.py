"""What the commands share: failures as plain messages, options, the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..settings import SettingsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "Commands",
    "Failure",
    "Misuse",
    "console",
    "dtype_option",
    "progress",
    "shapes_option",
]


class Failure(click.ClickException):
    """A plain message, and exit status 1."""


class Misuse(Failure):
    """A plain message, and exit status 2."""

    exit_code = 2


class Commands(click.Group):
    """Commands whose expected errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it may run into ends it with a message and a status."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SettingsError as error:
            raise Misuse(str(error)) from None
        except Exception as error:
            from ...compiler.errors import EinsumError, EinsumTypeError
            from ..kernels import KernelMissing
            from ..load import LoadError

            if isinstance(error, EinsumError | EinsumTypeError):
                raise Misuse(str(error)) from None
            if isinstance(error, KernelMissing | LoadError | OSError | MemoryError):
                raise Failure(str(error) or type(error).__name__) from None
            raise


def read_shapes(text: str) -> tuple[tuple[int, ...], ...]:
    """The shapes in a text such as "64x32,32x48"; a scalar's is "()"."""
    shapes = []
    for shape in text.split(","):
        extents = [] if shape.strip() in ("", "()") else shape.strip().split("x")
        if not all(extent.isascii() and extent.isdecimal() for extent in extents):
            raise click.BadParameter(f"{shape!r} is no shape: write 64x32, or () for a scalar")
        shapes.append(tuple(map(int, extents)))
    return tuple(shapes)


def read_dtype(name: str) -> Any:
    """The dtype of this name, if kernels compute in it."""
    from ..signatures import DTYPES

    if name not in DTYPES:
        codes = " ".join(code for code in DTYPES if len(code) < 4)
        raise click.BadParameter(f"{name!r} is none of {codes}")
    return DTYPES[name]


shapes_option = click.option(
    "--shapes", type=read_shapes, required=True, metavar="SHAPES", help="As in 64x32,32x48."
)
dtype_option = click.option(
    "--dtype",
    type=read_dtype,
    default="f4",
    show_default=True,
    metavar="DTYPE",
    help="Of all operands.",
)


def console(stderr: bool = False) -> Console:
    """A terminal; what is no terminal is wide enough for every line."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 240)


def progress(on: Console | None = None) -> Progress:
    """A bar on stderr with a count and the time; none where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    on = on or console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=on, disable=not on.is_terminal)
