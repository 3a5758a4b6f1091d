"""A function's body as a program: `@compile_einsum` without an equation.

    location    where in the user's code something is, and the error that says so
    number      sizes and numbers, which are not known yet, and what is computed from them
    graph       operations on arrays, and the shapes that follow from the operands'
    record      operations -> nodes of a graph, with NumPy's dtypes
    symbol      the arrays that a traced function sees
    functions   NumPy's functions and methods; linear, ufuncs: those that are einsums and formulas
    trace       a function -> its trace, good for all operands of a signature
    axes        axes that are several, since a reshape merged them
    unfold      a trace and shapes -> a program

NumPy's own protocols (`__array_function__`, `__array_ufunc__`) hand its functions over, so code
that was not written for einsumc can be traced.
"""

from .location import TraceError
from .number import Argument, Shapes
from .structure import Place, filled, filler, flattened, kept_filler, told_apart
from .symbol import Symbol
from .trace import Signature, Trace, trace
from .unfold import Parameter, Result, Unfolded, unfold

__all__ = [
    "Argument",
    "Parameter",
    "Place",
    "Result",
    "Shapes",
    "Signature",
    "Symbol",
    "Trace",
    "TraceError",
    "Unfolded",
    "filled",
    "filler",
    "flattened",
    "kept_filler",
    "told_apart",
    "trace",
    "unfold",
]
