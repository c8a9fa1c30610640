"""Figures: numbers that carry their unit, grade and source, and the files made of them.

A leaf of `hardware/*.yaml` or `hardware/kernels/*.yaml` is `{value: 200 GB/s, per: direction, grade: paper,
source: KEY}`; `sources` at the end of the file maps KEY to a public citation. A derived figure says
`from:`, an assumed one `why:`.

Why this way: the pydantic models (subclasses of `Branch`, built of subclasses of `Leaf`) know the shape of
a file and nothing else. What the simulator reads are frozen dataclasses of SI floats, made from them once;
what people read is the flat table of `Figure`. An override replaces a leaf before validation, so it passes
the same checks as a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from sim import schemas, units
from sim.documents import Document
from sim.errors import InputError, Problem, nearest

Grade = Literal["datasheet", "paper", "measured", "derived", "assumed", "override"]
Path_ = tuple[str | int, ...]
B = TypeVar("B", bound="Branch")

OVERRIDE = "override"
_DETAIL = {"derived": "from", "assumed": "why"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a profile and where it comes from."""

    path: str
    """Dotted key: `gpu.scale_up.bandwidth`."""
    value: float
    """In SI units of `dimension`."""
    shown: str
    """As written in the file: `200 GB/s`."""
    dimension: str
    """One of `sim.units.DIMENSIONS`."""
    per: str | None
    """What the number is counted per: `direction`, `sm`; None where it is per GPU."""
    grade: str
    """datasheet, paper, measured, derived, assumed or override."""
    source: str | None
    """Key of the citation; None for an assumed figure that has none."""
    citation: str
    """Public citation behind `source`; empty where there is none."""
    detail: str
    """What it was derived from, or why it was assumed; empty otherwise."""


class Leaf(BaseModel):
    """A number with its unit, grade and source."""

    model_config = ConfigDict(extra="forbid")
    dimension: ClassVar[str] = "number"
    minimum: ClassVar[float | None] = None
    """Smallest value allowed [SI]; None: anything above zero."""
    maximum: ClassVar[float | None] = None
    whole: ClassVar[bool] = False

    value: float
    per: str | None = None
    grade: Grade
    source: str | None = None
    from_: str | None = Field(default=None, alias="from")
    why: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError("a mapping {value: ..., grade: ..., source: ...}")
        return data

    @field_validator("value", mode="before")
    @classmethod
    def _quantity(cls, text: Any) -> float:
        value = units.parse(text, cls.dimension)
        if (cls.minimum is None and value <= 0) or (cls.minimum is not None and value < cls.minimum):
            raise ValueError("a value above zero" if cls.minimum is None else f"at least {cls.minimum:g}")
        if cls.maximum is not None and value > cls.maximum:
            raise ValueError(f"at most {cls.maximum:g}")
        if cls.whole and value != int(value):
            raise ValueError("a whole number")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        schema["properties"]["value"] = {
            "type": ["string", "number"] if cls.dimension in ("fraction", "count", "number") else "string",
            "description": units.describe(cls.dimension),
        }
        return schema


class Rate(Leaf):
    """A rate of bytes."""

    dimension = "bytes/s"


class LinkRate(Rate):
    """A rate of bytes of a cable, of one direction: vendors print the sum of both, twice as much."""

    per: Literal["direction"]


class RatePerSm(Rate):
    """A rate of bytes of one SM."""

    per: Literal["sm"]


class Size(Leaf):
    """A number of bytes."""

    dimension = "bytes"


class Duration(Leaf):
    """A time; zero is allowed."""

    dimension, minimum = "s", 0.0


class Clock(Leaf):
    """A frequency."""

    dimension = "Hz"


class Flops(Leaf):
    """A dense rate of floating-point or integer operations (not the doubled sparse one)."""

    dimension = "flop/s"


class Area(Leaf):
    """An area of silicon."""

    dimension = "mm2"


class Power(Leaf):
    """A power."""

    dimension = "W"


class Price(Leaf):
    """What one GPU costs for an hour."""

    dimension = "usd/gpu-hour"


class Count(Leaf):
    """A whole number of things, at least one."""

    dimension, whole, minimum = "count", True, 1.0


class CountOrNone(Count):
    """A whole number of things, zero allowed."""

    minimum = 0.0


class Fraction(Leaf):
    """A part of a whole, above 0 and at most 1."""

    dimension, maximum = "fraction", 1.0


class Share(Fraction):
    """A part of a whole, 0 and 1 included."""

    minimum = 0.0


