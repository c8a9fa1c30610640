"""Documents of unequal length packed into the sequences of a training step: drawn, placed, and dealt to ranks and microbatches.

With attention masked by document a token attends to those before it in its own document alone, so that the core of a
microbatch costs the sum of its documents' squares, while all else costs what its tokens cost. Microbatches of equally many tokens
are then unlike, and those who meet wait: ranks of an EP group in each all-to-all, stages of a pipeline, all ranks at the end.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.workload.attention import mean_context_tokens
from sim.workload.requests import Lengths

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Fit = Literal["cut", "first_fit"]
Balance = Literal["none", "sorted", "repacked", "even"]


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Documents of each microbatch of a step, or the parts of them that each rank of CP has.

    Parameters
    ----------
    queries, before : int, [num_parts] [tokens]
        Tokens of a part, and those of the same document before it.
    place : int, [num_parts]
        Microbatch that holds it, counted over `shape`.
    shape : (int, int, int)
        Data-parallel ranks, ranks of CP (1 where these share each document evenly) and microbatches.
    tokens : int [tokens]
        Of one microbatch, those of all ranks of CP.
    even : bool
        Each microbatch is taken to cost what the mean one does.
    """

    queries: Ints
    before: Ints
    place: Ints
    shape: tuple[int, int, int]
    tokens: int
    even: bool = False

    def counted(self, count: Callable[[int, int], float]) -> Floats:
        """Evaluate a function of queries and tokens before them for every part, once for all that are alike, [num_parts]."""
        size = int(self.before.max(initial=0)) + 1
        alike, which = np.unique(self.queries * size + self.before, return_inverse=True)
        return np.array([count(*divmod(pair, size)) for pair in alike.tolist()], dtype=np.float64)[which]

    def summed(self, values: Floats) -> Floats:
        """Sum the values of parts by rank and microbatch, `shape`.

        A rank of CP is counted as if all had what it has, since launches take one part in CP of a microbatch's work.
        """
        return _sums(self.place, values, self.shape) * self.shape[1]

    def largest(self, values: Floats) -> Floats:
        """Greatest value of the parts of each rank and microbatch, 0 where it has none, `shape`."""
        most = np.zeros(math.prod(self.shape))
        np.maximum.at(most, self.place, values)
        return most.reshape(self.shape)

    def attended_tokens(self, window: float | None, chunk: float | None) -> Floats:
        """Mean number of tokens that a query of each rank and microbatch attends to, as of `mean_context_tokens`, `shape`."""

        def seen(tokens: int) -> float:
            return tokens * mean_context_tokens(tokens, True, window, None)

        parts = self.chunked(chunk)
        return (
            parts.summed(parts.counted(lambda own, before: seen(before + own) - seen(before))) / self.tokens
        )

    def chunked(self, chunk: float | None) -> Documents:
        """The same documents where attention stays within chunks, each of which is a document then."""
        return self if chunk is None else _chunked(self, int(chunk))


