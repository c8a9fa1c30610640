"""Scenarios: a YAML file becomes frozen descriptions, checked across branches, with everything that was derived shown.

Precedence, weakest first: profile < model < scenario < variant < `--set`. The resolved document, defaults filled in,
goes into the result, so that a result can be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from sim import documents, units
from sim.cluster import topology
from sim.cluster.hardware import Hardware, load_hardware
from sim.cluster.kernels import Kernel, load_kernel
from sim.documents import Document
from sim.errors import Fault, InputError, Mark
from sim.study.specification import AllToAllSpec, FabricSpec, FlowsSpec, LeafSpineSpec, ScenarioSpec
from sim.workload import gates
from sim.workload.gates import Gate
from sim.workload.model import Model, load_model

T = TypeVar("T")


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
    """Flows from a CSV on a bare fabric or a cluster."""

    file: Path


@dataclass(frozen=True, slots=True)
class Expectation:
    """A published value that a metric must meet."""

    metric: str
    value: float
    tolerance_fraction: float
    source: str | None


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
    workload: AllToAll | FlowList
    expectations: tuple[Expectation, ...]
    document: dict[str, Any] = field(repr=False)

    @property
    def num_ranks(self) -> int:
        """GPUs of the cluster."""
        return self.num_nodes * (self.hardware.gpu.scale_up.domain if self.hardware else 1)

    def cluster(self) -> topology.Cluster:
        """The cabled cluster."""
        if isinstance(self.fabric, topology.LeafSpine):
            return topology.build_leaf_spine(self.fabric)
        assert self.hardware is not None
        sms = self.workload.comm_sms if isinstance(self.workload, AllToAll) else 0
        return topology.build(self.hardware, self.num_nodes, self.fabric, self.faults, comm_sms=sms)


def read(spec: str | Path, settings: Sequence[str] = ()) -> Document:
    """The document of a scenario: a path or a shipped name, with `--set` settings laid over it."""
    document = documents.load(documents.find(str(spec), "scenarios", "scenario"))
    apply(document, settings)
    return document


def apply(document: Document, settings: Iterable[str]) -> None:
    """Lay `key.path=value` settings over a document; they win over variants too."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        mark = Mark(f"--set {setting}")
        if not equals or not key.strip():
            raise InputError(Fault(mark, "", f"'{setting}'", "key.path=value"))
        value = documents.parse_scalar(text, str(mark))
        path = documents.split(key.strip())
        _put(document, path, value, mark)
        for variant in document.get(("variants",)) or {}:
            overrides = document.get(("variants", variant))
            if isinstance(overrides, dict):
                for dotted in [d for d in overrides if documents.split(d)[: len(path)] == path]:
                    del overrides[dotted]


def _put(document: Document, path: documents.Path_, value: Any, mark: Mark) -> None:
    """Like `Document.put`, but a key below `override` stays dotted, and a mapping there is not replaced by chance."""
    if path[:2] == ("cluster", "override") and len(path) > 3:
        path = (*path[:2], documents.dotted(path[2:]))
    document.put(path, value, mark)


def variants(document: Document) -> dict[str, Document]:
    """The documents of a scenario's variants, or `{name: document}` without any."""
    declared = document.get(("variants",))
    if not declared:
        return {str(document.get(("name",)) or "scenario"): document}
    document.check(ScenarioSpec)
    found = {}
    for name, overrides in declared.items():
        one = document.copy()
        del one.tree["variants"]
        one.tree["name"] = f"{document.get(('name',))}-{name}"
        for dotted, value in overrides.items():
            mark = document.mark(("variants", name, dotted), key=True)
            _put(one, documents.split(dotted), value, mark)
        found[name] = one
    return found


