"""Parameters: numbers that carry their unit, grade and source, and the files made of them.

A parameter of `hardware/*.yaml` or `hardware/kernels/*.yaml` is `{value: 200 GB/s, per: direction, grade: paper,
source: KEY}`; `sources` at the end of the file maps KEY to a public citation. A derived parameter says `from:`, an
assumed one `why:`.

Why this way: one frozen dataclass is both the shape of a file and what the simulator reads, in SI units (see
`sim.schemas`). The types below declare what a file must say of a number; people read the flat table of `Parameter`. An
override replaces a parameter before the check, so it passes the same rules as a file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_type_hints

from sim import schemas, units
from sim.descriptions import Derived, Description, key_of
from sim.documents import Document
from sim.errors import InputError, Problem, nearest

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

Grade = Literal["datasheet", "paper", "measured", "derived", "assumed", "override"]
Path_ = tuple[str | int, ...]
D = TypeVar("D", bound="SourcedFile")

OVERRIDE = "override"
_DETAIL = {"derived": "from", "assumed": "why"}


@dataclass(frozen=True, slots=True)
class Parameter:
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
    """Unit that the number is counted per: `direction`, `sm`; None where it is per GPU."""
    grade: str
    """datasheet, paper, measured, derived, assumed or override."""
    source: str | None
    """Key of the citation; None for an assumed parameter that has none."""
    citation: str
    """Public citation behind `source`; empty where there is none."""
    detail: str
    """Origin of a derived parameter, or reason of an assumed one; empty otherwise."""
    low: str | None = None
    high: str | None = None
    """Ends of the range that the value may well lie in, as written; None where the file gives none."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """The declaration of a parameter: its dimension, range and meaning."""

    dimension: str
    """One of `sim.units.DIMENSIONS`."""
    meaning: str
    per: str | None = None
    """Unit that a file must count the number per; None where that is left to the file."""
    least: float | None = None
    """Smallest value allowed [SI]; None: anything above zero."""
    most: float | None = None
    whole: bool = False

    keys: ClassVar[tuple[str, ...]] = ("value", "range", "per", "grade", "source", "from", "why")

    def read(self, text: object) -> float:
        """The value of a parameter in SI units. Raises `ValueError` with what was wanted."""
        value = units.parse(text, self.dimension)
        if (self.least is None and value <= 0) or (self.least is not None and value < self.least):
            raise ValueError("a value above zero" if self.least is None else f"at least {self.least:g}")
        if self.most is not None and value > self.most:
            raise ValueError(f"at most {self.most:g}")
        if self.whole and value != int(value):
            raise ValueError("a whole number")
        return int(value) if self.whole else value

    def read_range(self, ends: list[object]) -> list[object]:
        """The two ends of a range, as written. Raises `ValueError` where they are no such quantities, in this order."""
        if self.read(ends[0]) > self.read(ends[1]):
            raise ValueError("the lower end first")
        return ends

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        from pydantic_core import core_schema as core

        text = core.typed_dict_field(core.nullable_schema(core.str_schema()), required=False)
        leaf = core.typed_dict_schema(
            {
                "value": core.typed_dict_field(core.no_info_plain_validator_function(self.read)),
                "range": core.typed_dict_field(
                    core.no_info_after_validator_function(
                        self.read_range, core.list_schema(core.any_schema(), min_length=2, max_length=2)
                    ),
                    required=False,
                ),
                "per": core.typed_dict_field(core.literal_schema([self.per])) if self.per else text,
                "grade": core.typed_dict_field(core.literal_schema(list(get_args(Grade)))),
                "source": text,
                "from": text,
                "why": text,
            },
            extra_behavior="forbid",
        )
        checked = core.no_info_before_validator_function(_mapping, leaf)
        return core.no_info_after_validator_function(itemgetter("value"), checked)

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        text = {"type": ["string", "null"], "default": None}
        return {
            "type": "object",
            "description": self.meaning,
            "additionalProperties": False,
            "properties": {
                "value": schemas.quantity_schema(self.dimension),
                "range": {
                    "type": "array",
                    "items": schemas.quantity_schema(self.dimension),
                    "minItems": 2,
                    "maxItems": 2,
                },
                "per": {"const": self.per} if self.per else text,
                "grade": {"enum": list(get_args(Grade))},
                "source": text,
                "from": text,
                "why": text,
            },
            "required": ["value", "per", "grade"] if self.per else ["value", "grade"],
        }


def _mapping(data: object) -> object:
    if not isinstance(data, Mapping):
        raise ValueError("a mapping {value: ..., grade: ..., source: ...}")
    return data


Rate = Annotated[float, Sourced("bytes/s", "A rate of bytes.")]
LinkRate = Annotated[
    float,
    Sourced(
        "bytes/s",
        "A rate of bytes of a cable, of one direction: vendors print the sum of both, twice as much.",
        per="direction",
    ),
]
RatePerSm = Annotated[float, Sourced("bytes/s", "A rate of bytes of one SM.", per="sm")]
Size = Annotated[float, Sourced("bytes", "A number of bytes.")]
Duration = Annotated[float, Sourced("s", "A time; zero is allowed.", least=0.0)]
Clock = Annotated[float, Sourced("Hz", "A frequency.")]
Flops = Annotated[
    float,
    Sourced("flop/s", "A dense rate of floating-point or integer operations (not the doubled sparse one)."),
]
Area = Annotated[float, Sourced("mm2", "An area of silicon.")]
Power = Annotated[float, Sourced("W", "A power.")]
Price = Annotated[float, Sourced("usd/gpu-hour", "Rent of one GPU for an hour.")]
Count = Annotated[int, Sourced("count", "A whole number of things, at least one.", least=1.0, whole=True)]
CountOrNone = Annotated[
    int, Sourced("count", "A whole number of things, zero allowed.", least=0.0, whole=True)
]
Fraction = Annotated[float, Sourced("fraction", "A part of a whole, above 0 and at most 1.", most=1.0)]
Share = Annotated[float, Sourced("fraction", "A part of a whole, 0 and 1 included.", least=0.0, most=1.0)]
Number = Annotated[float, Sourced("number", "A plain ratio above zero.")]
"""Types of parameters: what a file must write, and what is allowed."""

Parameters = Annotated[tuple[Parameter, ...], Derived()]
"""The table of a file: every parameter in the order of the schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedFile(Description):
    """Base of descriptions that are a whole file of parameters."""

    sources: dict[str, str] = field(hash=False)
    """Public citations by key."""
    parameters: Parameters = ()

    def parameter(self, path: str) -> Parameter:
        """The parameter at a dotted key; `KeyError` where the file has none."""
        for row in self.parameters:
            if row.path == path:
                return row
        raise KeyError(path)


