"""The shape of the document of `moesim explore --json`, for its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.values import Branch


class SliderSpec(Branch):
    """An axis: a slider, or values that are drawn side by side at every notch."""

    name: str
    """Key or name of the axis; empty where nothing is compared."""
    values: list[str]
    """Notches, as they are written."""
    sets: list[dict[str, Any]]
    """Keys of the scenario that each notch sets."""


class PointSpec(Branch):
    """A run: its values, or why there is none."""

    values: list[float] | None = None
    """Value of each metric, in SI units."""
    binding: list[str] | None = None
    """Class of the resource that binds each; empty where nothing is said of that."""
    bound: list[float | None] | None = None
    """Lower bound of each [s]; null where there is none."""
    reason: str = ""
    """Why it cannot be."""


class CubeSpec(Branch):
    """The document that `moesim explore --export PAGE.html --json` prints."""

    schema_: Annotated[Literal["moesim.cube/1"], Field(alias="schema")]
    """Kind and version of the document."""
    partial: dict[str, Any] | None = None
    """Count of the runs that it holds, and of all, where it was stopped before its end."""
    name: str
    """Name of the sweep."""
    title: str
    """Title of the sweep."""
    version: str
    """Version of this package."""
    axes: list[SliderSpec]
    """Sliders."""
    compared: SliderSpec
    """The axis whose values are drawn side by side."""
    metrics: list[str]
    """Metrics whose sum is drawn."""
    start: list[int]
    """Notch at which each slider stands at first, from 0."""
    base: dict[str, Any]
    """The scenario that all settings are laid over."""
    points: list[list[PointSpec]]
    """A list for each setting of the sliders, the last slider fastest; in it a point for each value drawn side by side."""
