"""Packing of documents in a training workload: keys as a scenario writes them, and the documents that they draw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sim import cells, limits
from sim.errors import InputError, Mark
from sim.scenario.draft import Draft, named_file
from sim.scenario.values import Branch, Count, LengthsSpec
from sim.workload.layout import Layout
from sim.workload.packing import Ints, Packed, packed
from sim.workload.requests import MOST_TOKENS, Lengths

_SEED = 6  # stream of documents within the scenario's seed


class RecordedLengthsSpec(Branch):
    """Documents as recorded."""

    kind: Literal["recorded"]
    file: str
    """A CSV with the column `tokens`, a document a row, taken in their order and from the first again."""


class ListedLengthsSpec(Branch):
    """All documents of a step; what they leave of it is padding."""

    kind: Literal["listed"]
    tokens: Annotated[list[Count], Field(min_length=1)]
    """Tokens of each."""


class PackingSpec(Branch):
    """Documents of unequal length in each sequence."""

    lengths: Annotated[LengthsSpec | RecordedLengthsSpec | ListedLengthsSpec, Field(discriminator="kind")]
    """Tokens of a document."""
    fit: Literal["cut", "first_fit"] = "cut"
    """cut: one after another, cut where a sequence ends; first_fit: whole, in the first sequence with room, the rest padded."""
    mask: Literal["document", "none"] = "document"
    """document: tokens attend within their document; none: to all before them in the sequence."""
    balance: Literal["none", "sorted", "repacked", "even"] = "none"
    """none: sequences go to ranks in turn; sorted: by attention, so that ranks have alike ones at once; repacked: documents are
    placed anew for alike attention, then sorted; even: each microbatch is taken to cost what the mean one does."""
    context_parallel: Literal["document", "sequence"] | None = None
    """Parts that ranks of CP take: of each document alike (when left out); or of each sequence, one from each end."""


def packing_of(draft: Draft, spec: PackingSpec, layout: Layout, sizes: tuple[int, int, int]) -> Packed | None:
    """Pack the documents of a step of so many microbatches, sequences of a microbatch and tokens of a sequence.

    None where the draft has its problems.
    """
    microbatches, sequences, sequence_tokens = sizes
    at, before = ("workload", "packing"), len(draft.problems)
    if spec.mask == "none" and spec.balance != "none":
        wanted = "'none' next to mask: none: sequences cost alike"
        draft.problem((*at, "balance"), f"'{spec.balance}'", wanted)
    if spec.context_parallel is not None and (layout.cp == 1 or spec.mask == "none"):
        wanted = (
            "no such key without layout.cp above 1" if layout.cp == 1 else "no such key next to mask: none"
        )
        draft.problem((*at, "context_parallel"), f"'{spec.context_parallel}'", wanted)
    elif spec.context_parallel == "sequence" and sequence_tokens % (2 * layout.cp):
        wanted = f"a multiple of {2 * layout.cp}, 2 x layout.cp, next to packing.context_parallel: sequence"
        draft.problem(("workload", "sequence_tokens"), str(sequence_tokens), wanted)
    lengths: Lengths | Ints | None = None
    try:
        lengths = _lengths(draft, spec.lengths)
    except InputError as error:
        draft.problems.extend(error.problems)
    if lengths is None or len(draft.problems) > before:
        return None
    tokens = layout.dp * microbatches * sequences * sequence_tokens
    listed = isinstance(spec.lengths, ListedLengthsSpec)
    mean = lengths.mean_tokens if isinstance(lengths, Lengths) else float(lengths.mean())
    keys = f"tokens of a step {tokens:,} / tokens of a document {mean:,.0f}"
    limits.require(round(tokens / mean), limits.DOCUMENTS, keys)
    documents = packed(
        lengths,
        ranks=layout.dp,
        microbatches=microbatches,
        sequences=sequences,
        sequence_tokens=sequence_tokens,
        fit=spec.fit,
        balance=spec.balance,
        rng=np.random.default_rng([draft.seed, _SEED]),
        once=listed,
    )
    if listed and not isinstance(lengths, Lengths) and documents.tokens < lengths.sum():
        got = f"{lengths.sum():,} tokens, of which {documents.tokens:,} find room"
        wanted = f"documents that fit into the step's {tokens // sequence_tokens:,} sequences of {sequence_tokens:,} tokens"
        draft.problem((*at, "lengths", "tokens"), got, wanted)
        return None
    return documents


def _lengths(draft: Draft, spec: LengthsSpec | RecordedLengthsSpec | ListedLengthsSpec) -> Lengths | Ints:
    if isinstance(spec, LengthsSpec):
        return spec.distribution
    if isinstance(spec, ListedLengthsSpec):
        return np.array(spec.tokens, dtype=np.int64)
    return _recorded(*named_file(draft.document, ("workload", "packing", "lengths", "file")))


def _recorded(file: Path, where: Mark, key: str) -> Ints:
    """Read tokens of documents from a CSV. Raises `InputError`."""
    sheet = cells.sheet(file, "a readable CSV of documents", ("tokens",), where=where, key=key)
    column = sheet.at["tokens"]
    tokens = np.zeros(len(sheet.rows), dtype=np.int64)
    for i, (line, row) in enumerate(sheet.rows):
        text = row[column] if column < len(row) else ""
        if text.isdecimal() and 1 <= int(text) <= MOST_TOKENS:
            tokens[i] = int(text)
        else:
            sheet.problem(line, "tokens", f"'{text}'", f"a whole number of 1 to {MOST_TOKENS:,}")
    if not sheet.rows:
        sheet.problem(1, "tokens", "no row", "a document or more")
    sheet.raise_problems()
    return tokens
