"""The contenders: einsumc and what it is measured against, each behind the same three methods.

A peer that is not installed is left out. Import this module, and numpy with it, only after
`limit_threads`: most libraries read the number of threads once, when they are loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pages import forbid_huge, huge_forbidden

if TYPE_CHECKING:
    import numpy as np
    from cases import Access, Case, Expression, Path_, Program

__all__ = ["PEERS", "SPECIAL", "Peer", "Unsupported", "available", "limit_threads", "windows_view"]

TOO_MANY_FLOPS = 50  # times those of the path that the others are given

Array = Any  # an array or tensor of the peer's own library


class Unsupported(Exception):
    """The peer cannot compute this case; the message says why."""


def limit_threads(threads: int) -> None:
    """Make libraries that are loaded from now on use so many threads, as far as they can be told.

    Also binds the process to so many CPUs, which is the one limit that every library respects.
    """
    for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "TBLIS", "NUMBA", "NUMEXPR", "EINSUMC"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ["NPROC"] = str(threads)  # XLA
    os.environ["JAX_PLATFORMS"] = "cpu"
    flag = "true" if threads > 1 else "false"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={flag}"
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[:threads])


def axis_windows(
    access: Access, shape: Sequence[int], extents: Mapping[str, int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """How to read an affine access through a view: padding for each axis, and its first element."""
    padding, start = [], []
    for axis, extent in zip(access, shape, strict=True):
        reach = [coefficient * (extents[index] - 1) for coefficient, index in axis.terms]
        first = axis.offset + sum(min(step, 0) for step in reach)
        last = axis.offset + sum(max(step, 0) for step in reach)
        before = max(0, -first)
        padding.append((before, max(0, last - extent + 1)))
        start.append(axis.offset + before)
    return padding, start


def window_strides(access: Access, strides: Sequence[int]) -> dict[str, int]:
    """The stride of each index of an affine access, in the unit of the array's strides."""
    result: dict[str, int] = {}
    for axis, stride in zip(access, strides, strict=True):
        for coefficient, index in axis.terms:
            result[index] = result.get(index, 0) + coefficient * stride
    return result


def windows_view(array: np.ndarray, access: Access, extents: Mapping[str, int]) -> np.ndarray:
    """An affine access as an array with one axis for each index; only padding copies."""
    import numpy as np

    padding, start = axis_windows(access, array.shape, extents)
    if any(map(any, padding)):
        array = np.pad(array, padding)
    strides = window_strides(access, array.strides)
    origin = array[tuple(slice(at, None) for at in start)]
    shape = [extents[index] for index in strides]
    return np.lib.stride_tricks.as_strided(origin, shape, tuple(strides.values()))


