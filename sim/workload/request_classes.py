"""Classes of requests: named parts of a workload, each with lengths of its own, that are measured apart.

Classes are drawn together (`poisson_classes`), recorded one file each (`merged`), a column of a trace (`named`), or ranges of the
prompts' lengths (`split_by_length`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.workload.requests import Ints, Lengths, PromptBlocks, RequestClasses, Requests

MOST_CLASSES = 64
"""Each is measured on its own."""


@dataclass(frozen=True, slots=True)
class DrawnClass:
    """A class of drawn requests: its part of all of them, and its lengths."""

    share: float
    prompt: Lengths
    output: Lengths


def poisson_classes(
    num_requests: int, requests_per_s: float, classes: Mapping[str, DrawnClass], rng: np.random.Generator
) -> Requests:
    """Draw the requests of independent users of several classes.

    Parameters
    ----------
    num_requests : int [count]
        Of all classes.
    requests_per_s : float [1/s]
        Of all classes; each arrives at its share of it.
    classes : name -> DrawnClass
        Whose shares add up to 1.
    rng : numpy.random.Generator

    Returns
    -------
    Requests

    Notes
    -----
    The class of every arrival is drawn by itself, so each class arrives as a Poisson process, independent of the others
    (splitting; Kingman, Poisson Processes, 1993).
    """
    arrival_s = np.cumsum(rng.exponential(1.0 / requests_per_s, num_requests))
    shares = np.array([kind.share for kind in classes.values()])
    class_idx = rng.choice(len(shares), num_requests, p=shares / shares.sum())
    prompt, output = np.zeros((2, num_requests), dtype=np.int64)
    for i, kind in enumerate(classes.values()):
        own = np.flatnonzero(class_idx == i)
        prompt[own], output[own] = kind.prompt.draw(len(own), rng), kind.output.draw(len(own), rng)
    return Requests(arrival_s, prompt, output, classes=RequestClasses(tuple(classes), class_idx))


def split_by_length(asked: Requests, most_tokens: Mapping[str, int | None]) -> Requests:
    """Sort requests into classes by the tokens of their prompts: into the first whose most they do not exceed.

    `most_tokens` rise, and the last is None [tokens].
    """
    upper = np.array([most for most in most_tokens.values() if most is not None], dtype=np.int64)
    class_idx = np.searchsorted(upper, asked.prompt_tokens, "left")
    return replace(asked, classes=RequestClasses(tuple(most_tokens), class_idx))


def merged(traces: Mapping[str, Requests]) -> Requests:
    """Merge traces, each of them a class, by arrival; of equal arrivals the earlier trace's come first.

    Every trace keeps its own instant 0. Hashes of blocks, where all have them, are those of the own trace: no two share a prompt.
    """
    rows = list(traces.values())
    arrival_s = np.concatenate([own.arrival_s for own in rows])
    order = np.argsort(arrival_s, kind="stable")
    class_idx = np.repeat(np.arange(len(rows)), [own.num_requests for own in rows])
    return Requests(
        arrival_s[order],
        np.concatenate([own.prompt_tokens for own in rows])[order],
        np.concatenate([own.output_tokens for own in rows])[order],
        _merged_blocks([own.blocks for own in rows], order),
        source=rows[0].source,
        num_dropped=sum(own.num_dropped for own in rows),
        classes=RequestClasses(tuple(traces), class_idx[order]),
    )


def _merged_blocks(rows: Sequence[PromptBlocks | None], order: Ints) -> PromptBlocks | None:
    """Blocks of merged traces, numbered anew; None where a trace has none, or other blocks than the first."""
    own = [blocks for blocks in rows if blocks is not None]
    if len(own) < len(rows) or len({blocks.block_tokens for blocks in own}) > 1:
        return None
    ids, first = [], 0
    for blocks in own:
        names, numbers = np.unique(blocks.ids, return_inverse=True)
        ids.append(numbers + first)
        first += len(names)
    length = np.concatenate([np.diff(blocks.first) for blocks in own])
    start = np.cumsum(length) - length
    flat = np.concatenate(ids)
    places = [np.arange(start[i], start[i] + length[i]) for i in order.tolist()]
    merged_first = np.concatenate([[0], np.cumsum(length[order])])
    return PromptBlocks(flat[np.concatenate(places)], merged_first, own[0].block_tokens)


def class_name(text: str) -> str:
    """Make the name of a class out of what a trace writes: `Conversation log` -> `conversation-log`."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")
