"""States of links: for which part of the time something goes over a link, and at which rate.

Two jobs that repeat have no phase to each other, so each meets the other in any of its states as often as these last: silent
for so long, a dispatch at so many bytes/s for so long. The states of a run are read from when its collectives began and
ended; what it sends from stage to stage, of which no instants are kept, is spread over all of its time.

Why this way: a mean rate would say that a training step which fills an uplink for half of its time leaves half of it. It leaves
all of it for half of the time, and a fair share for the other half. What is fair goes by senders: NICs keep their flows alike, so of
a full link a job has the part that its NICs are of all that send over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.engine.step import StepRun
from sim.engine.step_plan import StepPlan
from sim.engine.step_records import GroupRecord
from sim.schedule.flows import Flows

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
    senders : float, [num_states]
        NICs that send over it [count].
    """

    part: Floats
    rate: Floats
    senders: Floats

    @classmethod
    def from_spans(
        cls, span_s: Floats, rate: Floats, senders: Floats, over_s: float, used_s: float, others: float = 1.0
    ) -> States:
        """States of one job from how long it has which rate by how many NICs, silent for the rest of `over_s`.

        What is missing of `used_s`, the seconds for which it would fill the link, is spread over all of its time, and sent by
        `others`.
        """
        spans, rates = np.append(span_s, max(over_s - float(span_s.sum()), 0.0)), np.append(rate, 0.0)
        rates, number = np.minimum(rates, 1.0), np.append(senders, 0.0)
        missing_s = used_s - float((spans * rates).sum())
        if missing_s > _SAME * used_s:
            rates = np.minimum(rates + missing_s / spans.sum(), 1.0)
        number = np.where(rates > _SILENT, np.maximum(number, others), 0.0)
        return cls(*_few(spans / spans.sum(), rates, number))

    def combined(self, other: States) -> States:
        """States of a link that two load, in any of theirs at any time."""
        part = np.multiply.outer(self.part, other.part).ravel()
        rate = np.minimum(np.add.outer(self.rate, other.rate).ravel(), 1.0)
        return States(*_few(part, rate, np.add.outer(self.senders, other.senders).ravel()))

    @property
    def mean_senders(self) -> float:
        """NICs that send over it while any does; one where none ever does [count]."""
        busy = self.senders > 0
        return float((self.part * self.senders)[busy].sum() / self.part[busy].sum()) if busy.any() else 1.0

    def left(self, senders: float) -> Floats:
        """Part of the link that it leaves to so many NICs of others in each state, never less than their fair share."""
        fair = senders / (senders + self.senders)
        return np.asarray(np.maximum(1.0 - self.rate, fair), dtype=np.float64)

    def left_to_short(self, senders: float) -> float:
        """Part that it leaves to a job whose transfers are short next to its states: each meets one of them.

        The mean time of a byte is the mean of its times in all states.
        """
        return float(1.0 / (self.part / self.left(senders)).sum())

    def left_to_long(self, senders: float) -> float:
        """Part that it leaves to jobs whose transfers are long next to its states: each meets their mean."""
        return float((self.part * self.left(senders)).sum())


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


