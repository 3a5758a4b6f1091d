"""Dataclasses that cost nothing until they are used: what einsumc's records are made with.

The standard `dataclass` writes six methods for every class, as text, and compiles them: half a
millisecond a class, and half of all that a process with stored kernels did before its first result.
Here the methods are closures over the fields, which take 30 microseconds and no longer to run. To
type checkers the names of this module are the standard ones, and `dataclasses.fields`, `replace`,
`asdict` and `pickle` work on these records as on any.

What records of einsumc use is here and no more: `frozen`, `slots`, `eq`, defaults, `field`, and
`__post_init__`; fields are given by place or by name.

>>> @dataclass(frozen=True, slots=True)
... class Size:
...     rows: int
...     columns: int = 1
>>> Size(3), Size(3) == Size(3, 1), replace(Size(3), columns=2)
(Size(rows=3, columns=1), True, Size(rows=3, columns=2))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["dataclass", "field", "fields", "is_dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, is_dataclass, replace
else:
    from operator import attrgetter

    _MISSING = object()
    _FIELDS = "__record_fields__"

    class Field:
        """A field: its name, its annotation, and what `field` was told."""

        __slots__ = ("compare", "default", "default_factory", "init", "name", "repr", "type")

        def __init__(self, default, default_factory, init, repr, compare):
            self.name = self.type = ""
            self.default, self.default_factory = default, default_factory
            self.init, self.repr, self.compare = init, repr, compare

    def field(*, default=_MISSING, default_factory=_MISSING, init=True, repr=True, compare=True):
        """What a field is beside its name: see `dataclasses.field`."""
        return Field(default, default_factory, init, repr, compare)

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True):
        """Make a record of a class: see `dataclasses.dataclass`."""
        if cls is None:
            return lambda cls: _record(cls, frozen, slots, eq)
        return _record(cls, frozen, slots, eq)

    def is_dataclass(value):
        """Whether this is a record or a class of them."""
        return hasattr(value if isinstance(value, type) else type(value), _FIELDS)

    def fields(value):
        """The fields of a record or of a class of them, in order."""
        return tuple(getattr(value, _FIELDS).values())

    def replace(value, /, **changes):
        """The same record with other values of some fields."""
        cls = type(value)
        given = [
            changes.pop(name) if name in changes else getattr(value, name)
            for name in cls.__match_args__
        ]
        return cls(*given, **changes)

    def _record(cls, frozen, slots, eq):
        own, inherited = _own_fields(cls), {}
        for base in cls.__mro__[:0:-1]:
            inherited |= vars(base).get(_FIELDS, {})
        found = inherited | own
        setters = []  # a slot can only be set once there is the class
        space = {
            _FIELDS: found,
            "__dataclass_fields__": _STANDARD,
            "__match_args__": tuple([name for name, each in found.items() if each.init]),
            "__init__": _init(cls, found, setters),
        }
        if "__repr__" not in vars(cls):
            space["__repr__"] = _repr
        compared = [name for name, each in found.items() if each.compare]
        if eq:
            key = attrgetter(*compared) if compared else lambda value: ()
            if "__eq__" not in vars(cls):
                space["__eq__"] = _eq(key)
            if vars(cls).get("__hash__") is None:
                space["__hash__"] = (lambda self: hash(key(self))) if frozen else None
        if frozen:
            space["__setattr__"] = space["__delattr__"] = _refuse
            if slots:
                space["__getstate__"], space["__setstate__"] = _getstate, _setstate
        if slots:
            cls = _with_slots(cls, [name for name in own if name not in inherited], space)
        else:
            for name, value in space.items():
                setattr(cls, name, value)
        setters += [_setter(cls, name) for name in cls.__match_args__]
        return cls

    def _own_fields(cls):
        """The fields that a class' own annotations declare, in order."""
        found = {}
        for name, annotation in cls.__annotations__.items():
            default = cls.__dict__.get(name, _MISSING)
            if isinstance(default, Field):
                each = default
                if each.default is not _MISSING:
                    setattr(cls, name, each.default)
                else:
                    delattr(cls, name)
            else:
                each = Field(default, _MISSING, True, True, True)
            each.name, each.type = name, annotation
            found[name] = each
        return found

    def _with_slots(cls, names, methods):
        """The class made anew: slots can only be given to a class that is being made."""
        space = vars(cls) | methods | {"__slots__": tuple(names)}
        for name in (*names, "__dict__", "__weakref__"):
            space.pop(name, None)
        made = type(cls)(cls.__name__, cls.__bases__, space)
        made.__qualname__ = cls.__qualname__
        return made

    def _init(cls, found, setters):
        names = [name for name, each in found.items() if each.init]
        later = [each for each in found.values() if not each.init and _has_default(each)]
        count, finish = len(names), getattr(cls, "__post_init__", None)
        defaults = [found[name] for name in names if _has_default(found[name])]
        ready = tuple(each.default for each in defaults)
        ready = None if _MISSING in ready else ready  # what the last fields are if not given
        least = count - len(defaults)

        def init(self, /, *args, **given):
            if given or len(args) != count:
                args = arrange(args, given)
            for put, value in zip(setters, args, strict=True):
                put(self, value)
            for each in later:
                object.__setattr__(self, each.name, _default(each))
            if finish is not None:
                self.__post_init__()

        def arrange(args, given):
            """All fields' values in order, from those given by place and by name."""
            begin = len(args)
            if begin + len(given) == count:
                try:
                    return [*args, *[given[name] for name in names[begin:]]]
                except KeyError:
                    pass  # for a clear error
            if not given and ready is not None and least <= begin < count:
                return args + ready[begin - least :]
            if begin > count:
                raise TypeError(f"{cls.__name__}() has {count} fields, but {begin} were given")
            values = list(args)
            for name in names[begin:]:
                if name not in given and not _has_default(found[name]):
                    raise TypeError(f"{cls.__name__}() lacks the field {name!r}")
                values.append(given.pop(name) if name in given else _default(found[name]))
            if given:
                raise TypeError(f"{cls.__name__}() cannot take {next(iter(given))!r}")
            return values

        return init

    def _setter(cls, name):
        slot = getattr(cls, name, None)
        if hasattr(slot, "__set__"):
            return slot.__set__
        return lambda self, value: object.__setattr__(self, name, value)

    def _has_default(each):
        return each.default is not _MISSING or each.default_factory is not _MISSING

    def _default(each):
        return each.default_factory() if each.default is _MISSING else each.default

    def _repr(self):
        shown = [each.name for each in fields(self) if each.repr]
        parts = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{type(self).__qualname__}({parts})"

    def _eq(key):
        def equal(self, other):
            if other.__class__ is not self.__class__:
                return NotImplemented
            return self is other or key(self) == key(other)

        return equal

    def _refuse(self, name, *value):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot change {name!r}")

    def _getstate(self):
        return [getattr(self, name) for name in getattr(self, _FIELDS)]

    def _setstate(self, state):
        for name, value in zip(getattr(self, _FIELDS), state, strict=True):
            object.__setattr__(self, name, value)

    class _Standard:
        """What the standard module's functions know a dataclass by, made when they ask."""

        def __get__(self, value, cls):
            import dataclasses

            made = [
                (name, each.type, _standard(each)) for name, each in getattr(cls, _FIELDS).items()
            ]
            return dataclasses.make_dataclass("_", made, kw_only=True).__dataclass_fields__

    _STANDARD = _Standard()

    def _standard(each):
        import dataclasses

        options = {"init": each.init, "repr": each.repr, "compare": each.compare}
        if each.default is not _MISSING:
            options["default"] = each.default
        if each.default_factory is not _MISSING:
            options["default_factory"] = each.default_factory
        return dataclasses.field(**options)
