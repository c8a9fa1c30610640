"""Ladders run: every design on every machine, what each choice moves, and how far apart the machines are.

A rung is read three ways. *Cumulative*: all choices up to it. *Added first*: the naive design with this choice alone.
*Removed last*: the full design without it. A choice that hides another, or needs one, shows in the difference of the three.

The gap is what the reference takes over what another machine takes, less one: 0.05 is 5 % slower. Of a rate, what is taken is
its reciprocal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sim.documents import Path_
from sim.errors import InfeasibleError, InputError
from sim.ladders import break_even, enough, exchange, search
from sim.ladders.break_even import Axis
from sim.ladders.designs import Designs, Outcome, gap
from sim.ladders.removals import Removal, removals
from sim.ladders.spec import NAIVE, Ladder, parts, read
from sim.metrics import dimension_of, more_is_better
from sim.runs.kinds import Keep, Progress
from sim.runs.result import provenance
from sim.scenario.descriptions import Scenario
from sim.version import __version__

SCHEMA = "moesim.ladder/1"
WAYS = ("cumulative", "added_first", "removed_last")
"""The ways to read a rung."""

Plan = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Way -> rung -> hardware -> the key of its run."""
_NOT_RUN = Outcome(None, "not run: the ladder was stopped before it")
_SAME = 1e-9  # relative; closer values are one


