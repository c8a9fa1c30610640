"""Times and sizes by arithmetic, before any simulation.

A researcher takes a `processor` of some hardware and asks for the time of a GEMM (`gemm_s`, `grouped_gemm_s`), of an attention
core (`attention_forward_s`, `mla_decode_s`) or of all launches of a layer (`layer_times`), and for the memory of a training run
(`training_memory`) or of a deployment (`footprint`).
"""

from typing import TYPE_CHECKING

from sim.exports import exported

if TYPE_CHECKING:
    from sim.cost.activations import stage_activation_bytes
    from sim.cost.attention import attention_backward_s, attention_forward_s, gqa_decode_s, mla_decode_s
    from sim.cost.compute import Processor, gemm_s, grouped_gemm_s, processor, weight_gemm_s
    from sim.cost.curves import Curves, load_curves
    from sim.cost.deployment import Footprint, footprint, require_batch
    from sim.cost.ends import embedding, head, mtp_projection
    from sim.cost.goodput import best_every_s, ettr_fraction
    from sim.cost.launches import ComputeTime, Launch, RankBatch, launches_s, phase_time
    from sim.cost.layers import layer_phases, layer_times
    from sim.cost.measured import MeasuredProfile, load_profile
    from sim.cost.memory import (
        RankMemory,
        buffer_bytes,
        fits,
        require_fit,
        uniform_ranks_per_token,
    )
    from sim.cost.memory import memory as training_memory
    from sim.cost.optimizer import Optimizer, newton_schulz_flops
    from sim.cost.power import Activity, Energy, Machines, PowerCurve, Stated, energy, load_power
    from sim.cost.prefill import (
        PrefillBatch,
        prefill_attention,
        prefill_dense,
        prefill_experts,
        prefill_shared,
    )
    from sim.cost.recipe import Recipe
    from sim.cost.serving_kernels import (
        DecodeBatch,
        decode_attention_0,
        decode_attention_1,
        decode_dense,
        decode_experts,
        decode_shared,
    )
    from sim.cost.streaming import streaming_s
    from sim.cost.tpot import TpotBound, tpot_bound
    from sim.cost.work import Work, launch_work

__all__ = [
    "Activity",
    "ComputeTime",
    "Curves",
    "DecodeBatch",
    "Energy",
    "Footprint",
    "Launch",
    "Machines",
    "MeasuredProfile",
    "Optimizer",
    "PowerCurve",
    "PrefillBatch",
    "Processor",
    "RankBatch",
    "RankMemory",
    "Recipe",
    "Stated",
    "TpotBound",
    "Work",
    "attention_backward_s",
    "attention_forward_s",
    "best_every_s",
    "buffer_bytes",
    "decode_attention_0",
    "decode_attention_1",
    "decode_dense",
    "decode_experts",
    "decode_shared",
    "embedding",
    "energy",
    "ettr_fraction",
    "fits",
    "footprint",
    "gemm_s",
    "gqa_decode_s",
    "grouped_gemm_s",
    "head",
    "launch_work",
    "launches_s",
    "layer_phases",
    "layer_times",
    "load_curves",
    "load_power",
    "load_profile",
    "mla_decode_s",
    "mtp_projection",
    "newton_schulz_flops",
    "phase_time",
    "prefill_attention",
    "prefill_dense",
    "prefill_experts",
    "prefill_shared",
    "processor",
    "require_batch",
    "require_fit",
    "stage_activation_bytes",
    "streaming_s",
    "tpot_bound",
    "training_memory",
    "uniform_ranks_per_token",
    "weight_gemm_s",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy
