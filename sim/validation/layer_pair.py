"""One overlapped pair of chunks by itself, beside a profiler trace of the real one.

Four MoE layers forward and four backward, on the GPUs of one EP group, without a pipeline around them: the engine runs the
same task as in a whole step, with the scenario's exchanges and skew. Many EP groups run it at once; each draws its own
loads, jitter and GPUs, so that their mean is what one rank's trace should show.

Times of compute are from launch to launch. A profiler shows a gap between any two kernels of a stream and counts what communicates
meanwhile as exposed; where its counts are compared, each launch leaves such a gap.

The communication stream's waits at the start of exchanges are what a trace shows as notify kernels. What layer k waits is
what a pair of k layers waits more than one of k - 1: up to there both do the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from sim.cluster import topology
from sim.cluster.kernels import load_kernel
from sim.cost.curves import load_curves
from sim.engine.step import run_step
from sim.engine.step_plan import StepPlan
from sim.engine.step_records import GroupRecord
from sim.errors import Mark
from sim.runs.kinds import Progress
from sim.runs.step_traffic import Place, traffic_of
from sim.runs.training_step import Step
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.scenario.training import Training
from sim.scenario.values import Count
from sim.schedule import alignment
from sim.schedule.programs import Program
from sim.schedule.stage_times import stage_times
from sim.schedule.training import PipelineTask, tasks_from_rows
from sim.validation.published import FOLDER, Facts, Published, Row, Weighed, fact_rows
from sim.workload.skew import draw
from sim.workload.stages import Stage

_PHASES = ("attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)")


class PairRun(Weighed):
    """One way to run the pair: what it changes in the scenario, and the quantities that are compared."""

    name: str
    set: dict[str, Any] = Field(default_factory=dict)
    quantities: list[str]


class PairFigures(Published):
    """A file with the figures of one layer pair."""

    scenario: str
    """A shipped training scenario, whose layers, kernels and skew the pair has."""
    layers: Count
    groups: Count
    """EP groups that run it, each with draws of its own."""
    runs: list[PairRun]
    facts: list[Facts]


@dataclass(frozen=True, slots=True)
class PairTimes:
    """A pair as it ran: means over the GPUs of all EP groups [s]."""

    span_s: float
    exposed_s: float
    """Compute waited for communication."""
    gaps_s: float
    """In which a profiler shows no compute between two launches, in the times of phases."""
    waits_s: tuple[float, ...]
    """Communication waited for the slowest GPU, by layer."""
    phases_s: Mapping[str, float]
    """Compute, mean over layers."""
    exchanges_s: Mapping[str, float]
    """From the common start to the end of one GPU's own bytes, mean over layers."""

    def quantities(self) -> dict[str, dict[str, float]]:
        """Return every quantity that a file may state, by subject."""
        layers = len(self.waits_s)
        communicates = (layers * sum(self.exchanges_s.values()) + sum(self.waits_s)) / self.span_s
        return {
            "span_s": {"span": self.span_s},
            "exposed_comm_fraction": {
                "exposed": (self.exposed_s + self.gaps_s * communicates) / self.span_s,
                "waited": self.exposed_s / self.span_s,
            },
            "phase_s": dict(self.phases_s),
            "exchange_s": dict(self.exchanges_s),
            "barrier_wait_s": {f"wait-{i + 1}": wait for i, wait in enumerate(self.waits_s)},
            "busy_fraction": {
                "compute": 1.0 - (self.exposed_s + self.gaps_s) / self.span_s,
                "communication": communicates,
            },
        }


def rows(figures: PairFigures, progress: Progress) -> Iterator[Row]:
    """Run the pair each way, and yield every figure next to ours."""
    for run in figures.runs:
        progress(f"{figures.group}: {run.name}")
        document = scenario_settings.read(figures.scenario)
        mark = Mark(f"{FOLDER}/{figures.group}.yaml")
        document.put(("variants",), {run.name: run.set}, mark)
        scenario = scenarios.resolve(scenario_settings.variants(document)[run.name])
        ours = simulate(scenario, num_layers=figures.layers, num_groups=figures.groups).quantities()
        for facts in figures.facts:
            if facts.quantity in run.quantities:
                yield from fact_rows(
                    facts,
                    ours[facts.quantity],
                    figures.bar,
                    machine=scenario.machine,
                    prefix=f"{run.name}.",
                    run=run,
                )


