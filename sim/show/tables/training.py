"""Training steps in tables and sentences: where the time of a step goes, what memory holds, what a whole run takes.

Phases are read as in the published step table (ISCA'25 DeepSeek-V3 paper, Table 4): one pipeline rank's timeline, of which
the bubble is what no operation fills. Exposed communication lies inside the other phases, so it is no phase of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell, Grid, padded, time_cell
from sim.show.tables import whole_run
from sim.show.views.run import Case
from sim.show.views.training import _SHORT, PHASES, _share, fullest, held_bytes, is_training
from sim.show.views.training import parts_of_rows as parts_of
from sim.show.words import whole_run as whole_run_words
from sim.units import show

_BESIDE = 3  # variants that stand side by side in a table, with shares; more get a row each


def grids(found: Sequence[Case]) -> list[Grid]:
    """All grids of the training steps among the cases."""
    steps = [case for case in found if is_training(case)]
    if not steps:
        return []
    return [
        of_steps(steps),
        of_phases(steps),
        of_memory(steps),
        of_exchanges(steps),
        whole_run.of_runs(steps),
    ]


def of_steps(steps: Sequence[Case]) -> Grid:
    """Step time beside its bound, MFU and throughput, a row for each case."""
    first = steps[0].metrics["step_time_s"]
    rows = []
    for case in steps:
        m = case.metrics
        bound = m.get("lower_bound_s")
        rows.append(
            (
                case.name,
                time_cell(m["step_time_s"]),
                time_cell(bound),
                f"{m['step_time_s'] / bound:.3f}" if bound else "-",
                _share(m.get("mfu_causal_fraction")),
                _share(m.get("mfu_noncausal_fraction")),
                f"{m['tokens_per_s_per_gpu']:,.0f}",
                whole_run_words.count(m.get("tokens_per_day")),
                f"{m['step_time_s'] / first:.3f}" if len(steps) > 1 else "-",
            )
        )
    heads = (
        "step",
        "bound",
        "/ bound",
        "MFU, causal\nattention",
        "MFU, full\nattention",
        "tokens/s\na GPU",
        "tokens/day",
        f"/ {steps[0].name}",
    )
    return Grid(
        "The step beside its lower bound", ("variant" if len(steps) > 1 else "scenario", *heads), tuple(rows)
    )


def of_phases(steps: Sequence[Case]) -> Grid:
    """Where the step goes on rank 0 and on the mean pipeline rank."""
    return _phases_down(steps) if len(steps) <= _BESIDE else _phases_across(steps)


_EXTRA = (
    ("exposed_comm_s", "exposed communication, rank 0"),
    ("exposed_comm_mean_s", "exposed communication, mean"),
    ("barrier_wait_s", "waits for the slowest rank, rank 0"),
)


def _phases_across(steps: Sequence[Case]) -> Grid:
    """A row for each case, a column for each phase: for many cases."""
    rows = []
    for key, exposed, rank in (
        ("phases", "exposed_comm_s", "0"),
        ("phases_mean", "exposed_comm_mean_s", "mean"),
    ):
        for case in steps:
            mine = case.metrics.get(key, {})
            times = (*(mine.get(phase) for phase in PHASES), case.metrics.get(exposed))
            rows.append((case.name, rank, *(time_cell(time_s or None) for time_s in times)))
    names = (label.partition(",")[0] for label in PHASES.values())
    heads = ("variant", "rank", *(name.replace("optimizer", "opt") for name in names), "exposed")
    note = "rank: of the pipeline. exposed: communication inside its operations that compute waits for."
    return Grid("Where the step goes", heads, tuple(rows), breaks=frozenset({len(steps)}), note=note)


def _phases_down(steps: Sequence[Case]) -> Grid:
    """A row for each phase, with its share of the step; a pair of columns for each case."""
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for key, name in (("phases", "rank 0"), ("phases_mean", "mean of the pipeline ranks")):
        if key == "phases_mean":
            breaks.append(len(rows))
            rows.append((name, *("" for _ in range(2 * len(steps)))))
        for phase, label in PHASES.items():
            rows.append(
                (
                    f"{'  ' if breaks else ''}{label}",
                    *_timed([c.metrics.get(key, {}).get(phase) for c in steps], steps),
                )
            )
    breaks.append(len(rows))
    rows += [(label, *_timed([c.metrics.get(key) for c in steps], steps)) for key, label in _EXTRA]
    heads = [head for case in steps for head in (case.name if len(steps) > 1 else "time", "share")]
    return Grid(
        "Where the step goes, rank 0 first",
        ("phase", *heads),
        tuple(rows),
        breaks=frozenset(breaks),
        note="share: of the step. The last rows lie inside operations; ranks are those of the pipeline, mean over their GPUs.",
    )  # fmt: skip


def _timed(times_s: Sequence[float | None], steps: Sequence[Case]) -> list[Cell]:
    cells = []
    for time_s, case in zip(times_s, steps, strict=True):
        cells += [time_cell(time_s), f"{time_s / case.metrics['step_time_s']:.1%}"] if time_s else ["-", "-"]
    return cells


def of_memory(steps: Sequence[Case]) -> Grid:
    """What the fullest GPU holds, by part, against what it has."""
    found = [fullest(case) for case in steps]
    capacity = [case.metrics.get("memory_capacity_bytes") for case in steps]
    if len(steps) > _BESIDE:
        return _memory_across(steps, found, capacity)
    rows = [(part, *_held([row.get(part) for row in found], capacity)) for part in parts_of(found)]
    totals = [held_bytes(row) for row in found]
    rows.append(("all", *_held(totals, capacity)))
    rows.append(
        ("free", *_held([c - t if c else None for c, t in zip(capacity, totals, strict=True)], capacity))
    )
    names = [
        f"rank {row['rank']}" if len(steps) == 1 else f"{c.name}, rank {row['rank']}"
        for c, row in zip(steps, found, strict=True)
    ]
    heads = [head for name in names for head in (name, "share")]
    known = sorted({c for c in capacity if c})
    note = (
        f"share: of the {' or '.join(show(c, 'bytes', 3) for c in known)} of a GPU; rank: of the pipeline"
        if known
        else ""
    )
    return Grid(
        "Memory of the fullest GPU",
        ("part", *heads),
        tuple(rows),
        breaks=frozenset({len(rows) - 2}),
        note=note,
    )


def _memory_across(
    steps: Sequence[Case], found: Sequence[Mapping[str, Any]], capacity: Sequence[float | None]
) -> Grid:
    """A row for each case, a column for each part: for many cases."""
    parts = parts_of(found)
    rows = []
    for case, row, limit in zip(steps, found, capacity, strict=True):
        total = held_bytes(row)
        sizes = [*(row.get(part) for part in parts), total]
        cells = [padded(show(size, "bytes", 3), 3) if size else "-" for size in sizes]
        rows.append((case.name, str(row["rank"]), *cells, f"{total / limit:.1%}" if limit else "-"))
    heads = ("variant", "rank", *(_SHORT.get(part, part) for part in parts), "all", "of HBM")
    return Grid("Memory of the fullest GPU", heads, tuple(rows), note="rank: of the pipeline")


def _held(sizes: Sequence[float | None], capacities: Sequence[float | None]) -> list[Cell]:
    cells = []
    for size, capacity in zip(sizes, capacities, strict=True):
        cells.append("-" if size is None else padded(show(size, "bytes", 3), 3))
        cells.append("-" if size is None or not capacity else f"{size / capacity:.1%}")
    return cells


def of_exchanges(steps: Sequence[Case]) -> Grid:
    """Dispatch and combine with the GPU to themselves and beside compute."""
    rows = []
    for case in steps:
        for name, one in (case.result.get("exchanges") or {}).items():
            rows.append(
                (
                    case.name if len(steps) > 1 else name,
                    *((name,) if len(steps) > 1 else ()),
                    time_cell(one["alone_s"]),
                    time_cell(one["beside_compute_s"]),
                    f"{one['beside_compute_s'] / one['alone_s']:.2f}" if one["alone_s"] else "-",
                    f"{one['nodes_per_token']:.3g}",
                    f"{one['ranks_per_token']:.3g}",
                )
            )
    heads = ("exchange", "alone", "beside compute", "ratio", "nodes/token", "ranks/token")
    return Grid(
        "Exchanges of one layer and microbatch",
        ("variant", *heads) if len(steps) > 1 else heads,
        tuple(rows),
        words=frozenset({0, 1}) if len(steps) > 1 else frozenset({0}),
    )


# --- sentences -----------------------------------------------------------------------------------------------------
