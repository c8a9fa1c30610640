"""NIC ports of rank groups: where a step's all-to-alls and pipeline sends contend.

In a training step the ranks of one EP group at one pipeline stage act together: they enter an all-to-all by a barrier
and send to the next stage side by side, rank i to rank i. So their NICs are one *port* in each direction, with capacity
1, and what is under way on it is a few uses instead of thousands of flows. An all-to-all alone takes the time that the
flow level found for it, and fills a part of the port; a send alone fills it. Together they share it by weighted max-min
fairness, the weight being the bytes on the NIC, as in `fluid`: both are slowed by the same physics, at a cost that
allows a hundred thousand collectives a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import simpy
from simpy.events import Event

_EPS = 1e-15


@dataclass(slots=True, eq=False)
class Use:
    """Something under way on ports. `left_s` is its remaining time if it were alone."""

    left_s: float
    fill: float  # part of a port that it takes at full pace, 0..1
    weight: float  # bytes on one NIC
    ports: tuple[int, ...]
    done: Event
    pace: float = 0.0  # 1 = as fast as alone
    since_s: float = 0.0
    version: int = 0


@dataclass(slots=True)
class Ports:
    """All ports of a step; port numbers are the caller's."""

    env: simpy.Environment
    uses: dict[int, list[Use]] = field(default_factory=dict)

    def use(self, alone_s: float, fill: float, weight: float, ports: tuple[int, ...]) -> Event:
        """Start something that takes `alone_s` [s] with the ports to itself; the event fires when it is done."""
        new = Use(alone_s, fill, weight, ports, self.env.event(), since_s=self.env.now)
        crowded = False
        for port in ports:
            here = self.uses.setdefault(port, [])
            crowded = crowded or bool(here)
            here.append(new)
        if crowded:
            self._share([new])
        else:
            new.pace = 1.0
            self._wake(new)
        return new.done

    def _wake(self, use: Use) -> None:
        use.version += 1
        wake = self.env.timeout(use.left_s / use.pace)
        assert wake.callbacks is not None
        wake.callbacks.append(partial(self._end, use, use.version))

    def _end(self, use: Use, version: int, _: Event) -> None:
        if use.version != version:
            return  # its pace changed since
        neighbours: list[Use] = []
        for port in use.ports:
            here = self.uses[port]
            here.remove(use)
            neighbours += here
        use.version += 1
        use.done.succeed()
        if neighbours:
            self._share(neighbours)

    def _share(self, start: Iterable[Use]) -> None:
        """New paces for all uses joined with `start` by ports: progressive filling, each pace at most 1."""
        group: list[Use] = []
        seen: set[int] = set()
        queue = list(start)
        while queue:
            use = queue.pop()
            if id(use) not in seen:
                seen.add(id(use))
                group.append(use)
                queue += [other for port in use.ports for other in self.uses[port]]
        now = self.env.now
        for use in group:
            use.left_s = max(use.left_s - use.pace * (now - use.since_s), 0.0)
            use.since_s = now
        paces = self._fill(group)
        for use, pace in zip(group, paces, strict=True):
            if pace != use.pace or use.left_s <= _EPS:
                use.pace = pace
                self._wake(use)

    def _fill(self, group: list[Use]) -> list[float]:
        free = {port: 1.0 for use in group for port in use.ports}
        pace = [0.0 if use.fill > 0 else 1.0 for use in group]
        open_ = [i for i, use in enumerate(group) if use.fill > 0]
        # Pace per unit of level: bytes are what is shared.
        rise = [max(use.weight, _EPS) / max(use.fill, _EPS) for use in group]
        while open_:
            slope = dict.fromkeys(free, 0.0)
            for i in open_:
                for port in group[i].ports:
                    slope[port] += rise[i] * group[i].fill
            step = min((1.0 - pace[i]) / rise[i] for i in open_)
            tight = min((free[p] / s for p, s in slope.items() if s > 0), default=step)
            step = max(min(step, tight), 0.0)
            for i in open_:
                pace[i] += rise[i] * step
                for port in group[i].ports:
                    free[port] -= rise[i] * group[i].fill * step
            open_ = [
                i
                for i in open_
                if pace[i] < 1.0 - 1e-12 and all(free[port] > 1e-12 for port in group[i].ports)
            ]
        return [min(max(p, _EPS), 1.0) for p in pace]
