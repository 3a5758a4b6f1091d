"""The native entry, as LLVM IR: a call of a compiled einsum without a line of Python.

Where the arrays of a call are of a layout that was seen before, all that is left to do is to find
the plan, make the result, write a few addresses into the kernels' arguments and call the kernels.
In Python that takes ten times longer than a small contraction itself.

`program.py` puts the program together from its parts. It becomes an image like any kernel, so it is
compiled once, beforehand, and `runtime/entry.py` makes methods of its entries:

    einsumc_call(self, args, count, names)     CompiledEinsum.__call__, METH_FASTCALL|METH_KEYWORDS
    einsumc_facts(args, count, out, words)     what a call's plan is found by

Whatever is in the least unusual (keywords other than `out`, subclasses, array-likes, several
dtypes, an `out` near an operand, a layout not seen before) is handed on, as it came, to the method
in Python, which is fully general. There is no error here that is not a failure of memory.

Everything is read with the GIL held, and no Python code runs between reading and using: only long
work gives the GIL up, and by then all addresses are taken. Long work goes to the thread pool in
slices, between which Python looks for signals.

What this code relies on is laid out at the top of `program.py`; `runtime/entry.py` looks at real
objects before it uses any of it. Functions and variables of CPython and NumPy are imported by name.

A *plan* is a `bytes` object, so its memory lives as long as somebody uses it. It holds 64-bit words
(`PLAN` names those at its head), then the facts that it is for, then the lists that the head tells
the places of, in bytes from the first word:

    template    the arguments of all kernels, addresses missing
    fills       three words for each address: where it goes, in bytes; whose it is (the number of an
                operand, or as if the results were further operands and the workspace the last one);
                an offset to add, in bytes
    steps       six words each: the kernel's address, where its arguments begin in the template, its
                tiles, bytes of scratch for each thread, threads worth having, whether the step is
                long enough to give the GIL up
    results     four words each: whether it is a scalar, its rank, the address of its dtype, the
                place of its extents, which are followed by its strides in bytes

One result is returned as it is, several in a tuple, unless a function makes something else of it.

A plan runs in one *block* of memory, on a page of its own: two words of the block's, the arguments
(from byte 64), four words for each result (where it is written, the object, room for a scalar), the
workspace, the threads' scratch.

An object's plans are a list: a dictionary from facts to plans, then the plans used last.
"""

__all__ = ["ARGUMENTS", "CALL", "FACTS", "PLAN", "STATE", "STATE_BYTES", "WORDS", "symbols"]

CALL = "einsumc_call"
FACTS = "einsumc_facts"

WORDS = 1024
"""Words of facts that a call may have; one with more takes the way through Python."""

PLAN = (
    "facts_bytes",
    "results",  # how many
    "results_at",  # place
    "written_at",  # in the block: the results' words
    "several",  # 1: they are returned in a tuple
    "arguments_bytes",
    "template",  # place
    "fills",  # how many
    "fills_at",  # place
    "steps",  # how many
    "steps_at",  # place
    "workspace_at",  # in the block
    "scratch_at",  # in the block
    "block_bytes",  # with scratch for one thread
    "shared",  # 1: threads may help with some step
    "returned",  # address of the function that makes something of the tuple, or 0
)
"""The words at the head of a plan, in order."""

STATE = ("changes", "slot", "slow", "out", "threads", "pool_run", "pool", "processors")
"""The words that `runtime/entry.py` keeps: how often settings changed; the offset in an object of
the pointer to its plans; the method in Python; the text "out"; a function that returns the number
of threads; the pool's entry and state; how many processors there are. Blocks not in use follow."""

STATE_BYTES = 4096

ARGUMENTS = 64
"""Where the arguments begin in a block."""

_FUNCTIONS = """
    PyArray_NewFromDescr PyArray_Scalar
    PyBytes_FromStringAndSize PyDict_GetItemWithError PyErr_CheckSignals PyErr_Clear
    PyErr_NoMemory PyEval_RestoreThread PyEval_SaveThread PyLong_AsLong PyMem_RawFree
    PyMem_RawMalloc PyObject_CallNoArgs PyObject_CallOneArg PyObject_Vectorcall PyTuple_GetItem
    PyTuple_New PyTuple_SetItem Py_DecRef Py_IncRef
"""


def symbols() -> frozenset[str]:
    """The names that the image imports beside those of every kernel."""
    return frozenset([*_FUNCTIONS.split(), "PyArray_Type", "_Py_NoneStruct", "einsumc_state"])
