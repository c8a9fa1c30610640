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

FREED_BY_INPUT_PART = 0.5
"""Share of what a forward keeps that its input backward lets go [fraction]; its weight part the rest."""


def zero_bubble_order(
    num_ranks: int, num_microbatches: int, max_live: int, durations: tuple[float, float, float]
) -> tuple[str, ...]:
    """The order of each rank, as letters: F, B (input part), W.

    Parameters
    ----------
    max_live : int [microbatches]
        Most activations a rank may keep: as many as ranks for ZB1P, twice that for ZB2P.
    durations : tuple of float [any one unit]
        Of F, B_in and W, equal on all ranks.
    """
    tried = [_search(num_ranks, num_microbatches, max_live, durations, late) for late in (False, True)]
    return min(tried, key=lambda found: found[0])[1]


def _search(
    num_ranks: int,
    num_microbatches: int,
    max_live: int,
    durations: tuple[float, float, float],
    late_forward: bool,
) -> tuple[float, tuple[str, ...]]:
    """The largest idle time of a rank between its first and its last operation, and the orders."""
    cost = dict(zip("FBW", durations, strict=True))
    # Times are sums of three numbers taken in different orders: equal ones differ by rounding only.
    tiny = 1e-9 * sum(durations)
    ranks, last_rank = range(num_ranks), num_ranks - 1
    orders = ["" for _ in ranks]
    count = [dict.fromkeys("FBW", 0) for _ in ranks]
    end: dict[str, list[list[float]]] = {letter: [[] for _ in ranks] for letter in "FBW"}
    clock, idle, live = [0.0] * num_ranks, [0.0] * num_ranks, [0.0] * num_ranks
    frees = {"F": -1.0, "B": FREED_BY_INPUT_PART, "W": 1 - FREED_BY_INPUT_PART}

    def ready(letter: str, rank: int) -> float:
        """When the next operation of this kind has its input."""
        k = count[rank][letter]
        if letter == "F":
            return end["F"][rank - 1][k] if rank else 0.0
        return end["B"][rank + 1][k] if rank < last_rank else end["F"][rank][k]

    def put(letter: str, rank: int) -> None:
        start = clock[rank] if letter == "W" else max(clock[rank], ready(letter, rank))
        if orders[rank]:
            idle[rank] += start - clock[rank]
        clock[rank] = start + cost[letter]
        end[letter][rank].append(clock[rank])
        count[rank][letter] += 1
        live[rank] -= frees[letter]
        orders[rank] += letter

    def has_weights(rank: int) -> bool:
        return count[rank]["W"] < count[rank]["B"]

    def fill_gap_before(letter: str, rank: int) -> None:
        while has_weights(rank):
            gap = ready(letter, rank) - clock[rank]
            holds_one = gap >= cost["W"] - tiny
            is_worst = gap > tiny and idle[rank] + gap > max(idle) + tiny
            if not (holds_one or is_worst):
                return
            put("W", rank)

    for rank in ranks:
        put("F", rank)
    extra = _warm_up(num_ranks, num_microbatches, max_live, cost, late_forward, tiny)
    for rank in ranks:
        for _ in range(extra[rank]):
            put("F", rank)
    for turn in range(num_microbatches):
        for rank in ranks if turn else ():
            available = count[rank - 1]["F"] if rank else num_microbatches
            if count[rank]["F"] == available:
                continue
            while live[rank] + 1 > max_live + tiny and has_weights(rank):
                put("W", rank)
            fill_gap_before("F", rank)
            put("F", rank)
        for rank in reversed(ranks):
            fill_gap_before("B", rank)
            put("B", rank)
    for rank in ranks:
        while has_weights(rank):
            put("W", rank)
    return max(idle), tuple(orders)


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
