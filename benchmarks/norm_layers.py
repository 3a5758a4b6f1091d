"""Norms of gradients of layers that `norm_cases.json` has not: longer, narrower, with more axes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NORM_LAYERS", "Layer"]

Steps = tuple[tuple[str, str, str], ...]


class Layer(NamedTuple):
    """An equation of arrays with one letter each, and the programs that compete.

    `programs` has for each name its steps: result, equation, and the letters of its operands.
    """

    name: str
    equation: str
    operands: str
    extents: dict[str, int]
    programs: dict[str, Steps]


def _sequence(t: int, i: int, j: int, n: int, name: str) -> Layer:
    """A linear layer that is applied at every position."""
    return Layer(
        name,
        "nti,nsi,ntj,nsj->n",
        "BBAA",
        {"n": n, "t": t, "i": i, "s": t, "j": j},
        {
            "ghost": (
                ("p", "nti,nsi->nts", "BB"),
                ("q", "ntj,nsj->nts", "AA"),
                ("r", "nts,nts->n", "pq"),
            ),
            "instantiate": (("g", "nti,ntj->nij", "BA"), ("r", "nij,nij->n", "gg")),
        },
    )


NORM_LAYERS = (
    _sequence(512, 768, 768, 4, "attention projection, T512"),
    _sequence(1024, 256, 256, 4, "attention projection, T1024, narrow"),
    _sequence(2048, 128, 512, 2, "feed-forward, T2048, narrow"),
    _sequence(64, 768, 3072, 16, "feed-forward, T64"),
    _sequence(512, 8, 768, 8, "low-rank factor down, T512"),
    _sequence(128, 768, 8, 32, "low-rank factor up, T128"),
    _sequence(16, 768, 768, 32, "projection, T16"),
    _sequence(48, 64, 1024, 64, "small head, T48"),
    Layer(
        "experts, 8 of 64 tokens",
        "neti,nesi,netj,nesj->n",
        "BBAA",
        {"n": 8, "e": 8, "t": 64, "i": 512, "s": 64, "j": 256},
        {
            "ghost": (
                ("p", "neti,nesi->nets", "BB"),
                ("q", "netj,nesj->nets", "AA"),
                ("r", "nets,nets->n", "pq"),
            ),
            "instantiate": (("g", "neti,netj->neij", "BA"), ("r", "neij,neij->n", "gg")),
        },
    ),
    Layer(
        "norms of heads, T256",
        "nthi,nshi,ntj,nsj->nh",
        "BBAA",
        {"n": 4, "t": 256, "h": 8, "i": 64, "s": 256, "j": 512},
        {
            "ghost": (
                ("q", "ntj,nsj->nts", "AA"),
                ("p", "nthi,nshi->nhts", "BB"),
                ("r", "nhts,nts->nh", "pq"),
            ),
            "instantiate": (("g", "nthi,ntj->nhij", "BA"), ("r", "nhij,nhij->nh", "gg")),
        },
    ),
    Layer(
        "norm in a metric",
        "nk,ni,lk,ij,nl,nj->n",
        "BAMSBA",
        {"n": 256, "k": 512, "i": 784, "l": 512, "j": 784},
        {
            "projected": (
                ("p", "nk,lk->nl", "BM"),
                ("q", "ni,ij->nj", "AS"),
                ("b", "nl,nl->n", "pB"),
                ("a", "nj,nj->n", "qA"),
                ("r", "n,n->n", "ba"),
            ),
        },
    ),
    Layer(
        "products of sequences' gradients",
        "nti,msi,ntj,msj->nm",
        "BBAA",
        {"n": 16, "t": 32, "i": 128, "m": 16, "s": 32, "j": 128},
        {
            "ghost": (
                ("p", "nti,msi->ntms", "BB"),
                ("q", "ntj,msj->ntms", "AA"),
                ("r", "ntms,ntms->nm", "pq"),
            ),
            "instantiate": (("g", "nti,ntj->nij", "BA"), ("r", "nij,mij->nm", "gg")),
        },
    ),
    Layer(
        "layer norm, T256",
        "ntc,ntc,nsc,nsc->n",
        "BXBX",
        {"n": 16, "t": 256, "c": 768, "s": 256},
        {"instantiate": (("g", "ntc,ntc->nc", "BX"), ("r", "nc,nc->n", "gg"))},
    ),
    Layer(
        "bias of a sequence",
        "nti,nsi->n",
        "BB",
        {"n": 32, "t": 128, "i": 768, "s": 128},
        {"direct": (("g", "nti,t->ni", "B1"), ("r", "ni,ni->n", "gg"))},
    ),
    Layer(
        "sum of squared gradients, T64",
        "nti,ntj,nsi,nsj->ij",
        "BABA",
        {"n": 64, "t": 64, "i": 256, "j": 256, "s": 64},
        {"instantiate": (("g", "nti,ntj->nij", "BA"), ("r", "nij,nij->ij", "gg"))},
    ),
)
"""Fifteen of them."""
