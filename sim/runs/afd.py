"""A decode step whose attention and experts are on pools of their own: planned, run in time, and its traffic.

Every GPU that has a token sends it to each GPU that holds an expert of it (low-latency kernels: once for each expert), and
gets the results back, over the network between the pools. Shared experts and dense layers stay with attention. All GPUs of a
pool wait for the slowest in every microbatch: a token needs all of its experts, and an expert has tokens of every GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sim.cluster.topology import Cluster, Floats, Ints
from sim.cost import serving_kernels as kernels
from sim.cost.compute import Processor
from sim.cost.work import Part, total_s
from sim.engine.step import StepRun, run_step
from sim.engine.step_plan import StepPlan, Traffic
from sim.runs import passes
from sim.runs.pass_collectives import PassCollectives, collective, pass_record_bytes, routings_of
from sim.runs.pass_needs import PassNeeds, common_needs, experts_needs, mean_experts, processor_of
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import ForwardPass
from sim.scenario.afd import Disaggregated
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import afd as programs
from sim.schedule import inference as plans
from sim.schedule.afd import ATTENTION, EXPERTS, LayerPrograms
from sim.schedule.collectives import KINDS
from sim.schedule.flows import Flows
from sim.schedule.programs import Node
from sim.schedule.sends import send_flows
from sim.workload.traffic import Routing

_UNDER = 1e-6  # of a request: a whole number of tokens stays one when it is rounded up


@dataclass(frozen=True)
class AfdPass:
    """One decode step of all microbatches.

    Parameters
    ----------
    scenario : Scenario
        The cluster with both pools.
    work : Inference
        With `apart`.
    requests : float [count]
        Of the whole deployment.
    more : float [count]
        Requests that the busiest GPU of attention has beyond the mean.
    """

    scenario: Scenario
    work: Inference
    requests: float
    more: float = 0.0

    @property
    def apart(self) -> Disaggregated:
        """The pools."""
        assert self.work.apart is not None
        return self.work.apart

    @property
    def microbatches(self) -> int:
        """Microbatches under way at once, no more than requests [count]."""
        return max(1, min(self.apart.microbatches, math.ceil(self.requests)))

    @property
    def gpus(self) -> tuple[int, int]:
        """GPUs of attention and of the experts [count]."""
        return self.apart.attention.num_ranks, self.apart.experts.num_ranks

    @cached_property
    def attention(self) -> PassPlan:
        """A microbatch of the busiest GPU that has attention."""
        base = self.apart.attention.workload
        assert isinstance(base, Inference)
        requests = (self.requests / self.gpus[ATTENTION] + self.more) / self.microbatches
        if self.work.total is not None:
            groups = base.layout.dp
            requests = math.ceil(self.requests / self.microbatches / groups) / base.layout.tp
        return PassPlan(self.apart.attention, base.one_batch(), requests)

    @cached_property
    def experts(self) -> PassPlan:
        """A microbatch of the experts, as if each of their GPUs had its part of the tokens."""
        base = self.apart.experts.workload
        assert isinstance(base, Inference)
        tokens = self.requests / self.microbatches * base.step_tokens / base.layout.ep
        whole = math.ceil(tokens - _UNDER)
        each = base.layout.etp * base.step_tokens
        return PassPlan(
            self.apart.experts,
            base.one_batch(),
            (whole - _UNDER) / each,
            share=min(1.0, tokens / whole),
            direct=True,
        )

    @cached_property
    def routings(self) -> tuple[Routing, ...]:
        """Routing of each layer that is drawn."""
        return tuple(row[0] for row in routings_of(self.experts))

    @property
    def cluster(self) -> Cluster:
        """Both pools as one cluster."""
        return self.scenario.joined()

    @cached_property
    def processors(self) -> tuple[Processor, Processor]:
        """Compute of a GPU of either pool, less what a kernel holds while other microbatches compute."""
        lends = self.microbatches > 1
        return processor_of(self.attention, lends=lends), processor_of(self.experts, lends=lends)

    # --- bytes -------------------------------------------------------------------------------------------------------

    def records(self, direction: str) -> Floats:
        """Records of a microbatch that each GPU of the experts takes in, or gives back, mean of drawn layers, [num_gpus]."""
        plan, cluster = self.experts, self.apart.experts.cluster()
        each = [
            collective(plan, cluster, direction, routing).records.sum(axis=0) for routing in self.routings
        ]
        return np.repeat(
            np.mean(each, axis=0), plan.layout.etp
        )  # GPUs that split experts get all of their tokens

    @cached_property
    def flows(self) -> dict[str, Flows]:
        """Bytes of a microbatch between all pairs of GPUs, in either direction; each GPU of the experts is a party of its own."""
        return {name: self._flows(name) for name in plans.COLLECTIVES}

    def _flows(self, direction: str) -> Flows:
        shared, sides = self.scenario.shared, self.gpus
        assert shared is not None
        near, far = (
            shared.ranks(part.shared.own, part.gpus) for part in self.work.parts if part.shared is not None
        )
        attention, experts = np.repeat(near, sides[EXPERTS]), np.tile(far, sides[ATTENTION])
        src, dst = (attention, experts) if direction == "dispatch" else (experts, attention)
        sent = send_flows(self.cluster, self.work.kernel, src, dst, 1.0)
        each = self.records(direction) / sides[ATTENTION] * pass_record_bytes(self.experts, direction)
        payload = np.tile(each, sides[ATTENTION])
        from_, to = np.divmod(np.arange(len(payload)), sides[EXPERTS])
        receiver = to if direction == "dispatch" else from_
        flow, lane = self._lanes(receiver, sides[EXPERTS if direction == "dispatch" else ATTENTION])
        return replace(
            sent,
            payload_bytes=payload,
            share=np.maximum(payload, 1e-9),
            latency_s=sent.latency_s + self._fixed_s(direction),
            # A lane of a message has the same number on both ranks.
            party_flow=np.concatenate([flow, flow]),
            party_rank=np.concatenate([lane, lane + self.lanes]),
        )

    @property
    def lanes(self) -> int:
        """GPUs of the larger pool; those of the smaller one stand for several [count]."""
        return max(self.gpus)

    def _lanes(self, receiver: Ints, num: int) -> tuple[Ints, Ints]:
        """Every lane that a flow's receiver stands for: flows, and lanes."""
        times = -(-self.lanes // num)
        lane = receiver[:, None] + num * np.arange(times)
        flow, place = np.nonzero(lane < self.lanes)
        return flow, lane[flow, place]

    def _fixed_s(self, direction: str) -> float:
        """Fixed time of the kernel [s]."""
        to = EXPERTS if direction == "dispatch" else ATTENTION
        peers, c = self.gpus[to], self.cluster
        nodes = -(-peers // self.work.parts[to].gpus_per_node)
        fixed_s = self.work.kernel.fixed_s(direction, uses_nic=True, num_nodes=nodes, num_remote_peers=peers)
        return fixed_s + self.work.kernel.beyond_s(c.scale_up_latency_s, c.same_leaf_latency_s, uses_nic=True)

    def alone_s(self, direction: str) -> float:
        """Time of a transfer that has the links to itself [s]."""
        flows, c = self.flows[direction], self.cluster
        line = flows.line_by_resource(len(c.capacity))
        used = line > 0
        return float((line[used] / c.capacity[used]).max() + flows.latency_s.max())

    # --- compute -----------------------------------------------------------------------------------------------------

    @cached_property
    def phases(self) -> dict[str, Part]:
        """Launches that send and receive, where the kernel has them, by `attention dispatch`, `experts dispatch`, ..."""
        parts: dict[str, Part] = {}
        for direction in plans.COLLECTIVES if KINDS[self.work.kernel.kind].phases else ():
            record, total = pass_record_bytes(self.experts, direction), float(self.records(direction).sum())
            width = self.attention.model.routed_width
            for side, name in enumerate(("attention", "experts")):
                sends = (direction == "dispatch") == (side == ATTENTION)
                tokens = self.attention.tokens if side == ATTENTION else 0.0
                copies = total / self.gpus[side]
                ends = kernels.phases(self.processors[side], copies, tokens, width, record, direction)
                end = "send" if sends else "receive"
                parts[f"{name} {direction}"] = {end: ends[0 if sends else 1]}
        return parts

    @cached_property
    def needs(self) -> tuple[Mapping[tuple[str, int, int], Floats], dict[str, Part]]:
        """Needs of attention by part and kind of layer, as of `common_needs`, and launches of a layer on both pools."""
        needs, parts = common_needs(self.attention, self.processors[ATTENTION], self.routings[0])
        own = {
            name: part
            for name, part in parts.items()
            if name in ("attention_0", "attention_1", "shared", "dense")
        }
        own |= self.phases
        own["experts"] = mean_experts(self.experts, self.processors[EXPERTS], self.routings[0])
        return needs, own

    @cached_property
    def expert_needs(self) -> list[Floats]:
        """Needs of the routed experts of each draw, [3, ranks of the EP group]."""
        return [experts_needs(self.experts, self.processors[EXPERTS], routing) for routing in self.routings]

    @cached_property
    def slowness(self) -> tuple[Floats, Floats]:
        """Compute time of each GPU of both pools over that of a healthy one."""
        attention, experts = self.work.parts
        return attention.slowness(), experts.slowness()

    def experts_s(self, draw: int) -> float:
        """Routed experts of the GPU that takes longest for its rows of a microbatch, which is waited for [s]."""
        own = np.repeat(self.expert_needs[draw][0], self.experts.layout.etp)
        return float((own * self.slowness[EXPERTS]).max())

    def dense_s(self, layers: tuple[int, ...]) -> float:
        """Dense layers of a microbatch in a row [s]."""
        needs, plan = self.needs[0], self.attention
        return float(sum(needs["dense", plan.layer_kind(layer), 0][0, 0] for layer in layers))

    def _programs(self) -> tuple[list[LayerPrograms], tuple[Node, ...]]:
        needs, plan = self.needs[0], self.attention
        known: dict[tuple[object, ...], LayerPrograms] = {}
        layers: list[LayerPrograms] = []

        late = {name: own.max() for name, own in zip(("attention", "experts"), self.slowness, strict=True)}

        def node(name: str, place: int, time_s: float, side: str = "attention") -> Node:
            return Node(name, "F", place, fixed_s=time_s * float(late[side]))

        def phase(side: str, direction: str, end: str, place: int) -> Node:
            part = self.phases.get(f"{side} {direction}", {})
            return node(f"{direction} {end}", place, total_s(part), side)

        for place, layer in enumerate(plan.blocks.layers):
            kind, before = plan.layer_kind(layer), plan.blocks.dense_before[place]
            draw = place % len(self.routings)
            key = kind, before, draw, place == 0
            if key not in known:
                first, second, shared = (
                    float(needs[name, kind, 0][0, 0]) for name in ("attention_0", "attention_1", "shared")
                )
                attention = [
                    node("attention_0", place, first + self.dense_s(before)),
                    node("attention_1", place, second),
                    phase("attention", "dispatch", "send", place),
                ]
                if place:
                    attention.insert(0, phase("attention", "combine", "receive", place))
                experts = [
                    phase("experts", "dispatch", "receive", place),
                    Node("experts", "F", place, fixed_s=self.experts_s(draw)),
                    phase("experts", "combine", "send", place),
                ]
                known[key] = LayerPrograms(
                    programs.chain(attention),
                    programs.chain([node("shared", place, shared)]),
                    programs.chain(experts),
                )
            layers.append(known[key])
        dense = node("dense", -1, self.dense_s(plan.blocks.dense_after))
        return layers, programs.chain([phase("attention", "combine", "receive", -1), dense])

    # --- in time -----------------------------------------------------------------------------------------------------

    def step_plan(self) -> StepPlan:
        """The step as the executor takes it."""
        c = self.cluster
        sends = {
            (ATTENTION, EXPERTS): [self.flows["dispatch"]],
            (EXPERTS, ATTENTION): [self.flows["combine"]],
        }
        return StepPlan(
            programs.afd_tasks(*self._programs(), self.microbatches),
            Traffic(c.capacity, c.class_idx, [[{}], [{}]], sends),
            1,
            self.lanes,
            np.ones((2, 1, self.lanes)),
            blocking=False,
        )

    @cached_property
    def ends(self) -> dict[str, Part]:
        """Launches before and after the layers, of all microbatches, on attention's GPUs."""
        plan, c = replace(self.attention, requests=self.attention.requests * self.microbatches), self.cluster
        moved = PassCollectives(c, (self.routings,), Traffic(c.capacity, c.class_idx, [], {}), [])
        return passes.ends(ForwardPass(plan, moved, PassNeeds(self.processors[ATTENTION], {}, {})))

    def step_s(self, ran: StepRun) -> float:
        """Time of a step that ran, until its last token is sampled [s]."""
        return float(ran.records[ATTENTION].end_s.max()) + sum(total_s(part) for part in self.ends.values())

    def run(self, keep_tasks: int = 0) -> StepRun:
        """Run the step, without embedding, head and sampling."""
        return run_step(self.step_plan(), keep_tasks=keep_tasks)
