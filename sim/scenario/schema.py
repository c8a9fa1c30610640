"""The pydantic model of scenario files of every kind, for their JSON Schema."""

from __future__ import annotations

from sim.kinds import WORKLOADS
from sim.scenario.specification import model_of

SCENARIO = model_of(*WORKLOADS)
