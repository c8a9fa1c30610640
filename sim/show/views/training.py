"""TODO sim/show/views/training.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell
from sim.show.views.run import Case

PHASES = {
    "1F_s": "1F, forwards alone",
    "1B_s": "1B, backwards alone",
    "1W_s": "1W, weight parts alone",
    "1F1B_s": "1F1B, F&B pairs",
    "opt_s": "optimizer",
    "bubble_s": "bubble",
}
"""Phases of a step as a reader calls them, in the order in which they are told and drawn."""


_PARTS = ("weights", "fp8 copies", "gradients", "optimizer", "activations", "buffers")


_SHORT = {"fp8 copies": "FP8", "gradients": "grads", "optimizer": "optim", "activations": "activ"}


_SAME = 0.005  # ratios this close to 1 are told as "the same"


def is_training(case: Case) -> bool:
    """Whether a case is a training step that ran."""
    return case.workload.get("kind") == "training" and isinstance(case.metrics.get("phases"), Mapping)


def fullest(case: Case) -> Mapping[str, Any]:
    """The memory of the pipeline rank that holds most: its `rank`, and bytes by part."""
    return max(case.result.get("memory") or [{"rank": 0}], key=held_bytes)


def held_bytes(row: Mapping[str, Any]) -> float:
    """All that a pipeline rank's GPU holds [bytes]."""
    return float(sum(value for key, value in row.items() if key != "rank"))


def parts_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parts of memory that any of `rows` has, in the order in which they are told and drawn."""
    present = {key for row in rows for key, value in row.items() if value and key != "rank"}
    return [key for key in dict.fromkeys((*_PARTS, *sorted(present))) if key in present]


def _share(fraction: float | None) -> Cell:
    return "-" if fraction is None else f"{fraction:.1%}"
