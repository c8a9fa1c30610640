"""Bytes to move and products to compute: models, gates, placements, traffic, layouts.

A researcher loads a model with `load_model`, describes a `Gate`, places experts on ranks with `contiguous` or `eplb`, and asks
`route` for the tokens that each rank sends to each other; `derive_layout` and `cut_stages` split a training run.
"""

from typing import TYPE_CHECKING

from sim.exports import exported

if TYPE_CHECKING:
    from sim.workload.expectation import inclusion, reach, rows_of_touched, touched
    from sim.workload.gates import Gate
    from sim.workload.gates import check as check_gate
    from sim.workload.gates import complete as complete_gate
    from sim.workload.gating import draw as draw_experts
    from sim.workload.gating import popularity
    from sim.workload.layout import Coordinates, Layout
    from sim.workload.layout import check as check_layout
    from sim.workload.layout import derive as derive_layout
    from sim.workload.model import (
        GQA,
        MLA,
        Model,
        attention_core_flops_per_token,
        kv_bytes_per_token,
        load_model,
        mean_context_tokens,
        shipped_models,
        training_flops_per_token,
    )
    from sim.workload.model import parameters as count_parameters
    from sim.workload.placement import Placement, contiguous, eplb, place
    from sim.workload.recorded_loads import load_loads
    from sim.workload.recordings import load_trace
    from sim.workload.request_traces import read as read_requests
    from sim.workload.requests import Lengths, PromptBlocks, Requests, reused_tokens
    from sim.workload.requests import poisson as poisson_requests
    from sim.workload.skew import Skew
    from sim.workload.stages import Stage, flops_per_token, held_parameters, stage_parameters
    from sim.workload.stages import stages as cut_stages
    from sim.workload.traffic import Routing, payload_bytes, route
    from sim.workload.traffic import count as count_destinations

__all__ = [
    "GQA", "MLA", "Coordinates", "Gate", "Layout", "Lengths", "Model", "Placement", "PromptBlocks", "Requests", "Routing",
    "Skew", "Stage", "attention_core_flops_per_token", "check_gate", "check_layout", "complete_gate",
    "contiguous", "count_destinations", "count_parameters", "cut_stages", "derive_layout", "draw_experts",
    "eplb", "flops_per_token", "held_parameters", "inclusion", "kv_bytes_per_token", "load_loads",
    "load_model", "load_trace", "mean_context_tokens", "payload_bytes", "place", "poisson_requests",
    "popularity", "reach", "read_requests", "reused_tokens", "route", "rows_of_touched", "shipped_models", "stage_parameters",
    "touched", "training_flops_per_token",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy
