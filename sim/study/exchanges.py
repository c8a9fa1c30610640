"""The all_to_all workload of a scenario, checked against its model, layout and hardware."""

from __future__ import annotations

from sim.cluster.hardware import Hardware
from sim.cluster.kernels import load_kernel
from sim.documents import Document
from sim.errors import Fault, InputError
from sim.study.descriptions import AllToAll
from sim.study.metal import beside, placed_at
from sim.study.specification import AllToAllSpec
from sim.workload import gates
from sim.workload.gates import Gate
from sim.workload.model import Model


def all_to_all_of(
    document: Document, spec: AllToAllSpec, model: Model | None, ep: int, num_nodes: int, hardware: Hardware,
    faults: list[Fault],
) -> AllToAll:  # fmt: skip
    """The workload, with every fault it has added to `faults`; `num_nodes` is what an EP group spans."""
    at = ("workload",)
    if (spec.tokens_per_rank is None) == (spec.bytes_per_rank is None):
        got = "neither" if spec.tokens_per_rank is None else "both"
        faults.append(
            document.fault(at, got, "either 'tokens_per_rank' (with a model and a gate) or 'bytes_per_rank'")
        )
    plain = spec.bytes_per_rank is not None
    if plain and (spec.gate is not None or spec.placement.redundant_experts):
        key = "gate" if spec.gate is not None else "placement"
        faults.append(
            document.fault(
                (*at, key), f"a {key}", "none beside bytes_per_rank: a plain exchange has no tokens"
            )
        )
    if spec.bytes_per_rank is not None and spec.bytes_per_rank <= 0:
        faults.append(
            document.fault((*at, "bytes_per_rank"), str(document.get((*at, "bytes_per_rank"))), "more than 0")
        )
    kernel_spec = spec.kernel.model_dump()
    kernel = load_kernel(kernel_spec.pop("kind"), document.branch((*at, "kernel", "override")))
    kernel_spec.pop("override")
    comm_sms: int = kernel_spec.pop("comm_sms", None) or kernel.comm_sms
    if comm_sms > hardware.gpu.sms:
        faults.append(
            document.fault(
                (*at, "kernel", "comm_sms"), str(comm_sms), f"at most {hardware.gpu.sms}, the GPU's SMs"
            )
        )
    gate = None
    if not plain and model is not None:
        if spec.gate is None:
            faults.append(document.fault(at, "no gate", "the key 'gate', e.g. {kind: uniform}"))
        else:
            gate = _gate(document, spec, model, num_nodes, faults)
        num_physical = model.num_experts + spec.placement.redundant_experts
        if num_physical % ep:
            more = (
                f" ({model.num_experts} + {spec.placement.redundant_experts} redundant)"
                if spec.placement.redundant_experts
                else ""
            )
            near = -num_physical % ep + spec.placement.redundant_experts
            faults.append(
                document.fault(
                    ("layout", "ep"),
                    str(ep),
                    f"a divisor of the {num_physical} experts{more}; or {near} redundant_experts",
                )
            )
        if spec.placement.redundant_experts and spec.placement.kind != "eplb":
            faults.append(
                document.fault(
                    (*at, "placement", "kind"), f"'{spec.placement.kind}'", "'eplb' beside redundant_experts"
                )
            )
    return AllToAll(
        kernel=kernel,
        comm_sms=comm_sms,
        options=kernel_spec,
        tokens_per_rank=spec.tokens_per_rank or 1,
        bytes_per_rank=spec.bytes_per_rank,
        gate=gate,
        sampling=spec.gate.sampling if spec.gate else "expected",
        dispatch_dtype=spec.dispatch_dtype,
        combine_dtype=spec.combine_dtype,
        redundant_experts=spec.placement.redundant_experts,
        placement=spec.placement.kind,
    )


def _gate(
    document: Document, spec: AllToAllSpec, model: Model, num_nodes: int, faults: list[Fault]
) -> Gate | None:
    assert spec.gate is not None
    at = ("workload", "gate")
    said = {
        key: value for key, value in spec.gate.model_dump(exclude={"sampling"}).items() if value is not None
    }

    def make() -> Gate:
        file = said.pop("file", None)
        if file is not None:
            path = beside(document, file)
            if said["kind"] == "trace":
                said["trace"] = gates.load_trace(path)
            else:
                said["loads"] = gates.load_loads(path)
        gate = gates.complete(
            Gate(**said),
            num_nodes=num_nodes,
            model_num_groups=model.num_groups,
            model_top_groups=model.top_groups,
            model_group_score=model.group_score,
        )
        gates.check(gate, model.num_experts, model.top_k)
        return gate

    try:
        return make()
    except InputError as error:
        faults.extend(placed_at(document, at[:1], error))
        return None