def resolve(document: Document) -> Scenario:
    """Check a document (without variants) and build the scenario. Raises `InputError` with all faults found."""
    spec = document.check(ScenarioSpec)
    faults: list[Fault] = []
    resolved = _with_defaults(document.tree, spec)
    workload = spec.workload
    hardware, num_nodes, fabric, link_faults = _cluster(document, spec, faults)
    if isinstance(workload, FlowsSpec):
        if faults:
            raise InputError(faults)
        assert fabric is not None
        return Scenario(
            name=spec.name, title=spec.title or spec.name, seed=spec.seed, fidelity=spec.fidelity, hardware=hardware,
            num_nodes=num_nodes, fabric=fabric, faults=link_faults, model=None, ep=1,
            workload=FlowList(_beside(document, workload.file)), expectations=_expectations(document, spec, faults),
            document=resolved,
        )  # fmt: skip
    if isinstance(fabric, topology.LeafSpine):
        faults.append(document.fault(("cluster", "fabric", "kind"), "'leaf_spine'", "a fabric of GPUs: all_to_all needs hardware"))
    model = _catch(faults, lambda: _model(document, spec, needed=workload.bytes_per_rank is None))
    if faults:
        raise InputError(faults)
    assert hardware is not None and fabric is not None
    num_ranks = num_nodes * hardware.gpu.scale_up.domain
    ep = _layout(document, spec, num_ranks, hardware.gpu.scale_up.domain, faults)
    a2a = _catch(faults, lambda: _all_to_all(document, workload, model, ep, num_ranks, hardware, faults))
    expectations = _expectations(document, spec, faults)
    if faults or a2a is None:
        raise InputError(faults)
    resolved["layout"] = {"ep": ep, "dp": num_ranks, "pp": 1, "tp": 1, "cp": 1}
    return Scenario(
        name=spec.name, title=spec.title or spec.name, seed=spec.seed, fidelity=spec.fidelity, hardware=hardware,
        num_nodes=num_nodes, fabric=fabric, faults=link_faults, model=model, ep=ep, workload=a2a,
        expectations=expectations, document=resolved,
    )  # fmt: skip


# --- branches ------------------------------------------------------------------------------------------------------


def _catch(faults: list[Fault], make: Callable[[], T]) -> T | None:
    """Run `make`; its faults join the others, so that all are told together."""
    try:
        return make()
    except InputError as error:
        faults.extend(error.faults)
        return None


def _at(document: Document, base: documents.Path_, error: InputError) -> list[Fault]:
    """Faults found deeper in the house, at the place of the scenario that caused them."""
    placed = []
    for fault in error.faults:
        where = fault.where or document.mark((*base, *documents.split(fault.key)))
        placed.append(Fault(where, fault.key, fault.got, fault.wanted, fault.nearest))
    return placed


def _beside(document: Document, file: str) -> Path:
    path = Path(file)
    return path if path.is_absolute() else (document.folder or Path()) / path


def _cluster(
    document: Document, spec: ScenarioSpec, faults: list[Fault]
) -> tuple[Hardware | None, int, topology.Fabric | topology.LeafSpine | None, tuple[topology.LinkFault, ...]]:
    cluster, at = spec.cluster, ("cluster",)
    if isinstance(cluster.fabric, LeafSpineSpec):
        if cluster.hardware or cluster.nodes:
            faults.append(document.fault(at, "hardware beside leaf_spine", "a bare fabric without hardware and nodes"))
        return None, cluster.fabric.hosts, _leaf_spine(document, cluster.fabric, faults), ()
    if cluster.hardware is None:
        faults.append(document.fault(at, "nothing", "the key 'hardware', or a fabric of kind leaf_spine"))
        return None, 0, None, ()
    if cluster.nodes is None or cluster.nodes < 1:
        got = "nothing" if cluster.nodes is None else str(cluster.nodes)
        faults.append(document.fault((*at, "nodes"), got, "1 or more: a cluster without nodes has no GPU to run on"))
    name, override = cluster.hardware, document.branch(("cluster", "override"))
    mark = document.mark((*at, "hardware"))
    hardware = _catch(faults, lambda: load_hardware(name, override, near=document.folder, mark=mark))
    if hardware is None or cluster.nodes is None or cluster.nodes < 1:
        return hardware, 0, None, ()
    asked = cluster.fabric or FabricSpec()
    fabric = topology.Fabric(
        kind=asked.kind or hardware.fabric.kind,
        routing=asked.routing,
        oversubscription=asked.oversubscription,
        nodes_per_leaf=asked.nodes_per_leaf or hardware.fabric.nodes_per_leaf,
    )
    return hardware, cluster.nodes, fabric, tuple(_link_faults(document, spec, hardware, faults))


