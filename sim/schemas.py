"""Checked documents: the types of quantities, and the problems that pydantic finds, at their place in the file."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from sim import limits, units
from sim.descriptions import adapter, keys
from sim.documents import Document, Path_
from sim.errors import InputError, Mark, Problem, counterpart, nearest

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

M = TypeVar("M")
WORD = "word"
"""Tag of what is written in a word where a branch of keys may stand, in unions of both."""
WORD_OR_MODULES = "word or modules"
"""Tag of a word where a list of modules may stand."""
_INSTEAD = {WORD: ", or a mapping of keys", WORD_OR_MODULES: ", or a list of modules"}


# --- quantities ----------------------------------------------------------------------------------------------------


def quantity_schema(dimension: str) -> dict[str, Any]:
    """Make the JSON Schema of a quantity as it is written; a bare number is allowed where its dimension has no unit."""
    bare = dimension in ("fraction", "count", "number")
    return {"type": ["string", "number"] if bare else "string", "description": units.describe(dimension)}


@dataclass(frozen=True, slots=True)
class Quantity:
    """Pydantic's reading of a quantity: by `units.parse`, held in SI units, `least` or more of them."""

    dimension: str
    least: float | None = None

    def read(self, value: object) -> float:
        """A value as written, in SI units. Raises `UnitError`."""
        amount = units.parse(value, self.dimension)
        if self.least is not None and amount < self.least:
            raise units.UnitError(repr(value), f"{units.describe(self.dimension)}, {self.least:g} or more")
        return amount

    def write(self, value: Any) -> Any:
        """A value of SI units as a file would have it, so that a description made in Python becomes a document."""
        return units.exact(value, self.dimension) if isinstance(value, int | float) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(self.write, when_used="json")
        return core_schema.no_info_before_validator_function(
            self.read, handler(source), serialization=written
        )

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return quantity_schema(self.dimension)


Seconds = Annotated[float, Quantity("s")]
Duration = Annotated[float, Quantity("s", 0)]
Bytes = Annotated[float, Quantity("bytes")]
Size = Annotated[float, Quantity("bytes", 0)]
Rate = Annotated[float, Quantity("bytes/s")]
Fraction = Annotated[float, Quantity("fraction")]
Share = Annotated[float, Quantity("fraction", 0)]
Amount = Annotated[float, Quantity("count")]
Watts = Annotated[float, Quantity("W")]
Price = Annotated[float, Quantity("usd/gpu-hour")]
"""Fields of files; a `Duration`, `Size` and `Share` are 0 or more."""


def written(text: str) -> Any:
    """Declare a default as a file would write it: it is checked like any other value, and shown as written."""
    return text


# --- checks --------------------------------------------------------------------------------------------------------


def check(document: Document, model: type[M]) -> M:
    """Fill in a description or a pydantic model from a document, quantities in SI units.

    InputError with all problems at their marks.
    """
    from pydantic import ValidationError

    shape: Any = model
    try:
        checked: M = adapter(shape).validate_python(document.tree)
    except ValidationError as error:
        raise InputError(list(problems(document, model, error))) from None
    return checked


def problems(document: Document, model: type, error: Any) -> Iterator[Problem]:
    """Report every problem of a `ValidationError` at its mark, in the words of this package.

    One a place: for a value of several possible kinds, all of them are named in one problem.
    """
    either: dict[Path_, list[str]] = {}
    entries = error.errors(include_url=False)
    for entry in entries[: limits.PROBLEMS]:
        path, models, chosen = _resolve(model, tuple(entry["loc"]), document.tree, entry["type"])
        if chosen and not isinstance(entry.get("ctx", {}).get("error"), units.UnitError):
            either.setdefault(path, []).append(_wanted(entry))
        else:
            yield _problem(document, path, models, entry, model)
    for path, wanted in either.items():
        *others, last = dict.fromkeys(wanted)
        any_of = f"{', '.join(others)} or {last}" if others else last
        yield document.problem(path, _brief(document.get(path)), any_of)
    if len(entries) > limits.PROBLEMS:
        yield Problem(Mark(document.name), "", f"{len(entries) - limits.PROBLEMS:,} more problems", "none")


