"""Pydantic beside documents: the type of a quantity, and what pydantic found wrong, said at its place in the file."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from sim import limits, units
from sim.documents import Document, Path_
from sim.errors import Fault, Mark, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel


def quantity(dimension: str, least: float | None = None) -> Any:
    """The pydantic type of a quantity: read with `units.parse`, held in SI units, `least` or more of them."""
    from pydantic import BeforeValidator, WithJsonSchema

    text = units.describe(dimension)
    bare = dimension in ("fraction", "count", "number")
    schema = {"type": ["string", "number"] if bare else "string", "description": text}
    return Annotated[float, BeforeValidator(partial(_quantity, dimension, least)), WithJsonSchema(schema)]


def _quantity(dimension: str, least: float | None, value: object) -> float:
    found = units.parse(value, dimension)
    if least is not None and found < least:
        raise units.UnitError(repr(value), f"{units.describe(dimension)}, {least:g} or more")
    return found


def faults(document: Document, model: type[BaseModel], error: Any) -> Iterator[Fault]:
    """Every fault of a `ValidationError`, at its mark, in our words; what several kinds of value would do is one fault."""
    either: dict[Path_, list[str]] = {}
    entries = error.errors(include_url=False)
    for entry in entries[: limits.FAULTS]:
        path, models, chosen = _resolve(model, tuple(entry["loc"]), document.tree, entry["type"])
        if chosen and not isinstance(entry.get("ctx", {}).get("error"), units.UnitError):
            either.setdefault(path, []).append(_wanted(entry))
        else:
            yield _fault(document, path, models, entry)
    for path, wanted in either.items():
        *others, last = dict.fromkeys(wanted)
        told = f"{', '.join(others)} or {last}" if others else last
        yield document.fault(path, _brief(document.get(path)), told)
    if len(entries) > limits.FAULTS:
        yield Fault(Mark(document.name), "", f"{len(entries) - limits.FAULTS:,} more faults", "none")


def _fault(document: Document, path: Path_, models: list[type[BaseModel]], entry: Any) -> Fault:
    kind, got, context = entry["type"], entry.get("input"), entry.get("ctx", {})
    cause = context.get("error")
    if kind == "extra_forbidden":
        fields = sorted({name for candidate in models for name in _field_names(candidate)})
        wanted = f"one of: {', '.join(fields)}" if fields else "no such key"
        near = nearest(str(path[-1]), fields)
        return document.fault(path, f"the unknown key '{path[-1]}'", wanted, near, key=True)
    if kind == "missing":
        return document.fault(path[:-1], "nothing", f"the key '{path[-1]}'")
    if isinstance(cause, units.UnitError):
        return document.fault(path, cause.got, cause.wanted, cause.suggestion)
    if kind in ("literal_error", "enum"):
        allowed = context["expected"].replace(" or ", ", ")
        words = re.findall(r"'([^']*)'", allowed)
        return document.fault(path, _brief(got), f"one of: {', '.join(words)}", nearest(str(got), words))
    if kind == "union_tag_invalid":
        words = re.findall(r"'([^']*)'", context["expected_tags"])
        tag, key = str(context["tag"]), str(context["discriminator"]).strip("'")
        return document.fault((*path, key), f"'{tag}'", f"one of: {', '.join(words)}", nearest(tag, words))
    if kind == "union_tag_not_found" and isinstance(got, dict):
        meant = nearest("kind", map(str, got))
        if meant:
            return document.fault((*path, meant), f"the key '{meant}'", "the key 'kind'", "kind", key=True)
    return document.fault(path, _brief(got), _wanted(entry))


_WANTED = {
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "union_tag_not_found": "a mapping with the key 'kind'",
    "string_pattern_mismatch": "a name of letters, digits, '.', '_' and '-'",
    "string_too_long": "at most {max_length} characters",
    "too_short": "{min_length} entry or more",
    "int_parsing_size": "a valid integer",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""Type of a pydantic error -> what was wanted, with its context; of others pydantic's own words will do."""


def _wanted(entry: Any) -> str:
    context = entry.get("ctx", {})
    if isinstance(context.get("error"), ValueError):
        return str(context["error"])
    if entry["type"] in _WANTED:
        return _WANTED[entry["type"]].format(**context)
    message = entry["msg"][0].lower() + entry["msg"][1:]
    return str(re.sub(r", (unable|got) .*", "", message.removeprefix("input should be ")))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _field_names(model: type[BaseModel]) -> list[str]:
    return [info.alias or name for name, info in model.model_fields.items()]


def _resolve(
    model: type[BaseModel], loc: Path_, tree: Any, kind: str
) -> tuple[Path_, list[type[BaseModel]], bool]:
    """Where a pydantic location lies in the document (union tags dropped), the models that stand at its parent, and whether
    it is that of one kind of value among several."""
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
        last = i == len(loc) - 1
        if not in_tree and not last and (tagged or not known):  # a union's tag: stays at the same place
            models = tagged or models
            continue
        if not in_tree and not known and last and kind not in ("missing", "extra_forbidden"):
            return tuple(path), parents, part in _SCALARS or str(part).startswith(("dict[", "list["))
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
    return tuple(path), parents, False


_SCALARS = ("str", "int", "float", "bool")


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
