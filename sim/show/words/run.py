"""Sentences with numbers that answer a result; the terminal, titles of plots and the report share them.

Each kind of workload has a module of its own sentences: a headline and at most three more.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.kinds import module
from sim.show.views.run import RunsView, RunView
from sim.show.words import question
from sim.units import show


def finding(runs: RunsView) -> list[str]:
    """The sentences that answer a result, the most important first: its question, where it carries one."""
    own = [sentence for family in runs.families for sentence in module("words", family).finding(runs)]
    if runs.question is not None:
        by_variant = {run.variant: run for run in runs.runs}
        said = question.answer(
            runs.question, lambda before, after: _moved(by_variant[before], by_variant[after])
        )
        return said if len(said) > 1 else [*said, *own[:1]]  # of what is the same, where the time goes
    return [*own, *_hosts(runs)]


def _moved(before: RunView, after: RunView) -> str:
    """Say what moved between two runs of one kind; "" where their kind has no words for it."""
    moved = getattr(module("words", before.family), "moved", None)
    return str(moved(before, after)) if moved is not None and before.family == after.family else ""


def _hosts(runs: RunsView) -> list[str]:
    """Say what the host would add to the first run that it would slow."""
    run = next((run for run in runs.runs if run.host is not None), None)
    if run is None or run.host is None:
        return []
    whose = f" to {run.name}" if runs.has_variants else ""
    added = f"{show(run.host.adds_s, 's', 2)} ({run.host.adds_fraction:.0%})"
    return [f"Launches cost no host time here; software {run.host.software} would add about {added}{whose}."]


def terms(runs: RunsView) -> tuple[tuple[str, str], ...]:
    """Terms of the tables and figures of a result, and what they mean."""
    return tuple({term: None for family in runs.families for term in module("words", family).TERMS})


def aside(runs: Sequence[RunView]) -> str:
    """A few words next to the names of some runs of one kind."""
    return str(module("words", runs[0].family).aside(runs))


def validated(runs: RunsView) -> str:
    """Return what of the runs lies beyond measurements, in one sentence; empty where nothing does."""
    beyond: dict[str, dict[str, None]] = {}
    for run in runs.runs:
        for phrase in run.provenance.outside_validation:
            what = phrase.partition(": compared")[0]
            kernel, _, ranges = what.partition(" with ") if what.startswith("kernel ") else (what, "", "")
            beyond.setdefault(kernel, {}).update(dict.fromkeys(ranges.split(", ") if ranges else ()))
    parts = [" with ".join(filter(None, (what, ", ".join(ranges)))) for what, ranges in beyond.items()]
    return f"Beyond what was compared with measurements: {'; '.join(parts)}." if parts else ""


def expectations(runs: RunsView) -> str | None:
    """Say how the published values of `expect` were met; None without any."""
    rows = [row for run in runs.runs for row in run.expected]
    if not rows:
        return None
    met = sum(row.ok for row in rows)
    worst = max(rows, key=lambda row: abs(row.error_fraction))
    changed = any(run.provenance.settings for run in runs.runs)
    whose = "values published for the scenario as it was before --set" if changed else "expected values"
    return f"{met} of {len(rows)} {whose} are met; the largest error is {worst.error_fraction:+.1%} ({worst.metric})."
