"""The all_to_all workload of a scenario, and the gate and kernel that every workload with experts names."""

from __future__ import annotations

from typing import Any

from sim.cluster.kernels import Kernel, load_kernel
from sim.errors import InputError
from sim.scenario.cluster import Draft, beside, placed_at
from sim.scenario.descriptions import AllToAll
from sim.scenario.specification import AllToAllSpec, GateSpec, KernelSpec, PlacementSpec
from sim.workload import gates, recordings
from sim.workload.gates import Gate

_AT = ("workload",)


def all_to_all_of(draft: Draft) -> AllToAll:
    """The workload; what is wrong with it joins the draft's faults."""
    spec, at = draft.spec.workload, _AT
    assert isinstance(spec, AllToAllSpec)
    if (spec.tokens_per_rank is None) == (spec.bytes_per_rank is None):
        got = "neither" if spec.tokens_per_rank is None else "both"
        draft.fault(at, got, "either 'tokens_per_rank' (with a model and a gate) or 'bytes_per_rank'")
    plain = spec.bytes_per_rank is not None
    if plain and (spec.gate is not None or spec.placement.redundant_experts):
        key = "gate" if spec.gate is not None else "placement"
        draft.fault((*at, key), f"a {key}", "none beside bytes_per_rank: a plain exchange has no tokens")
    if spec.bytes_per_rank is not None and spec.bytes_per_rank <= 0:
        draft.fault((*at, "bytes_per_rank"), str(draft.document.get((*at, "bytes_per_rank"))), "more than 0")
    ep = _ep(draft)
    kernel, comm_sms, options = kernel_of(draft, spec.kernel)
    gate = None
    if not plain and draft.model is not None:
        if spec.gate is None:
            draft.fault(at, "no gate", "the key 'gate', e.g. {kind: uniform}")
        else:
            gate = gate_of(draft, spec.gate, max(1, ep // draft.gpus_per_node))
        placement_of(draft, spec.placement, ep)
    draft.layout = {"ep": ep, "dp": draft.num_ranks, "pp": 1, "tp": 1, "cp": 1}
    return AllToAll(
        kernel=kernel,
        comm_sms=comm_sms,
        options=options,
        tokens_per_rank=spec.tokens_per_rank or 1,
        bytes_per_rank=spec.bytes_per_rank,
        gate=gate,
        sampling=spec.gate.sampling if spec.gate else "expected",
        dispatch_dtype=spec.dispatch_dtype,
        combine_dtype=spec.combine_dtype,
        redundant_experts=spec.placement.redundant_experts,
        placement=spec.placement.kind,
    )


def _ep(draft: Draft) -> int:
    """EP of an all_to_all; all ranks by default."""
    layout, at, num_ranks, per_node = draft.spec.layout, ("layout",), draft.num_ranks, draft.gpus_per_node
    for key in ("pp", "tp", "cp"):
        if getattr(layout, key) not in (None, 1):
            draft.fault((*at, key), str(getattr(layout, key)), "1: an all_to_all has EP and DP only")
    if layout.dp not in (None, num_ranks):
        draft.fault((*at, "dp"), str(layout.dp), f"{num_ranks}, the number of ranks, or leave it out")
    ep = layout.ep or num_ranks
    if num_ranks % ep:
        divisors = ", ".join(str(d) for d in range(1, num_ranks + 1) if num_ranks % d == 0)
        draft.fault((*at, "ep"), str(ep), f"a divisor of the {num_ranks} ranks: {divisors}")
    elif ep % per_node and per_node % ep:
        draft.fault((*at, "ep"), str(ep), f"a multiple or a divisor of the {per_node} GPUs of a node")
    return ep


def kernel_of(draft: Draft, spec: KernelSpec) -> tuple[Kernel, int, dict[str, Any]]:
    """The kernel generation with the scenario's overrides, the SMs lent to it, and the options of its kind."""
    at = (*_AT, "kernel")
    options = spec.model_dump(exclude={"kind", "override"})
    kernel = load_kernel(spec.kind, draft.document.branch((*at, "override")))
    comm_sms: int = options.pop("comm_sms", None) or kernel.comm_sms
    assert draft.hardware is not None
    if comm_sms > draft.hardware.gpu.sms:
        draft.fault((*at, "comm_sms"), str(comm_sms), f"at most {draft.hardware.gpu.sms}, the GPU's SMs")
    return kernel, comm_sms, options


def placement_of(draft: Draft, spec: PlacementSpec, ep: int) -> None:
    """Check that experts and replicas fill the ranks of an EP group."""
    assert draft.model is not None
    num_experts, redundant = draft.model.num_experts, spec.redundant_experts
    if (num_experts + redundant) % ep:
        more = f" ({num_experts} + {redundant} redundant)" if redundant else ""
        near = -(num_experts + redundant) % ep + redundant
        wanted = f"a divisor of the {num_experts + redundant} experts{more}; or {near} redundant_experts"
        draft.fault(("layout", "ep"), str(ep), wanted)
    if redundant and spec.kind != "eplb":
        draft.fault((*_AT, "placement", "kind"), f"'{spec.kind}'", "'eplb' beside redundant_experts")


def gate_of(draft: Draft, spec: GateSpec, num_nodes: int) -> Gate | None:
    """The gate, completed from the model and the `num_nodes` of an EP group; None where it has faults."""
    model = draft.model
    assert model is not None
    said = {key: value for key, value in spec.model_dump(exclude={"sampling"}).items() if value is not None}
    try:
        if said.pop("file", None) is not None:
            trace = spec.kind == "trace"
            read = recordings.load_trace if trace else recordings.load_loads
            said["trace" if trace else "loads"] = read(*beside(draft.document, (*_AT, "gate", "file")))
        gate = gates.complete(
            Gate(**said),
            num_nodes=num_nodes,
            model_num_groups=model.num_groups,
            model_top_groups=model.top_groups,
            model_group_score=model.group_score,
        )
        gates.check(gate, model.num_experts, model.top_k)
    except InputError as error:
        draft.faults.extend(placed_at(draft.document, _AT, error))
        return None
    return gate
