"""The provenance of a run: version and seed, the part it ran on, what export rules say of it, and parameters without a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.show.views.names import hardware_name
from sim.show.views.record import mapping, record


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The verdict of one export rule on a part."""

    rule: str
    kind: str
    holds: bool | None
    sentence: str
    citation: str
    effective: str
    until: str | None = None

    @property
    def days(self) -> str:
        """Days on which the rule is or was in force."""
        return f"{self.effective} to {self.until}" if self.until else f"from {self.effective}"


@dataclass(frozen=True, slots=True)
class Part:
    """A hardware profile as it ran: its name and title, and what was overridden."""

    name: str
    title: str = ""
    gpus_per_node: int = 1
    nics_per_node: int = 1
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def changes(self) -> str:
        """Every override with its value; "" without any."""
        return ", ".join(f"{key} {value}" for key, value in self.overrides.items())

    @property
    def label(self) -> str:
        """`H800`, or `H800 with gpu.scale_up.bandwidth 450 GB/s`."""
        return f"{hardware_name(self.name)}{f' with {self.changes}' if self.changes else ''}"


@dataclass(frozen=True, slots=True)
class LeanedParameter:
    """A number that a run leaned on although it is assumed, derived or overridden."""

    key: str
    value: str
    grade: str
    source: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Origin of a result; empty where it does not say."""

    version: str | None
    seed: int | None
    settings: Sequence[str]
    """Changes by `--set`."""
    part: Part | None
    verdicts: tuple[RuleVerdict, ...]
    rules_note: str
    leaned_on: tuple[LeanedParameter, ...]
    outside_validation: tuple[str, ...] = ()
    """What lies beyond the range that was compared with measurements."""
    others: tuple[Provenance, ...] = ()
    """Of pools of other hardware, their part and its verdicts."""


def provenance_of(branch: Mapping[str, Any]) -> Provenance:
    """Read the `provenance` of a run."""
    rules = mapping(branch.get("export_rules"))
    return Provenance(
        branch.get("version"),
        branch.get("seed"),
        tuple(branch.get("settings") or ()),
        record(Part, branch["hardware"]) if branch.get("hardware") else None,
        tuple(record(RuleVerdict, entry) for entry in rules.get("verdicts") or ()),
        str(rules.get("note") or ""),
        tuple(record(LeanedParameter, entry) for entry in branch.get("leaned_on") or ()),
        tuple(branch.get("outside_validation") or ()),
        tuple(provenance_of(pool) for pool in mapping(branch.get("pools")).values()),
    )
