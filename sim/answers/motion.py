"""An all-to-all in motion: how full each link is at each instant, of two machines on one clock.

What a page plays is what the run left behind: the rates of every link over time, from the same records as the timeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.answers.changed import lay
from sim.cluster.topology import CLASSES, Cluster
from sim.documents import Document
from sim.engine.records import Trace
from sim.errors import InfeasibleError, InputError, Problem
from sim.runs.all_to_all import trace_of
from sim.runs.kinds import Progress
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.version import __version__

SCHEMA = "moesim.motion/1"
DEFAULT = "deepep-ep16-h800"
MOST_GPUS = 64
_FRAMES = 240  # of the longest run
_SHOWN = ("scale_up", "nic")


def motion(document: Document, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Record an all-to-all on its machine and on another one, frame by frame.

    Of a scenario with variants, the first and the first after it that differs in nothing but the machine.
    Returns `frame_s`, the span of a frame, and by machine the `kernels` with their start and end [s], and by
    link the share of its rate that it carries in each frame [0 to 1]. InputError for another kind of workload,
    or one without a course in time; InfeasibleError for more than `MOST_GPUS`.
    """
    return motion_of(_pair(document), document.get(("title",)), progress)


def motion_of(
    machines: Mapping[str, Document], title: str | None, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Record all-to-alls by the name of the machine that each runs on, as `motion` does."""
    chosen = {name: scenarios.resolve(each) for name, each in machines.items()}
    for scenario in chosen.values():
        _require(scenario)
    traces = {}
    for name, scenario in chosen.items():
        progress(f"{scenario.name} on {name}")
        traces[name] = trace_of(scenario)
    longest_s = max(trace.end_s for _, trace in traces.values())
    first = next(iter(chosen.values()))
    return {
        "schema": SCHEMA,
        "name": first.name,
        "title": title or first.title,
        "version": __version__,
        "frame_s": longest_s / _FRAMES,
        "frames": _FRAMES,
        "nodes": first.num_nodes,
        "gpus_per_node": first.gpus_per_node,
        "machines": {name: _recorded(cluster, trace, longest_s) for name, (cluster, trace) in traces.items()},
    }


def _require(scenario: Scenario) -> None:
    work = scenario.workload
    if (
        not isinstance(work, AllToAll)
        or scenario.fidelity == "closed_form"
        or (work.gate and work.gate.layers)
    ):
        wanted = "an all_to_all with one layer of routing, and a course in time"
        raise InputError(Problem(None, "explore", f"'{scenario.name}', of kind {scenario.kind}", wanted))
    if scenario.num_ranks > MOST_GPUS:
        raise InfeasibleError(f"{scenario.num_ranks} GPUs in motion; a page shows {MOST_GPUS} at most")


def _pair(document: Document) -> dict[str, Document]:
    """Return a scenario on its own machine and on another one, by the names of the machines."""
    variants = [*scenario_settings.variants(document).values()]
    first = variants[0]
    own = str(first.get(("cluster", "hardware")))
    for other in variants[1:]:
        name = str(other.get(("cluster", "hardware")))
        if (
            name != own
            and lay(first, {"cluster.hardware": name, "name": "x"}).tree == lay(other, {"name": "x"}).tree
        ):
            return {own: first, name: other}
    rival = "h100" if own != "h100" else "h800"
    return {own: first, rival: lay(first, {"cluster.hardware": rival, "expect": {}})}


def _recorded(cluster: Cluster, trace: Trace, longest_s: float) -> dict[str, Any]:
    """Return the kernels of a run, and what each link of a shown class carries of its rate, frame by frame."""
    edges = np.linspace(0.0, longest_s, _FRAMES + 1)
    width = edges[1] - edges[0]
    area = np.zeros((_FRAMES, len(cluster.names)))
    for stretch in trace.stretches:
        low = np.clip((stretch.start_s[:, None] - edges[None, :-1]) / width, 0.0, 1.0)
        high = np.clip((stretch.end_s[:, None] - edges[None, :-1]) / width, 0.0, 1.0)
        area[:, stretch.rows] += (high - low).T @ stretch.used.astype(float)
    share = np.divide(area, cluster.capacity, out=np.zeros_like(area), where=cluster.capacity > 0)
    kinds = [CLASSES.index(name) for name in _SHOWN]
    rows = [i for i, kind in enumerate(cluster.class_idx) if kind in kinds and area[:, i].any()]
    kernels: dict[str, Mapping[str, float]] = {}
    for record in trace.transfers:
        end_s = float(record.rank_ends_s.max())
        kernels[record.name] = {
            "start_s": record.start_s,
            "end_s": max(end_s, kernels.get(record.name, {}).get("end_s", 0.0)),
        }
    return {
        "end_s": trace.end_s,
        "kernels": kernels,
        "links": {cluster.names[i]: np.round(share[:, i], 3).tolist() for i in rows},
    }
