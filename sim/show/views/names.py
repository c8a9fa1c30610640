"""Names of metrics, resource classes and hardware as a reader calls them."""

from __future__ import annotations

from collections.abc import Sequence

from sim.metrics import dimension_of
from sim.units import show

LABEL = {
    "nic": "NIC",
    "scale_up": "NVLink",
    "leaf_uplink": "leaf uplink",
    "pcie": "PCIe",
    "copy_sms": "copy SMs",
    "hbm": "HBM",
    "compute": "compute",
    "latency": "latency",
}
"""Resource classes as a reader calls them, in the order in which they are drawn."""

_NAMES = ("scale_up", "pcie", "hbm", "compute")  # classes called by a name, without an article


def binds(binding: str) -> str:
    """`the NIC binds`, or that nothing was full for long."""
    if binding == "latency":
        return "latency decides, no link on its path stays full"
    verb = "bind" if binding == "copy_sms" else "binds"
    return f"{called(binding)} {verb}"


def called(name: str) -> str:
    """A resource class within a sentence: `the NIC`, `NVLink`."""
    return label(name) if name in _NAMES else f"the {label(name)}"


def label(name: str) -> str:
    """A resource class as a reader calls it."""
    return LABEL.get(name, name.replace("_", " "))


def value(key: str, number: float, digits: int = 4) -> str:
    """A metric by its dotted name, with its unit."""
    return show(number, dimension_of(key), digits)


J_IN_KWH = 3.6e6


def energy_unit(largest_j: float) -> tuple[float, str]:
    """Divisor and unit in which energies up to `largest_j` [J] are read well."""
    steps = (
        (1e3 * J_IN_KWH, "MWh"),
        (J_IN_KWH, "kWh"),
        (1e-3 * J_IN_KWH, "Wh"),
        (1.0, "J"),
        (1e-3, "mJ"),
        (1e-6, "µJ"),
    )
    return next(((factor, unit) for factor, unit in steps if largest_j >= factor), steps[-1])


def hardware_name(name: str) -> str:
    """`h800` -> `H800`; longer names stay as they are."""
    return " ".join(
        word.upper() if any(c.isdigit() for c in word) and len(word) <= 5 else word for word in name.split()
    )


def joined(names: Sequence[str], by: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {by} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def capital(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
