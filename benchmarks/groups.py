"""The groups of figures: what is asked of each, and the command that measures it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GROUPS", "Group"]


@dataclass(frozen=True)
class Group:
    """One line of the table of figures, or two, and the command that measures it.

    Attributes:
        name: for `--only`, and for the block with its slowest cases.
        what: what it measures, for the table.
        asked: what is asked for; "" where the group is context alone.
        command: a script of this directory, and its options without `--json`.
        quick: options that leave a few cases.
        against: the contenders that count for the ratio; all, if none are named.
        geomean: the least geometric mean of the ratios.
        least: the least ratio of a single case.
    """

    name: str
    what: str
    asked: str
    command: tuple[str, ...]
    quick: tuple[str, ...] = ("--sample", "4", "--rounds", "2")
    against: tuple[str, ...] = ()
    geomean: float = 0.0
    least: float = 0.0


def _cases(suite: str, *options: str, peers: str = "") -> tuple[str, ...]:
    chosen = ("--peers", peers) if peers else ()
    return ("run.py", "--cases", suite, *options, *chosen)


def _norms(suite: str, peers: str) -> tuple[str, ...]:
    return _cases(suite, "--max-gflop", "60", "--max-mib", "1024", peers=peers)


GROUPS = {
    group.name: group
    for group in (
        Group(
            "products",
            "square matrix products 64 to 1536, f4 and f8, against numpy's BLAS",
            "geomean 0.95, none below 0.85",
            _cases("products", "--max-gflop", "8", peers="blas,torch,jax,tblis"),
            against=("blas",),
            geomean=0.95,
            least=0.85,
        ),
        Group(
            "tccg-f8",
            "TCCG, f8",
            "geomean 1.5, none below 0.9",
            _cases("tccg", "--dtype", "float64"),
            geomean=1.5,
            least=0.9,
        ),
        Group(
            "tccg-f4",
            "TCCG, f4",
            "geomean 1.5, none below 0.9",
            _cases("tccg", "--dtype", "float32"),
            geomean=1.5,
            least=0.9,
        ),
        Group(
            "transpositions",
            "HPTT transpositions, f4, against the best of numpy and torch",
            "geomean 1.5",
            _cases("hptt_transposes", peers="numpy,torch"),
            against=("numpy", "torch"),
            geomean=1.5,
        ),
        Group(
            "issues",
            "einsums of `issue_cases.json`",
            "geomean 2, none below 0.9",
            _cases("issue_cases"),
            geomean=2.0,
            least=0.9,
        ),
        Group(
            "networks",
            "tensor networks and decompositions",
            "geomean 1.2",
            _cases("einsum_instances"),
            geomean=1.2,
        ),
        Group(
            "norms",
            "norms of gradients, f4, against the fastest program in numpy or torch",
            "geomean 1.5, none below 0.95",
            _norms("norms", "numpy_expert,torch_expert,torch_einsum"),
            against=("numpy_expert", "torch_expert"),
            geomean=1.5,
            least=0.95,
        ),
        Group(
            "other-norms",
            "norms of gradients of other layers",
            "",
            _norms("other_norms", "numpy_expert,torch_expert,torch_einsum"),
            against=("numpy_expert", "torch_expert"),
        ),
        Group(
            "conv-norms",
            "norms of gradients of convolutions, against the fastest program on unfolded ones",
            "geomean 1.5, none below 0.95",
            _norms("conv_norms", "numpy_expert,torch_expert"),
            against=("numpy_expert", "torch_expert"),
            geomean=1.5,
            least=0.95,
        ),
        Group(
            "norms-one-shot",
            "the same norms against `torch.einsum` of the equation",
            "geomean 5",
            _norms("norms", "torch_einsum"),
            against=("torch_einsum",),
            geomean=5.0,
        ),
        Group(
            "threads",
            "two threads against one",
            "1.7 compute-bound, 1.4 bandwidth-bound",
            ("scaling.py", "--threads", "2"),
            ("--sample", "8", "--rounds", "2"),
        ),
        Group(
            "memory",
            "extra memory of one contraction beyond operands and output",
            "under 16 MiB a thread",
            ("memory.py", "--max-gflop", "8"),
            ("--sample", "6"),
        ),
        Group(
            "compile",
            "largest kernel compile time",
            "0.5 s warm",
            ("compile_time.py", "--rounds", "1"),
            ("--sample", "6"),
        ),
        Group("results", "new arrays for results", "", ("results.py",), ("--sample", "4")),
        Group("planning", "planning of networks", "", ("planning.py",), ("--rounds", "3")),
        Group("ranking", "the cost model", "", ("ranking.py",), ("--rounds", "2", "--orders", "6")),
        Group("overhead", "what a call costs by itself", "", ("overhead.py",), ()),
    )
}
"""Every group by name, in the order in which they run and stand in the table."""
