"""What the host would add to a run whose launches cost nothing, with the software that is nearest to its kind.

An estimate from the run as it went: each operation of a pipeline, or a pass, takes the launches that its list lacks and each
synchronisation longer, and no less than the host takes to issue it (`Issuer.added_s`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.cluster.software import load_software
from sim.schedule.issuing import step_issuer

if TYPE_CHECKING:
    from sim.engine.step import StepRun
    from sim.runs.passes import ForwardPass, PassRecord
    from sim.runs.training_step import Step

NEAREST = {
    "training": "megatron_core_2026_05",
    "prefill": "sglang_2026_05",
    "decode": "sglang_2026_05",
}
"""Kind of workload -> the profile that a run without any is compared with."""
LAUNCHED = NEAREST | {"prefill": "sglang_2025_05", "decode": "rtp_llm"}
"""Kind of workload -> the nearest profile that issues launch by launch, without CUDA graphs."""
_SENSITIVE = 0.02
"""Part of a step from which what the host adds is worth a word."""


def step_effect(step: Step, ran: StepRun, step_s: float) -> dict[str, Any]:
    """Estimate what the host would add to a training step; nothing where the step has software, or it would add little."""
    if step.scenario.software is not None:
        return {}
    work, tasks = step.work, step.plan.tasks
    issuer = step_issuer(load_software(NEAREST["training"]), step.model, work.layout, work.kernel.kind)
    record = next(record for record in ran.records if record.pipeline_rank == 0)
    own = tasks.program[: tasks.first[1]]
    took_s = np.bincount(own, record.tasks.end_s - record.tasks.start_s, minlength=len(tasks.programs))
    times = np.bincount(own, minlength=len(tasks.programs))
    adds_s = sum(
        often * issuer.added_s(program, took / often)
        for (program, _), took, often in zip(tasks.programs, took_s.tolist(), times.tolist(), strict=True)
        if often
    )
    return _told("training", adds_s, step_s)


def pass_effect(forward: ForwardPass, record: PassRecord, num_passes: int, step_s: float) -> dict[str, Any]:
    """Estimate what the host would add to all passes of a prompt, or to a decode step; see `step_effect`."""
    from sim.runs.passes import listed_program

    plan = forward.plan
    if plan.scenario.software is not None:
        return {}
    kind = plan.work.spec.kind
    software = load_software(NEAREST[kind])
    layers_s = float(record.end_s.mean())
    adds_s = plan.issuer_of(software).added_s(listed_program(forward), layers_s) + software.step_s
    return _told(kind, num_passes * adds_s, step_s)


def _told(kind: str, adds_s: float, step_s: float) -> dict[str, Any]:
    if adds_s < _SENSITIVE * step_s:
        return {}
    return {"host": {"software": NEAREST[kind], "adds_s": adds_s, "adds_fraction": adds_s / step_s}}
