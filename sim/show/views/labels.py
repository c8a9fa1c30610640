"""Axes by the names that a reader gives them, and values of axes and metrics as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sim.metrics import dimension_of
from sim.show.grid import Cell, padded
from sim.show.views.names import LABEL
from sim.units import show

_SHORT = {"sms": "SMs", "gpu": "GPU", "hbm": "HBM", "nic": "NIC", "nvlink": "NVLink", "pcie": "PCIe"}
_LAYOUT = ("pp", "ep", "etp", "tp", "dp", "cp")


def axis_label(name: str) -> str:
    """Return the short name of an axis: `layout.pp` -> `PP`, `workload.kernel.comm_sms` -> `comm SMs`."""
    last = name.rpartition(".")[2]
    if last in _LAYOUT:
        return last.upper()
    if name.endswith("scale_up.bandwidth"):
        return "NVLink"
    if name.endswith("nic.bandwidth"):
        return "NIC"
    return " ".join(_SHORT.get(word, word) for word in last.split("_"))


def value_label(value: Any) -> str:
    """Return a value of an axis as text, thousands apart: `131072` -> `131,072`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_label(part)}" for key, part in value.items())
    text = str(value)
    return f"{int(text):,}" if re.fullmatch(r"[1-9]\d{3,}", text) else text


def values_text(values: Mapping[str, Any], axes: Iterable[str]) -> str:
    """Return the values of some axes in words: `PP 16, EP 64, TP 1, dualpipe`."""
    words = []
    for name in axes:
        value = values[name]
        is_name = isinstance(value, str) and not re.match(r"[\d.]+(\s|$)", value)
        words.append(value if is_name else f"{axis_label(name)} {value_label(value)}")
    return ", ".join(words)


def metric_cell(name: str, value: Any) -> Cell:
    """Return the value of a metric, number or word, as a cell; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return LABEL.get(value, value.replace("_", " "))
    if value == 0:
        return "0"
    dimension = dimension_of(name)
    if dimension == "number":
        return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else padded(f"{value:.4g}")
    return padded(show(float(value), dimension))
