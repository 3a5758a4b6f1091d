"""The options that choose cases, for every script that runs them."""

from __future__ import annotations

import argparse

__all__ = ["case_parser"]


def case_parser(
    description: str, cases: str, about: str = "suites, by comma"
) -> argparse.ArgumentParser:
    """A parser with `--cases`, `--only`, `--sample`, `--max-gflop` and `--max-mib`.

    Args:
        description: of the script; its first line is taken.
        cases: the default of `--cases`.
        about: what `--cases` takes.
    """
    parser = argparse.ArgumentParser(
        description=description.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--cases", default=cases, help=about)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--sample", type=int, help="only so many cases, evenly spread")
    parser.add_argument("--max-gflop", type=float, default=1.0, help="shrink larger cases")
    parser.add_argument("--max-mib", type=float, default=128.0, help="shrink larger cases")
    return parser
