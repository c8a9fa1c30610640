"""Every kind of plot by its name: `KINDS[name]` is a sentence and a function from a view (of a study: its document) to a figure.

Kinds in `ALONE` show a single run; `figures` draws one for each variant, the functions themselves the first. Figures are
plain data; plotly is imported when `figure` is asked for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sim.errors import Fault, InputError, nearest
from sim.show.canvas import Drawn, absent
from sim.show.kinds import kind_of, module
from sim.show.plots import (
    enough,
    fabric,
    inference,
    ladder,
    loads,
    pair,
    roofline,
    serving,
    sweep,
    timeline,
    transfers,
)
from sim.show.plots import validation as validations
from sim.show.views.run import RunsView, views_of

Shown = Mapping[str, Any] | RunsView
"""A document, or the views of a run's."""
Draw = Callable[[Any], Drawn]


def _by_workload(kind: str) -> Draw:
    """Draw a kind that several workloads have each in their own way, by the first run's."""

    def draw(runs: RunsView) -> Drawn:
        family = runs.runs[0].family
        own: Draw | None = getattr(module("plots", family), kind, None)
        if own is None:
            raise absent(kind, "no plot of this kind of workload shows it")
        return own(runs)

    return draw


KINDS: dict[str, tuple[str, Draw]] = {
    "bars": ("Time of dispatch and combine beside its lower bound, coloured by what binds.", transfers.bars),
    "utilisation": (
        "How full each class of links is over time, of what kernels reach: mean and busiest.",
        loads.utilisation,
    ),
    "links": ("Load of every single link, of what kernels reach on it, by class and direction.", loads.links),
    "rank_times": ("When each rank ends, beside the mean.", transfers.rank_times),
    "fabric_map": ("The cluster from GPUs to spines, coloured by load.", fabric.fabric_map),
    "traffic_matrix": ("Bytes from every rank to every other, with node borders.", loads.traffic_matrix),
    "rank_loads": ("Load of every rank's experts over the mean, before and after EPLB.", loads.rank_loads),
    "interactivity": (
        "Tokens a second of a GPU against those of a user, one point a decode variant.",
        inference.interactivity,
    ),
    "timeline": ("Every operation, kernel, request or flow over time, row by row.", timeline.timeline),
    "layer_pair": (
        "One overlapped layer pair: compute beside exchanges, and a real trace's.",
        pair.layer_pair,
    ),
    "roofline": (
        "Kernels of one layer under the roofs of the GPU: FLOP/s against FLOPs per byte.",
        roofline.roofline,
    ),
    "phases": (
        "Where the time goes: phases of a training step, parts of a pass, stages of a request's life.",
        _by_workload("phases"),
    ),
    "memory": (
        "What a GPU holds by part, beside what it has; of each pipeline rank in training.",
        _by_workload("memory"),
    ),
    "queues": ("Requests that wait, prefill, move and decode, over time.", serving.queues),
    "latencies": ("How TTFT and TPOT spread over requests, with the objectives.", serving.latencies),
    **sweep.KINDS,
    **ladder.KINDS,
    **enough.KINDS,
    "validation": ("Error of every published figure, with its tolerance, by group.", validations.validation),
}
ALONE = (
    "utilisation", "links", "rank_times", "fabric_map", "traffic_matrix", "timeline", "layer_pair", "roofline", "queues",
)  # fmt: skip
"""Kinds of a single run; `ALONE` of a workload's own module names those that it draws so."""
_DOCUMENTS = {
    "run": "the result of a run",
    "validation": "a document of `moesim validate --json`",
    "sweep": "the sweep.json of `moesim sweep`",
    "ladder": "the ladder.json of `moesim ladder`",
}
_OWNERS = {
    "validation": "validation",
    **dict.fromkeys(sweep.KINDS, "sweep"),
    **dict.fromkeys((*ladder.KINDS, *enough.KINDS), "ladder"),
}
"""Kind -> which document it draws; all others draw a run's."""


def check_kind(kind: str) -> str:
    """The kind itself. Raises `InputError` for one that there is not."""
    if kind not in KINDS:
        wanted = f"one of: {', '.join(KINDS)}"
        raise InputError(Fault(None, "kind", f"'{kind}'", wanted, nearest(kind, KINDS)))
    return kind


def figure(kind: str, shown: Shown) -> Any:
    """Draw one kind as a `plotly.graph_objects.Figure`. Raises `InputError` as `draw`."""
    import plotly.graph_objects as go

    return go.Figure(draw(kind, shown))


def draw(kind: str, shown: Shown) -> Drawn:
    """Draw one kind. Raises `InputError` for an unknown kind, and for one that there is no data for."""
    check_kind(kind)
    owner, asked = _document(shown), _OWNERS.get(kind, "run")
    if owner != asked:
        kinds = ", ".join(name for name in KINDS if _OWNERS.get(name, "run") == owner)
        wanted = f"{_DOCUMENTS[asked]}; this document can be drawn as {kinds}"
        raise InputError(Fault(None, "kind", f"'{kind}'", wanted))
    return KINDS[kind][1](_view(shown))


def _document(shown: Shown) -> str:
    return "run" if isinstance(shown, RunsView) else kind_of(shown)


def _view(shown: Shown) -> Shown:
    """The views of a run's document; what is none stays as it is."""
    return views_of(shown) if isinstance(shown, Mapping) and kind_of(shown) == "run" else shown


def figures(kind: str, shown: Shown) -> dict[str, Drawn]:
    """The figures of one kind by file name without ending: `utilisation`, or `utilisation-h800-ep8` for each variant.

    Variants without the data are left out where another has it; where none has, the `InputError` says why. A ladder's
    sections give a figure for each of their entries: `enough-nvlink`.
    """
    if kind in enough.SECTIONS and _document(shown) == "ladder":
        return enough.several(kind, shown)
    view = _view(shown)
    if not isinstance(view, RunsView) or not view.has_variants or not _is_alone(kind, view):
        return {kind: draw(kind, view)}
    drawn: dict[str, Drawn] = {}
    refused: list[InputError] = []
    for run in view.runs:
        try:
            drawn[f"{kind}-{run.variant}"] = draw(kind, view.alone(run))
        except InputError as error:
            refused.append(error)
    if refused and not drawn:
        raise InputError(refused[0].faults)
    return drawn


def _is_alone(kind: str, runs: RunsView) -> bool:
    return kind in ALONE or kind in getattr(module("plots", runs.runs[0].family), "ALONE", ())


def drawable(shown: Shown, kinds: Iterable[str] = KINDS) -> dict[str, Drawn]:
    """All kinds that there is data for, drawn."""
    view, drawn = _view(shown), {}
    for kind in kinds:
        try:
            drawn[kind] = draw(kind, view)
        except InputError:
            continue
    return drawn
