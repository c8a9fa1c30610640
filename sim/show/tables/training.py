"""Training steps in tables and sentences: where the time of a step goes, what memory holds, what a whole run takes.

Phases are read as in the published step table (ISCA'25 DeepSeek-V3 paper, Table 4): one pipeline rank's timeline, of which
the bubble is what no operation fills. Exposed communication lies inside the other phases, so it is no phase of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell, Grid, padded, time_cell
from sim.show.tables import whole_run
from sim.show.views import comparison
from sim.show.views.run import Case
from sim.units import show

PHASES = {
    "1F_s": "1F, forwards alone",
    "1B_s": "1B, backwards alone",
    "1W_s": "1W, weight parts alone",
    "1F1B_s": "1F1B, F&B pairs",
    "opt_s": "optimizer",
    "bubble_s": "bubble",
}
"""Phases of a step as a reader calls them, in the order in which they are told and drawn."""

TERMS = (
    ("step", "from the first forward to the end of the optimizer, on the last GPU"),
    ("bound", "the busiest of the fullest pipeline rank's FLOPs, all-to-alls and NIC at data-sheet rates; no step can beat it"),
    ("1F, 1B, 1W", "forwards, backwards and weight parts of a microbatch that run alone"),
    ("1F1B", "a forward and a backward of two microbatches as one operation (F&B), interleaved so that each hides the other's exchanges"),
    ("bubble", "what is left of the step: the rank waits for another stage, or for its sends"),
    ("exposed communication", "time inside operations in which compute waits for an exchange"),
    ("MFU", "model FLOPs over time and the dense BF16 peak; with causal attention half of its matrix counts, with full attention all"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip
_PARTS = ("weights", "fp8 copies", "gradients", "optimizer", "activations", "buffers")
_SHORT = {"fp8 copies": "FP8", "gradients": "grads", "optimizer": "optim", "activations": "activ"}
_BESIDE = 3  # variants that stand side by side in a table, with shares; more get a row each
_SAME = 0.005  # ratios this close to 1 are told as "the same"


def is_training(case: Case) -> bool:
    """Whether a case is a training step that ran."""
    return case.workload.get("kind") == "training" and isinstance(case.metrics.get("phases"), Mapping)


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
                whole_run.count(m.get("tokens_per_day")),
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


def fullest(case: Case) -> Mapping[str, Any]:
    """The memory of the pipeline rank that holds most: its `rank`, and bytes by part."""
    return max(case.result.get("memory") or [{"rank": 0}], key=held_bytes)


def held_bytes(row: Mapping[str, Any]) -> float:
    """All that a pipeline rank's GPU holds [bytes]."""
    return float(sum(value for key, value in row.items() if key != "rank"))


