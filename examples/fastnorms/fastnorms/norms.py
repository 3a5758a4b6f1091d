"""The einsums of this package: `einsumc precompile fastnorms.norms` compiles them all.

A linear layer's gradient for one example is a sum of outer products of what came back, `b`, and of
what went in, `a`. Its norm needs only inner products of the rows of each, and no gradient.
"""

import numpy as np
from einsumc import compile_einsum

__all__ = ["norms", "sequence_norms"]


@compile_einsum("ni,ni->n", signatures=["f4[n,i], f4[n,i]"])
def row_squares(x, again):
    """The squared norms of rows."""


@compile_einsum("nti,nsi->nts", signatures=["f4[n,t,i], f4[n,s,i]"])
def row_products(x, again):
    """The inner products of all pairs of rows, for each example."""


@compile_einsum("nts,nts->n", signatures=["f4[n,t,s], f4[n,t,s]"])
def total_products(x, y):
    """The sums of the products of matrices."""


def norms(b, a):
    """The norms of the gradients of a layer that sees one vector an example.

    Args:
        b: gradients at the layer's outputs, examples by outputs.
        a: the layer's inputs, examples by inputs.
    """
    return np.sqrt(row_squares(b, b) * row_squares(a, a))


def sequence_norms(b, a):
    """The same for sequences: both arrays are examples by positions by features."""
    return np.sqrt(total_products(row_products(b, b), row_products(a, a)))
