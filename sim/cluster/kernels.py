"""Communication-kernel generations: what a kernel achieves of the links it uses, and what it costs besides.

One file of `hardware/kernels/` is one generation. Its efficiencies are fractions of the datasheet rate of
*any* hardware: what was measured on an H800 (135 of 200 GB/s of NVLink) says what an H100 achieves (303.75
of 450).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import documents
from sim.cluster import parameters as fig
from sim.cluster.parameters import Parameter
from sim.descriptions import Description
from sim.documents import Document
from sim.errors import Mark


@dataclass(frozen=True, slots=True)
class ByDirection:
    """A number for each direction of the exchange; the unit stands in the name of the field that holds it."""

    dispatch: float
    combine: float

    def of(self, direction: str) -> float:
        """The number of `"dispatch"` or `"combine"`."""
        assert direction in ("dispatch", "combine"), direction
        return self.dispatch if direction == "dispatch" else self.combine


@dataclass(frozen=True, slots=True)
class ByReach:
    """A number for exchanges that stay in one node by scale-up alone, and for those that use a NIC."""

    single_node: ByDirection
    over_nic: ByDirection

    def of(self, *, uses_nic: bool, direction: str) -> float:
        """The number of an exchange."""
        return (self.over_nic if uses_nic else self.single_node).of(direction)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One generation of all-to-all kernels."""

    name: str
    title: str
    measured_on: str | None
    """Name of the hardware on which its efficiencies were measured."""
    nic_efficiency_fraction: float
    """Record bytes a second over the NIC / its line rate."""
    scale_up_efficiency_fraction: ByDirection
    """Record bytes a second over scale-up / its peak."""
    shorter_path_exposed_fraction: ByDirection
    """Part of the shorter of the NIC's and scale-up's time added to the longer one; 0: they overlap."""
    comm_sms: int
    """SMs held while bytes move, unless the scenario says otherwise."""
    copy_rate_bytes_per_s_per_sm: ByReach | None
    """What one SM copies; None where copying never binds."""
    latency_s: ByReach
    """Fixed time of a collective, within one node and at the smallest number of nodes that uses the NIC."""
    latency_per_doubling_s: ByDirection
    """Added for every doubling of the number of nodes, counted from one node."""
    latency_per_remote_peer_s: ByDirection
    """Added for every rank outside the own node."""
    beside_compute_slowdown: ByDirection
    """Time beside compute on the other SMs over the time alone; 1 where nobody measured it."""
    hbm_touches: ByDirection
    """HBM bytes read or written by a GPU per record byte that it receives."""
    parameters: tuple[Parameter, ...]

    def latency(self, direction: str, *, uses_nic: bool, num_nodes: float, num_remote_peers: int) -> float:
        """Fixed time of one collective [s]: base + doublings of nodes x growth + remote peers x cost."""
        time_s = self.latency_s.of(uses_nic=uses_nic, direction=direction)
        if uses_nic:
            time_s += self.latency_per_doubling_s.of(direction) * math.log2(max(num_nodes, 1.0))
            time_s += self.latency_per_remote_peer_s.of(direction) * num_remote_peers
        return time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class FractionsFile(Description):
    """A fraction by direction."""

    dispatch: fig.Fraction
    combine: fig.Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesFile(Description):
    """A share by direction, zero allowed."""

    dispatch: fig.Share
    combine: fig.Share


@dataclass(frozen=True, slots=True, kw_only=True)
class SmRatesFile(Description):
    """A rate of one SM by direction."""

    dispatch: fig.RatePerSm
    combine: fig.RatePerSm


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationsFile(Description):
    """A time by direction."""

    dispatch: fig.Duration
    combine: fig.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class NumbersFile(Description):
    """A plain number by direction."""

    dispatch: fig.Number
    combine: fig.Number


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRateFile(Description):
    """`copy_rate`."""

    single_node: SmRatesFile
    over_nic: SmRatesFile


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFile(Description):
    """`latency`."""

    single_node: DurationsFile
    over_nic: DurationsFile
    per_doubling: DurationsFile | None = None
    per_remote_peer: DurationsFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile(fig.SourcedFile):
    """A file of `hardware/kernels/`."""

    name: str
    title: str
    measured_on: str | None = None
    nic_efficiency_fraction: fig.Fraction
    scale_up_efficiency_fraction: FractionsFile
    shorter_path_exposed_fraction: SharesFile | None = None
    comm_sms: fig.CountOrNone
    copy_rate: CopyRateFile | None = None
    latency: LatencyFile
    beside_compute_slowdown: NumbersFile | None = None
    hbm_touches: NumbersFile


def list_kernels() -> tuple[str, ...]:
    """List the shipped kernel generations.

    Returns
    -------
    tuple of str
        Names that `load_kernel` takes.
    """
    return tuple(documents.shipped("hardware/kernels"))


def load_kernel(
    name_or_path: str | Path,
    override: Document | Mapping[str, Any] | None = None,
    *,
    mark: Mark | None = None,
) -> Kernel:
    """Read a generation of all-to-all kernels.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped generation (`list_kernels`), or a path.
    override : Document or mapping, optional
        Parameters to replace, as of `load_hardware`.
    mark : Mark, optional
        Place of the name in a document, for messages.

    Returns
    -------
    Kernel
        All quantities in SI units, with the table of parameters.

    Raises
    ------
    InputError
        With every problem of the file and of the override.
    """
    path = documents.find(str(name_or_path), "hardware/kernels", "kernel", mark=mark)
    file, _ = fig.read(KernelFile, documents.load(path), override)
    rate = file.copy_rate
    return Kernel(
        name=file.name,
        title=file.title,
        measured_on=file.measured_on,
        nic_efficiency_fraction=file.nic_efficiency_fraction,
        scale_up_efficiency_fraction=_pair(file.scale_up_efficiency_fraction),
        shorter_path_exposed_fraction=_pair(file.shorter_path_exposed_fraction),
        comm_sms=file.comm_sms,
        copy_rate_bytes_per_s_per_sm=ByReach(_pair(rate.single_node), _pair(rate.over_nic)) if rate else None,
        latency_s=ByReach(_pair(file.latency.single_node), _pair(file.latency.over_nic)),
        latency_per_doubling_s=_pair(file.latency.per_doubling),
        latency_per_remote_peer_s=_pair(file.latency.per_remote_peer),
        beside_compute_slowdown=(
            _pair(file.beside_compute_slowdown) if file.beside_compute_slowdown else ByDirection(1.0, 1.0)
        ),
        hbm_touches=_pair(file.hbm_touches),
        parameters=file.parameters,
    )


def _pair(
    file: FractionsFile | SharesFile | SmRatesFile | DurationsFile | NumbersFile | None,
) -> ByDirection:
    return ByDirection(file.dispatch, file.combine) if file else ByDirection(0.0, 0.0)
