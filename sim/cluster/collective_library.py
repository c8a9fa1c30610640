"""Libraries of collectives: what rings, trees and sums in the switch reach of the links, and what each of their steps takes.

One YAML file of `hardware/collectives/` is one release of a library, as NCCL 2.29. The way its algorithms use links is in `schedule.group_operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sim import documents
from sim.cluster import parameters as p
from sim.descriptions import Description

PROTOCOLS = ("ll", "ll128", "simple")
"""Forms in which bytes are sent, from the least time of a step to the most bandwidth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps(Description):
    """Times of an algorithm in one protocol."""

    launch_s: p.Duration
    """Before the first step."""
    scale_up_step_s: p.Duration
    """A step to a GPU of the same node takes it."""
    nic_step_s: p.Duration
    """A step to another node takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocols(Description):
    """Times of an algorithm by protocol."""

    ll: Steps
    ll128: Steps
    simple: Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidths(Description):
    """Part of the bandwidth that a protocol leaves for payload."""

    ll: p.Fraction
    ll128: p.Fraction
    simple: p.Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class InSwitch(Description):
    """Sums made, and copies sent, by the scale-up switch."""

    launch_s: p.Duration
    nic_step_s: p.Duration
    """A step of the tree between nodes takes it."""
    scale_up_efficiency_fraction: p.Fraction
    """Bytes a second to or from the switch / its peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveLibrary(p.SourcedFile):
    """One library of collectives."""

    name: str
    title: str
    measured_on: str | None = None
    """Name of the hardware on which its efficiencies were measured."""
    scale_up_efficiency_fraction: p.Fraction
    """Bytes a second of a ring over scale-up / its peak, in the protocol `simple`."""
    bandwidth_fraction: Bandwidths
    ring: Protocols
    tree: Protocols
    tree_bandwidth_fraction: p.Fraction
    """Part of a ring's bandwidth that a tree reaches."""
    nvls: InSwitch


def load_library(name_or_path: str | Path = "nccl_2_29") -> CollectiveLibrary:
    """Read a library of collectives.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped library, or a path.

    Returns
    -------
    CollectiveLibrary
        All quantities in SI units, with the table of parameters.

    Examples
    --------
    >>> round(load_library().scale_up_efficiency_fraction * 450)  # GB/s of an H100's 450
    343
    """
    path = documents.find(str(name_or_path), "hardware/collectives", "library of collectives")
    return p.read(CollectiveLibrary, documents.load(path), None)[0]
