"""The lock of all that only one thread does at a time, and that a fork waits for.

Whoever plans a call, compiles or loads a kernel, or imports a module that not every program needs,
holds it. Numba compiles one kernel at a time anyway; and there is one lock for all of it so that no
two threads ever wait for each other.

A fork waits until it is free. So no child inherits a compiler, Numba's or LLVM's, in the middle of
its work, nor a module in the middle of its import, which it would wait for forever.
"""

from __future__ import annotations

import os
from _thread import RLock  # `threading` takes a millisecond to import, and NumPy does without

__all__ = ["alone"]

alone = RLock()
"""Reentrant, since a signal's handler may compute as well."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=alone.acquire,
        after_in_parent=alone.release,
        after_in_child=alone.release,
    )
