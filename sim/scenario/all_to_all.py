"""The all_to_all workload of a scenario, and the gate and kernel that every workload with experts names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sim.cluster.kernels import Kernel
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.precision import CombineDtype, DispatchDtype
from sim.scenario.routing import GateSpec, KernelSpec, PlacementSpec, gate_of, kernel_of, placement_of
from sim.scenario.values import Count, WorkloadSpec
from sim.schemas import Bytes
from sim.workload.gates import Gate

_AT = ("workload",)


class AllToAllSpec(WorkloadSpec):
    """One dispatch and one combine of every EP group; or a plain all-to-all of `bytes_per_rank`."""

    kind: Literal["all_to_all"]
    tokens_per_rank: Count | None = None
    bytes_per_rank: Bytes | None = None
    gate: GateSpec | None = None
    kernel: KernelSpec
    dispatch_dtype: DispatchDtype = "fp8"
    combine_dtype: CombineDtype = "bf16"
    placement: PlacementSpec = PlacementSpec()


@dataclass(frozen=True, slots=True)
class AllToAll(Workload):
    """A dispatch and a combine of every EP group, ready to be routed."""

    spec: AllToAllSpec
    gate: Gate | None
    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]  # nvlink, copies, pxn: what the kernel's kind has

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The one kernel."""
        return (self.kernel,)

    @property
    def sampling(self) -> str:
        """Sampling of the gate; a plain collective draws nothing."""
        return self.spec.gate.sampling if self.spec.gate else "expected"


def all_to_all_of(draft: Draft, spec: AllToAllSpec) -> AllToAll:
    """Resolve an all_to_all workload; the gate is None where it has problems, which the draft takes, or there is none."""
    at = _AT
    if (spec.tokens_per_rank is None) == (spec.bytes_per_rank is None):
        got = "neither" if spec.tokens_per_rank is None else "both"
        draft.problem(at, got, "either 'tokens_per_rank' (with a model and a gate) or 'bytes_per_rank'")
    plain = spec.bytes_per_rank is not None
    if plain and (spec.gate is not None or spec.placement.redundant_experts):
        key = "gate" if spec.gate is not None else "placement"
        draft.problem((*at, key), f"a {key}", "none next to bytes_per_rank: a plain all-to-all has no tokens")
    if spec.bytes_per_rank is not None and spec.bytes_per_rank <= 0:
        draft.problem(
            (*at, "bytes_per_rank"), str(draft.document.get((*at, "bytes_per_rank"))), "more than 0"
        )
    ep = _ep(draft)
    kernel, comm_sms, options = kernel_of(draft, spec.kernel)
    gate = None
    if not plain and draft.model is not None:
        if spec.gate is None:
            draft.problem(at, "no gate", "the key 'gate', e.g. {kind: uniform}")
        else:
            gate = gate_of(draft, spec.gate, max(1, ep // draft.gpus_per_node))
        placement_of(draft, spec.placement, ep)
    draft.layout = {"ep": ep, "dp": draft.num_ranks, "pp": 1, "tp": 1, "cp": 1}
    return AllToAll(spec, gate, kernel, comm_sms, options)


def _ep(draft: Draft) -> int:
    """EP of an all_to_all; all ranks by default."""
    layout, at, num_ranks, per_node = draft.asked, ("layout",), draft.num_ranks, draft.gpus_per_node
    for key in ("pp", "tp", "cp", "etp"):
        if getattr(layout, key) not in (None, 1):
            draft.problem((*at, key), str(getattr(layout, key)), "1: an all_to_all has EP and DP only")
    if layout.order is not None:
        draft.problem((*at, "order"), f"'{layout.order}'", "no order: an all_to_all has EP and DP only")
    if layout.dp not in (None, num_ranks):
        draft.problem((*at, "dp"), str(layout.dp), f"{num_ranks}, the number of ranks, or leave it out")
    ep = layout.ep or num_ranks
    if num_ranks % ep:
        draft.problem((*at, "ep"), str(ep), draft.divisor_wanted(ep))
    elif ep % per_node and per_node % ep:
        draft.problem((*at, "ep"), str(ep), f"a multiple or a divisor of the {per_node} GPUs of a node")
    return ep


def _count(scenario: Scenario, work: AllToAll) -> None:
    spec, groups = work.spec, scenario.num_ranks // scenario.ep
    sizes.require_nodes(scenario, scenario.num_nodes)
    sizes.require_pairs(groups, scenario.ep)
    if scenario.model is not None and spec.tokens_per_rank is not None:
        num_experts = scenario.model.num_experts
        if work.sampling == "tokens":
            sizes.require_draws(scenario.ep, spec.tokens_per_rank, groups, num_experts)
        sizes.require_replicas(num_experts, spec.placement.redundant_experts)


RESOLVER = Resolver(
    {"all_to_all": AllToAllSpec},
    all_to_all_of,
    needs_model=lambda spec: spec.bytes_per_rank is None,
    faults=("bandwidth", "scale_up", "hbm"),
    windows=True,
    gathers=True,
    count=_count,
)
