"""The serving workload of a scenario: its requests, its two pools, and what their passes and steps cost.

The pools are a prefill and a decode scenario of their own, made from the serving scenario with the `plan` of each. Passes cost
what these scenarios take at a few points (`pass_surface`, `step_surface`), with straight lines between. An instance whose
nodes have faults costs what it takes with them. Instances stand on the cluster one after the other, those that prefill first,
and KV moves between them on its links.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from sim import units
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import NONE, Cluster, Ints
from sim.errors import InfeasibleError
from sim.runs.afd_result import afd_memory, require_experts
from sim.runs.afd_surface import afd_surface
from sim.runs.pass_memory import memory_of
from sim.runs.pass_surface import PassSurface
from sim.runs.service_faults import Spells, unchanging, with_changes
from sim.runs.step_surface import Surface, nic_share, surface
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.schedule import reductions
from sim.schedule.flows import Flows
from sim.schedule.sends import send_flows
from sim.schedule.serving import EnginePolicy, KvLinks, Pool, Service
from sim.workload.layout import Layout

_CABLED = 2**22  # pairs of GPUs that are kept cabled


@dataclass(frozen=True, slots=True)
class CalmCosts:
    """Costs of the pools of a deployment without faults of single instances, and without other jobs.

    Parameters
    ----------
    prefill : PassSurface
    prefill_kv : memory of a GPU that prefills for KV [bytes]
    prefill_busy : share of its NICs that all-to-alls take in the largest pass
    room : memory for KV of a GPU that decodes
    most : requests that such a GPU has at once
    decode : Surface
    """

    prefill: PassSurface
    prefill_kv: float
    prefill_busy: float
    room: _Room
    most: int
    decode: Surface


def calm_costs(work: Serving, progress: Callable[[str], None] = lambda _: None) -> CalmCosts:
    """Cost the pools of a deployment. InfeasibleError where a pool's memory holds no request."""
    progress("what a prefill pass costs")
    prefill = _prefill_costs(work, unchanging(work.prefill))
    progress("what a decode step costs")
    room, most = _room(work, work.decode)
    return CalmCosts(*prefill, room, most, _decode_costs(unchanging(work.decode), most))


