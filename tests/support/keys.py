"""Tables of all keys of scenarios, sweeps and ladders, from their JSON Schemas: values, default and a sentence each."""

from __future__ import annotations

import json
from typing import Any

_TOGETHER = ("gate", "kernel", "arrivals", "lengths", "tail")
"""Keys whose kinds share most of their own keys: one table for all kinds."""
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`", "array": "list", "object": "mapping"}  # fmt: skip
_HEAD = ("| key | value | left out | meaning |", "|---|---|---|---|")

Json = dict[str, Any]


def tables() -> str:
    """Write a table for every mapping of the three kinds of files."""
    from sim.descriptions import json_schema
    from sim.ladders.spec import LadderSpec
    from sim.scenario.schema import SCENARIO
    from sim.sweeps.spec import SweepSpec

    kinds = (("Scenario", SCENARIO), ("Sweep", SweepSpec), ("Ladder", LadderSpec))
    return "\n".join(_page(title, json_schema(model)) for title, model in kinds)


def _page(title: str, schema: Json) -> str:
    """Write the tables of one kind of file, each below a target that links go to."""
    named = {
        name: (heading, f"{title.lower()}-{_plain(heading)}") for name, heading in _headings(schema).items()
    }
    lines = [f"## {title}", "", *_HEAD, *_rows(schema, named), ""]
    for heading, target in dict.fromkeys(named.values()):
        group = {name: schema["$defs"][name] for name, (its, _) in named.items() if its == heading}
        lines += [f"({target})=", f"### {heading}", ""]
        if len(group) == 1:
            [definition] = group.values()
            rows = _rows(definition, named)
            lines += [_line(definition.get("description", "")), "", *([*_HEAD, *rows, ""] if rows else [])]
            continue
        kinds = {
            name: ", ".join(f"`{kind}`" for kind in _kinds(definition)) for name, definition in group.items()
        }
        lines += ["| kind | meaning |", "|---|---|"]
        lines += [
            f"| {kinds[name]} | {_line(definition['description'])} |" for name, definition in group.items()
        ]
        owners: dict[str, list[str]] = {}
        for name, definition in group.items():
            for row in _rows(definition, named):
                if not row.startswith("| `kind` "):
                    owners.setdefault(row, []).append(kinds[name])
        lines += ["", _HEAD[0] + " of kinds |", _HEAD[1] + "---|"]
        lines += [
            f"{row} {'all' if len(of) == len(group) else ', '.join(of)} |" for row, of in owners.items()
        ] + [""]
    return "\n".join(lines)


def _headings(schema: Json) -> dict[str, str]:
    """Name every definition by the key that holds it, in the order in which a reader of the file meets them."""
    named: dict[str, str] = {}
    below = [(key, inner, "") for key, inner in schema["properties"].items()]
    while below:
        key, inner, holder = below.pop(0)
        for name in _references(inner):
            if name in named:
                continue
            definition = schema["$defs"][name]
            kind, together = _kind(definition), key in _TOGETHER
            heading = f"`{key}`" if together or not kind else f"`{key}`, kind `{kind}`"
            named[name] = heading if together or heading not in named.values() else f"`{key}` of `{holder}`"
            below += [(k, its, kind or key) for k, its in definition.get("properties", {}).items()]
    return named


def _plain(heading: str) -> str:
    return heading.replace("`", "").replace(", kind ", "-").replace(" of ", "-").replace("_", "-")


def _references(inner: Any) -> list[str]:
    if isinstance(inner, list):
        return [name for part in inner for name in _references(part)]
    if not isinstance(inner, dict):
        return []
    own = [inner["$ref"].rpartition("/")[2]] if "$ref" in inner else []
    return own + [
        name
        for key, part in inner.items()
        if key not in ("discriminator", "default")
        for name in _references(part)
    ]


def _kind(definition: Json) -> str:
    return str(definition.get("properties", {}).get("kind", {}).get("const", ""))


def _kinds(definition: Json) -> list[str]:
    return [_kind(definition)] if _kind(definition) else definition["properties"]["kind"]["enum"]


def _rows(definition: Json, named: dict[str, tuple[str, str]]) -> list[str]:
    needed = definition.get("required", ())
    rows = []
    for key, inner in definition.get("properties", {}).items():
        if not (key == "kind" and "const" in inner):
            default = "needed" if key in needed else _default(inner.get("default"))
            rows.append(
                f"| `{key}` | {', '.join(dict.fromkeys(_values(inner, named)))} | {default} | {_line(inner.get('description', ''))} |"
            )
    return rows


def _default(value: Any) -> str:
    if value is None or value in ({}, [], ""):
        return ""
    if isinstance(value, dict):
        return f"kind `{value['kind']}`" if "kind" in value else ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _values(inner: Json, named: dict[str, tuple[str, str]]) -> list[str]:
    if "$ref" in inner:
        heading, target = named[inner["$ref"].rpartition("/")[2]]
        kind = heading.partition(", kind ")[2]
        return [f"[{kind or 'mapping'}](#{target})"]
    for many in ("oneOf", "anyOf"):
        if many in inner:
            return [
                value for part in inner[many] for value in _values(part, named) if part.get("type") != "null"
            ]
    if "enum" in inner or "const" in inner:
        return [
            f"`{str(word).lower() if isinstance(word, bool) else word}`"
            for word in inner.get("enum", [inner.get("const")])
        ]
    if inner.get("type") == "array":
        items = inner.get("items", {})
        return [f"list of {', '.join(_values(items, named)) or 'any'}"]
    if inner.get("type") == "object" and isinstance(inner.get("additionalProperties"), dict):
        return [f"name: {', '.join(_values(inner['additionalProperties'], named)) or 'any'}"]
    if (
        "description" in inner
        and inner.get("type") in ("string", ["string", "number"])
        and "like '" in inner["description"]
    ):
        return [inner["description"].partition(",")[0]]
    types = inner.get("type", [])
    return [_WORDS[word] for word in ([types] if isinstance(types, str) else types) if word != "null"]


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
