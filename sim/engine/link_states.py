"""States of links: for which part of the time something goes over a link, and at which rate.

Two jobs that repeat have no phase to each other, so each meets the other in any of its states as often as these last: silent
for so long, a dispatch at so many bytes/s for so long. The states of a run are read from when its collectives began and
ended; what it sends from stage to stage, of which no instants are kept, is spread over all of its time.

Why this way: a mean rate would say that a training step which fills an uplink for half of its time leaves half of it. It leaves
all of it for half of the time, and an even share for the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.engine.step import StepRun
from sim.schedule.training import Tasks

_MOST = 64  # states of a link that are kept apart
_SAME = 1e-9  # of a rate
_SILENT = 1e-6  # of a link's capacity: less than this is nothing


@dataclass(frozen=True, slots=True)
class States:
    """States of one link.

    Parameters
    ----------
    part : float, [num_states]
        Of the time; they add up to 1.
    rate : float, [num_states]
        Of the capacity of the healthy link.
    num_jobs : float, [num_states]
        Jobs that use it [count].
    """

    part: Floats
    rate: Floats
    num_jobs: Floats

    @classmethod
    def from_spans(cls, span_s: Floats, rate: Floats, over_s: float, used_s: float) -> States:
        """States of one job from how long it has which rate, silent for the rest of `over_s`.

        What is missing of `used_s`, the seconds for which it would fill the link, is spread over all of its time.
        """
        spans, rates = np.append(span_s, max(over_s - float(span_s.sum()), 0.0)), np.append(rate, 0.0)
        rates = np.minimum(rates, 1.0)
        missing_s = used_s - float((spans * rates).sum())
        if missing_s > _SAME * used_s:
            rates = np.minimum(rates + missing_s / spans.sum(), 1.0)
        part, rates = _few(spans / spans.sum(), rates)
        return cls(part, rates, (rates > _SILENT).astype(float))

    def combined(self, other: States, *, same_job: bool = False) -> States:
        """States of a link that two load, in any of theirs at any time; of one job where two parts of it do."""
        part = np.multiply.outer(self.part, other.part).ravel()
        rate = np.minimum(np.add.outer(self.rate, other.rate).ravel(), 1.0)
        both = (np.maximum if same_job else np.add).outer(self.num_jobs, other.num_jobs).ravel()
        columns = []
        for number in np.unique(both):
            own = both == number
            weight = float(part[own].sum())
            if weight > 0:
                parts, rates = _few(part[own] / weight, rate[own])
                columns.append((parts * weight, rates, np.full(len(parts), number)))
        return States(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    def left(self, num_jobs: float = 1.0) -> Floats:
        """Part of the link that it leaves to others in each state, never less than an even share for each of so many of them."""
        fair = num_jobs / (num_jobs + self.num_jobs)
        return np.asarray(np.maximum(1.0 - self.rate, fair), dtype=np.float64)

    def left_to_short(self) -> float:
        """Part that it leaves to a job whose transfers are short next to its states: each meets one of them.

        The mean time of a byte is the mean of its times in all states.
        """
        return float(1.0 / (self.part / self.left()).sum())

    def left_to_long(self, num_jobs: float) -> float:
        """Part that it leaves to so many jobs whose transfers are long next to its states: each meets their mean."""
        return float((self.part * self.left(num_jobs)).sum())


LinkStates = Mapping[int, States]
"""Row of a link -> its states; links that are not in it are silent."""


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """Load of links over the span of a job.

    Parameters
    ----------
    carried, used : float, [num_resources]
        Bytes that crossed each, and the capacity that they used up [bytes].
    states : row of a link between leaves -> States
    """

    carried: Floats
    used: Floats
    states: dict[int, States]


def _few(part: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """States with like rates as one, and neighbours where these are very many."""
    order = np.argsort(rate, kind="stable")
    part, rate = part[order], rate[order]
    new = np.diff(rate, prepend=-1.0) > _SAME
    if new.sum() > _MOST:
        number = np.minimum((np.cumsum(part) - part / 2) * _MOST, _MOST - 1).astype(np.int64)
        new = np.diff(number, prepend=-1) > 0
    first = np.flatnonzero(new)
    parts = np.add.reduceat(part, first)
    means = np.add.reduceat(part * rate, first) / np.where(parts > 0, parts, 1.0)
    kept = parts > 0
    return parts[kept], means[kept]


def together(loads: Iterable[LinkStates], *, same_job: bool = False) -> dict[int, States]:
    """States of all links that several jobs load, or several parts of one job."""
    whole: dict[int, States] = {}
    for load in loads:
        for row, states in load.items():
            whole[row] = whole[row].combined(states, same_job=same_job) if row in whole else states
    return whole


@dataclass(frozen=True, slots=True)
class Spans:
    """Transfers of a plan as it ran, on some links: when each began and ended, and the capacity that it used up.

    Parameters
    ----------
    start_s, end_s : float, [num_transfers]
    used : dict of row -> float array, [num_transfers]
        Capacity of the link that each used up [bytes].
    """

    start_s: Floats
    end_s: Floats
    used: Mapping[int, Floats]

    def rates(self, row: int) -> tuple[Floats, Floats]:
        """Rates of a link from one begin or end to the next, and how long each lasts [s], [bytes/s]; without the time in which it has none."""
        took = self.end_s - self.start_s
        own = (self.used[row] > 0) & (took > 0)
        rate = self.used[row][own] / took[own]
        when = np.concatenate([self.start_s[own], self.end_s[own]])
        order = np.argsort(when, kind="stable")
        level = np.cumsum(np.concatenate([rate, -rate])[order])[:-1]
        spans = np.diff(when[order])
        busy = (spans > 0) & (level > _SAME * rate.max(initial=0.0))
        return spans[busy], level[busy]


def spans_of(tasks: Tasks, ran: StepRun, rows: Ints, begin_s: float = 0.0) -> Spans:
    """Collectives of a plan that ran with the nodes of all of its tasks kept, on the links of some rows."""
    network, folded = ran.network, ran.network.folded
    starts, ends, templates = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    seen: set[tuple[int, int]] = set()
    kernels = {name: i for i, name in enumerate(network.kernels)}
    for record in ran.records:
        of_group = int(folded.group_class[record.group])
        if (record.pipeline_rank, of_group) in seen:
            continue  # a template holds all groups of a class
        seen.add((record.pipeline_rank, of_group))
        own = network.collective[ran.member.first_rank + record.pipeline_rank, of_group]
        programs = tasks.program[tasks.first[record.pipeline_rank] + np.unique(record.nodes.task)]
        template = [
            int(own[kernels[node.collective], int(overlapped)]) if node.collective in kernels else 0
            for program, overlapped in (tasks.programs[number] for number in programs.tolist())
            for node in program
        ]
        starts.append(np.asarray(record.nodes.start_s, dtype=np.float64))
        ends.append(np.asarray(record.nodes.end_s, dtype=np.float64))
        templates.append(np.array(template, dtype=np.int64))
    template_ = np.concatenate(templates)
    moves = np.flatnonzero(template_)
    used = {row: network.templates.used[template_[moves], folded.resource[row]] for row in rows.tolist()}
    start_s, end_s = np.concatenate(starts)[moves], np.concatenate(ends)[moves]
    return Spans(start_s + begin_s, end_s + begin_s, used)


def joined(parts: Sequence[Spans]) -> Spans:
    """Transfers of several plans of one job."""
    return Spans(
        np.concatenate([part.start_s for part in parts]),
        np.concatenate([part.end_s for part in parts]),
        {row: np.concatenate([part.used[row] for part in parts]) for row in parts[0].used},
    )


def part_left(states: LinkStates, left: Callable[[int, States], float]) -> tuple[tuple[int, float], ...]:
    """Links of which less than all is left, and the part, by row."""
    parts = ((row, left(row, own)) for row, own in sorted(states.items()))
    return tuple((row, part) for row, part in parts if part < 1.0 - _SAME)
