"""Zero-bubble orders: where to put forwards, input backwards and weight backwards so that ranks rarely wait.

The weight part of a backward is waited for by nobody but the optimizer, so it can fill gaps. The search
follows the heuristic that arXiv 2401.10241, section 3.1, describes in words:

1. Warm-up: forwards until the first gradient comes back, as far as memory allows. A last forward that would
   end after the gradient arrives is worth it or not: both are tried. A rank stays at least one forward ahead
   of the next rank.
2. Then a forward and an input backward in turns. A gap that holds a weight part gets one; so does a smaller
   gap where leaving it open would make this rank the one that has idled most. A weight part also makes room
   where memory is full.
3. When forwards and input backwards have run out, the weight parts that are left.

Memory is counted as in the authors' code (sail-sg/zero-bubble-pipeline-parallelism @39f2c18): the input
backward frees half of what a forward keeps, the weight part the other half.

Why this way: hand-made orders are made for equal parts. The search gives ZB1P its closed form for any parts,
(p - 1)(B_in + F - W) while W <= F, and ZB2P none for equal parts and some for others.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FREED_BY_INPUT_PART = 0.5
"""Share of what a forward keeps that its input backward lets go [fraction]; its weight part the rest."""
LOOK_BACK_TURNS = 512
"""Turns within which a search looks for a state that comes again; all seen so far comes within 300."""


def zero_bubble_order(
    num_ranks: int, num_microbatches: int, max_live: int, durations: tuple[float, float, float]
) -> tuple[str, ...]:
    """The order of each rank, as letters: F, B (input part), W.

    Parameters
    ----------
    num_ranks, num_microbatches : int [count]
    max_live : int [microbatches]
        Most activations a rank may keep: as many as ranks for ZB1P, twice that for ZB2P.
    durations : tuple of float [any one unit]
        Of F, B_in and W, equal on all ranks.

    Returns
    -------
    tuple of str, [num_ranks]

    References
    ----------
    Qi et al., Zero Bubble Pipeline Parallelism, arXiv 2401.10241, section 3.1.
    """
    tried = [_search(num_ranks, num_microbatches, max_live, durations, late) for late in (False, True)]
    return min(tried, key=lambda outcome: outcome[0])[1]


@dataclass(slots=True)
class _Rank:
    """One rank while its order is searched; times in the unit of the durations."""

    letters: list[str] = field(default_factory=list)
    clock: float = 0.0
    idle: float = 0.0  # since its first operation
    live: float = 0.0  # activations kept
    forwards: int = 0
    weights: int = 0  # input parts whose weight parts are left
    activations: deque[float] = field(default_factory=deque)  # when those not yet taken came
    gradients: deque[float] = field(default_factory=deque)


class _Search:
    """All ranks next to each other, turn by turn: in each a forward and an input backward of every rank."""

    def __init__(
        self, num_ranks: int, num_microbatches: int, max_live: int, durations: tuple[float, float, float]
    ) -> None:
        self.ranks = [_Rank() for _ in range(num_ranks)]
        self.num_microbatches, self.max_live = num_microbatches, max_live
        self.f, self.b, self.w = durations
        # Times are sums of three numbers taken in different orders: equal ones differ by rounding only.
        self.tiny = 1e-9 * sum(durations)
        self.worst = 0.0  # idle time of the rank that has idled most

    def put_forward(self, r: int) -> None:
        rank, last = self.ranks[r], len(self.ranks) - 1
        end = self._put("F", rank, rank.activations.popleft() if r else 0.0, self.f)
        rank.forwards += 1
        rank.live += 1.0
        if r < last:
            self.ranks[r + 1].activations.append(end)
        else:
            rank.gradients.append(end)

    def put_backward(self, r: int) -> None:
        rank = self.ranks[r]
        end = self._put("B", rank, rank.gradients.popleft(), self.b)
        rank.live -= FREED_BY_INPUT_PART
        rank.weights += 1
        if r:
            self.ranks[r - 1].gradients.append(end)

    def put_weight(self, rank: _Rank) -> None:
        self._put("W", rank, rank.clock, self.w)
        rank.live -= 1 - FREED_BY_INPUT_PART
        rank.weights -= 1

    def _put(self, letter: str, rank: _Rank, ready: float, takes: float) -> float:
        if ready > rank.clock:
            if rank.letters:
                rank.idle += ready - rank.clock
                self.worst = max(self.worst, rank.idle)
            rank.clock = ready
        rank.clock += takes
        rank.letters.append(letter)
        return rank.clock

    def fill_gap_before(self, rank: _Rank, ready: float) -> None:
        """Weight parts where they fit, or where waiting would make this rank the one that has idled most."""
        while rank.weights:
            gap = ready - rank.clock
            holds_one = gap >= self.w - self.tiny
            is_worst = gap > self.tiny and rank.idle + gap > self.worst + self.tiny
            if not (holds_one or is_worst):
                return
            self.put_weight(rank)

    def forward_turn(self) -> None:
        """One forward of each rank that has an input, room made for it first."""
        for r, rank in enumerate(self.ranks):
            if rank.activations if r else rank.forwards < self.num_microbatches:
                while rank.live + 1 > self.max_live + self.tiny and rank.weights:
                    self.put_weight(rank)
                self.fill_gap_before(rank, rank.activations[0] if r else 0.0)
                self.put_forward(r)

    def backward_turn(self) -> None:
        """One input backward of each rank, the last one first."""
        for r in range(len(self.ranks) - 1, -1, -1):
            rank = self.ranks[r]
            self.fill_gap_before(rank, rank.gradients[0])
            self.put_backward(r)

    def state(self) -> tuple[object, ...]:
        """All that decides what follows, apart from the forwards that are left: times relative to the first rank's."""
        zero, tiny = self.ranks[0].clock, self.tiny
        return tuple(
            (
                rank.live,
                rank.weights,
                round((rank.idle - self.worst) / tiny),
                *(round((time - zero) / tiny) for time in (rank.clock, *rank.activations, *rank.gradients)),
                len(rank.gradients),
            )
            for rank in self.ranks
        )

    def mark(self) -> _Mark:
        """Note where all ranks stand, to `repeat` from."""
        first = self.ranks[0]
        return _Mark(first.clock, first.idle, tuple(len(rank.letters) for rank in self.ranks))

    def repeat(self, since: _Mark, times: int) -> None:
        """Do what was done since a mark as often again; all ranks went on and idled equally long since then."""
        past, idled = (
            times * (self.ranks[0].clock - since.clock),
            times * (self.ranks[0].idle - since.idle),
        )
        for rank, length in zip(self.ranks, since.lengths, strict=True):
            done = rank.letters[length:]
            rank.letters += done * times
            rank.forwards += done.count("F") * times
            rank.clock += past
            rank.idle += idled
            for waiting in (rank.activations, rank.gradients):
                waiting.extend([waiting.popleft() + past for _ in range(len(waiting))])
        self.worst += idled


