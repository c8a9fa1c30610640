"""Every kind of plot by its name: `KINDS[name]` is a sentence and a function from the view of a document to a picture.

Kinds in `ALONE` show a single run; `pictures` draws one for each variant, the functions themselves the first. `figure` and
`figures` return the same as plotly figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sim.errors import InputError, Problem, nearest
from sim.show.canvas import Picture, absent
from sim.show.failures import Failure, attempt
from sim.show.kinds import Kind, kind_of, module
from sim.show.views.run import RunsView, RunView

Document = Mapping[str, Any]
_VIEWS: dict[Kind, tuple[str, str]] = {
    "run": ("run", "views_of"),
    "validation": ("validation", "validation_view"),
    "sweep": ("sweep", "sweep_view"),
    "ladder": ("ladder", "ladder_view"),
}
"""Kind of document -> module of `views` and its function that makes what plots are drawn from."""
Draw = Callable[[Any], Picture]


def _drawn(name: str, function: str) -> Draw:
    """What a function of a module of plots draws; the module is imported when it draws, since a document has few kinds."""

    def draw(view: Any) -> Picture:
        own: Draw = getattr(module("plots", name), function)
        return own(view)

    return draw


def _by_workload(kind: str) -> Draw:
    """Draw a kind that workloads have each in their own way, if at all, by the first run's."""

    def draw(runs: RunsView) -> Picture:
        family = runs.runs[0].family
        own: Draw | None = getattr(module("plots", family), kind, None)
        if own is None:
            raise absent(kind, "this one is no training step, pass or service that has it")
        return own(runs)

    return draw


_OF: dict[Kind, dict[str, tuple[str, Draw]]] = {
    "run": {
        "bars": (
            "Time of dispatch and combine beside its lower bound, coloured by what binds.",
            _by_workload("bars"),
        ),
        "utilisation": (
            "How full each class of links is over time, of what kernels reach: mean and busiest.",
            _drawn("loads", "utilisation"),
        ),
        "links": (
            "Load of every single link, of what kernels reach on it, by class and direction.",
            _drawn("loads", "links"),
        ),
        "rank_times": ("When each rank ends, beside the mean.", _drawn("transfers", "rank_times")),
        "fabric_map": (
            "The cluster from GPUs to spines, coloured by load.",
            _drawn("fabric", "fabric_map"),
        ),
        "traffic_matrix": (
            "Bytes from every rank to every other, with node borders.",
            _drawn("loads", "traffic_matrix"),
        ),
        "rank_loads": (
            "Load of every rank's experts over the mean, before and after EPLB.",
            _drawn("loads", "rank_loads"),
        ),
        "interactivity": (
            "Tokens a second of a GPU against those of a user, one point a decode variant.",
            _drawn("inference", "interactivity"),
        ),
        "timeline": (
            "Every operation, kernel, request or flow over time, row by row.",
            _drawn("timeline", "timeline"),
        ),
        "layer_pair": (
            "One overlapped layer pair: compute beside exchanges, and a real trace's.",
            _drawn("pair", "layer_pair"),
        ),
        "roofline": (
            "Kernels of one layer under the roofs of the GPU: FLOP/s against FLOPs per byte.",
            _drawn("roofline", "roofline"),
        ),
        "phases": (
            "Where the time goes: phases of a training step, parts of a pass, stages of a request's life.",
            _by_workload("phases"),
        ),
        "whole_run": (
            "Cost of a whole training run, phase by phase, or what failures take of it.",
            _by_workload("whole_run"),
        ),
        "energy": (
            "Energy by where it goes: GPUs by what holds them, network, hosts, building.",
            _drawn("energy", "energy"),
        ),
        "memory": (
            "What a GPU holds by part, beside what it has; of each pipeline rank in training.",
            _by_workload("memory"),
        ),
        "queues": ("Requests that wait, prefill, move and decode, over time.", _drawn("serving", "queues")),
        "tail": ("Samples of a rollout that are left, over time.", _by_workload("tail")),
        "latencies": (
            "How TTFT and TPOT spread over requests, with the objectives.",
            _drawn("serving", "latencies"),
        ),
    },
    "sweep": {
        "pareto": ("Sweep: the points that no other beats, and all others.", _drawn("sweep", "pareto")),
        "parallel": (
            "Sweep: every point as a line through its values, coloured by the objective.",
            _drawn("parallel", "parallel"),
        ),
        "map": (
            "Sweep: the best that each pair of values allows, as a heat map.",
            _drawn("map", "sweep_map"),
        ),
    },
    "ladder": {
        "ladder": (
            "What each design choice moves on every machine, rung by rung, and the gap.",
            _drawn("ladder", "ladder"),
        ),
        "choices": (
            "What each design choice moves alone, and what its removal from the full design moves.",
            _drawn("ladder", "choices"),
        ),
        "enough": (
            "How much of a link is enough: time above an unlimited one, by its rate.",
            _drawn("enough", "first_enough"),
        ),
        "break_even": (
            "Machines along an axis, and where the reference breaks even.",
            _drawn("enough", "first_break_even"),
        ),
        "exchange": (
            "Designs by the NVLink bytes that they ask for each NIC byte, and how much longer they take.",
            _drawn("exchange", "exchange"),
        ),
        "search": (
            "How much longer a machine takes with each choice held, next to what holding it costs.",
            _drawn("search", "search"),
        ),
    },
    "validation": {
        "validation": (
            "Error of every published figure, with its tolerance, by group.",
            _drawn("validation", "validation"),
        ),
    },
}
"""Kind of document -> the kinds of plot that it has: a sentence, and what draws it."""
KINDS = {name: kind for kinds in _OF.values() for name, kind in kinds.items()}
_OWNERS = {name: whose for whose, kinds in _OF.items() for name in kinds}
"""Kind of plot -> the kind of document that it draws."""
_SEVERAL = ("enough", "break_even")
"""Kinds with a plot for each entry of a section."""
ALONE = (
    "utilisation", "links", "rank_times", "fabric_map", "traffic_matrix", "timeline", "layer_pair", "roofline", "queues",
)  # fmt: skip
"""Kinds of a single run; `ALONE` of a workload's own module names those that it draws so."""
_DOCUMENTS: dict[Kind, str] = {
    "run": "the result of a run",
    "validation": "a document of `moesim validate --json`",
    "sweep": "the sweep.json of `moesim sweep`",
    "ladder": "the ladder.json of `moesim ladder`",
}


