"""Records of a training step: its tasks and nodes as they ran, rank group by rank group, as columns.

A step has up to some hundred thousand tasks; whoever wants one as an object takes it by its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats
from sim.schedule.operations import KINDS, Ints, Kind


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as it ran; times are means over the group's lanes [s]."""

    kind: Kind
    microbatch_f: int
    microbatch_b: int
    start_s: float
    end_s: float
    exposed_s: float  # compute waited for communication, or for reductions inside layers
    barrier_s: float  # lanes waited for the slowest at the start of collectives
    host_s: float  # the device waited for the host to issue


@dataclass(frozen=True, slots=True, eq=False)
class TaskRecords:
    """Tasks in the order in which they ran, a column for each field of `TaskRecord`, [num_tasks]."""

    kind: npt.NDArray[np.int8]  # place in `operations.KINDS`
    microbatches: Ints  # [num_tasks, 2], forward and backward
    start_s: Floats
    end_s: Floats
    exposed_s: Floats
    barrier_s: Floats
    host_s: Floats

    def __len__(self) -> int:
        return len(self.kind)

    def __iter__(self) -> Iterator[TaskRecord]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> TaskRecord:
        f, b = self.microbatches[i].tolist()
        times = (self.start_s, self.end_s, self.exposed_s, self.barrier_s, self.host_s)
        return TaskRecord(KINDS[self.kind[i]], f, b, *(float(column[i]) for column in times))

    def kinds(self) -> list[Kind]:
        """The kind of each."""
        return [KINDS[kind] for kind in self.kind.tolist()]


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of a task as it ran, means over lanes [s]."""

    name: str
    stream: str  # compute | communication
    task: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, eq=False)
class NodeRecords:
    """The kept nodes in the order in which they ran, a column for each field of `NodeRecord`, [num_nodes]."""

    name: Sequence[str] = ()
    stream: Sequence[str] = ()
    task: Sequence[int] = ()
    start_s: Sequence[float] = ()
    end_s: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.name)

    def __iter__(self) -> Iterator[NodeRecord]:
        columns = (self.name, self.stream, self.task, self.start_s, self.end_s)
        return (NodeRecord(*row) for row in zip(*columns, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class GroupRecord:
    """One rank group's step."""

    pipeline_rank: int
    group: int
    tasks: TaskRecords
    nodes: NodeRecords
    end_s: Floats  # [lanes]
