"""Published figures: measurements, other simulators' runs and tables, as data that `validate` compares with.

One file of `scenarios/published/` is one group. A figure has a value with its unit, a source that anyone can look up, how
it was read, and what we used it for: `calibration` set a parameter, or a choice of its scenario was made with it in view (it
proves nothing), `validation` is a prediction.

All files have in common a title, bars, sources, and a row, which is one figure beside ours. What else a
file holds is in the shape that the module which computes its rows gives it (see `validate.SOURCES`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sim import documents, schemas, units
from sim.documents import Document, Path_
from sim.errors import InputError, nearest
from sim.scenario.values import Branch
from sim.schemas import Fraction

FOLDER = "scenarios/published"

Use = Literal["calibration", "validation"]
Confidence = Literal["exact_text", "exact_trace", "digitized", "derived", "secondary", "measured"]
Kind = Literal["packet_level", "closed_form", "solver"]
Evidence = Literal["independent", "implied", "identity", "own_count"]
"""What a row proves: something of its own; no more than another row; that a formula is written down right; or that two ways of
our own to count agree. Means are over independent rows, where a group has any."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published figure next to the simulated one, in SI units.

    `machine` is the hardware profile that ours is of, None where it is of none (a schedule, a model, bare links);
    `error_fraction` is relative, or the difference of shares; `bar` is the name of the bar that it counts towards, None where
    it is printed only; `ok`, whether it is within its tolerance.
    """

    id: str
    quantity: str
    unit: str
    published: float
    simulated: float
    error_fraction: float
    tolerance_fraction: float | None
    use: Use
    ok: bool
    bar: str | None
    source: str
    machine: str | None
    note: str | None = None
    evidence: Evidence | None = None
    implied_by: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as `moesim validate --json` has it, without what is not said."""
        unsaid = ("note", "evidence", "implied_by")
        return {key: value for key, value in asdict(self).items() if key not in unsaid or value}


class Weighed(Branch):
    """An entry with one figure or some, and what they prove."""

    counted: bool = True
    """The bar applies; false: the figures are only printed, and `note` says why."""
    evidence: Evidence | None = None
    """The file's when left out."""
    implied_by: str | None = None
    """Row that an implied one follows from."""
    note: str | None = None
    """What to know next to the figures."""

    def within(self, whole: Weighed) -> Weighed:
        """What it proves as a part of another entry, which goes before it where it says something."""
        return Weighed(
            counted=self.counted and whole.counted,
            evidence=whole.evidence or self.evidence,
            implied_by=whole.implied_by or self.implied_by,
            note=whole.note or self.note,
        )


PLAIN = Weighed()
"""Counted, with nothing to say about it."""


class Source(Branch):
    """A source of figures."""

    title: str
    where: str
    date: str | int
    confidence: Confidence
    software: str | None = None
    """Software and its release that they were measured with."""
    kind: Kind | None = None
    """Kind of its figures, unless printed by others or, as `confidence` says, measured for this project."""
    note: str | None = None


class Bar(Branch):
    """The largest errors that are allowed: of their mean over rows, and of each row."""

    mean: Fraction
    worst: Fraction | None = None


class Facts(Weighed):
    """One quantity of several subjects, by their names."""

    quantity: str
    source: str
    unit: str
    use: Use = "validation"
    tolerance: Fraction | None = None
    """The bar's worst error where left out."""
    points: bool = False
    """Shares of a whole: the error is the difference, in parts of that whole."""
    values: dict[str, str | bool]

    def published(self, subject: str) -> float | bool:
        """Return the value of a subject in SI units; a verdict as it is."""
        value = self.values[subject]
        dimension = self.unit if self.unit in units.DIMENSIONS else "count"
        return value if isinstance(value, bool) else units.parse(value, dimension)


