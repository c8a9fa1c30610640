"""Sentences on collectives or flows: how long transfers take next to their bounds, and what binds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sim.show.views.comparison import MOST_COMPARED, SAME, as_long, choices, most_different, speed
from sim.show.views.lanes import Lanes
from sim.show.views.names import binds, hardware_name, label
from sim.show.views.run import RunsView, RunView
from sim.show.views.transfers import Transfer, TransfersView, spoken
from sim.units import show

TERMS = (
    (
        "time",
        "mean over ranks of a rank's end less the common start; a rank ends when its own sends are out and its receives are in",
    ),
    ("last rank", "completion: when the last rank ends"),
    ("bound", "bytes over datasheet rate on the busiest resource, without latency or efficiency; no run can beat it"),
    ("binds", "the class of resource that was full longest on the path of the last rank"),
    ("wire", "bytes that cross a cable; logical bandwidths count as the benchmark does that is compared with"),
    ("load", "of a link: the time that its bytes take at the rate that kernels reach, below the data sheet's, over the time of the run"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip
_SENTENCES = 4  # of a finding
_SAME = 0.015  # gains below this are called "the same"


@dataclass(frozen=True, slots=True)
class _Gain:
    """A transfer of a run, and of the run that it is compared with."""

    before: TransfersView
    after: TransfersView
    name: str

    @property
    def old(self) -> Transfer:
        return self.before.transfers[self.name]

    @property
    def new(self) -> Transfer:
        return self.after.transfers[self.name]

    @property
    def ratio(self) -> float:
        """Time after over time before."""
        return self.new.time_s / self.old.time_s


def _gains(before: TransfersView, after: TransfersView) -> list[_Gain]:
    """The transfers that both have."""
    both = [
        name for name, transfer in before.transfers.items() if transfer.time_s and name in after.transfers
    ]
    return [_Gain(before, after, name) for name in both]


def finding(runs: RunsView) -> list[str]:
    """Answer for the transfers, the most important sentence first."""
    views = runs.select(TransfersView)
    if len(views) == 1:
        return [
            *(_transfer(views[0], transfer) for transfer in views[0].transfers.values()),
            *_layers(views[0]),
            *_gathered(views[0]),
        ]
    twins = [_gains(before, after) for before, after in runs.twins_of(TransfersView)]
    # A time on more or fewer nodes is another task, not the effect of a choice.
    chosen = [run for run in choices(views, runs.twins) if run.num_nodes == views[0].num_nodes]
    by_hardware = _twins([gain for gains in twins for gain in gains])
    room = _SENTENCES - len(by_hardware)
    sentences = _choices(views[0], chosen, room)
    return [*sentences[:room], *by_hardware] or _variants(views)


def aside(runs: Sequence[RunView]) -> str:
    """Say what binds: in all alike, or by name."""
    bound = {run.name: _bindings(run) for run in runs if isinstance(run, TransfersView) and run.transfers}
    alike = len(set(bound.values())) == 1
    return "; ".join(dict.fromkeys(words if alike else f"{name}: {words}" for name, words in bound.items()))


def _bindings(run: TransfersView) -> str:
    by_transfer = {name: binds(transfer.binding) for name, transfer in run.transfers.items()}
    if len(set(by_transfer.values())) == 1:
        return next(iter(by_transfer.values()))
    return ", ".join(f"{name} {words}" for name, words in by_transfer.items())


def course(run: TransfersView, lanes: Lanes) -> str:
    """Title of the timeline: when flows or kernels end."""
    if lanes.what == "flow":
        last = f"the last of {len(lanes.rows):,} flows arrives after {show(lanes.end_s, 's', 3)}"
        return f"{last}; {_most_at_once(lanes)} are in flight at once"
    ends = [
        f"{spoken(kind)} ends after {show(max(end_s for _, end_s, _, _ in spans), 's', 3)}"
        for kind, spans in lanes.spans.items()
        if spans
    ]
    return f"{', '.join(ends)}, on the last of {len(lanes.rows):,} {lanes.what}s"


def _most_at_once(lanes: Lanes) -> int:
    changes = sorted(
        change for start_s, end_s, _, _ in lanes.spans["flow"] for change in ((start_s, 1), (end_s, -1))
    )
    return max(accumulate(change for _, change in changes))


def bounds(runs: RunsView) -> str:
    """Say how far times lie above their lower bounds, and what binds how often."""
    transfers = [transfer for run in runs.select(TransfersView) for transfer in run.transfers.values()]
    ratios = sorted(ratio for transfer in transfers if (ratio := transfer.over_bound))
    if not ratios:
        return "No lower bound is known."
    low, high = f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}"
    between = low if low == high else f"{low} to {high}"
    span = f"{between} times {'its lower bound' if len(ratios) == 1 else 'their lower bounds'}"
    bound = [label(transfer.binding) for transfer in transfers]
    counts = sorted({name: bound.count(name) for name in bound}.items(), key=lambda count: -count[1])
    if len(counts) > 1:
        by_class = ", ".join(f"{name} in {count}" for name, count in counts)
        many = f"Of {len(transfers)} transfers the binding link is {by_class}"
    else:
        words = binds(transfers[0].binding)
        many = f"{words[0].upper()}{words[1:]}{' throughout' if len(transfers) > 1 else ''}"
    return f"{'The time is' if len(ratios) == 1 else 'Times are'} {span}. {many}."


def _layers(run: TransfersView) -> list[str]:
    """Say that the times are those of the slowest recorded layer, and what the mean layer takes."""
    if not run.layers:
        return []
    means = " and ".join(
        f"{show(run.layers[name]['mean_s'], 's', 3)} of {name}"
        for name in run.transfers
        if name in run.layers
    )
    count, slowest = run.layers["count"], run.layers["slowest"]
    return [
        f"These are times of layer {slowest}, the slowest of {count} recorded; the mean layer takes {means}."
    ]


# --- a run -----------------------------------------------------------------------------------------------------------


def _transfer(run: TransfersView, transfer: Transfer) -> str:
    """Say how long a transfer takes next to its bound, and what binds."""
    whose = "their" if transfer.name == "flows" else "its"
    over = f", {transfer.over_bound:.2f}x {whose} lower bound" if transfer.over_bound else ""
    where = f" ({transfer.binding_resource})" if transfer.binding_resource else ""
    subject = (
        f"{len(run.flows):,} flows complete"
        if transfer.name == "flows"
        else f"{spoken(transfer.name).capitalize()} takes"
    )
    way = f" by {transfer.algorithm} ({transfer.protocol})" if transfer.algorithm else ""
    bus = transfer.busbw_bytes_per_s if transfer.algorithm else None
    much = f", {show(bus, 'bytes/s', 3)} of bus bandwidth" if bus else ""
    begin = f"{subject} {'in ' if transfer.name == 'flows' else ''}{_time(transfer)}"
    return f"{begin}{way}{much}{over}; {binds(transfer.binding)}{where}."


def _gathered(run: TransfersView) -> list[str]:
    """Say how far gathered completions are off; nothing of an exact run."""
    if run.gathering is None:
        return []
    whose, error = "a flow" if run.flows else "a rank", run.gathering
    return [
        f"Completions within {error.gather_fraction:.2%} of the least time count as one, which puts the time of {whose} off by "
        f"about {error.mean_error_fraction:.2%}, of the worst {error.worst_error_fraction:.1%}."
    ]


def _time(transfer: Transfer) -> str:
    return show(transfer.time_s, "s", 3)


# --- choices ---------------------------------------------------------------------------------------------------------


def _choices(first: TransfersView, chosen: Sequence[TransfersView], room: int) -> list[str]:
    """Say what each of up to `room` choices changes against the first run, the largest effect first; nothing where none does."""

    def effect(run: TransfersView) -> float:
        return max((math.log(gain.ratio) for gain in _gains(first, run)), key=abs, default=0.0)

    apart = [run for run in chosen if abs(effect(run)) > math.log(1 + _SAME)]
    sentences = []
    for run in most_different(apart, effect, min(room, MOST_COMPARED)):
        parts: list[str] = []
        for gain in _gains(first, run):
            lead, where = ("", "") if parts else ("takes ", f" in {first.name}")
            parts.append(
                f"{spoken(gain.name)} {lead}{_time(gain.new)} against {_time(gain.old)}{where} ({_as(gain.ratio)})"
            )
        sentences.append(f"{run.name}: {', '.join(parts)}; {_both_bind(first, run)}.")
    alike = [run for run in chosen if run not in apart]
    if sentences and alike:
        names, verb = " and ".join(run.name for run in alike), "takes" if len(alike) == 1 else "take"
        most = math.exp(max(abs(effect(run)) for run in alike))
        sentences.append(f"{names} {verb} as long as {first.name}, within {as_long(most)}.")
    return sentences


def _as(ratio: float) -> str:
    return "as long" if abs(ratio - 1) < SAME else speed(ratio)


def _both_bind(first: TransfersView, run: TransfersView) -> str:
    """Say what binds in a variant's longest transfer, and whether the same did before."""
    longest = max(run.transfers.values(), key=lambda transfer: transfer.time_s)
    now, before = binds(longest.binding), binds(first.transfers.get(longest.name, longest).binding)
    return f"{now} in both" if now == before else f"{now}, in {first.name} {before}"


