"""Jobs side by side on one network: closed ones, and serving next to them.

Closed jobs begin at once and run once together (`closed_jobs`). Serving lasts for many of their spans and they repeat for as long,
so they meet in all states that their links have (`link_states`): serving runs at what the states of the closed jobs leave, these at
what those of serving leave, in turn, until what is left stands still. On links of its own every job is what it is alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.cluster.topology import Cluster, Floats, Ints, left_by_others
from sim.engine.link_states import LinkStates, States, part_left, together
from sim.runs.closed_jobs import ClosedRuns, run_closed
from sim.runs.kinds import COMPUTE, LINKS, Left, OpenJob, OpenRun, Runner, SharedRun, runner
from sim.runs.link_rows import largest, link_rows
from sim.scenario.descriptions import Scenario
from sim.scenario.jobs import Jobs

_MOST_ROUNDS = 8
_STANDS_STILL = 2e-3  # of a link


def run_side_by_side(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate the jobs of a scenario on one network.

    Metrics of each, links of all, and of each job what a run of its kind has.
    InfeasibleError where a job cannot run.
    """
    work = scenario.workload
    assert isinstance(work, Jobs)
    closed: dict[str, SharedRun] = {}
    serving: dict[str, OpenJob] = {}
    for name, job in work.jobs.items():
        progress(f"{scenario.name}: job {name}")
        own = runner(job.kind)
        if own.shared is not None:
            closed[name] = own.shared(job)
        else:
            assert own.beside is not None
            serving[name] = own.beside(job)
    progress(f"{scenario.name}: {len(work.jobs)} jobs on one network")
    cluster = next(iter(work.jobs.values())).cluster()
    if not serving:
        return _result(cluster, [*work.jobs], run_closed(cluster, closed), {})
    rounds = _Rounds(cluster, closed, serving, progress)
    sharing = rounds.run()
    return _result(cluster, [*work.jobs], rounds.ran, rounds.served) | {"sharing": sharing}


@dataclass(slots=True)
class _Rounds:
    """Serving and closed jobs in turn, each at what the others leave of the links."""

    cluster: Cluster
    closed: Mapping[str, SharedRun]
    serving: Mapping[str, OpenJob]
    progress: Callable[[str], None]
    ran: ClosedRuns | None = None
    served: dict[str, OpenRun] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)
    """Parts of links left to each serving job by its name, and to the closed ones together under ''."""

    def run(self) -> dict[str, Any]:
        """Repeat until what is left stands still; how often it was, and what it moved by at last."""
        repeated: dict[str, dict[int, States]] = {}
        moved = 0.0
        for number in range(1, _MOST_ROUNDS + 1):
            left = self._for_closed(repeated)
            moved = self._moves("", left)
            if self.closed and (self.ran is None or moved > _STANDS_STILL):
                self.left[""] = left
                self.ran = run_closed(left_by_others(self.cluster, left), self.closed)
                repeated = self.ran.states(self.cluster)
            for name, job in self.serving.items():
                left = self._for_serving(name, job, repeated)
                change = self._moves(name, left)
                moved = max(moved, change)
                if name not in self.served or change > _STANDS_STILL:
                    self.left[name] = left
                    others = len(self.closed) + len(self.serving) - 1
                    self.progress(f"{name}: round {number}, next to {others} other jobs")
                    self.served[name] = job.run(left, lambda _: None)
            if number > 1 and moved <= _STANDS_STILL:
                break
        return {"rounds": number, "moved_fraction": moved, "tolerance_fraction": _STANDS_STILL}

    def _for_serving(self, name: str, job: OpenJob, repeated: Mapping[str, LinkStates]) -> Left:
        """Parts of links that all others leave to a job that serves."""
        others = (own.load.states for other, own in self.served.items() if other != name)
        states = together([*repeated.values(), *others])
        return part_left(states, lambda row, own: own.left_to_short(job.senders(row)))

    def _for_closed(self, repeated: Mapping[str, LinkStates]) -> Left:
        """Parts of links that all that serve leave to the closed jobs there."""
        senders: defaultdict[int, float] = defaultdict(float)
        for load in repeated.values():
            for row, own in load.items():
                senders[row] += own.mean_senders
        states = together(own.load.states for own in self.served.values())
        met = {row: own for row, own in states.items() if row in senders}
        return part_left(met, lambda row, own: own.left_to_long(senders[row]))

    def _moves(self, name: str, left: Left) -> float:
        """The most by which a part that is left to a job differs from what it was."""
        before, now = dict(self.left.get(name, ())), dict(left)
        return max((abs(before.get(row, 1.0) - now.get(row, 1.0)) for row in {*before, *now}), default=0.0)


def _result(
    cluster: Cluster, names: Iterable[str], ran: ClosedRuns | None, served: Mapping[str, OpenRun]
) -> dict[str, Any]:
    """The parts of the result document: while somebody serves, closed jobs repeat."""
    spans: dict[str, list[list[float]]] = {}
    results: dict[str, dict[str, Any]] = {}
    loads: dict[str, tuple[Floats, Floats]] = {}
    alike = [next(iter(ran.runs.values()))[0].network.folded.resource] if ran and not served else []
    for name in names:
        if name in served:
            one = served[name]
            spans[name], loads[name] = [[0.0, one.span_s]], (one.load.carried, one.load.used)
            own = one.result
        else:
            assert ran is not None
            spans[name], loads[name] = ran.spans(name), ran.load(name)
            own = ran.jobs[name].result(ran.runs[name])
        results[name] = {"links": _links(cluster, loads[name], alike, spans[name][-1][1]), **own}
    end_s = max(own[-1][1] for own in spans.values())
    often = {
        name: end_s / own[-1][1] if served and name not in served else 1.0 for name, own in spans.items()
    }
    whole = tuple(np.sum([often[name] * load[i] for name, load in loads.items()], axis=0) for i in range(2))
    return {
        "metrics": {
            "completion_time_s": end_s,
            "jobs": {name: result.pop("metrics") for name, result in results.items()},
        },
        "links": _links(cluster, (whole[0], whole[1]), alike, end_s),
        "timeline": {"end_s": end_s, "jobs": spans},
        "jobs": results,
    }


def _links(
    cluster: Cluster, load: tuple[Floats, Floats], alike: Sequence[Ints], over_s: float
) -> dict[str, Any]:
    """Load of each link over a time [s]."""
    rows = link_rows(cluster, *load, over_s, alike)
    return rows if alike else largest(rows)


RUNNER = Runner(run_side_by_side, reads=(*LINKS, *COMPUTE))
