"""What a serving run puts on the links of a cluster, and for which part of its time: the passes of its instances, and KV on its way.

Every instance is taken to run passes like a full one of the prefill plan and like a step at the mean load, on its own nodes, as
many as make up the tokens that it had. What passes move is counted exactly where routing is even, since it grows with their tokens. After a pass every GPU of an instance that prefills sends KV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.cluster.topology import CLASSES, Cluster, Floats, Ints
from sim.engine.link_states import LinkLoad, States, spans_of, together
from sim.engine.serving_instance import InstanceRecord
from sim.engine.serving_lives import ServingTrace
from sim.runs import passes
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import forward_pass
from sim.runs.service import places
from sim.runs.service_faults import beside_others, crossed, on_nodes
from sim.runs.serving_activity import step_requests, typical_batch, typical_step
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.schedule.serving import Service

_UPLINK = CLASSES.index("leaf_uplink")


def serving_load(
    scenario: Scenario, work: Serving, service: Service, trace: ServingTrace, span_s: float
) -> LinkLoad:
    """Load of all links by a serving run over its span [s]."""
    cluster = scenario.cluster()
    healthy = replace(scenario, left=()).cluster().capacity
    carried, used = kv_bytes(cluster, service, trace)
    uplinks = np.flatnonzero((cluster.class_idx == _UPLINK) & (healthy > 0))
    none, kv_senders = np.zeros(0), float(work.prefill.num_ranks)
    parts = [
        {
            row: States.from_spans(none, none, none, span_s, used[row] / healthy[row], kv_senders)
            for row in uplinks[used[uplinks] > 0].tolist()
        }
    ]
    for gpus, record, roles in _instances(scenario, work, service, trace):
        spans: dict[int, list[tuple[Floats, Floats, Floats]]] = {}
        own_used = np.zeros(len(used))
        for plan, often in _passes(scenario, work, trace, gpus, record, roles):
            forward = forward_pass(plan)
            ran = passes.run(forward).ran
            times = often * plan.in_flight / plan.layout.pp
            carried += times * ran.bytes
            own_used += times * ran.used
            rows = uplinks[ran.used[uplinks] > 0]
            moved = spans_of(passes.whole_plan(forward), ran, cluster, rows)
            for link, row in enumerate(rows.tolist()):
                took_s, rate, senders = moved.rates(link)
                spans.setdefault(row, []).append((took_s * times, rate / healthy[row], senders))
        used += own_used
        parts.append({})
        for row, own in spans.items():
            took_s, rates, senders = (np.concatenate(column) for column in zip(*own, strict=True))
            full_s = float(own_used[row] / healthy[row])
            parts[-1][row] = States.from_spans(took_s, rates, senders, span_s, full_s)
    return LinkLoad(carried, used, together(parts))


def senders_by_link(scenario: Scenario, work: Serving) -> dict[int, float]:
    """NICs by which passes of an instance send over each link that they cross, of the instance that has most."""
    prefills, decodes = places(scenario, work)
    both = work.spec.decode.instances == 0
    placed = [
        *((gpus, part) for gpus in prefills for part in (work.prefill, work.decode)[: 1 + both]),
        *((gpus, work.decode) for gpus in decodes),
    ]
    most: dict[int, float] = {}
    for gpus, part in placed if not work.decode.workload.parts else ():
        for row, number in crossed(on_nodes(part, gpus)).items():
            most[row] = max(most.get(row, 0.0), number)
    return most


def kv_bytes(cluster: Cluster, service: Service, trace: ServingTrace) -> tuple[Floats, Floats]:
    """Bytes of KV that crossed each link, and the capacity that they used up, [num_resources] [bytes]."""
    carried, used = np.zeros((2, len(cluster.names)))
    if service.kv_links is None:
        return carried, used
    for ends, payload in trace.kv_bytes.items():
        flows = replace(service.kv_links.flows(*ends), payload_bytes=payload)
        carried += flows.bytes_by_resource(len(carried))
        used += flows.line_by_resource(len(used))
    return carried, used


def _instances(
    scenario: Scenario, work: Serving, service: Service, trace: ServingTrace
) -> Iterator[tuple[Ints, InstanceRecord, tuple[Scenario | None, Scenario | None]]]:
    """GPUs and records of all instances, and what stands for each where it prefills and where it decodes."""
    prefills, decodes = places(scenario, work)
    both = None if service.decode is not None else work.decode
    for gpus, record in zip(prefills, trace.prefill, strict=True):
        yield gpus, record, (work.prefill, both)
    for gpus, record in zip(decodes, trace.decode, strict=True) if service.decode is not None else ():
        yield gpus, record, (None, work.decode)


def _passes(
    scenario: Scenario,
    work: Serving,
    trace: ServingTrace,
    gpus: Ints,
    record: InstanceRecord,
    roles: tuple[Scenario | None, Scenario | None],
) -> Iterator[tuple[PassPlan, float]]:
    """Typical passes of an instance on its own nodes, and how often it has each."""
    prefill, decode = roles
    base = work.decode.workload
    assert isinstance(base, Inference)
    fills = record.prefills
    if prefill is not None and fills.any():
        plan = typical_batch(work, _placed(scenario, prefill, gpus))
        beside = record.requests[fills].sum() * base.step_tokens if work.engine.mixed else 0
        tokens = float(record.prompt_tokens[fills].sum() + beside)
        yield plan, tokens / (plan.requests * plan.work.step_tokens * len(gpus))
    steps = record.steps & ~fills
    if decode is not None and steps.any():
        plan = typical_step(work, trace, _placed(scenario, decode, gpus))
        yield plan, float(record.requests[steps].sum()) / step_requests(trace)


def _placed(scenario: Scenario, part: Scenario, gpus: Ints) -> Scenario:
    """An instance on its own nodes, at what other jobs leave of its links."""
    beside = beside_others(scenario, part, gpus)
    return beside if beside.left else on_nodes(part, gpus)
