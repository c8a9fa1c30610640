"""A deployment serving requests in simulated time: queues, batches, decode steps, KV on its way.

A request arrives, waits for a prefill instance with room for its KV, is prefilled in a batch and has its first token. It
then waits for a decode instance with room for its whole KV (prompt and answer, reserved at once, so nothing is ever put
out again), its KV moves there, and it joins that instance's next step. Every step gives each running request its tokens.
Its KV leaves the prefill instance when the transfer has ended, the decode instance when its last token is there.

Why this way: an instance is one process with one event a batch or step, not one a token: requests that end are filed under
the step at which they will, and the tokens between follow from the ends of steps. Queue lengths, waits and percentiles are
differences of the instants kept here and are computed afterwards. KV is counted in whole tokens, so that sums are exact.
Ties: instants of equal time are handled in the order they were scheduled; the instance with the lower index comes first.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import Event

from sim.engine.transfers import Transfers
from sim.schedule.serving import POLICIES, Pool, Room, Service, Waiting, least_loaded
from sim.workload.requests import Requests

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INSTANTS = ("arrival_s", "prefill_start_s", "first_token_s", "decode_admitted_s", "kv_arrived_s",
            "decode_start_s", "end_s")  # fmt: skip
"""Instants of every request, in this order; NaN where it never came or does not exist (a request of one token never decodes)."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Work of one instance: batches [num_batches] and decode steps [num_steps], in order."""

    batch_start_s: Floats
    batch_end_s: Floats
    batch_tokens: Floats
    step_start_s: Floats
    step_end_s: Floats
    step_requests: Ints
    peak_kv_tokens: float
    kv_capacity_tokens: float


@dataclass(frozen=True, slots=True)
class ServingTrace:
    """Instants of every request [num_requests], where it was served, and what each instance did.

    `decode_instance` is the instance that gave a request its tokens, `first_step` the first of that instance's steps which
    did; -1 where none did. `refused` requests fit no instance even when it is empty.
    """

    instants: dict[str, Floats]
    prefill_instance: Ints
    decode_instance: Ints
    first_step: Ints
    refused: NDArray[np.bool_]
    prefill: tuple[InstanceRecord, ...]
    decode: tuple[InstanceRecord, ...]
    end_s: float
    moved_kv_bytes: float
    kv_bytes: dict[tuple[int, int], Floats]
    """(prefill instance, decode instance) -> bytes that moved, by pair of ranks as in `KvLinks.flows`."""


@dataclass(slots=True, eq=False)
class _Instance:
    """An expert-parallel group at work."""

    index: int
    pool: Pool
    prefills: bool
    decodes: bool
    capacity_tokens: float
    free_tokens: float
    free_requests: float
    peak_tokens: float = 0.0
    running: int = 0
    base_tokens: int = 0  # prompts and first tokens of running requests
    steps_done: int = 0  # of running requests, together
    joining: list[int] = field(default_factory=list)
    leaving: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    batches: list[tuple[float, float, float]] = field(default_factory=list)
    steps: list[tuple[float, float, int]] = field(default_factory=list)
    wake: Event | None = None
    turn: int = -1

    def next_rank(self) -> int:
        """The rank that holds the next request: one after the other."""
        self.turn = (self.turn + 1) % self.pool.num_ranks
        return self.turn

    def take(self, tokens: int) -> None:
        self.free_tokens -= tokens
        self.peak_tokens = max(self.peak_tokens, self.capacity_tokens - self.free_tokens)
        assert self.free_tokens >= 0, "KV beyond the memory of an instance"

    def record(self) -> InstanceRecord:
        batches = np.array(self.batches, dtype=np.float64).reshape(-1, 3)
        steps = np.array(self.steps, dtype=np.float64).reshape(-1, 3)
        return InstanceRecord(
            batches[:, 0],
            batches[:, 1],
            batches[:, 2],
            steps[:, 0],
            steps[:, 1],
            steps[:, 2].astype(np.int64),
            self.peak_tokens if math.isfinite(self.capacity_tokens) else math.nan,
            self.capacity_tokens,
        )


def serve(service: Service, requests: Requests, *, until_s: float | None = None) -> ServingTrace:
    """Serve requests until every one has ended.

    Parameters
    ----------
    service : Service
    requests : Requests
    until_s : float, optional
        Instant at which to stop [s]; what then still waits or runs has NaN instants.

    Returns
    -------
    ServingTrace
    """
    return _Loop(service, requests).run(until_s)


