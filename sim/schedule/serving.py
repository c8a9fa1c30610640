"""A serving deployment, and who is served next: descriptions and pure functions of queue state.

A deployment is a pool of prefill instances and a pool of decode instances, or one pool that does both. An instance is
one expert-parallel group whose ranks share attention by request (data parallel): it takes as long as its busiest rank.
Requests are taken to be spread evenly, so its memory for KV is one pool, of which a request can use a rank's part.

A policy looks at a queue in the order of arrival and at the room there is, and answers with the positions to take, in the
order to take them. It changes nothing and knows no clock, so it can be tested with a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sim.schedule.flows import Flows

PrefillCost = Callable[[float], float]
"""Prompt tokens of the busiest rank in a batch -> time of the batch [s]."""
StepCost = Callable[[float, float], float]
"""Requests of the mean rank in a step, a fraction where few run; their mean context [tokens] -> time of the step [s]."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Like instances; all quantities are of one instance.

    Parameters
    ----------
    num_instances : [count]
    kv_capacity_bytes : memory left to KV [bytes]
    nic_busy_fraction : share of the rate of its NICs that its own collectives take while it runs; KV transfers get the rest
    num_ranks : ranks between which its requests are spread [count]
    """

    num_instances: int
    kv_capacity_bytes: float
    nic_busy_fraction: float = 0.0
    num_ranks: int = 1


@dataclass(frozen=True, slots=True)
class KvLinks:
    """Links between the GPUs of two pools.

    Parameters
    ----------
    capacity : float, [num_links] [bytes/s]
    flows : (prefill instance, decode instance) -> Flows of one byte from each rank to each, the last rank fastest
    send, receive : links that the collectives of each instance use too: NICs of prefill, out; of decode, in
    """

    capacity: Sequence[float]
    flows: Callable[[int, int], Flows]
    send: Sequence[Sequence[int]]
    receive: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment and its costs.

    Parameters
    ----------
    prefill : the pool that prefills; without `decode` it decodes too, and a prefill then holds up the decode steps
    decode : the pool that decodes what the first has prefilled, or None
    prefill_s, decode_step_s : see `PrefillCost`, `StepCost`
    kv_bytes_per_token : [bytes]
    batch_tokens : most prompt tokens of a rank in one pass; a longer prompt takes several, in chunks [tokens]
    batch_requests : most prompts of one prefill batch [count]
    max_batch : most requests that one instance decodes at once [count]
    tokens_per_step : tokens that a request gains a step, above 1 with speculation; a mean, not a draw
    cached_fraction : share of every prompt whose KV is found in a cache and not computed
    kv_links : links that KV takes from pool to pool; None where it takes the latency alone
    transfer_latency_s : of one KV transfer, next to that of its way [s]
    own_prefill_s, own_step_s : instance -> its costs, where it has faults of its own
    policy : of `POLICIES`, for every queue
    step_host_s : of a decode step what the device waits for the host, by requests of the mean GPU [s]
    """

    prefill: Pool
    decode: Pool | None
    prefill_s: PrefillCost
    decode_step_s: StepCost
    kv_bytes_per_token: float
    batch_tokens: float = math.inf
    batch_requests: float = math.inf
    max_batch: float = math.inf
    tokens_per_step: float = 1.0
    cached_fraction: float = 0.0
    kv_links: KvLinks | None = None
    transfer_latency_s: float = 0.0
    own_prefill_s: Mapping[int, PrefillCost] = field(default_factory=dict)
    own_step_s: Mapping[int, StepCost] = field(default_factory=dict)
    policy: str = "fcfs"
    step_host_s: Callable[[float], float] = lambda load: 0.0

    def kv_capacity_tokens(self, pool: Pool) -> float:
        """Tokens of KV that one instance holds: a whole number, or infinity."""
        if self.kv_bytes_per_token <= 0 or math.isinf(pool.kv_capacity_bytes):
            return math.inf
        return max(0, math.floor(pool.kv_capacity_bytes / self.kv_bytes_per_token))

    def rank_capacity_tokens(self, pool: Pool) -> float:
        """Tokens of KV that one rank holds: no request can be larger."""
        return self.kv_capacity_tokens(pool) // pool.num_ranks

    def computed_tokens(self, prompt_tokens: int) -> float:
        """Tokens of a prompt that are not found in a cache."""
        return prompt_tokens * (1.0 - self.cached_fraction)

    def batch_s(self, longest_tokens: float, all_tokens: float, instance: int = -1) -> float:
        """Time of a prefill batch, by its longest prompt and the sum of its prompts as computed [s].

        Notes
        -----
        The busiest rank has max(longest, all / ranks) tokens and takes them in passes of `batch_tokens`. The attention
        of a later chunk to the earlier ones is as in one pass of that size.
        """
        tokens = max(longest_tokens, all_tokens / self.prefill.num_ranks)
        cost = self.own_prefill_s.get(instance, self.prefill_s)
        full = max(0, math.ceil(tokens / self.batch_tokens) - 1) if math.isfinite(self.batch_tokens) else 0
        taken_s = full * cost(self.batch_tokens) if full else 0.0
        return taken_s + cost(tokens - full * self.batch_tokens if full else tokens)

    def alone_s(self, prompt_tokens: int) -> float:
        """Prefill of one prompt with nothing next to it [s]: no TTFT is below this."""
        tokens = self.computed_tokens(prompt_tokens)
        return self.batch_s(tokens, tokens)

    def steps(self, output_tokens: int) -> int:
        """Decode steps of a request; prefill has made its first token [count]."""
        return math.ceil((output_tokens - 1) / self.tokens_per_step)


