"""PyTorch's tensors as operands: read where they are, and results are tensors as well.

PyTorch is never imported here. Whoever gives a tensor has imported it, so it is looked for among
the modules that there are. A tensor and the array that is made of it are the same memory; no
element is copied, but for two kinds that NumPy does not have:

- bfloat16 is computed in float32, as PyTorch does with its sums. Where it is what PyTorch's own
  rules make of all tensors, float32 results are rounded to it.
- Tensors whose conjugation or sign PyTorch has put off are materialized first.

A tensor that gradients are wanted of is refused unless gradients are off (`torch.no_grad()`): what
is computed here is unknown to PyTorch's backward pass, and would be missing there without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, reduce
from typing import Any

import numpy as np

from ..compiler.errors import EinsumError, EinsumTypeError
from ..compiler.records import dataclass

__all__ = ["Tensors", "mapped", "tensors_among"]


@dataclass(frozen=True, slots=True)
class Tensors:
    """How the tensors of one call become arrays, and its results tensors.

    Attributes:
        torch: the module.
        narrow: whether float32 results are rounded to bfloat16.
    """

    torch: Any
    narrow: bool

    def arrays(
        self, values: Sequence[Any], name: Callable[[int], str] = "operand {}".format
    ) -> list[Any]:
        """The same values with arrays in place of tensors; one tensor given twice is one array.

        Args:
            values: tensors, arrays and whatever else there is.
            name: what to call one of them in an error, by its number.

        Raises:
            EinsumError: (a ValueError) a tensor is not in the CPU's memory, is not made of strides,
                or wants gradients.
        """
        made: dict[int, Any] = {}
        arrays = []
        for number, value in enumerate(values):
            array = made.get(id(value))
            if array is None:
                array = made[id(value)] = self._array(value, name, number)
            arrays.append(array)
        return arrays

    def _array(self, value: Any, name: Callable[[int], str], number: int) -> Any:
        if not isinstance(value, self.torch.Tensor):
            return value
        try:
            return value.numpy()  # which refuses whatever needs a closer look
        except (TypeError, RuntimeError):
            self._check(value, name(number))
        value = value.detach()
        if value.is_conj() or value.is_neg():
            value = value.resolve_conj().resolve_neg()
        return (value.float() if value.dtype == self.torch.bfloat16 else value).numpy()

    def _check(self, tensor: Any, name: str) -> None:
        if tensor.device.type != "cpu":
            raise EinsumError(
                f"{name} is a tensor on device {tensor.device}; einsumc computes in the CPU's "
                "memory: pass tensor.cpu()"
            )
        if tensor.layout != self.torch.strided:
            raise EinsumError(f"{name} is a tensor of layout {tensor.layout}: pass .to_dense()")
        if tensor.requires_grad and self.torch.is_grad_enabled():
            raise EinsumError(
                f"{name} is a tensor that requires grad, and einsumc's results have no gradients: "
                "pass tensor.detach(), or call within torch.no_grad()"
            )

    def result(self, value: Any) -> Any:
        """An array or a scalar as a tensor on the same memory; anything else stays."""
        if not isinstance(value, np.ndarray | np.generic):
            return value
        array = np.asarray(value)
        try:
            made = self.torch.from_numpy(array)
        except ValueError:  # tensors have no negative strides
            made = self.torch.from_numpy(array.copy())
        if self.narrow and array.dtype == np.float32:
            made = made.to(self.torch.bfloat16)
        return made

    def dtype(self, given: Any) -> Any:
        """A dtype of PyTorch's as one of NumPy's; anything else stays."""
        if not isinstance(given, self.torch.dtype):
            return given
        if given == self.torch.bfloat16:
            raise EinsumTypeError("NumPy has no dtype bfloat16 to compute in: name float32")
        return self.torch.empty(0, dtype=given).numpy().dtype

    def call(
        self,
        compute: Callable[..., Any],
        operands: Sequence[Any],
        out: Any = None,
        names: Sequence[str] | None = None,
    ) -> Any:
        """What a function of arrays, and an `out`, makes of tensors.

        Args:
            compute: called with the operands and, if there is one, `out=`. Its results may be
                nested in tuples, lists and dicts.
            operands: tensors among them.
            out: a tensor or an array to write to; it is what is returned.
            names: what to call the operands in errors.
        """
        arrays = self.arrays(operands, *([names.__getitem__] if names else []))
        if out is None:
            return mapped(compute(*arrays), self.result)
        if not isinstance(out, self.torch.Tensor):
            compute(*arrays, out=out)
            return out
        (target,) = self.arrays([out], lambda number: "out")
        compute(*arrays, out=target)
        if out.dtype == self.torch.bfloat16:
            out.copy_(self.torch.from_numpy(target))
        return out


def tensors_among(values: Iterable[Any]) -> Tensors | None:
    """What to do about the tensors among these values; None if there are none.

    >>> tensors_among([np.ones(2), 3.0]) is None
    True
    """
    torch = sys.modules.get("torch")
    kind = getattr(torch, "Tensor", None)
    if torch is None or kind is None:
        return None
    found = [value.dtype for value in values if isinstance(value, kind)]
    if not found:
        return None
    bfloat16 = torch.bfloat16
    narrow = bfloat16 in found and reduce(torch.promote_types, found) == bfloat16
    return _tensors(torch, narrow)


_tensors = cache(Tensors)
"""There are two of them, which small calls need not make anew."""


def mapped(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Tuples, lists and dicts of results with every array converted."""
    if isinstance(value, np.ndarray):
        return convert(value)
    if isinstance(value, Mapping):
        return {key: mapped(each, convert) for key, each in value.items()}
    if isinstance(value, tuple | list):
        parts = [mapped(each, convert) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return convert(value)
