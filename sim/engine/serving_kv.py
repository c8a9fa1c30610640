"""KV on its way from instances that prefill to instances that decode."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import Event

from sim.engine.transfers import Transfers
from sim.schedule.serving import Service

Floats = NDArray[np.float64]


class KvWays:
    """The network between two pools, which KV shares with the collectives of running instances."""

    def __init__(self, env: simpy.Environment, service: Service) -> None:
        self.service, self.links = service, service.kv_links
        self.env, self.capacity = env, list(self.links.capacity) if self.links else []
        self.left: dict[int, float] = {}  # link -> part that collectives leave
        self.transfers = Transfers(env, list(self.capacity))
        self.bytes_by_pair: dict[tuple[int, int], Floats] = {}
        if self.links and self.links.changes:
            env.process(self._change(self.links.changes))

    def _change(self, changes: Sequence[tuple[float, Sequence[float]]]) -> Generator[Event]:
        """Let links become slower and faster; what meets a dead one waits for its return."""
        self.transfers.waits = True
        for place, (time_s, capacity) in enumerate(changes):
            yield self.env.timeout(time_s - self.env.now)
            rows = [i for i, (old, new) in enumerate(zip(self.capacity, capacity, strict=True)) if old != new]
            self.capacity = list(capacity)
            self.transfers.waits = place < len(changes) - 1
            self.transfers.set_capacity(rows, [self.capacity[i] * self.left.get(i, 1.0) for i in rows])
        self.transfers.require_alive()

    def send(self, tokens: int, sender: tuple[int, int], receiver: tuple[int, int]) -> Event:
        """Send the KV of some tokens from a rank of an instance to another, first GPU to first GPU.

        The event is its coming.
        """
        service, size_bytes = self.service, tokens * self.service.kv_bytes_per_token
        if self.links is None or service.decode is None:
            return self.transfers.send(size_bytes, [], [], service.transfer_latency_s)
        ends = sender[0], receiver[0]
        flows = self.links.flows(*ends)
        first, decode = sender[1] * service.prefill.gpus_per_rank, service.decode
        pair = (first * decode.num_ranks + receiver[1]) * decode.gpus_per_rank
        self.bytes_by_pair.setdefault(ends, np.zeros(flows.num_flows))[pair] += size_bytes
        own = slice(flows.start[pair], flows.start[pair + 1])
        latency_s = service.transfer_latency_s + float(flows.latency_s[pair])
        return self.transfers.send(
            size_bytes, flows.resource[own].tolist(), flows.line[own].tolist(), latency_s
        )

    def leave_to_kv(self, instance: int, *, prefills: bool, running: bool) -> None:
        """Set the rate that the collectives of an instance, which prefills or decodes, leave to KV."""
        pool = self.service.prefill if prefills else self.service.decode
        if self.links is None or pool is None or not pool.nic_busy_fraction:
            return
        own = (self.links.send if prefills else self.links.receive)[instance]
        left = 1.0 - pool.nic_busy_fraction if running else 1.0
        self.left.update(dict.fromkeys(own, left))
        self.transfers.set_capacity(own, [self.capacity[link] * left for link in own])
