"""Facts of a training step: what follows from a scenario before any time passes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.cost.measured import MeasuredProfile
from sim.cost.memory import RankMemory, fits, require_fit
from sim.cost.power import Stated
from sim.runs import step_optimizer
from sim.runs.layer_loads import LayerLoads, layer_loads
from sim.runs.step_parts import (
    ACTIVATION_BYTES,
    idle_times_s,
    inside_layers_s,
    layer_kernels,
    links_left,
    memory_of,
    pipeline_of,
    slowdown_of,
    step_collectives,
)
from sim.runs.step_traffic import Place
from sim.scenario.descriptions import Scenario
from sim.scenario.training import Training
from sim.schedule import pipelines, reductions, step_bound
from sim.schedule.collectives import Collective
from sim.schedule.issuing import issued_tasks
from sim.schedule.operations import Pipeline
from sim.schedule.reductions import Links
from sim.schedule.stage_times import ChunkWork, measured_fraction, stage_times
from sim.schedule.training import StageTimes, Tasks, balanced_s, tasks
from sim.workload.model import Model
from sim.workload.packing import Documents
from sim.workload.stages import Stage, held_parameters, stages
from sim.workload.traffic import Routing


@dataclass(frozen=True, eq=False)
class StepFacts:
    """A training scenario, and what follows from it before any time passes."""

    scenario: Scenario
    work: Training
    model: Model
    hardware: Hardware
    stated: Stated | None = None
    """Of the whole run that it is a phase of."""

    @classmethod
    def from_scenario(cls, scenario: Scenario, stated: Stated | None = None) -> Self:
        """The step of a scenario whose workload is training."""
        work, model, hardware = scenario.workload, scenario.model, scenario.hardware
        assert isinstance(work, Training)
        assert model is not None
        assert hardware is not None
        return cls(scenario, work, model, hardware, stated)

    @property
    def apart(self) -> bool:
        """Without all-to-alls nothing joins the ranks of a stage: they are lanes of one group."""
        return self.work.layout.ep == 1

    @cached_property
    def pipeline(self) -> Pipeline:
        """Who does what in which order."""
        return pipeline_of(self.work, self.pairs)

    @cached_property
    def pairs(self) -> bool:
        """Neighbouring operations of different microbatches run as one; see `overlap` of the specification."""
        asked, schedule = self.work.spec.overlap, self.work.spec.schedule
        if asked != "auto":
            return schedule not in ("1f1b", "zb1p", "zb2p") if asked is None else asked
        seconds = {}
        for pairs in (True, False):
            pipeline = pipeline_of(self.work, pairs)
            if not pairs or fits(self._memory(pipeline), self.hardware.gpu.hbm.capacity_bytes):
                seconds[pairs] = balanced_s(pipeline, self._tasks(pipeline, pairs), self._collective_s)
        return min(seconds, key=seconds.__getitem__)

    def _collective_s(self, name: str, overlapped: bool) -> float:
        return self.mean_s(name, overlapped=overlapped) if name in self.collectives else 0.0

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Layers of each stage, with embedding, head and speculation."""
        num_stages = self.work.layout.pp * self.work.spec.chunks_per_rank
        return stages(
            self.model, num_stages, num_layers=self.work.spec.stage_layers, layout=self.work.spec.stages
        )

    @cached_property
    def routing(self) -> Routing:
        """Mean counts of one EP group."""
        return self.routed.routing

    @cached_property
    def routed(self) -> LayerLoads:
        """Mean counts of one EP group, and the loads of its ranks in each layer."""
        return layer_loads(self.scenario, self.work, self.model)

    @cached_property
    def memory(self) -> tuple[RankMemory, ...]:
        """Memory of one GPU at each pipeline rank."""
        return self._memory(self.pipeline)

    def _memory(self, pipeline: Pipeline) -> tuple[RankMemory, ...]:
        per_node = self.scenario.gpus_per_node
        return memory_of(self.work, self.model, pipeline, self.stages, self.routed, per_node)

    def require_fit(self, what: str = "") -> None:
        """Raise `DoesNotFitError` where a GPU's memory overflows; `what` goes before the GPU's title."""
        require_fit(self.memory, self.hardware.gpu.hbm.capacity_bytes, f"{what}{self.hardware.title}")

    @cached_property
    def collectives(self) -> dict[str, Collective]:
        """Dispatch and combine of one EP group."""
        return step_collectives(self.scenario, self.work, self.model, self.routing)

    @cached_property
    def slowdown(self) -> dict[str, float]:
        """Time of an all-to-all next to compute over its time alone."""
        return slowdown_of(self.work)

    @cached_property
    def chunk_work(self) -> ChunkWork:
        """Model, layout and tokens of one rank in one chunk."""
        work = self.work
        per_token = self.routing.ranks_per_token
        return ChunkWork(
            self.model,
            work.layout,
            work.spec.microbatch_sequences,
            work.spec.sequence_tokens,
            per_token,
            work.formats,
            work.recompute,
            self.documents,
            work.passes_keys_on,
        )

    @cached_property
    def documents(self) -> Documents | None:
        """Documents as attention sees them; None where it sees whole sequences."""
        return self.work.documents

    @cached_property
    def links(self) -> Links:
        """Rates and latencies that reductions and sends achieve."""
        links = Links.achieved(self.hardware, load_kernel("nccl"))
        return replace(links, gpus_per_node=self.scenario.gpus_per_node)

    def _inside_layers_s(self, links: Links) -> dict[str, float]:
        return inside_layers_s(self.work, self.model, links, self.routing.ranks_per_token)

    def send_s(self, links: Links) -> float:
        """One activation, or its gradient, on its way to another stage [s]."""
        layout = self.work.layout
        one_node = layout.near(self.scenario.gpus_per_node, "pp") == layout.pp
        return self.send_bytes / (links.scale_up_bytes_per_s if one_node else links.nic_bytes_per_s)

    @property
    def send_bytes(self) -> float:
        """Size of what one rank sends to the next stage for a microbatch [bytes]."""
        work = self.work
        tokens = work.microbatch_tokens / (work.layout.tp * work.layout.cp)
        return tokens * self.model.hidden * ACTIVATION_BYTES

    @cached_property
    def alone_s(self) -> dict[str, Floats]:
        """Time of each rank of an all-to-all on idle, healthy links at mean loads [s]."""
        return {name: idle_times_s(collective) for name, collective in self.collectives.items()}

    def mean_s(self, name: str, *, overlapped: bool) -> float:
        """Time of an all-to-all on idle, healthy links, mean of its ranks [s]."""
        return float(self.alone_s[name].mean()) * (self.slowdown[name] if overlapped else 1.0)

    @cached_property
    def cluster(self) -> topology.Cluster:
        """The whole cluster with its faults, cabled."""
        return self.scenario.cluster()

    @cached_property
    def place(self) -> Place:
        """GPUs of its ranks."""
        layout = self.work.layout
        return Place.from_layout(self.scenario.gpus, layout)

    @cached_property
    def times(self) -> tuple[StageTimes, ...]:
        """Compute times of every stage's layers."""
        return self._times(self.hardware, self.work.measured)

    def _times(self, hardware: Hardware, measured: MeasuredProfile | None) -> tuple[StageTimes, ...]:
        work = self.work
        return stage_times(
            self.chunk_work,
            self.stages,
            hardware,
            work.kernel,
            comm_sms=work.lent_sms,
            generation=work.spec.gemm_generation,
            inside_s=self._inside_s,
            all_to_alls_s=self._all_to_alls_s,
            measured=measured,
            sharded=step_optimizer.sharded_of(work, self.model, self.links),
        )

    @property
    def _all_to_alls_s(self) -> float:
        """Time of the four of a layer pair, next to compute; inf where they lend no SMs [s]."""
        if self.work.layout.ep == 1 or not self.work.lent_sms:
            return math.inf
        return 2.0 * sum(self.mean_s(name, overlapped=True) for name in self.collectives)

    def _inside_s(self, pair_s: float) -> dict[str, float]:
        """Reductions inside layers while all-to-alls are on the links for a part of `pair_s`, inf for none [s]."""
        layout, links = self.work.layout, self.links
        if layout.tp * layout.cp * layout.etp > 1 and layout.ep > 1 and pair_s < math.inf:
            links = links_left(links, self.collectives, pair_s)
        return self._inside_layers_s(links)

    @cached_property
    def updates_s(self) -> list[float]:
        """Time of the update of each pipeline rank [s]."""
        return step_optimizer.updates_s(
            self.work, self.model, self.hardware, self.links, self.held, self.parameters
        )

    @cached_property
    def held(self) -> list[list[Stage]]:
        """Stages of each pipeline rank."""
        return [[self.stages[i] for i in own] for own in self.pipeline.stages]

    @cached_property
    def parameters(self) -> list[reductions.HeldParameters]:
        """Parameters that a GPU of each pipeline rank holds."""
        layout = self.work.layout
        return [reductions.held(held_parameters(self.model, held), layout) for held in self.held]

    @cached_property
    def lower_bound_s(self) -> float:
        """Time that no step at datasheet rates beats [s]; see `schedule.step_bound`."""
        work = self.work
        links = replace(Links.peak(self.hardware), gpus_per_node=self.scenario.gpus_per_node)
        fraction: dict[str, float] = {}
        if work.measured:
            fraction = measured_fraction(
                self.chunk_work,
                self.hardware,
                work.kernel,
                work.measured,
                comm_sms=work.lent_sms,
                generation=work.spec.gemm_generation,
            )
        least = step_bound.least(
            self.chunk_work,
            self.stages,
            self.hardware.gpu,
            {} if self.apart else self.collectives,
            slowdown=self.slowdown,
            inside_s=self._inside_layers_s(links),
            send_s=self.send_s(links),
            measured_fraction=fraction,
        )
        ranks = step_bound.rank_bounds_s(self.pipeline, least)
        hidden = work.optimizer.overlap
        return float(ranks.max()) + max(
            reductions.update_s(links, *held.parts(work.layout), work.optimizer)
            if hidden
            else reductions.optimizer_s(
                links, held, work.layout, work.optimizer, copies=self.pipeline.num_copies
            )
            for held in self.parameters
        )

    def _tasks(self, pipeline: Pipeline, pairs: bool) -> Tasks:
        own = "overlap" not in pipelines.SCHEDULES[pipeline.kind].options  # pairs that a schedule always has
        made = tasks(
            pipeline,
            self.times,
            partial(self.mean_s, overlapped=True),
            overlap=self.work.spec.overlap is not False and (pairs or not own),
            reductions=layer_kernels(self.work, self.model, self.scenario.gpus_per_node),
            reduced_s=self._inside_layers_s(self.links),
        )
        work = self.work
        return issued_tasks(made, self.scenario.software, self.model, work.layout, work.kernel.kind)
