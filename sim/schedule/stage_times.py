"""Compute times of the stages of a pipeline: which layers, heads and modules a stage has, at what speed.

Two speeds each. *Alone*: all SMs compute, as in forward and backward chunks that run by themselves. *Beside* (next to
communication): in an overlapped pair the SMs lent to communication are gone, and the bytes that the all-to-alls move
through HBM take their share of its rate (from the compute time, inserted once).

The part that is proportional to the routed load comes from asking for a tenth more rows: launches of the experts grow
with the rows they get, everything else of a layer does not. TP and CP share a layer but for the experts (`cost.shares`): those
of a rank are its own, and the rows that come to it are already fewer. Their reductions are waited for; in a pair the all-to-alls
are on the same links meanwhile, so they have what is left of these, as compute has of HBM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cost import ends
from sim.cost import layers as ops
from sim.cost.compute import Processor, processor
from sim.cost.launches import ComputeTime, Launch, Phase, RankBatch, count, launches_s, phase_time
from sim.cost.measured import MeasuredProfile
from sim.cost.recompute import recomputed
from sim.cost.shares import shared
from sim.schedule.collectives import record_bytes
from sim.schedule.context_parallel import ring_exposed_s
from sim.schedule.programs import LayerTimes, LoadSpread, PhaseTime
from sim.schedule.training import StageTimes
from sim.workload.formats import Precision
from sim.workload.layout import Layout, split_experts
from sim.workload.model import Model
from sim.workload.packing import Documents
from sim.workload.shape import Layer, firsts
from sim.workload.stages import Stage

_MORE = 1.1
_ALIKE = 1e-12  # times that differ by less of their mean are one
_FIELDS = {
    "attn_f": "attn(F)",
    "mlp_f": "mlp(F)",
    "attn_b": "attn(B)",
    "mlp_b": "mlp(B)",
    "attn_w": "attn(W)",
    "mlp_w": "mlp(W)",
}


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """Work of one rank in one chunk, and how ranks share it."""

    model: Model
    layout: Layout
    sequences: int
    sequence_tokens: int
    ranks_per_token: float
    formats: Precision
    recompute: str | tuple[str, ...] = "selective"
    documents: Documents | None = None
    passes_keys_on: bool = False

    @property
    def tokens(self) -> float:
        """Tokens of one rank after TP and CP have cut the sequence [count]."""
        return self.sequences * self.sequence_tokens / (self.layout.tp * self.layout.cp)

    @property
    def split_model(self) -> Model:
        """The model with its routed experts as wide as a rank has them."""
        return split_experts(self.model, self.layout.etp)

    def batch(self, load: float = 1.0) -> RankBatch:
        """The batch of one data-parallel rank, with `load` times the mean rows on its experts."""
        local = max(1, self.model.num_experts // self.layout.ep)
        sharing = self.layout.ep * self.layout.etp
        rows = self.tokens * self.model.top_k * sharing / self.model.num_experts * load
        return RankBatch(
            sequences=self.sequences,
            sequence_tokens=self.sequence_tokens,
            expert_rows=(round(rows),) * local,
            received_tokens=self.tokens * self.ranks_per_token * self.layout.etp * load,
            precision=self.formats.dense,
            attention=self.formats.cores,
            recomputed=recomputed(self.recompute),
            tp=self.layout.tp,
            cp=self.layout.cp,
            documents=self.documents,
            blocks=self.layout.cp if self.passes_keys_on else 1,
        )


@dataclass(frozen=True, slots=True)
class Sharded:
    """Reductions of ZeRO-2 and 3 of a layer, on idle links.

    Parameters
    ----------
    gather_s, scatter_s : function [s]
        Of a layer: time to gather its weights, before its forward and before its backward, and to scatter its gradients.
    beside : bool
        They run next to the compute of a layer, and what is longer than it is exposed.
    """

    gather_s: Callable[[Layer], float]
    scatter_s: Callable[[Layer], float]
    beside: bool

    def exposed_s(self, layer: Layer, times: Mapping[str, PhaseTime]) -> dict[str, float]:
        """Half of a layer's compute ("f", "b", "w") -> what is exposed there [s]."""
        asked = {"f": self.gather_s(layer), "b": self.gather_s(layer), "w": self.scatter_s(layer)}
        free = {half: times[f"attn_{half}"].mean_s + times[f"mlp_{half}"].mean_s for half in asked}
        return {half: max(0.0, took - free[half] * self.beside) for half, took in asked.items()}


