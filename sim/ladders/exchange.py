"""All-to-alls of many designs on a machine and its reference: one number decides which of them feel a slower scale-up link.

That number is the NVLink bytes that a design asks for each NIC byte. While a kernel waits for the NIC, a slower NVLink costs
nothing; it does from the ratio of what the kernel achieves of the two links on. A design that stays within one node has no
NIC bytes, and no such ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from sim import documents, limits
from sim.documents import Document
from sim.errors import InputError, nearest
from sim.ladders.designs import Designs, Outcome
from sim.ladders.spec import ExchangeSpec, Ladder
from sim.scenario import settings as scenario_settings
from sim.schedule.reductions import Links

_WAYS = ("dispatch", "combine")
_AT = ("exchange",)


@dataclass(frozen=True, slots=True)
class Entry:
    """A design: what it sets, its title where somebody published it, and the key of its run on each machine."""

    values: Mapping[str, Any]
    title: str | None
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every combination of the axes, and the published designs by name."""

    grid: tuple[Entry, ...]
    published: Mapping[str, Entry]

    @property
    def count(self) -> int:
        """Designs of both."""
        return len(self.grid) + len(self.published)


def plan(ladder: Ladder, designs: Designs) -> Plan | None:
    """Resolve every design; what is wrong with one joins the problems of `designs`. None of a ladder without `exchange`.

    InfeasibleError where there are too many combinations.
    """
    spec = ladder.spec.exchange
    if spec is None:
        return None
    limits.require(
        math.prod(map(len, spec.axes.values())), limits.DESIGNS, "exchange.axes", "fewer values of an axis"
    )
    if not designs.problems:
        _check_metric(ladder, designs)
    grid = []
    for values in product(*spec.axes.values()):
        chosen = dict(zip(spec.axes, values, strict=True))
        keys = {}
        for on in _machines(spec):
            document = ladder.design(None, on)
            for key, value in chosen.items():
                mark = ladder.document.mark((*_AT, "axes", key), key=True)
                scenario_settings.put(document, documents.split(key), value, mark)
            keys[on] = designs.add(document, f"{_words(chosen)}, {on}")
        grid.append(Entry(chosen, None, keys))
    published = {}
    for name, entry in spec.designs.items():
        at = (*_AT, "designs", name, "set")
        keys = {on: designs.add(ladder.exchange_design(at, on), f"{name}, {on}") for on in _machines(spec)}
        published[name] = Entry(dict(entry.set), entry.title or name, keys)
    return Plan(tuple(grid), published)


def _check_metric(ladder: Ladder, designs: Designs) -> None:
    """Require a ladder of lone all-to-alls: add a problem where its base is another kind of workload."""
    kind = ladder.base.get(("workload", "kind"))
    if kind is not None and kind != "all_to_all":
        problem = ladder.document.problem(
            _AT, f"an exchange of a ladder whose base is of kind {kind}", "a base of kind all_to_all"
        )
        designs.problems.append(problem)


def _machines(spec: ExchangeSpec) -> list[str]:
    """Return the reference, then the machines that are compared with it."""
    return list(dict.fromkeys([spec.reference, *spec.machines]))


def _words(values: Mapping[str, Any]) -> str:
    """Return a design as settings: `layout.ep=64, model.top_k=8`."""
    return ", ".join(f"{key}={value}" for key, value in values.items())


def run(ladder: Ladder, planned: Plan, designs: Designs) -> dict[str, Any]:
    """Run every design on every machine, and search the headroom. InputError where a run has not the metric.

    `limits` [NVLink bytes/NIC byte] and `headroom` are by machine; `points` of the axes and `designs` by name
    have their `x` [NVLink bytes/NIC byte, None without NIC bytes], `ratio` of the first machine's time to the
    reference's, and `time_s` by machine.
    """
    spec = ladder.spec.exchange
    assert spec is not None
    headroom = _headroom(ladder, spec, designs) if spec.headroom else {}
    present = _unfolded(ladder.design(None, spec.reference))
    return {
        "reference": spec.reference,
        "machines": spec.machines,
        "metric": ladder.spec.metric,
        "axes": spec.axes,
        "present": {key: present.get(documents.split(key)) for key in spec.axes},
        "within_fraction": float(spec.within),
        "limits": {on: _limit(planned, designs, on) for on in _machines(spec)},
        "points": [_point(ladder, spec, designs, entry) for entry in planned.grid],
        "designs": {
            name: {"title": entry.title, **_point(ladder, spec, designs, entry)}
            for name, entry in planned.published.items()
        },
        **headroom,
    }