def read(
    model: type[D],
    document: Document,
    override: Document | Mapping[str, Any] | None,
    complete: Callable[[Document], None] | None = None,
) -> tuple[D, Document]:
    """A file of parameters with an override laid over it, as the description and as the document that resulted.

    The override replaces quantities, whole parameters or branches; dotted keys are walked, None removes.
    `complete` fills in what follows from the rest. InputError with every problem of shape, unit, range, grade
    and source, each at its line.
    """
    problems = list(_unsourced(document))
    merged = document.copy()
    if override is not None:
        if not isinstance(override, Document):
            override = Document(dict(override), OVERRIDE)
        described: Any = model
        _lay_over(merged, override, _texts(described))
    try:
        if complete is not None:
            complete(merged)
        checked = schemas.check(merged, model)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    if problems:
        raise InputError(problems)
    return replace(checked, parameters=tuple(_table(checked, merged))), merged


def _table(file: SourcedFile, document: Document) -> Iterator[Parameter]:
    sources = document.get(("sources",)) or {}
    for path, value, declared in _declared(file):
        leaf = document.get(path)
        if leaf is None:  # a default
            continue
        source = leaf.get("source")
        yield Parameter(
            path=".".join(path),
            value=float(value),
            shown=str(leaf["value"]),
            dimension=declared.dimension,
            per=leaf.get("per"),
            grade=leaf["grade"],
            source=source,
            citation=str(sources.get(source, "")),
            detail=leaf.get("from") or leaf.get("why") or "",
            low=str(leaf["range"][0]) if "range" in leaf else None,
            high=str(leaf["range"][1]) if "range" in leaf else None,
        )


