"""Grids of prefill and decode: the pass next to its bound, where it goes, what memory holds."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Grid, bytes_cell, ratio_cell, shared, time_cell
from sim.show.tables import collectives
from sim.show.views.inference import PARTS, PassView
from sim.show.views.run import RunsView

_ABREAST = 3  # passes side by side in a table with shares; more get none


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """All grids of the passes among the runs."""
    passes = runs.select(PassView)
    return [
        times(passes),
        where(passes),
        memory(passes),
        collectives.collectives(passes, ("alone", "slowest rank", "busiest rank / mean")),
    ]


def times(passes: Sequence[PassView]) -> Grid:
    """Latency and throughput next to the bound, a row for each pass."""
    first_s, many = passes[0].latency_s, len(passes) > 1
    rows = [
        (
            run.name,
            time_cell(run.latency_s),
            time_cell(run.step_time_s),
            time_cell(run.lower_bound_s),
            ratio_cell(run.latency_s / run.lower_bound_s if run.lower_bound_s else None),
            run.limit.removeprefix("the ") or "-",
            f"{run.tokens_per_s_per_gpu:,.0f}",
            "-" if run.tokens_per_s_per_user is None else f"{run.tokens_per_s_per_user:.1f}",
            _requests(run.requests_per_gpu),
            ratio_cell(run.latency_s / first_s if many else None),
        )
        for run in passes
    ]
    heads = (
        "variant" if many else "scenario", " / ".join(dict.fromkeys(run.latency_name for run in passes)), "step", "bound", "/ bound",
        "set by", "tokens/s\na GPU", "tokens/s\na user", "requests", f"/ {passes[0].name}",
    )  # fmt: skip
    return Grid("The pass beside its lower bound", heads, tuple(rows), words=frozenset({0, 5}))


def _requests(num: float | None) -> str:
    """Requests of a GPU; of a deployment's few, a part of one."""
    return "-" if num is None else f"{num:,.0f}" if num >= 1 else f"{num:.3g}"


def where(passes: Sequence[PassView]) -> Grid:
    """Time of the pass by part, on the mean rank's compute stream."""
    few = len(passes) <= _ABREAST
    steps_s = [run.step_time_s for run in passes]
    parts = {part: label for part, label in PARTS.items() if any(part in run.where for run in passes)}
    times_s: dict[str, list[float | None]] = {
        label: [run.where.get(part) for run in passes] for part, label in parts.items()
    }
    rows = shared({**times_s, "step": steps_s}, steps_s, time_cell)
    names = [run.name if len(passes) > 1 else "time" for run in passes]
    note = f"{'share: of the step, ' if few else ''}on the compute stream of the mean rank"
    if "phases" in parts:
        note += "; exposed communication is waits, and sends and receives on SMs"
    heads = ("part", *(head for name in names for head in (name, "share")))
    grid = Grid("Where the pass goes", heads, rows, breaks=frozenset({len(rows) - 1}), note=note)
    return grid if few else grid.without(*range(2, len(heads), 2))


def memory(passes: Sequence[PassView]) -> Grid:
    """Memory of a GPU by part, and the requests it could hold."""
    held = [run.held for run in passes]
    parts = list(dict.fromkeys(part for gpu in held for part in gpu))
    rows = [
        *((part, *(bytes_cell(gpu.get(part)) for gpu in held)) for part in parts),
        ("all", *(bytes_cell(sum(gpu.values())) for gpu in held)),
        ("of a GPU's", *(bytes_cell(run.memory_capacity_bytes) for run in passes)),
        ("requests that fit", *(f"{run.max_batch_per_gpu:,.0f}" for run in passes)),
    ]
    heads = ("part", *(run.name if len(passes) > 1 else "memory" for run in passes))
    return Grid("Memory of a GPU", heads, tuple(rows) if parts else (), breaks=frozenset({len(parts)}))
