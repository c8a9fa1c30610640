"""Keys of a training step, as a scenario writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sim.scenario.packing import PackingSpec
from sim.scenario.precision import CombineDtype, DispatchDtype, PrecisionKey
from sim.scenario.routing import NCCL, GateSpec, KernelSpec, UniformGate
from sim.scenario.training_run import Recompute, RunSpec
from sim.scenario.values import MAX_MICROBATCHES, Branch, Count, CpComm, Index, SpreadSpec, WorkloadSpec
from sim.schemas import Fraction

_ROUTED_LOAD = 0.075
"""Of the rows that expert kernels of a training trace were launched for, routing said to be balanced."""


class SkewSpec(SpreadSpec):
    """Lognormal standard deviations between ranks. All 0 is a balanced step."""

    routed_load: Fraction | None = None
    """Spread of a rank's routed tokens, drawn for each (layer, microbatch, rank). Left out 7.5 %, and 0 of a gate that balances."""
    groups: Literal["one", "all"] = "one"
    """EP groups that are drawn: one of each pipeline rank, which stands for all of it, or every one."""


class OptimizerSpec(Branch):
    """Kind, formats and places of the optimizer's states; left out they are DeepSeek-V3's."""

    kind: Literal["adamw", "muon"] = "adamw"
    """muon: matrices have one moment and are orthogonalised; embedding and head stay with AdamW."""
    moments: Literal["bf16", "fp32"] = "bf16"
    """Format of the moments."""
    master: Literal["fp32"] = "fp32"
    """Format of the master weights."""
    gradients: Literal["fp32", "bf16"] = "fp32"
    """Format in which gradients are summed up, kept and reduced."""
    shard: Literal["zero1", "zero2", "zero3"] = "zero1"
    """Parts that data-parallel ranks share out: states; gradients too, reduced in every microbatch; weights too, gathered for each."""
    offload: Literal["none", "cpu"] = "none"
    """cpu: states and update are the host's."""
    overlap: bool = False
    """Reductions run next to compute as far as they have room there."""


class TrainingSpec(WorkloadSpec):
    """One optimizer step, and with `run` a whole run of them."""

    kind: Literal["training"]
    sequence_tokens: Count = 4096
    microbatch_sequences: Count = 1
    microbatches: Annotated[Count, Field(le=MAX_MICROBATCHES)] | None = None
    """Microbatches of one pipeline in a step (both directions together, where a schedule has two)."""
    global_batch: Count | None = None
    """Sequences of one step over all data-parallel ranks; microbatches follow from it and the layout."""
    schedule: Literal["gpipe", "1f1b", "interleaved", "zb1p", "zb2p", "dualpipe", "dualpipev"] = "dualpipe"
    chunks: Count | None = None
    """Stages a rank, for `interleaved`."""
    stage_layers: list[Index] | None = None
    """Layers of each stage; balanced when left out."""
    stages: Annotated[str, Field(max_length=10_000)] | None = None
    """Blocks of each stage as Megatron-LM writes them, in place of `stage_layers`: `Et|(tt|)*30mL`."""
    overlap: bool | Literal["auto"] | None = None
    """True: all-to-alls run next to compute of another microbatch, in pairs of operations that are neighbours in the schedule.

    A forward and a backward: in DualPipe; in `interleaved`, with one microbatch more in flight; in `1f1b`, with twice as many. A
    weight part and a forward: in `zb1p` and `zb2p`, with a longer fill. `gpipe` has no such neighbours. Left out, pairs are formed
    where they cost no more than that one microbatch. `auto`: where the step is quicker by them, ranks being alike, and fits.
    """
    packing: PackingSpec | None = None
    """Documents of unequal length in a sequence; left out, each sequence is one document."""
    gate: GateSpec = UniformGate(kind="uniform")
    """Mean copies a token; the spread around them is `skew`."""
    kernel: KernelSpec = NCCL
    """The all-to-all kernel; only a model with one expert can do without."""
    dispatch_dtype: DispatchDtype = "fp8"
    combine_dtype: CombineDtype = "bf16"
    precision: PrecisionKey = None
    """Number formats of the layers' GEMMs, left out FP8 where the GPU has it; heads and gates are BF16. nvfp4, int8
    and w4a8 are of inference alone."""
    compute: Literal["modelled", "measured"] = "modelled"
    profile: str | None = None
    """A measured compute profile, with `compute: measured`."""
    gemm_generation: str = "march_2025"
    """Generation of the GEMM library."""
    cp_comm: CpComm = "all_gather"
    recompute: Recompute = "selective"
    optimizer: OptimizerSpec = OptimizerSpec()
    skew: SkewSpec = SkewSpec()
    run: RunSpec | None = None

    @property
    def routed_spread(self) -> float:
        """Spread of a rank's routed tokens around what the gate gives it [fraction]."""
        if self.skew.routed_load is not None:
            return self.skew.routed_load
        return 0.0 if self.gate.kind == "balanced" else _ROUTED_LOAD

    @property
    def chunks_per_rank(self) -> int:
        """Stages of a pipeline rank [count]; DualPipe's two are copies, and count once."""
        return self.chunks or (2 if self.schedule in ("interleaved", "dualpipev") else 1)
