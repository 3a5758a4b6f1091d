"""The command `einsumc`: show, precompile, export, cache, bench, calibrate, versions.

Each file here has one command, or a group of them. What a command needs is imported when it runs,
so that `einsumc cache path` is quick. Errors of the package are plain messages: exit status 2 if
the command line or a file is wrong, 1 if something failed.
"""

from __future__ import annotations

import warnings

import click

from .bench import bench, calibrate
from .cache import cache
from .common import Commands
from .export import export
from .precompile import precompile
from .show import show

__all__ = ["command", "main"]


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from ... import __version__

        click.echo(f"einsumc {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


@click.command()
def versions() -> None:
    """Print versions, the machine and the stores, for a report of a problem."""
    from ..versions import show_versions

    show_versions()


for each in (show, precompile, export, cache, bench, calibrate, versions):
    command.add_command(each)