@lru_cache(maxsize=16)
def _chunked(documents: Documents, chunk: int) -> Documents:
    first, last = documents.before // chunk, -(-(documents.before + documents.queries) // chunk)
    times = last - first
    which = np.repeat(np.arange(len(times)), times)
    number = np.arange(len(which)) - np.repeat(np.cumsum(times) - times, times) + first[which]
    start = np.maximum(documents.before[which], number * chunk)
    end = np.minimum((documents.before + documents.queries)[which], (number + 1) * chunk)
    return Documents(
        end - start,
        start - number * chunk,
        documents.place[which],
        documents.shape,
        documents.tokens,
        documents.even,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Documents of a step in their places.

    Parameters
    ----------
    lengths : int, [num_documents] [tokens]
        Of what attends within itself, after documents have been cut.
    place : int, [num_documents]
        Microbatch, counted over `shape`.
    offset : int, [num_documents] [tokens]
        Begin in its microbatch.
    shape : (int, int)
        Data-parallel ranks and microbatches.
    sequence_tokens, sequences : int
        Tokens of a sequence, and sequences of a microbatch.
    even : bool
        Each microbatch is taken to cost what the mean one does.
    """

    lengths: Ints
    place: Ints
    offset: Ints
    shape: tuple[int, int]
    sequence_tokens: int
    sequences: int
    even: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of documents [count]; the others of a step are padding."""
        return int(self.lengths.sum())

    @property
    def whole(self) -> bool:
        """True where each sequence is one document."""
        return bool((self.lengths == self.sequence_tokens).all())

    @property
    def squares(self) -> Floats:
        """Sum over the documents of each microbatch of the square of their lengths, `shape`."""
        return _sums(self.place, self.lengths.astype(np.float64) ** 2, self.shape)

    def facts(self) -> dict[str, float]:
        """Count documents, padding, and attention: over that of unbroken sequences, and the most over the mean."""
        squares, (ranks, microbatches) = self.squares, self.shape
        of_rank = squares.sum(axis=1)
        all_tokens = ranks * microbatches * self.sequences * self.sequence_tokens
        return {
            "documents": len(self.lengths),
            "padding_fraction": 1.0 - self.tokens / all_tokens,
            "attention_fraction": float(squares.sum()) / (float(all_tokens) * self.sequence_tokens),
            "max_over_mean_microbatch": 1.0 if self.even else float(squares.max() / squares.mean()),
            "max_over_mean_rank": 1.0 if self.even else float(of_rank.max() / of_rank.mean()),
        }

    def per_token(self, flops: Callable[[int], float]) -> float:
        """Mean over the tokens of documents of a function of their document's length."""
        alike, often = np.unique(self.lengths, return_counts=True)
        weights = alike * often / self.tokens
        return sum(
            float(weight) * flops(length)
            for length, weight in zip(alike.tolist(), weights.tolist(), strict=True)
        )

    def documents(self, parts: int = 1) -> Documents:
        """Documents as attention sees them.

        With `parts` above 1 each sequence is cut in twice as many, of which a rank of CP has one from each end; else ranks of CP
        share each document evenly.
        """
        (ranks, microbatches), tokens = self.shape, self.sequences * self.sequence_tokens
        if parts == 1:
            none = np.zeros_like(self.lengths)
            return Documents(self.lengths, none, self.place, (ranks, 1, microbatches), tokens, self.even)
        size = self.sequence_tokens // (2 * parts)
        begin, end = self.offset // size, -(-(self.offset + self.lengths) // size)
        which = np.repeat(np.arange(len(begin)), end - begin)
        piece = (
            np.arange(len(which))
            - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
            + begin[which]
        )
        start = np.maximum(self.offset[which], piece * size)
        stop = np.minimum((self.offset + self.lengths)[which], (piece + 1) * size)
        owner = piece % (2 * parts)
        owner = np.minimum(owner, 2 * parts - 1 - owner)
        rank, microbatch = np.divmod(self.place[which], microbatches)
        place = (rank * parts + owner) * microbatches + microbatch
        shape = (ranks, parts, microbatches)
        return Documents(stop - start, start - self.offset[which], place, shape, tokens, self.even)


def documents_of(lengths: Lengths | Ints, tokens: int, rng: np.random.Generator) -> Ints:
    """Take documents until they hold so many tokens; the last one is cut.

    Recorded lengths are taken in their order, and from the first again.
    """
    if isinstance(lengths, Lengths):
        drawn, total = [np.zeros(0, dtype=np.int64)], 0
        while total < tokens:
            drawn.append(lengths.draw(int((tokens - total) / lengths.mean_tokens) + 16, rng))
            total += int(drawn[-1].sum())
        every = np.concatenate(drawn)
    else:
        every = np.tile(lengths, -(-tokens // int(lengths.sum())))
    ends = np.minimum(np.cumsum(every), tokens)
    return np.diff(ends[: int(np.searchsorted(ends, tokens)) + 1], prepend=0)


def packed(
    lengths: Lengths | Ints,
    *,
    ranks: int,
    microbatches: int,
    sequences: int,
    sequence_tokens: int,
    fit: Fit,
    balance: Balance,
    rng: np.random.Generator,
    once: bool = False,
) -> Packed:
    """Pack the documents of a step.

    Parameters
    ----------
    lengths : Lengths, or int [num_recorded] [tokens]
        Distribution of documents, or those that were recorded.
    ranks, microbatches, sequences : int [count]
        Data-parallel ranks, microbatches of each, and sequences of a microbatch.
    sequence_tokens : int [tokens]
    fit : str
        cut: documents follow one another, and what reaches over the end of a sequence is a document of its own in the next.
        first_fit: a document is placed whole in the first sequence that has room, one that finds none is left for another step;
        what is longer than a sequence is cut before.
    balance : str
        none: sequences are dealt to ranks in turn. sorted: those of the step are sorted by attention first, so that ranks have alike
        ones at the same time, the heaviest for the rank that has had least. repacked: documents of the step are placed again, the longest first, each
        where least attention is and room for it, cut where there is none; then sorted. even: as none, each taken for the mean one.
    rng : numpy.random.Generator
    once : bool
        The recorded lengths are all that the step has; else as many are taken as fill it.

    Returns
    -------
    Packed
    """
    num = ranks * microbatches * sequences
    if once:
        assert not isinstance(lengths, Lengths)
        drawn = lengths
    else:
        drawn = documents_of(lengths, num * sequence_tokens, rng)
    if fit == "cut" and balance != "repacked":
        pieces, sequence = _cut(drawn, sequence_tokens)
        pieces, sequence = pieces[sequence < num], sequence[sequence < num]
    else:
        pieces = _within(drawn, sequence_tokens)
        sequence = _first_fit(pieces, num, sequence_tokens) if fit == "first_fit" else np.zeros_like(pieces)
        pieces, sequence = pieces[sequence >= 0], sequence[sequence >= 0]
        if balance == "repacked":
            pieces, sequence = _repacked(pieces, num, sequence_tokens)
    squares = _sums(sequence, pieces.astype(np.float64) ** 2, (num,))
    dealt = _rotated(ranks, microbatches, sequences)
    if balance in ("sorted", "repacked"):
        dealt = _sorted(squares, ranks, microbatches, sequences)
    # Place of each sequence: microbatch over all ranks, and number in it.
    where = np.empty(num, dtype=np.int64)
    where[dealt.ravel()] = np.arange(num)
    order = np.lexsort((np.arange(len(pieces)), where[sequence]))
    pieces, at = pieces[order], where[sequence][order]
    ends = np.cumsum(pieces)
    first = np.searchsorted(at, at)  # of the documents of the same sequence
    offset = ends - pieces - (ends[first] - pieces[first]) + at % sequences * sequence_tokens
    return Packed(
        pieces, at // sequences, offset, (ranks, microbatches), sequence_tokens, sequences, balance == "even"
    )


def sequences_needed(documents: Ints, sequence_tokens: int, fit: Fit) -> int:
    """Count the sequences that documents fill, the last one in part."""
    if fit == "cut":
        return -(-int(documents.sum()) // sequence_tokens)
    pieces = _within(documents, sequence_tokens)
    return int(_first_fit(pieces, len(pieces), sequence_tokens).max()) + 1


def _sums(place: Ints, values: Floats, shape: tuple[int, ...]) -> Floats:
    """Sum values by place, `shape`."""
    return np.asarray(np.bincount(place, values, math.prod(shape)), dtype=np.float64).reshape(shape)


def _cut(documents: Ints, sequence_tokens: int) -> tuple[Ints, Ints]:
    """Documents one after another, cut at the ends of sequences: lengths, and the sequence of each."""
    ends = np.cumsum(documents)
    edges = np.union1d(ends, np.arange(sequence_tokens, int(ends[-1]) + 1, sequence_tokens))
    pieces = np.diff(edges, prepend=0)
    return pieces, (edges - 1) // sequence_tokens


def _within(documents: Ints, sequence_tokens: int) -> Ints:
    """Documents, those longer than a sequence cut into sequences and a rest."""
    times = -(-documents // sequence_tokens)
    pieces = np.full(int(times.sum()), sequence_tokens, dtype=np.int64)
    pieces[np.cumsum(times) - 1] = documents - (times - 1) * sequence_tokens
    return pieces


def _first_fit(pieces: Ints, num: int, sequence_tokens: int) -> Ints:
    """The first sequence with room for each document in turn, -1 where none has."""
    room = np.full(num, sequence_tokens)
    sequence = np.full(len(pieces), -1, dtype=np.int64)
    begin = 0  # sequences before it are full
    for i, length in enumerate(pieces.tolist()):
        fits = room[begin:] >= length
        first = int(fits.argmax()) if len(fits) else 0
        if len(fits) and fits[first]:
            sequence[i] = begin + first
            room[begin + first] -= length
            while begin < num and room[begin] == 0:
                begin += 1
    return sequence


def _repacked(pieces: Ints, num: int, sequence_tokens: int) -> tuple[Ints, Ints]:
    """The longest documents first, each to the sequence with least attention that has room; the rest cut into what is left."""
    room = np.full(num, sequence_tokens)
    heap = [(0, i) for i in range(num)]
    placed: list[tuple[int, int]] = []
    rest: list[int] = []
    for length in np.sort(pieces)[::-1].tolist():
        aside: list[tuple[int, int]] = []
        while heap and room[heap[0][1]] < length:
            entry = heapq.heappop(heap)
            if room[entry[1]] > 0:
                aside.append(entry)
        if heap:
            squares, i = heapq.heappop(heap)
            placed.append((length, i))
            room[i] -= length
            heapq.heappush(heap, (squares + length**2, i))
        else:
            rest.append(length)
        for entry in aside:
            heapq.heappush(heap, entry)
    for length in rest:
        left = length
        for _, i in sorted(heap):
            part = min(left, int(room[i]))
            if part:
                placed.append((part, i))
                room[i] -= part
                left -= part
            if not left:
                break
    table = np.array(placed, dtype=np.int64)
    return table[:, 0], table[:, 1]


def _rotated(ranks: int, microbatches: int, sequences: int) -> Ints:
    """Sequences of each rank and microbatch as a sampler deals them, [ranks, microbatches, sequences]."""
    order = np.arange(microbatches * sequences * ranks).reshape(microbatches, sequences, ranks)
    return np.ascontiguousarray(order.transpose(2, 0, 1))


def _sorted(squares: Floats, ranks: int, microbatches: int, sequences: int) -> Ints:
    """Sequences of each rank and microbatch, those of one microbatch as alike as can be, [ranks, microbatches, sequences]."""
    rows = np.argsort(-squares, kind="stable").reshape(microbatches, sequences, ranks)
    rows[:, 1::2] = rows[:, 1::2, ::-1]  # a rank that had the most of one row has the least of the next
    had = np.zeros(ranks)
    dealt = np.empty((ranks, microbatches, sequences), dtype=np.int64)
    for number, own in enumerate(rows):
        sums = squares[own].sum(axis=0)
        whose = np.argsort(had, kind="stable")
        heaviest = np.argsort(-sums, kind="stable")
        dealt[whose, number] = own[:, heaviest].T
        had[whose] += sums[heaviest]
    return dealt
