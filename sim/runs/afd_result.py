"""A decode step whose attention and experts are on pools of their own, as a result.

`where` is the time of attention's compute stream; what it waits for, experts and network, is `pool`. `idle_fraction` of a pool
is the time of a step in which its mean GPU has nothing to compute. Rates are of a GPU of both pools.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sim.cost.deployment import Footprint, require_batch
from sim.cost.power import Activity
from sim.cost.work import Part, dense_peaks, hbm_bytes, least_s, total_s
from sim.engine.step import StepRun
from sim.runs.afd import AfdPass
from sim.runs.energy import network_bytes, summed_energy
from sim.runs.link_rows import largest, link_rows
from sim.runs.pass_activity import classes
from sim.runs.pass_collectives import pass_record_bytes
from sim.runs.pass_memory import memory_of
from sim.runs.pass_needs import REDUCTION
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import bounds
from sim.schedule import inference as plans
from sim.schedule.afd import ATTENTION, EXPERTS
from sim.schedule.collectives import KINDS

_SHOWN_TASKS = 40  # of the timeline, of each pool
_POOLS = ("attention", "experts")


def afd_memory(work: Inference) -> tuple[Footprint, Footprint]:
    """Memory of a GPU of attention, which holds no routed experts, and of one of the experts, which holds nothing else."""
    assert work.apart is not None
    held = [_held(part) for part in work.parts]
    buffered = held[0].buffer_bytes_per_request / work.apart.microbatches
    attention = replace(held[0], routed_experts_bytes=0.0, buffer_bytes_per_request=buffered)
    nothing: dict[str, Any] = dict.fromkeys(
        ("shared_experts_bytes", "attention_bytes", "dense_bytes", "gates_bytes", "ends_bytes", "cache_bytes_per_request"), 0.0
    )  # fmt: skip
    return attention, replace(held[1], **nothing, buffer_bytes_per_request=0.0)


def _held(part: Scenario, **changes: Any) -> Footprint:
    """Memory of a GPU of a pool, were attention and experts together."""
    base = part.workload
    assert isinstance(base, Inference)
    return memory_of(part, replace(base, **changes))


def afd_batch(work: Inference) -> tuple[tuple[Footprint, Footprint], float]:
    """Memory of either pool, and requests of the whole deployment: as asked, or as many as attention has room for.

    DoesNotFitError where they do not fit.
    """
    assert work.apart is not None
    attention, _ = afd_memory(work)
    gpus, own = work.apart.attention.num_ranks, work.apart.microbatches
    fitting = max(1, attention.max_batch // own * own or attention.max_batch)
    requests = float(work.requests or fitting) * gpus if work.total is None else float(work.total)
    each = requests / gpus
    what = f"{each:g} requests of {work.context_tokens} tokens a GPU of attention need"
    require_batch(attention, each, what)
    experts = require_experts(work, requests)
    return (attention, experts), requests


def require_experts(work: Inference, requests: float) -> Footprint:
    """Memory of a GPU of the experts with so many requests in the deployment. DoesNotFitError where it does not fit."""
    assert work.apart is not None
    _, experts = afd_memory(work)
    experts = replace(experts, buffers_bytes=_rows_bytes(work, requests / work.apart.microbatches))
    require_batch(experts, 0.0, f"the routed experts on {work.apart.experts.num_ranks} GPUs need")
    return experts


def _rows_bytes(work: Inference, requests: float) -> float:
    """Buffers of a GPU of the experts for a microbatch: slots for all of its tokens for each expert, twice; or their rows."""
    assert work.apart is not None
    held = _held(work.apart.experts, requests=1)
    tokens = requests / work.layout.ep
    if KINDS[work.kernel.kind].slots:
        return held.buffer_bytes_per_request * tokens
    return held.buffers_bytes * tokens


def run_disaggregated(scenario: Scenario, work: Inference) -> dict[str, Any]:
    """Simulate a decode step with attention and experts apart, as `result.json` has it.

    DoesNotFitError where weights, cache and buffers overflow the memory of a GPU of either pool.
    """
    held, requests = afd_batch(work)
    afd = AfdPass(scenario, work, requests)
    ran = afd.run(_SHOWN_TASKS)
    ends, step_s = afd.ends, afd.step_s(ran)
    layers_s = float(ran.records[ATTENTION].end_s.max())
    busy = [float((record.tasks.end_s - record.tasks.start_s).sum()) for record in ran.records]
    busy[ATTENTION] += step_s - layers_s
    accepted = work.accepted_tokens
    each, tokens = requests / afd.gpus[ATTENTION], requests * accepted
    limits_s = _bounds_s(afd, ends)
    num_layers = afd.attention.model.num_layers + afd.attention.num_mtp
    spent = _spent_s(afd, ends, step_s)
    done = afd_activities(afd, ran)
    held_s = sum(own for name, own in spent.items() if name.endswith((" send", " receive")))
    rate = tokens / step_s / sum(afd.gpus)
    return {
        "metrics": {
            "tpot_s": step_s / accepted,
            "step_time_s": step_s,
            "tokens_per_s_per_gpu": rate,
            "tokens_per_s_per_node": rate * work.parts[ATTENTION].gpus_per_node,
            "tokens_per_s_per_user": accepted / step_s,
            "layer_time_s": layers_s / num_layers,
            "exposed_comm_s": spent["pool"] + spent["reductions"] + held_s,
            "skew_wait_s": 0.0,
            "host_s": 0.0,
            "lower_bound_s": max(limits_s.values()) / accepted,
            "requests_per_gpu": each,
            "accepted_tokens_per_step": accepted,
            "idle_fraction": {
                name: max(0.0, 1.0 - own / step_s) for name, own in zip(_POOLS, busy, strict=True)
            },
            **summed_energy(
                [(part, part.num_ranks, own) for part, own in zip(work.parts, done, strict=True)], tokens
            ),
            "max_batch_per_gpu": held[ATTENTION].max_batch,
            "kv_cache_bytes": each * held[ATTENTION].cache_bytes_per_request,
            "memory_limit": held[ATTENTION].limit,
            "memory_capacity_bytes": held[ATTENTION].capacity_bytes,
            "microbatches": afd.microbatches,
        },
        "where": spent,
        "bounds": limits_s,
        "links": largest(link_rows(afd.cluster, ran.bytes, ran.used, step_s)),
        "memory": [
            {"rank": 0, **held[ATTENTION].parts(each)},
            {"rank": 1, **held[EXPERTS].parts(0.0)},
        ],
        "parts": {
            name: {launch: work_.time_s for launch, work_ in part.items()}
            for name, part in {**afd.needs[1], **ends}.items()
        },
        "exchanges": {name: _exchange(afd, name) for name in plans.COLLECTIVES},
        "timeline": _timeline(ran, len(afd.attention.blocks.layers)),
        "traffic": {},
    }


def _spent_s(afd: AfdPass, ends: dict[str, Part], step_s: float) -> dict[str, float]:
    """Time of each part on the compute stream of attention's mean GPU [s]."""
    needs, plan, often = afd.needs[0], afd.attention, afd.microbatches
    spent = {
        name: often * sum(float(needs[name, plan.layer_kind(layer), 0][0, 0]) for layer in plan.blocks.layers)
        for name in ("attention_0", "attention_1", "shared")
    }
    spent["dense"] = often * afd.dense_s(plan.blocks.dense)
    for direction in plans.COLLECTIVES:
        for end, work in afd.phases.get(f"attention {direction}", {}).items():
            spent[f"{direction} {end}"] = often * len(plan.blocks.layers) * work.time_s
    spent["ends"] = sum(total_s(part) for part in ends.values())
    spent["pool"] = max(0.0, step_s - sum(spent.values()))
    reduced = _reduced_s(afd, ends)
    return {
        **{name: own - reduced.get(name, 0.0) for name, own in spent.items()},
        "reductions": sum(reduced.values()),
    }


