"""Signatures: which dtypes and ranks of operands to have kernels for, `"f4[i,j], f4[j,k]"`.

The grammar, in which spaces mean nothing:

    signature = argument { "," argument }
    argument  = [ name "=" ] value
    value     = operand | tuple | list | dict | object | constant
    operand   = dtype [ "[" [ axis { "," axis } ] "]" ] [ "as" name ] | name
    dtype     = one of DTYPES, as a NumPy code ("f4") or name ("float32")
    axis      = index | extent
    index     = an index name: an axis of any extent
    extent    = an integer: an axis of this extent and no other

An operand without brackets is a scalar. The axes of an ellipsis are written out, with names of
their own: `"f4[batch,i,j], f4[batch,j,k]"` fits `...ij,...jk->...ik`.

That is all for equations. What a function takes may be nested, as in Python:

    tuple     = "(" [ value "," [ value { "," value } ] ] ")"
    list      = "[" [ value { "," value } ] "]"
    dict      = "{" [ key ":" value { "," key ":" value } ] "}"
    key       = name | constant | a tuple of keys
    object    = [ module ":" ] class "(" name "=" value { "," name "=" value } ")"
    constant  = a number or a text of Python's | True | False | None | inf | nan

An object is a named tuple; without a module its class is in the function's. What has a name with
`as` may be there again, as the same array: `"{embed: f4[v,d] as table, out: table}"`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..compiler.errors import EinsumError, EinsumTypeError, Span
from ..compiler.subscripts import Subscripts
from .arguments import Collection, Node, Static, filled_in, static_of, static_word
from .signature import DTYPES, Argument, OperandSignature, Signature
from .signature_fit import Places, check_fit

__all__ = ["DTYPES", "OperandSignature", "Signature", "parse_signature"]


def parse_signature(text: str, subscripts: Subscripts | None = None) -> Signature:
    """Read a signature, and check it against an equation if one is given.

    In the equation an axis is either called as it is there, or has a fixed extent, the same (or 1)
    wherever the index occurs.

    Raises:
        EinsumError: (a ValueError) the syntax is wrong, or it does not fit the equation.
        EinsumTypeError: (a TypeError) it is not a str.

    >>> from einsumc.compiler.subscripts import parse
    >>> print(parse_signature("f4[i,128], f4[128,k]", parse("ij,jk->ik")))
    f4[i,128], f4[128,k]
    >>> parse_signature("f4[i,j], f4[k,j]", parse("ij,jk->ik"))
    Traceback (most recent call last):
    einsumc.compiler.errors.EinsumError: axis 0 of operand 1 is 'j' in the equation ij,jk->ik, \
