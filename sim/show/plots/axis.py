"""The axis of a metric: the unit in which its values are read well, and its title."""

from __future__ import annotations

from sim.show import style


def reading_unit(dimension: str, largest: float) -> tuple[float, str]:
    """Return the divisor and the unit in which values up to `largest` [SI] of a dimension are read well."""
    if dimension == "s":
        return style.time_unit(largest)
    if dimension in ("bytes", "bytes/s"):
        scale, unit = style.bytes_unit(largest)
        return scale, unit + ("/s" if dimension == "bytes/s" else "")
    return (0.01, "%") if dimension == "fraction" else (1.0, "")


def axis_title(label: str, unit: str) -> str:
    """Return a name and its unit, as an axis has them."""
    return f"{label} [{unit}]" if unit else label
