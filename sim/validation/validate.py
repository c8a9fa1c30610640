"""Validation: every published figure next to ours, with the error.

A group is a file of `scenarios/published/` and the module that makes its rows: `SOURCES` says which. A new group of a kind
that exists is a new file and a line there; a new kind is a module with the shape of its file and a function `rows`.

A group passes when the mean of its absolute errors and each single error stay within its bars; what calibrated a parameter
counts too, and the mean over predictions alone is reported next to it. Means are over rows that are independent: what follows
from another row, from a formula or from a count of our own is held by its tolerance alone. Rows without a bar are printed only,
with their reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sim.errors import InputError, Mark, Problem, nearest
from sim.runs.kinds import Keep, Progress
from sim.validation import kernels as compute_rows
from sim.validation import layer_pair, machines, max_min, published
from sim.validation import runs as run_rows
from sim.validation import schedules as schedule_figures
from sim.validation import tables as table_rows
from sim.validation.published import Bar, Published, Row


@dataclass(frozen=True, slots=True)
class RowSource:
    """The source of the rows of a group: the shape of its file, and what makes rows of it."""

    shape: type[Published]
    rows: Callable[[Any, Progress], Iterable[Row]]


_RUNS = RowSource(run_rows.RunFigures, run_rows.rows)
_TABLES = RowSource(table_rows.TableFigures, table_rows.rows)
_KERNELS = RowSource(compute_rows.KernelFigures, compute_rows.rows)
_SCHEDULES = RowSource(schedule_figures.ScheduleFigures, schedule_figures.rows)

SOURCES: dict[str, RowSource] = {
    "two_hop": _RUNS,
    "other_machines": _RUNS,
    "low_latency": _RUNS,
    "h100_normal": _RUNS,
    "h100_low_latency": _RUNS,
    "hybrid_ep": _RUNS,
    "deepep_v2": _RUNS,
    "nccl": _RUNS,
    "nccl_8gpu": _RUNS,
    "packet_level": _RUNS,
    "contention": _RUNS,
    "simgrid": RowSource(max_min.SolverFigures, max_min.rows),
    "gemm": _KERNELS,
    "kernels_h200": _KERNELS,
    "kernels_h100": _KERNELS,
    "layer_pair": RowSource(layer_pair.PairFigures, layer_pair.rows),
    "training_step": _RUNS,
    "qwen3_235b": _RUNS,
    "mixtral_8x22b": _RUNS,
    "long_context": _RUNS,
    "dense": _RUNS,
    "host_efa": _RUNS,
    "rtp_llm": _RUNS,
    "tp16": _RUNS,
    "sglang_tp8": _RUNS,
    "v3_generations": _RUNS,
    "whole_cost": _RUNS,
    "rl": _RUNS,
    "failures": _TABLES,
    "tpot_bound": _TABLES,
    "prefill": _RUNS,
    "decode": _RUNS,
    "sglang_prefill": _RUNS,
    "eplb": _RUNS,
    "schedules": _SCHEDULES,
    "memory": _SCHEDULES,
    "export_rules": _TABLES,
    "models": _TABLES,
    "eplb_example": _TABLES,
}

GROUPS = tuple(SOURCES)
"""Every group, in the order in which they are reported."""


def load(group: str) -> Published:
    """Return the published figures of one of `GROUPS`. Raises `InputError` with every problem of its file."""
    return published.load(group, SOURCES[group].shape)[0]


def validate(
    groups: Sequence[str] | None = None, progress: Progress = lambda _: None, keep: Keep = lambda _: None
) -> dict[str, Any]:
    """Compare with what was published, in some groups of `GROUPS` or in all; values and units of rows are SI.

    `keep` is given what makes the document of the groups that have ended. InputError for an unknown group.
    """
    asked = list(dict.fromkeys(groups or GROUPS))
    problems = [
        Problem(Mark("--group"), "", f"'{name}'", f"one of: {', '.join(GROUPS)}", nearest(name, GROUPS))
        for name in asked
        if name not in GROUPS
    ]
    if problems:
        raise InputError(problems)
    compared: dict[str, Any] = {}
    for name in asked:
        compared[name] = _group(name, progress)
        if len(compared) < len(asked):
            finished = {"finished": len(compared), "of": len(asked), "what": "groups"}
            keep(partial(dict, partial=finished, groups=dict(compared)))
    return {
        "groups": compared,
        "machines": machines.by_machine(compared, whole=len(compared) == len(GROUPS)),
    }


def _group(name: str, progress: Progress) -> dict[str, Any]:
    figures = load(name)
    rows = [
        replace(row, evidence=row.evidence or figures.evidence)
        for row in SOURCES[name].rows(figures, progress)
    ]
    bars = [_verdict(rows, bar_name, bar) for bar_name, bar in figures.bars.items()]
    predicted = [
        abs(row.error_fraction)
        for row in _independent([row for row in rows if row.bar == "main"])
        if row.use == "validation"
    ]
    return {
        "title": figures.title,
        "ok": all(bar["ok"] for bar in bars),
        "mean_abs_error_fraction": bars[0]["mean_abs_error_fraction"],
        "worst_error_fraction": bars[0]["worst_error_fraction"],
        "predicted_mean_abs_error_fraction": float(np.mean(predicted)) if predicted else None,
        "bars": bars,
        "sources": {key: source.model_dump(exclude_none=True) for key, source in figures.sources.items()},
        "rows": [row.document() for row in rows],
    }


def _independent(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows that prove something of their own; all, where none does."""
    return [row for row in rows if row.evidence == "independent"] or rows


def _verdict(rows: Iterable[Row], name: str, bar: Bar) -> dict[str, Any]:
    """Return whether the rows of a bar hold it, and by how much."""
    counted = [row for row in rows if row.bar == name]
    errors = [abs(row.error_fraction) for row in counted]
    independent = [abs(row.error_fraction) for row in _independent(counted)]
    mean, worst = (float(np.mean(independent)), max(errors)) if errors else (0.0, 0.0)
    return {
        "name": name,
        "ok": mean <= bar.mean and all(row.ok for row in counted),
        "mean_abs_error_fraction": mean,
        "worst_error_fraction": worst,
        "mean_bar_fraction": bar.mean,
        "worst_bar_fraction": bar.worst,
    }
