"""What is declared with signatures, and compiled ahead of time for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..compiler.alone import alone
from ..compiler.errors import EinsumError

if TYPE_CHECKING:
    from .precompile import Job, Precompiled
    from .signatures import Signature
    from .store import Store

__all__ = ["Declared"]


class Declared:
    """An einsum or a function that has signatures.

    Attributes:
        signatures: those that it was declared with.
    """

    __slots__ = ()
    signatures: tuple[Signature, ...]

    def precompile(self, *, store: Store | None = None, jobs: int = 1) -> list[Precompiled]:
        """Compile every kernel that calls of the declared signatures need.

        Args:
            store: where the kernels go; by default where einsumc looks for them.
            jobs: processes to compile in; see `runtime.precompile.precompile`.

        Returns:
            The kernels, whether they were compiled now or before.

        Raises:
            EinsumError: (a ValueError) no signatures were declared.
            OSError: the store cannot be written.
        """
        if not self.signatures:
            raise EinsumError(f"{self!r} has no signatures that say what to compile it for")
        with alone:
            from .precompile import build

            wanted = self._jobs()
        return build(wanted, store=store, jobs=jobs)

    def _jobs(self) -> list[Job]:
        """The kernels of all signatures."""
        raise NotImplementedError
