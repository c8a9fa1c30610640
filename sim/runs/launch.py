"""One launch on one GPU: from a scenario to its time next to its bound."""

from __future__ import annotations

from sim.cluster.hardware import Hardware
from sim.cost import work as costs
from sim.cost.attention import attention_forward_s
from sim.cost.compute import Processor, processor
from sim.cost.curves import load_curves
from sim.cost.launches import Launch
from sim.cost.work import Work, dense_peaks
from sim.runs.kinds import COMPUTE, Progress, Result, Runner
from sim.scenario.descriptions import Scenario
from sim.scenario.launch import LaunchSpec, OneLaunch
from sim.workload.formats import CACHED, PRODUCTS


def run_launch(scenario: Scenario, progress: Progress) -> Result:
    """Time one launch; it has no links and no timeline."""
    assert isinstance(scenario.workload, OneLaunch)
    assert scenario.hardware is not None
    return {"metrics": launch_metrics(scenario.hardware, scenario.workload.spec), "links": {}, "timeline": {}}


def launch_metrics(hardware: Hardware, spec: LaunchSpec) -> dict[str, float | str]:
    """Time, bound, FLOPs and bytes of a launch.

    `binding` is `latency` where even the shortest launch takes longer than its bound.
    """
    sustained = spec.clock == "sustained"
    p = processor(hardware, sms=spec.sms, sustained=sustained, generation=spec.gemm_generation)
    work = _work(p, spec)
    compute_s = work.flops / dense_peaks(hardware.gpu)[work.dtype] if work.flops else 0.0
    hbm_s = work.moved_bytes / hardware.gpu.hbm.bandwidth_bytes_per_s
    bound_s = max(compute_s, hbm_s)
    binding = "compute" if compute_s > hbm_s else "hbm"
    if bound_s < load_curves().streaming.launch_s:
        binding = "latency"
    return {
        "time_s": work.time_s,
        "lower_bound_s": bound_s,
        "flops": work.flops,
        "bytes": work.moved_bytes,
        "binding": binding,
    }


def _work(p: Processor, spec: LaunchSpec) -> Work:
    if spec.op == "copy":
        assert spec.bytes is not None
        return costs.streaming(p, "copy", 2.0 * spec.bytes)
    assert spec.m is not None
    assert spec.n is not None
    assert spec.k is not None
    if spec.op == "attention":
        return _attention(p, spec, spec.m, spec.n, spec.k)
    rows = (spec.m,) * (spec.experts or 1)
    if spec.direction == "weight":
        op = Launch("weight gradient", "weight_gemm", dtype=spec.dtype, rows=rows, n=spec.n, k=spec.k)
        return costs.launch_work(p, op)
    if spec.op == "gemm":
        return costs.gemm(p, "gemm", spec.m, spec.n, spec.k, spec.dtype)
    return costs.grouped_gemm(p, "grouped gemm", rows, spec.n, spec.k, spec.dtype, layout=spec.rows)


def _attention(p: Processor, spec: LaunchSpec, queries: int, v: int, qk: int) -> Work:
    """A causal core; scores are credited where the mask leaves them."""
    assert spec.heads is not None
    heads, kv_heads = spec.heads, spec.kv_heads or spec.heads
    context = spec.context_tokens or queries
    roof = PRODUCTS[spec.dtype].roof
    if spec.direction == "decode":
        cache = CACHED["bf16" if spec.dtype == "bf16" else "fp8"].element_bytes
        if kv_heads == 1 and v < qk:
            return costs.mla_decode(
                p,
                "attention",
                spec.sequences,
                context,
                heads,
                latent_dim=v,
                rope_dim=qk - v,
                queries=queries,
                cache_bytes=cache,
                roof=roof,
            )
        width = (qk + v) // 2
        return costs.gqa_decode(
            p,
            "attention",
            spec.sequences,
            context,
            heads,
            kv_heads,
            width,
            queries=queries,
            cache_bytes=cache,
            roof=roof,
        )
    pairs = queries * (context - queries) + queries**2 / 2
    flops = 2.0 * spec.sequences * heads * (qk + v) * pairs
    if spec.direction == "backward":
        op = Launch(
            "attention", "attention_backward", dtype=spec.dtype, rows=(queries,), n=v, k=qk, flops=2.0 * flops,
            heads=heads, kv_heads=kv_heads, sequences=spec.sequences, context_tokens=float(queries),
        )  # fmt: skip
        return costs.launch_work(p, op)
    time_s = attention_forward_s(
        p, spec.sequences, queries, heads, qk, v, before_tokens=context - queries, roof=roof
    )
    moved = costs.attention_bytes(spec.sequences * queries, spec.sequences * context, heads, kv_heads, qk, v)
    moved_s = costs.streaming(p, "attention", moved).time_s
    return Work("attention", roof, flops, moved, max(time_s, moved_s))


RUNNER = Runner(run_launch, reads=COMPUTE)
