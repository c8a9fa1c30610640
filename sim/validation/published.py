"""Published figures: measurements, other simulators' runs and tables, as data that `validate` compares with.

One file of `scenarios/published/` is one group. A figure has a value with its unit, a source that anyone can look up, how
it was read, and what we used it for: `calibration` set a parameter (it proves nothing), `validation` is a prediction.

What all files have in common stands here: a title, bars, sources, and a row, which is one figure beside ours. What else a
file holds is the shape that the module which computes its rows gives it (see `validate.SOURCES`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
Row = dict[str, Any]


class Source(Branch):
    """Where figures come from."""

    title: str
    where: str
    date: str | int
    confidence: Confidence
    kind: Kind | None = None
    """What its figures are, unless printed by others or, as `confidence` says, measured for this project."""
    note: str | None = None


class Bar(Branch):
    """How large errors may be: their mean over rows, and each row's."""

    mean: Fraction
    worst: Fraction | None = None


class Facts(Branch):
    """One quantity of several subjects, by their names."""

    quantity: str
    source: str
    unit: str
    use: Use = "validation"
    tolerance: Fraction | None = None
    """The bar's worst error where left out."""
    counted: bool = True
    """Whether the bar applies; else the figures are only printed."""
    points: bool = False
    """Shares of a whole: the error is the difference, in parts of that whole."""
    values: dict[str, str | bool]

    def published(self, subject: str) -> float | bool:
        """The value of a subject in SI units; a verdict as it is."""
        said = self.values[subject]
        dimension = self.unit if self.unit in units.DIMENSIONS else "count"
        return said if isinstance(said, bool) else units.parse(said, dimension)


class Published(Branch):
    """What every file of `scenarios/published/` has."""

    group: str
    title: str
    bar: Bar
    sources: dict[str, Source]

    @property
    def bars(self) -> dict[str, Bar]:
        """Name -> bar; a row names the one it counts towards."""
        return {"main": self.bar}

    def cited(self) -> Iterator[tuple[Path_, str]]:
        """Where an entry names its source, and which."""
        yield from _cited(self, ())


def _cited(value: object, path: Path_) -> Iterator[tuple[Path_, str]]:
    if isinstance(value, list):
        for i, entry in enumerate(value):
            yield from _cited(entry, (*path, i))
    elif isinstance(value, Branch):
        for name in type(value).model_fields:
            entry = getattr(value, name)
            if name == "source" and entry is not None:
                yield (*path, name), entry
            else:
                yield from _cited(entry, (*path, name))


Figures = TypeVar("Figures", bound=Published)


def groups() -> dict[str, Path]:
    """Name -> file of every group."""
    return documents.shipped(FOLDER)


def load(group: str, shape: type[Figures]) -> tuple[Figures, Document]:
    """Read one group as `shape`, and its document for messages."""
    document = documents.load(groups()[group])
    figures = schemas.check(document, shape)
    known = figures.sources
    problems = [
        document.problem(path, f"'{source}'", f"one of: {', '.join(known)}", nearest(source, known))
        for path, source in figures.cited()
        if source not in known
    ]
    if problems:
        raise InputError(problems)
    return figures, document


def row(
    id_: str,
    what: str,
    unit: str,
    said: float,
    ours: float,
    *,
    use: Use,
    source: str,
    tolerance: float | None,
    bar: str | None = "main",
    points: bool = False,
    note: str | None = None,
) -> Row:
    """One figure beside ours.

    Parameters: `said` and `ours`, in SI units; `tolerance`, of the error [fraction], None where only the mean of the
    bar is held; `bar`, the name of the bar it counts towards, None to print it only; `points`, the error is the
    difference and not relative; `note`, what to know beside the figure.
    """
    error = ours - said if points else (ours - said) / said if said else float(ours != said)
    found = {
        "id": id_,
        "quantity": what,
        "unit": unit,
        "published": said,
        "simulated": ours,
        "error_fraction": float(error),
        "tolerance_fraction": tolerance if bar else None,
        "use": use,
        "ok": bar is None or tolerance is None or bool(abs(error) <= tolerance),
        "bar": bar,
        "source": source,
    }
    return found | ({"note": note} if note else {})


def fact_rows(
    facts: Facts, ours: Mapping[str, float], bar: Bar, *, prefix: str = "", counted: bool = True
) -> Iterator[Row]:
    """The rows of one quantity; `ours` by subject."""
    for subject in facts.values:
        yield row(
            f"{prefix}{subject}",
            facts.quantity,
            facts.unit,
            facts.published(subject),
            ours[subject],
            use=facts.use,
            source=facts.source,
            tolerance=facts.tolerance if facts.tolerance is not None else bar.worst,
            bar="main" if facts.counted and counted else None,
            points=facts.points,
        )
