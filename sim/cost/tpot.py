"""The bound of a decode step by its exchanges alone, as published for expert parallelism over one link.

Reference: Insights into DeepSeek-V3, ISCA 2025, arXiv 2505.09343, section 2.3.2. Its numbers: 120.96 us, 14.76 ms and about 67
tokens/s at 50 GB/s; 6.72 us and 0.82 ms at 900 GB/s. They take a hidden size of 7,000, 9 experts a token (the shared one
travels too), bytes alone and no latency; and 900 GB/s would need a domain that holds every expert.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TpotBound:
    """The bound, step by step."""

    dispatch_s: float
    combine_s: float
    layer_s: float
    tpot_s: float

    @property
    def exchange_s(self) -> float:
        """Dispatch and combine of one microbatch and layer [s]."""
        return self.dispatch_s + self.combine_s

    @property
    def tokens_per_s(self) -> float:
        """Decode speed of one user [tokens/s]."""
        return 1.0 / self.tpot_s


def tpot_bound(
    rate_bytes_per_s: float,
    *,
    tokens: int = 32,
    copies: int = 9,
    hidden: int = 7000,
    dispatch_bytes: float = 1.0,
    combine_bytes: float = 2.0,
    num_layers: int = 61,
    num_microbatches: int = 2,
) -> TpotBound:
    """Bound the time of an output token by communication alone.

    Parameters
    ----------
    rate_bytes_per_s : float [bytes/s]
        Of the one link of a GPU, in one direction.
    tokens : int [count]
        Of a GPU and microbatch.
    copies : int [count]
        Experts that a token is sent to.
    hidden : int [elements]
    dispatch_bytes, combine_bytes : float [bytes per element]
    num_layers, num_microbatches : int [count]

    Returns
    -------
    TpotBound

    Notes
    -----
    collective = (dispatch + combine) bytes x tokens x copies x hidden / rate; a layer takes one for each microbatch, whose compute
    hides behind the other's; TPOT = layers x that.

    References
    ----------
    "Insights into DeepSeek-V3", ISCA 2025, arXiv 2505.09343, section 2.3.2.

    Examples
    --------
    >>> bound = tpot_bound(50e9)
    >>> f"{bound.exchange_s * 1e6:.2f} us, {bound.tpot_s * 1e3:.2f} ms, {bound.tokens_per_s:.1f} tokens/s"
    '120.96 us, 14.76 ms, 67.8 tokens/s'
    """
    elements = tokens * copies * hidden
    dispatch = dispatch_bytes * elements / rate_bytes_per_s
    combine = combine_bytes * elements / rate_bytes_per_s
    layer = num_microbatches * (dispatch + combine)
    return TpotBound(dispatch, combine, layer, num_layers * layer)
