"""Sliders of a scenario: the keys that a sweep of it varies, each around what the scenario has.

Its links, what its kind of workload is varied by, how many GPUs an expert is sought on, and how unlike ranks are. What a
scenario lacks, or what cannot be in it, is no slider.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sim import documents, units
from sim.answers.changed import lay
from sim.cluster.hardware import Hardware
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Problem
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.scenario.values import SpreadSpec
from sim.sweeps import file
from sim.sweeps.file import Sweep

DEFAULT = "explore-exchange"
"""The shipped sweep that is explored where nothing is named."""
_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.25)
_EP_FACTORS = (0.25, 0.5, 1, 2)
_LINKS = ("gpu.scale_up.bandwidth", "nic.bandwidth")
_COUNTS: Mapping[str, tuple[str, ...]] = {
    "all_to_all": ("workload.gate.top_groups", "workload.tokens_per_rank"),
    "training": ("workload.kernel.comm_sms",),
    "prefill": ("workload.prompts_per_gpu",),
    "decode": ("workload.requests_per_gpu", "workload.context_tokens"),
}
"""Kind of workload -> whole numbers that its sliders vary next to the links."""
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "all_to_all": ("dispatch.time_s", "combine.time_s"),
    "training": ("step_time_s",),
    "prefill": ("ttft_s",),
    "decode": ("tpot_s",),
}
"""Kind of workload -> the times whose sum is drawn."""
_RIVALS = ("h800", "h100")
_NICS: Mapping[str, Mapping[str, Any]] = {
    "healthy": {},
    "one at half rate": {"cluster.faults": [{"node": 0, "nic": 0, "bandwidth": "50 %"}]},
    "one dead": {"cluster.faults": [{"node": 0, "nic": 0, "bandwidth": "0 %"}]},
}
"""Notch -> what it sets, of a slider that harms a NIC."""
_OVERLAP: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "yes": {"workload.overlap": True},
    "no": {"workload.overlap": False},
}
"""The same of one that lets communication run next to compute."""


def sweep_of(spec: str | None, *, live: bool = False) -> Sweep:
    """Return the sweep to explore: one that is named, that of a scenario's own keys, or the shipped one.

    A scenario that is explored `live` has sliders more, whose points would be too many to compute beforehand. InputError for what is neither a scenario nor a sweep, or a scenario whose kind has no sliders.
    """
    if spec is None:
        return file.read(DEFAULT)
    known = documents.shipped(file.FOLDER)
    path = known[spec] if spec in known else documents.find(spec, "scenarios", "scenario or sweep")
    document = documents.load(path)
    if "axes" in document.tree:
        return file.sweep_of(document)
    return file.sweep_of(_as_sweep(document, spec, live=live))


def _as_sweep(document: Document, spec: str, *, live: bool) -> Document:
    """Return the sweep of a scenario's own keys, machine by machine; of one with variants, the first."""
    variant = next(iter(document.get(("variants",)) or {}), None)
    base = scenario_settings.variants(document)[variant] if variant else document
    scenario = scenarios.resolve(base)
    kind = scenario.kind
    if kind not in _SHOWN or scenario.hardware is None:
        wanted = f"a scenario of kind {', '.join(_SHOWN)}, or a sweep"
        raise InputError(Problem(None, "explore", f"'{spec}', of kind {kind}", wanted))
    axes: dict[str, Any] = dict(_own_axes(base, scenario))
    if live:
        axes |= dict(_live_axes(base, scenario))
    axes["machine"] = {"yours": {}} | {
        name.upper(): {"cluster.hardware": name, "cluster.override": {}} for name in _RIVALS
    }
    tree = {
        "name": f"explore-{document.tree.get('name', 'scenario')}"[:80],
        "title": scenario.title,
        "base": document.tree,
        **({"variant": variant} if variant else {}),
        "axes": axes,
        "given": "machine",
        "objectives": dict.fromkeys(_SHOWN[kind], "minimise"),
    }
    return Document(tree, document.name, folder=document.folder)


