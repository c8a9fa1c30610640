"""Kinds of NICs: what a cable's line rate becomes through one card and transport, as InfiniBand, RoCE or EFA.

One YAML file of `hardware/nics/` is one kind. A kernel's efficiency was measured with ConnectX-7 on InfiniBand; another kind
reaches as much less (or more) of its line as large writes do with it, and no more messages a second than it takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim import documents
from sim.cluster import parameters as p
from sim.errors import Mark

MEASURED_WITH = "cx7_ib"
"""Kind that the efficiencies of kernels were measured with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicKind(p.SourcedFile):
    """One kind of NIC with its transport."""

    name: str
    title: str
    reached_fraction: p.Fraction
    """Part of the line rate that large writes reach."""
    message_rate_hz: p.Clock
    """Messages a second that the NICs of one GPU take together."""
    same_leaf_latency_s: p.Duration
    """End to end within a leaf, software of both ends included."""
    cross_leaf_latency_s: p.Duration
    """End to end through a spine."""


@dataclass(frozen=True, slots=True)
class NicReach:
    """Limits of a NIC next to the one that kernels were measured on.

    Parameters
    ----------
    relative_fraction : float
        What large writes reach of its line over what they reach of the line that kernels were measured on.
    messages_per_s : float [1/s]
        Messages that it takes.
    step_s : float [s]
        Added to a step between nodes.
    """

    relative_fraction: float = 1.0
    messages_per_s: float = math.inf
    step_s: float = 0.0

    def fraction(self, efficiency: float, line_bytes_per_s: float, message_bytes: float = math.inf) -> float:
        """Part of the line rate that a kernel reaches, which reached an `efficiency` where it was measured.

        Infinite messages are large.
        """
        most = self.messages_per_s * message_bytes / line_bytes_per_s if line_bytes_per_s else 1.0
        return min(1.0, efficiency * self.relative_fraction, most)


MEASURED_ON = NicReach()
"""The NIC that kernels were measured on."""


def worst_reach(reaches: Sequence[NicReach]) -> NicReach:
    """Limits of a way between NICs of unlike kinds."""
    return NicReach(
        min(reach.relative_fraction for reach in reaches),
        min(reach.messages_per_s for reach in reaches),
        max(reach.step_s for reach in reaches),
    )


def reach_of(kind: NicKind | None) -> NicReach:
    """Compare a kind of NIC with the one that kernels were measured with; None is that one.

    Examples
    --------
    >>> reach_of(load_nic("cx7_ib")).relative_fraction
    1.0
    """
    if kind is None:
        return MEASURED_ON
    base = load_nic(MEASURED_WITH)
    return NicReach(
        kind.reached_fraction / base.reached_fraction,
        kind.message_rate_hz,
        kind.same_leaf_latency_s - base.same_leaf_latency_s,
    )


def load_nic(name_or_path: str | Path, *, near: Path | None = None, mark: Mark | None = None) -> NicKind:
    """Read a kind of NIC, a shipped one or a path; InputError with every problem of the file."""
    return _read(documents.find(str(name_or_path), "hardware/nics", "kind of NIC", near=near, mark=mark))


@functools.cache
def _read(path: Path) -> NicKind:
    return p.read(NicKind, documents.load(path), None)[0]