not 'k'
        f4[i,j], f4[k,j]
                    ^
    >>> print(parse_signature("{w: f4[i, o], 'b': f4[o]}, rows=[f4[n, i], None]"))
    {w: f4[i,o], b: f4[o]}, rows=[f4[n,i], None]
    """
    if not isinstance(text, str):
        raise EinsumTypeError(f"a signature must be a str, not {type(text).__name__}")
    reader = _Reader(text)
    signature = reader.signature()
    if subscripts is not None:
        if reader.beyond is not None:
            problem = "a signature of an equation has operands alone, such as f4[i,j]"
            raise EinsumError(problem, text, reader.beyond)
        check_fit(text, signature, reader.places, subscripts)
    return signature


_T = TypeVar("_T")

_SPACES = re.compile(r"\s*")
_WORD = re.compile(r"[^\s\[\](){},:='\"]*")
_AXIS = re.compile(r"\s*([^,\[\]]*?)\s*([,\[\]]|$)")
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_AS = re.compile(r"as(?!\w)\s*")
_NAMED = re.compile(r"([^\W\d]\w*)\s*=")
_OBJECT = re.compile(r"([^\W\d][\w.]*(?::[^\W\d][\w.]*)?)\(")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class _Reader:
    """A text that is read from left to right.

    Attributes:
        place: how far it has been read.
        operands: those that were read.
        same: for each the first that is the same.
        places: where each is in the text, and its axes.
        beyond: where the first thing is that signatures of equations do not have.
    """

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0
        self.operands: list[OperandSignature] = []
        self.same: list[int] = []
        self.places: list[Places] = []
        self.called: dict[str, int] = {}
        self.beyond: Span | None = None

    def signature(self) -> Signature:
        arguments = [self.argument(set())]
        while self.peek():
            self.expect(",")
            arguments.append(self.argument({name for name, _ in arguments}))
        if not self.operands:
            raise self.wrong("there is no operand in it", 0)
        return Signature.of(self.operands, arguments, self.same)

    def argument(self, known: set[str]) -> Argument:
        self.peek()
        start, name = self.place, ""
        found = _NAMED.match(self.text, start)
        if found is not None:
            name, self.place = found[1], found.end()
            if name in known:
                raise self.wrong(f"the argument {name!r} is there twice", start, found.end(1))
        node = self.value()
        if not name and known - {""}:
            raise self.wrong("after an argument with a name every one needs a name", start)
        if name or not isinstance(node, int):
            self.go_beyond(start)
        return name, node

    def value(self) -> Node:
        """An operand, a collection, or a constant."""
        opened, start = self.peek(), self.place
        if opened == "(":
            return self.read_tuple(self.value)
        if opened == "[":
            return Collection("[]", tuple(self.items(self.value)))
        if opened == "{":
            return self.read_dict()
        if opened in {"'", '"'}:
            return self.quoted()
        found = _OBJECT.match(self.text, start)
        if found is not None and found[1] not in DTYPES:
            self.place = found.end(1)
            fields = self.unlike(self.items(self.field))
            return Collection(found[1], tuple(fields.values()), tuple(fields))
        word = self.word()
        constant = static_word(word)
        if constant is not None:
            return constant
        if word in self.called:
            first = self.called[word]
            return self.add(self.operands[first], (start, self.place), self.places[first][1], first)
        return self.operand(start, word)

    # --- operands ---

    def operand(self, start: int, name: str) -> int:
        if name not in DTYPES:
            known = " ".join(name for name in DTYPES if len(name) < 4)
            problem = f"there is no dtype {name!r}: it may be" if name else "a dtype is missing:"
            raise self.wrong(f"{problem} {known}", start)
        end = self.place
        spans: tuple[Span, ...] = ()
        if self.peek() == "[":
            spans = tuple(self.axes())
            end = self.place
        axes = tuple(_read_axis(self.text, span) for span in spans)
        number = self.add(OperandSignature(DTYPES[name], axes), (start, end), spans)
        self.peek()
        found = _AS.match(self.text, self.place)
        if found is not None:
            self.place = begin = found.end()
            word = self.word()
            if not word.isidentifier() or word in DTYPES or static_word(word) is not None:
                raise self.wrong("a name for the operand is missing", begin)
            if word in self.called:
                raise self.wrong(f"another operand is called {word!r}", begin)
            self.called[word] = number
            self.go_beyond(start)
        return number

    def add(
        self,
        operand: OperandSignature,
        span: Span,
        axes: tuple[Span, ...],
        first: int | None = None,
    ) -> int:
        number = len(self.operands)
        self.operands.append(operand)
        self.same.append(number if first is None else first)
        self.places.append((span, axes))
        return number

    def axes(self) -> Iterator[Span]:
        """Where the axes between brackets are."""
        opened, self.place = self.place, self.place + 1
        found, closed = 0, False
        while not closed:
            axis = _AXIS.match(self.text, self.place)
            assert axis is not None  # it matches anything
            if not axis[2]:
                raise self.wrong("'[' is never closed", opened, opened + 1)
            if axis[2] == "[":
                raise self.wrong("'[' is not expected here", *axis.span(2))
            self.place, closed = axis.end(), axis[2] == "]"
            if axis[1] or found or not closed:
                found += 1
                yield axis.span(1)

    # --- collections ---

    def read_tuple(self, read: Callable[[], Node]) -> Collection:
        start = self.place
        items = list(self.items(read))
        inside = self.text[start : self.place - 1]
        if len(items) == 1 and not inside.rstrip().endswith(","):
            raise self.wrong(f"a tuple of one has a ',': {inside},)", start)
        return Collection("()", tuple(items))

    def read_dict(self) -> Collection:
        items = self.unlike(self.items(self.item))
        return Collection("{}", tuple(items.values()), tuple(items))

    def items(self, read: Callable[[], _T]) -> Iterator[_T]:
        """What is between brackets, which may end with a comma."""
        opened = self.place
        closing = _CLOSING[self.text[opened]]
        self.place += 1
        while (found := self.peek()) != closing:
            if not found:
                self.expect(",", opened)
            yield read()
            if self.peek() != closing:
                self.expect(",", opened)
        self.place += 1

    def unlike(self, items: Iterator[tuple[Node, Node, Span]]) -> dict[Node, Node]:
        """Items by their keys, of which Python must not say that they are equal."""
        found: dict[Node, Node] = {}
        values = set()
        for key, item, span in items:
            value = filled_in(key, (), str)
            if value in values:
                raise self.wrong(f"{value!r} is there twice", *span)
            values.add(value)
            found[key] = item
        return found

    def item(self) -> tuple[Node, Node, Span]:
        """A key and what it leads to."""
        self.peek()
        start = self.place
        key, end = self.key(), self.place
        self.expect(":")
        return key, self.value(), (start, end)

    def key(self) -> Node:
        first, start = self.peek(), self.place
        if first == "(":
            return self.read_tuple(self.key)
        if first in {"'", '"'}:
            return self.quoted()
        word = self.word()
        constant = static_word(word)
        if constant is None and not word.isidentifier():
            problem = f"{word!r} is no plain name: it needs quotes" if word else "a key is missing"
            raise self.wrong(problem, start)
        return constant or static_of(word)

    def field(self) -> tuple[Node, Node, Span]:
        """A name and the value of a named tuple's field."""
        self.peek()
        found = _NAMED.match(self.text, self.place)
        if found is None:
            raise self.wrong("expected the name of a field and '='", self.place)
        self.place = found.end()
        return static_of(found[1]), self.value(), found.span(1)

    def quoted(self) -> Static:
        found = _TEXT.match(self.text, self.place)
        if found is None:
            raise self.wrong("the text is never closed", self.place, self.place + 1)
        start, self.place = found.span()
        try:
            return static_of(Static(found[0]).value)
        except (SyntaxError, ValueError):
            raise self.wrong("Python cannot read this text", start) from None

    # --- characters ---

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        spaces = _SPACES.match(self.text, self.place)
        self.place = spaces.end() if spaces else self.place
        return self.text[self.place : self.place + 1]

    def word(self) -> str:
        found = _WORD.match(self.text, self.place)
        assert found is not None  # it matches anything
        self.place = found.end()
        return found[0]

    def expect(self, wanted: str, opened: int | None = None) -> None:
        """Go on after a ',' or ':'; `opened` is where a bracket is that ends otherwise."""
        found = self.peek()
        if found == wanted:
            self.place += 1
        elif not found and opened is not None:
            raise self.wrong(f"{self.text[opened]!r} is never closed", opened, opened + 1)
        elif found and found in "[](){},:=":
            raise self.wrong(f"{found!r} is not expected here", self.place, self.place + 1)
        else:
            raise self.wrong(f"a {wanted!r} is missing", self.place, self.place + 1)

    def go_beyond(self, start: int) -> None:
        self.beyond = self.beyond or (start, self.place)

    def wrong(self, problem: str, start: int, end: int | None = None) -> EinsumError:
        """What is wrong in the text from `start` to where it has been read, or to `end`."""
        end = max(self.place if end is None else end, start)
        return EinsumError(problem, self.text, (start, min(end, len(self.text))))


def _read_axis(text: str, span: Span) -> str | int:
    axis = text[slice(*span)]
    if axis.isascii() and axis.isdecimal():
        return int(axis)
    if not axis or len(axis.split()) > 1 or (len(axis) > 1 and not axis.isidentifier()):
        problem = f"{axis!r} is neither" if axis else "an axis is missing, which is"
        raise EinsumError(f"{problem} an index name {'n' * bool(axis)}or an extent", text, span)
    return axis