def check_kind(kind: str) -> str:
    """The kind itself. Raises `InputError` for one that there is not."""
    if kind not in KINDS:
        wanted = f"one of: {', '.join(KINDS)}"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted, nearest(kind, KINDS)))
    return kind


def picture(kind: str, document: Document) -> Picture:
    """Draw one kind. Raises `InputError` for an unknown kind, and for one that the document has no data for."""
    return KINDS[check_kind(kind)][1](_view(kind, document))


def _view(kind: str, document: Document) -> Any:
    """The view of a document that a kind of plot draws. Raises `InputError` for a document that it does not."""
    owner, asked = kind_of(document), _OWNERS[kind]
    if owner != asked:
        wanted = f"{_DOCUMENTS[asked]}; this document can be drawn as {', '.join(_OF[owner])}"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted))
    return _view_of(document)


def _view_of(document: Document) -> Any:
    name, function = _VIEWS[kind_of(document)]
    return getattr(module("views", name), function)(document)


def pictures(kind: str, document: Document) -> dict[str, Picture]:
    """Draw one kind by file name without ending: `utilisation`, or `utilisation-h800-ep8` for each variant.

    Variants without the data are left out where another has it; where none has, the `InputError` says why. A ladder's
    sections give a picture for each of their entries: `enough-nvlink`.
    """
    view, draw = _view(check_kind(kind), document), KINDS[kind][1]
    if kind in _SEVERAL:
        several: dict[str, Picture] = module("plots", "enough").several(kind, view)
        return several
    if not isinstance(view, RunsView) or not view.has_variants or not is_alone(kind, view.runs[0]):
        return {kind: draw(view)}
    drawn: dict[str, Picture] = {}
    refused: list[InputError] = []
    for run in view.runs:
        try:
            drawn[f"{kind}-{run.variant}"] = draw(view.alone(run))
        except InputError as error:
            refused.append(error)
    if refused and not drawn:
        raise InputError(refused[0].problems)
    return drawn


def is_alone(kind: str, run: RunView) -> bool:
    """Check that a kind shows one run at a time, as it draws this run's kind of workload."""
    return kind in ALONE or kind in module("plots", run.family).ALONE


def drawable(document: Document, kinds: Iterable[str] = KINDS) -> dict[str, Picture | Failure]:
    """Draw all kinds that the document has data for, as `drawn_from` does."""
    own = _OF[kind_of(document)]
    return drawn_from(_view_of(document), [kind for kind in kinds if kind in own])


def drawn_from(view: Any, kinds: Iterable[str]) -> dict[str, Picture | Failure]:
    """Draw those of some kinds that a view has data for; a `Failure` where one could not be drawn."""
    drawn: dict[str, Picture | Failure] = {}
    for kind in kinds:
        try:
            drawn[kind] = attempt(kind, partial(KINDS[kind][1], view))
        except InputError:
            continue
    return drawn


def figure(kind: str, document: Document) -> Any:
    """`picture` as a `plotly.graph_objects.Figure`."""
    return picture(kind, document).figure()


def figures(kind: str, document: Document) -> dict[str, Any]:
    """`pictures` as `plotly.graph_objects.Figure`s."""
    return {name: drawn.figure() for name, drawn in pictures(kind, document).items()}