# --- twins -----------------------------------------------------------------------------------------------------------


def _twins(gains: list[_Gain]) -> list[str]:
    """Say by how much other hardware gains: where most, where least, and what binds there."""
    if not gains:
        return []
    ratios = [gain.ratio for gain in gains]
    # Among equals the longest transfer speaks: that is where a reader would look first.
    most, least = (
        max((gain for gain in gains if abs(gain.ratio - end) < 0.005), key=lambda gain: gain.old.time_s)
        for end in (min(ratios), max(ratios))
    )
    if abs(most.ratio - 1) <= _SAME and abs(least.ratio - 1) <= _SAME:
        shared = sorted({label(gain.old.binding) for gain in gains})
        names = " and ".join(dict.fromkeys(gain.after.hardware for gain in gains))
        same = " and ".join(dict.fromkeys(gain.before.hardware for gain in gains))
        return [
            f"The {hardware_name(names)} takes as long as the {hardware_name(same)} in every case, within "
            f"{as_long(1 + max(abs(ratio - 1) for ratio in ratios))}; what binds: {', '.join(shared)}."
        ]
    sentences = [_gain(most, f"{_subject(most)} {'gains most' if most.ratio < 1 else 'loses least'}")]
    if least.ratio - most.ratio > _SAME:
        subject = "It" if _subject(least) == _subject(most) else _subject(least)
        sentences.append(
            _gain(least, f"{subject} {'gains least' if least.ratio < 1 + _SAME else 'loses most'}")
        )
    return sentences


