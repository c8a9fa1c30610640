"""A training step as the engine takes it: programs, compute, and what its transfers put on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.cluster.software import Software
from sim.cluster.topology import Floats, Ints
from sim.schedule.flows import Flows
from sim.schedule.training import Tasks


@dataclass(frozen=True, slots=True)
class GroupCollective:
    """An EP all-to-all kernel of one group of ranks, cabled.

    Parameters
    ----------
    flows : Flows
        Its parties are lanes of the group.
    fixed_s : float [s]
        From the start of its slowest lane to its first byte.
    slowdown : float
        Its time next to compute over its time alone.
    owner : int, [num_flows]
        Which set of `owners` a flow's bytes are for.
    owners : sequence of int arrays
        Lanes whose mean routed load scales the bytes of the flows they own.
    taker : int, [num_entries]
        Lane whose routed load over its owners' scales an entry; -1 where none does.
    """

    flows: Flows
    fixed_s: float
    slowdown: float = 1.0
    owner: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    owners: Sequence[Ints] = ()
    taker: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everything that a step may have under way, cabled on the whole cluster.

    Parameters
    ----------
    capacity : float, [num_resources]
    class_idx : int, [num_resources]
        Place in `topology.CLASSES`.
    collectives : [pipeline ranks][groups], kernel -> GroupCollective
    sends : (source, target pipeline rank) -> flows of each group
        Flow i goes from lane i to lane i. Pairs that are not named send nothing over any link.
    """

    capacity: Floats
    class_idx: Ints
    collectives: Sequence[Sequence[Mapping[str, GroupCollective]]]
    sends: Mapping[tuple[int, int], Sequence[Flows]]

    @property
    def scaled(self) -> bool:
        """True where routed loads scale the flows of any collective."""
        return any(len(x.owner) for rank in self.collectives for group in rank for x in group.values())


@dataclass(frozen=True, slots=True)
class Conditions:
    """Faults that come and go, and those of memory: capacities and compute times from each instant to the next.

    Parameters
    ----------
    instants : float, [K] [s]
        Rising; the first condition holds before all of them.
    capacity : float, [K + 1, num_resources]
    variant : int, [K + 1, pipeline ranks, groups, lanes]
        Place in `fixed_s` and `routed_s`.
    fixed_s, routed_s : float, [variants, nodes of all programs] [s]
        As of `Node`; inf where a GPU does not compute.
    """

    instants: Floats
    capacity: Floats
    variant: Ints
    fixed_s: Floats
    routed_s: Floats


@dataclass(frozen=True, slots=True)
class Host:
    """One host thread a GPU, which issues the launches and synchronisations of `Node`; see `step_host`.

    Parameters
    ----------
    launch_s : float [s]
        From one launch to the next.
    sync_s : float [s]
        From the device having come to a synchronisation until the host goes on.
    run_ahead : int [count]
        Launches that may be issued before the device has run them.
    """

    launch_s: float
    sync_s: float
    run_ahead: int = 1024

    @classmethod
    def from_software(cls, software: Software | None) -> Host | None:
        """The host of a software profile; None where launches cost nothing."""
        if software is None:
            return None
        return cls(software.launch_s, software.sync_s, software.run_ahead)


@dataclass(frozen=True, slots=True)
class Member:
    """Part of a plan of several programs that share a network (`step_jobs`): what belongs to one of them.

    Parameters
    ----------
    first_rank, num_ranks : int
        Its pipeline ranks.
    num_groups, lanes : int [count]
        Groups at each of them and ranks of each; the plan's others are not there.
    blocking, host
        As of `StepPlan`.
    draws : bool
        True where its groups draw loads for themselves.
    first_task, num_tasks : int
    first_jitter, num_jitter : int
        Rows of the plan's jitter.
    """

    first_rank: int
    num_ranks: int
    num_groups: int
    lanes: int
    blocking: bool
    host: Host | None
    draws: bool
    first_task: int
    num_tasks: int
    first_jitter: int
    num_jitter: int

    @property
    def ranks(self) -> slice:
        """Its pipeline ranks."""
        return slice(self.first_rank, self.first_rank + self.num_ranks)

    def holds(self, rank: Ints) -> npt.NDArray[np.bool_]:
        """True for those of the plan's pipeline ranks that are its own."""
        end = self.first_rank + self.num_ranks
        return (self.first_rank <= rank) & (rank < end)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Everything that `run_step` needs.

    Parameters
    ----------
    tasks : Tasks
    traffic : Traffic
    num_groups, lanes : int [count]
        Groups of ranks at each pipeline rank, and ranks of each.
    speed : float, [pipeline ranks, groups, lanes]
        Time factor of each GPU's compute.
    loads : float, [groups, layers, microbatches, lanes]
        Routed load of each lane over the mean; empty where all are 1. One group's draws may stand for all groups; there are as
        many groups here as draw loads or jitter of their own.
    jitter : float, [any number, lanes]
        Factors on the times of single launches, taken in turn; empty where all are 1.
    blocking : bool
        True where a rank waits for its sends before its next operation.
    conditions : Conditions, optional
        None where capacities and compute times stay as they are.
    host : Host, optional
        None where launches cost nothing.
    merged : tuple of Member
        Programs that it is put together from, each with its own `blocking` and `host`; empty where it is one.
    """

    tasks: Tasks
    traffic: Traffic
    num_groups: int
    lanes: int
    speed: Floats
    loads: Floats = field(default_factory=lambda: np.ones((0, 0, 0, 0)))
    jitter: Floats = field(default_factory=lambda: np.ones((0, 0)))
    blocking: bool = True
    conditions: Conditions | None = None
    host: Host | None = None
    merged: tuple[Member, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The programs that it consists of."""
        num_ranks, num_tasks = len(self.tasks), len(self.tasks.kind)
        whole = (0, num_ranks, self.num_groups, self.lanes, self.blocking, self.host, len(self.loads) > 1)
        return self.merged or (Member(*whole, 0, num_tasks, 0, len(self.jitter)),)

    def present(self) -> npt.NDArray[np.bool_]:
        """True for lanes that are there, [pipeline ranks, groups, lanes]."""
        present = np.zeros(self.speed.shape, dtype=np.bool_)
        for member in self.members:
            present[member.ranks, : member.num_groups, : member.lanes] = True
        return present

    @property
    def capacities(self) -> Floats:
        """Capacities of each condition, [conditions, num_resources]."""
        return self.conditions.capacity if self.conditions else self.traffic.capacity[None]
