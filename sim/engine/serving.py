"""A deployment serving requests in simulated time: queues, passes, KV that grows, moves and is put out.

A request arrives and waits until a rank of a prefill instance has room for its KV. Every pass of the instance takes as many
tokens of each rank's prompts as a chunk has, the oldest prompt first; a prompt has its first token at the end of the pass
that ends it, whatever else is in that pass. Where pools are apart it then waits for a rank that decodes, its KV moves there,
and it joins that instance's next pass. Its KV leaves the prefill instance when the transfer has ended, the decode instance
when its last token is there, or earlier where it is put out for others (`Engine.preemption`).

Why this way: an instance is one process with one event a pass, not one a token: requests that end are filed under the step
at which they will, those that need a further block of KV under the step that needs it, and what a rank has in its caches is
a straight line in steps. Queue lengths, waits and percentiles are differences of the instants kept here and are computed
afterwards. KV is counted in whole tokens, so that sums are exact. Ties: instants of equal time are handled in the order they
were scheduled; the instance and the rank with the lower index come first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import Event

from sim.engine.serving_faults import Outages, pass_s
from sim.engine.serving_handover import Handover
from sim.engine.serving_instance import Instance, Job
from sim.engine.serving_kv import KvWays
from sim.engine.serving_lives import Lives, ServingTrace
from sim.engine.serving_routing import Router
from sim.errors import InfeasibleError
from sim.schedule.serving import PassWork, Pool, Service, Spell, Waiting, WaitingLine
from sim.workload.requests import Requests

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_REPORTED = 4096  # requests between two reports of progress


def serve(
    service: Service,
    requests: Requests,
    *,
    until_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ServingTrace:
    """Serve requests until every one has ended.

    Parameters
    ----------
    service : Service
    requests : Requests
    until_s : float, optional
        Instant at which to stop [s]; what then still waits or runs has NaN instants.
    progress : function, optional
        Called now and then with the number of requests that have ended, and that of all.

    Returns
    -------
    ServingTrace
    """
    return _Loop(service, requests, progress).run(until_s)


class _Loop:
    """One run: queues, instances and the instants noted so far."""

    def __init__(
        self, service: Service, requests: Requests, progress: Callable[[int, int], None] | None
    ) -> None:
        self.env = simpy.Environment()
        self.service, self.engine = service, service.engine
        self.left: Event | None = None  # a request has
        self.lives, self.progress = Lives(service, requests), progress
        self.queue = WaitingLine(self.engine.policy)
        self.apart = service.decode is not None
        self.prefill = self._pool(service.prefill, "prefill" if self.apart else "prefill and decode")
        self.decode = self._pool(service.decode, "decode") if service.decode else self.prefill
        self.router, self.over = Router(self.engine.routing, self.prefill, self.lives), self.env.event()
        self.ways = KvWays(self.env, service)
        self.handover = Handover(
            self.env, self.lives, self.ways, self.engine.policy, self.prefill, self.decode, self._freed
        )

    def _pool(self, pool: Pool, roles: str) -> list[Instance]:
        capacity = self.service.rank_capacity_tokens(pool)
        spells = [self.service.spells(i, prefills="prefill" in roles) for i in range(pool.num_instances)]
        return [Instance(i, pool, self.engine, capacity, roles, own) for i, own in enumerate(spells)]

    def run(self, until_s: float | None) -> ServingTrace:
        env = self.env
        env.process(self._arrivals())
        instances = self.prefill + (self.decode if self.apart else [])
        for instance in instances:
            env.process(self._live(instance))
        if not self.service.changes:
            env.run(until_s)
            return self.lives.trace(self.prefill, self.decode, env.now, self.ways)
        Outages(env, self.lives, instances, self.handover.lost, self._first_in_line, self._changed)
        try:
            env.run(self.over if until_s is None else self.over | env.timeout(until_s))
        except RuntimeError:  # nothing happens any more
            left = self.lives.num - self.lives.num_ended - self.lives.num_refused
            raise InfeasibleError(
                f"{left} requests never end: instances that they need are down and do not come back"
            ) from None
        return self.lives.trace(self.prefill, self.decode, env.now, self.ways)

    # --- arrivals --------------------------------------------------------------------------------------------------

    def _arrivals(self) -> Generator[Event]:
        env, arrived, held = self.env, self.lives.instants["arrival_s"], self.engine.held_tokens
        prefill, decode = self.prefill[0].rank_capacity, self.decode[0].rank_capacity
        for request, arrival in enumerate(self.lives.arrival):
            if arrival > env.now:
                yield env.timeout(arrival - env.now)
            while request - self.lives.num_ended - self.lives.num_refused >= self.lives.concurrency:
                self.left = env.event()
                yield self.left
            arrived[request] = env.now
            prompt, output = self.lives.prompt[request], self.lives.output[request]
            decodes = not self.apart or output > 1
            if held(prompt) > prefill or (decodes and held(prompt + output) > decode):
                self.lives.refused[request] = True
                self.lives.num_refused += 1
                continue
            self._bind(request)
        self._see_end()

    def _bind(self, request: int) -> None:
        """Put a request into the queue of all ranks, or of the one that routing gives it to."""
        waiting = Waiting(self.lives.uncached_tokens(request), request, request)
        if self.engine.routing is None:
            self.queue.push(waiting)
            self._call_prefill()
            return
        instance, rank = self.router.choose(request)
        self.lives.prefill_instance[request], self.lives.rank[request] = instance, rank
        self.prefill[instance].waiting[rank].push(waiting)
        self.prefill[instance].call()

    def _call_prefill(self) -> None:
        """Wake the first idle instance that has room for someone of the common queue."""

        def fits(waiting: Waiting) -> bool:
            return self._room(instance, waiting) >= 0

        for instance in self.prefill:
            if instance.wake is not None and self.queue.has(fits):
                instance.call()
                return

    # --- an instance -----------------------------------------------------------------------------------------------

    def _live(self, instance: Instance) -> Generator[Event]:
        while True:
            steps = self.engine.mixed and instance.decodes and self._start_step(instance)
            fed = self._feed(instance) if instance.prefills else []
            if not fed and not steps and instance.decodes:
                steps = self._start_step(instance)
            if not fed and not steps:
                self.ways.leave_to_kv(instance.index, prefills=instance.prefills, running=False)
                instance.wake = self.env.event()
                yield instance.wake
                self.ways.leave_to_kv(instance.index, prefills=instance.prefills, running=True)
                continue
            start_s, requests = self.env.now, instance.num_running if steps else 0
            taken_s, failures = self._pass_s(instance, fed, steps=steps), instance.num_failures
            yield self.env.timeout(taken_s) if taken_s < math.inf else instance.dies(self.env)
            if instance.num_failures > failures:
                continue
            instance.rows.extend((start_s, self.env.now, sum(new for _, new in fed), requests))
            if steps:
                self._end_step(instance)
            for job, new in fed:
                job.done += new
                if job.done == job.tokens:
                    self._prefilled(instance, job)
            if self.apart:
                self.handover.go()

    def _pass_s(self, instance: Instance, fed: list[tuple[Job, int]], *, steps: bool) -> float:
        """Time of a pass, and of what it had to wait for on PCIe [s]; infinite where its instance fails in it."""
        chunks: dict[int, list[tuple[int, int]]] = {}
        for job, new in fed:
            chunks.setdefault(job.rank, []).append((new, job.done))
        if steps or not fed:
            work = instance.step_work(chunks)
        else:
            nobody = np.zeros(instance.pool.num_ranks, dtype=np.int64), np.zeros(instance.pool.num_ranks)
            work = PassWork(chunks, *nobody)

        def cost_s(spell: Spell) -> float:
            return spell.prefill_s(work) if fed else spell.decode_step_s(work)

        taken_s = pass_s(instance.spells, self.env.now, cost_s)
        if instance.swap_bytes:
            taken_s += max(instance.swap_bytes.values()) / self.engine.swap_bytes_per_s
            instance.swap_bytes.clear()
        return taken_s

    # --- prompts ---------------------------------------------------------------------------------------------------

    def _feed(self, instance: Instance) -> list[tuple[Job, int]]:
        """Tokens of each prompt in the next pass: of those begun, then of new ones as there is room."""
        if not instance.jobs and not self.queue and not instance.num_waiting:
            return []
        most, taken = self.engine.chunk_tokens, np.zeros(instance.pool.num_ranks)
        if self.engine.mixed:
            taken += instance.requests * (1 + len(self.service.acceptance))
        fed: list[tuple[Job, int]] = []

        def feed(job: Job) -> None:
            new = int(min(most - taken[job.rank], job.tokens - job.done))
            if new > 0:
                fed.append((job, new))
                taken[job.rank] += new

        for line in instance.jobs.values():
            for job in line:
                feed(job)
        if len(fed) >= self.engine.batch_requests:
            return fed
        own: int | None = None
        chosen = -1

        def fits(waiting: Waiting) -> bool:
            nonlocal chosen
            chosen = self._room(instance, waiting, taken, own)
            return chosen >= 0

        queues = {None: self.queue} if self.engine.routing is None else {**instance.waiting}
        for bound, queue in queues.items():
            own = bound
            for waiting in queue.take(fits):
                feed(self._begin(instance, chosen, waiting.request))
                if len(fed) >= self.engine.batch_requests:
                    return fed
        return fed

    def _room(
        self, instance: Instance, waiting: Waiting, taken: Floats | None = None, rank: int | None = None
    ) -> int:
        """Rank that a request may take now, its own where it is bound; -1 without."""
        tokens = self.lives.needs(waiting.request)
        if rank is None:
            return instance.rank_with_room(tokens, taken)
        has_turn = taken is None or taken[rank] < self.engine.chunk_tokens
        return rank if has_turn and instance.has_room(rank, tokens) else -1

    def _begin(self, instance: Instance, rank: int, request: int) -> Job:
        now, tokens, held = self.env.now, self.lives.context[request], self.lives.needs(request)
        instance.take(rank, held, now)
        if instance.decodes:
            instance.sit(rank)
        self.lives.prefill_instance[request], self.lives.rank[request] = instance.index, rank
        done = self.service.cached_tokens(self.lives.prompt[request])
        if self.lives.blocks is not None:
            hits = instance.caches[rank].find(self.lives.hashes(request))
            done = max(done, min(hits * self.engine.prefix_tokens, tokens - 1))
        if math.isnan(self.lives.instants["prefill_start_s"][request]):
            self.lives.instants["prefill_start_s"][request] = now
            self.lives.cached[request] = done
        job = Job(request, rank, done, tokens, held)
        instance.jobs.setdefault(rank, deque()).append(job)
        return job

    def _prefilled(self, instance: Instance, job: Job) -> None:
        now, request = self.env.now, job.request
        line = instance.jobs[job.rank]
        line.remove(job)
        if not line:
            del instance.jobs[job.rank]
        if self.lives.blocks is not None:
            instance.caches[job.rank].keep(self.lives.hashes(request))
        self.lives.note(request, now, "first_token_s")
        if not self.lives.to_go[request]:
            self._end(instance, request, job.rank, job.held)
        elif self.apart:
            self.handover.push(request)
        else:
            self.lives.note(request, self.env.now, "decode_admitted_s", "kv_arrived_s")
            instance.joining.append(self.lives.stay(request, job.rank, job.held))
            self.lives.decode_instance[request] = instance.index

    def _end(self, instance: Instance, request: int, rank: int, held: int) -> None:
        """A request has all of its tokens."""
        self.lives.instants["end_s"][request] = self.env.now
        instance.give(rank, held, self.env.now)
        if instance.decodes:
            instance.sit(rank, -1)
        self._gone(request, prefilled=instance.prefills)
        self.lives.num_ended += 1
        self._see_end()
        if self.progress and self.lives.num_ended % _REPORTED == 0:
            self.progress(self.lives.num_ended, self.lives.num)

    def _see_end(self) -> None:
        """Let the next request arrive where one had to leave for it, and note that every one has ended."""
        if self.left is not None and not self.left.triggered:
            self.left.succeed()
        if self.lives.num_ended + self.lives.num_refused == self.lives.num and not self.over.triggered:
            self.over.succeed()

    def _gone(self, request: int, *, prefilled: bool) -> None:
        """A request has left the rank that it was bound to."""
        if prefilled and self.engine.routing is not None:
            self.router.outstanding[self.lives.prefill_instance[request], self.lives.rank[request]] -= 1

    def _freed(self, request: int, sender: Instance) -> None:
        """The KV of a request has left the instance that prefilled it."""
        self._gone(request, prefilled=True)
        if self.engine.routing is None:
            self._call_prefill()
        else:
            sender.call()

    # --- faults ----------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Bind requests that wait for an instance that is down to another, and wake whoever may go on."""
        down = [instance for instance in self.prefill if instance.is_down]
        if len(down) < len(self.prefill):
            for failed in down:
                for rank, line in failed.waiting.items():
                    for waiting in line.drop():
                        self.router.outstanding[failed.index, rank] -= 1
                        self._bind(waiting.request)
        if self.apart:
            self.handover.go()
        for _ in self.prefill:
            self._call_prefill()

    # --- decode ----------------------------------------------------------------------------------------------------

    def _start_step(self, instance: Instance) -> bool:
        """Let requests join, come back from the host and grow; False where none is there to run."""
        for run in instance.swapped_in(self.service.held_bytes_per_token(instance.pool), self.env.now):
            instance.join(run)
        for run in instance.joining:
            self.lives.note(run.request, self.env.now, "decode_start_s")
            self.lives.first_step[run.request] = instance.step
            instance.join(run)
        instance.joining.clear()
        for run in instance.growing.pop(instance.step, ()):
            while instance.is_running(run) and not instance.grown(run, self.env.now):
                self._put_out(instance, run.rank)
        return instance.num_running > 0

    def _put_out(self, instance: Instance, rank: int) -> None:
        """Make room on a rank: its latest prompt goes back to its queue, or without any its latest running request goes."""
        if rank in instance.jobs:
            job = instance.jobs[rank].pop()
            self.lives.times_put_out[job.request] += 1
            if not instance.jobs[rank]:
                del instance.jobs[rank]
            instance.give(rank, job.held, self.env.now)
            self._again(instance, job.request, rank)
            return
        run = next(reversed(instance.running[rank].values()))
        self.lives.times_put_out[run.request] += 1
        instance.leave(run)
        instance.give(rank, run.held, self.env.now)
        self.lives.put_out(run, instance.step)
        if self.engine.preemption == "swap":
            stay = self.lives.stay(run.request, rank, 0)
            instance.swap_out(stay, self.service.held_bytes_per_token(instance.pool))
        else:
            self._again(instance, run.request, rank)

    def _again(self, instance: Instance, request: int, rank: int) -> None:
        """Put a request of a rank first in line for another prefill."""
        instance.sit(rank, -1)
        self._first_in_line(instance, request)

    def _first_in_line(self, instance: Instance, request: int) -> None:
        """Let a request that an instance had be the next to be prefilled again."""
        waiting = Waiting(self.lives.uncached_tokens(request), request, request)
        if self.engine.routing is None:
            self.queue.push(waiting, first=True)
            if self.apart:
                self._call_prefill()
            return
        home = self.prefill[self.lives.prefill_instance[request]]
        if not instance.prefills:
            self.router.outstanding[home.index, self.lives.rank[request]] += 1
        home.waiting[self.lives.rank[request]].push(waiting, first=True)
        if home is not instance:
            home.call()

    def _end_step(self, instance: Instance) -> None:
        instance.step += 1
        for run in instance.leaving.pop(instance.step, ()):
            if instance.is_running(run):
                instance.leave(run)
                self._end(instance, run.request, run.rank, run.held)
