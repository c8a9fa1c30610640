"""Hardware profiles: what one GPU, its links, its NIC and its fabric are able to do, in SI units.

One file of `hardware/` is one GPU or system. Every rate is the datasheet's (what a kernel achieves of it is defined in
`hardware/kernels/`), of one direction, of one GPU, in dense operations. `load_hardware` reads a file, lays an override over it
and returns a `Hardware`; `Hardware.parameters` keeps every number with its grade and source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from sim import documents, units
from sim.cluster import machines, nics
from sim.cluster import parameters as p
from sim.descriptions import Derived, Description
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest

UNREAD = {
    "gpu.dense_flops.fp64": "export rules alone",
    "gpu.dense_flops.int8": "export rules, and precision: {gemm: int8}",
    "gpu.dense_flops.fp4": "export rules, and precision: {gemm: nvfp4}",
    "gpu.die_area": "export rules alone",
    "gpu.l2.capacity": "nothing: caches are not modelled",
    "fabric.switch_ports": "a check of nodes_per_leaf alone",
}
"""Figures of a profile that no kind of workload reads, and what does."""

FabricKind = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "fat_tree", "scale_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFlops(Description):
    """Dense peak rates of the tensor cores by data type [FLOP/s]; None where the part has no such type."""

    fp64: p.Flops | None = None
    bf16: p.Flops
    fp8: p.Flops | None = None
    int8: p.Flops | None = None
    fp4: p.Flops | None = None

    def peak(self, dtype: str) -> float:
        """Return the dense peak of `fp64`, `bf16`, `fp8`, `int8` or `fp4` [FLOP/s].

        InputError for another data type, InfeasibleError where the part has no such tensor rate.
        """
        if dtype not in self.__slots__:
            wanted = f"one of: {', '.join(self.__slots__)}"
            raise InputError(Problem(None, "dtype", repr(dtype), wanted, nearest(dtype, self.__slots__)))
        rate: float | None = getattr(self, dtype)
        if rate is None:
            raise InfeasibleError(f"this GPU has no {dtype} tensor rate")
        return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPower(Description):
    """Power of one GPU with its board."""

    tdp_w: p.Power
    """Thermal design power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hbm(Description):
    """Memory of one GPU."""

    capacity_bytes: p.Size
    bandwidth_bytes_per_s: p.Rate
    """Peak."""
    efficiency_fraction: p.Fraction
    """Part of the peak that streaming reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class L2Cache(Description):
    """Last cache in front of the memory."""

    capacity_bytes: p.Size


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp(Description):
    """NVLink or its like, seen from one GPU."""

    bandwidth_bytes_per_s: p.LinkRate
    """Peak of one GPU in one direction."""
    latency_s: p.Duration
    domain: p.Count
    """GPUs of one domain: a node."""
    reduces_in_switch: p.Count | None = None
    """GPUs whose bytes the switch adds up and copies (NVLS); left out where it does not."""
    over_pcie: bool = False
    """True where nothing but PCIe joins the GPUs of a node: their bytes share its links with those of NICs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pcie(Description):
    """Link between a GPU and its NIC and host."""

    bandwidth_bytes_per_s: p.LinkRate
    """Peak in one direction."""
    latency_s: p.Duration | None = None
    """From one GPU of a node to another, where they have no scale-up."""
    domain: p.Count | None = None
    """GPUs of a node without scale-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Description):
    """One GPU."""

    sms: p.Count
    """Streaming multiprocessors."""
    tensor_clock_hz: p.Clock
    """Clock at which the tensor cores reach their dense peak."""
    sustained_clock_fraction: p.Fraction
    """Clock under lasting load over the tensor clock."""
    dense_flops: DenseFlops
    die_area_mm2: p.Area | None = None
    power: BoardPower | None = None
    hbm: Hbm
    l2: L2Cache | None = None
    scale_up: ScaleUp
    pcie: Pcie | None = None
    """None where the NIC is not behind the GPU's own PCIe link."""

    @property
    def scales_blocks(self) -> bool:
        """True where tensor cores scale blocks themselves: parts with FP4, NVIDIA's from Blackwell on."""
        return self.dense_flops.fp4 is not None

    @property
    def tdp_w(self) -> float | None:
        """Thermal design power [W]; None where the profile has none."""
        return self.power.tdp_w if self.power else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic(Description):
    """Network cards of a node: several for each GPU, which act as one, or one for each few GPUs, which share it."""

    kind: str | None = None
    """A file of `hardware/nics/`, or a path: what kernels reach of its line, and its latencies; left out, the profile's own."""
    per_gpu: p.Number | None = None
    """Below one, the part of a NIC: 0.5 where two GPUs share it."""
    per_node: p.Count | None = None
    """Instead of `per_gpu`."""
    bandwidth_bytes_per_s: p.LinkRate
    """Line rate of each, in one direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches(Description):
    """Switches between nodes; latencies are end to end, software of both ends included."""

    kind: FabricKind
    switch_ports: p.Count
    nodes_per_leaf: p.Count
    same_leaf_latency_s: p.Duration
    cross_leaf_latency_s: p.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Description):
    """Prices."""

    gpu_hour_usd: p.Price
    """Rent of one GPU, its share of node and fabric included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware(p.SourcedFile):
    """A GPU, its node and its fabric."""

    name: str
    title: str
    year: int
    gpu: Gpu
    nic: Nic | None = None
    """None where GPUs reach one another by scale-up alone."""
    fabric: Switches
    cost: Cost | None = None
    nic_kind: Annotated[nics.NicKind | None, Derived()] = None

    @property
    def nic_reach(self) -> nics.NicReach:
        """Limits of its kind of NIC."""
        return nics.reach_of(self.nic_kind)

    @property
    def unread(self) -> tuple[str, ...]:
        """Its figures that no kind of workload reads, each with what does."""
        return tuple(f"{row.path} ({UNREAD[row.path]})" for row in self.parameters if row.path in UNREAD)

    @property
    def nics_of_gpu(self) -> float:
        """NICs over GPUs of a node; 0 without any."""
        if self.nic is None:
            return 0.0
        if self.nic.per_node is not None:
            return self.nic.per_node / self.gpu.scale_up.domain
        return self.nic.per_gpu or 0.0

    @property
    def gpus_per_nic(self) -> int:
        """GPUs that share a NIC; 1 where each has one or more of its own."""
        return max(1, round(1 / self.nics_of_gpu)) if self.nic else 1

    @property
    def nics_per_node(self) -> int:
        """NICs of a node that share nothing; those of one GPU count as one."""
        return self.gpu.scale_up.domain // self.gpus_per_nic if self.nic else 0

    @property
    def nic_bytes_per_s(self) -> float:
        """Line rate of a NIC, or of all NICs of one GPU, in one direction [bytes/s]; 0 without any."""
        return self.nic.bandwidth_bytes_per_s * max(1.0, self.nics_of_gpu) if self.nic else 0.0

    @property
    def gpu_hour_usd(self) -> float | None:
        """Rent of one GPU for an hour [USD]; None where the profile has none."""
        return self.cost.gpu_hour_usd if self.cost else None


