"""Every kind of plot by its name: `KINDS[name]` is a sentence and a function from a result document to a figure.

Kinds in `OF_ONE_CASE` show a single run; `figures` draws one for each variant, the functions themselves the first.
Plotly is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sim.errors import InputError, Problem, nearest
from sim.show.failures import attempt
from sim.show.plots import enough as plot_enough
from sim.show.plots import fabric as plot_fabric
from sim.show.plots import inference as plot_inference
from sim.show.plots import ladder as plot_ladder
from sim.show.plots import loads as plot_loads
from sim.show.plots import pair as plot_pair
from sim.show.plots import roofline as plot_roofline
from sim.show.plots import serving as plot_serving
from sim.show.plots import sweep as plot_sweep
from sim.show.plots import timeline as plot_timeline
from sim.show.plots import times as plot_times
from sim.show.plots import training as plot_training
from sim.show.plots import validation as validation_plots
from sim.show.views import inference as inference_views
from sim.show.views import serving as serving_views
from sim.show.views import sweep as sweeps
from sim.show.views.ladder import is_ladder
from sim.show.views.run import Result, cases
from sim.show.views.validation import is_validation

Figure = Any  # plotly.graph_objects.Figure, which carries no types
Draw = Callable[[Result], Figure]


def _of_kind(result: Result, step: Draw, one_pass: Draw, service: Draw | None = None) -> Figure:
    """Draw a kind that several workloads have, by the first case's."""
    first = cases(result)[0]
    if inference_views.is_inference(first):
        return one_pass(result)
    return service(result) if service and serving_views.is_serving(first) else step(result)


KINDS: dict[str, tuple[str, Draw]] = {
    "bars": ("Time of dispatch and combine beside its lower bound, coloured by what binds.", plot_times.bars),
    "utilisation": (
        "How full each class of links is over time, of what kernels reach: mean and busiest.",
        plot_loads.utilisation,
    ),
    "links": (
        "Load of every single link, of what kernels reach on it, by class and direction.",
        plot_loads.links,
    ),
    "rank_times": ("When each rank ends, beside the mean.", plot_times.rank_times),
    "fabric_map": ("The cluster from GPUs to spines, coloured by load.", plot_fabric.fabric_map),
    "traffic_matrix": ("Bytes from every rank to every other, with node borders.", plot_loads.traffic_matrix),
    "rank_loads": (
        "Load of every rank's experts over the mean, before and after EPLB.",
        plot_loads.rank_loads,
    ),
    "interactivity": (
        "Tokens a second of a GPU against those of a user, one point a decode variant.",
        plot_inference.interactivity,
    ),
    "timeline": (
        "Every operation, kernel, request or flow over time, row by row.",
        plot_timeline.timeline,
    ),
    "layer_pair": (
        "One overlapped layer pair: compute beside exchanges, and a real trace's.",
        plot_pair.layer_pair,
    ),
    "roofline": (
        "Kernels of one layer under the roofs of the GPU: FLOP/s against FLOPs per byte.",
        plot_roofline.roofline,
    ),
    "phases": (
        "Where the time goes: phases of a training step, parts of a pass, stages of a request's life.",
        lambda result: _of_kind(result, plot_training.phases, plot_inference.phases, plot_serving.phases),
    ),
    "memory": (
        "What a GPU holds by part, beside what it has; of each pipeline rank in training.",
        lambda result: _of_kind(result, plot_training.memory, plot_inference.memory),
    ),
    "queues": ("Requests that wait, prefill, move and decode, over time.", plot_serving.queues),
    "latencies": (
        "How TTFT and TPOT spread over requests, with the objectives.",
        plot_serving.latencies,
    ),
    **plot_sweep.KINDS,
    **plot_ladder.KINDS,
    **plot_enough.KINDS,
    "validation": (
        "Error of every published figure, with its tolerance, by group.",
        validation_plots.validation,
    ),
}

OF_ONE_CASE = (
    "utilisation", "links", "rank_times", "fabric_map", "traffic_matrix", "timeline", "layer_pair", "roofline",
    "memory", "queues",
)  # fmt: skip


_DOCUMENTS = {
    "run": "the result of a run",
    "validation": "a document of `moesim validate --json`",
    "sweep": "the sweep.json of `moesim sweep`",
    "ladder": "the ladder.json of `moesim ladder`",
}
_OWNERS = {
    "validation": "validation",
    **dict.fromkeys(plot_sweep.KINDS, "sweep"),
    **dict.fromkeys((*plot_ladder.KINDS, *plot_enough.KINDS), "ladder"),
}
"""Kind -> which document it draws; all others draw a run's."""


def _document_of(result: Result) -> str:
    if is_validation(result):
        return "validation"
    if sweeps.is_sweep(result):
        return "sweep"
    return "ladder" if is_ladder(result) else "run"


def check_kind(kind: str) -> str:
    """The kind itself. Raises `InputError` for one that there is not."""
    if kind not in KINDS:
        wanted = f"one of: {', '.join(KINDS)}"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted, nearest(kind, KINDS)))
    return kind


def figure(kind: str, result: Result) -> Figure:
    """Draw one kind. Raises `InputError` for an unknown kind, and for one that the result has no data for."""
    check_kind(kind)
    whose, asked = _document_of(result), _OWNERS.get(kind, "run")
    if whose != asked:
        has = [one for one in KINDS if _OWNERS.get(one, "run") == whose]
        wanted = f"{_DOCUMENTS[asked]}; this document can be drawn as {', '.join(has)}"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted))
    return KINDS[kind][1](result)


def figures(kind: str, result: Result) -> dict[str, Figure]:
    """The figures of one kind by file name without ending: `utilisation`, or `utilisation-h800-ep8` for each variant.

    Variants without the data are left out where another has it; where none has, the `InputError` says why. A ladder's
    sections give a figure for each of their entries: `enough-nvlink`.
    """
    if is_ladder(result) and kind in plot_enough.SECTIONS:
        return plot_enough.several(kind, result)
    together = kind not in OF_ONE_CASE or (
        kind == "memory" and inference_views.is_inference(cases(result)[0])
    )
    if together or "variants" not in result:
        return {kind: figure(kind, result)}
    found: dict[str, Figure] = {}
    refused: list[InputError] = []
    for case in cases(result):
        try:
            found[f"{kind}-{case.variant}"] = figure(kind, {"variants": {case.variant: case.result}})
        except InputError as error:
            refused.append(error)
    if refused and not found:
        raise InputError(refused[0].problems)
    return found


def drawable(result: Result, kinds: Iterable[str] = KINDS) -> dict[str, Figure]:
    """All kinds that the result has data for, drawn; a `failures.Failure` where one could not be."""
    found = {}
    for kind in kinds:
        try:
            found[kind] = attempt(kind, partial(figure, kind, result))
        except InputError:
            continue
    return found
