"""One forward pass of a deployment: what each of its nodes takes, computes and moves on each rank of an EP group.

A scenario's routing is drawn for a few layers, which the model's layers take in turn. Each draw gives every rank its own
rows on its experts and its own traffic: the exchanges are solved at flow level, the experts timed at those rows. Where
counts are means and tokens few, a rank's experts are as many as are expected to get a token at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from sim.cluster import topology
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.cost import prefill
from sim.cost import serving_kernels as kernels
from sim.cost.compute import Dtype, Processor, processor
from sim.cost.deployment import CACHE_BYTES
from sim.cost.prefill import PrefillBatch
from sim.cost.serving_kernels import DecodeBatch
from sim.cost.work import Part, Work, dense_peaks, hbm_bytes, least_s, part, total_s
from sim.engine import fluid
from sim.engine.inference import PassRecord, run_pass
from sim.runs.routing import place
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import bounds, reductions
from sim.schedule import inference as plans
from sim.schedule.collectives import KINDS, Collective, record_bytes
from sim.schedule.flows import Flows
from sim.workload.expectation import rows_of_touched
from sim.workload.gating import popularity
from sim.workload.model import GQA
from sim.workload.traffic import Routing, route

_SEEDS_APART = 7919  # between the seeds of layers; the first layer has the scenario's


@dataclass(frozen=True, slots=True)
class Solved:
    """An exchange on idle links: time of each rank [num_ranks], and its flows."""

    alone_s: Floats
    flows: Flows


class Pass:
    """One pass of one EP group: what its nodes take.

    `requests` are those of the busiest GPU, of which the mean one has the `share`: exchanges and experts see the mean, all
    else keeps the busiest GPU's time. A share below 1 counts means, whatever the sampling.
    """

    def __init__(
        self,
        scenario: Scenario,
        work: Inference,
        requests: int,
        cached_tokens: int = 0,
        *,
        share: float = 1.0,
    ) -> None:
        assert scenario.model is not None
        assert scenario.hardware is not None
        self.scenario, self.work, self.share = scenario, work, share
        self.sampling = work.sampling if share == 1.0 else "expected"
        self.model, self.hardware = scenario.model, scenario.hardware
        self.requests, self.cached_tokens = requests, cached_tokens
        self.decode, self.ranks = work.spec.kind == "decode", work.layout.ep
        self.halves = 2 if work.spec.overlap else 1
        self.extra = min(work.step_tokens - 1, 8) if self.decode and self.model.num_mtp_layers else 0
        self.blocks = plans.blocks(self.model, self.extra)
        self.phases = self.decode and KINDS[work.kernel.kind].phases
        self.microbatch_requests = requests / self.halves
        self.tokens = max(1, math.ceil(self.microbatch_requests * work.step_tokens))
        self.precision: Dtype = "fp8" if work.spec.precision == "fp8" else "bf16"
        self.drawn = 1 if self._same_everywhere else min(work.spec.drawn_layers, len(self.blocks.layers))
        self.routings = [
            [self._routing(layer, half) for half in range(1 if self._same_everywhere else self.halves)]
            for layer in range(self.drawn)
        ]
        self.cluster = self._cluster()
        self.solved = {
            (name, layer, half): self._solve(name, routing)
            for name in plans.COLLECTIVES
            for layer, row in enumerate(self.routings)
            for half, routing in enumerate(row)
        }
        self.peaks = dense_peaks(self.hardware.gpu)
        self.p = self._processor()
        self.parts: dict[str, Part] = {}
        self.needs = self._needs()

    @property
    def _same_everywhere(self) -> bool:
        return self.sampling == "expected" and self.work.gate.is_exchangeable

    # --- traffic -----------------------------------------------------------------------------------------------

    def _routing(self, layer: int, half: int) -> Routing:
        work, model, seed = self.work, self.model, self.scenario.seed + layer * _SEEDS_APART
        per_node = self.scenario.gpus_per_node
        placement = place(
            work.gate,
            work.spec.placement.kind,
            work.spec.placement.redundant_experts,
            model.num_experts,
            model.top_k,
            model.num_groups,
            self.ranks,
            per_node,
            seed,
        )
        busiest = route(
            work.gate,
            placement,
            top_k=model.top_k,
            tokens_per_rank=self.tokens,
            ranks_per_node=per_node,
            sampling=self.sampling,
            rng=np.random.default_rng([seed, 2, half]),
            probabilities=popularity(work.gate, model.num_experts, np.random.default_rng([seed, 0])),
        )
        return busiest if self.share == 1.0 else busiest.thinned(self.share)

    def _cluster(self) -> topology.Cluster:
        assert isinstance(self.scenario.fabric, topology.Fabric)
        nodes = max(1, self.ranks // self.hardware.gpu.scale_up.domain)
        first = self._faulty_group * nodes
        mine = tuple(
            replace(fault, node=None if fault.node is None else fault.node - first)
            for fault in self.scenario.faults
        )
        return topology.build(self.hardware, nodes, self.scenario.fabric, mine)

    @cached_property
    def _faulty_group(self) -> int:
        """The EP group that is run: the one with faults, where one has any."""
        nodes = max(1, self.ranks // self.hardware.gpu.scale_up.domain)
        faulty = [fault.node for fault in self.scenario.faults if fault.node is not None]
        faulty += [fault.node for fault in self.scenario.gpu_faults]
        return faulty[0] // nodes if faulty else 0

    @cached_property
    def _slowness(self) -> Floats:
        """Compute time of each rank over that of a healthy GPU, [num_ranks]."""
        first = self._faulty_group * self.ranks
        return self.scenario.slowness()[first : first + self.ranks]

    def record(self, direction: str) -> float:
        """Bytes of a record."""
        work, model = self.work, self.model
        dtype = work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype
        return float(record_bytes(work.kernel.kind, direction, dtype, model.hidden, model.top_k))

    def collective(self, direction: str, routing: Routing) -> Collective:
        """Dispatch or combine of a layer and microbatch."""
        return Collective(
            cluster=self.cluster,
            kernel=self.work.kernel,
            direction=direction,
            gpus=np.arange(self.ranks),
            routing=routing,
            record_bytes=self.record(direction),
            comm_sms=self.work.comm_sms,
            **self.work.options,
        )

    def _solve(self, direction: str, routing: Routing) -> Solved:
        exchange = self.collective(direction, routing)
        fixed, flows = exchange.latency_s(), exchange.flows()
        if self.ranks == 1 or flows.num_flows == 0:
            return Solved(np.full(self.ranks, fixed if self.ranks > 1 else 0.0), flows)
        if self.scenario.fidelity == "closed_form":
            return Solved(np.full(self.ranks, bounds.closed_form_s(exchange)[0]), flows)
        island = fluid.lone(flows, self.cluster.capacity, often=not self._same_everywhere)
        finish = fixed + fluid.alone(flows, island)
        return Solved(flows.rank_ends(finish, self.ranks, floor_s=fixed), flows)

    # --- compute -----------------------------------------------------------------------------------------------

    def _processor(self) -> Processor:
        """Where the batch overlaps, the SMs of its collectives are lent. Prefill runs at the clock of long load; in decode tensor cores mostly wait."""
        sms = self.hardware.gpu.sms
        beside = sms - self.work.comm_sms if self.work.spec.overlap and self.ranks > 1 else sms
        return processor(
            self.hardware, sms=beside, sustained=not self.decode, generation=self.work.spec.gemm_generation
        )

    def _needs(self) -> dict[tuple[str, int, int], Floats]:
        """What compute parts take, by (name, layer draw, microbatch): time [s], FLOPs over their peaks [s] and bytes of HBM,
        [3, num_ranks]; what no rank differs in stands under (name, attention kind, 0).
        """
        needs = self.common()
        if not self.decode and self.work.spec.overlap and self.ranks > 1:
            share = self._hbm_share(
                sum(float(need[0, 0]) for need in needs.values()) + self._experts_needs(0, 0)[0].mean()
            )
            self.p = replace(self.p, hbm_bytes_per_s=self.p.hbm_bytes_per_s * share)
            needs = self.common()
        for layer, row in enumerate(self.routings):
            for half in range(len(row)):
                needs["experts", layer, half] = self._experts_needs(layer, half)
        return needs

    def _need(self, kernels_: Part) -> tuple[float, float, float]:
        return total_s(kernels_), least_s(kernels_, self.peaks), hbm_bytes(kernels_)

    def _hbm_share(self, compute_s: float) -> float:
        """What the exchanges of one layer leave of the HBM rate while a microbatch computes [fraction]."""
        received = self.routings[0][0].ranks_per_token * self.tokens
        touched = sum(self.work.kernel.hbm_touches[name] * self.record(name) for name in plans.COLLECTIVES)
        rate = self.hardware.gpu.hbm.bandwidth_bytes_per_s
        return max(0.1, 1.0 - received * touched / (compute_s * rate))

    def _kind(self, layer: int) -> int:
        """Which attention a layer has: 0 with a window or chunk (or where all are alike), 1 over the whole context."""
        a = self.model.attention
        return int(isinstance(a, GQA) and a.full_every > 1 and (layer + 1) % a.full_every == 0)

    def common(self) -> dict[tuple[str, int, int], Floats]:
        """What takes every rank the same, by attention kind, as in `needs`."""
        layers = {self._kind(layer): layer for layer in range(self.model.num_layers)}
        found: dict[tuple[str, int, int], Floats] = {}
        for kind, layer in sorted(layers.items(), reverse=True):
            self.parts = self._parts(layer)
            found |= {
                (name, kind, 0): np.tile(np.array([self._need(one)]).T, self.ranks)
                for name, one in self.parts.items()
            }
        return found

    def _parts(self, first: int) -> dict[str, Part]:
        """Kernels of each part of a layer like `first`."""
        p, model = self.p, self.model
        found: dict[str, Part]
        if self.decode:
            decoded = self.decode_batch()
            found = {
                "attention_0": kernels.decode_attention_0(p, model, decoded),
                "attention_1": kernels.decode_attention_1(p, model, decoded, first),
                "shared": kernels.decode_shared(p, model, decoded),
            }
            if model.num_dense_layers:
                plain = kernels.decode_attention_1(p, model, decoded, first, gated=False)
                whole = (found["attention_0"], plain, kernels.decode_dense(p, model, decoded))
                found["dense"] = part(*(one for kernels_ in whole for one in kernels_.values()))
        else:
            batch = self.prefill_batch()
            found = {
                "attention": prefill.prefill_attention(p, model, batch, first),
                "shared": prefill.prefill_shared(p, model, batch),
            }
            if model.num_dense_layers:
                plain = prefill.prefill_attention(p, model, batch, first, gated=False)
                found["dense"] = part(*plain.values(), *prefill.prefill_dense(p, model, batch).values())
        reduced = Work("tensor-parallel reduction", "", 0.0, 0.0, self._tp_s())
        if reduced.time_s:
            for name in ("attention", "attention_1", "dense"):
                if name in found:
                    found[name] = {**found[name], reduced.name: reduced}
        if self.phases and self.ranks > 1:
            routing = self.routings[0][0]
            # Of the busiest rank, which has all of its tokens.
            copies = float(routing.selections_to_rank.sum() / self.ranks) / self.share
            for name in plans.COLLECTIVES:
                send, receive = kernels.phases(p, copies, self.tokens, model.hidden, self.record(name), name)
                found[f"{name} send"], found[f"{name} receive"] = {"send": send}, {"receive": receive}
        return found

    def prefill_batch(self) -> PrefillBatch:
        """A microbatch of prompts."""
        return PrefillBatch(
            sequences=max(1, round(self.microbatch_requests)),
            new_tokens=self.work.step_tokens,
            cached_tokens=self.cached_tokens,
            tp=self.work.layout.tp,
            precision=self.precision,
            fused_gate=self.work.spec.fused_gate,
        )

    def decode_batch(self) -> DecodeBatch:
        """A microbatch of requests."""
        return DecodeBatch(
            requests=self.microbatch_requests,
            queries=self.work.step_tokens,
            context_tokens=self.work.context_tokens,
            tp=self.work.layout.tp,
            precision=self.precision,
            kv_bytes_per_element=CACHE_BYTES[self.work.spec.kv_dtype],
            fused_gate=self.work.spec.fused_gate,
        )

    def _tp_s(self) -> float:
        """All-gather and reduce-scatter of one attention block under TP [s]."""
        tp = self.work.layout.tp
        links = reductions.Links.achieved(self.hardware, load_kernel("nccl"))
        return reductions.tensor_parallel_s(links, self.tokens * tp * self.model.hidden * 2.0, tp)

    def _experts_needs(self, layer: int, half: int) -> Floats:
        """Routed experts of every rank [3, num_ranks]; ranks with the same rows share one answer."""
        routing = self.routings[layer][half]
        mean = float(routing.selections_to_physical.mean())
        received = routing.tokens_to_rank.sum(axis=0)
        known: dict[tuple[int, ...], tuple[float, float, float]] = {}
        found = np.empty((3, self.ranks))
        rows = list(routing.selections_to_physical.reshape(self.ranks, -1))
        if self.sampling == "expected":
            tokens = routing.tokens_per_rank * self.ranks
            rows = rows_of_touched(np.array(rows), tokens, evenly=self.work.gate.kind == "balanced")
        for rank in range(self.ranks):
            key = (*sorted(round(r) for r in rows[rank]), round(received[rank]))
            if key not in known:
                known[key] = self._need(self._experts(key[:-1], float(key[-1]), mean))
            found[:, rank] = known[key]
        if layer == half == 0:
            got = np.concatenate(rows)
            got = got[got > 0]
            each = (round(got.mean()),) * round(len(got) / self.ranks)
            self.parts["experts"] = self._experts(each, float(received.mean()), mean)
        return found

    def _experts(self, rows: tuple[int, ...], received: float, expected: float) -> Part:
        if self.decode:
            return kernels.decode_experts(self.p, self.model, self.precision, rows, expected)
        return prefill.prefill_experts(self.p, self.model, self.prefill_batch(), rows, received)

    # --- time --------------------------------------------------------------------------------------------------

    def duration(self, node: plans.PassNode) -> Floats:
        """Time of a node on each rank [num_ranks] [s]."""
        if node.part not in plans.COLLECTIVES:
            takes: Floats = self.need(node)[0] * self._slowness
            return takes
        layer, half = node.layer % self.drawn, node.microbatch % len(self.routings[0])
        alone_s = self.solved[node.part, layer, half].alone_s
        if self.phases and self.ranks > 1:
            held = self.needs[f"{node.part} send", 0, 0] + self.needs[f"{node.part} receive", 0, 0]
            flight: Floats = np.maximum(alone_s - held[0], 0.0)
            return flight
        slowdown = self.work.kernel.slowdown(node.part)
        return alone_s * slowdown if self.work.spec.overlap and not self.phases else alone_s

    def need(self, node: plans.PassNode) -> Floats:
        """Time [s], FLOPs over their peaks [s] and bytes of HBM of a compute node on each rank, [3, num_ranks]."""
        if node.part == "experts":
            return self.needs["experts", node.layer % self.drawn, node.microbatch % len(self.routings[0])]
        if node.part == "dense":
            return self.dense(self.blocks.dense_after)
        kind = self._kind(self.blocks.layers[node.layer]) if node.part.startswith("attention") else 0
        common = self.needs.get((node.part, kind, 0))
        if common is None:  # one rank has nothing to send
            return self._nothing
        if node.part in ("attention", "attention_0") and self.blocks.dense_before[node.layer]:
            return common + self.dense(self.blocks.dense_before[node.layer])
        return common

    def dense(self, layers: tuple[int, ...]) -> Floats:
        """Dense layers in a row, attention included, as in `need`."""
        whole = self._nothing
        for layer in layers:
            whole = whole + self.needs["dense", self._kind(layer), 0]
        return whole

    @cached_property
    def _nothing(self) -> Floats:
        return np.zeros((3, self.ranks))

    def program(self) -> tuple[plans.PassNode, ...]:
        """The nodes of the pass."""
        return plans.forward(
            len(self.blocks.layers),
            decode=self.decode,
            overlap=self.work.spec.overlap,
            phases=self.phases and self.ranks > 1,
            trailing=self.blocks.dense_after,
        )

    def run(self) -> PassRecord:
        """The pass in time, without its ends."""
        barrier = KINDS[self.work.kernel.kind].barrier
        return run_pass(self.program(), self.duration, self.ranks, barrier=barrier)

    def ends(self) -> dict[str, Part]:
        """Embedding, head and sampling, and those of speculation."""
        tokens = self.requests * self.work.step_tokens
        found = {"ends": kernels.ends(self.p, self.model, tokens, tokens if self.decode else self.requests)}
        for module in range(self.extra):
            found[f"speculation {module + 1}"] = {
                **kernels.mtp_join(self.p, self.model, tokens),
                **kernels.ends(self.p, self.model, 0, self.requests),
            }
        return found

    def step_s(self, record: PassRecord) -> float:
        """Time of the pass with its ends, until the last rank has sampled [s]."""
        return float(record.end_s.max()) + sum(total_s(one) for one in self.ends().values())