def np_empty(numpy: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array of this shape that occupies no memory, for planning."""
    return numpy.broadcast_to(numpy.zeros((), dtype), shape)


class Peer:
    """A library that evaluates einsums."""

    name: ClassVar[str]
    module: ClassVar[str]
    distribution: ClassVar[str]
    runs_programs: ClassVar[bool] = False

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.library: Any = importlib.import_module(self.module)
        self.prepare_library()
        self.huge_forbidden = huge_forbidden()
        forbid_huge(False)

    @property
    def version(self) -> str:
        """The version of the library."""
        return importlib.metadata.version(self.distribution)

    def prepare_library(self) -> None:
        """Settings that the library wants made after it is loaded."""

    def put(self, array: np.ndarray) -> Array:
        """The array as the peer takes it; not part of what is timed."""
        return array

    def get(self, result: Array) -> np.ndarray:
        """A result as numpy has it; not part of what is timed."""
        import numpy as np

        return np.asarray(result)

    def finish(self, result: Array) -> Array:
        """The result computed and contiguous, were it a lazy view or not there yet."""
        import numpy as np

        return np.asarray(result, order="C")  # ascontiguousarray would make a scalar a vector

    def windows(self, array: Array, access: Access, extents: Mapping[str, int]) -> Array:
        """An affine access as an array with one axis for each index; only padding copies."""
        return windows_view(array, access, extents)

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """A function of the operands that evaluates an equation in letters."""
        raise NotImplementedError

    def whole(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """What the library does to a function as a whole before it runs it."""
        return function

    def step(
        self, expression: Expression, extents: Mapping[str, int], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """A function of the operands of an expression, affine or not."""
        from cases import window_axes

        shapes = [
            tuple(extents[index] for index in window_axes(access)) for access in expression.inputs
        ]
        contract = self.contraction(expression.letters(), shapes, dtype, path)
        if expression.is_plain:
            return contract

        def through_windows(*operands: Array) -> Array:
            return contract(
                *(
                    operand
                    if all(axis.is_plain for axis in access)
                    else self.windows(operand, access, extents)
                    for operand, access in zip(operands, expression.inputs, strict=True)
                )
            )

        return through_windows

    def program(self, case: Case, program: Program) -> tuple[Callable[..., Array], list[str]]:
        """A function that runs a program's steps, and the names of the arrays it takes."""
        from cases import Expression

        extents = dict(case.extents)
        shapes = case.given
        given = list(shapes)
        steps = []
        for result, equation, operands in program.steps:
            expression = Expression.parse(equation)
            for access, name in zip(expression.inputs, operands, strict=True):
                for axis, extent in zip(access, shapes[name], strict=True):
                    if axis.is_plain:
                        extents.setdefault(axis.terms[0][1], extent)
            shapes[result] = tuple(extents[index] for index in expression.output)
            steps.append((result, self.step(expression, extents, case.dtype, None), operands))

        def run(*arrays: Array) -> Array:
            values = dict(zip(given, arrays, strict=True))
            for result, function, operands in steps:
                values[result] = function(*(values[name] for name in operands))
            return values[steps[-1][0]]

        return run, given

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Array]]]:
        """Every way in which this peer may compute a case: the equation itself, and programs.

        Args:
            case: what to compute.
            arrays: its operands, and what else the programs read, by name.
            programs: those of the case's programs that are worth running.
        """
        if case.expression.permutation is not None:
            yield from self.copies(case, self.put(arrays[case.operands[0]]))
        direct = self.step(case.expression, case.extents, case.dtype, case.path)
        yield "", self.bind(direct, case.operands, arrays)
        if self.runs_programs:
            for program in programs:
                function, names = self.program(case, program)
                yield program.name, self.bind(function, names, arrays)

    def copies(self, case: Case, operand: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
        """How this peer transposes into memory that is there already, if it can."""
        return iter(())

    def bind(
        self,
        function: Callable[..., Array],
        names: Sequence[str],
        arrays: Mapping[str, np.ndarray],
    ) -> Callable[[], Array]:
        """A call that needs no arguments: same name, same array."""
        placed = {name: self.put(arrays[name]) for name in dict.fromkeys(names)}
        operands = [placed[name] for name in names]
        prepared = self.whole(function)
        return lambda: self.finish(prepared(*operands))


class Numpy(Peer):
    """np.einsum with optimize=True, and for two operands also the plain loop."""

    name, module, distribution, runs_programs = "numpy", "numpy", "numpy", True

    def prepare_library(self) -> None:
        """Tell the BLAS that is already there."""
        with contextlib.suppress(ImportError):
            import threadpoolctl

            threadpoolctl.threadpool_limits(self.threads)

    def copies(self, case: Case, operand: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
        """np.copyto from a transposed view."""
        numpy, axes = self.library, case.expression.permutation
        out = numpy.zeros(case.output_shape, case.dtype)

        def copy() -> Array:
            numpy.copyto(out, operand.transpose(axes))
            return out

        yield "copyto", copy

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """np.einsum as users are told to call it."""
        if not equation.isascii():
            raise Unsupported("more indices than letters")
        import opt_einsum

        # Where no pairwise step fits numpy's idea of memory it sums everything in one loop, and one
        # call may then take hours.
        arrays = [np_empty(self.library, shape, dtype) for shape in shapes]
        own = self.library.einsum_path(equation, *arrays, optimize=True)[0][1:]
        flops = [
            int(opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=each)[1].opt_cost)
            for each in (own, "auto" if path is None else list(path))
        ]
        if flops[0] > TOO_MANY_FLOPS * flops[1]:
            raise Unsupported(f"its own path takes {flops[0] / flops[1]:.0f} times the operations")
        einsum = self.library.einsum
        return lambda *operands: einsum(equation, *operands, optimize=True)

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Array]]]:
        """Adds np.einsum without optimize, which is the faster one for small or simple cases."""
        yield from super().variants(case, arrays, programs)
        if len(case.operands) <= 2 and case.expression.is_plain:
            equation, einsum = case.expression.letters(), self.library.einsum
            yield (
                "plain",
                self.bind(lambda *each: einsum(equation, *each), case.operands, arrays),
            )