class Published(Branch):
    """The part that every file of `scenarios/published/` has."""

    group: str
    title: str
    bar: Bar
    sources: dict[str, Source]
    evidence: Evidence = "independent"
    """What its rows prove, but for those that say otherwise."""

    @property
    def bars(self) -> dict[str, Bar]:
        """Bars by name; a row names the one that it counts towards."""
        return {"main": self.bar}

    def cited(self) -> Iterator[tuple[Path_, str]]:
        """Yield where an entry names its source, and which."""
        for path, entry in entries(self, ()):
            if (source := getattr(entry, "source", None)) is not None:
                yield (*path, "source"), source

    def unexplained(self) -> Iterator[tuple[Path_, str, str]]:
        """Yield what is not counted without a reason, and what is implied without its row: where, what and the key it lacks."""
        for path, entry in entries(self, ()):
            if isinstance(entry, Weighed) and not entry.counted and not entry.note:
                yield (*path, "counted"), "false without a reason", "the key 'note', which gives it"
            if isinstance(entry, Weighed) and (entry.evidence == "implied") != (entry.implied_by is not None):
                yield (
                    path,
                    "half of what implies it",
                    "'evidence: implied' and 'implied_by', the row that it follows from",
                )


def entries(value: object, path: Path_ = ()) -> Iterator[tuple[Path_, Branch]]:
    """Yield every entry of a file and where it stands, the file itself first."""
    if isinstance(value, list):
        for i, entry in enumerate(value):
            yield from entries(entry, (*path, i))
    elif isinstance(value, Branch):
        yield path, value
        for name in type(value).model_fields:
            yield from entries(getattr(value, name), (*path, name))


Figures = TypeVar("Figures", bound=Published)


def groups() -> dict[str, Path]:
    """Return the file of every group by its name."""
    return documents.shipped(FOLDER)


def load(group: str, shape: type[Figures]) -> tuple[Figures, Document]:
    """Read a group, and its document for messages; InputError with every problem of its shape, and every source it lacks."""
    document = documents.load(groups()[group])
    figures = schemas.check(document, shape)
    known = figures.sources
    problems = [
        document.problem(path, f"'{source}'", f"one of: {', '.join(known)}", nearest(source, known))
        for path, source in figures.cited()
        if source not in known
    ]
    problems += [document.problem(path, got, wanted) for path, got, wanted in figures.unexplained()]
    if problems:
        raise InputError(problems)
    return figures, document


def row(
    id_: str,
    what: str,
    unit: str,
    value: float,
    ours: float,
    *,
    use: Use,
    source: str,
    machine: str | None,
    tolerance: float | None,
    bar: str = "main",
    points: bool = False,
    weighed: Weighed = PLAIN,
) -> Row:
    """Return the row of a figure: published and simulated value, both in `unit`, and the error [fraction].

    `tolerance` is None where only the mean of the bar is held; neither bar nor tolerance is of a row that is
    not counted (`weighed`). With `points` the error is the difference, and not relative.
    """
    error = ours - value if points else (ours - value) / value if value else float(ours != value)
    tolerance = tolerance if weighed.counted else None
    return Row(
        id=id_,
        quantity=what,
        unit=unit,
        published=value,
        simulated=ours,
        error_fraction=float(error),
        tolerance_fraction=tolerance,
        use=use,
        ok=tolerance is None or bool(abs(error) <= tolerance),
        bar=bar if weighed.counted else None,
        source=source,
        machine=machine,
        note=weighed.note,
        evidence=weighed.evidence,
        implied_by=weighed.implied_by,
    )


def fact_rows(
    facts: Facts,
    ours: Mapping[str, float],
    bar: Bar,
    *,
    machine: str | None = None,
    prefix: str = "",
    run: Weighed = PLAIN,
) -> Iterator[Row]:
    """Yield the rows of one quantity; `ours` by subject, and what the run that they are of proves."""
    for subject in facts.values:
        yield row(
            f"{prefix}{subject}",
            facts.quantity,
            facts.unit,
            facts.published(subject),
            ours[subject],
            use=facts.use,
            source=facts.source,
            machine=machine,
            tolerance=facts.tolerance if facts.tolerance is not None else bar.worst,
            points=facts.points,
            weighed=facts.within(run),
        )
