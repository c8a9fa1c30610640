"""The view of a run that only moves bytes: an all-to-all, another collective, or flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.schedule.collectives import KINDS
from sim.show import style
from sim.show.views.lanes import PARTS, Lanes, Span
from sim.show.views.record import mapping, record
from sim.show.views.run import RunView

_DIRECTIONS = ("dispatch", "combine", "exchange")
_BY_HOPS = ("logical_rdma_bytes_per_s", "logical_nvlink_bytes_per_s")
_BY_SELECTIONS = ("logical_selection_bytes_per_s",)
_COLLECTIVE = "#005EAE"
_KERNELS = {"dispatch": PARTS["dispatch"], "combine": PARTS["combine"], "exchange": ("exchange", _COLLECTIVE)}


@dataclass(frozen=True, slots=True)
class Transfer:
    """Anything that is timed next to a lower bound: a dispatch, a combine, a whole collective, or all flows as one.

    Bytes and bandwidths are those of a rank, as benchmarks count them; None where a transfer does not have one.
    """

    name: str
    completion_time_s: float
    """End of the last rank or flow."""
    binding: str
    """Class of the resource that was full longest on the path of the last rank."""
    binding_resource: str | None = None
    mean_time_s: float | None = None
    """Mean over ranks; None of bare flows."""
    lower_bound_s: float | None = None
    wire_nic_bytes: float | None = None
    wire_nvlink_bytes: float | None = None
    logical_rdma_bytes_per_s: float | None = None
    logical_nvlink_bytes_per_s: float | None = None
    logical_selection_bytes_per_s: float | None = None
    algbw_bytes_per_s: float | None = None
    busbw_bytes_per_s: float | None = None
    nodes_per_token: float | None = None
    ranks_per_token: float | None = None
    algorithm: str = ""
    """Way of a collective other than an exchange of tokens: `ring`, `tree` and the like."""
    protocol: str = ""

    @property
    def time_s(self) -> float:
        """The time that it is known by: the mean rank's, or the last arrival of bare flows [s]."""
        return self.completion_time_s if self.mean_time_s is None else self.mean_time_s

    @property
    def over_bound(self) -> float | None:
        """Completion time over its lower bound; both are of the last rank. None without a bound."""
        return self.completion_time_s / self.lower_bound_s if self.lower_bound_s else None


