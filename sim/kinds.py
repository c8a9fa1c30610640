"""Kinds of workloads: the one table of them, and the modules that rooms have for each.

A kind is a line of this table and a file in each room that has a part for it (`sim/scenario/`, `sim/runs/`, and of the
show `views`, `words`, `tables`, `plots` and `files`). A room's accessor (`kinds` in `sim.scenario`, `sim.runs` and `sim.show`) reads its
part from that file and imports it when a kind is first asked for, so that a decode step does not wait for what only training needs.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

WORKLOADS = {
    "all_to_all": "all_to_all",
    "flows": "flows",
    "collective": "collective",
    "launch": "launch",
    "training": "training",
    "prefill": "inference",
    "decode": "inference",
    "serving": "serving",
    "jobs": "jobs",
    "rl_step": "rl_step",
}
"""Kind of a workload, as scenarios name it -> the module that each room has for it."""


JOBS = ("all_to_all", "flows", "collective", "training", "prefill", "decode", "serving")
"""Kinds that may run next to others on one network."""


def module(room: str, kind: str) -> ModuleType:
    """The module of a room, such as `runs`, for a kind of workload."""
    return import_module(f"sim.{room}.{WORKLOADS[kind]}")
