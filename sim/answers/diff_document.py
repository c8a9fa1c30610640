"""The shape of the document of `moesim diff`, for its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.values import Branch


class SettingSpec(Branch):
    """A setting in which two results differ."""

    first: Any
    """Its value in the first; null where it has none."""
    second: Any
    """Its value in the second."""
    gives: dict[str, float] | None
    """Metrics of the first scenario with this setting alone; null where it cannot stand alone."""


class MovedSpec(Branch):
    """A metric in which two results differ, in SI units."""

    first: float | None
    """Its value in the first; null where it has none."""
    second: float | None
    """Its value in the second."""
    change_fraction: float | None
    """The second over the first, less 1 [fraction]."""
    more_is_better: bool | None
    """True where more is better; null where neither is."""


class DifferenceSpec(Branch):
    """The document that `moesim diff --json` prints."""

    schema_: Annotated[Literal["moesim.diff/1"], Field(alias="schema")]
    """Kind and version of the document."""
    names: tuple[str, str]
    """Names by which the results are told apart."""
    versions: tuple[str, str]
    """Versions of this package that made them."""
    settings: dict[str, SettingSpec]
    """Key of the scenario -> how it differs."""
    metrics: dict[str, MovedSpec]
    """Metric -> how it differs."""
