"""KV on its way from prefill to decode instances, over the NICs that their collectives use too.

Every transfer leaves through the NICs of one instance and enters through those of another. Rates are max-min fair between
transfers, under three limits: the sender's NICs, the receiver's NICs, and what one transfer can use. While an instance
runs, its collectives come first (a traffic class of their own) and leave a fixed share of its NICs.

Why this way: transfers between the same two instances always have the same rate, so a pair keeps one count of bytes served
to each, and a heap of the counts at which transfers end. All changes of an instant are solved together at its end, at a cost
that grows with the pairs and not with the transfers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import simpy
from simpy.events import Event, EventPriority

Pair = tuple[int, int]
_AFTER_ALL_ELSE = EventPriority(2)  # simpy priority: after every normal event of the instant


def fair_rates(
    count: Mapping[Pair, int], send: Mapping[int, float], receive: Mapping[int, float], most: float
) -> dict[Pair, float]:
    """Max-min fair rate of one transfer of each pair [bytes/s].

    Parameters
    ----------
    count : (sender, receiver) -> transfers under way [count]
    send, receive : rate of each instance's NICs [bytes/s]
    most : rate of one transfer alone [bytes/s]

    Returns
    -------
    dict
        (sender, receiver) -> rate [bytes/s].

    References
    ----------
    Bertsekas and Gallager, Data Networks, section 6.5.2.
    """
    rates: dict[Pair, float] = {}
    left = {("send", i): rate for i, rate in send.items()} | {
        ("receive", i): rate for i, rate in receive.items()
    }
    open_pairs = dict(count)
    while open_pairs:
        users: dict[tuple[str, int], int] = {}
        for (i, j), num in open_pairs.items():
            users[("send", i)] = users.get(("send", i), 0) + num
            users[("receive", j)] = users.get(("receive", j), 0) + num
        shares = {key: max(left[key], 0.0) / num for key, num in users.items()}
        least = min(min(shares.values()), most)
        bound = {key for key, share in shares.items() if share <= least}
        for pair in list(open_pairs):
            ends = ("send", pair[0]), ("receive", pair[1])
            if least >= most or ends[0] in bound or ends[1] in bound:
                rates[pair] = least
                num = open_pairs.pop(pair)
                for key in ends:
                    left[key] -= least * num
    return rates


@dataclass(slots=True)
class _Lane:
    """Transfers under way between two instances: bytes served to each so far, and where each one ends."""

    served_bytes: float = 0.0
    rate: float = 0.0
    ends: list[tuple[float, int, Event]] = field(default_factory=list)


class Transfers:
    """Owner of the KV transfers under way.

    Parameters
    ----------
    env : simpy.Environment
    send_bytes_per_s, receive_bytes_per_s : instance -> rate of its NICs [bytes/s]
    most_bytes_per_s : rate of one transfer alone [bytes/s]
    latency_s : time from the last byte to the word that it is there [s]
    """

    def __init__(
        self,
        env: simpy.Environment,
        send_bytes_per_s: Mapping[int, float],
        receive_bytes_per_s: Mapping[int, float],
        *,
        most_bytes_per_s: float,
        latency_s: float,
    ) -> None:
        self.env, self.most, self.latency_s = env, most_bytes_per_s, latency_s
        self.rates = {"send": dict(send_bytes_per_s), "receive": dict(receive_bytes_per_s)}
        self.moved_bytes = 0.0
        self._lanes: dict[Pair, _Lane] = {}
        self._since_s = 0.0
        self._version = 0
        self._number = 0
        self._to_plan = False

    def send(self, sender: int, receiver: int, size_bytes: float) -> Event:
        """Start a transfer now; the event succeeds when its last byte has come."""
        done = self.env.event()
        self.moved_bytes += size_bytes
        least = min(self.most, self.rates["send"][sender], self.rates["receive"][receiver])
        if size_bytes <= 0 or math.isinf(least):
            self._deliver(done)
            return done
        self._serve()
        lane = self._lanes.setdefault((sender, receiver), _Lane())
        self._number += 1
        heapq.heappush(lane.ends, (lane.served_bytes + size_bytes, self._number, done))
        self._change()
        return done

    def set_rate(self, side: str, instance: int, rate_bytes_per_s: float) -> None:
        """Set the rate that an instance's NICs leave to transfers from now on; `side` is "send" or "receive"."""
        if self.rates[side][instance] == rate_bytes_per_s:
            return
        self._serve()
        self.rates[side][instance] = rate_bytes_per_s
        if any(pair[0 if side == "send" else 1] == instance for pair in self._lanes):
            self._change()

    def _serve(self) -> None:
        """Bring every lane up to the present."""
        past = self.env.now - self._since_s
        self._since_s = self.env.now
        if past > 0:
            for lane in self._lanes.values():
                lane.served_bytes += past * lane.rate

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
        """Rates from now on, and one event at the next end."""
        self._to_plan = False
        count = {pair: len(lane.ends) for pair, lane in self._lanes.items()}
        rates = fair_rates(count, self.rates["send"], self.rates["receive"], self.most)
        next_s, first = math.inf, None
        for pair, lane in self._lanes.items():
            lane.rate = rates[pair]
            if lane.rate <= 0:
                continue
            wait = (lane.ends[0][0] - lane.served_bytes) / lane.rate
            if wait < next_s:
                next_s, first = wait, pair
        self._version += 1
        if first is None:
            return
        timer = self.env.timeout(max(next_s, 0.0), (self._version, first))
        assert timer.callbacks is not None
        timer.callbacks.append(self._finish)

    def _finish(self, timer: Event) -> None:
        assert timer.value is not None
        version, first = timer.value
        if version != self._version:
            return  # rates have changed since
        self._serve()
        self._lanes[first].served_bytes = max(self._lanes[first].served_bytes, self._lanes[first].ends[0][0])
        for pair, lane in list(self._lanes.items()):
            while lane.ends and lane.ends[0][0] <= lane.served_bytes:
                self._deliver(heapq.heappop(lane.ends)[2])
            if not lane.ends:
                del self._lanes[pair]
        self._change()

    def _deliver(self, done: Event) -> None:
        if self.latency_s <= 0:
            done.succeed()
            return
        later = self.env.timeout(self.latency_s)
        assert later.callbacks is not None

        def succeed(_: Event) -> None:
            done.succeed()

        later.callbacks.append(succeed)
