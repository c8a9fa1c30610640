"""Hardware profiles: what one GPU, its links, its NIC and its fabric are able to do, as frozen SI floats.

One file of `hardware/` is one GPU or system. Every rate is the datasheet's (what a kernel achieves of it
stands in `hardware/kernels/`), of one direction, of one GPU, in dense operations. `load_hardware` reads a
file, lays an override over it and returns a `Hardware`; `Hardware.figures` keeps every number with its
grade and source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sim import documents
from sim.cluster import figures as fig
from sim.cluster.figures import Figure
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest

FabricKind = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "scale_up"]


# --- description: what the simulator reads ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DenseFlops:
    """Dense peak rates of the tensor cores by data type [FLOP/s]; None where the part has no such type."""

    fp64: float | None
    bf16: float
    fp8: float | None
    int8: float | None
    fp4: float | None

    def of(self, dtype: str) -> float:
        """The dense peak of `dtype` [FLOP/s]; raises `InfeasibleError` where the part has none."""
        if dtype not in self.__slots__:
            wanted = f"one of: {', '.join(self.__slots__)}"
            raise InputError(Problem(None, "dtype", repr(dtype), wanted, nearest(dtype, self.__slots__)))
        rate: float | None = getattr(self, dtype)
        if rate is None:
            raise InfeasibleError(f"this GPU has no {dtype} tensor rate")
        return rate


@dataclass(frozen=True, slots=True)
class Hbm:
    """Memory of one GPU: size [bytes], peak rate [bytes/s], and the part of it that streaming reaches."""

    capacity_bytes: float
    bandwidth_bytes_per_s: float
    efficiency_fraction: float


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """NVLink or its like: peak of one GPU in one direction [bytes/s], latency [s], GPUs of one domain (a
    node)."""

    bandwidth_bytes_per_s: float
    latency_s: float
    domain: int


@dataclass(frozen=True, slots=True)
class Pcie:
    """Link between a GPU and its NIC and host: peak in one direction [bytes/s]."""

    bandwidth_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `pcie` is None where the NIC does not stand behind the GPU's own PCIe link."""

    sms: int
    tensor_clock_hz: float
    sustained_clock_fraction: float
    dense_flops: DenseFlops
    die_area_mm2: float | None
    tdp_w: float | None
    hbm: Hbm
    l2_bytes: float | None
    scale_up: ScaleUp
    pcie: Pcie | None


@dataclass(frozen=True, slots=True)
class Nic:
    """NICs of one GPU and the line rate of each in one direction [bytes/s]."""

    per_gpu: int
    bandwidth_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Fabric:
    """Switches between nodes; latencies [s] are end to end, software of both ends included."""

    kind: FabricKind
    switch_ports: int
    nodes_per_leaf: int
    same_leaf_latency_s: float
    cross_leaf_latency_s: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """A GPU, its node and its fabric. `nic` is None where GPUs reach one another by scale-up alone."""

    name: str
    title: str
    year: int
    gpu: Gpu
    nic: Nic | None
    fabric: Fabric
    gpu_hour_usd: float | None
    figures: tuple[Figure, ...]
    file: str

    def figure(self, path: str) -> Figure:
        """The figure at a dotted key; `KeyError` where the profile has none."""
        for row in self.figures:
            if row.path == path:
                return row
        raise KeyError(path)


# --- file: what a person writes --------------------------------------------------------------------------


class DenseFlopsFile(fig.Branch):
    """`gpu.dense_flops`."""

    fp64: fig.Flops | None = None
    bf16: fig.Flops
    fp8: fig.Flops | None = None
    int8: fig.Flops | None = None
    fp4: fig.Flops | None = None


class PowerFile(fig.Branch):
    """`gpu.power`."""

    tdp: fig.Power


class HbmFile(fig.Branch):
    """`gpu.hbm`."""

    capacity: fig.Size
    bandwidth: fig.Rate
    efficiency_fraction: fig.Fraction


class L2File(fig.Branch):
    """`gpu.l2`."""

    capacity: fig.Size


class ScaleUpFile(fig.Branch):
    """`gpu.scale_up`."""

    bandwidth: fig.LinkRate
    latency: fig.Duration
    domain: fig.Count


class PcieFile(fig.Branch):
    """`gpu.pcie`."""

    bandwidth: fig.LinkRate


