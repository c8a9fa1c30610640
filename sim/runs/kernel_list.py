"""The compute launches of one layer for one microbatch on one GPU: the points of a roofline (`kernels` of a result).

Of the layers with experts the first, or the first of all; by phase of a training layer (`attn(F)`), or part of a pass
(`attention_1`). A training layer is listed as it runs alone, on all SMs; a pass as it runs. Under TP and CP a launch has its
share of the group's work (`cost.shares`). `roofs` are datasheet rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sim.cluster.hardware import Hardware
from sim.cost.compute import Dtype, processor
from sim.cost.layers import layer_phases
from sim.cost.work import Work, dense_peaks, gemm, launch_work, mla_decode, part

if TYPE_CHECKING:
    from sim.runs.passes import ForwardPass
    from sim.schedule.stage_times import ChunkWork

_SHAPE = (4096, 7168)
"""n and k of the GEMM that shows a profile: what an expert of DeepSeek-V3 does first."""
_ROWS = tuple(2**i for i in range(15))
_CONTEXT_TOKENS = 4096


def training_launches(hardware: Hardware, chunk: ChunkWork, generation: str) -> dict[str, Any]:
    """List the launches of a layer of a training step by the work of one chunk, and roofs; `generation` of its GEMM kernels."""
    p, model = processor(hardware, sustained=True, generation=generation), chunk.model
    layer = next((i for i in range(model.num_layers) if not model.is_dense(i)), 0)
    operations = layer_phases(chunk.split_model, chunk.batch(), dense=model.is_dense(layer), layer_idx=layer)
    phases = {name: part(*(launch_work(p, op) for op in own)) for name, own in operations.items()}
    return _listed(phases, hardware)


def pass_launches(forward: ForwardPass) -> dict[str, Any]:
    """List the launches of a layer with experts of a prefill or decode pass: `kernels` and `roofs` of the result document."""
    layer = {name: launches for name, launches in forward.needs.parts.items() if name != "dense"}
    return _listed(layer, forward.plan.hardware)


def hardware_launches(hardware: Hardware) -> dict[str, Any]:
    """List launches that show a profile's roofline: a GEMM by rows in each format, MLA's decode core by requests."""
    p, (n, k) = processor(hardware), _SHAPE
    formats: tuple[Dtype, ...] = ("bf16",) if hardware.gpu.dense_flops.fp8 is None else ("bf16", "fp8")
    phases = {
        f"GEMM of {n:,} x {k:,} in {dtype.upper()}": part(
            *(gemm(p, f"{m:,} rows", m, n, k, dtype) for m in _ROWS)
        )
        for dtype in formats
    }
    for queries in (1, 2):
        phases[f"MLA decode, {queries} {'query' if queries == 1 else 'queries'} a request"] = part(
            *(
                mla_decode(
                    p, f"{b} requests of {_CONTEXT_TOKENS:,} tokens", b, _CONTEXT_TOKENS, 128, latent_dim=512, rope_dim=64, queries=queries
                )
                for b in (1, 4, 16, 64, 256)
            )
        )  # fmt: skip
    return {
        "schema": "moesim.result/1",
        "name": hardware.name,
        "title": hardware.title,
        "metrics": {},
        "kernels": _rows(phases),
        "roofs": roofs(hardware),
    }


def roofs(hardware: Hardware, used: Iterable[str] = ()) -> dict[str, Any]:
    """Rates that no launch beats: dense peak by tensor rate, BF16, FP8 and those `used` [FLOP/s], and HBM [bytes/s]."""
    gpu = hardware.gpu
    peaks = {roof: rate for roof, rate in dense_peaks(gpu).items() if roof in ("bf16", "fp8", *used)}
    return {"peak_flops": peaks, "hbm_bytes_per_s": gpu.hbm.bandwidth_bytes_per_s}


def _listed(phases: Mapping[str, Mapping[str, Work]], hardware: Hardware) -> dict[str, Any]:
    rows = _rows(phases)
    return {"kernels": rows, "roofs": roofs(hardware, {row["dtype"] for row in rows})}


def _rows(phases: Mapping[str, Mapping[str, Work]]) -> list[dict[str, Any]]:
    """A row for each launch that computes or moves something; reductions between GPUs are none."""
    return [
        {
            "name": launch.name,
            "phase": phase,
            "dtype": launch.dtype,
            "flops": launch.flops,
            "bytes": launch.moved_bytes,
            "time_s": launch.time_s,
        }
        for phase, launches in phases.items()
        for launch in launches.values()
        if launch.flops or launch.moved_bytes
    ]