def service_of(scenario: Scenario, progress: Callable[[str], None], calm: CalmCosts | None = None) -> Service:
    """Cost a deployment by a few simulated passes and steps, as the serving engine takes them.

    `calm` are costs of the same work, to save time. InfeasibleError where a pool's memory holds no request.
    """
    work = scenario.workload
    assert isinstance(work, Serving)
    machines = [part.hardware for part in (work.prefill, work.seats) if part.hardware]
    latency_s = max(reductions.Links.achieved(own, load_kernel("nccl")).latency_s for own in machines)
    plan = work.engine
    known = calm or calm_costs(work, lambda text: progress(f"{scenario.name}: {text}"))
    prefill, prefill_kv, costs = known.prefill, known.prefill_kv, known.decode
    held, most = known.room, known.most
    apart = work.spec.decode.instances > 0
    kv_bytes = _kv_bytes(work.seats, _layout(work.prefill))
    if not apart:
        prefill_kv = held.free_bytes
    prefills, decodes = places(scenario, work)
    spells = Spells(
        scenario,
        lambda own: _surface(work, own),
        lambda own: _decode_costs(own, most).step_s,
    )
    everywhere = prefill, costs.step_s
    of_prefill = {
        i: spells.of_instance(gpus, (work.prefill, None if apart else work.decode), everywhere)
        for i, gpus in enumerate(prefills)
    }
    of_decode = {
        i: spells.of_instance(gpus, (None, work.decode), everywhere) for i, gpus in enumerate(decodes)
    }
    group = work.prefill.num_ranks // _layout(work.prefill).dp
    kept = plan.prefix_cache.capacity if plan.prefix_cache else 0.0
    prefix_tokens = plan.prefix_cache.block_tokens if plan.prefix_cache else 1
    if prefill_kv <= kept:
        raise InfeasibleError(
            f"prefill: a prefix cache of {units.show(kept, 'bytes', 3)} leaves none of the "
            f"{units.show(prefill_kv, 'bytes', 3)} that a GPU has for KV"
        )
    decoding = work.decode.workload
    assert isinstance(decoding, Inference)
    return Service(
        prefill=_pool(work.prefill, work.spec.prefill.instances, prefill_kv - kept, known.prefill_busy),
        decode=replace(
            _pool(work.seats, work.spec.decode.instances, held.free_bytes, costs.nic_busy_fraction),
            kv_bytes_per_token=held.cache_bytes_per_request / held.tokens,
        )
        if apart
        else None,
        prefill_s=prefill,
        decode_step_s=costs.step_s,
        step_host_s=lambda load: costs.host_s(load / group),
        kv_bytes_per_token=kv_bytes,
        engine=EnginePolicy(
            chunk_tokens=work.chunk_tokens * group,
            mixed=plan.mixed,
            block_tokens=plan.block_tokens,
            preemption=plan.preemption,
            prefix_blocks=math.floor(kept * group / (kv_bytes * prefix_tokens)),
            prefix_tokens=prefix_tokens,
            routing=plan.routing,
            max_requests=most * (work.seats.num_ranks // _layout(work.seats).dp),
            swap_bytes_per_s=_host_rate(work.seats) * group,
            policy=work.spec.policy,
        ),
        acceptance=decoding.acceptance,
        seed=scenario.seed,
        cached_fraction=work.spec.cached,
        kv_links=_kv_way(scenario, work, prefills, decodes) if apart else None,
        transfer_latency_s=latency_s,
        prefill_spells={i: own for i, own in of_prefill.items() if own},
        decode_spells={i: own for i, own in of_decode.items() if own},
    )


def places(scenario: Scenario, work: Serving) -> tuple[list[Ints], list[Ints]]:
    """GPUs of each instance in its pool: one after the other; of one pool those that prefill come first."""
    prefill, decode = pool_names(work)
    pools = (prefill, work.spec.prefill, work.prefill), (decode, work.spec.decode, work.seats)
    next_gpu: dict[str | None, int] = {}
    placed = []
    for name, asked, part in pools:
        gpus = scenario.gpus if name is None else np.arange(part.num_nodes * part.part.domain)
        first = next_gpu.get(name, 0)
        last = next_gpu[name] = first + asked.instances * part.num_ranks
        placed.append(list(gpus[first:last].reshape(-1, part.num_ranks)))
    return placed[0], placed[1]


def pool_names(work: Serving) -> tuple[str | None, str | None]:
    """Pools of the cluster with the KV of instances that prefill and that decode; None where it has none, or they are on one."""
    decode = work.spec.decode
    return work.spec.prefill.pool, decode.afd.attention if decode.afd else decode.pool


def _kv_way(scenario: Scenario, work: Serving, prefills: Sequence[Ints], decodes: Sequence[Ints]) -> KvLinks:
    """The way of KV on the cluster, or between two of its pools."""
    shared, (prefill, decode) = scenario.shared, pool_names(work)
    if shared is None or prefill is None or decode is None:
        return kv_links(scenario.cluster(), prefills, decodes)
    return kv_links(
        scenario.joined(),
        [shared.ranks(prefill, gpus) for gpus in prefills],
        [shared.ranks(decode, gpus) for gpus in decodes],
    )


def kv_links(cluster: Cluster, prefills: Sequence[Ints], decodes: Sequence[Ints]) -> KvLinks:
    """Cable the way of KV from every GPU that prefills to every GPU that decodes [instances][num_ranks].

    Flows are cabled when they are first asked for.
    """
    kernel = load_kernel("nccl")

    @lru_cache(maxsize=max(1, _CABLED // (len(prefills[0]) * len(decodes[0]))))
    def flows(sender: int, receiver: int) -> Flows:
        src, dst = prefills[sender], decodes[receiver]
        return send_flows(cluster, kernel, np.repeat(src, len(dst)), np.tile(dst, len(src)), 1.0)

    own = KvLinks(
        cluster.capacity.tolist(),
        flows,
        [_nics(cluster.nic_tx[gpus]) for gpus in prefills],
        [_nics(cluster.nic_rx[gpus]) for gpus in decodes],
    )
    return with_changes(own, cluster) if cluster.windows else own


def _nics(rows: Ints) -> list[int]:
    own: list[int] = np.unique(rows[rows != NONE]).tolist()  # GPUs may share one
    return own


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory that a GPU has for KV, and KV of a request of so many tokens [bytes]."""

    free_bytes: float
    cache_bytes_per_request: float
    tokens: int


def _layout(scenario: Scenario) -> Layout:
    assert isinstance(scenario.workload, Inference)
    return scenario.workload.layout


def _pool(scenario: Scenario, instances: int, kv_bytes: float, busy: float) -> Pool:
    """Instances whose every rank is a GPU, or a group of TP and PP that has requests together."""
    gpus, ranks = scenario.num_ranks, _layout(scenario).dp
    return Pool(instances, kv_bytes * gpus, busy, ranks, gpus // ranks)


def _host_rate(scenario: Scenario) -> float:
    """Rate between a GPU and its host [bytes/s]; its NIC's where the profile has no PCIe link."""
    assert scenario.hardware is not None
    pcie = scenario.hardware.gpu.pcie
    return pcie.bandwidth_bytes_per_s if pcie else scenario.hardware.nic_bytes_per_s


def _prefill_costs(work: Serving, scenario: Scenario) -> tuple[PassSurface, float, float]:
    """Cost of passes, KV memory of a GPU [bytes], share of its NICs that all-to-alls take in the largest."""
    base, most = scenario.workload, work.chunk_tokens
    assert isinstance(base, Inference)
    memory = memory_of(scenario, replace(base, requests=1, context_tokens=most, step_tokens=most))
    if memory.free_bytes <= 0:
        raise InfeasibleError(
            f"prefill: {memory.gpu} has no memory left for KV; most of it goes to: {memory.limit}"
        )
    costs = _surface(work, scenario)
    return costs, memory.free_bytes, nic_share(*costs.largest())


def _surface(work: Serving, scenario: Scenario) -> PassSurface:
    base, decoding = scenario.workload, work.decode.workload
    assert isinstance(base, Inference)
    assert isinstance(decoding, Inference)
    group = scenario.num_ranks // base.layout.dp
    return PassSurface(scenario, base, work.chunk_tokens * group, decoding.step_tokens)


def _room(work: Serving, scenario: Scenario) -> tuple[_Room, int]:
    """Memory for KV of a GPU that decodes, and the most requests that it has at once."""
    base = scenario.workload
    assert isinstance(base, Inference)
    memory = afd_memory(base)[0] if base.apart else memory_of(scenario, base)
    most = work.engine.max_requests_per_gpu or work.spec.decode.requests_per_gpu or memory.max_batch
    if most < 1 or memory.free_bytes <= most * memory.buffer_bytes_per_request:
        holds = f"at most {memory.max_batch} fit" if memory.max_batch else "not one fits"
        raise InfeasibleError(
            f"decode: {max(most, 1)} requests of {base.context_tokens} tokens on {memory.gpu}: {holds}; "
            f"most of its memory goes to: {memory.limit}"
        )
    free = memory.free_bytes - most * memory.buffer_bytes_per_request
    if base.apart:
        require_experts(base, most * work.seats.num_ranks)
    return _Room(free, memory.cache_bytes_per_request, base.context_tokens), most


def _kv_bytes(scenario: Scenario, layout: Layout) -> float:
    """KV of a token on a rank with a layout, with the modules that decode speculates with [bytes]."""
    base = scenario.workload
    assert isinstance(base, Inference)
    return memory_of(scenario, replace(base, layout=layout)).cache_bytes_per_request / base.context_tokens


def _decode_costs(scenario: Scenario, most: int) -> Surface:
    base = scenario.workload
    assert isinstance(base, Inference)
    return afd_surface(scenario, base, most) if base.apart else surface(scenario, base, most)
