"""Log-probabilities: forward passes of a training step's stages, microbatch after microbatch down the pipeline."""

from __future__ import annotations

from dataclasses import replace

from sim.engine.step import StepRun, run_step
from sim.runs.step_parts import layer_kernels
from sim.runs.training_step import Step
from sim.schedule import programs
from sim.schedule.training import Message, PipelineTask, tasks_from_rows

_MOST = 64  # microbatches that are run; more follow at the pace of the last half of these


def forward_s(step: Step, num_microbatches: int) -> tuple[float, StepRun]:
    """Run so many microbatches of each data-parallel rank forward: the time [s], and a run of those that were simulated.

    The bytes of the run are of all.
    """
    shown = min(num_microbatches, max(_MOST, 4 * step.work.layout.pp))
    whole, ran = _run(step, shown)
    if shown == num_microbatches:
        return whole, ran
    half = shown // 2
    pace = (whole - _run(step, half)[0]) / (shown - half)
    often = num_microbatches / shown
    moved = replace(ran, bytes=ran.bytes * often, used=ran.used * often)
    return whole + (num_microbatches - shown) * pace, moved


def _run(step: Step, num: int) -> tuple[float, StepRun]:
    plan, pipeline = step.plan, step.pipeline
    reductions = layer_kernels(step.work, step.model, step.scenario.gpus_per_node)
    stages = [programs.reducing(programs.forward(stage.alone), reductions) for stage in step.times]
    directions, known = 2 if pipeline.num_copies > 1 else 1, step.work.num_microbatches
    asked: list[tuple[tuple[int, int, int], int, PipelineTask]] = []
    for microbatch in range(num):
        late = microbatch % directions
        for stage, program in enumerate(stages):
            rank, last = int(pipeline.holders[stage, late]), stage == len(stages) - 1
            before = int(pipeline.holders[stage - 1, late]) if stage else rank
            after = rank if last else int(pipeline.holders[stage + 1, late])
            receives = (Message("F", stage, microbatch, before, rank),) if before != rank else ()
            sends = (Message("F", stage + 1, microbatch, rank, after),) if after != rank else ()
            task = PipelineTask("F", program, microbatch % known, -1, False, receives, sends)
            asked.append(((microbatch // directions + stage, stage, late), rank, task))
    asked.sort(key=lambda row: row[0])
    rows: list[list[PipelineTask]] = [[] for _ in range(len(plan.tasks))]
    for _, rank, task in asked:
        rows[rank].append(task)
    # Faults that come and go are of the step alone: they are known by its nodes.
    tasks, loads = step.spread(tasks_from_rows(rows), step.draws.loads)
    ran = run_step(replace(plan, tasks=tasks, loads=loads, conditions=None))
    return max(float(record.end_s.max()) for record in ran.records), ran
