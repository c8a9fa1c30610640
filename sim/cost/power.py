"""Power by activity, and the energy of a run: parameters of `hardware/compute/power.yaml`, and the equations that they enter.

A GPU draws a part of its TDP that depends on what holds it: products on tensor cores, launches that only move bytes, waits for
communication, or nothing. NICs and switch ports draw their idle power all the time, and the rest in proportion to
their bytes at line rate. Hosts run along; the building multiplies everything by its PUE.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sim import documents
from sim.cluster import parameters as p
from sim.cost.curves import FOLDER
from sim.descriptions import Description

CLASSES = ("tensor", "memory", "communication", "idle")
"""States that a GPU is in."""
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPower(Description):
    """Power of a GPU over its TDP, by what holds it."""

    tensor_fraction: p.Fraction
    memory_fraction: p.Fraction
    communication_fraction: p.Fraction
    idle_fraction: p.Share


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPower(Description):
    """Power of one port with its end of a cable, without traffic and at line rate."""

    idle_w: p.Power
    full_w: p.Power


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPower(Description):
    """Power of a node but for its GPUs and NICs."""

    per_gpu_w: p.Power


@dataclass(frozen=True, slots=True, kw_only=True)
class Building(Description):
    """Cooling and losses around the machines."""

    pue: p.Number


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCurve(p.SourcedFile):
    """Power by activity."""

    name: str
    title: str
    measured_on: str
    gpu: GpuPower
    nic: PortPower
    switch_port: PortPower
    host: HostPower
    building: Building


@functools.cache
def load_power(end: Literal["low", "high"] | None = None) -> PowerCurve:
    """Read the shipped parameters of power.

    Parameters
    ----------
    end : str, optional
        `low` or `high`: each parameter at that end of its range.

    Returns
    -------
    PowerCurve

    Examples
    --------
    >>> load_power("low").host.per_gpu_w <= load_power().host.per_gpu_w
    True
    """
    document = documents.load(documents.find("power", FOLDER, "curve"))
    curve, _ = p.read(PowerCurve, document, None)
    if end is None:
        return curve
    ends = {row.path: getattr(row, end) for row in curve.parameters if row.low is not None}
    return p.read(PowerCurve, document, ends)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The time of the mean GPU of a run, and the bytes of its network.

    Parameters
    ----------
    elapsed_s : float [s]
    tensor_s, memory_s, communication_s : float [s]
        Time in which tensor cores multiply, in which launches only move bytes, and in which compute waits for communication
        or lends it all its SMs. What is left of `elapsed_s` is idle.
    sent_bytes : float [bytes]
        Bytes that all NICs send.
    switched_bytes : float [bytes]
        Bytes that leave all ports of switches.
    """

    elapsed_s: float
    tensor_s: float = 0.0
    memory_s: float = 0.0
    communication_s: float = 0.0
    sent_bytes: float = 0.0
    switched_bytes: float = 0.0

    @property
    def idle_s(self) -> float:
        """Time in which nothing holds the GPU [s]."""
        return max(0.0, self.elapsed_s - self.tensor_s - self.memory_s - self.communication_s)

    def times(self, often: float) -> Activity:
        """The same, `often` times over."""
        return Activity(**{name: getattr(self, name) * often for name in self.__slots__})

    def __add__(self, other: Activity) -> Activity:
        return Activity(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Machines that draw power.

    Parameters
    ----------
    num_gpus : int [count]
    tdp_w : float [W]
        Of one GPU.
    num_nics, num_ports : float [count]
        NICs, and the ports of switches that serve them.
    line_bytes_per_s : float [bytes/s]
        Rate of a NIC and of a port, in one direction.
    """

    num_gpus: int = 0
    tdp_w: float = 0.0
    num_nics: float = 0.0
    num_ports: float = 0.0
    line_bytes_per_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """Powers that a user states in place of those that activity makes; None for what is left to it."""

    gpu_fraction: float | None = None
    """Mean power of a GPU over its TDP, whatever it does."""
    host_w: float | None = None
    """A GPU's share of its node."""
    network_w: float | None = None
    """A GPU's share of NICs and switches."""
    pue: float | None = None


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a run by where it goes, before the building [J], and the building's PUE.

    `gpu_classes_j` is that of GPUs by what held them: `tensor`, `memory`, `communication`, `idle`.
    """

    gpu_classes_j: Mapping[str, float]
    network_j: float
    host_j: float
    pue: float

    @property
    def gpu_j(self) -> float:
        """All GPUs [J]."""
        return sum(self.gpu_classes_j.values())

    @property
    def total_j(self) -> float:
        """All of it with the building [J]."""
        return (self.gpu_j + self.network_j + self.host_j) * self.pue


def energy(curve: PowerCurve, machines: Machines, activity: Activity, stated: Stated | None = None) -> Energy:
    """Energy of a run.

    Parameters
    ----------
    curve : PowerCurve
    machines : Machines
    activity : Activity
    stated : Stated, optional

    Returns
    -------
    Energy

    Notes
    -----
    GPUs: n TDP (sum of f_c t_c over classes c). Ports and NICs: n idle t + (full - idle) bytes / line rate. Hosts: n w t.
    """
    stated = stated or Stated()
    n, t = machines.num_gpus, activity.elapsed_s
    classes_j = {}
    for name in CLASSES:
        fraction = stated.gpu_fraction
        if fraction is None:
            fraction = getattr(curve.gpu, f"{name}_fraction")
        classes_j[name] = n * machines.tdp_w * fraction * getattr(activity, f"{name}_s")
    network_j = sum(
        num * port.idle_w * t + (port.full_w - port.idle_w) * carried / machines.line_bytes_per_s
        for num, port, carried in (
            (machines.num_nics, curve.nic, activity.sent_bytes),
            (machines.num_ports, curve.switch_port, activity.switched_bytes),
        )
    )
    if stated.network_w is not None:
        network_j = n * stated.network_w * t
    host_w = curve.host.per_gpu_w if stated.host_w is None else stated.host_w
    pue = curve.building.pue if stated.pue is None else stated.pue
    return Energy(classes_j, network_j, n * host_w * t, pue)
