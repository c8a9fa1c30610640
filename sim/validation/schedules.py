"""Published figures of pipeline schedules and of training memory, each next to ours.

Two groups of `scenarios/published/`, `schedules` and `memory`: their figures follow from an order or a layout
alone, so nothing is simulated against a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import Field

from sim import units
from sim.cluster.hardware import load_hardware
from sim.cost import memory as cost
from sim.documents import Document
from sim.runs.kinds import Progress
from sim.scenario.values import Branch, Count
from sim.schedule.operations import Pipeline
from sim.schedule.pipelines import plan
from sim.schedule.replay import peaks, replay
from sim.validation import published
from sim.validation.published import Bar, Published, Row, Use, row
from sim.workload import layout
from sim.workload.model import load_model
from sim.workload.stages import stages


class PlanSpec(Branch):
    """A schedule and its options."""

    kind: str
    ranks: Count
    microbatches: Count
    chunks: Count | None = None
    durations: tuple[float, float, float] | None = None


class PublishedSchedule(Branch):
    """One published value."""

    quantity: str
    value: str | bool | int | float
    use: Use = "validation"


class PlanFigures(Branch):
    """A plan, the durations it is replayed with, and its figures: of `rank`, or of all ranks."""

    name: str
    source: str
    plan: PlanSpec
    durations: dict[str, float] = Field(default={"F": 1.0, "B_in": 1.0, "W": 1.0})
    rank: int | None = None
    rows: list[PublishedSchedule]


class LayoutSizes(Branch):
    """Parallel dimensions; what is left out is derived."""

    pp: Count | None = None
    ep: Count | None = None
    tp: Count | None = None
    dp: Count | None = None
    cp: Count | None = None


class MemorySchedule(Branch):
    """The schedule that decides how many activations are kept."""

    kind: str
    microbatches: Count


class MemoryFigures(Branch):
    """A training run and its figures, those of the fullest GPU."""

    name: str
    source: str
    model: str
    hardware: str
    gpus: Count
    layout: LayoutSizes
    schedule: MemorySchedule
    tokens_per_microbatch: Count
    ranks_per_token: float
    rows: list[PublishedSchedule]


class ScheduleFigures(Published):
    """A file of plans, of memories, or of both."""

    plans: list[PlanFigures] = Field(default=[])
    memories: list[MemoryFigures] = Field(default=[])


def load(group: str) -> tuple[ScheduleFigures, Document]:
    """Read `schedules` or `memory`, and its document for messages."""
    return published.load(group, ScheduleFigures)


def rows(figures: ScheduleFigures, progress: Progress = lambda _: None) -> Iterator[Row]:
    """Yield every figure next to ours; values in SI units.

    Times of schedules have the unit of their durations, one forward, and are given to nine digits after the
    point: the same sum taken in another order is the same time.
    """
    progress(figures.group)
    for example in figures.plans:
        ours = _plan_quantities(example)
        for figure in example.rows:
            yield _row(example, None, figure, ours, "number", figures.bar)
    for run in figures.memories:
        ours = _memory_quantities(run)
        for figure in run.rows:
            unit = "number" if figure.quantity == "fits" else "bytes"
            yield _row(run, run.hardware, figure, ours, unit, figures.bar)


def _row(
    of: PlanFigures | MemoryFigures,
    machine: str | None,
    figure: PublishedSchedule,
    ours: dict[str, float | bool],
    unit: str,
    bar: Bar,
) -> Row:
    return row(
        f"{of.name}.{figure.quantity}",
        figure.quantity,
        unit,
        figure.value if isinstance(figure.value, bool) else units.parse(figure.value, unit),
        ours[figure.quantity],
        use=figure.use,
        source=of.source,
        machine=machine,
        tolerance=bar.worst,
    )


def _plan_quantities(example: PlanFigures) -> dict[str, float | bool]:
    """Return every quantity of a plan."""
    options = {"chunks": example.plan.chunks, "durations": example.plan.durations}
    given = {key: value for key, value in options.items() if value is not None}
    pipeline = plan(example.plan.kind, example.plan.ranks, example.plan.microbatches, **given)
    times = replay(pipeline, example.durations)
    asked = range(pipeline.num_ranks) if example.rank is None else (example.rank,)
    idle = [times.idle_s[rank] for rank in asked]
    exact = {
        "total": times.total_s,
        "bubble": times.bubble_s,
        "least_idle": min(idle),
        "most_idle": max(idle),
        "peak": max(peaks(pipeline)[rank] for rank in asked),
        "copies": float(pipeline.num_copies),
        **_counts(pipeline, asked),
    }
    return {name: round(value, 9) for name, value in exact.items()}


def _counts(pipeline: Pipeline, ranks: range | tuple[int, ...]) -> dict[str, float]:
    kinds = [operation.kind for rank in ranks for operation in pipeline.orders[rank]]
    return {f"operations.{kind}": float(kinds.count(kind)) for kind in ("F", "B", "B_in", "W", "FB")}


def _memory_quantities(run: MemoryFigures) -> dict[str, float | bool]:
    """Return every quantity of the fullest GPU of a training run."""
    model = load_model(run.model)
    sizes = layout.derive(run.gpus, num_experts=model.num_experts, **run.layout.model_dump())
    pipeline = plan(run.schedule.kind, sizes.pp, run.schedule.microbatches)
    capacity = load_hardware(run.hardware).gpu.hbm.capacity_bytes
    ranks = cost.memory(
        model,
        sizes,
        stages(model, pipeline.num_stages),
        pipeline.stages,
        partial(peaks, pipeline),
        tokens_per_microbatch=run.tokens_per_microbatch,
        ranks_per_token=run.ranks_per_token,
    )
    fullest = max(ranks, key=lambda row: row.total_bytes)
    return {
        "states_bytes": fullest.states_bytes,
        "activations_bytes": fullest.activations_bytes,
        "total_bytes": fullest.total_bytes,
        "fits": cost.fits(ranks, capacity),
    }
