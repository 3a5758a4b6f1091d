"""The driver of an exported einsum: from pointers, extents and strides to calls of kernels.

Python binds a step to a call's layouts (`runtime/bind.py`); an exported function has to do it by
itself. A driver is straight code that does so, in LLVM's language: products of extents, sums of
strides, and stores into a kernel's argument array. Every step has two kernels, one for operands
and results in C order and one for any strides, and the driver takes the first that fits.

    windows      statements that are right for any extents, and copies with zeros around them
    sizes, code  formulas of extents, and code that computes them
    kernels      which kernels there are
    functions    the functions that are exported

What an exported function is called with, and what it answers, is in the header that goes with it
(`runtime/export.py`).
"""

from .functions import driver
from .kernels import ExportedKernel, Layout, wanted_kernels
from .windows import Steps, steps_of

__all__ = ["ExportedKernel", "Layout", "Steps", "driver", "steps_of", "wanted_kernels"]
