"""The sheet of one hardware profile: its parameters, what differs elsewhere, what kernels reach, the rules.

Data only; the command line prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.cluster import export_rules
from sim.cluster.export_rules import ChipNumbers, Verdict
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import DEFAULTS, Kernel, load_kernel
from sim.cluster.parameters import OVERRIDE, Parameter


@dataclass(frozen=True, slots=True)
class ParameterRow:
    """A parameter next to the same one of the reference; one of the two may be missing, not both."""

    path: str
    parameter: Parameter | None
    reference: Parameter | None
    differs: bool
    ratio: float | None
    """Value / value of the reference; None where one is missing or the reference is 0."""


@dataclass(frozen=True, slots=True)
class AchievedRow:
    """Rate that a kernel generation reaches on a link, of one GPU in one direction."""

    kernel: str
    direction: str
    """`dispatch` or `combine`."""
    link: str
    """Dotted key of the peak: `gpu.scale_up.bandwidth` or `nic.bandwidth`."""
    peak_bytes_per_s: float
    achieved_bytes_per_s: float
    fraction: float
    grade: str
    """That of the fraction on the part it was measured on; elsewhere `derived` (same fraction) at best."""
    source: str | None


@dataclass(frozen=True, slots=True)
class Datasheet:
    """Everything that is known about one profile."""

    hardware: Hardware
    reference: Hardware | None
    parameters: tuple[ParameterRow, ...]
    achieved: tuple[AchievedRow, ...]
    chip: ChipNumbers
    verdicts: tuple[Verdict, ...]
    note: str
    unread: tuple[str, ...]
    """Figures that move no metric of any kind of workload, each with what reads it."""

    @property
    def differences(self) -> tuple[ParameterRow, ...]:
        """The parameters whose value is not the reference's."""
        return tuple(row for row in self.parameters if row.differs)


def describe(hardware: Hardware, reference: Hardware | None = None) -> Datasheet:
    """Collect everything that is known about one profile.

    Parameters
    ----------
    hardware : Hardware
    reference : Hardware, optional
        Part to compare it with.

    Returns
    -------
    Datasheet
        Parameters next to those of the reference, rates that kernels reach, and verdicts of the export rules.
    """
    kernels = [load_kernel(name) for name in DEFAULTS.values()]
    return Datasheet(
        hardware=hardware,
        reference=reference,
        parameters=_compare(hardware, reference),
        achieved=tuple(row for kernel in kernels for row in _achieved(hardware, kernel)),
        chip=export_rules.chip_numbers(hardware),
        verdicts=export_rules.verdicts(hardware),
        note=export_rules.NOTE,
        unread=hardware.unread,
    )


def _compare(hardware: Hardware, reference: Hardware | None) -> tuple[ParameterRow, ...]:
    ours = {row.path: row for row in hardware.parameters}
    theirs = {row.path: row for row in reference.parameters} if reference else {}
    rows = []
    for path in [*ours, *(path for path in theirs if path not in ours)]:
        own, other = ours.get(path), theirs.get(path)
        differs = reference is not None and (own is None or other is None or own.value != other.value)
        ratio = own.value / other.value if own and other and other.value else None
        rows.append(ParameterRow(path, own, other, differs, ratio))
    return tuple(rows)


def _achieved(hardware: Hardware, kernel: Kernel) -> list[AchievedRow]:
    parameters = {row.path: row for row in kernel.parameters}
    links = [("gpu.scale_up.bandwidth", hardware.gpu.scale_up.bandwidth_bytes_per_s)]
    if hardware.nic:
        links.append(("nic.bandwidth", hardware.nic.bandwidth_bytes_per_s))
    rows = []
    for link, peak in links:
        for direction in ("dispatch", "combine"):
            scale_up = link.startswith("gpu.")
            key = f"scale_up_efficiency_fraction.{direction}" if scale_up else "nic_efficiency_fraction"
            fraction = parameters[key]
            # A fraction holds for every part; it was seen only on the one it was measured on, with that peak.
            seen_here = hardware.name == kernel.measured_on and hardware.parameter(link).grade != OVERRIDE
            grade = fraction.grade if seen_here or fraction.grade == "assumed" else "derived"
            rows.append(
                AchievedRow(
                    kernel=kernel.kind,
                    direction=direction,
                    link=link,
                    peak_bytes_per_s=peak,
                    achieved_bytes_per_s=peak * fraction.value,
                    fraction=fraction.value,
                    grade=grade,
                    source=fraction.source,
                )
            )
    return rows
