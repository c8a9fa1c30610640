"""Packed documents in the plan of a training step: rows of loads by which its attention takes longer or shorter.

Every data-parallel rank has documents of its own, so that all EP groups draw, whatever `skew.groups` says of the rest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.runs.step_traffic import Place
from sim.schedule.training import Tasks
from sim.workload.layout import Layout


def spread_loads(
    tasks: Tasks, loads: Floats, num_layers: int, place: Place, layout: Layout
) -> tuple[Tasks, Floats]:
    """Put nodes that have a `LoadSpread` on rows of the loads, behind those of the model's layers.

    Parameters
    ----------
    tasks : Tasks
    loads : float, [groups or 1, num_layers, microbatches, lanes]
        Routed loads as of `StepPlan`, empty where all are 1.
    num_layers : int [count]
        Rows of routed loads.
    place : Place
    layout : Layout

    Returns
    -------
    Tasks, float array
        The same where nothing has a spread.
    """
    spreads = list(
        dict.fromkeys(node.spread for program, _ in tasks.programs for node in program if node.spread)
    )
    if not spreads:
        return tasks, loads
    dp, cp = _coordinates(place, layout, "dp"), _coordinates(place, layout, "cp")
    rows = []
    for spread in spreads:
        own = cp if spread.loads.shape[1] > 1 else np.zeros_like(cp)
        rows.append(spread.loads[dp, own].transpose(0, 2, 1))  # [groups, microbatches, lanes]
    documents = np.stack(rows, axis=1)
    groups = max(place.num_groups, len(loads))
    if not loads.size:
        shape = (1, num_layers, *documents.shape[2:])
        loads = np.ones(shape)
    together = np.concatenate([np.broadcast_to(loads, (groups, *loads.shape[1:])), documents], axis=1)
    row = {spread: num_layers + number for number, spread in enumerate(spreads)}
    programs = tuple(
        (tuple(node._replace(layer=row[node.spread]) if node.spread else node for node in program), beside)
        for program, beside in tasks.programs
    )
    return replace(tasks, programs=programs), together


def _coordinates(place: Place, layout: Layout, dimension: str) -> Ints:
    """Coordinate of each rank of a stage in a dimension of the attention ranks, [groups, lanes]."""
    of_rank = np.empty(layout.num_ranks, dtype=np.int64)
    others = [name for name in ("pp", "dp", "cp", "tp") if name != dimension]
    for number, members in enumerate(layout.groups(*others)):
        of_rank[members] = number
    return np.asarray(of_rank[place.ranks[0]])
