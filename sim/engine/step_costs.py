"""What the exchanges of a training step take, with and without skew.

The all-to-all of a layer is solved at flow level on the nodes of one EP group. Without skew every one is the same and is
solved once; with skew each (layer, microbatch) has its own routed load per rank, lognormal around the mean, and its own
solution: a rank that more tokens want receives more bytes and computes longer in F, B and W alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sim.cluster.topology import NONE, Floats
from sim.engine import fluid
from sim.engine.step_plan import ExchangeTimes
from sim.schedule.collectives import Exchange
from sim.schedule.flows import Flows
from sim.workload.skew import Skew


class StepCosts:
    """The exchanges, loads and jitter of one step; see `training.Costs`."""

    def __init__(
        self,
        exchanges: Mapping[str, Exchange],
        slowdown: Mapping[str, float],
        skew: Skew,
        *,
        num_groups: int,
        num_layers: int,
        num_microbatches: int,
        seed: int,
        lanes: int | None = None,
    ) -> None:
        self.slowdown, self.skew, self.num_groups = slowdown, skew, num_groups
        self.templates = {
            name: _Template(exchange, often=skew.routed_load > 0) for name, exchange in exchanges.items()
        }
        # Ranks that exchange nothing may stand side by side as lanes: `lanes` then says how many.
        self.lanes = 1 if skew.balanced else lanes or len(exchanges["dispatch"].gpus)
        self.rng = np.random.default_rng([seed, 3])
        shape = (num_groups, num_layers + 1, num_microbatches, self.lanes)
        self.loads = _lognormal(self.rng, skew.routed_load, shape) if skew.routed_load else None
        self.base = {name: self._solve(name, None) for name in exchanges}
        self.beside = {name: self._slowed(name, times) for name, times in self.base.items()}
        self.solved: dict[tuple[str, int, int, int], ExchangeTimes] = {}
        self._jitters, self._next = np.ones((0, self.lanes)), 0

    def exchange(
        self, kernel: str, overlapped: bool, group: int, layer: int, microbatch: int
    ) -> ExchangeTimes:
        """The all-to-all of a layer and microbatch, alone on its NICs; slower where compute runs beside it."""
        if self.loads is None:
            return (self.beside if overlapped else self.base)[kernel]
        key = (kernel, group, layer, microbatch)
        found = self.solved.pop(key, None)
        if found is None:
            found = self._solve(kernel, self.loads[group, layer, microbatch])
            self.solved[key] = found  # a dispatch comes back as combine(B), a combine as dispatch(B)
        return self._slowed(kernel, found) if overlapped else found

    def _slowed(self, kernel: str, times: ExchangeTimes) -> ExchangeTimes:
        """Beside compute."""
        by = self.slowdown[kernel]
        return ExchangeTimes(times.alone_s * by, times.fill / by, times.nic_bytes, times.longest_s * by)

    def load(self, group: int, layer: int, microbatch: int) -> Floats | float:
        """Routed load of each lane over the mean."""
        return 1.0 if self.loads is None else self.loads[group, layer, microbatch]

    def jitter(self, group: int) -> Floats | float:
        """A factor for the next kernel of a group."""
        if not self.skew.kernel_jitter:
            return 1.0
        if self._next == len(self._jitters):
            self._jitters, self._next = _lognormal(self.rng, self.skew.kernel_jitter, (4096, self.lanes)), 0
        self._next += 1
        return np.asarray(self._jitters[self._next - 1])

    def even(self) -> Callable[[str, bool], ExchangeTimes] | None:
        """Where nothing is skewed: the all-to-all of a kernel, beside compute or not."""
        if not self.skew.balanced:
            return None
        return lambda kernel, overlapped: (self.beside if overlapped else self.base)[kernel]

    def speeds(self, num_pipeline_ranks: int, num_groups: int) -> list[list[Floats | float]]:
        """Time factor of each GPU for the whole step, [pipeline ranks][groups] of [lanes]."""
        spread = _lognormal(self.rng, self.skew.gpu_spread, (num_pipeline_ranks, num_groups, self.lanes))
        return [[spread[rank, group] for group in range(num_groups)] for rank in range(num_pipeline_ranks)]

    def mean_s(self, kernel: str, *, overlapped: bool) -> float:
        """Time of an exchange at mean loads [s]."""
        return float(self.base[kernel].alone_s.mean()) * (self.slowdown[kernel] if overlapped else 1.0)

    def _solve(self, name: str, load: Floats | None) -> ExchangeTimes:
        template = self.templates[name]
        flows = template.flows if load is None else template.loaded(load)
        ends = fluid.alone(flows, template.island)
        finish = template.fixed_s + ends
        times = flows.rank_ends(finish, len(template.exchange.gpus), floor_s=template.fixed_s)
        longest = float(times.max())
        lanes = np.array([longest]) if self.lanes == 1 else times
        return ExchangeTimes(lanes, min(template.nic_s / longest, 1.0), template.nic_bytes, longest)


class _Template:
    """An exchange whose flows are cabled once; other loads change bytes and weights, not cables."""

    def __init__(self, exchange: Exchange, *, often: bool) -> None:
        self.exchange, self.flows = exchange, exchange.flows()
        cluster, flows = exchange.cluster, self.flows
        self.fixed_s = exchange.latency_s()
        self.island = fluid.lone(flows, cluster.capacity, often=often)
        self.nic_s, self.nic_bytes = 0.0, 1.0  # of the mean rank
        if exchange.uses_nic:
            nic, num = cluster.nic_tx[exchange.gpus], len(cluster.names)
            self.nic_s = float((flows.line_by_resource(num)[nic] / cluster.capacity[nic]).mean())
            self.nic_bytes = float(flows.bytes_by_resource(num)[nic].mean())
        self.node_of_rank = exchange.routing.node_of_rank
        dispatch = exchange.direction == "dispatch"
        if not exchange.kind.flow_per_node:  # a flow belongs to the rank that holds the experts
            half = len(flows.party_rank) // 2
            self.owner = flows.party_rank[half:] if dispatch else flows.party_rank[:half]
            return
        # A flow belongs to the node that holds the experts; each of its ranks takes its share over scale-up.
        first = np.flatnonzero(np.diff(flows.party_flow[flows.num_flows :], prepend=-1))
        self.owner = self.node_of_rank[flows.party_rank[flows.num_flows + first]]
        taken = cluster.ingress if dispatch else cluster.egress
        rank = np.full(len(cluster.names), NONE)
        rank[taken[exchange.gpus]] = np.arange(len(exchange.gpus))
        self.taking = np.flatnonzero(rank[flows.resource] != NONE)  # entries of a rank's own share
        self.taking_rank = rank[flows.resource[self.taking]]
        self.taking_node = self.owner[flows.flow_of_entry[self.taking]]

    def loaded(self, load: Floats) -> Flows:
        """The flows when each rank draws `load` [ranks] times its mean share of every source's tokens.

        The forwarder's own link keeps its mean weight: what it passes on to seven others varies by a seventh as much.
        """
        line = self.flows.line
        if self.exchange.kind.flow_per_node:
            by_node = np.bincount(self.node_of_rank, load) / np.bincount(self.node_of_rank)
            line = line.copy()
            line[self.taking] *= load[self.taking_rank] / by_node[self.taking_node]
            load = by_node
        more = load[self.owner]
        return replace(
            self.flows,
            payload_bytes=self.flows.payload_bytes * more,
            share=self.flows.share * more,
            line=line,
        )


def _lognormal(rng: np.random.Generator, deviation: float, shape: tuple[int, ...]) -> Floats:
    """Positive factors with mean 1 and the given standard deviation."""
    if deviation == 0:
        return np.ones(shape)
    variance = np.log1p(deviation**2)
    return rng.lognormal(-variance / 2, np.sqrt(variance), shape)
