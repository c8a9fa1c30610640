"""Records of what happened, frozen: those that metrics are computed from afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats, Ints
from sim.schedule.flows import Flows


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One collective kernel (or a set of bare flows) from its common start to its last byte. Times absolute [s]."""

    name: str
    group: int
    start_s: float
    fixed_s: float  # of each rank's time: the kernel's latency before and after its bytes
    rank_ends_s: Floats  # [num_ranks]
    gpus: Ints  # [num_ranks], GPU of each rank in the cluster
    finish_s: Floats  # [num_flows]
    flows: Flows


@dataclass(frozen=True, slots=True)
class Stretch:
    """Spans of time in which rates stayed: `used` [num_spans, len(rows)] of the capacity of resources `rows`."""

    start_s: Floats
    end_s: Floats
    rows: Ints
    used: npt.NDArray[np.float32]


@dataclass(slots=True)
class Trace:
    """Everything a run leaves behind."""

    transfers: list[TransferRecord] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    saturated_s: Floats = field(default_factory=lambda: np.zeros(0))  # [num_resources]
    end_s: float = 0.0