def _reduced_s(afd: AfdPass, ends: dict[str, Part]) -> dict[str, float]:
    """Time of each part in which it waits for the TP group of attention [s]."""
    blocks = afd.attention.blocks
    layers = dict.fromkeys(("attention_0", "attention_1", "shared"), len(blocks.layers))
    layers["dense"] = len(blocks.dense)
    parts, reduced = afd.needs[1], dict[str, float]()
    for name, num in layers.items():
        if REDUCTION in parts.get(name, {}):
            reduced[name] = afd.microbatches * num * parts[name][REDUCTION].time_s
    reduced["ends"] = sum(part[REDUCTION].time_s for part in ends.values() if REDUCTION in part)
    return reduced


def _bounds_s(afd: AfdPass, ends: dict[str, Part]) -> dict[str, float]:
    """Bounds of a step by each class of resource alone, on the pool that it binds most [s]."""
    needs, plan, often = afd.needs[0], afd.attention, afd.microbatches
    peaks = [dense_peaks(part.hardware.gpu) for part in afd.work.parts if part.hardware]
    rates = [part.hardware.gpu.hbm.bandwidth_bytes_per_s for part in afd.work.parts if part.hardware]
    own = np.zeros(2)
    for layer in plan.blocks.layers:
        for name in ("attention_0", "attention_1", "shared"):
            own += often * needs[name, plan.layer_kind(layer), 0][1:, 0]
    for layer in plan.blocks.dense:
        own += often * needs["dense", plan.layer_kind(layer), 0][1:, 0]
    own[0] += sum(least_s(part, peaks[ATTENTION]) for part in ends.values())
    own[1] += sum(hbm_bytes(part) for part in ends.values())
    turns = often * len(plan.blocks.layers) / len(afd.expert_needs)
    routed = turns * sum(need[1:].max(axis=1) for need in afd.expert_needs)
    # Both ways at once: the directions of a link are links of their own.
    moved_s = bounds.lower_bound_s([*afd.flows.values()], afd.cluster)
    return {
        "compute": float(max(own[0], routed[0])),
        "hbm": float(max(own[1] / rates[ATTENTION], routed[1] / rates[EXPERTS])),
        "links": often * len(plan.blocks.layers) * moved_s,
    }


