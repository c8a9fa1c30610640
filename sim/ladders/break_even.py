"""Curves of the reference against other machines along an axis, and where the two break even.

The axis may be anything that a scenario sets: EP, groups a token may reach, experts or tokens. At each of its points every
machine runs the same scenario; where the reference takes within 1 % of what another takes, its missing link costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim import documents
from sim.errors import InputError
from sim.ladders.designs import Designs, gap
from sim.ladders.spec import Ladder, parts
from sim.metrics import more_is_better
from sim.scenario import settings as scenario_settings

Axis = list[tuple[float, dict[str, str]]]
"""Value -> hardware -> the key of its run."""


def plan(ladder: Ladder, designs: Designs) -> dict[str, Axis]:
    """Resolve every point of every curve; what is wrong with one joins the problems of the designs."""
    return {name: _axis(ladder, name, designs) for name in ladder.spec.curves}


def _axis(ladder: Ladder, name: str, designs: Designs) -> Axis:
    spec, at = ladder.spec.curves[name], ("curves", name)
    axis: Axis = []
    for i, value in enumerate(spec.points):
        listed = isinstance(spec.points, list)
        place = (*at, "points", i if listed else str(value))
        keys = {}
        for on in ladder.spec.hardware:
            try:
                document = ladder.section_design(at, () if listed else (place,), on)
                if spec.key is not None:
                    number = value if listed else _number(value)
                    mark = ladder.document.mark((*at, "key"))
                    scenario_settings.put(document, documents.split(spec.key), number, mark)
            except InputError as error:
                designs.problems += error.problems
                continue
            keys[on] = designs.add(document, f"{name} {value}, {on}")
        axis.append((float(value), keys))
    return sorted(axis, key=lambda point: point[0])


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


def run(ladder: Ladder, name: str, axis: Axis, designs: Designs) -> dict[str, Any]:
    """Run a curve: every machine at every point, the gaps of the reference, and where it breaks even (docs/ladders.md).

    InputError where a run does not have the metric.
    """
    spec = ladder.spec.curves[name]
    metric = spec.metric or ladder.spec.metric
    at = ("curves", name, "metric") if spec.metric else ("metric",)
    more = bool(more_is_better(parts(metric)[0]))
    points = []
    for value, keys in axis:
        ran = {on: designs.run(key) for on, key in keys.items()}
        values = {on: outcome.value(metric, ladder.document, at) for on, outcome in ran.items()}
        ours = values[ladder.reference]
        points.append(
            {
                "value": value,
                "values": values,
                "gaps": {
                    on: gap(ours, theirs, more) for on, theirs in values.items() if on != ladder.reference
                },
                "metrics": {on: outcome.metrics for on, outcome in ran.items()},
                "reasons": {on: outcome.reason for on, outcome in ran.items() if outcome.reason},
            }
        )
    others = [on for on in ladder.spec.hardware if on != ladder.reference]
    within = float(spec.within)
    return {
        "title": spec.title or spec.key or name,
        "held": spec.held or "",
        "key": spec.key,
        "metric": metric,
        "more_is_better": more,
        "within_fraction": within,
        "points": points,
        "break_even": {on: break_even(*_gaps(points, on), within) for on in others},
    }  # fmt: skip


def _gaps(points: Sequence[dict[str, Any]], on: str) -> tuple[list[float], list[float]]:
    """Return the axis and the gap of the reference to one machine, where both ran."""
    both = [(point["value"], point["gaps"][on]) for point in points if point["gaps"][on] is not None]
    return [value for value, _ in both], [gap for _, gap in both]


def break_even(axis: Sequence[float], gaps: Sequence[float], within: float) -> dict[str, Any]:
    """Find where the reference is no more than `within` slower, of its gaps [fraction] at rising values of an axis.

    `at` are values of the axis where it is, `crossings` those between two points where the gap passes `within`,
    by straight lines.
    """
    crossings = [
        a + (within - g) / (h - g) * (b - a)
        for (a, g), (b, h) in zip(
            zip(axis, gaps, strict=True), list(zip(axis, gaps, strict=True))[1:], strict=False
        )
        if (g <= within) != (h <= within)
    ]
    return {"at": [x for x, gap in zip(axis, gaps, strict=True) if gap <= within], "crossings": crossings}
