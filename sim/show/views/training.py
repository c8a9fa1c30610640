"""The view of a training step: its phases, what GPUs hold, its operations, and the whole run it is part of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from sim.show.views.lanes import OPERATIONS, Lanes, Span
from sim.show.views.record import mapping, record
from sim.show.views.run import Held, RunView

PHASES = {
    "1F_s": "1F, forwards alone",
    "1B_s": "1B, backwards alone",
    "1W_s": "1W, weight parts alone",
    "1F1B_s": "1F1B, F&B pairs",
    "opt_s": "optimizer",
    "bubble_s": "bubble",
}
"""Phases of a step as a reader calls them, in the order in which they are listed and drawn."""
SIZES = ("pp", "ep", "etp", "dp", "tp", "cp")
"""Parallel dimensions that mean something."""
_PARTS = ("weights", "fp8 copies", "gradients", "optimizer", "activations", "buffers")
_PHASE_OF = {"F": "1F_s", "B": "1B_s", "B_in": "1B_s", "W": "1W_s", "FB": "1F1B_s", "FW": "1F1B_s"}


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of a pipeline rank, a column each."""

    rank: int
    kinds: Sequence[str]
    microbatches: Sequence[Sequence[int]]
    start_s: Sequence[float]
    end_s: Sequence[float]

    @property
    def names(self) -> list[str]:
        """Names of them: `F 3`, `W 3`, or `F 3 & B 1` for a pair; -1 stands for no microbatch."""
        return [
            f"F {f} & {kind[1]} {b}" if len(kind) == 2 else f"{kind.replace('B_in', 'B')} {max(f, b)}"
            for kind, (f, b) in zip(self.kinds, self.microbatches, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Compute and collectives on the two streams of a rank, a column each; `tasks` are the operations they are part of."""

    rank: int
    names: Sequence[str]
    streams: Sequence[str]
    start_s: Sequence[float]
    end_s: Sequence[float]
    tasks: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class PhasePart:
    """A phase of a whole run; of GPU-hours that are given nothing else is known."""

    name: str
    days: float
    gpu_hours: float
    steps: float | None = None
    step_time_s: float | None = None
    sequence_tokens: int | None = None
    sequences: int | None = None
    """Of a step."""
    layout: str = ""
    schedule: str = ""
    recompute: str = ""
    cost_usd: float | None = None
    energy_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures of a whole run."""

    lost_s: Mapping[str, float]
    """Lost time by what took it: `saving`, `undone`, `restarting`, `waiting`, `slowed`, `swapping`."""
    by_part: Mapping[str, float]
    closed_form_ettr_fraction: float
    stragglers: float = 0.0


@dataclass(frozen=True, slots=True)
class WholeRun:
    """A whole training run of such steps."""

    run_days: float
    run_gpu_hours: float
    hardware: str
    """Name of the profile."""
    model: str = ""
    run_cost_usd: float | None = None
    run_energy_kwh: float | None = None
    run_energy_low_kwh: float | None = None
    run_energy_high_kwh: float | None = None
    ettr_fraction: float | None = None
    failures: float | None = None
    lost_s: float | None = None
    mtbf_s: float | None = None
    checkpoint_every_s: float | None = None
    phases: tuple[PhasePart, ...] = ()
    lost: Failures | None = None
    tokens: str | None = None
    """Tokens of the run, as the scenario states them."""
    price: str | None = None
    """Price of a GPU-hour in the scenario; None where the profile's counts."""

    @property
    def usd_per_gpu_hour(self) -> float:
        """Price of a GPU-hour, of a run that has one [$]."""
        return (self.run_cost_usd or 0.0) / self.run_gpu_hours

    @property
    def has_phases(self) -> bool:
        """The scenario names its phases."""
        return len(self.phases) > 1 or (bool(self.phases) and self.tokens is None)


@dataclass(frozen=True, kw_only=True, eq=False)
class StepView(RunView):
    """A training step; fields are named as the metrics."""

    family: ClassVar[str] = "training"

    step_time_s: float
    tokens_per_s_per_gpu: float
    phases: Mapping[str, float]
    """By the keys of `PHASES`, on pipeline rank 0 [s]."""
    phases_mean: Mapping[str, float]
    """The same on the mean pipeline rank [s]."""
    lower_bound_s: float | None = None
    mfu_causal_fraction: float | None = None
    mfu_noncausal_fraction: float | None = None
    tokens_per_day: float | None = None
    exposed_comm_s: float | None = None
    exposed_comm_mean_s: float | None = None
    barrier_wait_s: float | None = None
    packing: Mapping[str, float] = field(default_factory=dict)
    """Metrics `packing`, of a step whose sequences hold several documents."""
    memory_capacity_bytes: float | None = None
    model: str
    ep: int | None
    """Ranks of an EP group."""
    microbatch_tokens: int
    profile: str | None
    """Name of the measured profile that it computes with."""
    whole_run: WholeRun | None
    pipeline: tuple[Operations, ...]
    optimizer_s: Sequence[float]
    """By pipeline rank, after the last operation of all."""
    nodes: tuple[Nodes, ...]
    end_s: float
    """End of the timeline."""

    @property
    def fullest(self) -> Held:
        """The memory of the pipeline rank that holds most."""
        return max(self.memory, key=lambda held: held.total_bytes, default=Held(0, {}))

    @cached_property
    def rank_phases(self) -> dict[str, dict[str, float]]:
        """Phases of each pipeline rank by its name, from the timeline [s]."""
        ranks = {}
        for rank, optimizer_s in zip(self.pipeline, self.optimizer_s, strict=False):
            spent = dict.fromkeys(PHASES, 0.0)
            for kind, start_s, end_s in zip(rank.kinds, rank.start_s, rank.end_s, strict=True):
                spent[_PHASE_OF[kind]] += end_s - start_s
            spent["opt_s"] = optimizer_s
            spent["bubble_s"] = max(0.0, self.end_s - sum(spent.values()))
            ranks[str(rank.rank)] = spent
        return ranks


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the facts of a run that only this kind of workload has."""
    return []


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of a step that ran."""
    return {"phases", "phases_mean", "step_time_s", "tokens_per_s_per_gpu"} <= metrics.keys()


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> StepView:
    """Read what a result has of a training step; `common` are the fields of any run."""
    metrics, timeline = mapping(result.get("metrics")), mapping(result.get("timeline"))
    scenario = common["scenario"]
    work = mapping(scenario.get("workload"))
    asked = mapping(work.get("run"))
    whole_run = None
    if "run_gpu_hours" in metrics:
        known: dict[str, Any] = {key: asked.get(key) for key in ("tokens", "price")}
        parts = mapping(result.get("run"))
        known["phases"] = tuple(record(PhasePart, phase) for phase in parts.get("phases") or ())
        known["lost"] = record(Failures, parts["failures"]) if parts.get("failures") else None
        known["model"] = str(scenario.get("model"))
        whole_run = record(WholeRun, metrics, hardware=common["hardware"], **known)
    return record(
        StepView,
        metrics,
        **common,
        model=str(scenario.get("model")),
        ep=mapping(scenario.get("layout")).get("ep"),
        microbatch_tokens=int(work.get("microbatch_sequences") or 1) * int(work.get("sequence_tokens") or 0),
        profile=work.get("profile"),
        whole_run=whole_run,
        pipeline=tuple(record(Operations, entry) for entry in timeline.get("pipeline") or ()),
        optimizer_s=timeline.get("optimizer_s") or (),
        nodes=tuple(record(Nodes, entry) for entry in timeline.get("nodes") or ()),
        end_s=timeline.get("end_s", 0.0),
    )


def parts_of(memory: Iterable[Held]) -> list[str]:
    """The parts of memory that any of these has, in the order in which they are listed and drawn."""
    present = {part for held in memory for part, size in held.parts.items() if size}
    return [part for part in dict.fromkeys((*_PARTS, *sorted(present))) if part in present]


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """Operations by pipeline rank; None of a result without them."""
    timeline = mapping(result.get("timeline"))
    pipeline = [record(Operations, entry) for entry in timeline.get("pipeline") or ()]
    if not pipeline:
        return None
    spans: dict[str, list[Span]] = {kind: [] for kind in OPERATIONS}
    for row, rank in enumerate(pipeline):
        for kind, name, start_s, end_s in zip(rank.kinds, rank.names, rank.start_s, rank.end_s, strict=True):
            spans[kind].append((start_s, end_s, row, name))
    last_s = max(max(rank.end_s) for rank in pipeline)
    optimizer_s = enumerate(timeline.get("optimizer_s") or ())
    spans["opt"] = [(last_s, last_s + time_s, row, "optimizer") for row, time_s in optimizer_s]
    return Lanes(
        "pipeline rank", tuple(str(rank.rank) for rank in pipeline), timeline["end_s"], OPERATIONS, spans
    )
