"""KV on its way from prefill to decode instances: flows on the links of the cluster that start and end one by one.

Every transfer goes from one GPU to another over the NICs, leaves and spines between them, and rates are max-min fair between
transfers (`sharing`). While an instance runs, its collectives come first and leave a fixed share of its NICs.

Why this way: only a link that could fill joins transfers, one of which they would take more than it has if each was alone.
What hangs together by such links is solved anew when a transfer starts or ends, or a capacity changes; all else keeps its
rate. So a change costs what its neighbours cost, however large the cluster. All changes of an instant are solved together
at its end.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy
from simpy.events import Event, EventPriority

from sim.engine.sharing import Crossings, Scratch, cross, crossings, max_min, scratch
from sim.errors import InfeasibleError

_AFTER_ALL_ELSE = EventPriority(2)  # simpy priority: after every normal event of the instant
_FILLS = 1.0 + 1e-9
_TIE = 1e-12
_COMPILED_FROM = 64  # entries of one solution, where numba runs already; four times as many where it does not


@dataclass(slots=True, eq=False)
class _Transfer:
    """A transfer under way."""

    number: int
    lines: dict[int, float]  # capacity used per byte, by link
    left_bytes: float
    latency_s: float
    done: Event
    since_s: float
    alone: float = 0.0  # rate that its links would leave it if nobody else was there [bytes/s]
    rate: float = 0.0
    version: int = 0  # of its end


@dataclass(slots=True)
class Transfers:
    """Owner of the KV transfers under way.

    Parameters
    ----------
    env : simpy.Environment
    capacity : list of float, [num_links] [bytes/s]
    """

    env: simpy.Environment
    capacity: list[float]
    waits: bool = False  # for dead links, which come back; else nothing may meet one
    _parked: dict[_Transfer, None] = field(default_factory=dict)  # that wait for a dead link
    _by_done: dict[Event, _Transfer] = field(default_factory=dict)
    _on: dict[int, dict[_Transfer, None]] = field(default_factory=lambda: defaultdict(dict))
    _wanted: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    _full: set[int] = field(default_factory=set)  # links that could fill, when last looked at
    _changed: dict[int, None] = field(default_factory=dict)
    _fresh: dict[_Transfer, None] = field(default_factory=dict)
    _ends: list[tuple[float, int, int, _Transfer]] = field(default_factory=list)
    _armed_s: float = math.inf
    _number: int = 0
    _to_plan: bool = False

    def send(
        self, size_bytes: float, links: Sequence[int], lines: Sequence[float], latency_s: float
    ) -> Event:
        """Start a transfer now; the event succeeds when its last byte has come, and the word of it, `latency_s` later.

        A byte uses up so much (`lines`) of each link. InfeasibleError where a link on its way has no capacity.
        """
        done = self.env.event()
        if size_bytes <= 0 or not links:
            self._deliver(done, latency_s)
            return done
        lines_: dict[int, float] = {}
        for link, line in zip(links, lines, strict=True):
            lines_[link] = lines_.get(link, 0.0) + line
        self._number += 1
        new = _Transfer(self._number, lines_, size_bytes, latency_s, done, self.env.now)
        self._by_done[done] = new
        self._join(new)
        self._change()
        return done

    def set_capacity(self, links: Iterable[int], capacity: Iterable[float]) -> None:
        """Give links another capacity from now on [bytes/s]."""
        there: dict[_Transfer, None] = {}
        for link, rate in zip(links, capacity, strict=True):
            if self.capacity[link] != rate:
                self.capacity[link] = rate
                there.update(self._on.get(link, {}))
                there.update(dict.fromkeys(t for t in self._parked if link in t.lines))
        for transfer in there:
            self._leave(transfer)
            self._join(transfer)
        if there:
            self._change()

    def cancel(self, done: Event) -> None:
        """End a transfer whose event will not come; nothing happens where its last byte is sent."""
        transfer = self._by_done.pop(done, None)
        if transfer is not None:
            transfer.version += 1
            self._leave(transfer)
            self._change()

    def require_alive(self) -> None:
        """Raise InfeasibleError where a transfer waits for a link that never comes back."""
        if self._parked:
            raise InfeasibleError("KV waits forever: a link on its way has no capacity")

    def _join(self, transfer: _Transfer) -> None:
        """Put a transfer on its links."""
        transfer.alone = min(self.capacity[link] / line for link, line in transfer.lines.items())
        if transfer.alone <= 0:
            self._park(transfer)
            return
        for link, line in transfer.lines.items():
            self._on[link][transfer] = None
            self._wanted[link] += transfer.alone * line
            self._changed[link] = None
        self._fresh[transfer] = None

    def _park(self, transfer: _Transfer) -> None:
        """Let a transfer wait for a link that is dead."""
        self._parked[transfer] = None
        if not self.waits:
            self.require_alive()
        self._settle(transfer, 0.0)

    def _settle(self, transfer: _Transfer, rate: float) -> None:
        """Give a transfer another rate, from now on."""
        now = self.env.now
        transfer.left_bytes -= transfer.rate * (now - transfer.since_s)
        transfer.since_s, transfer.rate = now, rate
        transfer.version += 1

    def _leave(self, transfer: _Transfer) -> None:
        if transfer in self._parked:
            del self._parked[transfer]
            return
        for link, line in transfer.lines.items():
            there = self._on[link]
            del there[transfer]
            self._wanted[link] = self._wanted[link] - transfer.alone * line if there else 0.0
            self._changed[link] = None
        self._fresh.pop(transfer, None)

    def _change(self) -> None:
        """Plan anew at the end of this instant."""
        if self._to_plan:
            return
        self._to_plan = True
        plan = self.env.event()
        plan._ok, plan._value = True, None
        assert plan.callbacks is not None
        plan.callbacks.append(self._plan)
        self.env.schedule(plan, priority=_AFTER_ALL_ELSE)

    def _plan(self, _: Event) -> None:
        """New rates for all that hangs together with what changed."""
        self._to_plan = False
        touched, self._fresh = self._fresh, {}
        for link in self._changed:
            fills = self._wanted[link] > self.capacity[link] * _FILLS
            if fills or link in self._full:
                touched.update(self._on[link])
            (self._full.add if fills else self._full.discard)(link)
        self._changed.clear()
        seen: set[_Transfer] = set()
        for transfer in touched:
            if transfer not in seen:
                self._solve(self._together(transfer, seen))
        self._arm()

    def _together(self, first: _Transfer, seen: set[_Transfer]) -> tuple[list[_Transfer], dict[int, int]]:
        """Transfers that hang together with one, and the links that join them with a number for each."""
        whole = [first]
        links: dict[int, int] = {}
        seen.add(first)
        for transfer in whole:  # grows
            for link in transfer.lines:
                if link in self._full and link not in links:
                    links[link] = len(links)
                    new = [other for other in self._on[link] if other not in seen]
                    seen.update(new)
                    whole += new
        return whole, links

    def _solve(self, joined: tuple[list[_Transfer], dict[int, int]]) -> None:
        whole, links = joined
        if not links:
            rates = [transfer.alone for transfer in whole]
        else:
            # A transfer's own links are one of its own, on which it is alone.
            capacity = [self.capacity[link] for link in links] + [transfer.alone for transfer in whole]
            start, resource, line = [0], [], []
            for i, transfer in enumerate(whole):
                for link, used in transfer.lines.items():
                    if link in links:
                        resource.append(links[link])
                        line.append(used)
                resource.append(len(links) + i)
                line.append(1.0)
                start.append(len(resource))
            rates = _shared(start, resource, line, capacity)
        now = self.env.now
        for transfer, rate in zip(whole, rates, strict=True):
            if rate == transfer.rate:
                continue
            self._settle(transfer, rate)
            end = now + max(transfer.left_bytes, 0.0) / rate
            heapq.heappush(self._ends, (end, transfer.number, transfer.version, transfer))

    def _arm(self) -> None:
        """Set a timer at the next end, where none is set before it."""
        ends = self._ends
        while ends and ends[0][2] != ends[0][3].version:
            heapq.heappop(ends)
        if ends and ends[0][0] < self._armed_s:
            self._armed_s = ends[0][0]
            timer = self.env.timeout(max(self._armed_s - self.env.now, 0.0))
            assert timer.callbacks is not None
            timer.callbacks.append(self._finish)

    def _finish(self, _: Event) -> None:
        """End all that ends now."""
        self._armed_s, ends = math.inf, self._ends
        now = self.env.now * (1.0 + _TIE)
        while ends and (ends[0][0] <= now or ends[0][2] != ends[0][3].version):
            version, transfer = heapq.heappop(ends)[2:]
            if version == transfer.version:
                transfer.version += 1
                del self._by_done[transfer.done]
                self._leave(transfer)
                self._deliver(transfer.done, transfer.latency_s)
                self._change()
        if not self._to_plan:
            self._arm()

    def _deliver(self, done: Event, latency_s: float) -> None:
        if latency_s <= 0:
            done.succeed()
            return
        later = self.env.timeout(latency_s)
        assert later.callbacks is not None

        def succeed(_: Event) -> None:
            done.succeed()

        later.callbacks.append(succeed)


def _shared(start: list[int], resource: list[int], line: list[float], capacity: list[float]) -> list[float]:
    """Max-min fair rates of flows by `sharing.max_min`, on lists where these are few."""
    num, num_links, num_entries = len(start) - 1, len(capacity), len(resource)
    if num_entries < _COMPILED_FROM * (1 if "numba" in sys.modules else 4):
        rate, zeros = [0.0] * num, [0] * (num_links + num_entries + 1)
        room = (
            Crossings(*(zeros.copy() for _ in Crossings._fields)),
            Scratch([-1] * num_links, *(zeros.copy() for _ in Scratch._fields[1:])),
        )
        flows = (range(num), num, start, resource, line, [1.0] * num)
        num_bundles = cross.plain(*flows, *room)
        max_min.plain(*flows, capacity, range(num_bundles), num_bundles, rate, [0] * num, *room)
        return rate
    rates_ = np.zeros(num)
    arrays = (np.arange(num), num, np.array(start), np.array(resource), np.array(line), np.ones(num))
    rooms = crossings(num_entries, num_links), scratch(num_links, num_links)
    num_bundles = cross.compiled(*arrays, *rooms)
    bundles = np.arange(num_bundles)
    max_min.compiled(
        *arrays, np.array(capacity), bundles, num_bundles, rates_, np.zeros(num, dtype=np.int64), *rooms
    )
    rates: list[float] = rates_.tolist()
    return rates