def stage_times(
    work: ChunkWork,
    stages: Sequence[Stage],
    hardware: Hardware,
    kernel: Kernel,
    *,
    comm_sms: int,
    generation: str,
    inside_s: Callable[[float], Mapping[str, float]] | None = None,
    all_to_alls_s: float = math.inf,
    recompute: str | Sequence[str] | None = None,
    measured: MeasuredProfile | None = None,
    sharded: Sharded | None = None,
) -> tuple[StageTimes, ...]:
    """Times of every stage.

    Parameters
    ----------
    work : ChunkWork
    stages : sequence of Stage
    hardware : Hardware
    kernel : Kernel
        The all-to-all kernels, whose traffic takes its share of HBM.
    comm_sms : int [count]
        SMs that overlapped pairs lend to communication.
    generation : str
        Of the GEMM kernels; see `cost.compute.processor`.
    inside_s : function, optional [s]
        Phase ("attn(F)", "mlp(F)" of a dense layer, "experts(F)", "head(F)" of an end) -> time of its reductions under TP, CP
        and ETP, which nothing hides, and "ring(F)", "ring(B)" -> a step of the ring of CP, which cores of attention hide; of the time in which the all-to-alls of a layer pair take their share of the links, inf
        where they take none.
    all_to_alls_s : float [s]
        Time of those of a layer pair next to compute: while they run, they hold the SMs that are lent.
    recompute : str or sequence of str, optional
        In place of the work's: "full", where the backward computes each layer's forward again, dispatch included; "moe" among
        modules, where it does so with the gate and the experts; else what the launches of a layer's backward hold.
    measured : MeasuredProfile, optional
        Times of an MoE layer as a machine showed them; what it does not hold (dense layers, heads) is modelled.
    sharded : Sharded, optional
        Reductions of ZeRO-2 and 3, which come with each layer of each microbatch.

    Returns
    -------
    tuple of StageTimes, [num_stages]
    """
    if recompute is not None:
        work = replace(work, recompute=recompute if isinstance(recompute, str) else tuple(recompute))
    alone = processor(hardware, sustained=True, generation=generation)
    beside = _lent_processor(work, hardware, kernel, comm_sms, generation)
    beside = _while_lent(work, beside, all_to_alls_s)
    factors = _measured_factors(work, beside, measured) if measured else {}

    def timed(p: Processor, pair_s: float) -> list[tuple[LayerTimes, ...]]:
        inside = inside_s(pair_s) if inside_s else {}
        layer = lru_cache(maxsize=None)(partial(_layer, work, p, inside, factors, sharded))
        plain = lru_cache(maxsize=None)(partial(_plain, work, p, inside))
        return [_layers(work.model, stage, layer, plain) for stage in stages]

    both = timed(alone, math.inf), timed(beside, _compute_s(work, beside))
    return tuple(StageTimes(*pair) for pair in zip(*both, strict=True))


def measured_fraction(
    work: ChunkWork,
    hardware: Hardware,
    kernel: Kernel,
    measured: MeasuredProfile,
    *,
    comm_sms: int,
    generation: str,
) -> dict[str, float]:
    """Phase ("attn(F)") of an MoE layer -> measured over modelled time, by which `stage_times` corrects what it models."""
    return _measured_factors(work, _lent_processor(work, hardware, kernel, comm_sms, generation), measured)


