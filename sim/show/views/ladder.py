"""TODO sim/show/views/ladder.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from sim.show.grid import Cell
from sim.show.views import names as names_views
from sim.show.views import sweep as sweeps
from sim.show.views.ladder_changes import Document, Rung
from sim.show.views.run import Case
from sim.trees import flatten
from sim.units import dimension_of, show

NAMES = {
    "step_time_s": "the step",
    "tokens_per_s_per_gpu": "tokens a second and GPU",
    "tokens_per_s_per_node": "tokens a second and node",
    "tokens_per_s_per_user": "tokens a second and user",
    "requests_per_gpu": "requests a GPU",
    "tpot_s": "time per output token",
    "ttft_s": "time to the first token",
    "layer_comm_alone_s": "exchanges of one layer",
    "layer_time_s": "one layer",
    "exposed_comm_s": "exposed communication",
    "dispatch.time_s": "dispatch",
    "combine.time_s": "combine",
    "dispatch.time_s + combine.time_s": "dispatch and combine",
}
"""Metric -> what a reader calls it; others are called as in sweeps."""


WAYS = {"cumulative": "in its turn", "added_first": "alone", "removed_last": "removed last"}
"""How a rung is read -> what a reader calls it."""


def is_ladder(document: Document) -> bool:
    """Whether a document is what `moesim ladder --json` prints."""
    return str(document.get("schema", "")).startswith("moesim.ladder/")


def machine(name: str) -> str:
    """`h800` -> `H800`, `h100-235` -> `H100-235`."""
    return "-".join(names_views.hardware_name(part) for part in name.split("-"))


def machines(document: Document) -> list[Case]:
    """The machines of a ladder that ran, each as a case: its scenario and what it leaned on."""
    return [
        Case(name, {"scenario": one["scenario"], "provenance": one["provenance"]})
        for name, one in document["hardware"].items()
        if "scenario" in one
    ]


def called(metric: str) -> str:
    """What a reader calls a metric."""
    return NAMES.get(metric) or " + ".join(sweeps.label(part.strip()) for part in metric.split("+"))


def said(metric: str, value: float | None, digits: int = 3) -> Cell:
    """A value of a metric with its unit; `-` for none."""
    if value is None:
        return "-"
    dimension = dimension_of(metric.partition("+")[0].strip())
    if dimension == "number" and abs(value) >= 1000:
        return f"{value:,.0f}"
    return show(value, dimension, digits)


def beside(document: Document, metrics: Mapping[str, Any] | None, but: str) -> dict[str, Cell]:
    """What a run says of the metrics that are shown beside the one that is compared, `but`."""
    known = flatten(metrics or {})
    found: dict[str, Cell] = {}
    for name in (one["name"] for one in document["beside"] if one["name"] != but):
        parts = [known.get(part.strip()) for part in name.split("+")]
        whole = [part for part in parts if part is not None]
        found[name] = said(name, sum(whole) if len(whole) == len(parts) else None)
    return found


def steps(document: Document) -> Iterator[tuple[Rung, Rung]]:
    """Each choice with the rung before it."""
    yield from pairwise(document["rungs"])


def other(document: Document) -> str | None:
    """The machine that the reference is compared with first; None where it stands alone."""
    return next((name for name in document["hardware"] if name != document["reference"]), None)


def upper(text: str) -> str:
    """A text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
