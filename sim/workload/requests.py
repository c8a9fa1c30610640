"""Requests of users: arrival time, length of the prompt and length of the answer of each.

Either drawn (Poisson arrivals, lengths of a distribution) or recorded (`request_traces` reads them). The first output token is
the one that prefill makes, so a request with one output token never decodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_TOKENS = 10**9


@dataclass(frozen=True, slots=True, eq=False)
class PromptBlocks:
    """Hashes of the prompts' blocks, request after request.

    Parameters
    ----------
    ids : array of int64, [num_blocks]
        Equal ids are equal prompts up to the end of that block.
    first : array of int64, [num_requests + 1]
        Place in `ids` of each request's first block; last, their number.
    block_tokens : int [tokens]
        Of a block; a prompt's last one may hold fewer.
    """

    ids: Ints
    first: Ints
    block_tokens: int

    def hashes(self, request: int) -> Ints:
        """Return the hashes of a prompt, in order."""
        return self.ids[self.first[request] : self.first[request + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class RequestClasses:
    """Named classes of requests, and which of them each request is of, `class_idx` [num_requests], from 0."""

    names: tuple[str, ...]
    class_idx: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Requests in the order of arrival.

    Parameters
    ----------
    arrival_s : array of float, [num_requests] [s]
    prompt_tokens, output_tokens : array of int64, [num_requests] [tokens]
    blocks : PromptBlocks, optional
        Hashes of the prompts, where the trace has them.
    session_idx : array of int64, optional, [num_requests]
        Conversation that each is a turn of, numbered from 0, where the trace has them.
    source : str
        `drawn`, or the name of the trace's format.
    num_dropped : int [count]
        Recorded requests without a prompt or an answer, which are not among these.
    classes : RequestClasses, optional
        Parts that are measured apart (`request_classes`).
    concurrency : int, optional [count]
        Most that are in the system at once: each further one arrives, not before its `arrival_s`, when another has left.
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    blocks: PromptBlocks | None = None
    session_idx: Ints | None = None
    source: str = "drawn"
    num_dropped: int = 0
    classes: RequestClasses | None = None
    concurrency: int | None = None

    @property
    def num_requests(self) -> int:
        """Number of requests."""
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: `fixed`, `exponential` or `lognormal`, with its mean [tokens].

    `spread` is the standard deviation of the logarithm (lognormal only). Draws are rounded and held within 1 and
    `most_tokens`, which lowers the mean where the tail is long.
    """

    kind: str
    mean_tokens: float
    spread: float = 0.0
    most_tokens: int = MOST_TOKENS

    def draw(self, num: int, rng: np.random.Generator) -> Ints:
        """Draw token counts [num]."""
        if self.kind == "fixed":
            drawn = np.full(num, self.mean_tokens)
        elif self.kind == "exponential":
            drawn = rng.exponential(self.mean_tokens, num)
        else:
            drawn = self.mean_tokens * np.exp(rng.normal(-(self.spread**2) / 2, self.spread, num))
        return self._counts(drawn)

    def correlated(self, shape: tuple[int, ...], correlation: float, rng: np.random.Generator) -> Ints:
        """Draw lognormal token counts of a shape, whose logarithms are correlated along its last axis."""
        shared, own = rng.normal(size=(*shape[:-1], 1)), rng.normal(size=shape)
        normal = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
        return self._counts(self.mean_tokens * np.exp(self.spread * normal - self.spread**2 / 2))

    def _counts(self, drawn: Floats) -> Ints:
        counts: Ints = np.clip(np.rint(drawn), 1, self.most_tokens).astype(np.int64)
        return counts


def poisson(
    num_requests: int,
    requests_per_s: float,
    prompt: Lengths,
    output: Lengths,
    rng: np.random.Generator,
) -> Requests:
    """Draw the requests of independent users.

    Parameters
    ----------
    num_requests : int [count]
    requests_per_s : float [1/s]
    prompt, output : Lengths
        Distributions of the tokens of prompts and of answers, independent of arrivals and of each other.
    rng : numpy.random.Generator

    Returns
    -------
    Requests

    Notes
    -----
    Gaps between arrivals are exponential with the mean 1 / `requests_per_s`.
    """
    gaps = rng.exponential(1.0 / requests_per_s, num_requests)
    return Requests(np.cumsum(gaps), prompt.draw(num_requests, rng), output.draw(num_requests, rng))


def reused_tokens(asked: Requests) -> Ints:
    """Count the prompt tokens that a prefix cache without bounds would hold when each request arrives.

    Parameters
    ----------
    asked : Requests
        With hashes of blocks.

    Returns
    -------
    array of int64, [num_requests] [tokens]
        Of the longest run of first blocks that earlier requests had; over all prompt tokens it is the hit rate of the trace.

    References
    ----------
    Mooncake, FAST'25, arXiv 2407.00079: equal hashes are equal prompts up to the end of that block.
    """
    assert asked.blocks is not None
    seen: set[int] = set()
    reused = np.zeros(asked.num_requests, dtype=np.int64)
    for request in range(asked.num_requests):
        ids = asked.blocks.hashes(request).tolist()
        held = next((i for i, block in enumerate(ids) if block not in seen), len(ids))
        reused[request] = held * asked.blocks.block_tokens
        seen.update(ids)
    return np.minimum(reused, asked.prompt_tokens)


def totals(asked: Requests) -> dict[str, float]:
    """Sum up the tokens of requests, and those dropped.

    Of a trace with hashes the hit rate of a prefix cache without bounds.
    """
    prompts = int(asked.prompt_tokens.sum())
    summed: dict[str, float] = {
        "prompt_tokens": prompts,
        "output_tokens": int(asked.output_tokens.sum()),
        "num_dropped": asked.num_dropped,
    }
    if asked.blocks is not None:
        summed["reusable_fraction"] = float(reused_tokens(asked).sum()) / prompts
    return summed
