"""Faults as tests write them."""

from __future__ import annotations

from sim.cluster.faults import Fault

NIC = 50e9


def slow_nic(nic: int, rate: float, node: int | None = None) -> Fault:
    """A NIC of 400 Gb/s, or with no node those of a whole rail, at another rate [bytes/s]."""
    return Fault("bandwidth", rate / NIC, node=node, **{"rail" if node is None else "nic": nic})  # type: ignore[arg-type]