class Blas(Peer):
    """numpy's BLAS by np.matmul, for what is a product of two matrices and nothing else."""

    name, module, distribution = "blas", "numpy", "numpy"

    def prepare_library(self) -> None:
        """Tell the BLAS that is already there."""
        with contextlib.suppress(ImportError):
            import threadpoolctl

            threadpoolctl.threadpool_limits(self.threads)

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """np.matmul of the operands or of their transposed views."""
        order = product_order(equation)
        if order is None:
            raise Unsupported("not a product of two matrices")
        matmul, (first, transposed), (second, also) = self.library.matmul, *order

        def multiply(*operands: Array, out: Array | None = None) -> Array:
            left = operands[first].T if transposed else operands[first]
            right = operands[second].T if also else operands[second]
            return matmul(left, right, out=out)

        return multiply

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Array]]]:
        """np.matmul, into one array where the case is of that kind."""
        multiply = self.step(case.expression, case.extents, case.dtype, None)
        yield "", self.bind(with_output(multiply, case), case.operands, arrays)


def product_order(equation: str) -> tuple[tuple[int, bool], tuple[int, bool]] | None:
    """Which operand is the left factor of a matrix product and which the right, None if it is none.

    Each comes with whether it has to be transposed: of `ji,jk->ik` the left factor is operand 0,
    transposed.
    """
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or [len(set(term)) for term in (*terms, output)] != [2, 2, 2]:
        return None
    if len(inputs) + len(output) != 7 or len(set(inputs) - {","}) != 3:
        return None
    row, column = output[0], output[1]
    left = next((n for n, term in enumerate(terms) if row in term and column not in term), None)
    if left is None:
        return None
    return (left, terms[left][0] != row), (1 - left, terms[1 - left][1] != column)


def with_output(function: Callable[..., Array], case: Case) -> Callable[..., Array]:
    """The function with an `out=` of its own, if that is how the case is measured."""
    if not case.into:
        return function
    import numpy as np

    return partial(function, out=np.zeros(case.output_shape, case.dtype))


class OptEinsum(Peer):
    """opt_einsum's contract_expression, with the path already chosen."""

    name, module, distribution = "opt_einsum", "opt_einsum", "opt_einsum"

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """An expression made once and called often."""
        optimize = "auto" if path is None else list(path)
        return self.library.contract_expression(equation, *shapes, optimize=optimize)


class Cotengra(Peer):
    """cotengra's einsum_expression, with the path already chosen."""

    name, module, distribution = "cotengra", "cotengra", "cotengra"

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """An expression made once and called often."""
        optimize = "auto" if path is None or len(shapes) < 2 else list(path)
        return self.library.einsum_expression(equation, *shapes, optimize=optimize)


