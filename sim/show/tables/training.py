"""Grids of training steps: where the time of a step goes, what memory holds, what a whole run takes.

Phases are read as in the published step table (ISCA'25 DeepSeek-V3 paper, Table 4): one pipeline rank's timeline, of which
the bubble is what no operation fills. Exposed communication lies inside the other phases, so it is no phase of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Cell, Grid, bytes_cell, ratio_cell, share_cell, shared, time_cell
from sim.show.tables import collectives, whole_run
from sim.show.views.run import Held, RunsView
from sim.show.views.training import PHASES, StepView, parts_of
from sim.show.words.whole_run import count
from sim.units import show

_ABREAST = 3  # variants side by side in a table, with shares; more get a row each
_SHORT = {"fp8 copies": "FP8", "gradients": "grads", "optimizer": "optim", "activations": "activ"}


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """All grids of the training steps among the runs."""
    steps = runs.select(StepView)
    few = len(steps) <= _ABREAST
    return [
        times(steps),
        (phases_down if few else phases_across)(steps),
        (memory_down if few else memory_across)(steps),
        packing(steps),
        collectives.collectives(steps, ("alone", "beside compute", "ratio")),
        whole_run.phases(steps),
        whole_run.failures(steps),
        whole_run.cost(steps),
    ]


def times(steps: Sequence[StepView]) -> Grid:
    """Step time next to its bound, MFU and throughput, a row for each step."""
    first_s = steps[0].step_time_s
    rows = [
        (
            step.name,
            time_cell(step.step_time_s),
            time_cell(step.lower_bound_s),
            ratio_cell(step.step_time_s / step.lower_bound_s if step.lower_bound_s else None),
            share_cell(step.mfu_causal_fraction),
            share_cell(step.mfu_noncausal_fraction),
            f"{step.tokens_per_s_per_gpu:,.0f}",
            count(step.tokens_per_day),
            ratio_cell(step.step_time_s / first_s if len(steps) > 1 else None),
        )
        for step in steps
    ]
    heads = (
        "variant" if len(steps) > 1 else "scenario", "step", "bound", "/ bound", "MFU, causal\nattention", "MFU, full\nattention",
        "tokens/s\na GPU", "tokens/day", f"/ {steps[0].name}",
    )  # fmt: skip
    return Grid("The step beside its lower bound", heads, tuple(rows))


def packing(steps: Sequence[StepView]) -> Grid:
    """Documents of a step, and how unlike they make microbatches and ranks: a row for each step that packs."""
    rows = tuple(
        (
            step.name,
            f"{step.packing['documents']:,}",
            share_cell(step.packing["padding_fraction"]),
            share_cell(step.packing["attention_fraction"]),
            *(ratio_cell(step.packing[f"max_over_mean_{part}"]) for part in ("microbatch", "rank")),
        )
        for step in steps
        if step.packing
    )
    heads = (
        "variant",
        "documents",
        "padding",
        "attention",
        "microbatch,\nmost / mean",
        "DP rank,\nmost / mean",
    )
    note = "attention: of what unbroken sequences would cost; most / mean: its FLOPs in a microbatch, and in all of a rank's."
    return Grid("Packed documents", heads, rows, note=note)


def phases_across(steps: Sequence[StepView]) -> Grid:
    """Time of the step by phase: a row for each step, a column for each phase."""
    first = [(step.name, "0", step.phases, step.exposed_comm_s) for step in steps]
    mean = [(step.name, "mean", step.phases_mean, step.exposed_comm_mean_s) for step in steps]
    rows = [
        (name, rank, *(time_cell(time_s or None) for time_s in (*map(phases.get, PHASES), exposed_s)))
        for name, rank, phases, exposed_s in (*first, *mean)
    ]
    names = (label.partition(",")[0].replace("optimizer", "opt") for label in PHASES.values())
    heads = ("variant", "rank", *names, "exposed")
    note = "rank: of the pipeline. exposed: communication inside its operations that compute waits for."
    return Grid("Where the step goes", heads, tuple(rows), breaks=frozenset({len(steps)}), note=note)


def phases_down(steps: Sequence[StepView]) -> Grid:
    """Time of the step by phase: a row for each phase, a pair of columns for each step."""
    times_s = {
        indent + label: [getattr(step, ranks).get(phase) or None for step in steps]
        for ranks, indent in (("phases", ""), ("phases_mean", "  "))
        for phase, label in PHASES.items()
    }
    times_s |= {
        label: [getattr(step, name) or None for step in steps]
        for label, name in (
            ("exposed communication, rank 0", "exposed_comm_s"),
            ("exposed communication, mean", "exposed_comm_mean_s"),
            ("waits for the slowest rank, rank 0", "barrier_wait_s"),
        )
    }
    num = len(PHASES)
    rows = list(shared(times_s, [step.step_time_s for step in steps], time_cell))
    rows.insert(num, ("mean of the pipeline ranks", *("" for _ in range(2 * len(steps)))))
    return Grid(
        "Where the step goes, rank 0 first",
        ("phase", *(head for step in steps for head in (step.name if len(steps) > 1 else "time", "share"))),
        tuple(rows),
        breaks=frozenset({num, 2 * num + 1}),
        note="share: of the step. The last rows lie inside operations; ranks are those of the pipeline, mean over their GPUs.",
    )  # fmt: skip


def memory_down(steps: Sequence[StepView]) -> Grid:
    """Memory of the fullest GPU against its capacity: a row for each part, a pair of columns for each step."""
    held, capacities = [step.fullest for step in steps], [step.memory_capacity_bytes for step in steps]
    sizes: dict[str, list[float | None]] = {
        part: [gpu.parts.get(part) for gpu in held] for part in parts_of(held)
    }
    sizes["all"] = [gpu.total_bytes for gpu in held]
    sizes["free"] = [
        size - gpu.total_bytes if size else None for size, gpu in zip(capacities, held, strict=True)
    ]
    names = [f"{f'{step.name}, ' if len(steps) > 1 else ''}rank {step.fullest.rank}" for step in steps]
    known = " or ".join(show(size, "bytes", 3) for size in sorted({size for size in capacities if size}))
    return Grid(
        "Memory of the fullest GPU",
        ("part", *(head for name in names for head in (name, "share"))),
        shared(sizes, capacities, bytes_cell),
        breaks=frozenset({len(sizes) - 2}),
        note=f"share: of the {known} of a GPU; rank: of the pipeline" if known else "",
    )


def memory_across(steps: Sequence[StepView]) -> Grid:
    """Memory of the fullest GPU: a row for each step, a column for each part."""
    held = [step.fullest for step in steps]
    parts = parts_of(held)

    def row(step: StepView, gpu: Held) -> tuple[Cell, ...]:
        sizes = [*(gpu.parts.get(part) for part in parts), gpu.total_bytes]
        capacity = step.memory_capacity_bytes
        share = share_cell(gpu.total_bytes / capacity if capacity else None)
        return (step.name, str(gpu.rank), *(bytes_cell(size or None) for size in sizes), share)

    rows = tuple(map(row, steps, held))
    heads = ("variant", "rank", *(_SHORT.get(part, part) for part in parts), "all", "of HBM")
    return Grid("Memory of the fullest GPU", heads, rows, note="rank: of the pipeline")