def _gain(gain: _Gain, lead: str) -> str:
    new, old = _time(gain.new), _time(gain.old)
    if abs(gain.ratio - 1) > _SAME:
        much = f"{1 / gain.ratio:.2f}x faster" if gain.ratio < 1 else f"{gain.ratio:.2f}x slower"
        times = f"{new} against {old} ({much})"
    elif old == new:
        times = f"{new} on both"
    else:
        times = f"{new} against {old}, the same within {as_long(gain.ratio)}"
    before, after = binds(gain.old.binding), binds(gain.new.binding)
    why = f"{before} on {_who(gain, gain.before)}, {after} on {_who(gain, gain.after)}"
    return f"{lead} against {gain.before.name}: {spoken(gain.name)} takes {times}; {f'{before} on both' if before == after else why}."


def _who(gain: _Gain, run: RunView) -> str:
    """A run of a pair by its hardware; by its name where both have the same with other parameters."""
    return run.name if gain.before.hardware == gain.after.hardware else hardware_name(run.hardware)


def _subject(gain: _Gain) -> str:
    who = _who(gain, gain.after)
    return who if who == gain.after.name else f"The {who}"


# --- variants that are neither ---------------------------------------------------------------------------------------


def _variants(runs: Sequence[TransfersView]) -> list[str]:
    """The fastest and the slowest variant of each transfer."""
    sentences = []
    for name in dict.fromkeys(name for run in runs for name in run.transfers):
        timed = [(run.transfers[name], run) for run in runs if name in run.transfers]
        (fast, fastest), (slow, slowest) = (
            pick(timed, key=lambda pair: pair[0].time_s) for pick in (min, max)
        )
        ratio = slow.time_s / fast.time_s
        if ratio <= 1 + _SAME:
            sentences.append(
                f"{spoken(name).capitalize()} takes {_time(fast)} in every variant, within {as_long(ratio)}."
            )
            continue
        sentences.append(
            f"{spoken(name).capitalize()} is fastest in {fastest.name} ({_time(fast)}, bound by {label(fast.binding)}) and takes "
            f"{ratio:.2f}x as long in {slowest.name} ({_time(slow)}, bound by {label(slow.binding)})."
        )
    return sentences