@dataclass(frozen=True, slots=True)
class _Mark:
    """A moment of a search: clock and idle time of the first rank, letters of each."""

    clock: float
    idle: float
    lengths: tuple[int, ...]


def _search(
    num_ranks: int,
    num_microbatches: int,
    max_live: int,
    durations: tuple[float, float, float],
    late_forward: bool,
) -> tuple[float, tuple[str, ...]]:
    """The largest idle time of a rank between its first and its last operation, and the orders.

    Once every rank stands to the others as it stood some turns before, these turns come again and again until the
    forwards run out: they are copied, so that thousands of microbatches cost what some dozens do.
    """
    search = _Search(num_ranks, num_microbatches, max_live, durations)
    for r in range(num_ranks):
        search.put_forward(r)
    cost = dict(zip("FBW", durations, strict=True))
    extra = _warm_up(num_ranks, num_microbatches, max_live, cost, late_forward, search.tiny)
    for r in range(num_ranks):
        for _ in range(extra[r]):
            search.put_forward(r)
    search.backward_turn()
    turn = 1
    seen: dict[object, tuple[int, _Mark]] = {}
    while turn < num_microbatches:
        if turn <= LOOK_BACK_TURNS:
            then, mark = seen.setdefault(search.state(), (turn, search.mark()))
            left = num_microbatches - search.ranks[0].forwards
            if times := left // (turn - then) if then < turn else 0:
                search.repeat(mark, times)
                turn += (turn - then) * times
                continue
        search.forward_turn()
        search.backward_turn()
        turn += 1
    for rank in search.ranks:
        while rank.weights:
            search.put_weight(rank)
    return search.worst, tuple("".join(rank.letters) for rank in search.ranks)


def _warm_up(
    num_ranks: int,
    num_microbatches: int,
    max_live: int,
    cost: dict[str, float],
    late_forward: bool,
    tiny: float,
) -> list[int]:
    """Forwards of each rank after its first and before its first backward."""
    extra = [0] * num_ranks
    gradient = num_ranks * cost["F"] + cost["B"]
    for rank in range(num_ranks - 2, -1, -1):
        clock = (rank + 1) * cost["F"]
        while extra[rank] + 2 <= min(max_live, num_microbatches):
            on_time = clock < gradient - tiny if late_forward else clock + cost["F"] <= gradient + tiny
            if not on_time:
                break
            extra[rank] += 1
            clock += cost["F"]
        gradient = max(clock, gradient) + cost["B"]
    for rank in range(1, num_ranks):
        if extra[rank] + 1 < num_microbatches:
            extra[rank] = max(0, min(extra[rank], extra[rank - 1] - 1))
    return extra