def _leaf_spine(document: Document, asked: LeafSpineSpec, faults: list[Fault]) -> topology.LeafSpine:
    at = ("cluster", "fabric")
    ratio = asked.hosts_per_leaf / asked.spines
    if asked.oversubscription is not None and abs(asked.oversubscription - ratio) > 1e-9:
        wanted = f"hosts_per_leaf / spines = {ratio:g}, or leave it out"
        faults.append(document.fault((*at, "oversubscription"), f"{asked.oversubscription:g}", wanted))
    for key in ("link", "payload_per_packet", "wire_per_packet"):
        if getattr(asked, key) <= 0:
            faults.append(document.fault((*at, key), str(document.get((*at, key))), "more than 0"))
    if asked.wire_per_packet < asked.payload_per_packet:
        faults.append(
            document.fault((*at, "wire_per_packet"), units.show(asked.wire_per_packet, "bytes"), "payload_per_packet or more")
        )
    return topology.LeafSpine(
        hosts=asked.hosts,
        hosts_per_leaf=asked.hosts_per_leaf,
        spines=asked.spines,
        link_bytes_per_s=asked.link,
        routing=asked.routing,
        link_latency_s=asked.link_latency,
        switch_latency_s=asked.switch_latency,
        payload_per_packet_bytes=asked.payload_per_packet,
        wire_per_packet_bytes=asked.wire_per_packet,
    )


def _link_faults(
    document: Document, spec: ScenarioSpec, hardware: Hardware, faults: list[Fault]
) -> Iterator[topology.LinkFault]:
    rails, nodes = hardware.gpu.scale_up.domain, spec.cluster.nodes or 0
    for i, fault in enumerate(spec.cluster.faults):
        at = ("cluster", "faults", i)
        by_node = fault.node is not None and fault.nic is not None
        if by_node == (fault.rail is not None) or (fault.node is None) != (fault.nic is None):
            faults.append(document.fault(at, "a fault", "either 'node' and 'nic', or 'rail' alone"))
            continue
        nic = fault.nic if fault.rail is None else fault.rail
        assert nic is not None
        if nic >= rails:
            key = "nic" if fault.rail is None else "rail"
            faults.append(document.fault((*at, key), str(nic), f"0 to {rails - 1}: a node has {rails} GPUs"))
        if fault.node is not None and fault.node >= nodes:
            faults.append(document.fault((*at, "node"), str(fault.node), f"0 to {nodes - 1}: the cluster has {nodes} nodes"))
        yield topology.LinkFault(nic, fault.bandwidth, fault.node)


def _model(document: Document, spec: ScenarioSpec, *, needed: bool) -> Model | None:
    if spec.model is None:
        if needed:
            raise InputError(document.fault((), "no model", "the key 'model', e.g. deepseek-v3, or bytes_per_rank"))
        return None
    if isinstance(spec.model, str):
        return load_model(spec.model, near=document.folder)
    return load_model(document.branch(("model",)))


def _layout(document: Document, spec: ScenarioSpec, num_ranks: int, per_node: int, faults: list[Fault]) -> int:
    """EP of the scenario; all ranks by default."""
    layout, at = spec.layout, ("layout",)
    for key in ("pp", "tp", "cp"):
        if getattr(layout, key) not in (None, 1):
            faults.append(document.fault((*at, key), str(getattr(layout, key)), "1: an all_to_all has EP and DP only"))
    if layout.dp not in (None, num_ranks):
        faults.append(document.fault((*at, "dp"), str(layout.dp), f"{num_ranks}, the number of ranks, or leave it out"))
    ep = layout.ep or num_ranks
    if num_ranks % ep:
        divisors = ", ".join(str(d) for d in range(1, num_ranks + 1) if num_ranks % d == 0)
        faults.append(document.fault((*at, "ep"), str(ep), f"a divisor of the {num_ranks} ranks: {divisors}"))
    elif ep % per_node and per_node % ep and spec.cluster.fabric != "scale_up":
        faults.append(
            document.fault((*at, "ep"), str(ep), f"a multiple or a divisor of the {per_node} GPUs of a node")
        )
    return ep