class Torch(Peer):
    """torch.einsum on the CPU; from three operands on it plans with opt_einsum, if installed."""

    name, module, distribution, runs_programs = "torch", "torch", "torch", True

    def prepare_library(self) -> None:
        """Threads, and no graph of gradients."""
        self.library.set_num_threads(self.threads)
        self.library.set_grad_enabled(False)

    def copies(self, case: Case, operand: Array) -> Iterator[tuple[str, Callable[[], Array]]]:
        """copy_ from a permuted view."""
        axes = case.expression.permutation
        out = self.library.zeros(case.output_shape, dtype=operand.dtype)
        yield "copy_", lambda: out.copy_(operand.permute(axes))

    def put(self, array: np.ndarray) -> Array:
        """A tensor over the same memory."""
        return self.library.from_numpy(array)

    def finish(self, result: Array) -> Array:
        """Contiguous."""
        return result.contiguous()

    def get(self, result: Array) -> np.ndarray:
        """An array over the same memory."""
        return result.numpy()

    def windows(self, array: Array, access: Access, extents: Mapping[str, int]) -> Array:
        """The same view as numpy's, by torch's own functions."""
        padding, start = axis_windows(access, array.shape, extents)
        if any(map(any, padding)):
            flat = [extent for pair in reversed(padding) for extent in pair]
            array = self.library.nn.functional.pad(array, flat)
        strides = window_strides(access, array.stride())
        origin = sum(at * stride for at, stride in zip(start, array.stride(), strict=True))
        shape = [extents[index] for index in strides]
        return array.as_strided(shape, list(strides.values()), origin)

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """torch.einsum, which chooses its path itself."""
        if not equation.isascii():
            raise Unsupported("more indices than letters")
        einsum = self.library.einsum
        return lambda *operands: einsum(equation, *operands)


class TorchEinsum(Torch):
    """torch.einsum of the equation as it stands, and nothing else."""

    name, runs_programs = "torch_einsum", False


class Expert(Peer):
    """The competing programs of a case as an expert writes them: see `experts`."""

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Array]]]:
        """Every program, each step by the fastest call."""
        import experts

        if not programs or any(" " in step for each in programs for _, step, _ in each.steps):
            raise Unsupported("no programs of plain einsums")
        names = set().union(case.operands, *(program.reads for program in programs))
        placed = {name: self.put(arrays[name]) for name in names}
        calls = getattr(experts, f"{self.module}_calls")(self.library)
        for label, call in experts.variants(calls, programs, placed):
            yield label, partial(self.finished, call)

    def finished(self, call: Callable[[], Array]) -> Array:
        """A call's result, contiguous."""
        return self.finish(call())


class NumpyExpert(Expert, Numpy):
    """numpy by hand."""

    name = "numpy_expert"


class TorchExpert(Expert, Torch):
    """torch by hand."""

    name = "torch_expert"