class GpuFile(fig.Branch):
    """`gpu`."""

    sms: fig.Count
    tensor_clock: fig.Clock
    sustained_clock_fraction: fig.Fraction
    dense_flops: DenseFlopsFile
    die_area: fig.Area | None = None
    power: PowerFile | None = None
    hbm: HbmFile
    l2: L2File | None = None
    scale_up: ScaleUpFile
    pcie: PcieFile | None = None


class NicFile(fig.Branch):
    """`nic`."""

    per_gpu: fig.Count
    bandwidth: fig.LinkRate


class FabricFile(fig.Branch):
    """`fabric`."""

    kind: FabricKind
    switch_ports: fig.Count
    nodes_per_leaf: fig.Count
    same_leaf_latency: fig.Duration
    cross_leaf_latency: fig.Duration


class CostFile(fig.Branch):
    """`cost`."""

    gpu_hour: fig.Price


class HardwareFile(fig.Branch):
    """A file of `hardware/`."""

    name: str
    title: str
    year: int
    gpu: GpuFile
    nic: NicFile | None = None
    fabric: FabricFile
    cost: CostFile | None = None
    sources: dict[str, str]


# --- loading ---------------------------------------------------------------------------------------------


def list_hardware() -> tuple[str, ...]:
    """Names of the shipped profiles."""
    return tuple(documents.shipped("hardware"))


def load_hardware(
    name_or_path: str | Path,
    override: Document | Mapping[str, Any] | None = None,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Hardware:
    """Read a hardware profile.

    Parameters: `name_or_path`, a shipped name (`h800`) or a path, relative to `near` too. `override`, a tree
    of what to replace: quantities (`{"gpu": {"scale_up": {"bandwidth": "450 GB/s"}}}`, dotted keys walked),
    whole leaves or branches; None removes an optional branch. `mark`, where the name was written.
    Raises `InputError` with every problem of the file and of the override.
    """
    path = documents.find(str(name_or_path), "hardware", "hardware", near=near, mark=mark)
    file, document = fig.read(HardwareFile, documents.load(path), override)
    if file.fabric.nodes_per_leaf.value > file.fabric.switch_ports.value:
        ports = int(file.fabric.switch_ports.value)
        at = ("fabric", "nodes_per_leaf")
        raise InputError(
            document.problem(
                at, str(int(file.fabric.nodes_per_leaf.value)), f"at most {ports} (switch_ports)"
            )
        )
    return Hardware(
        name=file.name,
        title=file.title,
        year=file.year,
        gpu=_gpu(file.gpu),
        nic=Nic(int(file.nic.per_gpu.value), file.nic.bandwidth.value) if file.nic else None,
        fabric=Fabric(
            kind=file.fabric.kind,
            switch_ports=int(file.fabric.switch_ports.value),
            nodes_per_leaf=int(file.fabric.nodes_per_leaf.value),
            same_leaf_latency_s=file.fabric.same_leaf_latency.value,
            cross_leaf_latency_s=file.fabric.cross_leaf_latency.value,
        ),
        gpu_hour_usd=file.cost.gpu_hour.value if file.cost else None,
        figures=fig.figures(file, document),
        file=path.name,
    )


def _gpu(file: GpuFile) -> Gpu:
    flops = file.dense_flops
    return Gpu(
        sms=int(file.sms.value),
        tensor_clock_hz=file.tensor_clock.value,
        sustained_clock_fraction=file.sustained_clock_fraction.value,
        dense_flops=DenseFlops(
            fp64=_value(flops.fp64),
            bf16=flops.bf16.value,
            fp8=_value(flops.fp8),
            int8=_value(flops.int8),
            fp4=_value(flops.fp4),
        ),
        die_area_mm2=_value(file.die_area),
        tdp_w=_value(file.power.tdp if file.power else None),
        hbm=Hbm(file.hbm.capacity.value, file.hbm.bandwidth.value, file.hbm.efficiency_fraction.value),
        l2_bytes=_value(file.l2.capacity if file.l2 else None),
        scale_up=ScaleUp(
            bandwidth_bytes_per_s=file.scale_up.bandwidth.value,
            latency_s=file.scale_up.latency.value,
            domain=int(file.scale_up.domain.value),
        ),
        pcie=Pcie(file.pcie.bandwidth.value) if file.pcie else None,
    )


def _value(leaf: fig.Leaf | None) -> float | None:
    return leaf.value if leaf else None
