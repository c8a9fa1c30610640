"""The serving workload of a scenario: its requests, its two pools, and what their passes and steps cost.

The pools are a prefill and a decode scenario of their own, made from the serving scenario with the `plan` of each. A prefill
pass costs what that scenario takes at a few sizes, with straight lines between; a decode step, see `step_surface`. An
instance whose nodes have faults costs what it takes with them. Instances stand on the cluster one after the other, those
that prefill first, and KV moves between them on its links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import NONE, Cluster, Ints
from sim.cost.surfaces import line
from sim.errors import InfeasibleError
from sim.runs import pass_pipeline, passes
from sim.runs.pass_plan import PassPlan
from sim.runs.step_surface import nic_share, surface
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.schedule import reductions
from sim.schedule.flows import Flows
from sim.schedule.sends import send_flows
from sim.schedule.serving import KvLinks, Pool, Service, StepCost

_CABLED = 2**22  # pairs of GPUs that are kept cabled
_BATCHES = (1 / 64, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the largest prefill pass


def service_of(scenario: Scenario, progress: Callable[[str], None]) -> Service:
    """Cost a deployment by a few simulated passes and steps.

    Parameters
    ----------
    scenario : Scenario
        Its workload is a `Serving`.
    progress : function of a sentence

    Returns
    -------
    Service
        Pools, and the times of their passes and steps, as the serving engine takes them.

    Raises
    ------
    InfeasibleError
        Where a pool's memory holds no request.
    """
    work = scenario.workload
    assert isinstance(work, Serving)
    assert scenario.hardware is not None
    links = reductions.Links.achieved(scenario.hardware, load_kernel("nccl"))
    progress(f"{scenario.name}: what a prefill pass costs")
    prefill_s, prefill_kv, prefill_busy = _prefill_costs(work, work.prefill)
    progress(f"{scenario.name}: what a decode step costs")
    step_s, decode_kv, decode_busy, most, per_step, kv_bytes, host_s = _decode_costs(work, work.decode)
    apart = work.spec.decode.instances > 0
    prefill_gpus, decode_gpus = work.prefill.num_ranks, work.decode.num_ranks
    if not apart:
        prefill_kv = decode_kv
    prefills, decodes = places(scenario, work)
    own_prefill, own_decode = (
        {i: own for i, gpus in enumerate(of_pool) if (own := with_faults(scenario, part, gpus)) is not None}
        for of_pool, part in ((prefills, work.prefill), (decodes if apart else prefills, work.decode))
    )
    return Service(
        prefill=Pool(work.spec.prefill.instances, prefill_kv * prefill_gpus, prefill_busy, prefill_gpus),
        decode=Pool(work.spec.decode.instances, decode_kv * decode_gpus, decode_busy, decode_gpus)
        if apart
        else None,
        prefill_s=prefill_s,
        decode_step_s=step_s,
        step_host_s=host_s,
        kv_bytes_per_token=kv_bytes,
        batch_tokens=work.spec.prefill.batch_tokens,
        max_batch=most * decode_gpus,
        tokens_per_step=per_step,
        cached_fraction=work.spec.cached,
        kv_links=kv_links(scenario.cluster(), prefills, decodes) if apart else None,
        transfer_latency_s=links.latency_s,
        policy=work.spec.policy,
        own_prefill_s={i: _prefill_costs(work, own)[0] for i, own in own_prefill.items()},
        own_step_s={i: _decode_costs(work, own)[0] for i, own in own_decode.items()},
    )


def places(scenario: Scenario, work: Serving) -> tuple[list[Ints], list[Ints]]:
    """GPUs of each instance: those that prefill come first, one after the other, then those that decode."""
    prefill, decode = work.prefill.num_ranks, work.decode.num_ranks
    first = work.spec.prefill.instances * prefill
    last = first + work.spec.decode.instances * decode
    gpus = scenario.gpus
    return list(gpus[:first].reshape(-1, prefill)), list(gpus[first:last].reshape(-1, decode))


def with_faults(scenario: Scenario, part: Scenario, gpus: Ints) -> Scenario | None:
    """Give an instance the faults of its nodes, on those of the instance that stands for the pool.

    Parameters
    ----------
    scenario : Scenario
        The whole deployment.
    part : Scenario
        An instance of the pool, with the faults that are everywhere.
    gpus : int, [num_ranks]

    Returns
    -------
    Scenario or None
        None where its nodes have no faults.
    """
    nodes = dict.fromkeys((gpus // scenario.part.domain).tolist())
    stands_for = dict(zip(nodes, part.part.nodes, strict=True))
    own = [
        replace(fault, node=stands_for[fault.node]) for fault in scenario.faults if fault.node in stands_for
    ]
    return replace(part, faults=(*part.faults, *own)) if own else None


def kv_links(cluster: Cluster, prefills: Sequence[Ints], decodes: Sequence[Ints]) -> KvLinks:
    """Cable the way of KV from every GPU that prefills to every GPU that decodes.

    Parameters
    ----------
    cluster : Cluster
        The whole one, with its faults.
    prefills, decodes : sequence of int, [instances][num_ranks]
        GPUs of the instances.

    Returns
    -------
    KvLinks
        Flows are cabled when they are first asked for.
    """
    kernel = load_kernel("nccl")

    @lru_cache(maxsize=max(1, _CABLED // (len(prefills[0]) * len(decodes[0]))))
    def flows(sender: int, receiver: int) -> Flows:
        src, dst = prefills[sender], decodes[receiver]
        return send_flows(cluster, kernel, np.repeat(src, len(dst)), np.tile(dst, len(src)), 1.0)

    return KvLinks(
        cluster.capacity.tolist(),
        flows,
        [_nics(cluster.nic_tx[gpus]) for gpus in prefills],
        [_nics(cluster.nic_rx[gpus]) for gpus in decodes],
    )


def _nics(rows: Ints) -> list[int]:
    own: list[int] = np.unique(rows[rows != NONE]).tolist()  # GPUs may share one
    return own


def _prefill_costs(work: Serving, scenario: Scenario) -> tuple[Callable[[float], float], float, float]:
    """Time by tokens of a GPU [s], KV memory of a GPU [bytes], share of its NICs that all-to-alls take."""
    from sim.runs.inference import batch_of

    base = scenario.workload
    assert isinstance(base, Inference)
    tokens: list[float] = []
    times: list[float] = []
    busy, memory = 0.0, None
    for share in _BATCHES:
        asked = max(2, work.spec.prefill.batch_tokens * share)
        prompts = max(2, 2 * round(asked / base.context_tokens / 2))
        each = max(1, round(asked / prompts))
        if tokens and each * prompts <= tokens[-1]:
            continue
        batch = replace(base, requests=prompts, context_tokens=each, step_tokens=each, cached_tokens=0)
        memory, _ = batch_of(scenario, batch)
        forward = passes.forward_pass(PassPlan(scenario, batch, prompts))
        times.append(pass_pipeline.step_s(forward, passes.run(forward)))
        tokens.append(float(each * prompts))
        busy = nic_share(forward, times[-1])
    assert memory is not None
    if memory.free_bytes <= 0:
        raise InfeasibleError(
            f"prefill: {memory.gpu} has no memory left for KV; most of it goes to: {memory.limit}"
        )
    return _through(tokens, times), memory.free_bytes, busy


def _through(x: list[float], y: list[float]) -> Callable[[float], float]:
    return line(x, y) if len(x) > 1 else lambda value: y[0] * max(1.0, value / x[0])


def _decode_costs(
    work: Serving, scenario: Scenario
) -> tuple[StepCost, float, float, int, float, float, Callable[[float], float]]:
    """Step time [s], KV memory of a GPU [bytes], NIC share, most requests of a GPU, tokens a step, KV of a token [bytes].

    Last the wait for the host in a step by load [s].
    """
    from sim.runs.inference import accepted_tokens, memory_of

    base = scenario.workload
    assert isinstance(base, Inference)
    memory = memory_of(scenario, base)
    most = work.spec.decode.requests_per_gpu or memory.max_batch
    if most < 1 or memory.free_bytes <= most * memory.buffer_bytes_per_request:
        holds = f"at most {memory.max_batch} fit" if memory.max_batch else "not one fits"
        raise InfeasibleError(
            f"decode: {max(most, 1)} requests of {base.context_tokens} tokens on {memory.gpu}: {holds}; "
            f"most of its memory goes to: {memory.limit}"
        )
    costs = surface(scenario, base, most)
    return (
        costs.step_s,
        memory.free_bytes - most * memory.buffer_bytes_per_request,
        costs.nic_busy_fraction,
        most,
        accepted_tokens(base),
        memory.cache_bytes_per_request / base.context_tokens,
        costs.host_s,
    )