def _few(part: Floats, rate: Floats, senders: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns of states with those that are alike as one, and neighbours where these are very many; silence is apart."""
    order = np.lexsort((senders, rate))
    columns = np.stack([part, part * rate, part * senders])[:, order]
    rate, senders = rate[order], senders[order]
    new = (np.diff(rate, prepend=-1.0) > _SAME) | (np.diff(senders, prepend=-1.0) != 0)
    if new.sum() > _MOST:
        whole = np.where(senders > 0, columns[0], 0.0)
        number = np.minimum((np.cumsum(whole) - whole / 2) / whole.sum() * _MOST, _MOST - 1).astype(np.int64)
        new = np.diff(np.where(senders > 0, number, -1), prepend=-2) > 0
    parts, rates, numbers = np.add.reduceat(columns, np.flatnonzero(new), axis=1)
    kept = parts > 0
    return parts[kept], rates[kept] / parts[kept], numbers[kept] / parts[kept]


def together(loads: Iterable[LinkStates]) -> dict[int, States]:
    """States of all links that several jobs load, or several parts of one job."""
    whole: dict[int, States] = {}
    for load in loads:
        for row, states in load.items():
            whole[row] = whole[row].combined(states) if row in whole else states
    return whole


@dataclass(frozen=True, slots=True)
class Spans:
    """Transfers of a plan as it ran, on some links: when each began and ended, what it used up, and by how many NICs.

    Parameters
    ----------
    start_s, end_s : float, [num_transfers]
    rows : int, [num_links]
    used : float, [num_links, num_transfers]
        Capacity of each link that each used up [bytes].
    senders : float, [num_links, num_transfers]
    """

    start_s: Floats
    end_s: Floats
    rows: Ints
    used: Floats
    senders: Floats

    def rates(self, link: int) -> tuple[Floats, Floats, Floats]:
        """Rates of a link from one begin or end to the next, by how many NICs, and how long each lasts [s], [bytes/s].

        Without the time in which it has none.
        """
        took = self.end_s - self.start_s
        own = (self.used[link] > 0) & (took > 0)
        rate = self.used[link, own] / took[own]
        when = np.concatenate([self.start_s[own], self.end_s[own]])
        order = np.argsort(when, kind="stable")
        level, senders = (
            np.cumsum(np.concatenate([each, -each])[order])[:-1] for each in (rate, self.senders[link, own])
        )
        spans = np.diff(when[order])
        busy = (spans > 0) & (level > _SAME * rate.max(initial=0.0))
        return spans[busy], level[busy], senders[busy].round()


def senders_of(flows: Iterable[Flows], cluster: Cluster, rows: Ints) -> Floats:
    """NICs that flows of one time send over each of some links from, [num_links] [count]."""
    nics = np.zeros(len(cluster.names), dtype=np.bool_)
    nics[cluster.nic_tx[cluster.nic_tx != NONE]] = True
    place = np.full(len(cluster.names), NONE)
    place[rows] = np.arange(len(rows))
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    for own in flows:
        flow = own.flow_of_entry
        sender = np.full(own.num_flows, NONE)
        sent = nics[own.resource]
        sender[flow[sent]] = own.resource[sent]
        crosses = place[own.resource] != NONE
        pairs.append(np.stack([place[own.resource[crosses]], sender[flow[crosses]]]))
    link, _ = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return np.bincount(link, minlength=len(rows)).astype(float)


def spans_of(plan: StepPlan, ran: StepRun, cluster: Cluster, rows: Ints, begin_s: float = 0.0) -> Spans:
    """Collectives of a plan that ran with the nodes of all of its tasks kept, on the links of some rows."""
    network = ran.network
    parts = [(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))]
    senders: dict[int, Floats] = {}
    seen: set[tuple[int, int]] = set()
    for record in ran.records:
        place = record.pipeline_rank, int(network.folded.group_class[record.group])
        if place in seen:
            continue  # a template holds all groups of a class
        seen.add(place)
        template, kernel = _templates(plan, ran, record)
        for number, name in dict(zip(template, kernel, strict=True)).items():
            if name is not None and number not in senders:
                senders[number] = senders_of(_flows_of(plan, ran, place, name), cluster, rows)
        nodes = record.nodes
        parts.append((np.asarray(nodes.start_s), np.asarray(nodes.end_s), np.array(template, dtype=np.int64)))
    start_s, end_s, templates = (np.concatenate(column) for column in zip(*parts, strict=True))
    moves = np.flatnonzero(templates)
    own = templates[moves]
    return Spans(
        start_s[moves] + begin_s,
        end_s[moves] + begin_s,
        rows,
        network.templates.used[:, network.folded.resource[rows]][own].T,
        np.array([senders[number] for number in own.tolist()]).reshape(len(own), len(rows)).T,
    )


def _templates(plan: StepPlan, ran: StepRun, record: GroupRecord) -> tuple[list[int], list[str | None]]:
    """Template of what each node of a group's tasks moves, and its kernel; 0 and None of one that moves nothing."""
    tasks, network, rank = plan.tasks, ran.network, record.pipeline_rank
    own = network.collective[ran.member.first_rank + rank, network.folded.group_class[record.group]]
    known = {name: i for i, name in enumerate(network.kernels)}
    template: list[int] = []
    kernel: list[str | None] = []
    for number in tasks.program[tasks.first[rank] + np.unique(record.nodes.task)].tolist():
        program, overlapped = tasks.programs[number]
        for node in program:
            moves = node.collective in known
            template.append(int(own[known[node.collective], int(overlapped)]) if moves else 0)
            kernel.append(node.collective if template[-1] else None)
    return template, kernel


def _flows_of(plan: StepPlan, ran: StepRun, place: tuple[int, int], kernel: str) -> Iterator[Flows]:
    """Flows of a kernel of all groups of a class, on a pipeline rank."""
    rank, of_class = place
    for group in np.flatnonzero(ran.network.folded.group_class[: plan.num_groups] == of_class).tolist():
        collective = plan.traffic.collectives[rank][group].get(kernel)
        if collective is not None:
            yield collective.flows


def joined(parts: Sequence[Spans]) -> Spans:
    """Transfers of several plans of one job, on the same links."""
    return Spans(
        np.concatenate([part.start_s for part in parts]),
        np.concatenate([part.end_s for part in parts]),
        parts[0].rows,
        np.concatenate([part.used for part in parts], axis=1),
        np.concatenate([part.senders for part in parts], axis=1),
    )


def part_left(states: LinkStates, left: Callable[[int, States], float]) -> tuple[tuple[int, float], ...]:
    """Links of which less than all is left, and the part, by row."""
    parts = ((row, left(row, own)) for row, own in sorted(states.items()))
    return tuple((row, part) for row, part in parts if part < 1.0 - _SAME)