def _declared(branch: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float, Sourced]]:
    """Every parameter of a branch: its path in the file, its value and its declaration."""
    model: Any = type(branch)
    for name, key, declared in _fields(model):
        inner = getattr(branch, name)
        if inner is None:
            continue
        if declared:
            yield (*at, key), inner, declared
            continue
        for path, branch_ in inner.items() if isinstance(inner, dict) else ():
            yield from _declared(branch_, (*at, key, path))
        if not isinstance(inner, dict):
            yield from _declared(inner, (*at, key))


@functools.cache
def _fields(model: Any) -> tuple[tuple[str, str, Sourced | None], ...]:
    """Fields that hold parameters: name, key in the file and declaration, None for a branch of further ones."""
    hints = get_type_hints(model, include_extras=True)
    named = ((own.name, key_of(own.name), list(_parts(hints[own.name]))) for own in fields(model))
    return tuple(
        (name, key, next((part for part in parts if isinstance(part, Sourced)), None))
        for name, key, parts in named
        if any(isinstance(part, Sourced) or _is_branch(part) for part in parts)
    )


def _parts(hint: Any) -> Iterator[Any]:
    inner = get_args(hint)
    return (part for each in inner for part in _parts(each)) if inner else iter((hint,))


def _is_branch(part: object) -> bool:
    return isinstance(part, type) and issubclass(part, Description)


@functools.cache
def _texts(model: Any) -> frozenset[tuple[str, ...]]:
    """Paths of the fields that hold a word and no parameter."""
    texts: set[tuple[str, ...]] = set()
    for name, hint in get_type_hints(model, include_extras=True).items():
        parts = list(_parts(hint))
        if str in parts:
            texts.add((key_of(name),))
        for part in parts:
            if _is_branch(part):
                texts |= {(key_of(name), *path) for path in _texts(part)}
    return frozenset(texts)


def _lay_over(document: Document, override: Document, texts: Set[Path_]) -> None:
    """Replace what `override` names; dotted keys are walked.

    A bare quantity keeps the `per` of what it replaces, and every parameter is graded `override`.
    """
    for origin, path, value in _replacements(override.tree):
        old = document.get(path)
        was_parameter = isinstance(old, Mapping) and "value" in old
        is_parameter = was_parameter or isinstance(value, Mapping) or len(path) > 1
        is_branch = isinstance(old, Mapping) and not was_parameter
        if value is None or not is_parameter or isinstance(old, str) or is_branch or path in texts:
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
    """List the replacements of an override: the path in its own tree, the path with dotted keys walked, the value."""
    for key, value in tree.items():
        own, path = (*origin, key), (*at, *str(key).split("."))
        if isinstance(value, Mapping) and "value" not in value:
            yield from _replacements(value, own, path)
        else:
            yield own, path, value


def _unsourced(document: Document) -> Iterator[Problem]:
    """Report parameters without a known source, and without `from` or `why` where their grade needs it."""
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
                (*path, "grade"), repr(grade), "a grade of the parameter itself; override is for overrides"
            )


def _leaf_mappings(node: Any, path: Path_) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "value" in node or "grade" in node:
            yield path, node
        else:
            for key, inner in node.items():
                yield from _leaf_mappings(inner, (*path, key))
