"""Generations of all-to-all kernels: the part of a link's rate that a kernel achieves, and its other costs.

One YAML file is one generation: of `hardware/kernels/`, or a user's own. It names the *kind* of its kernels, which decides the
way that bytes travel (`schedule.collectives.KINDS`). Its efficiencies are fractions of the datasheet rate of *any* hardware:
135 of 200 GB/s of NVLink, measured on an H800, make 303.75 of 450 on an H100.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sim import documents
from sim.cluster import parameters as p
from sim.cluster.hardware import list_hardware, load_hardware
from sim.descriptions import Description
from sim.documents import Document
from sim.errors import Mark

Quantity = float | npt.NDArray[np.float64]

KindName = Literal["two_hop", "low_latency", "flat", "nccl"]

DEFAULTS: Mapping[str, str] = {
    "two_hop": "deepep_v1_2025_04",
    "low_latency": "low_latency",
    "flat": "flat",
    "nccl": "nccl",
}
"""Kind -> the shipped generation that it means where none is named."""


class ByDirection(Description):
    """A number for each direction of a collective, `numbers["dispatch"]`; its unit is in the name of the field that holds it."""

    __slots__ = ()
    dispatch: float
    combine: float

    def __getitem__(self, direction: str) -> float:
        return {"dispatch": self.dispatch, "combine": self.combine}[direction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractions(ByDirection):
    """A fraction by direction."""

    dispatch: p.Fraction
    combine: p.Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares(ByDirection):
    """A share by direction, zero allowed."""

    dispatch: p.Share
    combine: p.Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios(ByDirection):
    """A plain ratio by direction."""

    dispatch: p.Number
    combine: p.Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations(ByDirection):
    """A time by direction."""

    dispatch: p.Duration
    combine: p.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SmRates(ByDirection):
    """A rate of one SM by direction."""

    dispatch: p.RatePerSm
    combine: p.RatePerSm


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Description):
    """A largest rate of bytes by direction, where there is one."""

    dispatch: p.Rate | None = None
    combine: p.Rate | None = None

    def __getitem__(self, direction: str) -> float:
        return {"dispatch": self.dispatch, "combine": self.combine}[direction] or math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRate(Description):
    """Bytes that one SM copies in a second, in collectives that stay in one node, and in those that use a NIC."""

    single_node: SmRates
    over_nic: SmRates

    def numbers(self, *, uses_nic: bool) -> SmRates:
        """The rates of a collective that uses a NIC or none [bytes/s]."""
        return self.over_nic if uses_nic else self.single_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(ByDirection):
    """A number of things by direction, zero allowed."""

    dispatch: p.CountOrNone
    combine: p.CountOrNone


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstChunk(Description):
    """Tokens of each SM that pass one stage of the kernel before the next begins."""

    single_node: Counts
    over_nic: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTime(Description):
    """Fixed time of a chunk, of all its stages together."""

    single_node: Durations
    over_nic: Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency(Description):
    """Fixed time of a collective: in one node and at the smallest number of nodes that uses the NIC, and its growth."""

    single_node: Durations
    over_nic: Durations
    per_doubling: Durations | None = None
    """Added for every doubling of the number of nodes, counted from one node."""
    per_remote_peer: Durations | None = None
    """Added for every rank outside the own node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Description):
    """Measurements that a generation was compared with: their hardware, and the least and the most of sizes."""

    hardware: tuple[str, ...]
    """Names of profiles."""
    ep: tuple[int, int]
    """Ranks of a group."""
    tokens: tuple[int, int] | None = None
    """Tokens of a rank; left out where messages were measured by their bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(p.SourcedFile):
    """One generation of all-to-all kernels."""

    name: str
    """That of its file, for a shipped generation."""
    kind: KindName
    """Way that bytes travel; a scenario that names this generation names the same kind."""
    title: str
    measured_on: str | None = None
    """Name of the hardware on which its efficiencies were measured."""
    validated: Validated | None = None
    """Left out where it was never compared."""
    nic_efficiency_fraction: p.Fraction
    """Record bytes a second over the NIC / its line rate."""
    scale_up_efficiency_fraction: Fractions
    """Record bytes a second over scale-up / its peak."""
    shorter_path_exposed_fraction: Shares | None = None
    """Part of the shorter of the NIC's and scale-up's time added to the longer one; 0 or left out: they overlap."""
    comm_sms: p.CountOrNone
    """SMs held while bytes move, unless the scenario gives another number."""
    copy_rate_bytes_per_s: CopyRate | None = None
    """Bytes that one SM copies in a second; left out where copying never binds."""
    take_in_rate_bytes_per_s: SmRates | None = None
    """Bytes that one SM takes in a second, of a record once, however many ranks it goes to; left out where it costs nothing."""
    record_time_s: Durations | None = None
    """Time that one SM spends on a record besides its bytes, once, however many ranks it goes to."""
    first_chunk_tokens: FirstChunk | None = None
    """Filling the pipeline: the time of copying so many tokens of each SM is added; left out where it takes none."""
    chunk_time_s: ChunkTime | None = None
    """A transfer of T is cut into chunks of such a time that 2 sqrt(chunk_time x T) is added; left out where none is."""
    copy_limit_bytes_per_s: Limits | None = None
    """Bytes that all warps of a GPU copy in a second where no SM is held; left out where that never binds."""
    latency_s: Latency
    beside_compute_slowdown: Ratios | None = None
    """Time next to compute on the other SMs over the time alone; left out where nobody measured it."""
    hbm_touches: Ratios
    """HBM bytes read or written by a GPU per record byte that it receives."""

    def exposed_fraction(self, direction: str) -> float:
        """Part of the shorter of the NIC's and scale-up's time that the longer one does not hide."""
        exposed = self.shorter_path_exposed_fraction
        return exposed[direction] if exposed else 0.0

    def slowdown(self, direction: str) -> float:
        """Time next to compute over the time alone [ratio]; 1 where nobody measured it."""
        return self.beside_compute_slowdown[direction] if self.beside_compute_slowdown else 1.0

    def copy_s(
        self,
        direction: str,
        record_bytes: float,
        copied_bytes: Quantity,
        taken_in_bytes: Quantity = 1.0,
        *,
        uses_nic: bool,
        sms: int,
    ) -> Quantity:
        """Time that a GPU copies [s]: records that it takes in once each, and a copy of them for every rank that they go to.

        (copied / copy_rate + taken_in (1 / take_in_rate + record_time / record_bytes)) / SMs; at least copied / copy_limit.
        """
        limited = (
            copied_bytes / self.copy_limit_bytes_per_s[direction] if self.copy_limit_bytes_per_s else 0.0
        )
        if not sms:
            return limited
        by_sm: Quantity = 0.0
        if self.copy_rate_bytes_per_s:
            by_sm = copied_bytes / (self.copy_rate_bytes_per_s.numbers(uses_nic=uses_nic)[direction] * sms)
        if self.take_in_rate_bytes_per_s:
            by_sm += taken_in_bytes / (self.take_in_rate_bytes_per_s[direction] * sms)
        if self.record_time_s:
            by_sm += taken_in_bytes * self.record_time_s[direction] / (record_bytes * sms)
        return np.maximum(limited, by_sm)

    def first_chunk_s(
        self,
        direction: str,
        record_bytes: float,
        tokens: float,
        ranks_per_token: float,
        nodes_per_token: float,
        *,
        uses_nic: bool,
        sms: int,
    ) -> float:
        """Time in which all SMs copy the first tokens, which pass one stage after another [s]."""
        first = self.first_chunk_tokens
        if first is None:
            return 0.0
        number = (first.over_nic if uses_nic else first.single_node)[direction] * sms
        size = min(number, tokens) * record_bytes
        sizes = record_bytes, size * ranks_per_token, size * nodes_per_token
        return float(self.copy_s(direction, *sizes, uses_nic=uses_nic, sms=sms))

    def fixed_s(self, direction: str, *, uses_nic: bool, num_nodes: float, num_remote_peers: int) -> float:
        """Fixed time of one collective where it was measured [s]: base + doublings of nodes x growth + remote peers x cost."""
        latency = self.latency_s
        if not uses_nic:
            return latency.single_node[direction]
        time_s = latency.over_nic[direction]
        if latency.per_doubling:
            time_s += latency.per_doubling[direction] * math.log2(max(num_nodes, 1.0))
        if latency.per_remote_peer:
            time_s += latency.per_remote_peer[direction] * num_remote_peers
        return time_s

    def beyond_s(self, scale_up_latency_s: float, same_leaf_latency_s: float, *, uses_nic: bool) -> float:
        """Latencies of a part's links beyond those that the fixed times hold, of the part that they were measured on [s].

        A generation that does not say so was measured on the H800, whose latencies most profiles share.
        """
        scale_up_s, same_leaf_s = _measured_latencies_s(self.measured_on)
        return scale_up_latency_s - scale_up_s + (same_leaf_latency_s - same_leaf_s) * uses_nic


@functools.cache
def _measured_latencies_s(name: str | None) -> tuple[float, float]:
    """Latency of scale-up, and of a path within a leaf, of the part that a kernel was measured on [s]."""
    hardware = load_hardware(name if name in list_hardware() else "h800")
    return hardware.gpu.scale_up.latency_s, hardware.fabric.same_leaf_latency_s


def list_kernels() -> tuple[str, ...]:
    """List the shipped kernel generations.

    Returns
    -------
    tuple of str
        Names that `load_kernel` takes.
    """
    return tuple(documents.shipped("hardware/kernels"))


def generations(kind: str) -> tuple[str, ...]:
    """List the shipped generations of a kind, a key of `DEFAULTS`."""
    return tuple(name for name in list_kernels() if load_kernel(name).kind == kind)


def load_kernel(
    name_or_path: str | Path,
    override: Document | Mapping[str, Any] | None = None,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Kernel:
    """Read a generation of all-to-all kernels.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped generation (`list_kernels`), a kind for its default one, or a path.
    override : Document or mapping, optional
        Parameters to replace, as of `load_hardware`.
    near : Path, optional
        Folder that a relative path may start from.
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

    Examples
    --------
    >>> round(load_kernel("two_hop").scale_up_efficiency_fraction["dispatch"] * 200)  # of an H800's 200 GB/s
    135
    """
    path = documents.find(
        str(name_or_path), "hardware/kernels", "kernel", near=near, mark=mark, aliases=DEFAULTS
    )
    return p.read(Kernel, documents.load(path), override)[0]
