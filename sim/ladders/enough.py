"""Searches for how much of a link is enough: the smallest value of a figure of the profile that comes close to unlimited.

Unlimited is a thousand times what the profile has; everything else of the machine stays as it is, so an unlimited NIC still
stands behind its PCIe link. More of a link never hurts in this model but by rounding, so the figure is first halved and
doubled three times, and the step in which a threshold is crossed is then bisected to a hundredth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sim import units
from sim.documents import Document, split
from sim.errors import InputError, nearest
from sim.ladders.designs import Designs, cost_of
from sim.ladders.spec import Ladder, parts
from sim.metrics import more_is_better
from sim.scenario import settings as scenario_settings

UNLIMITED = 1000.0  # times the profile's value
_DOUBLINGS = 3  # down and up
_PRECISION = 1.01  # ratio of the two ends of the last step
_ROUNDING = 1e-3  # relative rise of cost with more of a link that is not one
_DIMENSIONS = ("bytes/s", "flop/s", "bytes", "Hz")

Cost = Callable[[float], float]
"""The cost of a run at a value of the figure; infinite where it cannot run."""


@dataclass(frozen=True, slots=True)
class Needed:
    """The smallest value from which on a run takes at most `within_fraction` longer than with an unlimited one."""

    within_fraction: float
    value: float
    at_most: bool
    """True where even the smallest value that was tried is enough."""


@dataclass(frozen=True, slots=True)
class Search:
    """The answer of a search, and every value that it tried."""

    unlimited: float
    """Cost of a run with an unlimited figure."""
    needed: tuple[Needed, ...]
    tried: tuple[tuple[float, float], ...]
    """Value and cost, by value."""
    monotone: bool
    """True where more never cost more, but for rounding."""


def search(cost: Cost, present: float, within: Sequence[float]) -> Search:
    """Find how much of a figure is enough: its cost falls, is level in the end, and may be `within` more than that.

    Notes
    -----
    Of several crossings the last counts: from there on, every value that was tried is enough. What was tried for one
    threshold narrows the others.
    """
    known: dict[float, float] = {}

    def price_of(value: float) -> float:
        if value not in known:
            known[value] = cost(value)
        return known[value]

    unlimited = price_of(present * UNLIMITED)
    grid = [present * 2.0**i for i in range(-_DOUBLINGS, _DOUBLINGS + 1)] + [present * UNLIMITED]
    for value in grid:
        price_of(value)
    needed = []
    for fraction in within:
        allowed = unlimited * (1 + fraction)
        while True:
            short = sorted(value for value, price in known.items() if not price <= allowed)
            if not short:
                needed.append(Needed(fraction, grid[0], at_most=True))
                break
            low, high = short[-1], min(value for value in known if value > short[-1])
            if high / low <= _PRECISION:
                needed.append(Needed(fraction, high, at_most=False))
                break
            price_of(math.sqrt(low * high))
    tried = tuple(sorted(known.items()))
    costs = [price for _, price in tried]
    monotone = all(b <= a * (1 + _ROUNDING) for a, b in pairwise(costs))
    return Search(unlimited, tuple(needed), tried, monotone)


# --- as a section of a ladder ---------------------------------------------------------------------------------------


def plan(ladder: Ladder, designs: Designs) -> dict[str, Document]:
    """Return the scenario of each entry at the profile's own value; what is wrong joins the problems of the designs."""
    documents = {}
    for name, spec in ladder.spec.enough.items():
        at = ("enough", name)
        try:
            document = ladder.section_design(at, (), spec.hardware or ladder.reference)
        except InputError as error:
            designs.problems += error.problems
            continue
        key = designs.add(document, f"{name} as it is")
        scenario = designs.scenario(key)
        figures = (
            {parameter.path: parameter for parameter in scenario.hardware.parameters}
            if scenario and scenario.hardware
            else {}
        )
        if figures and spec.key not in figures:
            wanted = "a figure of the profile, such as gpu.scale_up.bandwidth or nic.bandwidth"
            near = nearest(spec.key, figures)
            designs.problems.append(ladder.document.problem((*at, "key"), f"'{spec.key}'", wanted, near))
        elif figures and figures[spec.key].dimension not in _DIMENSIONS:
            wanted = (
                f"a figure of which more is better: a rate or a size, not a {figures[spec.key].dimension}"
            )
            designs.problems.append(ladder.document.problem((*at, "key"), f"'{spec.key}'", wanted))
        documents[name] = document
    return documents


def run(ladder: Ladder, name: str, document: Document, designs: Designs) -> dict[str, Any]:
    """Run an entry of a ladder: how much of its figure is enough, and the curve that shows it (docs/ladders.md).

    Without either, the `reason` why not even an unlimited figure lets it run. InputError where a run does not
    have the metric, or the profile cannot have a value that is tried.
    """
    spec = ladder.spec.enough[name]
    metric = spec.metric or ladder.spec.metric
    more = bool(more_is_better(parts(metric)[0]))
    on = spec.hardware or ladder.reference
    entry: dict[str, Any] = {
        "title": spec.title or spec.key,
        "key": spec.key,
        "hardware": on,
        "design": "its own" if spec.base is not None else "naive" if spec.naive else "full",
        "metric": metric,
        "more_is_better": more,
    }
    scenario = designs.scenario(designs.add(document, f"{name} as it is"))
    if scenario is None or scenario.hardware is None:
        return entry | {"reason": designs.run(designs.add(document, "")).reason}
    figure = scenario.hardware.parameter(spec.key)
    metrics: dict[float, float | None] = {}

    def key_of(value: float) -> str:
        changed = document.copy()
        mark = ladder.document.mark(("enough", name, "key"))
        text = f"{value!r} {_UNIT[figure.dimension]}"
        scenario_settings.put(changed, split(f"cluster.override.{spec.key}"), text, mark)
        key = designs.add(changed, f"{name} at {units.show(value, figure.dimension)}")
        if designs.problems:  # a value that the profile cannot have
            raise InputError(designs.problems)
        return key

    def cost(value: float) -> float:
        at = ("enough", name, "metric") if spec.metric else ("metric",)
        outcome = metrics[value] = designs.run(key_of(value)).value(metric, ladder.document, at)
        return math.inf if outcome is None else cost_of(outcome, more)

    if math.isinf(cost(figure.value * UNLIMITED)):
        return entry | {"reason": designs.run(key_of(figure.value * UNLIMITED)).reason}
    result = search(cost, figure.value, spec.within)
    return entry | {
        "dimension": figure.dimension,
        "present": {"value": figure.value, "metric": metrics[figure.value]},
        "unlimited": {"value": figure.value * UNLIMITED, "metric": metrics[figure.value * UNLIMITED]},
        "needed": [
            {
                "within_fraction": need.within_fraction,
                "value": need.value,
                "of_present_fraction": need.value / figure.value,
                "at_most": need.at_most,
            }
            for need in result.needed
        ],
        "points": [{"value": value, "metric": metrics[value]} for value, _ in result.tried],
        "monotone": result.monotone,
    }


_UNIT = {"bytes/s": "B/s", "flop/s": "FLOP/s", "bytes": "B", "Hz": "Hz"}
"""Unit in which a value is handed to a scenario."""
