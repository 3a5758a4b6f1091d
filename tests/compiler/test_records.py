"""Records: what is made of a class does not depend on how many records there are of it."""

from typing import Any

import pytest
from einsumc.compiler import records
from einsumc.compiler.records import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    rest: list[int] = field(default_factory=list)
    sum: int = field(default=0, init=False)
    more: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sum", self.x + self.y)


@dataclass(frozen=True, slots=True)
class Named(Point):
    name: str = "p"


@dataclass
class Loose:
    a: Any
    b: Any = None


def test_the_first_record_is_like_the_thousandth() -> None:
    made: list[Any] = []
    inits = Point.__init__, Named.__init__, Loose.__init__
    for _ in range(records._OFTEN + 1):  # type: ignore[attr-defined]
        point = Point(1)
        made.append(
            [
                (point, Point(y=3, x=1), Point(1, 2, [7]), replace(point, x=5)),
                (point.sum, point.rest, point.more, point.rest is Point(1).rest),
                (Named(1, name="q"), Named(1, 2, [], "r").name, isinstance(Named(1), Point)),
                repr(Loose(1)),
                Loose(b=1, a=2).b,
                Loose([1]) == Loose([1]),
            ]
        )
        for wrong in ((), (1, 2, [], 3)):
            with pytest.raises(TypeError):
                Point(*wrong)
        with pytest.raises(TypeError):
            Loose(1, c=2)  # type: ignore[call-arg]
    assert all(each == made[0] for each in made)
    after = Point.__init__, Named.__init__, Loose.__init__
    assert all(x is not y for x, y in zip(inits, after, strict=True))
