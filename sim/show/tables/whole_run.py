"""Grids of a whole training run of many steps: what it takes, its phases, and what failures take of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sim.show.grid import Cell, Grid, ratio_cell, share_cell, time_cell
from sim.show.views.training import StepView
from sim.show.words.whole_run import LOST, count, energy, money, owner, span


def cost(steps: Sequence[StepView]) -> Grid:
    """Days, GPU-hours, energy and cost of a whole run of such steps, where one was asked for."""
    runs = {step.name: step.whole_run for step in steps if step.whole_run}
    first_usd = next((run.run_cost_usd for run in runs.values()), None)
    rows = []
    for name, run in runs.items():
        priced = run.run_cost_usd is not None
        compared = run.run_cost_usd / first_usd if run.run_cost_usd is not None and first_usd else None
        rows.append(
            (
                name,
                f"{run.run_days:,.1f}",
                count(run.run_gpu_hours),
                f"${run.usd_per_gpu_hour:.4g}" if priced else "-",
                money(run.run_cost_usd),
                energy(run.run_energy_kwh),
                _between(run.run_energy_low_kwh, run.run_energy_high_kwh),
                ratio_cell(compared if len(runs) > 1 else None),
            )
        )
    tokens = dict.fromkeys(run.tokens for run in runs.values() if run.tokens)
    title = f"The whole run of {' or '.join(tokens)} tokens" if tokens else "The whole run"
    first_head = "variant" if len(steps) > 1 else "scenario"
    heads = (
        first_head,
        "days",
        "GPU-hours",
        "a GPU-hour",
        "cost",
        "energy",
        "range",
        f"cost / {next(iter(runs), '')}",
    )
    owners = dict.fromkeys(owner(run) for run in runs.values() if run.run_cost_usd is not None)
    return Grid(title, heads, tuple(rows), note=f"a GPU-hour: {'; '.join(owners)}" if owners else "")


def _between(low: float | None, high: float | None) -> Cell:
    """The range of an energy; `-` where it is none."""
    if low is None or high is None or low == high:
        return "-"
    scale, unit = (1e6, "GWh") if low >= 1e6 else (1e3, "MWh")
    return f"{low / scale:.3g} - {high / scale:.3g} {unit}"


def phases(steps: Sequence[StepView]) -> Grid:
    """Phases of whole runs, one after another."""
    rows: list[tuple[Cell, ...]] = []
    breaks = set()
    for step in steps:
        if step.whole_run is None or not step.whole_run.has_phases:
            continue
        breaks.add(len(rows))
        for phase in step.whole_run.phases:
            rows.append(
                (
                    step.name,
                    phase.name,
                    count(phase.steps),
                    "-" if phase.sequence_tokens is None else f"{phase.sequence_tokens:,}",
                    _SIZES_SHOWN.sub("", phase.layout) or "-",
                    " ".join(filter(None, (phase.schedule, "again" if phase.recompute == "full" else "")))
                    or "given",
                    time_cell(phase.step_time_s),
                    count(phase.gpu_hours),
                    money(phase.cost_usd),
                    energy(phase.energy_kwh),
                )
            )
    heads = (
        "variant",
        "phase",
        "steps",
        "tokens",
        "layout",
        "schedule",
        "step",
        "GPU-hours",
        "cost",
        "energy",
    )
    note = (
        "tokens: of a sequence; again: whole layers are computed again; given: GPU-hours that are stated, at the power of the first "
        "phase; without failures"
    )
    words, parted = frozenset({0, 1, 4, 5}), frozenset(breaks - {0})
    grid = Grid("The run, phase by phase", heads, tuple(rows), breaks=parted, words=words, note=note)
    return grid.without(2) if len(breaks) > 1 else grid.without(0)


_SIZES_SHOWN = re.compile(r" (EP1|TP1|CP1|DP\d+)\b")
"""Parts of a layout that a table leaves out: nothing is split, or it follows from the others."""


def failures(steps: Sequence[StepView]) -> Grid:
    """Failures of whole runs, and where their lost time goes."""
    rows: list[tuple[Cell, ...]] = []
    slow = any(
        step.whole_run and step.whole_run.lost and "slowed" in step.whole_run.lost.lost_s for step in steps
    )
    parts = [name for name in LOST if slow or name not in ("slowed", "swapping")]
    for step in steps:
        run = step.whole_run
        if run is None or run.lost is None or run.lost_s is None:
            continue
        clock_s = run.run_days * 86_400
        rows.append(
            (
                step.name,
                span(run.mtbf_s),
                f"{run.failures or 0:,.0f}",
                span(run.checkpoint_every_s),
                share_cell(run.ettr_fraction),
                share_cell(run.lost.closed_form_ettr_fraction),
                *(share_cell(run.lost.lost_s.get(name, 0.0) / clock_s) for name in parts),
            )
        )
    lost = ("saving", "undone", "restarts", "waiting", *(("slowed", "swaps") if slow else ()))
    heads = ("variant", "MTBF", "failures", "save", "ETTR", "Daly", *lost)
    note = (
        "shares of the time on the clock; save: training between checkpoints; Daly: the closed form of a run without end and with "
        "spares enough; undone: what failures took back; waiting: for a spare"
    ) + ("; slowed: next to slow GPUs until they are found; swaps: of these" if slow else "")
    grid = Grid("What failures take of the run", heads, tuple(rows), note=note)
    return grid if len(steps) > 1 else grid.without(0)