def parts_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parts of memory that any of `rows` has, in the order in which they are told and drawn."""
    present = {key for row in rows for key, value in row.items() if value and key != "rank"}
    return [key for key in dict.fromkeys((*_PARTS, *sorted(present))) if key in present]


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


def _share(fraction: float | None) -> Cell:
    return "-" if fraction is None else f"{fraction:.1%}"


# --- sentences -----------------------------------------------------------------------------------------------------


def finding(found: Sequence[Case]) -> list[str]:
    """What the steps say, the most important first."""
    steps = [case for case in found if is_training(case)]
    return of_step(steps[0]) if len(steps) == 1 else [*whole_run.compared(steps), *compared(steps)]


def num_operations(case: Case) -> int:
    """Operations on the timeline of a step."""
    return sum(len(rank["kinds"]) for rank in (case.result.get("timeline") or {}).get("pipeline") or [])


def aside(found: Sequence[Case]) -> str:
    """A few words beside the names of some cases: their step times."""
    return ", ".join(show(case.metrics["step_time_s"], "s", 4) for case in found if is_training(case))


def of_step(case: Case) -> list[str]:
    """How long the step takes beside its bound, where it goes, what memory and a whole run take."""
    m, phases = case.metrics, case.metrics["phases_mean"]
    step = m["step_time_s"]
    told = sorted(
        ((phases.get(key, 0.0), label) for key, label in PHASES.items() if key != "bubble_s"), reverse=True
    )
    largest, label = told[0]
    words = label.partition(", ")[2] or label
    said = [
        f"A step takes {show(step, 's', 3)}, {_over(m)}with an MFU of {m['mfu_causal_fraction']:.1%}; on the mean pipeline rank {words} fill "
        f"{largest / step:.0%} of it and the bubble {phases['bubble_s'] / step:.1%}; {_exposed(m)}."
    ]  # fmt: skip
    row, capacity = fullest(case), m.get("memory_capacity_bytes")
    if capacity and case.result.get("memory"):
        part = max(parts_of([row]), key=lambda key: row.get(key, 0.0))
        said.append(
            f"The fullest GPU, of pipeline rank {row['rank']}, holds {show(held_bytes(row), 'bytes', 3)} of "
            f"{show(capacity, 'bytes', 3)}, most of it {part} ({show(row[part], 'bytes', 3)})."
        )
    run = whole_run.run_sentence(case)
    return [*said, run] if run else said


def _over(m: Mapping[str, Any]) -> str:
    return f"{m['step_time_s'] / m['lower_bound_s']:.2f}x its lower bound, " if m.get("lower_bound_s") else ""


def _exposed(m: Mapping[str, Any]) -> str:
    exposed, step = m.get("exposed_comm_mean_s", 0.0), m["step_time_s"]
    if exposed < 0.001 * step:
        return "no communication is exposed"
    return f"{show(exposed, 's', 3)} of communication is exposed ({exposed / step:.1%})"


def compared(steps: Sequence[Case]) -> list[str]:
    """Each variant against the first or its twin, and where the largest difference arises."""
    first = steps[0]
    base = show(first.metrics["step_time_s"], "s", 3)
    said = [f"A step takes {base} in {first.name}; on the mean pipeline rank {_exposed(first.metrics)}."]
    chosen, pairs, rest = comparison.told(steps, lambda case: float(case.metrics["step_time_s"]))
    for reference, case in (*chosen, *pairs):
        ratio = case.metrics["step_time_s"] / reference.metrics["step_time_s"]
        beside = comparison.as_reference(reference, steps)
        if abs(ratio - 1) < _SAME:
            said.append(f"{case.name} takes as long{beside}, within {max(abs(ratio - 1), 0.001):.1%}.")
            continue
        change = f"{1 / ratio:.2f}x as fast" if ratio < 1 else f"{ratio:.2f}x as long"
        time = show(case.metrics["step_time_s"], "s", 3)
        said.append(f"{case.name} takes {time}, {change}{beside}: {_moved(reference, case)}.")
    return [*said, rest] if rest else said


def _moved(first: Case, case: Case) -> str:
    """The phase of the mean pipeline rank that changed most between two steps."""
    ours, theirs = first.metrics["phases_mean"], case.metrics["phases_mean"]
    total = case.metrics["step_time_s"] - first.metrics["step_time_s"]
    changes = {label: theirs.get(key, 0.0) - ours.get(key, 0.0) for key, label in PHASES.items()}
    label = max(changes, key=lambda name: changes[name] * (1 if total > 0 else -1))
    exposed = case.metrics.get("exposed_comm_mean_s", 0.0) - first.metrics.get("exposed_comm_mean_s", 0.0)
    words = label.partition(", ")[2] or label
    sign = "more" if changes[label] > 0 else "less"
    beside = (
        f", {show(abs(exposed), 's', 3)} {'more' if exposed > 0 else 'less'} of communication exposed"
        if abs(exposed) > 0.005 * first.metrics["step_time_s"]
        else ""
    )
    return f"on the mean rank {show(abs(changes[label]), 's', 3)} {sign} in {words}{beside}"
