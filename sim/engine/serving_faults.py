"""Instances whose parts fail and come back while requests are served.

A pass under way when an instance becomes slower or faster has done its part of the work, and does the rest at the new pace. While
a link that it needs is dead it stands still, and keeps what it has. Where a GPU dies the instance is down until all of its
GPUs are back, and all KV on it is gone: its requests go first in line for another prefill, of the prompt and of what it has said;
those that it was to decode, whose KV is still on its way, wait for another seat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence

import simpy
from simpy.events import Event

from sim.engine.prefix_cache import PrefixCache
from sim.engine.serving_instance import Instance
from sim.engine.serving_lives import Lives
from sim.errors import InfeasibleError
from sim.schedule.serving import Spell

_FOREVER_S = 1e12
"""A pass that takes longer waits for a link that is dead."""


def pass_s(spells: Sequence[Spell], now: float, cost: Callable[[Spell], float]) -> float:
    """Time of a pass that begins now [s]; infinite where its instance goes down before its end.

    Raises InfeasibleError where it waits for a part that never comes back.
    """
    left, time_s, last = 1.0, now, len(spells) - 1
    place = max(i for i, spell in enumerate(spells) if spell.from_s <= now)
    while not spells[place].down:
        whole_s = cost(spells[place])
        if place == last and whole_s >= _FOREVER_S:
            raise InfeasibleError(
                f"a pass waits for ever: a link that it needs is dead from {spells[place].from_s:g} s on"
            )
        end_s = math.inf if place == last else spells[place + 1].from_s
        if time_s + left * whole_s <= end_s:
            return time_s - now + left * whole_s
        left -= (end_s - time_s) / whole_s
        time_s, place = end_s, place + 1
    return math.inf


class Outages:
    """Instances that go down and come back.

    Parameters
    ----------
    env : simpy.Environment
    lives : Lives
    instances : sequence of Instance
        Of all pools.
    lost : function of an instance
        Requests whose KV waits there for a seat elsewhere, or is on its way from there; who was on his way to it is given
        another seat.
    again : function of an instance and a request that it had
        Puts it first in line for another prefill.
    changed : function
        Called when instances are up or down.
    """

    def __init__(
        self,
        env: simpy.Environment,
        lives: Lives,
        instances: Sequence[Instance],
        lost: Callable[[Instance], list[int]],
        again: Callable[[Instance, int], None],
        changed: Callable[[], None],
    ) -> None:
        self.env, self.lives, self.lost, self.again, self.changed = env, lives, lost, again, changed
        for instance in instances:
            if any(spell.down for spell in instance.spells):
                env.process(self._watch(instance))

    def _watch(self, instance: Instance) -> Generator[Event]:
        for spell in instance.spells:
            if spell.from_s > self.env.now:
                yield self.env.timeout(spell.from_s - self.env.now)
            if spell.down and not instance.is_down:
                self._fail(instance)
            elif not spell.down and instance.is_down:
                instance.is_down = False
                instance.down_s += self.env.now - instance.failed_s
                self.changed()
                instance.call()

    def _fail(self, instance: Instance) -> None:
        """Take an instance down, with everything that it holds."""
        instance.is_down, instance.failed_s = True, self.env.now
        instance.fail()
        requests = self.lost(instance)
        for rank, line in list(instance.jobs.items()):
            for job in line:
                instance.give(rank, job.held, self.env.now)
                requests.append(job.request)
        instance.jobs.clear()
        for running in instance.running:
            for run in list(running.values()):
                instance.leave(run)
                instance.give(run.rank, run.held, self.env.now)
                self.lives.put_out(run, instance.step)
                requests.append(run.request)
        for stay in instance.joining:
            instance.give(stay.rank, stay.held, self.env.now)
        requests += [stay.request for stay in (*instance.joining, *instance.swapped)]
        instance.joining.clear()
        instance.swapped.clear()
        instance.swap_bytes.clear()
        instance.num_swapped[:] = 0
        if instance.decodes:
            instance.seated[:] = 0
            instance.num_seated = 0
        instance.caches = [PrefixCache(instance.engine.prefix_blocks) for _ in instance.caches]
        for request in sorted(requests, reverse=True):  # the oldest is first in line
            self.lives.restarts[request] += 1
            self.again(instance, request)
        self.changed()
