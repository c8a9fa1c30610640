"""An instance at work: what its ranks hold, prefill and decode, and what it has done."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from simpy import Environment
from simpy.events import Event

from sim.engine.prefix_cache import PrefixCache
from sim.schedule.serving import EnginePolicy, PassWork, Pool, Spell, WaitingLine

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """Passes of one instance, in order, [num_passes]: prompt tokens and running requests in each, and KV held over its life."""

    start_s: Floats
    end_s: Floats
    prompt_tokens: Ints
    requests: Ints
    stays: Ints
    """Request, first step and the step after the last, of every stay in the steps, [num_stays, 3]."""
    peak_kv_tokens: float
    mean_kv_tokens: float
    kv_capacity_tokens: float
    down_s: float = 0.0
    """Time in which a GPU of it was dead [s]."""

    @property
    def prefills(self) -> NDArray[np.bool_]:
        """Passes with prompts in them."""
        return self.prompt_tokens > 0

    @property
    def steps(self) -> NDArray[np.bool_]:
        """Passes that give running requests their next tokens."""
        return self.requests > 0


@dataclass(slots=True, eq=False)
class Job:
    """A prompt on a rank: tokens in its cache, those that are to be there, and KV held for it."""

    request: int
    rank: int
    done: int
    tokens: int
    held: int


@dataclass(slots=True, eq=False)
class Running:
    """A request that decodes: its rank, step at which it joined, tokens in its cache then, and steps it still had to go."""

    request: int
    rank: int
    joined: int
    tokens: int
    steps: int
    rate: float
    held: int

    def tokens_after(self, step: int) -> int:
        """Tokens in its cache when so many steps of the instance have been."""
        return self.tokens + math.ceil((step - self.joined) * self.rate - 1e-9)


class Instance:
    """State of one instance; all arrays are [num_ranks]."""

    def __init__(
        self,
        index: int,
        pool: Pool,
        engine: EnginePolicy,
        rank_capacity: float,
        roles: str,
        spells: Sequence[Spell],
    ) -> None:
        ranks = pool.num_ranks
        self.spells = spells
        self.index, self.pool, self.engine = index, pool, engine
        self.prefills, self.decodes = "prefill" in roles, "decode" in roles
        self.rank_capacity = rank_capacity
        self.free = np.full(ranks, rank_capacity)
        self.seats = engine.max_requests if self.decodes else math.inf
        self.seated, self.num_seated = np.zeros(ranks), 0
        self.waiting: defaultdict[int, WaitingLine] = defaultdict(lambda: WaitingLine(engine.policy))
        self.jobs: dict[int, deque[Job]] = {}
        self.caches = [PrefixCache(engine.prefix_blocks) for _ in range(ranks if engine.prefix_blocks else 0)]
        self.requests = np.zeros(ranks, dtype=np.int64)
        self.base, self.rate = np.zeros(ranks), np.zeros(ranks)  # tokens of context = base + rate x steps
        self.running: list[dict[int, Running]] = [{} for _ in range(ranks)]
        self.num_running = self.step = 0
        self.joining: list[Running] = []
        self.leaving: defaultdict[int, list[Running]] = defaultdict(list)
        self.growing: defaultdict[int, list[Running]] = defaultdict(list)
        self.swapped: list[Running] = []
        self.num_swapped = np.zeros(ranks)
        self.swap_bytes: defaultdict[int, float] = defaultdict(float)
        self.rows = array("d")  # start, end, prompt tokens and requests of each pass in turn
        self.stays = array("q")
        self.wake: Event | None = None
        self.dying: Event | None = None  # of a pass under way that the instance will not survive
        self.is_down, self.num_failures = False, 0
        self.down_s = self.failed_s = 0.0
        self.used = self.peak = 0
        self.area = self.since_s = 0.0

    def call(self) -> None:
        """Wake the instance where it has nothing to do."""
        if self.wake is not None:
            self.wake.succeed()
            self.wake = None

    def dies(self, env: Environment) -> Event:
        """The failure that comes before a pass has ended."""
        self.dying = env.event()
        return self.dying

    def fail(self) -> None:
        """Lose the pass under way."""
        self.num_failures += 1
        if self.dying is not None:
            self.dying.succeed()
            self.dying = None

    # --- memory ----------------------------------------------------------------------------------------------------

    def take(self, rank: int, tokens: int, now: float) -> None:
        """Hold KV on a rank."""
        self._hold(rank, tokens, now)
        assert self.free[rank] >= 0, "KV beyond the memory of a rank"
        self.peak = max(self.peak, self.used)

    def give(self, rank: int, tokens: int, now: float) -> None:
        """Let KV of a rank go."""
        self._hold(rank, -tokens, now)

    def _hold(self, rank: int, tokens: int, now: float) -> None:
        self.area += self.used * (now - self.since_s)
        self.since_s = now
        self.used += tokens
        self.free[rank] -= tokens

    # --- prompts ---------------------------------------------------------------------------------------------------

    def rank_with_room(self, tokens: int, taken: Floats | None = None) -> int:
        """Rank that can hold so much more KV and one more request; -1 without.

        Of several it is the one with the fewest tokens `taken` of a pass, else with the fewest requests, then the first.
        """
        if self.is_down:
            return -1
        fits = (self.free >= tokens) & (self.seated < self.seats) & (self.num_swapped == 0)
        if taken is not None:
            fits &= taken < self.engine.chunk_tokens
        if not fits.any():
            return -1
        return int(np.where(fits, self.seated if taken is None else taken, math.inf).argmin())

    def has_room(self, rank: int, tokens: int) -> bool:
        """True where a rank can hold so much more KV and one more request."""
        return bool(
            not self.is_down
            and self.free[rank] >= tokens
            and self.seated[rank] < self.seats
            and not self.num_swapped[rank]
        )

    @property
    def num_waiting(self) -> int:
        """Requests that wait for ranks of this instance alone."""
        return sum(map(len, self.waiting.values()))

    def sit(self, rank: int, change: int = 1) -> None:
        """Give a request a seat on a rank, or take it back."""
        self.seated[rank] += change
        self.num_seated += change

    # --- running requests ------------------------------------------------------------------------------------------

    def join(self, run: Running) -> None:
        """Let a request take part in the steps from the next one on."""
        run.joined = self.step
        self.running[run.rank][run.request] = run
        self.requests[run.rank] += 1
        self.num_running += 1
        self.base[run.rank] += run.tokens - run.rate * self.step
        self.rate[run.rank] += run.rate
        self.leaving[self.step + run.steps].append(run)
        self.grow_later(run)

    def leave(self, run: Running) -> None:
        """Take a request out of the steps."""
        rank = run.rank
        self.stays.extend((run.request, run.joined, self.step))
        del self.running[rank][run.request]
        self.requests[rank] -= 1
        self.num_running -= 1
        if self.requests[rank]:
            self.base[rank] -= run.tokens - run.rate * run.joined
            self.rate[rank] -= run.rate
        else:
            self.base[rank] = self.rate[rank] = 0.0

    def is_running(self, run: Running) -> bool:
        """True where this stay of the request has not ended."""
        return self.running[run.rank].get(run.request) is run

    def grow_later(self, run: Running) -> None:
        """File a request under the step that needs more KV than is held for it."""
        if self.engine.preemption != "none":
            step = run.joined + math.floor((run.held - run.tokens) / run.rate + 1e-9)
            self.growing[max(step, self.step)].append(run)

    def grown(self, run: Running, now: float) -> bool:
        """Hold the blocks that the next step of a request needs; False where its rank has none left."""
        more = max(0, self.engine.held_tokens(run.tokens_after(self.step + 1)) - run.held)
        if more > self.free[run.rank]:
            return False
        self.take(run.rank, more, now)
        run.held += more
        self.grow_later(run)
        return True

    # --- host memory -----------------------------------------------------------------------------------------------

    def swap_out(self, run: Running, kv_bytes_per_token: float) -> None:
        """Send the KV of a request that has left the steps to the host."""
        self.swapped.append(run)
        self.num_swapped[run.rank] += 1
        self.swap_bytes[run.rank] += (run.tokens - 1) * kv_bytes_per_token

    def swapped_in(self, kv_bytes_per_token: float, now: float) -> list[Running]:
        """Bring back requests whose rank has room for them and their next step, the first that went first."""
        back: list[Running] = []
        full: set[int] = set()
        for run in self.swapped:
            held = self.engine.held_tokens(run.tokens_after(run.joined + 1))
            if run.rank in full or held > self.free[run.rank]:
                full.add(run.rank)
                continue
            self.take(run.rank, held, now)
            run.held = held
            self.num_swapped[run.rank] -= 1
            self.swap_bytes[run.rank] += (run.tokens - 1) * kv_bytes_per_token
            back.append(run)
        if back:
            self.swapped = [run for run in self.swapped if run not in back]
        return back

    def step_work(self, chunks: dict[int, list[tuple[int, int]]] | None = None) -> PassWork:
        """Work of the next step."""
        return PassWork(chunks or {}, self.requests, self.base + self.rate * self.step)

    def record(self, now: float) -> InstanceRecord:
        """Record of its passes and of the KV that it held."""
        rows = np.array(self.rows, dtype=np.float64).reshape(-1, 4)
        still = [(run.request, run.joined, self.step) for line in self.running for run in line.values()]
        stays = np.array(self.stays, dtype=np.int64).reshape(-1, 3)
        finite = math.isfinite(self.rank_capacity)
        mean = (self.area + self.used * (now - self.since_s)) / now if now > 0 else 0.0
        return InstanceRecord(
            rows[:, 0],
            rows[:, 1],
            rows[:, 2].astype(np.int64),
            rows[:, 3].astype(np.int64),
            np.concatenate([stays, np.array(still, dtype=np.int64).reshape(-1, 3)]),
            float(self.peak) if finite else math.nan,
            mean if finite else math.nan,
            self.rank_capacity * self.pool.num_ranks,
            self.down_s + (now - self.failed_s if self.is_down else 0.0),
        )