class Jax(Peer):
    """jnp.einsum under jit on the CPU, the whole program in one compilation."""

    name, module, distribution, runs_programs = "jax", "jax", "jax", True

    def prepare_library(self) -> None:
        """Float64 is a choice that jax wants made early."""
        self.library.config.update("jax_enable_x64", True)
        self.numpy = importlib.import_module("jax.numpy")

    def put(self, array: np.ndarray) -> Array:
        """An array of jax's own."""
        return self.numpy.asarray(array)

    def finish(self, result: Array) -> Array:
        """Computed."""
        return result.block_until_ready()

    def whole(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """Compiled."""
        return self.library.jit(function)

    def windows(self, array: Array, access: Access, extents: Mapping[str, int]) -> Array:
        """jax has no strided views: slices are stacked, for the compiler to fuse."""
        indices = [index for axis in access for _, index in axis.terms]
        if len(set(indices)) < len(indices):
            raise Unsupported("one index in two axes of a window")
        padding, start = axis_windows(access, array.shape, extents)
        array = self.numpy.pad(array, padding)
        at = 0
        for axis, first in zip(access, start, strict=True):
            array = self._unfold(array, at, first, axis.terms, extents)
            at += len(axis.terms)
        return array

    def _unfold(
        self,
        array: Array,
        at: int,
        first: int,
        terms: tuple[tuple[int, str], ...],
        extents: Mapping[str, int],
    ) -> Array:
        """One axis as one axis for each of its indices."""
        slice_in_dim = self.library.lax.slice_in_dim
        (coefficient, index), *rest = terms
        if not rest:
            stop = first + coefficient * (extents[index] - 1) + 1
            return slice_in_dim(array, first, stop, coefficient, axis=at)
        if rest and extents[index] > extents[rest[0][1]]:  # stack over the shorter one
            swapped = self._unfold(array, at, first, (*rest, (coefficient, index)), extents)
            return self.numpy.moveaxis(swapped, at + len(rest), at)
        pieces = [
            self._unfold(array, at, first + coefficient * n, tuple(rest), extents)
            for n in range(extents[index])
        ]
        return self.numpy.stack(pieces, axis=at)

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """jnp.einsum along the given path, in the precision of the operands."""
        if not equation.isascii():
            raise Unsupported("more indices than letters")
        optimize = "optimal" if path is None else list(path)
        einsum = self.numpy.einsum
        return lambda *operands: einsum(equation, *operands, optimize=optimize, precision="highest")


class Tblis(Peer):
    """pytblis.einsum along the given path: contraction without transposition."""

    name, module, distribution = "tblis", "pytblis", "pytblis"

    def prepare_library(self) -> None:
        """Threads."""
        self.library.set_num_threads(self.threads)

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """pytblis.einsum."""
        if not equation.isascii():
            raise Unsupported("more indices than letters")
        optimize = True if path is None else ["einsum_path", *path]
        einsum = self.library.einsum
        return lambda *operands: einsum(equation, *operands, optimize=optimize)


class Sesum(Peer):
    """sesum along the given path."""

    name, module, distribution = "sesum", "sesum", "sesum"

    def contraction(
        self, equation: str, shapes: Sequence[tuple[int, ...]], dtype: str, path: Path_ | None
    ) -> Callable[..., Array]:
        """sesum.sesum."""
        sesum = self.library.sesum
        if len(shapes) < 2:
            return lambda *operands: sesum(equation, *operands)
        steps = list(path or [tuple(range(len(shapes)))])
        return lambda *operands: sesum(equation, *operands, path=steps)


class Einsumc(Peer):
    """einsumc itself, given the equation and the extents that no operand shows."""

    name, module, distribution = "einsumc", "einsumc", "einsumc"

    def prepare_library(self) -> None:
        """Threads."""
        self.library.set_num_threads(self.threads)

    def variants(
        self, case: Case, arrays: Mapping[str, np.ndarray], programs: Sequence[Program]
    ) -> Iterator[tuple[str, Callable[[], Array]]]:
        """The compiled equation: choosing a program is its own affair.

        Asked for C order it writes so at once; by default it may choose another order that is
        faster to write, and its result is brought into C order as the others' are.
        """
        sizes = {index: case.extents[index] for index in case.expression.hidden}
        compiled = self.library.compile_einsum(case.equation, sizes=sizes)
        if case.expression.permutation is None:
            yield "", self.bind(with_output(compiled, case), case.operands, arrays)
            if not case.into:
                yield "C", self.bind(partial(compiled, order="C"), case.operands, arrays)
            return
        import numpy as np

        operand = arrays[case.operands[0]]
        out = np.zeros(case.output_shape, case.dtype)
        yield "out=", lambda: compiled(operand, out=out)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        *(Einsumc, Numpy, NumpyExpert, Blas, OptEinsum),
        *(Torch, TorchEinsum, TorchExpert, Jax, Cotengra, Tblis, Sesum),
    )
}
"""Every contender by name, in the order in which they take their turns."""

SPECIAL = ("blas", "numpy_expert", "torch_expert", "torch_einsum")
"""Those that compute some kinds of cases only, or that others cover."""


def available(names: Sequence[str], threads: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are there, and for those that are not a line that says why."""
    found: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            found[name] = PEERS[name](threads)
        except (ImportError, AttributeError) as problem:
            absent[name] = str(problem)
    return found, absent