def run_file(spec: str | Path, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Read and run a ladder; a path, or the name of a shipped file."""
    return run(read(spec), progress)


def run(ladder: Ladder, progress: Progress = lambda _: None, keep: Keep = lambda _: None) -> dict[str, Any]:
    """Run a ladder; what no machine could do has its reason in `reasons` of the document (docs/ladders.md).

    `keep` is given, as rungs, sections and curves end, what makes the document of those that have. InputError
    with every problem of every design, before any of them runs; InfeasibleError where no design fits on any
    machine.
    """
    designs = Designs(ladder, progress)
    plan = _plan(ladder, designs)
    axes = break_even.plan(ladder, designs)
    needs = enough.plan(ladder, designs)
    exchanges = exchange.plan(ladder, designs)
    searches = search.plan(ladder, designs)
    if designs.problems:
        raise InputError(list(dict.fromkeys(designs.problems)))
    _check_metrics(ladder, designs, plan, axes)
    num_more = len(needs) + len(axes) + (exchanges is not None) + (searches is not None)
    ended = _Ended(ladder, designs, plan, num_more)
    for way, rows in plan.items():
        for rung, row in rows.items():
            ended.ways[way][rung] = {name: designs.run(key) for name, key in row.items()}
            keep(ended.part)
    ways = ended.ways
    runs = any(outcome.metrics for way in ways.values() for row in way.values() for outcome in row.values())
    if not runs and searches is None:
        reason = ways["cumulative"][NAIVE][ladder.reference].reason
        raise InfeasibleError(
            f"no design of ladder {ladder.spec.name} fits on any machine; the naive one: {reason}"
        )
    for name, need in needs.items():
        ended.enough[name] = enough.run(ladder, name, need, designs)
        keep(ended.part)
    for name, axis in axes.items():
        ended.curves[name] = break_even.run(ladder, name, axis, designs)
        keep(ended.part)
    if exchanges is not None:
        ended.exchange = exchange.run(ladder, exchanges, designs)
        keep(ended.part)
    if searches is not None:
        ended.search = search.run(ladder, searches, designs)
        keep(ended.part)
    return ended.document(ways)


@dataclass(slots=True)
class _Ended:
    """The parts of a ladder under way that have ended."""

    ladder: Ladder
    designs: Designs
    plan: Plan
    num_more: int
    ways: dict[str, dict[str, dict[str, Outcome]]] = field(default_factory=lambda: {way: {} for way in WAYS})
    enough: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    exchange: dict[str, Any] | None = None
    search: dict[str, Any] | None = None

    def part(self) -> dict[str, Any] | None:
        """Return the document of the rungs that have ended, of which some may not be read in every way; None without any."""
        rungs = self.ways["cumulative"]
        if not any(outcome.metrics for row in rungs.values() for outcome in row.values()):
            return None
        ways = {
            way: {
                rung: self.ways[way].get(rung) or dict.fromkeys(row, _NOT_RUN) for rung, row in rungs.items()
            }
            for way in WAYS
        }
        finished = sum(map(len, self.ways.values())) + len(self.enough) + len(self.curves)
        finished += (self.exchange is not None) + (self.search is not None)
        total = sum(map(len, self.plan.values())) + self.num_more
        return {
            "schema": SCHEMA,
            "partial": {"finished": finished, "of": total, "what": "parts"},
        } | self.document(ways)

    def document(self, ways: Mapping[str, Mapping[str, Mapping[str, Outcome]]]) -> dict[str, Any]:
        """Return the document of rungs read in three ways."""
        ladder, designs, plan, metric = self.ladder, self.designs, self.plan, self.ladder.spec.metric
        also = removals(ladder)
        rungs = [_rung(ladder, rung, ways) | _others(also.get(rung)) for rung in ways["cumulative"]]
        ends = {NAIVE: plan["cumulative"][NAIVE], "full": plan["cumulative"][rungs[-1]["name"]]}
        return {
            "schema": SCHEMA,
            "name": ladder.spec.name,
            "title": ladder.spec.title or ladder.spec.name,
            "metric": {
                "name": metric,
                "more_is_better": more_is_better(parts(metric)[0]),
                "dimension": dimension_of(parts(metric)[0]),
            },
            "beside": [
                {"name": name, "dimension": dimension_of(parts(name)[0])} for name in ladder.spec.beside
            ],
            "reference": ladder.reference,
            "hardware": {name: _machine(ladder, name, designs, ends, rungs) for name in ladder.spec.hardware},
            "rungs": rungs,
            "enough": dict(self.enough),
            "curves": dict(self.curves),
            "exchange": self.exchange,
            "search": self.search,
            "question": ladder.spec.question.model_dump() if ladder.spec.question else None,
            "warnings": _idle(ladder, plan, rungs),
            "provenance": {
                "version": __version__,
                "runs": designs.num_runs,
                "ladder": ladder.document.tree,
            },
        }


def check(spec: str | Path) -> None:
    """Read a ladder and resolve every design; run nothing. Raises `InputError` with every problem."""
    ladder = read(spec)
    designs = Designs(ladder, lambda _: None)
    _plan(ladder, designs)
    break_even.plan(ladder, designs)
    enough.plan(ladder, designs)
    exchange.plan(ladder, designs)
    search.plan(ladder, designs)
    if designs.problems:
        raise InputError(list(dict.fromkeys(designs.problems)))


def _plan(ladder: Ladder, designs: Designs) -> dict[str, dict[str, dict[str, str]]]:
    """Return the key of every run by way, rung and hardware. Nothing added or removed: the naive and the full design."""
    plan: dict[str, dict[str, dict[str, str]]] = {way: {} for way in WAYS}
    upto: list[str] = []
    for rung in (NAIVE, *ladder.spec.rungs):
        alone = [] if rung == NAIVE else [rung]
        upto += alone
        for on in ladder.spec.hardware:
            for way, document in (
                ("cumulative", ladder.design(upto, on)),
                ("added_first", ladder.design(alone, on)),
                ("removed_last", ladder.design_without(rung, on) if alone else ladder.design(None, on)),
            ):
                key = designs.add(document, f"{rung}, {way.replace('_', ' ')}, {on}")
                plan[way].setdefault(rung, {})[on] = key
    return plan


def _check_metrics(
    ladder: Ladder, designs: Designs, plan: Mapping[str, Any], axes: Mapping[str, Axis]
) -> None:
    """Run one design of each metric, so that a name that no run has is reported at once."""
    reference = ladder.reference
    at: list[tuple[Path_, str, str]] = [
        (("metric",), ladder.spec.metric, plan["cumulative"][NAIVE][reference])
    ]
    for name, axis in axes.items():
        metric = ladder.spec.curves[name].metric or ladder.spec.metric
        at.append((("curves", name, "metric"), metric, axis[0][1][reference]))
    for path, metric, key in at:
        designs.run(key).value(metric, ladder.document, path)
    keys = (key for row in plan["cumulative"].values() for key in row.values())
    ran = next((outcome for key in keys if (outcome := designs.run(key)).metrics), None)
    if ran is not None:
        for i, name in enumerate(ladder.spec.beside):
            ran.value(name, ladder.document, ("beside", i))


def _rung(
    ladder: Ladder, rung: str, ways: Mapping[str, Mapping[str, Mapping[str, Outcome]]]
) -> dict[str, Any]:
    spec, metric = ladder.spec.rungs.get(rung), ladder.spec.metric
    at = ("metric",)
    values = {
        way: {name: outcome.value(metric, ladder.document, at) for name, outcome in ways[way][rung].items()}
        for way in WAYS
    }
    more = bool(more_is_better(parts(metric)[0]))
    others = [name for name in ladder.spec.hardware if name != ladder.reference]
    gaps = {
        other: {way: gap(values[way][ladder.reference], values[way][other], more) for way in WAYS}
        for other in others
    }
    reasons = {
        way: {name: outcome.reason for name, outcome in ways[way][rung].items() if outcome.reason}
        for way in WAYS
    }
    return {
        "name": rung,
        "title": (spec.title if spec else "The naive design") or rung,
        "works_around": (spec.works_around if spec else None) or "",
        "set": dict(spec.set) if spec else dict(ladder.spec.set),
        "without": dict(spec.without) if spec else {},
        **{way: {name: outcome.metrics for name, outcome in ways[way][rung].items()} for way in WAYS},
        "values": values,
        "gap_fraction": gaps[others[0]]["cumulative"] if others else None,
        "gaps": gaps,
        "reasons": {way: texts for way, texts in reasons.items() if texts},
    }  # fmt: skip


def _others(removal: Removal | None) -> dict[str, list[str]]:
    """Return the names of the rungs that go, or change, with one that is removed last."""
    return {
        "takes_along": list(removal.takes_along) if removal else [],
        "alters": list(removal.alters) if removal else [],
    }


def _idle(ladder: Ladder, plan: Mapping[str, Any], rungs: list[dict[str, Any]]) -> list[str]:
    """Return warnings of rungs that change nothing, and of removals that a later rung undoes."""
    problems: list[tuple[str, str]] = []
    for before, rung in pairwise(rungs):
        name, same = rung["name"], {way: _unmoved(rung, way, before, rungs) for way in WAYS}
        if plan["cumulative"][name] == plan["cumulative"][before["name"]]:
            problems.append((name, "changes nothing: the design before it sets the same already"))
        elif all(same.values()):
            problems.append((name, f"moves {ladder.spec.metric} nowhere, however it is read"))
        if not rung["without"] and plan["removed_last"][name] == plan["removed_last"][NAIVE]:
            undone = "a later rung sets the same; say under 'without' what stands in its place"
            problems.append((name, f"changes nothing when it is removed last: {undone}"))
    return [
        f"{ladder.document.mark(('rungs', name), key=True)}: rung {name} {text}" for name, text in problems
    ]


def _unmoved(rung: dict[str, Any], way: str, before: dict[str, Any], rungs: list[dict[str, Any]]) -> bool:
    """Return whether a rung leaves the metric as it was on every machine that runs it."""
    against = {"cumulative": before, "added_first": rungs[0], "removed_last": rungs[-1]}[way]
    pairs = [(rung["values"][way][name], old) for name, old in against["values"]["cumulative"].items()]
    return all(a == b or (a is not None and b is not None and abs(a / b - 1) <= _SAME) for a, b in pairs)


def _machine(
    ladder: Ladder,
    name: str,
    designs: Designs,
    ends: Mapping[str, Mapping[str, str]],
    rungs: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return a machine of the ladder: what it is, what export rules say, what its hours and tokens cost."""
    scenario = next(
        (known for end in ("full", NAIVE) if (known := designs.scenario(ends[end][name])) is not None), None
    )
    entry: dict[str, Any] = {"set": dict(ladder.spec.hardware[name])}
    if scenario is None or scenario.hardware is None:
        return entry
    hardware = scenario.hardware
    price = price_of(scenario)
    tokens = {
        end: ((rung["cumulative"][name] or {}).get("tokens_per_s_per_gpu"))
        for end, rung in ((NAIVE, rungs[0]), ("full", rungs[-1]))
    }
    return entry | {
        "profile": hardware.name,
        "title": hardware.title,
        "scenario": scenario.document,
        "provenance": provenance(scenario),
        "price_usd_per_gpu_hour": price,
        "usd_per_million_tokens": {end: usd_per_million_tokens(price, rate) for end, rate in tokens.items()},
        "tokens_per_s_per_gpu": tokens,
    }


def price_of(scenario: Scenario) -> float | None:
    """Return the price of an hour of one GPU [$], of the scenario's run, else of the profile; None where neither has one."""
    stated = scenario.workload.stated_price_usd
    if stated is not None or scenario.hardware is None:
        return stated
    return scenario.hardware.gpu_hour_usd


def usd_per_million_tokens(price_usd_per_gpu_hour: float | None, tokens_per_s: float | None) -> float | None:
    """Return the cost of a million tokens at a GPU's rate [$]; None where price or rate is unknown."""
    if price_usd_per_gpu_hour is None or not tokens_per_s:
        return None
    return price_usd_per_gpu_hour / 3600 / tokens_per_s * 1e6
