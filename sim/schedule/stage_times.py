"""Compute times of the stages of a pipeline: which layers, heads and modules a stage has, at what speed.

Two speeds each. *Alone*: all SMs compute, as in forward and backward chunks that run by themselves. *Beside*: in an
overlapped pair the SMs lent to communication are gone, and the bytes that the all-to-alls move through HBM take their
share of its rate (found by inserting the compute time once).

What is proportional to the routed load is found by asking for a tenth more rows: kernels of the experts grow with the
rows they get, everything else of a layer does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cost import ends
from sim.cost import layers as ops
from sim.cost.compute import Processor, processor
from sim.cost.measured import MeasuredProfile
from sim.cost.operations import Batch, phase_time
from sim.schedule.programs import LayerTimes, PhaseTime
from sim.schedule.training import StageTimes
from sim.workload.layout import Layout
from sim.workload.model import GQA, Model
from sim.workload.stages import Stage
from sim.workload.traffic import record_bytes

_MORE = 1.1
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
    """What one rank computes on in one chunk, and how ranks share it."""

    model: Model
    layout: Layout
    sequences: int
    sequence_tokens: int
    ranks_per_token: float
    precision: str  # fp8 | bf16

    @property
    def tokens(self) -> float:
        """Tokens of one rank after TP and CP have cut the sequence [count]."""
        return self.sequences * self.sequence_tokens / (self.layout.tp * self.layout.cp)

    def batch(self, load: float = 1.0) -> Batch:
        """The batch of one data-parallel rank, with `load` times the mean rows on its experts."""
        local = max(1, self.model.num_experts // self.layout.ep)
        rows = self.tokens * self.model.top_k * self.layout.ep / self.model.num_experts * load
        return Batch(
            sequences=self.sequences,
            sequence_tokens=self.sequence_tokens,
            expert_rows=(round(rows),) * local,
            received_tokens=self.tokens * self.ranks_per_token * load,
            precision="fp8" if self.precision == "fp8" else "bf16",
        )


def stage_times(
    work: ChunkWork,
    stages: Sequence[Stage],
    hardware: Hardware,
    kernel: Kernel,
    *,
    comm_sms: int,
    generation: str,
    exposed_s: Mapping[str, float] | None = None,
    recompute: str = "selective",
    measured: MeasuredProfile | None = None,
) -> tuple[StageTimes, ...]:
    """Times of every stage.

    Parameters
    ----------
    comm_sms : int [count]
        SMs that overlapped pairs lend to communication.
    generation : str
        Of the GEMM kernels; see `cost.compute.processor`.
    exposed_s : mapping, optional [s]
        Phase ("attn(F)") -> time of its reductions under TP and CP; nothing hides them.
    recompute : str
        "full": the backward computes each layer's forward again, dispatch included. Otherwise what the kernels of a
        layer's backward hold: norms, up-projections of MLA, and SwiGLU are computed again.
    measured : MeasuredProfile, optional
        Times of an MoE layer as a machine showed them; what it does not hold (dense layers, heads) is modelled.
    """
    alone = processor(hardware, sustained=True, generation=generation)
    beside = processor(
        hardware,
        sms=hardware.gpu.sms - comm_sms,
        sustained=True,
        generation=generation,
        hbm_share_fraction=_hbm_share(work, hardware, kernel, comm_sms, generation),
    )
    factors = _measured_factors(work, beside, measured) if measured else {}
    inside, again = exposed_s or {}, recompute == "full"

    def timed(stage: Stage, p: Processor) -> tuple[LayerTimes, ...]:
        return tuple(
            replace(x, again=again and x.layer >= 0) for x in _layers(work, stage, p, inside, factors)
        )

    return tuple(StageTimes(timed(stage, alone), timed(stage, beside)) for stage in stages)


def _hbm_share(work: ChunkWork, hardware: Hardware, kernel: Kernel, comm_sms: int, generation: str) -> float:
    """What the all-to-alls of a layer pair leave of the HBM rate while the pair computes [fraction]."""
    p = processor(hardware, sms=hardware.gpu.sms - comm_sms, sustained=True, generation=generation)
    compute_s = sum(one.total_s for one in ops.layer_times(p, work.model, work.batch()).values())
    received = 2 * work.tokens * work.ranks_per_token  # of the forward and of the backward half
    formats = (("dispatch", "fp8" if work.precision == "fp8" else "bf16"), ("combine", "bf16"))
    touched = sum(
        kernel.hbm_touches.of(direction)
        * record_bytes(kernel.name, direction, dtype, work.model.hidden, work.model.top_k)
        for direction, dtype in formats
    )
    return max(0.1, 1.0 - received * touched / (compute_s * hardware.gpu.hbm.bandwidth_bytes_per_s))


def _measured_factors(work: ChunkWork, beside: Processor, measured: MeasuredProfile) -> dict[str, float]:
    """Measured over modelled time of each phase of an MoE layer beside communication [ratio]."""
    modelled = ops.layer_times(beside, work.model, work.batch())
    return {name: measured.phases[name].elapsed_s / modelled[name].total_s for name in _FIELDS.values()}


def _layers(
    work: ChunkWork, stage: Stage, p: Processor, exposed_s: Mapping[str, float], factors: Mapping[str, float]
) -> tuple[LayerTimes, ...]:
    model = work.model
    found: list[LayerTimes] = []
    if stage.embedding:
        found.append(_plain(work, p, ends.embedding))
    for layer in stage.layers:
        found.append(_layer(work, p, layer, model.is_dense(layer), exposed_s, factors))
    if stage.head:
        found.append(_plain(work, p, ends.head))
    for module in range(stage.num_mtp):
        found.append(_plain(work, p, ends.mtp_projection))
        found.append(_layer(work, p, model.num_layers + module, False, exposed_s, factors))
        found.append(_plain(work, p, ends.head))
    return tuple(found)


def _layer(
    work: ChunkWork,
    p: Processor,
    layer: int,
    dense: bool,
    exposed_s: Mapping[str, float],
    factors: Mapping[str, float],
) -> LayerTimes:
    shape_idx = _like(work.model, min(layer, work.model.num_layers - 1))
    mean = ops.layer_times(p, work.model, work.batch(), dense=dense, layer_idx=shape_idx)
    more = (
        mean if dense else ops.layer_times(p, work.model, work.batch(_MORE), dense=dense, layer_idx=shape_idx)
    )
    shared = work.layout.tp * work.layout.cp
    times: dict[str, PhaseTime] = {}
    for field, phase in _FIELDS.items():
        total = mean[phase].total_s
        routed = min(max((more[phase].total_s - total) / (_MORE - 1.0), 0.0), total)
        factor = 1.0 if dense else factors.get(phase, 1.0)
        times[field] = PhaseTime(
            (total - routed) * factor / shared, routed * factor, exposed_s.get(phase, 0.0)
        )
    return LayerTimes(layer=layer, exchanges=not dense and work.layout.ep > 1, again=False, **times)


def _like(model: Model, layer: int) -> int:
    """The first layer with the same attention."""
    return layer % model.attention.full_every if isinstance(model.attention, GQA) else 0


def _plain(work: ChunkWork, p: Processor, kernels: object) -> LayerTimes:
    """Embedding, head or projection as a block of its own, without an exchange."""
    assert callable(kernels)
    batch, shared = work.batch(), work.layout.tp * work.layout.cp
    f, b, w = (
        PhaseTime(phase_time(p, kernels(work.model, batch, phase)).total_s / shared)
        for phase in ("F", "B", "W")
    )
    none = PhaseTime()
    return LayerTimes(-1, False, attn_f=none, mlp_f=f, attn_b=none, mlp_b=b, attn_w=none, mlp_w=w)