def list_hardware() -> tuple[str, ...]:
    """List the shipped hardware profiles.

    Returns
    -------
    tuple of str
        Names that `load_hardware` takes.
    """
    return tuple(documents.shipped("hardware"))


def load_hardware(
    name_or_path: str | Path | Mapping[str, Any],
    override: Document | Mapping[str, Any] | None = None,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Hardware:
    """Read a hardware profile.

    Parameters
    ----------
    name_or_path : str, Path or mapping
        The name of a shipped profile (`list_hardware`), a path, or `{chip: NAME, node: NAME}`, see `cluster.machines`.
    override : Document or mapping, optional
        What to replace: quantities with their units, whole parameters or branches; dotted keys are walked, and None removes
        an optional branch.
    near : Path, optional
        Folder that a relative path may start from.
    mark : Mark, optional
        Where the name was written, for messages.

    Returns
    -------
    Hardware
        All quantities in SI units, with the table of parameters.

    Raises
    ------
    InputError
        With every problem of the file and of the override.

    Examples
    --------
    >>> load_hardware("h800").gpu.scale_up.bandwidth_bytes_per_s / 1e9
    200.0
    >>> faster = load_hardware("h800", {"gpu.scale_up.bandwidth": "450 GB/s"})
    >>> faster.parameter("gpu.scale_up.bandwidth").grade
    'override'
    """
    profile = machines.profile_document(name_or_path, near=near, mark=mark)
    hardware, document = p.read(Hardware, profile, override, machines.join_over_pcie)
    hardware = _lay_nic_kind(hardware, document, near)
    ports, nodes = hardware.fabric.switch_ports, hardware.fabric.nodes_per_leaf
    if nodes > ports:
        at = ("fabric", "nodes_per_leaf")
        raise InputError(document.problem(at, str(nodes), f"at most {ports} (switch_ports)"))
    same_s, cross_s = hardware.fabric.same_leaf_latency_s, hardware.fabric.cross_leaf_latency_s
    if same_s > cross_s:
        wanted = (
            f"at most {units.show(cross_s, 's')} (cross_leaf_latency): a path across leaves is no shorter"
        )
        raise InputError(document.problem(("fabric", "same_leaf_latency"), units.show(same_s, "s"), wanted))
    return _check_nics(hardware, document)


def _lay_nic_kind(hardware: Hardware, document: Document, near: Path | None) -> Hardware:
    """Lay the latencies of its kind of NIC over the fabric's, but for those that were overridden by themselves."""
    if hardware.nic is None or hardware.nic.kind is None:
        return hardware
    kind = nics.load_nic(hardware.nic.kind, near=document.folder or near, mark=document.mark(("nic", "kind")))
    rows = {row.path: row for row in hardware.parameters}
    latencies: dict[str, float] = {}
    for row in kind.parameters:
        path = f"fabric.{row.path}" if row.path.endswith("_latency") else f"nic.kind.{row.path}"
        if path in rows and rows[path].grade == p.OVERRIDE:
            continue
        rows[path] = replace(row, path=path)
        if path.startswith("fabric."):
            latencies[f"{row.path}_s"] = row.value
    fabric = replace(
        hardware.fabric,
        same_leaf_latency_s=latencies.get("same_leaf_latency_s", hardware.fabric.same_leaf_latency_s),
        cross_leaf_latency_s=latencies.get("cross_leaf_latency_s", hardware.fabric.cross_leaf_latency_s),
    )
    return replace(hardware, fabric=fabric, nic_kind=kind, parameters=tuple(rows.values()))


def _check_nics(hardware: Hardware, document: Document) -> Hardware:
    """Check that NICs and GPUs of a node share out evenly; an override of their number, in either way, counts alone."""
    nic, keys = hardware.nic, ("per_gpu", "per_node")
    if nic is None:
        return hardware
    given = [key for key in keys if getattr(nic, key) is not None]
    if len(given) == len(keys):
        laid = [key for key in keys if hardware.parameter(f"nic.{key}").grade == p.OVERRIDE]
        if len(laid) == 1:
            (gone,) = set(keys) - set(laid)
            rows = tuple(row for row in hardware.parameters if row.path != f"nic.{gone}")
            left = replace(nic, per_gpu=None) if gone == "per_gpu" else replace(nic, per_node=None)
            return _check_nics(replace(hardware, nic=left, parameters=rows), document)
    if len(given) != 1:
        got = "both 'per_gpu' and 'per_node'" if given else "neither 'per_gpu' nor 'per_node'"
        raise InputError(document.problem(("nic",), got, "one of them: the number of NICs"))
    num, gpus = hardware.nics_of_gpu * hardware.gpu.scale_up.domain, hardware.gpu.scale_up.domain
    if num < 1 or num != round(num) or (gpus % num and num % gpus):
        wanted = f"as many NICs as a multiple or a divisor of the {gpus} GPUs of a node; this makes {num:g}"
        got = hardware.parameter(f"nic.{given[0]}").shown
        raise InputError(document.problem(("nic", given[0], "value"), got, wanted))
    return hardware
