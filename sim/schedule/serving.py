"""A serving deployment, and who is served next: descriptions and pure functions of queue state.

A deployment is a pool of prefill instances and a pool of decode instances, or one pool that does both. An instance is a
group of ranks that run every pass together (an expert-parallel group with data-parallel attention; a rank is a GPU, or a
tensor-parallel group of them). Each rank has its own requests, its own memory for their KV, and its own work in a pass.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.schedule.flows import Flows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_DRAWN_AT_ONCE = 2**22  # gains of steps


class PassWork(NamedTuple):
    """Work of one pass of an instance, rank by rank.

    Parameters
    ----------
    chunks : rank -> the new tokens of each prompt in this pass and those before them, in its cache already [tokens]
    requests : int, [num_ranks], that get their next tokens [count]
    context_tokens : float, [num_ranks], in the caches of these, together [tokens]
    """

    chunks: Mapping[int, Sequence[tuple[int, int]]]
    requests: Ints
    context_tokens: Floats

    @property
    def num_ranks(self) -> int:
        """Ranks of the instance [count]."""
        return len(self.requests)

    @property
    def new_tokens(self) -> dict[int, int]:
        """Prompt tokens of the ranks that have any."""
        return {rank: sum(new for new, _ in chunks) for rank, chunks in self.chunks.items()}

    @property
    def busiest_tokens(self) -> int:
        """Prompt tokens of the rank that has most."""
        return max(self.new_tokens.values(), default=0)


PassCost = Callable[[PassWork], float]
"""Work of a pass -> its time [s]."""


@dataclass(frozen=True, slots=True)
class Spell:
    """An instance from one change of its parts to the next.

    Parameters
    ----------
    from_s : instant at which it begins; it ends where the next begins [s]
    prefill_s, decode_step_s : costs of its passes, as of `Service`
    down : a GPU of it is dead: nothing runs, and what it held is gone
    """

    from_s: float
    prefill_s: PassCost
    decode_step_s: PassCost
    down: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """Like instances; all quantities are of one instance.

    Parameters
    ----------
    num_instances : [count]
    kv_capacity_bytes : memory left to KV [bytes]
    nic_busy_fraction : share of the rate of its NICs that its own collectives take while it runs; KV transfers get the rest
    num_ranks : ranks between which its requests are spread [count]
    gpus_per_rank : [count]
    kv_bytes_per_token : of a request on its rank, where layouts make it other than the service's [bytes]
    """

    num_instances: int
    kv_capacity_bytes: float
    nic_busy_fraction: float = 0.0
    num_ranks: int = 1
    gpus_per_rank: int = 1
    kv_bytes_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class KvLinks:
    """Links between the GPUs of two pools.

    Parameters
    ----------
    capacity : float, [num_links] [bytes/s]
    flows : (prefill instance, decode instance) -> Flows of one byte from each GPU to each, the last GPU fastest
    send, receive : links that the collectives of each instance use too: NICs of prefill, out; of decode, in
    changes : instants at which capacities become others, and all of these, [num_links] [s], [bytes/s]
    """

    capacity: Sequence[float]
    flows: Callable[[int, int], Flows]
    send: Sequence[Sequence[int]]
    receive: Sequence[Sequence[int]]
    changes: Sequence[tuple[float, Sequence[float]]] = ()


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """Decisions of the software of an instance.

    Parameters
    ----------
    chunk_tokens : most tokens of a rank in a pass that prefills; a longer prompt takes several passes [tokens]
    mixed : a pass that prefills also gives running requests their next tokens; else it holds these up
    block_tokens : KV is held in whole blocks [tokens]
    preemption : `none` reserves a request's whole KV before it starts. Else it holds what it has, grows, and where a rank
        runs out its latest request is put out: `recompute` computes its KV again later, `swap` moves it over PCIe
    prefix_blocks, prefix_tokens : prompt blocks that a rank keeps for later prompts, and the tokens of one
    routing : how an arrival is bound to a rank (`ROUTINGS`); None where one queue serves all ranks, which take from it
    max_requests : most requests of a rank, prompts that it prefills and requests that it decodes [count]
    batch_requests : most prompts of one pass of an instance [count]
    swap_bytes_per_s : of a rank to its host [bytes/s]
    policy : of `POLICIES`, for every queue
    """

    chunk_tokens: float = math.inf
    mixed: bool = False
    block_tokens: int = 1
    preemption: str = "none"
    prefix_blocks: int = 0
    prefix_tokens: int = 512
    routing: str | None = None
    max_requests: float = math.inf
    batch_requests: float = math.inf
    swap_bytes_per_s: float = math.inf
    policy: str = "fcfs"

    def held_tokens(self, tokens: int) -> int:
        """Tokens in whole blocks."""
        return -(-tokens // self.block_tokens) * self.block_tokens


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment and its costs.

    Parameters
    ----------
    prefill : the pool that prefills; without `decode` it decodes too
    decode : the pool that decodes what the first has prefilled, or None
    prefill_s : of a pass with prompts in it, and in a mixed one with running requests too
    decode_step_s : of a pass with running requests alone
    kv_bytes_per_token : of a request on the rank that prefills it, which moves from there [bytes]
    engine : see `EnginePolicy`
    acceptance : chance that the first, second, ... token speculated in a step is right, given those before it
    seed : of the draws of acceptance
    cached_fraction : share of every prompt whose KV is found in a cache and not computed
    kv_links : links that KV takes from pool to pool; None where it takes the latency alone
    transfer_latency_s : of one KV transfer, next to that of its way [s]
    prefill_spells, decode_spells : instance of a pool -> its spells, the first from 0 on, where it has faults
    step_host_s : of a decode step what the device waits for the host, by requests of the mean rank [s]
    """

    prefill: Pool
    decode: Pool | None
    prefill_s: PassCost
    decode_step_s: PassCost
    kv_bytes_per_token: float
    engine: EnginePolicy = EnginePolicy()
    acceptance: tuple[float, ...] = ()
    seed: int = 0
    cached_fraction: float = 0.0
    kv_links: KvLinks | None = None
    transfer_latency_s: float = 0.0
    prefill_spells: Mapping[int, Sequence[Spell]] = field(default_factory=dict)
    decode_spells: Mapping[int, Sequence[Spell]] = field(default_factory=dict)
    step_host_s: Callable[[float], float] = lambda load: 0.0

    def spells(self, instance: int, *, prefills: bool) -> Sequence[Spell]:
        """Spells of an instance that prefills, or of one that decodes alone."""
        own = (self.prefill_spells if prefills else self.decode_spells).get(instance)
        return own or (Spell(0.0, self.prefill_s, self.decode_step_s),)

    @property
    def changes(self) -> bool:
        """True where parts of it are not what they are for the whole run."""
        spells = (*self.prefill_spells.values(), *self.decode_spells.values())
        return any(len(own) > 1 or own[0].down for own in spells) or bool(
            self.kv_links and self.kv_links.changes
        )

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a request gains a step in the mean: 1 + a1 + a1 a2 + ... [count]."""
        return 1.0 + float(np.cumprod(self.acceptance).sum())

    def held_bytes_per_token(self, pool: Pool) -> float:
        """KV that a rank of a pool holds of a token [bytes]."""
        return self.kv_bytes_per_token if pool.kv_bytes_per_token is None else pool.kv_bytes_per_token

    def rank_capacity_tokens(self, pool: Pool) -> float:
        """Tokens of KV that one rank holds, in whole blocks or infinity: no request can be larger."""
        kv_bytes = self.held_bytes_per_token(pool)
        if kv_bytes <= 0 or math.isinf(pool.kv_capacity_bytes):
            return math.inf
        tokens = math.floor(pool.kv_capacity_bytes / kv_bytes / pool.num_ranks)
        return max(0, tokens - tokens % self.engine.block_tokens)

    def cached_tokens(self, prompt_tokens: int) -> int:
        """Tokens of every prompt that are found in a cache; the last one is always computed."""
        return min(prompt_tokens - 1, round(prompt_tokens * self.cached_fraction))

    def alone_s(self, prompt_tokens: int) -> float:
        """Prefill of one prompt with nothing next to it [s]."""
        done, taken_s = self.cached_tokens(prompt_tokens), 0.0
        none = np.zeros(self.prefill.num_ranks, dtype=np.int64), np.zeros(self.prefill.num_ranks)
        while done < prompt_tokens:
            new = int(min(self.engine.chunk_tokens, prompt_tokens - done))
            taken_s += self.prefill_s(PassWork({0: [(new, done)]}, *none))
            done += new
        return taken_s


def draw_steps(output_tokens: Ints, acceptance: Sequence[float], rng: np.random.Generator) -> Ints:
    """Draw the decode steps that requests take; prefill has made their first token.

    Parameters
    ----------
    output_tokens : int, [num_requests] [tokens]
    acceptance : sequence of float
        Chance that the first, second, ... speculated token is right, given those before it.
    rng : numpy.random.Generator

    Returns
    -------
    int, [num_requests] [count]

    Notes
    -----
    A step gives 1 + j tokens with j the number of speculated ones right in a row, drawn for every step of every request.
    """
    later = np.asarray(output_tokens, dtype=np.int64) - 1
    if not acceptance or not len(later):
        return later
    chances = np.cumprod(acceptance)
    steps, order, first = np.zeros_like(later), np.argsort(later, kind="stable"), 0
    while first < len(order):
        longest = int(later[order[min(len(order), first + 4096) - 1]])
        rows = order[first : first + max(1, min(4096, _DRAWN_AT_ONCE // max(1, longest)))]
        longest = int(later[rows[-1]])
        drawn = rng.random((len(rows), longest), dtype=np.float32)
        gained = np.ones(drawn.shape, dtype=np.int16)
        for chance in chances:
            gained += drawn < chance
        have = np.cumsum(gained, axis=1, dtype=np.int32)
        steps[rows] = (have < later[rows, None]).sum(axis=1) + (later[rows] > 0)
        first += len(rows)
    return steps


# --- queues --------------------------------------------------------------------------------------------------------


class Waiting(NamedTuple):
    """A request in a queue: its tokens to compute, and its number, or where it is first in line a negative one."""

    tokens: int
    order: int
    request: int


class WaitingLine:
    """Requests that wait, in the order in which a policy looks at them.

    `fcfs`: the oldest first; the first that does not fit holds up all behind it. `first_fit`: what does not fit is passed by
    what does, and may starve. `shortest_first`: the fewest tokens first, the oldest among equals; none is passed.
    """

    def __init__(self, policy: str) -> None:
        self.by_tokens, self.passing = policy == "shortest_first", policy == "first_fit"
        self.sorted: list[Waiting] = []
        self.line: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self.sorted) + len(self.line)

    def push(self, waiting: Waiting, *, first: bool = False) -> None:
        """Put a request at the end, or `first` in line."""
        if self.by_tokens:
            insort(self.sorted, waiting)
        elif first:
            self.line.appendleft(waiting)
        else:
            self.line.append(waiting)

    def drop(self, is_out: Callable[[Waiting], bool] = lambda waiting: True) -> list[Waiting]:
        """Take those out for whom something is true, wherever they are in line."""
        rows: list[Waiting] | deque[Waiting] = self.sorted if self.by_tokens else self.line
        out = [waiting for waiting in rows if is_out(waiting)]
        for waiting in out:
            rows.remove(waiting)
        return out

    def has(self, fits: Callable[[Waiting], bool]) -> bool:
        """True where someone may be taken."""
        rows: list[Waiting] | deque[Waiting] = self.sorted if self.by_tokens else self.line
        return any(map(fits, rows)) if self.passing else len(rows) > 0 and fits(rows[0])

    def take(self, fits: Callable[[Waiting], bool]) -> Iterator[Waiting]:
        """Take requests one after the other, as long as they fit what is then left."""
        if not self.by_tokens and not self.passing:
            while self.line and fits(self.line[0]):
                yield self.line.popleft()
            return
        rows: list[Waiting] | deque[Waiting] = self.sorted if self.by_tokens else self.line
        place = 0
        while place < len(rows):
            if fits(rows[place]):
                waiting = rows[place]
                del rows[place]
                yield waiting
            elif self.passing:
                place += 1
            else:
                return


POLICIES = ("fcfs", "first_fit", "shortest_first")
ROUTINGS = ("round_robin", "shortest_queue", "cache_aware")