def simulate(scenario: Scenario, *, num_layers: int, num_groups: int) -> PairTimes:
    """Run an overlapped pair of MoE layers of a training step on some EP groups, without its pipeline."""
    programs = [_program(scenario, layers) for layers in range(1, num_layers + 1)]
    pairs = [_run(scenario, program, num_groups) for program in programs]
    num_launches = sum(node.launches for node in programs[-1] if node.collective is None)
    waits_s = np.diff([0.0, *(_mean(pair, "barrier_s") for pair in pairs)])
    whole = pairs[-1]
    times: dict[str, list[float]] = defaultdict(list)
    for record in whole:
        for node in record.nodes:
            times[node.name].append(node.end_s - node.start_s)
    mean_s = {name: float(np.mean(each)) for name, each in times.items()}
    return PairTimes(
        span_s=_mean(whole, "end_s"),
        exposed_s=_mean(whole, "exposed_s"),
        gaps_s=num_launches * load_curves().streaming.gap_s,
        waits_s=tuple(waits_s.tolist()),
        phases_s={name: mean_s[name] for name in _PHASES},
        exchanges_s={name: time_s for name, time_s in mean_s.items() if name not in _PHASES},
    )


def _mean(records: list[GroupRecord], what: str) -> float:
    """Return the mean of a time of the only task over EP groups [s]."""
    return float(np.mean([getattr(record.tasks[0], what) for record in records]))


def _program(scenario: Scenario, num_layers: int) -> Program:
    """Return the program of an overlapped pair of MoE layers."""
    work, model, hardware = scenario.workload, scenario.model, scenario.hardware
    assert isinstance(work, Training)
    assert model is not None
    assert hardware is not None
    step = Step.from_scenario(scenario)
    layers = tuple(i for i in range(model.num_layers) if not model.is_dense(i))[:num_layers]
    stage = Stage(0, layers, num_dense=0, num_moe=num_layers, embedding=False, head=False, num_mtp=0)
    (times,) = stage_times(
        step.chunk_work,
        [stage],
        hardware,
        work.kernel,
        comm_sms=work.comm_sms,
        generation=work.spec.gemm_generation,
        measured=work.measured,
    )
    return alignment.aligned(times.beside, times.beside, partial(step.mean_s, overlapped=True))


def _run(scenario: Scenario, program: Program, num_groups: int) -> list[GroupRecord]:
    """Return a record per EP group, with one task in full."""
    work, model, hardware = scenario.workload, scenario.model, scenario.hardware
    assert isinstance(work, Training)
    assert model is not None
    assert hardware is not None
    step = Step.from_scenario(scenario)
    lanes = work.layout.ep
    gpus = np.arange(num_groups * lanes)
    place = Place(gpus.reshape(1, num_groups, lanes), gpus)
    nodes = -(-num_groups * lanes // hardware.gpu.scale_up.domain)
    assert isinstance(scenario.fabric, topology.Fabric)
    cluster = topology.build(hardware, nodes, scenario.fabric)
    traffic = traffic_of(
        cluster,
        place,
        step.collectives,
        step.slowdown,
        (),
        0.0,
        load_kernel("nccl"),
        loaded=work.skew.routed_load > 0,
    )
    draws = draw(
        work.skew,
        num_ranks=1,
        num_groups=num_groups,
        lanes=lanes,
        num_layers=model.num_layers,
        num_microbatches=2,
        seed=scenario.seed,
    )
    pair = PipelineTask("FB", program, microbatch_f=0, microbatch_b=1, overlapped=True, receives=(), sends=())
    plan = StepPlan(
        tasks_from_rows([[pair]]),
        traffic,
        num_groups,
        lanes,
        draws.speed,
        loads=draws.loads,
        jitter=draws.jitter,
    )
    return run_step(plan, keep_tasks=1).records
