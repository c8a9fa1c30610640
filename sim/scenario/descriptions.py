"""What a scenario resolves to: frozen descriptions, SI units, nothing left to look up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cost.measured import MeasuredProfile
from sim.errors import Mark
from sim.schedule.flow_list import FlowTable
from sim.workload.gates import Gate
from sim.workload.layout import Layout
from sim.workload.model import Model
from sim.workload.requests import Requests
from sim.workload.skew import Skew


@dataclass(frozen=True, slots=True)
class AllToAll:
    """A dispatch and a combine of every EP group, ready to be routed."""

    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]  # nvlink, copies, pxn: what the kernel's kind has
    tokens_per_rank: int
    bytes_per_rank: float | None  # a plain exchange instead of tokens
    gate: Gate | None
    sampling: str
    dispatch_dtype: str
    combine_dtype: str
    redundant_experts: int
    placement: str


@dataclass(frozen=True, slots=True)
class FlowList:
    """Flows from a CSV on a bare fabric or a cluster, read."""

    table: FlowTable


@dataclass(frozen=True, slots=True)
class Training:
    """An optimizer step, ready to be planned."""

    layout: Layout
    schedule: str
    schedule_options: dict[str, Any]
    num_microbatches: int
    sequences: int
    sequence_tokens: int
    stage_layers: tuple[int, ...] | None
    overlap: bool
    gate: Gate
    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]
    dispatch_dtype: str
    combine_dtype: str
    precision: str
    measured: MeasuredProfile | None
    generation: str
    recompute: str
    skew: Skew
    run: TrainingRun | None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A whole run: tokens [count], price [$/GPU-hour], power of one GPU with its share of everything [W]."""

    tokens: float
    price_usd: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Inference:
    """One EP group that prefills or decodes, ready to be planned."""

    kind: str  # prefill | decode
    layout: Layout
    overlap: bool
    gate: Gate
    sampling: str
    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]
    placement: str
    redundant_experts: int
    drawn_layers: int
    dispatch_dtype: str
    combine_dtype: str
    precision: str
    kv_dtype: str
    fused_gate: bool
    generation: str
    reserve_fraction: float
    graphs_bytes: float
    requests: int | None  # of a GPU: prompts of a prefill; None for as many as fit
    context_tokens: int  # of a request in the cache; of a whole prompt
    step_tokens: int  # of a request, computed at once
    cached_tokens: int  # of a prompt
    acceptance_fraction: float


@dataclass(frozen=True, slots=True)
class Serving:
    """Requests and two pools of instances; each pool's instance is a scenario of its own."""

    requests: Requests
    prefill: Scenario
    decode: Scenario
    num_prefill: int
    num_decode: int  # 0: the prefill instances decode too
    batch_tokens: int  # of a GPU in one prefill pass
    requests_per_gpu: int | None  # of a decode step; None for as many as fit
    policy: str
    cached_fraction: float
    ttft_s: float | None  # objectives
    tpot_s: float | None
    until_s: float | None


@dataclass(frozen=True, slots=True)
class Expectation:
    """A published value that a metric must meet."""

    metric: str
    value: float
    tolerance_fraction: float
    source: str | None
    mark: Mark | None = None  # where the scenario names the metric


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, resolved."""

    name: str
    title: str
    seed: int
    fidelity: str
    hardware: Hardware | None
    num_nodes: int
    fabric: topology.Fabric | topology.LeafSpine
    faults: tuple[topology.LinkFault, ...]
    model: Model | None
    ep: int
    workload: AllToAll | FlowList | Training | Inference | Serving
    expectations: tuple[Expectation, ...]
    document: dict[str, Any] = field(repr=False)
    settings: tuple[str, ...] = ()  # what was laid over the file, `key.path=value`

    @property
    def num_ranks(self) -> int:
        """GPUs of the cluster."""
        return self.num_nodes * (self.hardware.gpu.scale_up.domain if self.hardware else 1)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one scale-up domain."""
        joined = isinstance(self.fabric, topology.Fabric) and self.fabric.kind == "scale_up"
        return self.num_ranks if joined else self.num_ranks // self.num_nodes

    def cluster(self) -> topology.Cluster:
        """The cabled cluster."""
        if isinstance(self.fabric, topology.LeafSpine):
            return topology.build_leaf_spine(self.fabric)
        assert self.hardware is not None
        return topology.build(self.hardware, self.num_nodes, self.fabric, self.faults)
