"""Pydantic beside documents: the type of a quantity, and what pydantic found wrong, said at its place in the file."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from sim import units
from sim.documents import Document, Path_
from sim.errors import Fault, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel


def quantity(dimension: str) -> Any:
    """The pydantic type of a quantity: read with `units.parse`, held in SI units."""
    from pydantic import BeforeValidator, WithJsonSchema

    text = units.describe(dimension)
    bare = dimension in ("fraction", "count", "number")
    schema = {"type": ["string", "number"] if bare else "string", "description": text}
    return Annotated[float, BeforeValidator(partial(_quantity, dimension)), WithJsonSchema(schema)]


def _quantity(dimension: str, value: object) -> float:
    return units.parse(value, dimension)


def faults(document: Document, model: type[BaseModel], error: Any) -> Iterator[Fault]:
    """Every fault of a `ValidationError`, at its mark, in our words."""
    for entry in error.errors():
        loc = tuple(entry["loc"])
        path, models = _resolve(model, loc, document.tree)
        kind, got = entry["type"], entry.get("input")
        cause = entry.get("ctx", {}).get("error")
        if kind == "extra_forbidden":
            fields = sorted({name for candidate in models for name in _field_names(candidate)})
            wanted = f"one of: {', '.join(fields)}" if fields else "no such key"
            yield document.fault(
                path, f"the unknown key '{path[-1]}'", wanted, nearest(str(path[-1]), fields), key=True
            )
        elif kind == "missing":
            yield document.fault(path[:-1], "nothing", f"the key '{path[-1]}'")
        elif isinstance(cause, units.UnitError):
            yield document.fault(path, cause.got, cause.wanted, cause.suggestion)
        elif isinstance(cause, ValueError):
            yield document.fault(path, _brief(got), str(cause))
        elif kind in ("literal_error", "enum"):
            allowed = entry["ctx"]["expected"].replace(" or ", ", ")
            words = re.findall(r"'([^']*)'", allowed)
            yield document.fault(path, _brief(got), f"one of: {', '.join(words)}", nearest(str(got), words))
        elif kind == "union_tag_invalid":
            words = re.findall(r"'([^']*)'", entry["ctx"]["expected_tags"])
            tag = str(entry["ctx"]["tag"])
            key = str(entry["ctx"]["discriminator"]).strip("'")
            yield document.fault((*path, key), f"'{tag}'", f"one of: {', '.join(words)}", nearest(tag, words))
        elif kind in ("model_type", "model_attributes_type", "dict_type"):
            yield document.fault(path, _brief(got), "a mapping of keys")
        elif kind == "string_pattern_mismatch":
            yield document.fault(path, _brief(got), "a name of letters, digits, '.', '_' and '-'")
        elif kind == "union_tag_not_found":
            yield document.fault(path, _brief(got), "a mapping with the key 'kind'")
        else:
            message = entry["msg"][0].lower() + entry["msg"][1:]
            yield document.fault(path, _brief(got), message.removeprefix("input should be "))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _field_names(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _resolve(model: type[BaseModel], loc: Path_, tree: Any) -> tuple[Path_, list[type[BaseModel]]]:
    """The document path of a pydantic location (union tags dropped), and the models that stand at its parent."""
    path: list[str | int] = []
    models: list[type[BaseModel]] = [model]
    parents = models
    node: Any = tree
    keyed = False  # the next part is a key of a mapping whose values are `models`
    for i, part in enumerate(loc):
        if keyed and isinstance(node, dict) and part in node:
            path.append(part)
            parents, node, keyed = models, node[part], False
            continue
        by_name = [_annotation(m, part) for m in models]
        known = [a for a in by_name if a is not None]
        in_tree = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int)
        )
        tagged = [m for m in models if _tag(m) == part or m.__name__ == part]
        if (
            not in_tree and i < len(loc) - 1 and (tagged or not known)
        ):  # a union's tag: stays at the same place
            models = tagged or models
            continue
        if not in_tree and not known and isinstance(part, str) and ("[" in part or "(" in part):
            continue
        path.append(part)
        parents = models
        keyed = any(typing.get_origin(annotation) is dict for annotation in known)
        node = node.get(part) if isinstance(node, dict) else (
            node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None
        )  # fmt: skip
        models = [inner for annotation in known for inner in _models(annotation)] or (
            models if isinstance(part, int) else []
        )
    return tuple(path), parents


def _annotation(model: type[BaseModel], name: object) -> Any:
    for key, info in model.model_fields.items():
        if name in (key, info.alias):
            return info.annotation
    return None


def _tag(model: type[BaseModel]) -> str | None:
    info = model.model_fields.get("kind")
    values = typing.get_args(info.annotation) if info else ()
    return str(values[0]) if values else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is typing.Literal or (isinstance(annotation, types.GenericAlias) and not (
        typing.get_args(annotation)
    )):  # fmt: skip
        return []
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]