def _own_axes(base: Document, scenario: Scenario) -> Iterator[tuple[str, list[Any]]]:
    """Yield sliders: the links of its machine, then whole numbers of its workload, by factors around what they are."""
    figures = machine_figures(scenario)
    for key in filter(figures.__contains__, _LINKS):
        rates = [float(figures[key]) * factor for factor in _FACTORS]
        yield f"cluster.override.{key}", [units.show(rate, "bytes/s", 6) for rate in rates]
    for key in _COUNTS[scenario.kind]:
        value = Document(scenario.document, "resolved").get(documents.split(key))
        if isinstance(value, int) and not isinstance(value, bool):
            even = 2 if value % 2 == 0 else 1
            around = {max(even, even * round(value * factor / even)) for factor in _FACTORS}
            most = (
                (scenario.model.num_groups if scenario.model else 1) if key.endswith("groups") else math.inf
            )
            yield key, sorted(number for number in around if number <= max(most, value))


def _live_axes(base: Document, scenario: Scenario) -> Iterator[tuple[str, Any]]:
    """Yield what else a kind of workload is varied by: GPUs of an EP group, experts a token, formats, overlap, skew, and a NIC that fails."""
    if len(groups := _ep_groups(base, scenario)) > 1:
        yield "EP", groups
    if scenario.kind == "all_to_all":
        if scenario.model and "gate" in scenario.document["workload"]:
            own, most = scenario.model.top_k, scenario.model.num_experts
            yield "model.top_k", sorted({min(most, max(1, round(own * factor))) for factor in _FACTORS})
        if "dispatch_dtype" in scenario.document["workload"]:
            yield "workload.dispatch_dtype", ["fp8", "bf16"]
    if scenario.kind in ("training", "prefill"):
        yield "overlap", _OVERLAP
    yield from _skew(scenario)
    if not scenario.faults and not scenario.shared and scenario.num_nodes > 1:
        yield "NICs", _NICS


def _ep_groups(base: Document, scenario: Scenario) -> dict[str, Mapping[str, Any]]:
    """Return sizes of an EP group that the scenario can have; where all its GPUs are one, nodes come and go with it."""
    per_node, groups = scenario.part.domain, dict[str, Mapping[str, Any]]()
    for factor in _EP_FACTORS if scenario.ep > 1 else ():
        ep = int(scenario.ep * factor)
        sets: dict[str, Any] = {"layout.ep": ep}
        if scenario.ep == scenario.num_ranks and not scenario.shared:
            sets["cluster.nodes"] = max(1, ep // per_node)
        try:
            scenarios.resolve(lay(base, sets))
        except (InputError, InfeasibleError):
            continue
        groups[str(ep)] = sets
    return groups


def _skew(scenario: Scenario) -> Iterator[tuple[str, Any]]:
    """Yield how unlike ranks or experts are: factors of the deviations that the scenario has, or of the usual ones, and of its gate's."""
    gate = scenario.document["workload"].get("gate") or {}
    for key in filter(gate.__contains__, ("exponent", "spread")):
        yield f"workload.gate.{key}", sorted({round(float(gate[key]) * f, 6) for f in (0.0, *_FACTORS)})
    spec: Any = scenario.workload.spec
    if not hasattr(spec, "skew"):
        return
    own, usual = _deviations(spec), _deviations(spec.model_copy(update={"skew": type(spec.skew)()}))
    if any(own.values()):
        yield "skew", _multiples(own, {0.0: "none", 0.5: "half", 1.0: "as it is", 2.0: "twice"}, has=1.0)
    elif any(usual.values()):
        words = {0.0: "none", 0.5: "half the usual", 1.0: "the usual", 2.0: "twice the usual"}
        yield "skew", _multiples(usual, words, has=0.0)


def _deviations(spec: Any) -> dict[str, float]:
    """Return the deviations between ranks of a step or pass by their keys [fraction]."""
    between = {key: getattr(spec.skew, key) for key in SpreadSpec.model_fields}
    return between | ({"routed_load": spec.routed_spread} if hasattr(spec, "routed_spread") else {})


def _multiples(
    deviations: Mapping[str, float], words: Mapping[float, str], has: float
) -> dict[str, Mapping[str, Any]]:
    """Return what each multiple of deviations sets; the one that a scenario `has` sets nothing."""
    return {
        word: {f"workload.skew.{key}": round(factor * value, 6) for key, value in deviations.items()}
        if factor != has
        else {}
        for factor, word in words.items()
    }


def machine_figures(scenario: Scenario) -> dict[str, Any]:
    """Return the parameters of a scenario's machine by their paths, in SI units."""
    return by_path(scenario.hardware) if scenario.hardware else {}


def by_path(hardware: Hardware) -> dict[str, Any]:
    """Return the parameters of a machine by their paths, in SI units."""
    return {parameter.path: parameter.value for parameter in hardware.parameters}
