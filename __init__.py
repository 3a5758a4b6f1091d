"""einsumc: an ahead-of-time einsum compiler for CPUs.

>>> import numpy as np
>>> import einsumc
>>> a, b = np.ones((2, 3)), np.ones((3, 4))
>>> einsumc.einsum("ij,jk->ik", a, b).shape
(2, 4)

The names below are imported when they are first used: `import einsumc` by itself loads nothing but
this file.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .compiler.alone import alone

if TYPE_CHECKING:
    from .compiler.errors import EinsumError
    from .runtime.decorator import compile_einsum, einsum
    from .runtime.store import add_store
    from .runtime.threads import get_num_threads, set_num_threads
    from .runtime.versions import show_versions

__version__ = "0.1.0.dev0"

__all__ = [
    "EinsumError",
    "__version__",
    "add_store",
    "compile_einsum",
    "einsum",
    "get_num_threads",
    "set_num_threads",
    "show_versions",
]

_HOME = {
    "EinsumError": ".compiler.errors",
    "add_store": ".runtime.store",
    "compile_einsum": ".runtime.decorator",
    "einsum": ".runtime.decorator",
    "get_num_threads": ".runtime.threads",
    "set_num_threads": ".runtime.threads",
    "show_versions": ".runtime.versions",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with alone:
        value: object = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value  # the next lookup is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
