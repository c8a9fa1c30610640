"""Prefill and decode: from a scenario to metrics.

Instants first. A pass *starts* when its tokens enter the embedding and *ends* when its last rank has sampled: `step_time_s`
is the difference. TTFT is, without a queue, end of the last pass of a prompt less start of its first; TPOT is step time over
the tokens that a step gives a request, 1 + a + a^2 + ... for the a accepted of what was speculated. `exposed_comm_s` is what
the compute stream of the mean rank waited for all-to-alls in a pass, with the phases in which low-latency kernels hold its
SMs, and with the reductions of its TP group; `layer_time_s` is the pass without its ends, over its layers. All EP groups of
the deployment run the same pass at once on one network, and every metric is of the group that ends last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sim import limits
from sim.cost.deployment import Footprint, require_batch
from sim.cost.power import Activity
from sim.cost.work import Part
from sim.engine.step import StepRun
from sim.errors import DoesNotFitError
from sim.runs import kernel_list, pass_bound, pass_pipeline, passes
from sim.runs.energy import energy_metrics
from sim.runs.host_effect import pass_effect
from sim.runs.kinds import COMPUTE, LINKS, Forecast, Runner, SharedRun, named_parts
from sim.runs.link_rows import link_rows
from sim.runs.pass_activity import pass_activity
from sim.runs.pass_collectives import collective, copy_bytes
from sim.runs.pass_memory import memory_of, stage_memory
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import ForwardPass, PassRecord
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans
from sim.schedule.training import HALVES

_SHOWN_NODES = 120  # of the timeline


def run_inference(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate a prefill or decode, as `result.json` has it.

    DoesNotFitError where weights, cache and buffers overflow a GPU.
    """
    work = scenario.workload
    assert isinstance(work, Inference)
    progress(f"{scenario.name}: routing, all-to-alls and launches of {work.layout.ep} ranks")
    if work.apart:
        from sim.runs.afd_result import run_disaggregated

        return run_disaggregated(scenario, work)
    return _faster(scenario, work)[1]


def _faster(scenario: Scenario, work: Inference) -> tuple[Inference, dict[str, Any]]:
    """A deployment in one batch or in two, where that is a choice, with its result: the one that gives more tokens a second."""
    if work.spec.overlap != "auto":
        return work, _alone(scenario, work)
    ran: list[tuple[Inference, dict[str, Any]]] = []
    for left, way in enumerate(reversed(work.ways)):  # of which one may not fit
        try:
            ran.append((way, _alone(scenario, way)))
        except DoesNotFitError:
            if left and not ran:
                raise
    return max(ran, key=lambda each: float(each[1]["metrics"]["tokens_per_s_per_gpu"]))


def _alone(scenario: Scenario, work: Inference) -> dict[str, Any]:
    memory, requests = batch_of(scenario, work)
    forwards = passes.forwards(scenario, work, requests)
    records: list[PassRecord] = []
    begin_s = 0.0
    for forward in forwards:
        records.append(passes.run(forward, begin_s))
        begin_s += pass_pipeline.step_s(forward, records[-1])
    return _result(scenario, work, requests, memory, forwards, records)


def shared_inference(scenario: Scenario) -> SharedRun:
    """A prefill or decode next to other jobs, its passes one after the other. Raises `DoesNotFitError`."""
    assert isinstance(scenario.workload, Inference)
    work = _faster(scenario, scenario.workload)[0]
    memory, requests = batch_of(scenario, work)
    forwards = passes.forwards(scenario, work, requests)

    def result(runs: Sequence[StepRun]) -> dict[str, Any]:
        records = [passes.record_of(forward, ran) for forward, ran in zip(forwards, runs, strict=True)]
        return _result(scenario, work, requests, memory, forwards, records)

    tails = [passes.ends_s(forward) + passes.between_s(forward) for forward in forwards]
    return SharedRun([passes.whole_plan(forward) for forward in forwards], result, tails)


