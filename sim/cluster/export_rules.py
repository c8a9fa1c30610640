"""Export rules for advanced computing chips, as pure functions of a hardware profile.

Three numbers decide: TPP, PD and IO (`chip_numbers`). The thresholds are those of 15 CFR 774, ECCN 3A090 as
published in the Federal Register. Every verdict names its rule, the numbers it used and the days it was in
force. A condition that needs a number which the profile lacks is left open (`holds` is None) unless the
rest decides.

Why this way: the profiles exist because of these rules (A800, H800 and H20 are each cut to pass one of
them), so the truth table of the real parts tests the data as much as the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sim.cluster.hardware import Hardware

NOTE = "This is engineering, not legal advice."

_BITS = {"fp64": 64, "bf16": 16, "fp8": 8, "int8": 8, "fp4": 4}
_H20_MEMORY_BYTES_PER_S = 4000e9
_H20_SCALE_UP_BOTH_WAYS_BYTES_PER_S = 900e9


@dataclass(frozen=True, slots=True)
class ChipNumbers:
    """The numbers that the rules read."""

    tpp: float
    """Total processing performance: largest over data types of dense TOPS x bits of the operation."""
    pd: float | None
    """Performance density: TPP / die area [1/mm2]; None where the area is unknown."""
    io_bytes_per_s: float
    """Transfer rate of everything but memory, both directions added: scale-up and PCIe."""
    dram_bytes_per_s: float
    """Memory rate."""
    scale_up_both_ways_bytes_per_s: float
    """Scale-up rate, both directions added."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict of one rule on one part."""

    rule: str
    """Short name: `R2022`, `R2023.a`, ..."""
    citation: str
    effective: str
    """First day in force, ISO date."""
    until: str | None
    """Day on which a later rule took its place, ISO date; None: still in force."""
    kind: Literal["restricted", "flagged", "eligible"]
    """The question that `holds` answers: is the part restricted, flagged, or eligible for a licence case by case?"""
    holds: bool | None
    """True, False, or None where a needed number is unknown."""
    numbers: tuple[tuple[str, float | None, str], ...]
    """Numbers used: name, value, unit."""
    sentence: str


def chip_numbers(hardware: Hardware) -> ChipNumbers:
    """Compute TPP, PD and IO of a part.

    Parameters
    ----------
    hardware : Hardware

    Returns
    -------
    ChipNumbers

    Notes
    -----
    TPP = max over data types of dense rate [TOPS] x bits of the operation; PD = TPP / die area [mm2]; IO = 2 x scale-up + 2 x
    PCIe of one direction. That PCIe counts as I/O is our reading of the rule of 2022, the strict one.

    References
    ----------
    15 CFR 774, ECCN 3A090; 87 FR 62186, 88 FR 73458.

    Examples
    --------
    >>> from sim.cluster.hardware import load_hardware
    >>> round(chip_numbers(load_hardware("h800")).io_bytes_per_s / 1e9)
    528
    """
    gpu = hardware.gpu
    tpp = max(
        rate / 1e12 * bits
        for dtype, bits in _BITS.items()
        if (rate := getattr(gpu.dense_flops, dtype)) is not None
    )
    scale_up = 0.0 if gpu.scale_up.over_pcie else 2 * gpu.scale_up.bandwidth_bytes_per_s
    return ChipNumbers(
        tpp=tpp,
        pd=tpp / gpu.die_area_mm2 if gpu.die_area_mm2 else None,
        io_bytes_per_s=scale_up + (2 * gpu.pcie.bandwidth_bytes_per_s if gpu.pcie else 0.0),
        dram_bytes_per_s=gpu.hbm.bandwidth_bytes_per_s,
        scale_up_both_ways_bytes_per_s=scale_up,
    )


def verdicts(hardware: Hardware) -> tuple[Verdict, ...]:
    """Judge a part by every export rule.

    Parameters
    ----------
    hardware : Hardware

    Returns
    -------
    tuple of Verdict
        Oldest rule first.

    References
    ----------
    87 FR 62186, 88 FR 73458, 89 FR 96790, 91 FR 1684, and a letter to NVIDIA of 2025-04-09, known from its Form 8-K.
    """
    chip = chip_numbers(hardware)
    rules = (october_2022, october_2023_a, october_2023_b, december_2024, april_2025, january_2026)
    return tuple(rule(chip) for rule in rules)


def october_2022(chip: ChipNumbers) -> Verdict:
    """87 FR 62186: IO of 600 GB/s or more AND TPP of 4800 or more. The AND is why A800 and H800 exist."""
    fast_io, fast_compute = chip.io_bytes_per_s >= 600e9, chip.tpp >= 4800
    holds = fast_io and fast_compute
    io = f"I/O of {chip.io_bytes_per_s / 1e9:.0f} GB/s is {'at least' if fast_io else 'below'} 600"
    compute = f"TPP of {chip.tpp:.0f} is {'at least' if fast_compute else 'below'} 4800"
    return Verdict(
        rule="R2022",
        citation="87 FR 62186",
        effective="2022-10-07",
        until="2023-11-17",
        kind="restricted",
        holds=holds,
        numbers=(("IO", chip.io_bytes_per_s / 1e9, "GB/s"), ("TPP", chip.tpp, "")),
        sentence=f"{'Restricted' if holds else 'Not restricted'}: {io} and {compute}; both were needed.",
    )


