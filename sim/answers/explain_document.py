"""The shape of the document of `moesim explain`, for its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.values import Branch


class PartSpec(Branch):
    """A part of a time."""

    name: str
    """Name of the part, for scripts."""
    title: str
    """The part in words."""
    value_s: float
    """Its length [s]; all parts add up to the time."""
    share_fraction: float
    """Its share of the time [fraction]."""


class CauseSpec(Branch):
    """A change of machine or software that may explain what was measured."""

    name: str
    """Name of the cause, for scripts."""
    title: str
    """The cause in words."""
    set: dict[str, Any]
    """Keys of the scenario that it changes."""
    values: dict[str, float]
    """Metric -> its value with the change, in SI units."""
    errors: dict[str, float]
    """Metric -> that value over the measured one, less 1 [fraction]."""
    distance_fraction: float
    """Root mean square of the logarithms of simulated over measured values [fraction]."""
    binding: str | None
    """Class of the resource that then binds; null where nothing is said of that."""


class ExplanationSpec(Branch):
    """The document that `moesim explain --json` prints."""

    schema_: Annotated[Literal["moesim.explain/1"], Field(alias="schema")]
    """Kind and version of the document."""
    name: str
    """Name of the scenario."""
    title: str
    """Title of the scenario."""
    metric: str
    """Metric of the time that is taken apart."""
    value_s: float
    """The time [s]."""
    parts: list[PartSpec]
    """What it is made of, in order."""
    measured: dict[str, float]
    """Metric -> its measured value, in SI units; empty where nothing was measured."""
    causes: list[CauseSpec]
    """What would give what was measured, the nearest first."""
    provenance: dict[str, Any]
    """Versions, seed and parameters, as of a result."""
