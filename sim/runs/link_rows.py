"""Load of single links over a run, as results list it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.cluster.topology import CLASSES, Cluster, Floats, Ints

_MOST_LINKS = 4096  # of a result; of more, one of each class


def link_rows(
    cluster: Cluster, carried: Floats, used: Floats, over_s: float, same: Sequence[Ints] = ()
) -> dict[str, dict[str, Any]]:
    """Rows of the links that carried something by name, as in `metrics.links`, with utilisation over `over_s`.

    Where very many carried something, one of each class of alike ones with their number (`alike`); `same` are
    partitions into such classes. `used` is the capacity used up [bytes].
    """
    busy_s = np.divide(used, cluster.capacity, out=np.zeros(len(carried)), where=cluster.capacity > 0)
    rows = np.flatnonzero(busy_s > 0)
    alike = np.ones(len(rows), dtype=np.int64)
    if len(rows) > _MOST_LINKS and len(same):
        classes = np.stack([partition[rows] for partition in same])
        _, first, counts = np.unique(classes, axis=1, return_index=True, return_counts=True)
        order = np.argsort(first)
        rows, alike = rows[first[order]], counts[order]
    return {
        cluster.names[row]: {
            "class": CLASSES[int(cluster.class_idx[row])],
            "bytes": float(carried[row]),
            "busy_s": float(busy_s[row]),
            "utilisation_fraction": float(busy_s[row] / over_s),
            **({"alike": count} if len(alike) and alike.max() > 1 else {}),
        }
        for row, count in zip(rows.tolist(), alike.tolist(), strict=True)
    }


def largest(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep the busiest of very many rows."""
    if len(rows) <= _MOST_LINKS:
        return rows
    kept = sorted(rows, key=lambda name: -rows[name]["busy_s"])[:_MOST_LINKS]
    return {name: rows[name] for name in kept}
