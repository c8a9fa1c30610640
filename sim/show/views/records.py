"""Frozen records made from the mappings of a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

Record = TypeVar("Record")


def record(kind: type[Record], entry: Mapping[str, Any], /, **derived: Any) -> Record:
    """Make a record of a mapping.

    Parameters
    ----------
    kind : a frozen dataclass
    entry : what has the names of its fields is taken as it is, all else is left out
    derived : fields that the mapping does not have, or not in this form

    Raises
    ------
    TypeError
        Where a field without a default is in neither.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in entry.items() if name in names} | derived)
