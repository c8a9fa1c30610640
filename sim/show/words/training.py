"""TODO sim/show/words/training.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.views import comparison
from sim.show.views.run import Case
from sim.show.views.training import _SAME, PHASES, fullest, held_bytes, is_training
from sim.show.views.training import parts_of_rows as parts_of
from sim.show.words import whole_run as whole_run_words
from sim.units import show

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


def finding(found: Sequence[Case]) -> list[str]:
    """What the steps say, the most important first."""
    steps = [case for case in found if is_training(case)]
    return of_step(steps[0]) if len(steps) == 1 else [*whole_run_words.compared(steps), *compared(steps)]


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
    run = whole_run_words.run_sentence(case)
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