def _result(
    scenario: Scenario,
    work: Inference,
    requests: float,
    memory: Footprint,
    forwards: Sequence[ForwardPass],
    records: Sequence[PassRecord],
) -> dict[str, Any]:
    measure = _prefill if work.spec.kind == "prefill" else _decode
    result = measure(scenario, work, requests, forwards, records)
    most = _of_the_fullest(work, requests)
    result["metrics"] |= {
        "max_batch_per_gpu": memory.max_batch,
        "kv_cache_bytes": most * memory.cache_bytes_per_request,
        "memory_limit": memory.limit,
        "memory_capacity_bytes": memory.capacity_bytes,
        "microbatches": PassPlan(scenario, work, requests).num_microbatches,
    }
    result["memory"] = [
        {"rank": rank, **held.parts(most)} for rank, held in enumerate(stage_memory(scenario, work))
    ]
    return result


def _of_the_fullest(work: Inference, requests: float) -> float:
    """Requests of the GPU that has most of them [count]: a TP group has whole requests, each of its ranks an even part."""
    if work.total is None:
        return requests
    return math.ceil(work.total / work.layout.dp) * work.layout.dp / work.layout.num_ranks


def batch_of(scenario: Scenario, work: Inference) -> tuple[Footprint, float]:
    """Size the batch of a GPU of a deployment, which may be another than the scenario's own workload.

    The memory of a GPU of the pipeline stage that holds fewest requests, and its requests [count]: as asked
    for, or as many as fit; of a deployment's few, the mean GPU's part. DoesNotFitError where they do not fit.
    """
    memory = memory_of(scenario, work)
    most = memory.max_batch
    fitting = most - most % 2 if work.spec.overlap is True else most
    requests: float = work.requests if work.requests is not None else max(1, fitting)
    if work.total is not None:
        requests = work.total / work.layout.num_ranks
    what = "prompt" if work.spec.kind == "prefill" else "request"
    batch = f"{requests} {what}s of {work.context_tokens} tokens a GPU need"
    if work.total is not None:
        num, verb = work.total, "needs" if work.total == 1 else "need"
        batch = f"{num} {what}{'s' * (num > 1)} of {work.context_tokens} tokens in all {verb}, of each GPU,"
    elif requests == 1:
        each = f" on each GPU, {work.layout.tp} a TP group," if work.layout.tp > 1 else ""
        batch = f"one {what} of {work.context_tokens} tokens{each} needs"
    require_batch(memory, _of_the_fullest(work, requests), batch)
    return memory, requests


def _prefill(
    scenario: Scenario,
    work: Inference,
    requests: float,
    forwards: Sequence[ForwardPass],
    records: Sequence[PassRecord],
) -> dict[str, Any]:
    num_passes = len(forwards)
    elapsed = bound = exposed = waited_skew = host_s = layers_s = 0.0
    spent: list[dict[str, float]] = []
    done = Activity(elapsed_s=0.0)
    bounds: list[dict[str, float]] = []
    for forward, record in zip(forwards, records, strict=True):
        ends = passes.ends(forward)
        elapsed += pass_pipeline.step_s(forward, record)
        layers_s += float(record.end_s.max())
        exposed += _exposed_s(forward, record)
        waited_skew += record.skew_s
        host_s += record.host_s + passes.between_s(forward)
        bounds.append(pass_bound.bounds_s(forward))
        bound += max(bounds[-1].values())
        spent.append(spent_s(forward, record, ends))
        done += pass_activity(forward, record, spent[-1], ends)
    tokens = requests * work.step_tokens * num_passes
    return {
        "metrics": {
            "tokens_per_s_per_gpu": tokens / elapsed,
            "tokens_per_s_per_node": tokens / elapsed * scenario.gpus_per_node,
            "layer_time_s": layers_s / num_passes / forward.plan.model.num_layers,
            "exposed_comm_s": exposed,
            "skew_wait_s": waited_skew,
            "host_s": host_s,
            "ttft_s": elapsed,
            "step_time_s": elapsed,
            "pass_time_s": elapsed / num_passes,
            "lower_bound_s": bound,
            "tokens_per_gpu": tokens,
            "passes": num_passes,
            **_energy(scenario, done, tokens),
        },
        "where": _added(spent),
        "bounds": _added(bounds),
        "links": _links(forward, record, num_passes, elapsed),
        **pass_effect(forward, record, num_passes, elapsed),
        **_facts(forward, record, ends),
    }


