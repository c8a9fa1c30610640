"""Axes that say `auto`: every value of a layout dimension or a schedule that could be valid.

Each dimension is taken by itself: sizes that divide the GPUs and what the dimension cuts. Whether a combination is a
layout, and fits, is for the point to say, which keeps the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sim.schedule.pipelines import SCHEDULES
from sim.workload.model import Model

Find = Callable[[Model, int, int, int], list[int]]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _pp(model: Model, num_gpus: int, _: int, __: int) -> list[int]:
    return [size for size in _divisors(num_gpus) if size <= model.num_layers]


def _aligned(num_gpus: int, gpus_per_node: int) -> list[int]:
    return [s for s in _divisors(num_gpus) if s % gpus_per_node == 0 or gpus_per_node % s == 0]


def _ep(model: Model, num_gpus: int, gpus_per_node: int, __: int) -> list[int]:
    return [size for size in _aligned(num_gpus, gpus_per_node) if model.num_experts % size == 0]


def _etp(model: Model, num_gpus: int, gpus_per_node: int, __: int) -> list[int]:
    return [size for size in _aligned(num_gpus, gpus_per_node) if model.expert_hidden % size == 0]


def _tp(model: Model, num_gpus: int, gpus_per_node: int, __: int) -> list[int]:
    inside = [size for size in _divisors(gpus_per_node) if num_gpus % size == 0]
    return [size for size in inside if all(a.num_heads % size == 0 for a in model.attentions())]


def _cp(model: Model, num_gpus: int, gpus_per_node: int, sequence_tokens: int) -> list[int]:
    return [size for size in _divisors(gpus_per_node) if num_gpus % size == 0 == sequence_tokens % size]


def _dp(_: Model, num_gpus: int, __: int, ___: int) -> list[int]:
    return _divisors(num_gpus)


_SIZES: Mapping[str, Find] = {
    "layout.pp": _pp, "layout.ep": _ep, "layout.etp": _etp, "layout.tp": _tp, "layout.cp": _cp, "layout.dp": _dp,
}  # fmt: skip
KEYS = (*_SIZES, "workload.schedule")


def values(
    key: str, model: Model, *, num_gpus: int, gpus_per_node: int, sequence_tokens: int, across: bool = False
) -> list[int | str]:
    """Every value of one of `KEYS`, ascending.

    PP: divisors of the GPUs up to the layers. EP and ETP: divisors of GPUs, and of the experts or their width, that cut nodes
    evenly. TP and CP: within a node or, `across` nodes, cutting them evenly. DP: divisors of the GPUs. The schedule: all.
    """
    gpus_per_node = num_gpus if across and key in ("layout.tp", "layout.cp") else gpus_per_node
    if key == "workload.schedule":
        return list(SCHEDULES)
    return list(_SIZES[key](model, num_gpus, gpus_per_node, sequence_tokens))
