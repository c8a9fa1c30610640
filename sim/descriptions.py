"""Descriptions: frozen dataclasses that a file fills in.

`schemas.check` makes one from a document, and it is as easily made in Python, in SI units. A field is called like its key in
the file plus its unit (`latency_s` is `latency: 2.8 us`).

Why this way: one class declares a key, its unit, its range and its meaning, and is what the simulator reads. Pydantic checks
the file and nothing else; it is imported when the first file is read, and the strings below fields are read from the source
when somebody asks for a JSON Schema.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import typing
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from sim.sentences import add_sentences

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter

_UNIT = re.compile(r"_(bytes_per_s|bytes|hz|mm2|s|usd|w)$")


@dataclass(frozen=True, slots=True)
class OneOf:
    """Pydantic's reading of a word: one of some."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema

        return core_schema.literal_schema(list(self.words))


def key_of(name: str) -> str:
    """Return the key of a file that fills in a field: its name without the unit.

    Examples
    --------
    >>> key_of("latency_s"), key_of("efficiency_fraction")
    ('latency', 'efficiency_fraction')
    """
    return _UNIT.sub("", name)


class Description:
    """Base of frozen dataclasses that a file fills in: keys that are no fields are problems."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "alias_generator": key_of}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described: Any = cls
        schema = documented(described, core, handler)
        resolved = handler.resolve_ref_schema(schema)
        properties = resolved["properties"]
        for key, hint in _named(described).values():
            if _is_derived(hint):
                del properties[key]
            elif "const" in properties[key] and "default" in properties[key]:
                del properties[key]["default"]  # a tag: Python may leave it out, a file may not
                resolved["required"] = [key, *resolved["required"]]
        return schema


@dataclass(frozen=True, slots=True)
class Derived:
    """Marks a field of a description that follows from the others; a file that gives it has an unknown key."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def refuse(value: object) -> object:
            raise PydanticCustomError("extra_forbidden", "no key of a file")

        return core_schema.no_info_plain_validator_function(refuse)

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {}


def _key(name: str, hint: Any) -> str:
    given = (getattr(part, "alias", None) for part in getattr(hint, "__metadata__", ()))
    return next(filter(None, given), None) or key_of(name)


def documented(model: type, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """Make the JSON Schema of a description or a pydantic model, with the strings below its fields as descriptions."""
    schema: dict[str, Any] = handler(core)
    properties = handler.resolve_ref_schema(schema).get("properties", {})
    meanings = _meanings(model)
    for name, (key, _) in _named(model).items():
        if name in meanings and key in properties:
            properties[key]["description"] = meanings[name]
    return schema


@functools.cache
def _named(model: Any) -> dict[str, tuple[str, Any]]:
    """Fields of a description or a pydantic model, each with its key and the type of its value."""
    if not is_dataclass(model):
        return {name: (info.alias or name, info.annotation) for name, info in model.model_fields.items()}
    hints = typing.get_type_hints(model, include_extras=True)
    return {field.name: (_key(field.name, hints[field.name]), hints[field.name]) for field in fields(model)}


def _is_derived(hint: Any) -> bool:
    return Derived() in getattr(hint, "__metadata__", ())


@functools.cache
def _meanings(model: type) -> dict[str, str]:
    """Fields of a class and its bases with the strings below them in the source."""
    meanings = {}
    for base in reversed(model.__mro__):
        if not base.__module__.startswith("sim."):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                meanings[ast.unparse(field.target)] = inspect.cleandoc(text)
    return meanings


def keys(model: Any) -> dict[str, Any]:
    """List the keys that a file may give, with the types of their values.

    Of a description, a pydantic model, or a declaration of a value of several keys, named in its own `keys`.
    """
    if not isinstance(model, type):
        return dict.fromkeys(model.keys, str)
    return {key: hint for key, hint in _named(model).values() if not _is_derived(hint)}


@functools.cache
def adapter(model: Any) -> TypeAdapter[Any]:
    """Make pydantic's reader of a description or model, once."""
    from pydantic import TypeAdapter

    return TypeAdapter(model)


def json_schema(model: type) -> dict[str, Any]:
    """Make the JSON Schema of the files that a description or a pydantic model reads.

    Strings below fields are descriptions.
    """
    return add_sentences(adapter(model).json_schema(by_alias=True))