def _lent_processor(
    work: ChunkWork, hardware: Hardware, kernel: Kernel, comm_sms: int, generation: str
) -> Processor:
    """The processor of an overlapped pair, less what it lends to communication."""
    return processor(
        hardware,
        sms=hardware.gpu.sms - comm_sms,
        sustained=True,
        generation=generation,
        hbm_share_fraction=_hbm_share(work, hardware, kernel, comm_sms, generation),
    )


def _while_lent(work: ChunkWork, p: Processor, all_to_alls_s: float) -> Processor:
    """The processor with the part of a pair's time in which SMs are lent; the longer the pair takes, the smaller the part."""
    if p.sms == p.whole_sms or all_to_alls_s == math.inf:
        return p
    for _ in range(4):  # a fixed point, each step of which halves the distance at least
        p = replace(p, lent_fraction=min(1.0, all_to_alls_s / _compute_s(work, p)))
    return p


def _hbm_share(work: ChunkWork, hardware: Hardware, kernel: Kernel, comm_sms: int, generation: str) -> float:
    """Share that the all-to-alls of a layer pair leave of the HBM rate while the pair computes [fraction]."""
    p = processor(hardware, sms=hardware.gpu.sms - comm_sms, sustained=True, generation=generation)
    compute_s = _compute_s(work, p)
    received = 2 * work.tokens * work.ranks_per_token  # of the forward and of the backward half
    formats = (("dispatch", "fp8" if work.formats.dense == "fp8" else "bf16"), ("combine", "bf16"))
    touched = sum(
        kernel.hbm_touches[direction]
        * record_bytes(kernel.kind, direction, dtype, work.model.routed_width, work.model.top_k)
        for direction, dtype in formats
    )
    return max(0.1, 1.0 - received * touched / (compute_s * hardware.gpu.hbm.bandwidth_bytes_per_s))


def _compute_s(work: ChunkWork, p: Processor) -> float:
    """Compute of a layer pair, of packed documents the mean microbatch's [s]."""
    phases = ops.layer_times(p, work.split_model, work.batch()).values()
    return sum(_apart(phase.total_s, work.documents)[0] for phase in phases)


def _measured_factors(work: ChunkWork, beside: Processor, measured: MeasuredProfile) -> dict[str, float]:
    """Measured over modelled time of each phase of an MoE layer next to communication [ratio]."""
    modelled = ops.layer_times(beside, work.model, replace(work.batch(), tp=1, cp=1))
    return {name: measured.phases[name].elapsed_s / modelled[name].total_s for name in _FIELDS.values()}


def _layers(
    model: Model,
    stage: Stage,
    layer: Callable[[bool, int], LayerTimes],
    plain: Callable[[Callable[..., list[Launch]]], LayerTimes],
) -> tuple[LayerTimes, ...]:
    """The blocks of a stage, by the times of a `layer` (dense or not, like which one) and of `plain` launches."""

    kinds = firsts(model)

    def numbered(number: int) -> LayerTimes:
        dense = number < model.num_layers and model.is_dense(number)
        return replace(layer(dense, kinds[number]), layer=number)

    blocks: list[LayerTimes] = []
    if stage.embedding:
        blocks.append(plain(ends.embedding))
    blocks += [numbered(number) for number in stage.layers]
    if stage.head:
        blocks += [plain(ends.head)] * (1 + stage.num_mtp_before)
    for module in range(stage.num_mtp_before, stage.num_mtp_before + stage.num_mtp):
        blocks += [plain(ends.mtp_projection), numbered(model.num_layers + module)]
        blocks += [plain(ends.head)] if stage.head else []
    return tuple(blocks)


