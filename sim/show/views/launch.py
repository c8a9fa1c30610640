"""The view of a launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sim.show.views.run import RunView

SIZES = ()
_SHAPE = ("experts", "m", "n", "k")


@dataclass(frozen=True, kw_only=True, eq=False)
class LaunchView(RunView):
    """A launch: its time, the least that it could take, and what it computes and moves."""

    family: ClassVar[str] = "launch"

    time_s: float
    lower_bound_s: float
    flops: float
    bytes: float
    binding: str


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Operation, shape and format."""
    shape = " x ".join(str(work[key]) for key in _SHAPE if work.get(key))
    return [
        ("operation", str(work.get("op") or "").replace("_", " ")),
        ("shape", shape),
        ("format", work.get("dtype")),
    ]


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of a launch."""
    return "flops" in metrics and "bytes" in metrics


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> LaunchView:
    """Read a launch."""
    metrics = result["metrics"]
    return LaunchView(
        **common, **{key: metrics[key] for key in ("time_s", "lower_bound_s", "flops", "bytes", "binding")}
    )


def lanes_of(result: Mapping[str, Any]) -> None:
    """A launch has no timeline."""
