"""Arguments and results that are nested: tuples, lists and dicts with arrays in them."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from ..records import dataclass

__all__ = ["Place", "filled", "filler", "flattened", "kept_filler", "told_apart"]

_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a structure has its n-th leaf."""

    number: int


def flattened(
    value: Any, is_leaf: Callable[[Any], bool], name: str = ""
) -> tuple[Any, list[Any], list[str]]:
    """A structure with places for its leaves, the leaves, and a name for each.

    Args:
        value: tuples (named ones too), lists and dicts, nested; what is in them is a leaf or stays.
        is_leaf: whether something that is none of them is a leaf.
        name: the structure's own; a leaf's begins with it.

    >>> flattened({"w": (1.0, "x"), "b": 2.0}, lambda value: isinstance(value, float), "layer")
    ({'w': (Place(number=0), 'x'), 'b': Place(number=1)}, [1.0, 2.0], ['layer_w_0', 'layer_b'])
    """
    leaves: list[Any] = []
    names: list[str] = []

    def walk(item: Any, path: str) -> Any:
        if isinstance(item, dict):
            return {key: walk(each, _joined(path, key)) for key, each in item.items()}
        if isinstance(item, tuple | list):
            fields = getattr(item, "_fields", range(len(item)))
            parts = [walk(each, _joined(path, key)) for key, each in zip(fields, item, strict=True)]
            return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
        if not is_leaf(item):
            return item
        leaves.append(item)
        names.append(path)
        return Place(len(leaves) - 1)

    return walk(value, name), leaves, names


def _joined(path: str, key: Any) -> str:
    """A name for what a key leads to."""
    part = "".join(char if char.isalnum() else "_" for char in str(key))
    return f"{path}_{part}" if path else part


def filled(structure: Any, leaves: Any) -> Any:
    """A structure with other leaves in their places.

    >>> filled({"w": (Place(1), "x"), "b": Place(0)}, [3, 4])
    {'w': (4, 'x'), 'b': 3}
    """
    return filler(structure)(leaves)


def filler(structure: Any) -> Callable[[Any], Any]:
    """A function of leaves that does the same: for a structure that is filled many times."""
    if isinstance(structure, Place):
        return itemgetter(structure.number)
    if isinstance(structure, dict):
        items = [(key, filler(each)) for key, each in structure.items()]
        return lambda leaves: {key: fill(leaves) for key, fill in items}
    if isinstance(structure, tuple | list):
        kind, fills = type(structure), [filler(each) for each in structure]
        if hasattr(structure, "_fields"):
            return lambda leaves: kind(*[fill(leaves) for fill in fills])
        return lambda leaves: kind([fill(leaves) for fill in fills])
    return lambda _: structure


def kept_filler(structure: Any) -> Callable[[Any], Any] | None:
    """A filler that lives as long as the process, for native code: one for all that are alike.

    None if the structure has unusual values of its own, or once there are very many.

    >>> kept_filler([Place(0), {"b": Place(1)}]) is kept_filler([Place(0), {"b": Place(1)}])
    True
    >>> kept_filler((Place(0), 2.5))
    """
    try:
        key = told_apart(structure, _usual)
        made = _KEPT.get(key)
    except TypeError:  # keys of dicts are hashable, what is in other places may be anything
        return None
    if made is None and len(_KEPT) < _MOST_KEPT:
        made = _KEPT.setdefault(key, filler(structure))
    return made


def told_apart(structure: Any, leaf: Callable[[Any], Any]) -> Any:
    """A structure as a key: values that are equal but of other types are others.

    Args:
        structure: collections of anything, keys of dicts included.
        leaf: what stands for what is no collection; it raises where nothing can.

    >>> told_apart({(1,): 2}, str) == told_apart({(True,): 2}, str)
    False
    """
    if isinstance(structure, dict):
        pairs = ((told_apart(k, leaf), told_apart(v, leaf)) for k, v in structure.items())
        return dict, tuple(pairs)
    if isinstance(structure, tuple | list):
        return type(structure), tuple([told_apart(each, leaf) for each in structure])
    return type(structure), leaf(structure)


def _usual(value: Any) -> Any:
    if type(value) not in (Place, str, int, bool, type(None)):
        raise TypeError
    return value


_KEPT: dict[Any, Callable[[Any], Any]] = {}