def october_2023_a(chip: ChipNumbers) -> Verdict:
    """88 FR 73458, 3A090.a: TPP of 4800 or more, or TPP of 1600 or more at a PD of 5.92 or more."""
    dense = _within(chip.pd, 5.92, None)
    return _october_2023(chip, "a", _any(chip.tpp >= 4800, _all(chip.tpp >= 1600, dense)))


def october_2023_b(chip: ChipNumbers) -> Verdict:
    """88 FR 73458, 3A090.b: 2400 <= TPP < 4800 at 1.6 <= PD < 5.92, or TPP >= 1600 at 3.2 <= PD < 5.92."""
    first = _all(2400 <= chip.tpp < 4800, _within(chip.pd, 1.6, 5.92))
    second = _all(chip.tpp >= 1600, _within(chip.pd, 3.2, 5.92))
    return _october_2023(chip, "b", _any(first, second))


def december_2024(chip: ChipNumbers) -> Verdict:
    """89 FR 96790, 3A090.c: memory stacks traded alone above 2 GB/s per mm2; never memory packaged with a
    GPU."""
    return Verdict(
        rule="R2024",
        citation="89 FR 96790",
        effective="2024-12-02",
        until=None,
        kind="restricted",
        holds=False,
        numbers=(("memory", chip.dram_bytes_per_s / 1e9, "GB/s"),),
        sentence="Not restricted by this rule: it covers memory stacks traded alone, not beside a GPU.",
    )


def april_2025(chip: ChipNumbers) -> Verdict:
    """Letter of 9 April 2025 that put the H20 under licence; no published threshold: it is the measure."""
    memory = chip.dram_bytes_per_s >= _H20_MEMORY_BYTES_PER_S
    links = chip.scale_up_both_ways_bytes_per_s >= _H20_SCALE_UP_BOTH_WAYS_BYTES_PER_S
    reasons = [
        name for name, high in (("memory bandwidth", memory), ("interconnect bandwidth", links)) if high
    ]
    comparison = (
        f"{' and '.join(reasons)} at or above the H20's"
        if reasons
        else "memory and interconnect below the H20's"
    )
    return Verdict(
        rule="R2025-H20",
        citation="letter to NVIDIA of 2025-04-09, as told in its Form 8-K; no threshold published",
        effective="2025-04-09",
        until=None,
        kind="flagged",
        holds=bool(reasons),
        numbers=(
            ("memory", chip.dram_bytes_per_s / 1e9, "GB/s"),
            ("scale-up, both ways", chip.scale_up_both_ways_bytes_per_s / 1e9, "GB/s"),
        ),
        sentence=f"{'Flagged' if reasons else 'Not flagged'}: {comparison} "
        "(4000 or 900 GB/s; our reading of the letter).",
    )


def january_2026(chip: ChipNumbers) -> Verdict:
    """91 FR 1684: case by case below a TPP of 21000 and 6500 GB/s of memory, else presumed denial."""
    small, slow = chip.tpp < 21000, chip.dram_bytes_per_s < 6500e9
    holds = small and slow
    return Verdict(
        rule="R2026",
        citation="91 FR 1684",
        effective="2026-01-15",
        until=None,
        kind="eligible",
        holds=holds,
        numbers=(("TPP", chip.tpp, ""), ("memory", chip.dram_bytes_per_s / 1e9, "GB/s")),
        sentence=f"{'Reviewed case by case' if holds else 'Denial presumed'}: TPP of {chip.tpp:.0f} is "
        f"{'below' if small else 'at least'} 21000 and memory of {chip.dram_bytes_per_s / 1e9:.0f} GB/s "
        f"{'below' if slow else 'at least'} 6500; both must be below.",
    )


def _october_2023(chip: ChipNumbers, letter: str, holds: bool | None) -> Verdict:
    density = "unknown" if chip.pd is None else f"{chip.pd:.2f}"
    verdict = {True: "Restricted", False: "Not restricted", None: "Undecided without the die area"}[holds]
    way = ", with the notified licence exception open" if letter == "b" and holds else ""
    return Verdict(
        rule=f"R2023.{letter}",
        citation=f"88 FR 73458, 3A090.{letter}",
        effective="2023-11-17",
        until=None,
        kind="restricted",
        holds=holds,
        numbers=(("TPP", chip.tpp, ""), ("PD", chip.pd, "1/mm2")),
        sentence=f"{verdict} by paragraph {letter} at a TPP of {chip.tpp:.0f} and a density of {density}{way}.",
    )


def _within(value: float | None, low: float, below: float | None) -> bool | None:
    if value is None:
        return None
    return value >= low and (below is None or value < below)


def _all(*terms: bool | None) -> bool | None:
    return False if False in terms else None if None in terms else True


def _any(*terms: bool | None) -> bool | None:
    return True if True in terms else None if None in terms else False