@dataclass(frozen=True, slots=True)
class KernelRun:
    """A kernel of one EP group: when it started, and when each of its ranks ended."""

    name: str
    group: int
    first_rank: int
    gpus: Sequence[int]
    """GPU of each rank."""
    start_s: float
    rank_ends_s: Sequence[float]
    fixed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadCourse:
    """Loads of a class of links over time (0..1): of the mean link and of the busiest."""

    mean: Sequence[float]
    busiest: Sequence[float]


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Loads of links over time, by class; `time_s` are the middles of equal spans."""

    time_s: Sequence[float]
    courses: Mapping[str, LoadCourse]


@dataclass(frozen=True, slots=True)
class Gathering:
    """Completions that count as one, by part of the least time, and the error of a flow's or rank's time that this leaves."""

    gather_fraction: float
    mean_error_fraction: float
    worst_error_fraction: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TransfersView(RunView):
    """An all-to-all, another collective, or a list of flows."""

    transfers: Mapping[str, Transfer]
    kernels: tuple[KernelRun, ...]
    utilisation: Utilisation | None
    flows: Sequence[Sequence[float]]
    """Number, start and end [us] of each flow."""
    gathering: Gathering | None = None
    layers: Mapping[str, Any] = field(default_factory=dict)
    """Of recorded loads: their number, the slowest, and `mean_s` and `worst_s` of each direction."""

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Bandwidths that benchmarks of its kernel do not print."""
        by_selections = self.kernel in KINDS and KINDS[self.kernel].counts_selections
        return _BY_HOPS if by_selections else _BY_SELECTIONS

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a node, of flows on hardware as many as carried any; 1 on a bare fabric."""
        if self.num_gpus is not None:
            return super().gpus_per_node
        used = (
            end for link in self.links for end in link.name.split("/")[1:2] if link.name.startswith("node")
        )
        return 1 + max((int(end.removeprefix("gpu").removeprefix("nic")) for end in used), default=0)


def spoken(name: str) -> str:
    """The name of a transfer in a sentence: `all_reduce` -> `all-reduce`."""
    return name.replace("_", "-")


SIZES = ("ep",)
"""Parallel dimensions that mean something."""


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the facts of a run that only this kind of workload has."""
    return [
        ("flows", work.get("file")),
        ("collective", spoken(work.get("op") or "")),
        ("group", work.get("group")),
    ]


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are enough for a view: any are."""
    return True


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> TransfersView:
    """Read what a result has of transfers; `common` are the fields of any run."""
    metrics, timeline = mapping(result.get("metrics")), mapping(result.get("timeline"))
    timed = {name: metrics[name] for name in _DIRECTIONS if name in metrics}
    if not timed and "completion_time_s" in metrics:
        work = mapping(common["scenario"].get("workload"))
        timed = {
            str(work.get("op") or ("collective" if "busbw_bytes_per_s" in metrics else "flows")): metrics
        }
    series = mapping(timeline.get("utilisation"))
    courses = {name: record(LoadCourse, entry) for name, entry in series.items() if name != "time_s"}
    return TransfersView(
        **common,
        transfers={
            name: record(Transfer, entry, name=name, mean_time_s=entry.get("time_s"))
            for name, entry in timed.items()
        },
        kernels=tuple(record(KernelRun, entry) for entry in timeline.get("kernels") or ()),
        utilisation=Utilisation(series["time_s"], courses) if series else None,
        flows=result.get("flow_completion") or (),
        layers=mapping(metrics.get("layers")),
        gathering=record(Gathering, result["gathering"]) if result.get("gathering") else None,
    )


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """Kernels by rank, or flows by their start; None of a result without either."""
    kernels = tuple(
        record(KernelRun, entry) for entry in mapping(result.get("timeline")).get("kernels") or ()
    )
    flows = result.get("flow_completion")
    return _kernel_lanes(kernels) if kernels else _flow_lanes(flows) if flows else None


def _kernel_lanes(kernels: Sequence[KernelRun]) -> Lanes:
    """A row for each rank, with the kernels it ran."""
    looks = _KERNELS | {
        kernel.name: (spoken(kernel.name), _COLLECTIVE) for kernel in kernels if kernel.name not in _KERNELS
    }
    spans: dict[str, list[Span]] = {kind: [] for kind in looks}
    for kernel in kernels:
        for rank, end_s in enumerate(kernel.rank_ends_s, start=kernel.first_rank):
            spans[kernel.name].append((kernel.start_s, end_s, rank, kernel.name))
    num_ranks = max(kernel.first_rank + len(kernel.rank_ends_s) for kernel in kernels)
    end_s = max(max(kernel.rank_ends_s) for kernel in kernels)
    return Lanes("rank", tuple(map(str, range(num_ranks))), end_s, looks, spans)


def _flow_lanes(flows: Iterable[Sequence[float]]) -> Lanes:
    """A row for each flow, by its start."""
    ordered = sorted(flows, key=lambda flow: (flow[1], flow[2], flow[0]))
    spans = [
        (start_us * 1e-6, done_us * 1e-6, row, f"flow {int(number)}")
        for row, (number, start_us, done_us) in enumerate(ordered)
    ]
    names = tuple(str(int(number)) for number, _, _ in ordered)
    kinds = {"flow": ("in flight", style.COLOUR["nic"])}
    return Lanes("flow", names, max(done_s for _, done_s, _, _ in spans), kinds, {"flow": spans})
