"""A forward pass as it is asked for: its deployment, its requests, and what follows from them by counting."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from sim.cluster.hardware import Hardware
from sim.cluster.software import Software
from sim.cluster.topology import Floats, Ints
from sim.cost.compute import Processor
from sim.cost.curves import load_curves
from sim.cost.prefill import PrefillBatch, attention_core
from sim.cost.serving_kernels import DecodeBatch
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans
from sim.schedule.collectives import KINDS
from sim.schedule.issuing import Issuer
from sim.schedule.programs import Program
from sim.workload.formats import Precision
from sim.workload.layout import Layout
from sim.workload.model import Model
from sim.workload.shape import firsts
from sim.workload.skew import Draws, Skew, draw
from sim.workload.traffic import Routing


@dataclass(frozen=True)
class PassPlan:
    """One pass of every EP group.

    Parameters
    ----------
    scenario : Scenario
        Cluster, model, faults and seed.
    work : Inference
        The deployment; it may differ from the scenario's own workload.
    requests : float [count]
        Of the busiest GPU; under TP a part of its group's.
    cached_tokens : int [count]
        Tokens of each prompt that earlier passes left in the cache; 0 in decode.
    share : float, 0 to 1 [fraction]
        Requests of the mean GPU over those of the busiest. Collectives and experts see the mean, all else keeps the
        busiest GPU's time. A share below 1 counts means, whatever the sampling.
    core_s : float, optional [s]
        Of a prefill: time of its attention cores in all layers, in place of that of prompts that are all alike.
    split : int [ranks]
        Ranks of which each has `1 / split` of every prompt, where `work` and `cached_tokens` give their part of the tokens.
    direct : bool
        Tokens are sent to each of the ranks that split an expert, which gather nothing from one another.
    """

    scenario: Scenario
    work: Inference
    requests: float
    cached_tokens: int = 0
    share: float = 1.0
    core_s: float | None = None
    split: int = 1
    direct: bool = False

    @classmethod
    def of_prompts(cls, scenario: Scenario, work: Inference, total: int, cached_tokens: int) -> PassPlan:
        """A prefill of so many prompts of the whole deployment, each of which its ranks of TP and CP split."""
        layout, passed = work.layout, total / cls(scenario, work, 1.0).in_flight
        split, busiest = layout.tp * layout.cp, math.ceil(passed / layout.dp)
        each = replace(
            work if busiest > 1 else work.one_batch(), step_tokens=math.ceil(work.step_tokens / split)
        )
        share = passed / layout.dp / busiest
        return cls(scenario, each, busiest, cached_tokens // split, share, split=split)

    @classmethod
    def of_total(cls, scenario: Scenario, work: Inference, total: int) -> PassPlan:
        """A decode step of so many requests of the whole deployment: fewer than GPUs, or than TP groups, if need be.

        A pipeline has its requests in as many microbatches as stages, if they are enough. One request leaves a second
        microbatch of an overlapped pass empty.
        """
        layout, work = work.layout, replace(work, total=total)
        plan = cls(scenario, work if total > 1 else work.one_batch(), 1.0)
        passed = total / plan.in_flight
        busiest = math.ceil(passed / layout.dp) / (layout.tp * layout.cp)
        plan = replace(plan, requests=busiest)
        share = passed * layout.pp / layout.num_ranks / busiest
        if busiest < 1:  # its tokens are rounded up
            tokens = busiest * layout.etp * work.step_tokens / plan.num_microbatches
            share *= tokens / plan.routed_tokens
        return replace(plan, share=share)

    @property
    def layout(self) -> Layout:
        """Layout of the deployment."""
        return self.work.layout

    @property
    def model(self) -> Model:
        """The scenario's model."""
        assert self.scenario.model is not None
        return self.scenario.model

    @property
    def hardware(self) -> Hardware:
        """The scenario's hardware."""
        assert self.scenario.hardware is not None
        return self.scenario.hardware

    @property
    def issuer(self) -> Issuer | None:
        """What issues the launches of a pass; None where they cost nothing."""
        return self.issuer_of(self.scenario.software) if self.scenario.software else None

    def issuer_of(self, software: Software) -> Issuer:
        """What issues the launches of a pass with some software."""
        experts = self.model.num_experts + self.work.spec.placement.redundant_experts
        return Issuer(
            software,
            self.model,
            self.work.spec.kind,
            local_experts=max(1, experts // self.layout.ep),
            tp=self.layout.tp,
            splits_shared=self.work.shared_tp > 1,
            least_s=load_curves().streaming.launch_s,
            reads_counts=self.ranks > 1 and not KINDS[self.work.kernel.kind].slots,
            dense_before=tuple(map(len, self.blocks.dense_before)),
        )

    @property
    def decode(self) -> bool:
        """True of a decode step, False of a prefill."""
        return self.work.spec.kind == "decode"

    @property
    def ranks(self) -> int:
        """Ranks of the EP group [count]."""
        return self.layout.ep

    @property
    def num_microbatches(self) -> int:
        """Two where they overlap, else one [count]."""
        return 2 if self.work.spec.overlap else 1

    @property
    def num_mtp(self) -> int:
        """Modules that speculate after the model's layers [count]."""
        return min(self.work.step_tokens - 1, 8) if self.decode and self.model.num_mtp_layers else 0

    @property
    def has_phases(self) -> bool:
        """True where sends and receives of the collectives hold SMs as launches of their own."""
        return self.decode and KINDS[self.work.kernel.kind].phases and self.ranks > 1

    @property
    def in_background(self) -> bool:
        """True where collectives run next to compute for their whole time."""
        return self.work.spec.overlap and not (self.decode and KINDS[self.work.kernel.kind].phases)

    @property
    def microbatch_requests(self) -> float:
        """Requests of the busiest GPU in a microbatch [count]."""
        return self.requests / self.num_microbatches

    @property
    def tokens(self) -> int:
        """Tokens of the busiest GPU in a microbatch [count]."""
        return max(1, math.ceil(self.microbatch_requests * self.work.step_tokens))

    @property
    def group_tokens(self) -> int:
        """Tokens of the busiest TP group in a microbatch [count]."""
        return max(1, math.ceil(self.microbatch_requests * self.layout.tp * self.work.step_tokens))

    @property
    def routed_tokens(self) -> int:
        """Tokens that the busiest rank of the EP group has to route, for all GPUs that split its experts [count]."""
        return max(1, math.ceil(self.microbatch_requests * self.layout.etp * self.work.step_tokens))

    @property
    def passes_keys_on(self) -> bool:
        """Ranks of CP pass keys and values round a ring, next to the core of attention."""
        return getattr(self.work.spec, "cp_comm", "all_gather") == "p2p" and self.layout.cp > 1

    @property
    def gathers_experts(self) -> bool:
        """Ranks that split experts gather the tokens that came to each of them."""
        return self.layout.gathers_experts and not self.direct

    def sent(self, routing: Routing) -> Routing:
        """What one EP group sends of the tokens that all ranks which split its experts have to route."""
        return routing.thinned(1.0 / self.layout.etp) if self.gathers_experts and self.ranks > 1 else routing

    @property
    def in_flight(self) -> int:
        """Microbatches on the stages of the pipeline at once: as many as stages, where requests are enough [count]."""
        requests = self.work.total
        return (
            self.layout.pp if requests is None else min(self.layout.pp, math.ceil(requests / self.layout.dp))
        )

    @property
    def formats(self) -> Precision:
        """Formats of GEMMs, weights, cores and cache."""
        return self.work.formats

    @property
    def sampling(self) -> str:
        """`expected` counts means; else tokens draw their experts."""
        return self.work.sampling if self.share == 1.0 else "expected"

    @property
    def is_uniform(self) -> bool:
        """True where all draws of all layers are the same."""
        return self.sampling == "expected" and self.work.gate.is_exchangeable

    @cached_property
    def blocks(self) -> plans.Blocks:
        """Layers with experts, and the dense layers between them."""
        return plans.blocks(self.model, self.num_mtp)

    @property
    def num_drawn(self) -> int:
        """Layers whose routing is drawn [count]; the model's layers take these in turn."""
        return 1 if self.is_uniform else max(1, min(self.work.drawn_layers, len(self.blocks.layers)))

    @property
    def num_groups(self) -> int:
        """EP groups of the deployment, of all stages: they run the same pass at once [count]."""
        return len(self.members)

    @cached_property
    def members(self) -> Ints:
        """Ranks of each EP group, [num_groups, num_ranks]."""
        members: Ints = self.layout.groups("ep")
        return members

    @cached_property
    def gpus(self) -> Ints:
        """GPU of each rank of each EP group, [num_groups, num_ranks]."""
        return self.scenario.gpus[self.members]

    @cached_property
    def speed(self) -> Floats:
        """Compute time of each rank over that of a healthy mean GPU, [1, num_groups, num_ranks]."""
        return self.scenario.slowness()[self.members][None] * self.draws.speed

    @cached_property
    def draws(self) -> Draws:
        """Draw the speeds of its ranks and the factors of their launches; a GPU that waits for no other is the mean one."""
        layout, spread = self.layout, self.work.spec.skew
        waits = layout.ep * layout.tp * layout.cp * layout.pp > 1
        skew = Skew(0.0, spread.kernel_jitter, spread.gpu_spread) if waits else Skew()
        return _draws(skew, self.num_groups, self.ranks, self.scenario.seed)

    @cached_property
    def _firsts(self) -> tuple[int, ...]:
        return firsts(self.model)

    def layer_kind(self, layer: int) -> int:
        """First layer of the model like this one, by which its parts are known."""
        return self._firsts[min(layer, len(self._firsts) - 1)]

    def prefill_batch(self, part: str) -> PrefillBatch:
        """A microbatch of prompts, with the formats of a part of `formats.PARTS`."""
        return PrefillBatch(
            sequences=max(1, round(self.microbatch_requests)),
            new_tokens=self.work.step_tokens,
            cached_tokens=self.cached_tokens,
            tp=self.layout.tp,
            cp=self.layout.cp,
            split=self.split,
            precision=self.formats.parts[part],
            attention=self.formats.cores,
            fused_gate=self.work.spec.fused_gate,
        )

    def layer_core_s(self, p: Processor, layer: int) -> float | None:
        """Part of `core_s` that one microbatch takes in a layer, by what layers take of prompts that are alike [s]."""
        if not self.core_s:
            return self.core_s
        own, whole = self._cores(p)
        return self.core_s / self.num_microbatches * (own[layer] / whole if whole else 0.0)

    def _cores(self, p: Processor) -> tuple[dict[int, float], float]:
        """Time of the core of a microbatch of like prompts in each kind of layer, and in all layers [s]."""
        batch = self.prefill_batch("attention")
        kinds = [self.layer_kind(layer) for layer in range(self.model.num_layers + self.num_mtp)]
        own = {
            kind: sum(launch.time_s for launch in attention_core(p, self.model, batch, kind))
            for kind in set(kinds)
        }
        return own, sum(own[kind] for kind in kinds)

    def decode_batch(self, part: str) -> DecodeBatch:
        """A microbatch of requests, with the formats of a part of `formats.PARTS`."""
        return DecodeBatch(
            requests=self.microbatch_requests,
            queries=self.work.step_tokens,
            context_tokens=self.work.context_tokens,
            tp=self.work.shared_tp if part == "shared" else self.layout.tp,
            cp=self.layout.cp,
            precision=self.formats.parts[part],
            kv_bytes_per_element=self.formats.cache.element_bytes,
            attention=self.formats.cores,
            fused_gate=self.work.spec.fused_gate,
        )

    def program(self) -> Program:
        """The nodes of the pass."""
        return plans.forward(
            len(self.blocks.layers),
            decode=self.decode,
            overlap=self.work.spec.overlap,
            phases=self.has_phases,
            trailing=self.blocks.dense_after,
        )


@lru_cache(maxsize=16)
def _draws(skew: Skew, num_groups: int, lanes: int, seed: int) -> Draws:
    """Draw for one operation of all groups; the passes of a service draw the same, so they share them."""
    return draw(
        skew,
        num_ranks=1,
        num_groups=num_groups,
        lanes=lanes,
        num_layers=0,
        num_microbatches=0,
        seed=seed,
    )