def _decode(
    scenario: Scenario,
    work: Inference,
    requests: float,
    forwards: Sequence[ForwardPass],
    records: Sequence[PassRecord],
) -> dict[str, Any]:
    (forward,), (record,) = forwards, records
    plan, ends = forward.plan, passes.ends(forward)
    step, accepted = pass_pipeline.step_s(forward, record), work.accepted_tokens
    bounds = pass_bound.bounds_s(forward)
    spent = spent_s(forward, record, ends)
    done = pass_activity(forward, record, spent, ends)
    return {
        "metrics": {
            "tpot_s": step / accepted,
            "step_time_s": step,
            "tokens_per_s_per_gpu": requests * accepted / step,
            "tokens_per_s_per_node": requests * accepted / step * scenario.gpus_per_node,
            "tokens_per_s_per_user": accepted / step,
            "layer_time_s": float(record.end_s.max()) / (plan.model.num_layers + plan.num_mtp),
            "exposed_comm_s": _exposed_s(forward, record),
            "skew_wait_s": record.skew_s,
            "host_s": record.host_s + passes.between_s(forward),
            "lower_bound_s": max(bounds.values()) / accepted,
            "requests_per_gpu": requests,
            "accepted_tokens_per_step": accepted,
            **_energy(scenario, done, requests * accepted),
        },
        "where": spent,
        "bounds": bounds,
        "links": _links(forward, record, 1, step),
        **pass_effect(forward, record, 1, step),
        **_facts(forward, record, ends),
    }


def _energy(scenario: Scenario, done: Activity, tokens_per_gpu: float) -> dict[str, Any]:
    """Energy of all GPUs, which do alike."""
    return energy_metrics(scenario, done, tokens_per_gpu * scenario.num_ranks)


def _exposed_s(forward: ForwardPass, record: PassRecord) -> float:
    held = sum(
        record.busy_s.get(f"{name} {end}", 0.0) for name in plans.COLLECTIVES for end in ("send", "receive")
    )
    return record.waited_s + held + sum(passes.reductions_s(forward).values())


def spent_s(forward: ForwardPass, record: PassRecord, ends: dict[str, Part]) -> dict[str, float]:
    """Time of each part of a pass on the compute stream of the mean rank [s]; `last_rank` is what the last one takes longer."""
    plan = forward.plan
    parts = dict.fromkeys(node.name for node in plan.program() if node.collective is None)
    spent = {part: record.busy_s[part] for part in parts}
    # The node of an attention runs the dense layers before it too.
    needs = (passes.dense_need(forward, layers) for layers in plan.blocks.dense_before)
    dense = sum(float(need[0].mean()) for need in needs) * plan.num_microbatches
    for part in spent.keys() & {"attention", "attention_0"}:
        spent[part] -= dense
    ends_s = passes.ends_s(forward, record.begin_s)
    spent |= {"dense": spent.get("dense", 0.0) + dense, "ends": ends_s}
    reduced = passes.reductions_s(forward)
    return {
        **{part: time_s - reduced.get(part, 0.0) for part, time_s in spent.items()},
        "reductions": sum(reduced.values()),
        "waits": record.waited_s,
        **({"host": record.host_s + passes.between_s(forward)} if plan.scenario.software else {}),
        "last_rank": max(0.0, float(record.end_s.max() - record.end_s.mean())),
        "pipeline": max(
            0.0,
            pass_pipeline.step_s(forward, record)
            - float(record.end_s.max())
            - ends_s
            - passes.between_s(forward),
        ),
    }