def afd_activities(afd: AfdPass, ran: StepRun) -> list[Activity]:
    """Activity of the mean GPU of attention, and of the experts, in a step that ran."""
    ends, step_s = afd.ends, afd.step_s(ran)
    spent = _spent_s(afd, ends, step_s)
    done = []
    routed_s = float((ran.records[EXPERTS].tasks.end_s - ran.records[EXPERTS].tasks.start_s).sum())
    for side, times in ((ATTENTION, spent), (EXPERTS, {"experts": routed_s})):
        gpu = afd.work.parts[side].hardware
        assert gpu is not None
        peaks, rate = dense_peaks(gpu.gpu), gpu.gpu.hbm.bandwidth_bytes_per_s
        held = {"tensor_s": 0.0, "memory_s": 0.0, "communication_s": step_s - sum(times.values())}
        held["communication_s"] += spent["pool"] + spent["reductions"] if side == ATTENTION else 0.0
        for name, time_s in times.items():
            by_class = classes(afd.needs[1].get(name, {}), peaks, rate)
            whole = sum(by_class.values())
            for key, part_s in by_class.items():
                held[key] += time_s * part_s / whole if whole else 0.0
        for part in ends.values() if side == ATTENTION else ():
            for key, part_s in classes(part, peaks, rate).items():
                held[key] += part_s
        sent = network_bytes(afd.cluster, ran.bytes) if side == ATTENTION else {}
        done.append(Activity(elapsed_s=step_s, **held, **sent))
    return done


def _exchange(afd: AfdPass, direction: str) -> dict[str, float]:
    """A transfer of one microbatch alone, and the bytes that a GPU of attention has of it."""
    routing, alone_s = afd.routings[0], afd.alone_s(direction)
    loads = [own.selections_to_rank.sum(axis=0) for own in afd.routings]
    record = pass_record_bytes(afd.experts, direction)
    return {
        "alone_s": alone_s,
        "longest_s": alone_s,
        "ranks_per_token": routing.ranks_per_token,
        "nodes_per_token": routing.nodes_per_token,
        "gpu_bytes": float(afd.records(direction).sum()) / afd.gpus[ATTENTION] * record,
        "max_over_mean_rank_load": float(max(load.max() / load.mean() for load in loads)),
    }


def _timeline(ran: StepRun, num_layers: int) -> dict[str, Any]:
    """The first tasks of either pool."""
    passes_ = [
        {
            "rank": record.pipeline_rank,
            "names": [
                f"{name}({record.tasks.microbatches[task, 0]})"
                for name, task in zip(nodes.name, nodes.task, strict=True)
            ],
            "streams": list(nodes.stream),
            "tasks": [task // per_layer for task in nodes.task],
            "start_s": list(nodes.start_s),
            "end_s": list(nodes.end_s),
        }
        for record in ran.records
        for nodes, per_layer in ((record.nodes, max(1, len(record.tasks) // num_layers)),)
    ]
    return {"end_s": float(ran.records[ATTENTION].end_s.max()), "passes": passes_}
