"""Prefill and decode: from a scenario to metrics.

Instants first. A pass *starts* when its tokens enter the embedding and *ends* when its last rank has sampled: `step_time_s`
is the difference. TTFT is, without a queue, end of the last pass of a prompt less start of its first; TPOT is step time over
the tokens that a step gives a request, 1 + a + a^2 + ... for the a accepted of what was speculated. `exposed_comm_s` is what
the compute stream of the mean rank stood and waited for exchanges in a pass, with the phases in which low-latency kernels
hold its SMs; `layer_time_s` is the pass without its ends, over its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sim import limits
from sim.cost.deployment import Footprint, footprint, require_batch
from sim.cost.work import Part, total_s
from sim.engine.inference import PassRecord
from sim.runs import kernel_list, pass_bound
from sim.runs.kinds import COMPUTE, LINKS, Forecast, Runner, named_parts
from sim.runs.passes import Pass
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans
from sim.schedule.collectives import KINDS, record_bytes
from sim.workload.model import Model

_SHOWN_NODES = 120  # of the timeline


def run_inference(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Metrics, memory and timeline of a prefill or decode. Raises `InfeasibleError` where memory overflows."""
    work, hardware = scenario.workload, scenario.hardware
    assert isinstance(work, Inference)
    assert hardware is not None
    memory, requests = batch_of(scenario, work)
    progress(f"{scenario.name}: routing, exchanges and kernels of {work.layout.ep} ranks")
    run = _prefill if work.spec.kind == "prefill" else _decode
    result = run(scenario, work, requests)
    result["metrics"] |= {
        "max_batch_per_gpu": memory.max_batch,
        "kv_cache_bytes": requests * memory.cache_bytes_per_request,
        "memory_limit": memory.limit,
        "memory_capacity_bytes": memory.capacity_bytes,
    }
    result["memory"] = [{"rank": 0, **memory.parts(requests)}]
    return result


def batch_of(scenario: Scenario, work: Inference) -> tuple[Footprint, int]:
    """What a GPU keeps, and its requests: as asked, or as many as fit. Raises `DoesNotFitError` where they do not."""
    memory = memory_of(scenario, work)
    most = memory.max_batch
    fitting = most - most % 2 if work.spec.overlap else most
    requests = work.requests if work.requests is not None else max(1, fitting)
    what = "prompt" if work.spec.kind == "prefill" else "request"
    some = f"{requests} {what}s of {work.context_tokens} tokens a GPU need"
    require_batch(
        memory, requests, some if requests > 1 else f"one {what} of {work.context_tokens} tokens needs"
    )
    return memory, requests


def _prefill(scenario: Scenario, work: Inference, requests: int) -> dict[str, Any]:
    passes = (work.context_tokens - work.cached_tokens) // work.step_tokens
    elapsed = bound = exposed = waited_skew = layers_s = 0.0
    spent: list[dict[str, float]] = []
    bounds: list[dict[str, float]] = []
    for index in range(passes):
        one = Pass(scenario, work, requests, work.cached_tokens + index * work.step_tokens)
        record = one.run()
        ends = one.ends()
        elapsed += one.step_s(record)
        layers_s += float(record.end_s.max())
        exposed += _exposed_s(record)
        waited_skew += float(record.skew_s.mean())
        bounds.append(pass_bound.bounds_s(one))
        bound += max(bounds[-1].values())
        spent.append(_spent(one, record, ends))
    tokens = requests * work.step_tokens * passes
    return {
        "metrics": {
            "tokens_per_s_per_gpu": tokens / elapsed,
            "tokens_per_s_per_node": tokens / elapsed * scenario.gpus_per_node,
            "layer_time_s": layers_s / passes / one.model.num_layers,
            "exposed_comm_s": exposed,
            "skew_wait_s": waited_skew,
            "ttft_s": elapsed,
            "step_time_s": elapsed,
            "pass_time_s": elapsed / passes,
            "lower_bound_s": bound,
            "tokens_per_gpu": tokens,
            "passes": passes,
        },
        "where": _added(spent),
        "bounds": _added(bounds),
        **_facts(one, record, ends),
    }


def _decode(scenario: Scenario, work: Inference, requests: int) -> dict[str, Any]:
    one = Pass(scenario, work, requests)
    record, ends = one.run(), one.ends()
    step, accepted = one.step_s(record), accepted_tokens(work)
    bounds = pass_bound.bounds_s(one)
    return {
        "metrics": {
            "tpot_s": step / accepted,
            "step_time_s": step,
            "tokens_per_s_per_gpu": requests * accepted / step,
            "tokens_per_s_per_node": requests * accepted / step * scenario.gpus_per_node,
            "tokens_per_s_per_user": accepted / step,
            "layer_time_s": float(record.end_s.max()) / (one.model.num_layers + one.extra),
            "exposed_comm_s": _exposed_s(record),
            "skew_wait_s": float(record.skew_s.mean()),
            "lower_bound_s": max(bounds.values()) / accepted,
            "requests_per_gpu": requests,
            "accepted_tokens_per_step": accepted,
        },
        "where": _spent(one, record, ends),
        "bounds": bounds,
        **_facts(one, record, ends),
    }


def accepted_tokens(work: Inference) -> float:
    """Tokens that a step gives a request on average: 1 + a + a^2 + ... for those speculated and accepted [count]."""
    return float(sum(work.acceptance_fraction**i for i in range(work.step_tokens)))


