"""Sentences on training steps: how long one takes, where the time goes, and what changed between two."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views import comparison
from sim.show.views.lanes import Lanes
from sim.show.views.run import RunsView, RunView
from sim.show.views.training import PHASES, StepView, parts_of
from sim.show.words import whole_run
from sim.units import show

TERMS = (
    ("step", "from the first forward to the end of the optimizer, on the last GPU"),
    ("bound", "the busiest of the fullest pipeline rank's FLOPs, all-to-alls and NIC at data-sheet rates; no step can beat it"),
    ("1F, 1B, 1W", "forwards, backwards and weight parts of a microbatch that run alone"),
    ("1F1B", "a forward and a backward of two microbatches as one operation (F&B), interleaved so that each hides the other's exchanges"),
    ("bubble", "what is left of the step: the rank waits for another stage, or for its sends"),
    ("exposed communication", "time inside operations in which compute waits for an exchange"),
    ("MFU", "model FLOPs over time and the dense BF16 peak; with causal attention half of its matrix counts, with full attention all"),
    ("ETTR", "effective training time ratio: training that counts over time on the clock"),
    ("energy", "of GPUs by what holds them, NICs and switches, hosts, and the building; a range spans what is assumed of their power"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip


def finding(runs: RunsView) -> list[str]:
    """Answer for the steps, the most important sentence first."""
    steps = runs.select(StepView)
    if len(steps) == 1:
        step = steps[0]
        run = [whole_run.cost(step.whole_run), *whole_run.lost(steps)] if step.whole_run else []
        own = [_step(step), *_packed(step), *_fullest(step)]
        return [*run, *own] if step.whole_run and step.whole_run.has_phases else [*own, *run]
    costs = [*whole_run.costs(steps), *whole_run.lost(steps)[:1]]
    if whole_run.failures_differ(steps):
        costs.reverse()
    return [*costs, *compared(runs, max(2, 3 - len(costs)))]


def aside(runs: Sequence[RunView]) -> str:
    """Step times."""
    return ", ".join(show(run.step_time_s, "s", 4) for run in runs if isinstance(run, StepView))


def course(step: StepView, lanes: Lanes) -> str:
    """Title of the timeline: pairs and bubble."""
    step_s = step.step_time_s
    mean, first = (phases["bubble_s"] / step_s for phases in (step.phases_mean, step.phases))
    pairs = step.phases_mean["1F1B_s"] / step_s
    filled = f"F&B pairs fill {pairs:.0%} of the step" if pairs else "no forward and backward run as a pair"
    return f"{filled}; the bubble takes {mean:.1%} on the mean rank, {first:.1%} on rank 0"


def words_of(phase: str) -> str:
    """A phase without its short name: `F&B pairs`."""
    return PHASES[phase].partition(", ")[2] or PHASES[phase]


def largest_phase(step: StepView) -> str:
    """The phase that takes most of the mean pipeline rank's step, the bubble aside."""
    times = step.phases_mean
    return max((phase for phase in PHASES if phase != "bubble_s"), key=lambda phase: times.get(phase, 0.0))


def _step(step: StepView) -> str:
    """Say how long the step takes next to its bound, and where it goes."""
    step_s, phases, largest = step.step_time_s, step.phases_mean, largest_phase(step)
    over = f"{step_s / step.lower_bound_s:.2f}x its lower bound, " if step.lower_bound_s else ""
    return (
        f"A step takes {show(step_s, 's', 3)}, {over}with an MFU of {step.mfu_causal_fraction or 0.0:.1%}; on the mean pipeline "
        f"rank {words_of(largest)} fill {phases[largest] / step_s:.0%} of it and the bubble {phases['bubble_s'] / step_s:.1%}; "
        f"{_exposed(step)}."
    )


def _packed(step: StepView) -> list[str]:
    """Say how unlike documents make microbatches and ranks, where sequences hold several."""
    known = step.packing
    if not known:
        return []
    return [
        f"Its {known['documents']:,} documents have {known['attention_fraction']:.0%} of the attention of unbroken sequences, the "
        f"heaviest microbatch {known['max_over_mean_microbatch']:.2f} times the mean one's, the heaviest data-parallel rank "
        f"{known['max_over_mean_rank']:.2f} times."
    ]


def _fullest(step: StepView) -> list[str]:
    """Say what the fullest GPU holds, if that was counted."""
    held, capacity = step.fullest, step.memory_capacity_bytes
    if not capacity or not step.memory:
        return []
    part = max(parts_of([held]), key=lambda name: held.parts[name])
    return [
        f"The fullest GPU, of pipeline rank {held.rank}, holds {show(held.total_bytes, 'bytes', 3)} of "
        f"{show(capacity, 'bytes', 3)}, most of it {part} ({show(held.parts[part], 'bytes', 3)})."
    ]


def _exposed(step: StepView) -> str:
    exposed_s = step.exposed_comm_mean_s or 0.0
    if exposed_s < 0.001 * step.step_time_s:
        return "no communication is exposed"
    return f"{show(exposed_s, 's', 3)} of communication is exposed ({exposed_s / step.step_time_s:.1%})"


def compared(runs: RunsView, room: int = 3) -> list[str]:
    """The first step, then at most `room` sentences: steps against it or their twins, and where the difference arises."""
    steps = runs.select(StepView)
    first = steps[0]
    sentences = [
        f"A step takes {show(first.step_time_s, 's', 3)} in {first.name}; on the mean pipeline rank {_exposed(first)}."
    ]
    pairs, rest = comparison.pairs_of(steps, runs.twins, lambda step: step.step_time_s, room)
    for reference, step in pairs:
        ratio, than = step.step_time_s / reference.step_time_s, comparison.as_reference(reference, steps)
        if abs(ratio - 1) < comparison.SAME:
            sentences.append(f"{step.name} takes as long{than}, within {comparison.as_long(ratio)}.")
            continue
        change, time = comparison.speed(ratio), show(step.step_time_s, "s", 3)
        sentences.append(f"{step.name} takes {time}, {change}{than}: {moved(reference, step)}.")
    return comparison.append_rest(sentences, rest)


def moved(first: StepView, step: StepView) -> str:
    """Return the phase of the mean pipeline rank that changed most between two steps, and by how much."""
    slower = step.step_time_s > first.step_time_s
    phase, change_s = comparison.most_moved(first.phases_mean, step.phases_mean, slower=slower)
    exposed_s = (step.exposed_comm_mean_s or 0.0) - (first.exposed_comm_mean_s or 0.0)
    more = (
        f", {_change(exposed_s)} of communication exposed"
        if abs(exposed_s) > 0.005 * first.step_time_s
        else ""
    )
    return f"on the mean rank {_change(change_s)} in {words_of(phase)}{more}"


def _change(time_s: float) -> str:
    return f"{show(abs(time_s), 's', 3)} {'more' if time_s > 0 else 'less'}"
