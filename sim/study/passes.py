"""One forward pass of a deployment: what each of its nodes takes on each rank of an EP group, and no pass is faster than.

A scenario's routing is drawn for a few layers, which the model's layers take in turn. Each draw gives every rank its own
rows on its experts and its own traffic: the exchanges are solved at flow level, the experts timed at those rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster import topology
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.cost import serving_kernels as kernels
from sim.cost.compute import Dtype, Processor, processor
from sim.cost.deployment import CACHE_BYTES, Footprint
from sim.cost.serving_kernels import DecodeBatch, PrefillBatch
from sim.cost.work import Part, Work, together, total_s
from sim.engine import fluid
from sim.engine.inference import PassRecord, run_pass
from sim.schedule import bounds, reductions
from sim.schedule import inference as plans
from sim.schedule.collectives import Exchange
from sim.schedule.flows import Flows
from sim.study.descriptions import Inference, Scenario
from sim.study.routing import place
from sim.workload.gating import popularity
from sim.workload.model import GQA, MLA, attention_core_flops_per_token, kv_bytes_per_token, parameters
from sim.workload.traffic import Routing, record_bytes, route

_SEEDS_APART = 7919  # between the seeds of layers; the first layer has the scenario's


@dataclass(frozen=True, slots=True)
class Solved:
    """An exchange on idle links: time of each rank [num_ranks], and its flows."""

    alone_s: Floats
    flows: Flows


class Pass:
    """One pass of one EP group: what its nodes take."""

    def __init__(self, scenario: Scenario, work: Inference, requests: int, cached_tokens: int = 0) -> None:
        assert scenario.model is not None
        assert scenario.hardware is not None
        self.scenario, self.work = scenario, work
        self.model, self.hardware = scenario.model, scenario.hardware
        self.requests, self.cached_tokens = requests, cached_tokens
        self.decode, self.ranks = work.kind == "decode", work.layout.ep
        self.halves = 2 if work.overlap else 1
        self.extra = min(work.step_tokens - 1, 8) if self.decode and self.model.num_mtp_layers else 0
        self.blocks = plans.blocks(self.model, self.extra)
        self.phases = self.decode and work.kernel.name == "low_latency"
        self.microbatch_requests = requests / self.halves
        self.tokens = max(1, math.ceil(self.microbatch_requests * work.step_tokens))
        self.precision: Dtype = "fp8" if work.precision == "fp8" else "bf16"
        self.drawn = 1 if self._same_everywhere else min(work.drawn_layers, len(self.blocks.layers))
        self.routings = [
            [self._routing(layer, half) for half in range(1 if self._same_everywhere else self.halves)]
            for layer in range(self.drawn)
        ]
        self.cluster = self._cluster()
        self.solved = {
            (name, layer, half): self._solve(name, routing)
            for name in plans.EXCHANGES
            for layer, row in enumerate(self.routings)
            for half, routing in enumerate(row)
        }
        self.p = self._processor()
        self.parts: dict[str, Part] = {}
        self.times = self._times()

    @property
    def _same_everywhere(self) -> bool:
        exchangeable = self.work.gate.is_exchangeable
        return self.work.sampling == "expected" and exchangeable

    # --- traffic -----------------------------------------------------------------------------------------------

    def _routing(self, layer: int, half: int) -> Routing:
        work, model, seed = self.work, self.model, self.scenario.seed + layer * _SEEDS_APART
        per_node = self.scenario.gpus_per_node
        placement = place(
            work.gate,
            work.placement,
            work.redundant_experts,
            model.num_experts,
            model.top_k,
            model.num_groups,
            self.ranks,
            per_node,
            seed,
        )
        return route(
            work.gate,
            placement,
            top_k=model.top_k,
            tokens_per_rank=self.tokens,
            ranks_per_node=per_node,
            sampling=work.sampling,
            rng=np.random.default_rng([seed, 2, half]),
            probabilities=popularity(work.gate, model.num_experts, np.random.default_rng([seed, 0])),
        )

    def _cluster(self) -> topology.Cluster:
        assert isinstance(self.scenario.fabric, topology.Fabric)
        nodes = max(1, self.ranks // self.hardware.gpu.scale_up.domain)
        mine = tuple(fault for fault in self.scenario.faults if fault.node is None or fault.node < nodes)
        return topology.build(self.hardware, nodes, self.scenario.fabric, mine, comm_sms=self.work.comm_sms)

    def record(self, direction: str) -> float:
        """Bytes of a record."""
        work, model = self.work, self.model
        dtype = work.dispatch_dtype if direction == "dispatch" else work.combine_dtype
        return float(record_bytes(work.kernel.name, direction, dtype, model.hidden, model.top_k))

    def _solve(self, direction: str, routing: Routing) -> Solved:
        exchange = Exchange(
            cluster=self.cluster,
            kernel=self.work.kernel,
            direction=direction,
            gpus=np.arange(self.ranks),
            routing=routing,
            record_bytes=self.record(direction),
            comm_sms=self.work.comm_sms,
            **self.work.options,
        )
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
        """Beside two_hop some SMs are lent. Prefill runs at the clock of long load; in decode tensor cores mostly wait."""
        sms = self.hardware.gpu.sms
        beside = sms - self.work.comm_sms if self.work.overlap and self.ranks > 1 else sms
        return processor(
            self.hardware, sms=beside, sustained=not self.decode, generation=self.work.generation
        )

    def _times(self) -> dict[tuple[str, int, int], Floats]:
        """Compute parts by (name, layer draw, microbatch), [num_ranks]; what no rank differs in stands under (name, 0, 0)."""
        times = self._common()
        if not self.decode and self.work.overlap and self.ranks > 1:
            share = self._hbm_share(
                sum(float(part[0]) for part in times.values()) + self._experts_s(0, 0).mean()
            )
            self.p = replace(self.p, hbm_bytes_per_s=self.p.hbm_bytes_per_s * share)
            times = self._common()
        for layer, row in enumerate(self.routings):
            for half in range(len(row)):
                times["experts", layer, half] = self._experts_s(layer, half)
        return times

    def _hbm_share(self, compute_s: float) -> float:
        """What the exchanges of one layer leave of the HBM rate while a microbatch computes [fraction]."""
        received = self.routings[0][0].ranks_per_token * self.tokens
        touched = sum(self.work.kernel.hbm_touches.of(name) * self.record(name) for name in plans.EXCHANGES)
        rate = self.hardware.gpu.hbm.bandwidth_bytes_per_s
        return max(0.1, 1.0 - received * touched / (compute_s * rate))

    def _kind(self, layer: int) -> int:
        """Which attention a layer has: 0 with a window or chunk (or where all are alike), 1 over the whole context."""
        a = self.model.attention
        return int(isinstance(a, GQA) and a.full_every > 1 and (layer + 1) % a.full_every == 0)

    def _common(self) -> dict[tuple[str, int, int], Floats]:
        """What takes every rank the same, by attention kind."""
        layers = {self._kind(layer): layer for layer in range(self.model.num_layers)}
        found: dict[tuple[str, int, int], Floats] = {}
        for kind, layer in sorted(layers.items(), reverse=True):
            self.parts = self._parts(layer)
            found |= {
                (name, kind, 0): np.full(self.ranks, total_s(part)) for name, part in self.parts.items()
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
                found["dense"] = {
                    "attention": together("attention", (*found["attention_0"].values(), *plain.values())),
                    **kernels.decode_dense(p, model, decoded),
                }
        else:
            batch = self.prefill_batch()
            found = {
                "attention": kernels.prefill_attention(p, model, batch, first),
                "shared": kernels.prefill_shared(p, model, batch),
            }
            if model.num_dense_layers:
                plain = kernels.prefill_attention(p, model, batch, first, gated=False)
                whole = together("attention", plain.values())
                found["dense"] = {"attention": whole, **kernels.prefill_dense(p, model, batch)}
        reduced = Work("tensor-parallel reduction", "", 0.0, 0.0, self._tp_s())
        if reduced.time_s:
            for name in ("attention", "attention_1", "dense"):
                if name in found:
                    found[name] = {**found[name], reduced.name: reduced}
        if self.phases and self.ranks > 1:
            routing = self.routings[0][0]
            copies = float(routing.selections_to_rank.sum() / self.ranks)
            for name in plans.EXCHANGES:
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
            fused_gate=self.work.fused_gate,
        )

    def decode_batch(self) -> DecodeBatch:
        """A microbatch of requests."""
        return DecodeBatch(
            requests=self.microbatch_requests,
            queries=self.work.step_tokens,
            context_tokens=self.work.context_tokens,
            tp=self.work.layout.tp,
            precision=self.precision,
            kv_bytes_per_element=CACHE_BYTES[self.work.kv_dtype],
            fused_gate=self.work.fused_gate,
        )

    def _tp_s(self) -> float:
        """All-gather and reduce-scatter of one attention block under TP [s]."""
        tp = self.work.layout.tp
        links = reductions.Links.of(self.hardware, load_kernel("nccl"))
        return reductions.tensor_parallel_s(links, self.tokens * tp * self.model.hidden * 2.0, tp)

    def _experts_s(self, layer: int, half: int) -> Floats:
        """Routed experts of every rank [num_ranks]; ranks with the same rows share one answer."""
        routing = self.routings[layer][half]
        rows = routing.selections_to_physical.reshape(self.ranks, -1)
        received = routing.tokens_to_rank.sum(axis=0)
        known: dict[tuple[int, ...], float] = {}
        found = np.empty(self.ranks)
        for rank in range(self.ranks):
            key = (*sorted(round(r) for r in rows[rank]), round(received[rank]))
            if key not in known:
                known[key] = total_s(self._experts(key[:-1], float(key[-1]), float(rows.mean())))
            found[rank] = known[key]
        if layer == half == 0:
            self.parts["experts"] = self._experts(
                (round(rows.mean()),) * rows.shape[1], float(received.mean()), float(rows.mean())
            )
        return found

    def _experts(self, rows: tuple[int, ...], received: float, expected: float) -> Part:
        if self.decode:
            return kernels.decode_experts(self.p, self.model, self.precision, rows, expected)
        return kernels.prefill_experts(self.p, self.model, self.prefill_batch(), rows, received)

    # --- time --------------------------------------------------------------------------------------------------

    def duration(self, node: plans.Node) -> Floats:
        """Time of a node on each rank [s]."""
        layer, half = node.layer % self.drawn, node.microbatch % len(self.routings[0])
        if node.part in plans.EXCHANGES:
            takes = self.solved[node.part, layer, half].alone_s
            if self.work.overlap and not self.phases:
                takes = takes * self.work.kernel.beside_compute_slowdown.of(node.part)
            if self.phases and self.ranks > 1:
                held = self.times[f"{node.part} send", 0, 0] + self.times[f"{node.part} receive", 0, 0]
                takes = np.maximum(takes - held, 0.0)
            return takes
        if node.part == "experts":
            return self.times["experts", layer, half]
        if node.part == "dense":
            return self.dense_s(self.blocks.dense_after)
        kind = self._kind(self.blocks.layers[node.layer]) if node.part.startswith("attention") else 0
        common = self.times.get((node.part, kind, 0))
        if common is None:  # one rank has nothing to send
            return np.zeros(self.ranks)
        if node.part in ("attention", "attention_0") and self.blocks.dense_before[node.layer]:
            return common + self.dense_s(self.blocks.dense_before[node.layer])
        return common

    def dense_s(self, layers: tuple[int, ...]) -> Floats:
        """Dense layers in a row, attention included [num_ranks] [s]."""
        return sum((self.times["dense", self._kind(layer), 0] for layer in layers), np.zeros(self.ranks))

    def program(self) -> tuple[plans.Node, ...]:
        """The nodes of the pass."""
        return plans.forward(
            len(self.blocks.layers),
            decode=self.decode,
            overlap=self.work.overlap,
            phases=self.phases and self.ranks > 1,
            trailing=self.blocks.dense_after,
        )

    def run(self) -> PassRecord:
        """The pass in time, without its ends."""
        barrier = self.work.kernel.name != "low_latency"
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

    # --- bounds ------------------------------------------------------------------------------------------------

    def lower_bound_s(self, memory: Footprint) -> float:
        """No pass is faster."""
        return max(self.bounds_s(memory).values())

    def bounds_s(self, memory: Footprint) -> dict[str, float]:
        """What each class of resource needs alone [s]: FLOPs over the dense peak, bytes over HBM, bytes over links."""
        model, gpu = self.model, self.hardware.gpu
        tokens, count = self.requests * self.work.step_tokens, parameters(model)
        context = float(self.work.context_tokens)
        flops = 2.0 * tokens * (count.matmul - model.vocab * model.hidden)
        if self.decode:
            a = model.attention
            width = (a.qk_head_dim + a.v_head_dim) if isinstance(a, MLA) else 2 * a.head_dim
            full = model.num_layers // (1 if isinstance(a, MLA) else a.full_every)
            flops += 2.0 * tokens * a.num_heads * width * context * full
        else:
            flops += self.requests * self._core_flops()
        peak = (gpu.dense_flops.fp8 if self.precision == "fp8" else None) or gpu.dense_flops.bf16
        cache = self.requests * context * kv_bytes_per_token(model, CACHE_BYTES[self.work.kv_dtype])
        whole = not isinstance(model.attention, MLA) and model.attention.full_every > 1
        read = memory.weights_bytes - count.embedding * 2.0 + (cache if self.decode and not whole else 0.0)
        flows = [one.flows for one in self.solved.values()]
        turns = len(self.blocks.layers) // self.drawn * (self.halves // len(self.routings[0]))
        links = bounds.lower_bound_s(flows, self.cluster) * turns
        return {"compute": flops / peak, "hbm": read / gpu.hbm.bandwidth_bytes_per_s, "links": links}

    def _core_flops(self) -> float:
        """Of one prompt's pass, the causal half only."""

        def whole(tokens: int) -> float:
            return attention_core_flops_per_token(self.model, tokens, True) * tokens

        before = self.cached_tokens
        return whole(before + self.work.step_tokens) - (whole(before) if before else 0.0)