def _links(forward: ForwardPass, record: PassRecord, passes: int, over_s: float) -> dict[str, dict[str, Any]]:
    """Load of each link by passes that all move the same, where a pipeline has its part of them on each stage."""
    ran, plan = record.ran, forward.plan
    times, alike = passes * plan.in_flight / plan.layout.pp, [ran.network.folded.resource]
    return link_rows(forward.collectives.cluster, times * ran.bytes, times * ran.used, over_s, alike)


def _added(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) for key in rows[0]}


def _facts(forward: ForwardPass, record: PassRecord, ends: dict[str, Part]) -> dict[str, Any]:
    """Launches by part, collectives, and the first nodes of the timeline."""
    plan, collectives = forward.plan, forward.collectives
    program, shown = plan.program(), slice(0, _SHOWN_NODES)
    routing = collectives.routings[0][0]
    dispatch = collective(plan, collectives.cluster, "dispatch", routing)
    traffic = {"dispatch": (dispatch.records * dispatch.record_bytes).round().astype(int).tolist()}
    loads = [row.selections_to_rank.sum(axis=0) for layer in collectives.routings for row in layer]
    alone = {name: passes.alone_s(forward, name, record.group) for name in plans.COLLECTIVES}
    return {
        "parts": {
            name: {launch: work.time_s for launch, work in part.items()}
            for name, part in {**forward.needs.parts, **ends}.items()
        },
        "exchanges": {
            name: {
                "alone_s": float(alone[name].mean()),
                "longest_s": float(alone[name].max()),
                "ranks_per_token": routing.ranks_per_token,
                "nodes_per_token": routing.nodes_per_token,
                **(
                    {"replica_bytes": _replica_bytes(forward)}
                    if name == "dispatch" and len(routing.moves)
                    else {}
                ),
                "max_over_mean_rank_load": float(max(load.max() / load.mean() for load in loads)),
            }
            for name in plans.COLLECTIVES
        },
        "timeline": {
            "end_s": float(record.end_s.max()),
            "passes": [
                {
                    "rank": 0,
                    "names": [f"{node.name}({HALVES.index(node.half)})" for node in program[shown]],
                    "streams": ["communication" if node.collective else "compute" for node in program[shown]],
                    "tasks": [node.layer for node in program[shown]],
                    "start_s": record.start_s[shown].tolist(),
                    "end_s": record.finish_s[shown].tolist(),
                }
            ],
        },
        "traffic": traffic if plan.ranks <= limits.MATRIX_RANKS else {},
        "rank_loads": [load.tolist() for load in loads],
        **kernel_list.pass_launches(forward),
    }


def _replica_bytes(forward: ForwardPass) -> float:
    """Weights that the mean GPU takes in for one dispatch, over scale-up [bytes]."""
    plan, drawn = forward.plan, [routing for row in forward.collectives.routings for routing in row]
    copies = sum(len(routing.moves) for routing in drawn) / len(drawn) / plan.ranks
    return copies * copy_bytes(plan)


def forecast_inference(scenario: Scenario) -> Forecast:
    """Memory of a GPU before a run, without bounds: to bound a pass takes as long as to run it. Raises `DoesNotFitError`."""
    assert isinstance(scenario.workload, Inference)
    if scenario.workload.apart:
        from sim.runs.afd_result import afd_batch

        (kept, _), requests = afd_batch(scenario.workload)
        requests /= scenario.workload.apart.attention.num_ranks
    else:
        kept, requests = batch_of(scenario, scenario.workload)
    return Forecast(
        lambda: run_inference(scenario, lambda _: None)["metrics"], named_parts(kept.parts(requests))
    )


RUNNER = Runner(run_inference, (*LINKS, *COMPUTE), shared_inference, forecast_inference)
