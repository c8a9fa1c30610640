"""Time of a pass that prefills, from the work of each rank in it.

A pass is simulated at a few points, with straight lines between:

- tokens of the busiest rank, four points an octave. Its all-to-alls take as long as if every rank sent as much: it is waited
  for, and its own NIC binds whatever the others do;
- tokens of the mean rank over these: experts get rows from all ranks;
- seconds of attention of the rank that has most of them. What a prompt adds depends on its tokens and on those before them,
  so each chunk is timed by the launches of `sim.cost.prefill`, and a rank's chunks are added up: a batch of unlike prompts
  is one launch, which takes the work of all and exposes the ramp of the longest.

Matrix products take whole tiles, so the compute of a rank on its own and of its experts is a stair in tokens: both are
computed where they are asked for, and what they differ from the straight lines counts as more or less attention.

Two microbatches need two sequences on the busiest rank; where overlap is a choice, a pass takes the faster way.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache

from sim.cost import serving_kernels as kernels
from sim.cost.prefill import attention_core
from sim.cost.serving_kernels import DecodeBatch
from sim.cost.surfaces import surface
from sim.cost.work import total_s
from sim.runs import pass_pipeline, passes
from sim.runs.pass_collectives import PassCollectives, collectives_of
from sim.runs.pass_needs import cache_gather_s, common_needs, experts_s, needs_of, processor_of
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import ForwardPass, forward_pass
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule.serving import PassWork

_OCTAVE = 4  # points; one where routing is drawn
_CORE_S = (0.0, *(1e-3 * 2 ** (i / 2) for i in range(41)))  # points of attention seconds, to some 1,000 s
_CONTEXTS = (1.0, *(float(2**i) for i in range(7, 21)))
_CHUNKS = 2**17  # kept
_TILE = 16  # rows of the smallest tile of a GEMM


class PassSurface:
    """Cost of passes of one pool.

    Parameters
    ----------
    scenario : Scenario
        An instance of the pool.
    work : Inference
        Its prefill.
    most_tokens : int [tokens]
        Of a rank in a pass, about: more is a straight line on.
    queries : int [tokens]
        Of a running request that takes part.
    """

    def __init__(self, scenario: Scenario, work: Inference, most_tokens: int, queries: int = 1) -> None:
        self.group = work.layout.num_ranks // work.layout.dp
        self.queries = queries
        ways = work.ways
        self.ways = [_PassWay(scenario, way, most_tokens / self.group) for way in ways]

    def __call__(self, work: PassWork) -> float:
        """Time of a pass [s]."""
        sequences = {rank: len(chunks) for rank, chunks in work.chunks.items()}
        tokens: dict[int, float] = dict(work.new_tokens)
        mixed = bool(work.requests.any())
        if mixed:
            for rank in work.requests.nonzero()[0].tolist():
                running = int(work.requests[rank])
                tokens[rank] = tokens.get(rank, 0) + running * self.queries
                sequences[rank] = sequences.get(rank, 0) + running
        busiest = max(tokens, key=lambda rank: tokens[rank])
        share = sum(tokens.values()) / work.num_ranks / tokens[busiest]
        ways = self.ways if sequences[busiest] > 1 else self.ways[:1]
        times = []
        for way in ways:
            alone_s = {
                rank: way.local_s(tokens[rank] / self.group)
                + way.core_s(work, rank, self.group, self.queries)
                for rank in tokens
            }
            size = tokens[busiest] / self.group
            core_s = max(alone_s.values()) - way.local_s(size)
            times.append(way.pass_s(size, share, core_s))
        return min(times[1:] if self.ways[-1].forced and len(times) > 1 else times)

    def largest(self) -> tuple[ForwardPass, float]:
        """The pass with most tokens on every rank, and its time without attention cores [s]."""
        return self.ways[-1].largest()


class _PassWay:
    """A pool's passes in one batch, or in two that overlap."""

    def __init__(self, scenario: Scenario, work: Inference, most_tokens: float) -> None:
        self.scenario, self.forced = scenario, work.spec.overlap is True
        self.halves = 2 if work.spec.overlap else 1
        self.work = work
        octave = _OCTAVE if self._plan(most_tokens).is_uniform else 1
        least = 2 * self.halves
        points = {
            max(least, self.halves * round(most_tokens * 2 ** (-i / octave) / self.halves))
            for i in range(20 * octave)
        }
        self.tokens = sorted(points)
        ranks = self._plan(most_tokens).ranks
        self.shares = [*(2**i / ranks for i in range(ranks.bit_length()) if 2**i < ranks), 1.0]
        bends = self.halves > 1 or work.layout.pp > 1 or scenario.software is not None
        self.cores = _CORE_S if bends else (0.0, 1.0)
        self.lines_s = surface([self.tokens], lambda i: self._local_s(round(self.tokens[i])))
        self.mean_experts_s = surface([self.tokens, self.shares], self._node_experts_s)
        self.pass_s = surface([self.tokens, self.shares, self.cores], self._pass_s)
        self.chunk_s = lru_cache(_CHUNKS)(self._chunk_s)
        most = [float(2**i) for i in range(13)]
        self.running_s = surface([most, _CONTEXTS], lambda i, j: self._running_s(most[i], _CONTEXTS[j]))
        self._forward = lru_cache(512)(self._forward_at)
        self._collectives = lru_cache(256)(self._collectives_at)
        self._local_s = lru_cache(_CHUNKS)(self._local_at)
        self._experts_s = lru_cache(_CHUNKS)(self._experts_at)

    def _plan(self, tokens: float, share: float = 1.0, core_s: float | None = None) -> PassPlan:
        each = max(1, round(tokens / self.halves))
        work = replace(
            self.work, requests=self.halves, context_tokens=each, step_tokens=each, cached_tokens=0
        )
        return PassPlan(self.scenario, work, self.halves, share=share, core_s=core_s)

    @cached_property
    def _layers(self) -> dict[int, int]:
        """First layer of each kind -> how many are like it."""
        plan, count = self._plan(1.0), dict[int, int]()
        for layer in range(plan.model.num_layers):
            count[plan.layer_kind(layer)] = count.get(plan.layer_kind(layer), 0) + 1
        return count

    def time_s(self, tokens: float, share: float, local_s: float) -> float:
        """Time of a pass by the tokens of its busiest GPU, those of the mean over these, and the longest of what GPUs do alone [s]."""
        stair_s = self._experts_s(round(tokens * share)) - self.mean_experts_s(tokens, share)
        return self.pass_s(tokens, share, local_s + stair_s - self.lines_s(tokens))

    def local_s(self, tokens: float) -> float:
        """What a GPU does alone, attention cores left out; a stair of whole tiles, with slopes between [s]."""
        step = _TILE * self.halves
        above = max(step, -int(-tokens // step) * step)
        low, high = self._local_s(above - step + self.halves), self._local_s(above)
        part = max(0.0, tokens - above + step - self.halves) / (step - self.halves)
        return low + part * (high - low)

    def _local_at(self, tokens: int) -> float:
        plan = self._plan(tokens, core_s=0.0)
        needs, _ = common_needs(plan, processor_of(plan), self._collectives(0).routings[0][0])
        return self.halves * sum(
            float(times[0, 0]) * self._layers[kind]
            for (_, kind, _), times in needs.items()
            if kind in self._layers
        )

    def _experts_at(self, tokens: int) -> float:
        """Routed experts of all layers, where each GPU has so many tokens for them [s]; 0 where routing is drawn."""
        plan, last = self._plan(max(self.halves, tokens)), len(self.tokens) - 1
        if not plan.is_uniform:
            return 0.0
        routing = self._collectives(last).routings[0][0].thinned(max(self.halves, tokens) / self.tokens[last])
        return self.halves * len(plan.blocks.layers) * experts_s(plan, processor_of(plan), routing)

    def _node_experts_s(self, i: int, j: int) -> float:
        return self._experts_s(round(self.tokens[i] * self.shares[j]))

    def _collectives_at(self, i: int) -> PassCollectives:
        return collectives_of(self._plan(self.tokens[i]))

    def _forward_at(self, i: int, j: int) -> ForwardPass:
        plan, full = self._plan(self.tokens[i], self.shares[j], 0.0), self._collectives(i)
        if self.shares[j] < 1:
            thin = tuple(tuple(routing.thinned(self.shares[j]) for routing in row) for row in full.routings)
            full = replace(full, routings=thin)
        return ForwardPass(plan, full, needs_of(plan, full))

    def _pass_s(self, i: int, j: int, k: int) -> float:
        like = self._forward(i, j)
        core_s = self.cores[k]
        forward = forward_pass(replace(like.plan, core_s=core_s), like) if core_s else like
        return pass_pipeline.step_s(forward, passes.run(forward))

    def _chunk_s(self, new: int, before: int) -> tuple[float, float]:
        """Attention of a chunk in all layers: what it adds to a batch, and what the batch takes once [s]."""
        plan = self._plan(float(new))
        p, whole = processor_of(plan), plan.prefill_batch("attention")

        def cores_s(sequences: int) -> float:
            batch = replace(whole, sequences=sequences, new_tokens=new, cached_tokens=before)
            own = {
                kind: sum(launch.time_s for launch in attention_core(p, plan.model, batch, kind))
                for kind in self._layers
            }
            gathered = {  # on each GPU of a group, whose part of the cores is less by their number
                kind: sequences * shared * cache_gather_s(plan, a, before, own[kind] / sequences / shared)
                for kind in self._layers
                if (a := plan.model.layer(kind).attention) is not None and plan.layout.cp > 1
            }
            return sum(n * (own[kind] + gathered.get(kind, 0.0)) for kind, n in self._layers.items())

        shared = plan.layout.num_ranks / plan.layout.dp

        once_s, twice_s = cores_s(1), cores_s(2)
        return twice_s - once_s, max(0.0, 2 * once_s - twice_s)

    def _running_s(self, requests: float, context_tokens: float) -> float:
        """Attention cores of running requests of a GPU in all layers [s]."""
        plan = self._plan(1.0)
        formats = plan.formats
        batch = DecodeBatch(
            requests,
            1,
            context_tokens,
            precision=formats.parts["attention"],
            kv_bytes_per_element=formats.cache.element_bytes,
            attention=formats.cores,
        )
        p = processor_of(plan)
        return sum(
            n * total_s({launch.name: launch for launch in kernels.decode_core(p, attention, batch)})
            for kind, n in self._layers.items()
            if (attention := plan.model.layer(kind).attention) is not None
        )

    def core_s(self, work: PassWork, rank: int, group: int, queries: int) -> float:
        """Attention cores of a rank of so many GPUs, on each [s]."""
        parts = [
            self.chunk_s(-(-new // _TILE) * _TILE, -(-before // _TILE) * _TILE)  # no block more
            for new, before in work.chunks.get(rank, ())
        ]
        added = sum(add for add, _ in parts) / group
        once = max((once for _, once in parts), default=0.0)
        running = int(work.requests[rank])
        if running:
            context = float(work.context_tokens[rank]) / running
            once += self.running_s(running * queries / group, context)
        return added + once

    def largest(self) -> tuple[ForwardPass, float]:
        """The pass with most tokens on every rank, and its time without attention cores [s]."""
        last = len(self.tokens) - 1, len(self.shares) - 1
        return self._forward(*last), self._pass_s(*last, 0)
