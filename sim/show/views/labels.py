"""Axes and metrics by the names that a reader gives them, and their values as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sim.show.grid import Cell, padded
from sim.show.views.names import LABEL
from sim.units import dimension_of, show

_SHORT = {"sms": "SMs", "gpu": "GPU", "hbm": "HBM", "nic": "NIC", "nvlink": "NVLink", "pcie": "PCIe"}
_LAYOUT = ("pp", "ep", "tp", "dp", "cp")
_METRICS = {
    "step_time_s": "step", "tpot_s": "TPOT", "ttft_s": "TTFT", "mfu_causal_fraction": "MFU", "bubble_s": "bubble",
    "exposed_comm_s": "exposed", "memory_peak_bytes": "memory", "max_batch_per_gpu": "max batch", "tokens_per_s_per_gpu": "tokens/s/GPU",
    "tokens_per_s_per_user": "tokens/s/user", "tokens_per_s_per_node": "tokens/s/node", "run_cost_usd": "cost [$]", "run_gpu_hours": "GPU-hours",
}  # fmt: skip


def metric_label(name: str) -> str:
    """Return the short name of a metric: `step_time_s` -> `step`, `dispatch.time_s` -> `dispatch time`."""
    if name in _METRICS:
        return _METRICS[name]
    words = re.sub(r"_(bytes_per_s|bytes|fraction|s)$", "", name)
    return words.replace("_", " ").replace(".", " ")


def axis_label(name: str) -> str:
    """Return the short name of an axis: `layout.pp` -> `PP`, `workload.kernel.comm_sms` -> `comm SMs`."""
    last = name.rpartition(".")[2]
    if last in _LAYOUT:
        return last.upper()
    if name.endswith("scale_up.bandwidth"):
        return "NVLink"
    return " ".join(_SHORT.get(word, word) for word in last.split("_"))


def value_label(value: Any) -> str:
    """Return a value of an axis as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


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
