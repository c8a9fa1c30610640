"""Records: dataclasses of the standard library whose methods are compiled when they are called, or never.

Why this way: a run makes three hundred classes of records. The standard library compiles five methods of each from text, which
takes a tenth of a short run. Here records share the functions that compare, hash, show and refuse; the one whose speed counts,
`__init__`, is compiled when it is first asked for. In all else they are dataclasses, to type checkers and to `dataclasses`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False, eq=True):
        """Make a dataclass, as `dataclasses.dataclass` does."""

        def made(plain):
            kind = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(
                plain
            )
            methods = {"__init__": _Init(kind, frozen), "__repr__": _repr}
            if eq:
                methods |= _compared(kind, frozen)
            if frozen:
                methods |= _frozen(kind)
            if frozen and slots:
                methods |= {"__getstate__": _state, "__setstate__": _set_state}
            for name in methods.keys() - vars(plain).keys():
                setattr(kind, name, methods[name])
            return kind

        return made if cls is None else made(cls)


class _Init:
    """`__init__` of a record until it is first asked for: then the compiled one takes its place."""

    def __init__(self, kind: Any, frozen: bool) -> None:
        self.kind, self.frozen = kind, frozen

    def __get__(self, record: Any, kind: Any = None) -> Any:
        init: Any = _init(self.kind, self.frozen)
        self.kind.__init__ = init
        return init.__get__(record, kind)


class _Absent:
    """Default of an argument in whose place something new is made."""

    def __repr__(self) -> str:
        return "<factory>"


def _init(kind: Any, frozen: bool) -> Callable[..., None]:
    """Compile `__init__` of a record: it takes the fields, sets each, and calls `__post_init__`."""
    known: dict[str, Any] = {"_set": object.__setattr__, "_absent": _Absent()}
    by_place, by_name, lines = ["self"], ["*"], ["pass"]
    for field in fields(kind):
        name, value = field.name, field.name
        argument = name
        if field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            argument = f"{name}=_default_{name}"
        elif field.default_factory is not MISSING:
            known[f"_new_{name}"] = field.default_factory
            argument = f"{name}=_absent"
            value = f"_new_{name}() if {name} is _absent else {name}" if field.init else f"_new_{name}()"
        if field.init:
            (by_name if field.kw_only else by_place).append(argument)
        if field.init or field.default_factory is not MISSING:
            lines.append(f"_set(self, '{name}', {value})" if frozen else f"self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        lines.append("self.__post_init__()")
    taken = ", ".join(by_place + by_name[len(by_name) == 1 :])
    exec(f"def __init__({taken}):\n " + "\n ".join(lines), known)
    init: Callable[..., None] = known["__init__"]
    init.__qualname__, init.__module__ = f"{kind.__qualname__}.__init__", kind.__module__
    init.__annotations__ = {field.name: field.type for field in fields(kind) if field.init} | {"return": None}
    return init


@recursive_repr()
def _repr(self: Any) -> str:
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _values(kind: Any, counts: Callable[[Field[Any]], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """The function from a record to the values of those of its fields that count."""
    names = [field.name for field in fields(kind) if counts(field)]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def _compared(kind: Any, frozen: bool) -> dict[str, Any]:
    """Equality by fields, and the hash that goes with it; what can be changed has none."""
    compared = _values(kind, lambda field: field.compare)

    def __eq__(self: Any, other: Any) -> Any:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    if not frozen:
        return {"__eq__": __eq__, "__hash__": None}
    hashed = _values(kind, lambda field: field.compare if field.hash is None else field.hash)
    return {"__eq__": __eq__, "__hash__": lambda self: hash(hashed(self))}


def _frozen(kind: Any) -> dict[str, Any]:
    """Refuse to set or delete the fields of a record; of what is derived from one, other attributes may be set."""
    names = {field.name for field in fields(kind)}

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is kind or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(kind, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is kind or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(kind, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
