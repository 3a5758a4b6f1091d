"""Steps of a program as somebody writes them who knows matmul: what einsum would have to find.

A contraction of two operands is one call of a library's batched matrix product on views of them; a
sum of products with nothing but common indices is one call of its row-wise dot product. NumPy's
matmul computes half of a product of a matrix with its own transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cases import Expression

__all__ = ["Products", "by_hand"]

Array = Any
Names = tuple[str, ...]
Products = tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]
"""A library's batched matrix product, and its dot product along the last axis."""


def by_hand(
    expression: Expression,
    extents: Mapping[str, int],
    products: Products,
    permute: Callable[..., Array],
) -> Callable[..., Array] | None:
    """A step in one product of matrices or rows; None where that is no way to compute it.

    Args:
        expression: of the step.
        extents: of its indices.
        products: the library's.
        permute: (array, order of the axes) -> a view.
    """
    if len(expression.inputs) != 2 or not expression.is_plain:
        return None
    x, y = (tuple(axis.terms[0][1] for axis in access) for access in expression.inputs)
    out = tuple(expression.output)
    if any(len({*names}) < len(names) for names in (x, y)):
        return None
    batch = tuple(i for i in out if i in x and i in y)
    m = tuple(i for i in out if i in x and i not in y)
    n = tuple(i for i in out if i in y and i not in x)
    k = tuple(i for i in x if i in y and i not in out)
    if {*batch, *m, *k} != {*x} or {*batch, *n, *k} != {*y} or not k:
        return None
    matmul, dot = products
    sizes = {
        name: [extents[i] for i in group]
        for name, group in zip("bmnk", (batch, m, n, k), strict=True)
    }
    b, rows, columns, depth = (prod(sizes[name]) for name in "bmnk")

    def view(
        array: Array, names: tuple[str, ...], order: tuple[str, ...], shape: tuple[int, ...]
    ) -> Array:
        return permute(array, tuple(map(names.index, order))).reshape(shape)

    if not m and not n:

        def rowwise(a: Array, c: Array) -> Array:
            left = view(a, x, (*batch, *k), (b, depth))
            right = view(c, y, (*batch, *k), (b, depth))
            return dot(left, right).reshape(sizes["b"])

        return rowwise
    back = (*batch, *m, *n)
    order = tuple(map(back.index, out))

    def product(a: Array, c: Array) -> Array:
        left = view(a, x, (*batch, *m, *k), (b, rows, depth))
        right = view(c, y, (*batch, *k, *n), (b, depth, columns))
        if a is c and m and n:  # the view of the same memory, transposed, as matmul wants to see it
            right = permute(left, (0, 2, 1))
        result = matmul(left, right).reshape((*sizes["b"], *sizes["m"], *sizes["n"]))
        return permute(result, order)

    return product