def _exposed_s(record: PassRecord) -> float:
    held = sum(
        record.busy_s.get(f"{name} {end}", 0.0) for name in plans.COLLECTIVES for end in ("send", "receive")
    )
    return float(record.waited_s.mean()) + held


def _spent(one: Pass, record: PassRecord, ends: dict[str, Part]) -> dict[str, float]:
    """Where a pass goes on the compute stream of the mean rank [s]; `last_rank` is what the last one takes longer."""
    parts = dict.fromkeys(node.part for node in one.program() if node.stream == plans.COMPUTE)
    spent = {part: record.busy_s[part] for part in parts}
    # The node of an attention runs the dense layers before it too.
    dense = sum(float(one.dense(layers)[0].mean()) for layers in one.blocks.dense_before) * one.halves
    first = next(part for part in ("attention", "attention_0") if part in spent)
    spent[first] -= dense
    return {
        **spent,
        "dense": spent.get("dense", 0.0) + dense,
        "waits": float(record.waited_s.mean()),
        "last_rank": max(0.0, float(record.end_s.max() - record.end_s.mean())),
        "ends": sum(total_s(part) for part in ends.values()),
    }


def _added(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) for key in rows[0]}


def _facts(one: Pass, record: PassRecord, ends: dict[str, Part]) -> dict[str, Any]:
    """Kernels by part, exchanges, and the first nodes of the timeline."""
    program, shown = one.program(), slice(0, _SHOWN_NODES)
    routing = one.routings[0][0]
    dispatch = one.collective("dispatch", routing)
    traffic = {"dispatch": (dispatch.records * dispatch.record_bytes).round().astype(int).tolist()}
    loads = [row.selections_to_rank.sum(axis=0) for layer in one.routings for row in layer]
    return {
        "parts": {
            name: {kernel: work.time_s for kernel, work in part.items()}
            for name, part in {**one.parts, **ends}.items()
        },
        "exchanges": {
            name: {
                "alone_s": float(
                    np.mean([s.alone_s.mean() for key, s in one.solved.items() if key[0] == name])
                ),
                "longest_s": float(max(s.alone_s.max() for key, s in one.solved.items() if key[0] == name)),
                "ranks_per_token": routing.ranks_per_token,
                "nodes_per_token": routing.nodes_per_token,
                "max_over_mean_rank_load": float(max(load.max() / load.mean() for load in loads)),
            }
            for name in plans.COLLECTIVES
        },
        "timeline": {
            "end_s": float(record.end_s.max()),
            "passes": [
                {
                    "rank": 0,
                    "names": [f"{node.part}({node.microbatch})" for node in program[shown]],
                    "streams": [node.stream for node in program[shown]],
                    "tasks": [node.layer for node in program[shown]],
                    "start_s": record.start_s[shown].tolist(),
                    "end_s": record.finish_s[shown].tolist(),
                }
            ],
        },
        "traffic": traffic if one.ranks <= limits.MATRIX_RANKS else {},
        "rank_loads": [load.tolist() for load in loads],
        "links": {},
        **kernel_list.of_pass(one),
    }


def memory_of(scenario: Scenario, work: Inference) -> Footprint:
    """What a GPU keeps, and for each request."""
    assert scenario.model is not None
    assert scenario.hardware is not None
    model, hardware = scenario.model, scenario.hardware
    physical = model.num_experts + work.spec.placement.redundant_experts
    slots = KINDS[work.kernel.kind].slots
    records = sum(
        float(record_bytes(work.kernel.kind, name, dtype, model.hidden, model.top_k))
        for name, dtype in (("dispatch", work.spec.dispatch_dtype), ("combine", work.spec.combine_dtype))
    )
    halves = 2 if work.spec.overlap else 1
    return footprint(
        model,
        experts_per_rank=physical // work.layout.ep,
        num_physical_experts=physical,
        tp=work.layout.tp,
        precision=work.spec.precision,
        kv_dtype=work.spec.kv_dtype,
        context_tokens=work.context_tokens,
        buffered_tokens_per_request=work.step_tokens / halves if slots else 0.0,
        buffers_bytes=0.0 if slots else _expert_rows_bytes(model, work, halves),
        record_bytes=records,
        with_mtp=work.spec.kind == "decode" and work.step_tokens > 1,
        capacity_bytes=hardware.gpu.hbm.capacity_bytes,
        reserve_fraction=work.spec.reserve,
        graphs_bytes=work.spec.graphs,
        gpu=f"a GPU of {hardware.title}",
    )


def _expert_rows_bytes(model: Model, work: Inference, halves: int) -> float:
    """What the experts of one microbatch work on: rows in, twice the inner width, rows out (FP8, BF16, BF16)."""
    rows = (work.requests or 1) / halves * work.step_tokens * model.top_k
    return rows * (model.hidden + 2 * 2.0 * model.expert_hidden + 2.0 * model.hidden)


def forecast_inference(scenario: Scenario) -> Forecast:
    """The memory of a GPU; finding a figure that no pass can beat takes as long as the pass."""
    assert isinstance(scenario.workload, Inference)
    kept, requests = batch_of(scenario, scenario.workload)
    return Forecast(
        lambda: run_inference(scenario, lambda _: None)["metrics"], named_parts(kept.parts(requests))
    )


RUNNER = Runner(run_inference, reads=(*LINKS, *COMPUTE), forecast=forecast_inference)