def _point(ladder: Ladder, spec: ExchangeSpec, designs: Designs, entry: Entry) -> dict[str, Any]:
    ran = {on: designs.run(key) for on, key in entry.keys.items()}
    times = {
        on: outcome.value(ladder.spec.metric, ladder.document, ("metric",)) for on, outcome in ran.items()
    }
    ours, theirs = times[spec.machines[0]], times[spec.reference]
    return {
        "design": _words(entry.values),
        "values": dict(entry.values),
        "x": _asked(ran[spec.reference]),
        "ratio": ours / theirs if ours is not None and theirs else None,
        "time_s": times,
        "binding": {
            on: outcome.metrics["dispatch"]["binding"] for on, outcome in ran.items() if outcome.metrics
        },
        "reasons": {on: outcome.reason for on, outcome in ran.items() if outcome.reason},
    }


def _asked(outcome: Outcome) -> float | None:
    """Return the NVLink bytes that a design asks for each NIC byte, both ways together."""
    if outcome.metrics is None:
        return None
    up, nic = (
        sum(outcome.metrics[way][name] for way in _WAYS) for name in ("wire_nvlink_bytes", "wire_nic_bytes")
    )
    return float(up / nic) if nic else None


def _limit(planned: Plan, designs: Designs, on: str) -> float | None:
    """Return what a machine's kernel achieves of NVLink over what it achieves of the NIC; None where no design resolves."""
    scenarios = (designs.scenario(entry.keys[on]) for entry in (*planned.grid, *planned.published.values()))
    scenario = next((one for one in scenarios if one is not None and one.hardware is not None), None)
    if scenario is None or scenario.hardware is None or scenario.hardware.nic is None:
        return None
    links = Links.achieved(scenario.hardware, scenario.workload.kernels[0])
    return links.scale_up_bytes_per_s / links.nic_bytes_per_s


# --- headroom -------------------------------------------------------------------------------------------------------


def _headroom(ladder: Ladder, spec: ExchangeSpec, designs: Designs) -> dict[str, Any]:
    """Search the most of the axis that each machine affords within the slack of the design as it is."""
    asked = spec.headroom
    assert asked is not None
    at = (*_AT, "headroom")
    present = _present(ladder, ladder.exchange_design((*at, "set"), spec.reference), asked.axis)

    def time_s(on: str, value: int) -> float:
        document = ladder.exchange_design((*at, "set"), on)
        mark = ladder.document.mark((*at, "axis"))
        scenario_settings.put(document, documents.split(asked.axis), value, mark)
        key = designs.tried(document, f"{asked.axis}={value}, {on}")
        taken = designs.run(key).value(ladder.spec.metric, ladder.document, ("metric",)) if key else None
        return math.inf if taken is None else taken

    most = {}
    for on in _machines(spec):
        allowed = time_s(on, present) * (1 + float(asked.slack))
        low, step = present, 1
        while time_s(on, low + step) <= allowed:
            low, step = low + step, 2 * step
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if time_s(on, middle) <= allowed else (low, middle)
        most[on] = low
    return {
        "headroom": most,
        "headroom_of": {
            "axis": asked.axis,
            "title": asked.title,
            "present": present,
            "slack_fraction": float(asked.slack),
            "values": dict(asked.set),
        },
    }


def _unfolded(document: Document) -> Document:
    """Return a design with the model that it names written out, so that its keys can be asked for."""
    scenario_settings.unfold_model(document)
    return document


def _present(ladder: Ladder, document: Document, axis: str) -> int:
    """Return the value that a design has of the axis of the headroom. Raises `InputError` where it is no whole number."""
    value = _unfolded(document).get(documents.split(axis))
    if not isinstance(value, int) or isinstance(value, bool):
        wanted = "a key that the design sets to a whole number, such as model.top_k"
        at = (*_AT, "headroom", "axis")
        raise InputError(ladder.document.problem(at, f"'{axis}'", wanted, nearest(axis, ["model.top_k"])))
    return value