def _layer(
    work: ChunkWork,
    p: Processor,
    exposed_s: Mapping[str, float],
    factors: Mapping[str, float],
    sharded: Sharded | None,
    dense: bool,
    layer_idx: int,
) -> LayerTimes:
    """Times of a layer whose attention is that of layer `layer_idx`; it has no number of its own yet."""

    def phases(model: Model, load: float) -> Mapping[str, ComputeTime]:
        return ops.layer_times(p, model, work.batch(load), dense=dense, layer_idx=layer_idx)

    model = work.split_model
    mean = phases(model, 1.0)
    more = mean if dense else phases(model, _MORE)
    issued = ops.layer_phases(model, work.batch(), dense=dense, layer_idx=layer_idx)
    times: dict[str, PhaseTime] = {}
    for field, phase in _FIELDS.items():
        total, unequal, spread = _apart(mean[phase].total_s, work.documents)
        routed = min(
            max((_apart(more[phase].total_s, work.documents)[0] - total) / (_MORE - 1.0), 0.0), total
        )
        factor = 1.0 if dense else factors.get(phase, 1.0)
        routed = unequal if spread else routed
        times[field] = PhaseTime(
            (total - routed) * factor,
            routed * factor,
            exposed_s.get(phase if dense else phase.replace("mlp", "experts"), 0.0)
            + sum(_ring_exposed_s(work, p, launch, exposed_s) for launch in issued[phase]),
            memory_s=_apart(mean[phase].memory_bound_s, work.documents)[0] * factor,
            launches=count(issued[phase]),
            spread=spread,
        )
    if sharded:
        for half, exposed in sharded.exposed_s(work.model.layer(layer_idx), times).items():
            own_times = times[f"attn_{half}"]
            times[f"attn_{half}"] = replace(own_times, exposed_s=own_times.exposed_s + exposed)
    gate = None
    if not dense and "moe" in recomputed(work.recompute):
        again = ops.gate(model, work.batch())
        once = phase_time(p, again)
        gate = PhaseTime(once.total_s, memory_s=once.memory_bound_s, launches=count(again))
    return LayerTimes(
        layer=layer_idx,
        communicates=not dense and work.layout.ep > 1,
        again=work.recompute == "full",
        gate_f=gate,
        **times,
    )


def _ring_exposed_s(work: ChunkWork, p: Processor, launch: Launch, inside_s: Mapping[str, float]) -> float:
    """Time by which the ring of CP is longer than a core of attention [s]; 0 of other launches, and of keys that are gathered."""
    half = {"attention_forward": "F", "attention_backward": "B"}.get(launch.kind, "")
    step_s = inside_s.get(f"ring({half})", 0.0)
    if not step_s:
        return 0.0
    return ring_exposed_s(step_s, _apart(launches_s(p, launch), work.documents)[0], work.layout.cp)


def _apart(time_s: Any, documents: Documents | None) -> tuple[float, float, LoadSpread | None]:
    """Mean of a time by microbatch [s], its part above the least [s], and how this one differs; of a single time, that alone."""
    if isinstance(time_s, float):
        return time_s, 0.0, None
    assert documents is not None
    mean, least = float(time_s.mean()), float(time_s.min())
    if documents.even or time_s.max() - least <= _ALIKE * mean:
        return mean, 0.0, None
    return mean, mean - least, LoadSpread((time_s - least) / (mean - least))


def _plain(
    work: ChunkWork, p: Processor, exposed_s: Mapping[str, float], launches: Callable[..., list[Launch]]
) -> LayerTimes:
    """Embedding, head or projection as a block of its own, without an all-to-all."""
    batch = work.batch()

    def timed(phase: Phase) -> PhaseTime:
        issued = shared(launches(work.model, batch, phase), batch.tp, batch.cp)
        t = phase_time(p, issued)
        waited_s = exposed_s.get(f"{launches.__name__}({phase})", 0.0)
        return PhaseTime(t.total_s, exposed_s=waited_s, memory_s=t.memory_bound_s, launches=count(issued))

    f, b, w = map(timed, ops.PHASES)
    none = PhaseTime()
    return LayerTimes(-1, False, attn_f=none, mlp_f=f, attn_b=none, mlp_b=b, attn_w=none, mlp_w=w)
