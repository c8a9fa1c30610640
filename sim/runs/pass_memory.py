"""Memory of a GPU that prefills or decodes: of its stage, before any request, and of each request."""

from __future__ import annotations

from sim.cost.deployment import Footprint, footprint
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule.collectives import KINDS, record_bytes
from sim.workload.model import Model
from sim.workload.stages import stages


def memory_of(scenario: Scenario, work: Inference) -> Footprint:
    """Memory of a GPU of the pipeline stage that holds fewest requests; parameters as of `stage_memory`."""
    return min(stage_memory(scenario, work), key=lambda held: (held.max_batch, held.free_bytes))


def stage_memory(scenario: Scenario, work: Inference) -> list[Footprint]:
    """Memory of a GPU of each pipeline stage that does not depend on its requests, and of each request [pp].

    The deployment may be another than the scenario's own workload.
    """
    assert scenario.model is not None
    assert scenario.hardware is not None
    model, hardware, layout = scenario.model, scenario.hardware, work.layout
    physical = model.num_experts + work.spec.placement.redundant_experts
    slots = KINDS[work.kernel.kind].slots
    records = sum(
        float(record_bytes(work.kernel.kind, name, dtype, model.routed_width, model.top_k))
        for name, dtype in (("dispatch", work.spec.dispatch_dtype), ("combine", work.spec.combine_dtype))
    )
    microbatches = 2 if work.spec.overlap is True else 1  # `auto` may run in one batch
    buffered = work.step_tokens / microbatches if slots and layout.ep > 1 else 0.0
    return [
        footprint(
            model,
            experts_per_rank=physical // layout.ep,
            num_physical_experts=physical,
            layout=layout,
            shared_tp=work.shared_tp,
            stage=stage,
            precision=work.formats,
            context_tokens=work.context_tokens,
            buffered_tokens_per_request=buffered,
            buffers_bytes=0.0 if slots else _expert_rows_bytes(model, work, microbatches),
            record_bytes=records,
            with_mtp=work.spec.kind == "decode" and work.step_tokens > 1,
            capacity_bytes=hardware.gpu.hbm.capacity_bytes,
            reserve_fraction=work.spec.reserve,
            graphs_bytes=work.spec.graphs,
            gpu=f"a GPU of {hardware.title}",
        )
        for stage in stages(model, layout.pp)
    ]


def _expert_rows_bytes(model: Model, work: Inference, microbatches: int) -> float:
    """Buffers of one microbatch's experts: rows in, in their format, twice the inner width and rows out in BF16 [bytes].

    Ranks that split experts have the rows of each other.
    """
    requests = work.requests or (work.total or work.layout.num_ranks) / work.layout.num_ranks
    rows = requests / microbatches * work.step_tokens * model.top_k
    element = (work.formats.received_bytes + 2.0) * work.layout.etp
    return rows * (element * model.routed_width + model.up_matrices * 2.0 * model.expert_hidden)