def _all_to_all(
    document: Document, spec: AllToAllSpec, model: Model | None, ep: int, num_ranks: int, hardware: Hardware,
    faults: list[Fault],
) -> AllToAll:  # fmt: skip
    at = ("workload",)
    if (spec.tokens_per_rank is None) == (spec.bytes_per_rank is None):
        got = "neither" if spec.tokens_per_rank is None else "both"
        faults.append(document.fault(at, got, "either 'tokens_per_rank' (with a model and a gate) or 'bytes_per_rank'"))
    plain = spec.bytes_per_rank is not None
    if plain and (spec.gate is not None or spec.placement.redundant_experts):
        key = "gate" if spec.gate is not None else "placement"
        faults.append(document.fault((*at, key), f"a {key}", "none beside bytes_per_rank: a plain exchange has no tokens"))
    if plain and not spec.bytes_per_rank > 0:
        faults.append(document.fault((*at, "bytes_per_rank"), str(document.get((*at, "bytes_per_rank"))), "more than 0"))
    kernel_spec = spec.kernel.model_dump()
    kernel = load_kernel(kernel_spec.pop("kind"), document.branch((*at, "kernel", "override")))
    kernel_spec.pop("override")
    asked_sms = kernel_spec.pop("comm_sms", None)
    comm_sms = asked_sms if asked_sms is not None else kernel.comm_sms
    if comm_sms > hardware.gpu.sms:
        faults.append(document.fault((*at, "kernel", "comm_sms"), str(comm_sms), f"at most {hardware.gpu.sms}, the GPU's SMs"))
    gate = None
    if not plain and model is not None:
        if spec.gate is None:
            faults.append(document.fault(at, "no gate", "the key 'gate', e.g. {kind: uniform}"))
        else:
            gate = _gate(document, spec, model, max(1, ep // hardware.gpu.scale_up.domain), faults)
        num_physical = model.num_experts + spec.placement.redundant_experts
        if num_physical % ep:
            more = f" ({model.num_experts} + {spec.placement.redundant_experts} redundant)" if spec.placement.redundant_experts else ""
            near = -num_physical % ep + spec.placement.redundant_experts
            faults.append(
                document.fault(
                    ("layout", "ep"), str(ep), f"a divisor of the {num_physical} experts{more}; or {near} redundant_experts"
                )
            )
        if spec.placement.redundant_experts and spec.placement.kind != "eplb":
            faults.append(document.fault((*at, "placement", "kind"), f"'{spec.placement.kind}'", "'eplb' beside redundant_experts"))
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


def _gate(document: Document, spec: AllToAllSpec, model: Model, num_nodes: int, faults: list[Fault]) -> Gate | None:
    assert spec.gate is not None
    at = ("workload", "gate")
    said = {key: value for key, value in spec.gate.model_dump(exclude={"sampling"}).items() if value is not None}

    def make() -> Gate:
        file = said.pop("file", None)
        if file is not None:
            path = _beside(document, file)
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
        faults.extend(_at(document, at[:1], error))
        return None


def _expectations(document: Document, spec: ScenarioSpec, faults: list[Fault]) -> tuple[Expectation, ...]:
    found = []
    for metric, expect in spec.expect.items():
        try:
            value = units.parse(expect.value, units.dimension_of(metric))
        except units.UnitError as error:
            faults.append(document.fault(("expect", metric, "value"), error.got, error.wanted, error.suggestion))
            continue
        found.append(Expectation(metric, value, expect.tolerance, expect.source))
    return tuple(found)


def _with_defaults(tree: Any, spec: BaseModel) -> dict[str, Any]:
    """The tree as written, with what was left out filled in from the defaults."""
    filled = dict(tree)
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name not in filled:
            if value is not None and value not in ({}, []):
                filled[name] = _with_defaults({}, value) if isinstance(value, BaseModel) else info.default
        elif isinstance(value, BaseModel) and isinstance(filled[name], dict):
            filled[name] = _with_defaults(filled[name], value)
    return filled
