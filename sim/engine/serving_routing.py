"""Routing: the rank that an arrival is bound to (`EnginePolicy.routing`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.engine.serving_instance import Instance
from sim.engine.serving_lives import Lives

_FULL = np.iinfo(np.int64).max


class Router:
    """The choice of a rank, by the requests that each has: `outstanding`, [num_instances, num_ranks].

    Instances that are down get none, unless all are.
    """

    def __init__(self, routing: str | None, instances: Sequence[Instance], lives: Lives) -> None:
        self.routing, self.instances, self.lives = routing, instances, lives
        self.outstanding = np.zeros((len(instances), instances[0].pool.num_ranks), dtype=np.int64)
        self.turn = -1

    def choose(self, request: int) -> tuple[int, int]:
        """Bind an arrival to a rank of an instance."""
        down = [instance.index for instance in self.instances if instance.is_down]
        if len(down) == len(self.instances):
            down = []
        instance, rank = self._next(down) if self.routing == "round_robin" else self._least(request, down)
        self.outstanding[instance, rank] += 1
        return instance, rank

    def _next(self, down: Sequence[int]) -> tuple[int, int]:
        """Take turns, instance after instance."""
        while True:
            self.turn += 1
            rank, instance = divmod(self.turn % self.outstanding.size, len(self.instances))
            if instance not in down:
                return instance, rank

    def _least(self, request: int, down: Sequence[int]) -> tuple[int, int]:
        """Take the rank with the fewest requests; where routing knows caches, of those that have most of the prompt."""
        by_instance = self.outstanding.copy()
        by_instance[down] = _FULL
        length = by_instance.ravel()
        if self.routing == "cache_aware" and self.lives.blocks is not None:
            blocks = self.lives.hashes(request)
            hits = np.array([cache.find(blocks) for instance in self.instances for cache in instance.caches])
            hits[length == _FULL] = -1
            length = np.where(hits == hits.max(), length, _FULL)
        instance, rank = divmod(int(length.argmin()), self.outstanding.shape[1])
        return instance, rank
