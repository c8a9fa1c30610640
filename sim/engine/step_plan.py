"""A training step as the engine takes it: programs, costs and EP all-to-alls, planned before time passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim.cluster.topology import Floats
from sim.schedule.training import Tasks


@dataclass(frozen=True, slots=True)
class ExchangeTimes:
    """An all-to-all with the NICs to itself: time of each lane [s], and what it takes of its NIC."""

    alone_s: Floats  # [lanes]
    fill: float
    nic_bytes: float
    longest_s: float  # of the last lane


class Costs(Protocol):
    """What a step asks of the models of cost; arrays are over lanes."""

    def exchange(
        self, kernel: str, overlapped: bool, group: int, layer: int, microbatch: int
    ) -> ExchangeTimes:
        """The all-to-all of a layer and microbatch."""

    def load(self, group: int, layer: int, microbatch: int) -> Floats | float:
        """Routed load of each lane over the mean."""

    def jitter(self, group: int) -> Floats | float:
        """A factor on the next kernel's time."""

    def even(self) -> Callable[[str, bool], ExchangeTimes] | None:
        """The all-to-all of a kernel, overlapped or not, where all are the same and loads and jitter are 1; else None."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything that `run_step` needs."""

    tasks: Tasks
    num_groups: int  # EP groups of a pipeline rank
    lanes: int
    costs: Costs
    speed: Sequence[
        Sequence[Floats | float]
    ]  # [pipeline ranks][groups]: time factor of each GPU for the whole step
    send_s: float  # a pipeline send alone
    send_bytes: float
    blocking: bool = True