class _Loop:
    """One run: queues, instances and the instants noted so far."""

    def __init__(self, service: Service, requests: Requests) -> None:
        self.env = simpy.Environment()
        self.service, self.policy = service, POLICIES[service.policy]
        self.num = requests.num_requests
        self.arrival = requests.arrival_s.tolist()
        self.prompt: list[int] = requests.prompt_tokens.tolist()
        self.output: list[int] = requests.output_tokens.tolist()
        self.instants = {name: [math.nan] * self.num for name in INSTANTS}
        self.placed = {"prefill": [-1] * self.num, "decode": [-1] * self.num}
        self.first_step = [-1] * self.num
        self.rank = [0] * self.num  # of its prefill instance
        self.kv_bytes: dict[tuple[int, int], Floats] = {}
        self.refused = [False] * self.num
        self.queue: deque[Waiting] = deque()
        self.handover: deque[Waiting] = deque()
        self.apart = service.decode is not None
        self.prefill = self._pool(service.prefill, prefills=True, decodes=not self.apart)
        self.decode = (
            self._pool(service.decode, prefills=False, decodes=True) if service.decode else self.prefill
        )
        self.fits = {
            "prefill": service.rank_capacity_tokens(service.prefill),
            "decode": service.rank_capacity_tokens(service.decode or service.prefill),
        }
        self.batch_tokens = service.batch_tokens * service.prefill.num_ranks
        self.transfers = Transfers(self.env, list(service.kv_links.capacity) if service.kv_links else [])

    def _pool(self, pool: Pool, *, prefills: bool, decodes: bool) -> list[_Instance]:
        capacity = self.service.kv_capacity_tokens(pool)
        requests = self.service.max_batch if decodes else math.inf
        return [
            _Instance(i, pool, prefills, decodes, capacity, capacity, requests)
            for i in range(pool.num_instances)
        ]

    def run(self, until_s: float | None) -> ServingTrace:
        env = self.env
        env.process(self._arrivals())
        for instance in self.prefill + (self.decode if self.apart else []):
            env.process(self._live(instance))
        env.run(until_s)
        prefill = tuple(instance.record() for instance in self.prefill)
        return ServingTrace(
            instants={name: np.array(values) for name, values in self.instants.items()},
            prefill_instance=np.array(self.placed["prefill"], dtype=np.int64),
            decode_instance=np.array(self.placed["decode"], dtype=np.int64),
            first_step=np.array(self.first_step, dtype=np.int64),
            refused=np.array(self.refused, dtype=bool),
            prefill=prefill,
            decode=tuple(instance.record() for instance in self.decode) if self.apart else prefill,
            end_s=env.now,
            moved_kv_bytes=self.transfers.moved_bytes,
            kv_bytes=dict(self.kv_bytes),
        )

    # --- arrivals --------------------------------------------------------------------------------------------------

    def _arrivals(self) -> Generator[Event]:
        env, arrived = self.env, self.instants["arrival_s"]
        for request, arrival in enumerate(self.arrival):
            if arrival > env.now:
                yield env.timeout(arrival - env.now)
            arrived[request] = env.now
            whole = self.prompt[request] + self.output[request]
            held = whole if not self.apart else self.prompt[request]
            decoded = self.output[request] > 1
            if held > self.fits["prefill"] or (self.apart and decoded and whole > self.fits["decode"]):
                self.refused[request] = True
                continue
            tokens = self.service.computed_tokens(self.prompt[request])
            self.queue.append(Waiting(request, tokens, held))
            self._call_prefill()

    def _call_prefill(self) -> None:
        """Wake the first idle instance that has room for someone."""
        for instance in self.prefill:
            if instance.wake is not None and self._choose(instance):
                instance.wake.succeed()
                instance.wake = None
                return

    # --- an instance -----------------------------------------------------------------------------------------------

    def _live(self, instance: _Instance) -> Generator[Event]:
        while True:
            picked = self._choose(instance) if instance.prefills and self.queue else []
            if picked:
                batch = [self.queue[position] for position in picked]
                for position in sorted(picked, reverse=True):
                    del self.queue[position]
                yield self._start_batch(instance, batch)
                self._end_batch(instance, batch)
            elif instance.running or instance.joining:
                start_s = self.env.now
                yield self._start_step(instance)
                self._end_step(instance, start_s)
            else:
                self._nics(instance, running=False)
                instance.wake = self.env.event()
                yield instance.wake
                self._nics(instance, running=True)

    def _nics(self, instance: _Instance, *, running: bool) -> None:
        """Set the rate that this instance's collectives leave to KV."""
        links, busy = self.service.kv_links, instance.pool.nic_busy_fraction
        if self.apart and links and busy > 0:
            own = (links.send if instance.prefills else links.receive)[instance.index]
            left = 1.0 - busy if running else 1.0
            self.transfers.set_capacity(own, [links.capacity[link] * left for link in own])

    def _choose(self, instance: _Instance) -> list[int]:
        """Positions of the prefill queue that this instance may take now."""
        if not self.queue:
            return []
        service = self.service
        room = Room(
            min(service.batch_requests, instance.free_requests), self.batch_tokens, instance.free_tokens
        )
        return self.policy(self.queue, room)

    def _start_batch(self, instance: _Instance, batch: list[Waiting]) -> Event:
        now, started = self.env.now, self.instants["prefill_start_s"]
        for waiting in batch:
            instance.take(waiting.kv_tokens)
            self.rank[waiting.request] = instance.next_rank()
            started[waiting.request] = now
            self.placed["prefill"][waiting.request] = instance.index
        if instance.decodes:
            instance.free_requests -= len(batch)
        tokens = sum(waiting.batch_tokens for waiting in batch)
        longest = max(waiting.batch_tokens for waiting in batch)
        taken_s = self.service.batch_s(longest, tokens, instance.index)
        instance.batches.append((now, now + taken_s, tokens))
        return self.env.timeout(taken_s)

    def _end_batch(self, instance: _Instance, batch: list[Waiting]) -> None:
        now = self.env.now
        for waiting in batch:
            request = waiting.request
            self.instants["first_token_s"][request] = now
            if self.output[request] == 1:
                self.instants["end_s"][request] = now
                self._free(instance, waiting.kv_tokens)
            elif self.apart:
                whole = self.prompt[request] + self.output[request]
                self.handover.append(Waiting(request, 0.0, whole))
            else:
                self.instants["decode_admitted_s"][request] = self.instants["kv_arrived_s"][request] = now
                self.placed["decode"][request] = instance.index
                instance.joining.append(request)
        if self.apart:
            self._hand_over()

    def _free(self, instance: _Instance, tokens: int) -> None:
        """Room again on an instance."""
        instance.free_tokens += tokens
        if instance.decodes:
            instance.free_requests += 1

    def _hand_over(self) -> None:
        """Give prefilled requests to decode instances with room, and start their KV on its way."""
        while self.handover:
            free_requests = [instance.free_requests for instance in self.decode]
            free_tokens = [instance.free_tokens for instance in self.decode]
            open_tokens = [
                tokens for tokens, room in zip(free_tokens, free_requests, strict=True) if room >= 1
            ]
            if not open_tokens:
                return
            picked = self.policy(self.handover, Room(1, math.inf, max(open_tokens)))
            if not picked:
                return
            waiting = self.handover[picked[0]]
            index = least_loaded(free_requests, free_tokens, waiting.kv_tokens)
            assert index is not None
            del self.handover[picked[0]]
            self._move(waiting, self.decode[index])

    def _move(self, waiting: Waiting, to: _Instance) -> None:
        request = waiting.request
        to.take(waiting.kv_tokens)
        to.free_requests -= 1
        self.placed["decode"][request] = to.index
        self.instants["decode_admitted_s"][request] = self.env.now
        size_bytes = self.prompt[request] * self.service.kv_bytes_per_token
        links, lines, latency_s = self._way(request, to, size_bytes)
        done = self.transfers.send(size_bytes, links, lines, self.service.transfer_latency_s + latency_s)
        assert done.callbacks is not None
        done.callbacks.append(lambda _: self._moved(request, to))

    def _way(self, request: int, to: _Instance, size_bytes: float) -> tuple[list[int], list[float], float]:
        """Links from the GPU that holds the KV of a request to the one that takes it, capacity used per byte, and latency [s]."""
        if self.service.kv_links is None:
            return [], [], 0.0
        ends = self.placed["prefill"][request], to.index
        flows = self.service.kv_links.flows(*ends)
        pair = self.rank[request] * to.pool.num_ranks + to.next_rank()
        self.kv_bytes.setdefault(ends, np.zeros(flows.num_flows))[pair] += size_bytes
        own = slice(flows.start[pair], flows.start[pair + 1])
        return flows.resource[own].tolist(), flows.line[own].tolist(), float(flows.latency_s[pair])

    def _moved(self, request: int, to: _Instance) -> None:
        self.instants["kv_arrived_s"][request] = self.env.now
        self._free(self.prefill[self.placed["prefill"][request]], self.prompt[request])
        to.joining.append(request)
        if to.wake is not None:
            to.wake.succeed()
            to.wake = None
        self._call_prefill()

    # --- decode ----------------------------------------------------------------------------------------------------

    def _start_step(self, instance: _Instance) -> Event:
        now, step, service = self.env.now, len(instance.steps), self.service
        for request in instance.joining:
            self.instants["decode_start_s"][request] = now
            self.first_step[request] = step
            instance.leaving[step + service.steps(self.output[request]) - 1].append(request)
            instance.base_tokens += self.prompt[request] + 1
        instance.running += len(instance.joining)
        instance.joining.clear()
        context = instance.base_tokens + service.tokens_per_step * instance.steps_done
        load = instance.running / instance.pool.num_ranks
        cost = service.own_step_s.get(instance.index, service.decode_step_s)
        return self.env.timeout(cost(load, context / instance.running))

    def _end_step(self, instance: _Instance, start_s: float) -> None:
        now, step = self.env.now, len(instance.steps)
        instance.steps.append((start_s, now, instance.running))
        instance.steps_done += instance.running
        ended = instance.leaving.pop(step, ())
        for request in ended:
            self.instants["end_s"][request] = now
            instance.base_tokens -= self.prompt[request] + 1
            instance.steps_done -= step - self.first_step[request] + 1
            self._free(instance, self.prompt[request] + self.output[request])
        instance.running -= len(ended)
        if ended and self.apart:
            self._hand_over()