class Waiting(NamedTuple):
    """A request in a queue: its number, the tokens it brings into a batch, the KV it needs [tokens]."""

    request: int
    batch_tokens: float
    kv_tokens: int


class Room(NamedTuple):
    """Room for what is taken now: requests [count], tokens of the batch and of KV [tokens]."""

    requests: float
    batch_tokens: float
    kv_tokens: float


Policy = Callable[[Sequence[Waiting], Room], list[int]]


def fcfs(queue: Sequence[Waiting], room: Room) -> list[int]:
    """The oldest first; the first that does not fit holds up all behind it.

    Parameters
    ----------
    queue : sequence of Waiting
        In the order of arrival.
    room : Room

    Returns
    -------
    list of int
        Positions of the queue to take, in this order.
    """
    return list(_take(enumerate(queue), room, passing=False))


def first_fit(queue: Sequence[Waiting], room: Room) -> list[int]:
    """The oldest first; what does not fit is passed by what does, and may starve.

    Parameters
    ----------
    queue : sequence of Waiting
        In the order of arrival.
    room : Room

    Returns
    -------
    list of int
        Positions of the queue to take, in this order.
    """
    return list(_take(enumerate(queue), room, passing=True))


def shortest_first(queue: Sequence[Waiting], room: Room) -> list[int]:
    """The fewest batch tokens first, the oldest among equals; the first that does not fit holds up the others.

    Parameters
    ----------
    queue : sequence of Waiting
        In the order of arrival.
    room : Room

    Returns
    -------
    list of int
        Positions of the queue to take, in this order.
    """
    ordered = sorted(enumerate(queue), key=lambda entry: entry[1].batch_tokens)
    return list(_take(ordered, room, passing=False))


POLICIES: dict[str, Policy] = {"fcfs": fcfs, "first_fit": first_fit, "shortest_first": shortest_first}


def _take(ordered: Iterable[tuple[int, Waiting]], room: Room, *, passing: bool) -> Iterator[int]:
    """Positions taken greedily. The first may exceed the tokens of a batch: it then goes alone."""
    taken, tokens, kv = 0, 0.0, 0
    for position, waiting in ordered:
        if taken >= room.requests or tokens >= room.batch_tokens:
            return
        fits = kv + waiting.kv_tokens <= room.kv_tokens and (
            taken == 0 or tokens + waiting.batch_tokens <= room.batch_tokens
        )
        if fits:
            taken, tokens, kv = taken + 1, tokens + waiting.batch_tokens, kv + waiting.kv_tokens
            yield position
        elif not passing:
            return


def least_loaded(free_requests: Sequence[float], free_tokens: Sequence[float], kv_tokens: int) -> int | None:
    """The instance with the fewest requests among those with room for one more of `kv_tokens`, or None.

    Parameters
    ----------
    free_requests : sequence of float, [num_instances]
        Requests that each instance may still take [count].
    free_tokens : sequence of float, [num_instances]
        Tokens of KV that it may still hold [tokens].
    kv_tokens : int
        KV of the request [tokens].

    Returns
    -------
    int or None
        The instance; of equal ones that with more free tokens, then the lower index.
    """
    fitting = [
        i
        for i, (requests, tokens) in enumerate(zip(free_requests, free_tokens, strict=True))
        if requests >= 1 and tokens >= kv_tokens
    ]
    return max(fitting, key=lambda i: (free_requests[i], free_tokens[i], -i)) if fitting else None
