"""Where in the user's code something was written, for messages about a traced function."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path

import numpy as np

from ..errors import EinsumError
from ..records import dataclass

__all__ = ["Location", "TraceError", "here"]

_PACKAGE = Path(__file__).parents[2]
_INSIDE = tuple(f"{path}/" for path in (_PACKAGE / "compiler", _PACKAGE / "runtime"))
_NUMPY = f"{Path(np.__file__).parent}/"


@dataclass(frozen=True, slots=True)
class Location:
    """A line of a file and the function that it is in."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        """What is written there, as far as it can be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        head = f'File "{self.file}", line {self.line}, in {self.function}'
        return f"{head}\n  {self.text}" if self.text else head


class TraceError(EinsumError):
    """Something in the body of a compiled function that is not for arrays without values.

    Attributes:
        message: what is wrong.
        where: the line of the user's code, or None if it is not known.

    >>> print(TraceError("there is no such thing", Location("model.py", 7, "loss")))
    there is no such thing
      File "model.py", line 7, in loss
    """

    def __init__(self, message: str, where: Location | None = None) -> None:
        shown = "" if where is None else "".join(f"\n  {line}" for line in str(where).split("\n"))
        super().__init__(f"{message}{shown}")
        self.message = message
        self.where = where


def here() -> Location | None:
    """The innermost line outside of einsumc and NumPy that is being executed."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_INSIDE, _NUMPY)) and not file.startswith("<__array_function__"):
            return Location(file, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None