class Number(Leaf):
    """A plain ratio above zero."""


class Branch(BaseModel):
    """A mapping of leaves and further branches."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read(
    model: type[B], document: Document, override: Document | Mapping[str, Any] | None
) -> tuple[B, Document]:
    """A profile file with an override laid over it, validated; with the document that results.

    Raises `InputError` with every problem of shape, unit, range, grade and source, each at its line.
    """
    problems = list(_unsourced(document))
    merged = document.copy()
    if override is not None:
        if not isinstance(override, Document):
            override = Document(dict(override), OVERRIDE)
        _lay_over(merged, override)
    try:
        checked = schemas.check(merged, model)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    if problems:
        raise InputError(problems)
    return checked, merged


def figures(branch: Branch, document: Document) -> tuple[Figure, ...]:
    """Every figure of a validated profile, in the order of the schema."""
    sources = document.get(("sources",)) or {}
    return tuple(
        Figure(
            path=".".join(path),
            value=leaf.value,
            shown=str(document.get((*path, "value"))),
            dimension=leaf.dimension,
            per=leaf.per,
            grade=leaf.grade,
            source=leaf.source,
            citation=str(sources.get(leaf.source, "")),
            detail=leaf.from_ or leaf.why or "",
        )
        for path, leaf in _leaves(branch)
    )


def _leaves(branch: Branch, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    for name in type(branch).model_fields:
        inner = getattr(branch, name)
        if isinstance(inner, Leaf):
            yield (*at, name), inner
        elif isinstance(inner, Branch):
            yield from _leaves(inner, (*at, name))


def _lay_over(document: Document, override: Document) -> None:
    """Replace what `override` names; dotted keys are walked.

    A bare quantity keeps the `per` of what it replaces, and every figure is graded `override`.
    """
    for origin, path, value in _replacements(override.tree):
        old = document.get(path)
        was_figure = isinstance(old, Mapping) and "value" in old
        is_figure = was_figure or isinstance(value, Mapping) or len(path) > 1
        is_branch = isinstance(old, Mapping) and not was_figure
        if value is None or not is_figure or isinstance(old, str) or is_branch:
            document.put(path, value, override.mark(origin))
            continue
        new = dict(value) if isinstance(value, Mapping) else {"value": value}
        if isinstance(old, Mapping) and "per" in old:
            new.setdefault("per", old["per"])
        new["grade"] = OVERRIDE
        new.setdefault("source", OVERRIDE)
        document.put(path, new, override.mark(origin))
        for marks, theirs in ((document.keys, override.keys), (document.values, override.values)):
            marks.update(
                {(*path, *p[len(origin) :]): m for p, m in theirs.items() if p[: len(origin)] == origin}
            )


def _replacements(
    tree: Mapping[str, Any], origin: Path_ = (), at: Path_ = ()
) -> Iterator[tuple[Path_, Path_, Any]]:
    """What an override names: the path in its own tree, the path with dotted keys walked, the value."""
    for key, value in tree.items():
        here, path = (*origin, key), (*at, *str(key).split("."))
        if isinstance(value, Mapping) and "value" not in value:
            yield from _replacements(value, here, path)
        else:
            yield here, path, value


def _unsourced(document: Document) -> Iterator[Problem]:
    """What a figure must say besides its value: a known source, and `from` or `why` by its grade."""
    sources = document.get(("sources",))
    sources = sources if isinstance(sources, Mapping) else {}
    for path, leaf in _leaf_mappings(document.tree, ()):
        grade, source = leaf.get("grade"), leaf.get("source")
        if source is None and grade != "assumed":
            yield document.problem(path, "no source", "the key 'source', one of those under 'sources'")
        elif isinstance(source, str) and source not in sources:
            known = ", ".join(map(str, sources)) or "(there are none)"
            yield document.problem(
                (*path, "source"), repr(source), f"a key of 'sources': {known}", nearest(source, sources)
            )
        detail = _DETAIL.get(str(grade))
        if detail and not leaf.get(detail):
            yield document.problem(path, f"grade {grade} without '{detail}'", f"the key '{detail}'")
        if grade == OVERRIDE:
            yield document.problem(
                (*path, "grade"), repr(grade), "a grade of the figure itself; override is for overrides"
            )


def _leaf_mappings(node: Any, path: Path_) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "value" in node or "grade" in node:
            yield path, node
        else:
            for key, inner in node.items():
                yield from _leaf_mappings(inner, (*path, key))