def _problem(document: Document, path: Path_, models: list[Any], entry: Any, root: type) -> Problem:
    kind, got, context = entry["type"], entry.get("input"), entry.get("ctx", {})
    cause = context.get("error")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = sorted({key for candidate in models for key in keys(candidate)})
        wanted = f"one of: {', '.join(known)}" if known else "no such key"
        word = str(path[-1])
        near = counterpart(word, known) or _elsewhere(word, root, document.tree) or nearest(word, known)
        return document.problem(path, f"the unknown key '{path[-1]}'", wanted, near, key=True)
    if kind == "missing":
        return document.problem(path[:-1], "nothing", f"the key '{path[-1]}'")
    if isinstance(cause, units.UnitError):
        return document.problem(path, cause.got, cause.wanted, cause.suggestion)
    if kind in ("literal_error", "enum"):
        allowed = context["expected"].replace(" or ", ", ")
        words = re.findall(r"'([^']*)'", allowed)
        wanted = f"one of: {', '.join(words)}{_INSTEAD.get(entry['loc'][-1], '')}"
        return document.problem(path, _brief(got), wanted, nearest(str(got), words))
    if kind == "union_tag_invalid":
        words = re.findall(r"'([^']*)'", context["expected_tags"])
        tag, key = str(context["tag"]), str(context["discriminator"]).strip("'")
        return document.problem((*path, key), f"'{tag}'", f"one of: {', '.join(words)}", nearest(tag, words))
    if kind == "union_tag_not_found" and isinstance(got, dict):
        meant = nearest("kind", map(str, got))
        if meant:
            return document.problem((*path, meant), f"the key '{meant}'", "the key 'kind'", "kind", key=True)
    if kind == "model_attributes_type" and isinstance(got, str):
        holders = [hint for parent in models for key, hint in keys(parent).items() if key == path[-1]]
        near = nearest(got, filter(None, (_tag(inner) for hint in holders for inner in _models(hint))))
        return document.problem(path, _brief(got), _wanted(entry), f"{{kind: {near}}}" if near else None)
    return document.problem(path, _brief(got), _wanted(entry))


def _elsewhere(word: str, root: type, tree: Any) -> str | None:
    """Find a key, or what another stack calls so, in another place of a document: its path, the shallowest first.

    Of a place that is of one kind among several, the keys of its own kind count.
    """
    level: list[tuple[tuple[str, ...], Any, Any]] = [((), root, tree)]
    for _ in range(_DEEPEST):
        below = []
        for path, model, node in level:
            if near := counterpart(word, keys(model)):
                return ".".join((*path, near))
            for key, annotation in keys(model).items():
                inner = node.get(key) if isinstance(node, dict) else None
                kind = inner.get("kind") if isinstance(inner, dict) else None
                if typing.get_origin(annotation) not in (dict, list, tuple):
                    own = [m for m in _models(annotation) if kind is None or _tag(m) in (None, kind)]
                    below += [((*path, key), m, inner) for m in own]
        level = below
    return None


_DEEPEST = 3
"""Keys in a path that is looked through for a key in the wrong place."""


_WANTED = {
    "model_type": "a mapping of keys",
    "dataclass_type": "a mapping of keys",
    "model_attributes_type": "a mapping with the key 'kind'",
    "dict_type": "a mapping of keys",
    "union_tag_not_found": "a mapping with the key 'kind'",
    "string_pattern_mismatch": "a name of letters, digits, '.', '_' and '-'",
    "string_too_long": "at most {max_length} characters",
    "tuple_type": "a valid list",
    "too_short": "{min_length} entry or more",
    "int_parsing_size": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
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


def _resolve(model: type, loc: Path_, tree: Any, kind: str) -> tuple[Path_, list[Any], bool]:
    """Find a pydantic location in the document: its path without union tags, the models of its parent, and whether it is
    that of one kind of value among several."""
    path: list[str | int] = []
    models: list[Any] = [model]
    parents = models
    node: Any = tree
    keyed = False  # the next part is a key of a mapping whose values are `models`
    for i, part in enumerate(loc):
        if keyed and isinstance(node, dict) and part in node:
            path.append(part)
            parents, node, keyed = models, node[part], False
            continue
        known = [annotation for m in models for key, annotation in keys(m).items() if key == part]
        in_tree = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int)
        )
        tagged = [m for m in models if part in (_tag(m), getattr(m, "__name__", None))]
        last = i == len(loc) - 1
        if not in_tree and not last and (tagged or not known):  # a union's tag: stays at the same place
            models = tagged or models
            continue
        if not in_tree and not known and last and kind not in _UNPLACED:
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


_UNPLACED = ("missing", "extra_forbidden", "unexpected_keyword_argument")
"""Problems of keys that are not in the tree, or in no model."""


def _tag(model: Any) -> str | None:
    values = typing.get_args(keys(model).get("kind"))
    return str(values[0]) if values else None


def _models(annotation: Any) -> list[Any]:
    """Everything in an annotation that has keys: models, descriptions, and what declares values of several keys."""
    if isinstance(annotation, type) and (is_dataclass(annotation) or hasattr(annotation, "model_fields")):
        return [annotation]
    if typing.get_origin(annotation) is typing.Literal or (isinstance(annotation, types.GenericAlias) and not (
        typing.get_args(annotation)
    )):  # fmt: skip
        return []
    if not isinstance(annotation, type) and isinstance(getattr(annotation, "keys", None), tuple):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]
