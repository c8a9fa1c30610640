"""Hardware profiles: what one GPU, its links, its NIC and its fabric are able to do, in SI units.

One file of `hardware/` is one GPU or system. Every rate is the datasheet's (what a kernel achieves of it is defined in
`hardware/kernels/`), of one direction, of one GPU, in dense operations. `load_hardware` reads a file, lays an override over it
and returns a `Hardware`; `Hardware.parameters` keeps every number with its grade and source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sim import documents
from sim.cluster import parameters as p
from sim.descriptions import Description
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest

FabricKind = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "scale_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFlops(Description):
    """Dense peak rates of the tensor cores by data type [FLOP/s]; None where the part has no such type."""

    fp64: p.Flops | None = None
    bf16: p.Flops
    fp8: p.Flops | None = None
    int8: p.Flops | None = None
    fp4: p.Flops | None = None

    def peak(self, dtype: str) -> float:
        """Return the dense peak of a data type.

        Parameters
        ----------
        dtype : str
            `fp64`, `bf16`, `fp8`, `int8` or `fp4`.

        Returns
        -------
        float [FLOP/s]

        Raises
        ------
        InputError
            For a data type that is none of these.
        InfeasibleError
            Where the part has no such tensor rate.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pcie(Description):
    """Link between a GPU and its NIC and host."""

    bandwidth_bytes_per_s: p.LinkRate
    """Peak in one direction."""


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
    def tdp_w(self) -> float | None:
        """Thermal design power [W]; None where the profile has none."""
        return self.power.tdp_w if self.power else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic(Description):
    """Network cards of one GPU."""

    per_gpu: p.Count
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
    name_or_path: str | Path,
    override: Document | Mapping[str, Any] | None = None,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Hardware:
    """Read a hardware profile.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped profile (`list_hardware`), or a path.
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
    path = documents.find(str(name_or_path), "hardware", "hardware", near=near, mark=mark)
    hardware, document = p.read(Hardware, documents.load(path), override)
    ports, nodes = hardware.fabric.switch_ports, hardware.fabric.nodes_per_leaf
    if nodes > ports:
        at = ("fabric", "nodes_per_leaf")
        raise InputError(document.problem(at, str(nodes), f"at most {ports} (switch_ports)"))
    return hardware
