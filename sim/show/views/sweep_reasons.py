"""Why points of a sweep cannot be: their reasons, by kinds that can be counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

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


def reason_kind(reason: str) -> str:
    """The kind of a reason: what a reader can count."""
    return next(
        (kind for pattern, kind in _KINDS if re.search(pattern, reason)), reason.partition(":")[0][:60]
    )


def reasons(document: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Kind of reason, how often, and one whole: of points that cannot be or failed, the most frequent first."""
    counted: Counter[str] = Counter()
    example: dict[str, str] = {}
    for point in document["points"]:
        if point["status"] in ("infeasible", "failed"):
            kind = reason_kind(point["reason"])
            counted[kind] += 1
            example.setdefault(kind, point["reason"])
    return [(kind, count, example[kind]) for kind, count in counted.most_common()]
