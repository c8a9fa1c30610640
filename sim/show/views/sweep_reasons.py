"""Reasons why points of a sweep cannot be, by kinds that can be counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_KINDS = (
    (r"needs? [\d.]+ .?B of the", "memory overflows"),
    (r"^the constraint", "a constraint is not met"),
    (r"microbatches", "too few or uneven microbatches for the schedule"),
    (r"global_batch", "the batch does not divide over the data-parallel ranks"),
    (r"stages are more than", "more pipeline stages than layers"),
    (r"does not divide|divisor|multiple|takes \d+ GPUs|neither divides", "sizes that do not divide"),
    (r"even number of ranks|pipeline ranks", "the schedule has no order for so many ranks"),
    (r"worker died", "the worker died"),
)


@dataclass(frozen=True, slots=True)
class Reason:
    """A kind of reason, the number of points that have it, and the whole text of the first of them."""

    kind: str
    count: int
    example: str


def reason_kind(text: str) -> str:
    """Return the kind of a reason, which a reader can count."""
    return next((kind for pattern, kind in _KINDS if re.search(pattern, text)), text.partition(":")[0][:60])


def count_reasons(texts: Iterable[str]) -> tuple[Reason, ...]:
    """Count reasons by kind, the most frequent first."""
    counted: Counter[str] = Counter()
    example: dict[str, str] = {}
    for text in texts:
        kind = reason_kind(text)
        counted[kind] += 1
        example.setdefault(kind, text)
    return tuple(Reason(kind, count, example[kind]) for kind, count in counted.most_common())
