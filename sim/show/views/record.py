"""A typed record read from a branch of a document: each field from the key of its name, defaults for what is missing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

_Record = TypeVar("_Record")


def record(kind: type[_Record], branch: Any, /, **known: Any) -> _Record:
    """Make a record of a dataclass whose fields are named as the keys of a branch (anything but a mapping is an empty one).

    Fields that are `known` are not read. KeyError where the branch lacks a field that has no default.
    """
    tree, described = mapping(branch), cast(Hashable, kind)
    values = {
        name: tree[name]
        for name, needed in _fields(described)
        if name in tree or (needed and name not in known)
    }
    return kind(**{**values, **known})


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping itself, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


@cache
def _fields(kind: Hashable) -> tuple[tuple[str, bool], ...]:
    """Name of each field of a dataclass, and whether it must be given."""
    assert is_dataclass(kind)
    assert isinstance(kind, type)
    return tuple(
        (field.name, field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if field.init
    )
