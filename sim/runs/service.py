"""The serving workload of a scenario: its requests, its two pools, and what their passes and steps cost.

The pools are a prefill and a decode scenario of their own, made from the serving scenario with the `plan` of each. A prefill
pass costs what that scenario takes at a few sizes, with straight lines between; a decode step, see `step_surface`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cost.surfaces import line
from sim.errors import Fault, InfeasibleError, InputError
from sim.runs.passes import Pass
from sim.runs.step_surface import nic_share, surface
from sim.scenario.cluster import Draft, beside, catch
from sim.scenario.descriptions import Inference, Scenario, Serving
from sim.scenario.serving import LengthsSpec, PoissonSpec, ServingSpec
from sim.schedule import reductions
from sim.schedule.serving import Pool, Service, StepCost
from sim.workload import requests as users

_AT = ("workload",)
_BATCHES = (1 / 64, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the largest prefill pass
_SEED = 3  # stream of arrivals within the scenario's seed


def serving_of(draft: Draft) -> Serving:
    """The workload; faults join the draft's. Raises `InfeasibleError` where no machine could run it."""
    spec = draft.spec.workload
    assert isinstance(spec, ServingSpec)
    per_node, faults = draft.gpus_per_node, len(draft.faults)
    for name, ep in (("prefill", spec.prefill.ep), ("decode", spec.decode.ep)):
        if ep % per_node:
            wanted = f"whole nodes: a multiple of the {per_node} GPUs of a node"
            draft.fault((*_AT, name, "ep"), str(ep), wanted)
    needed = spec.prefill.instances * spec.prefill.ep + spec.decode.instances * spec.decode.ep
    if needed > draft.num_ranks:
        wanted = f"{-(-needed // per_node)} or more: the instances have {needed} GPUs"
        draft.fault(("cluster", "nodes"), str(draft.num_nodes), wanted)
    if not spec.decode.instances and spec.decode.ep != spec.prefill.ep:
        wanted = f"{spec.prefill.ep}, the prefill instances that decode too"
        draft.fault((*_AT, "decode", "ep"), str(spec.decode.ep), wanted)
    if not 0 <= spec.cached < 1:
        draft.fault((*_AT, "cached"), f"{spec.cached:.0%}", "0 % or more, and less than 100 %")
    for key in ("ttft", "tpot"):
        bound = getattr(spec.slo, key)
        if bound is not None and bound <= 0:
            draft.fault((*_AT, "slo", key), str(draft.document.get((*_AT, "slo", key))), "more than 0 s")
    if spec.until is not None and spec.until <= 0:
        draft.fault((*_AT, "until"), str(draft.document.get((*_AT, "until"))), "more than 0 s")
    if len(draft.faults) > faults:
        raise InputError(draft.faults)
    asked = _requests(draft, spec)
    prompt = max(2, round(float(asked.prompt_tokens.mean())))
    context = max(2, round(prompt + float(asked.output_tokens.mean()) / 2))
    prefill = catch(
        draft.faults,
        lambda: _part(draft, "prefill", spec.prefill.ep, spec.prefill.plan, {"prompt_tokens": prompt}),
    )
    decode = catch(
        draft.faults,
        lambda: _part(draft, "decode", spec.decode.ep, spec.decode.plan, {"context_tokens": context}),
    )
    if prefill is None or decode is None:
        raise InputError(draft.faults)
    draft.layout = {"ep": spec.prefill.ep}
    return Serving(
        requests=asked,
        prefill=prefill,
        decode=decode,
        num_prefill=spec.prefill.instances,
        num_decode=spec.decode.instances,
        batch_tokens=spec.prefill.batch_tokens,
        requests_per_gpu=spec.decode.requests_per_gpu,
        policy=spec.policy,
        cached_fraction=spec.cached,
        ttft_s=spec.slo.ttft,
        tpot_s=spec.slo.tpot,
        until_s=spec.until,
    )


def _requests(draft: Draft, spec: ServingSpec) -> users.Requests:
    if not isinstance(spec.arrivals, PoissonSpec):
        return users.read(*beside(draft.document, ("workload", "arrivals", "file")))
    rng = np.random.default_rng([draft.spec.seed, _SEED])
    prompt, output = (_lengths(one) for one in (spec.arrivals.prompt, spec.arrivals.output))
    return users.poisson(spec.arrivals.requests, spec.arrivals.requests_per_s, prompt, output, rng)


def _lengths(spec: LengthsSpec) -> users.Lengths:
    return users.Lengths(spec.kind, float(spec.mean), spec.spread, spec.most)


def _part(draft: Draft, kind: str, ep: int, plan: dict[str, Any], sizes: dict[str, int]) -> Scenario:
    """One pool's instance as a scenario of its own; its faults keep their place in the serving scenario."""
    from sim.scenario.resolve import resolve

    document = draft.document.copy()
    mark, ep_mark = document.mark((*_AT, kind)), document.mark((*_AT, kind, "ep"))
    given = document.branch((*_AT, kind, "plan"))
    for key in ("kind", *sizes, "requests_per_gpu", "prompts_per_gpu", "cached_tokens", "chunk_tokens"):
        if key in plan:
            raise InputError(
                draft.document.fault(
                    (*_AT, kind, "plan", key), f"'{key}'", "no such key in a plan: the loop sets it", key=True
                )
            )
    document.put(_AT, {"kind": kind, **sizes}, mark)
    document.overlay(given, at=_AT)
    for key in ("expect", "variants", "layout"):
        document.tree.pop(key, None)
    document.put(("layout",), {"ep": ep}, ep_mark)
    document.put(("cluster", "nodes"), ep // draft.gpus_per_node, mark)
    try:
        return resolve(document)
    except InputError as error:
        places = {"workload": f"workload.{kind}.plan", "layout": f"workload.{kind}"}
        moved = []
        for fault in error.faults:
            first, dot, rest = fault.key.partition(".")
            key = places.get(first, first) + dot + rest
            moved.append(Fault(fault.where, key, fault.got, fault.wanted, fault.nearest))
        raise InputError(moved) from None


def service_of(scenario: Scenario, progress: Callable[[str], None]) -> Service:
    """The deployment with its costs, from a few simulated passes and steps."""
    work = scenario.workload
    assert isinstance(work, Serving)
    assert scenario.hardware is not None
    links = reductions.Links.of(scenario.hardware, load_kernel("nccl"))
    progress(f"{scenario.name}: what a prefill pass costs")
    prefill_s, prefill_kv, prefill_busy = _prefill_costs(work)
    progress(f"{scenario.name}: what a decode step costs")
    step_s, decode_kv, decode_busy, most, per_step, kv_bytes = _decode_costs(work)
    apart = work.num_decode > 0
    prefill_ep, decode_ep = work.prefill.ep, work.decode.ep
    if not apart:
        prefill_kv = decode_kv
    return Service(
        prefill=Pool(
            work.num_prefill,
            prefill_kv * prefill_ep,
            links.nic_bytes_per_s * prefill_ep,
            prefill_busy,
            prefill_ep,
        ),
        decode=Pool(
            work.num_decode, decode_kv * decode_ep, links.nic_bytes_per_s * decode_ep, decode_busy, decode_ep
        )
        if apart
        else None,
        prefill_s=prefill_s,
        decode_step_s=step_s,
        kv_bytes_per_token=kv_bytes,
        batch_tokens=work.batch_tokens,
        max_batch=most * decode_ep,
        tokens_per_step=per_step,
        cached_fraction=work.cached_fraction,
        transfer_bytes_per_s=links.nic_bytes_per_s,
        transfer_latency_s=links.latency_s,
        policy=work.policy,
    )


def _prefill_costs(work: Serving) -> tuple[Callable[[float], float], float, float]:
    """Time by tokens of a GPU [s], KV memory of a GPU [bytes], share of its NICs that exchanges take."""
    from sim.runs.inference import batch_of

    base = work.prefill.workload
    assert isinstance(base, Inference)
    tokens: list[float] = []
    times: list[float] = []
    busy, memory = 0.0, None
    for share in _BATCHES:
        asked = max(2, work.batch_tokens * share)
        prompts = max(2, 2 * round(asked / base.context_tokens / 2))
        each = max(1, round(asked / prompts))
        if tokens and each * prompts <= tokens[-1]:
            continue
        one = replace(base, requests=prompts, context_tokens=each, step_tokens=each, cached_tokens=0)
        memory, _ = batch_of(work.prefill, one)
        whole = Pass(work.prefill, one, prompts)
        times.append(whole.step_s(whole.run()))
        tokens.append(float(each * prompts))
        busy = nic_share(whole, times[-1])
    assert memory is not None
    if memory.free_bytes <= 0:
        raise InfeasibleError(
            f"prefill: {memory.gpu} has no memory left for KV; most of it goes to: {memory.limit}"
        )
    return _through(tokens, times), memory.free_bytes, busy


def _through(x: list[float], y: list[float]) -> Callable[[float], float]:
    return line(x, y) if len(x) > 1 else lambda value: y[0] * max(1.0, value / x[0])


def _decode_costs(work: Serving) -> tuple[StepCost, float, float, int, float, float]:
    """Step time [s], KV memory of a GPU [bytes], NIC share, most requests of a GPU, tokens a step, KV of a token [bytes]."""
    from sim.runs.inference import accepted_tokens, memory_of

    base = work.decode.workload
    assert isinstance(base, Inference)
    memory = memory_of(work.decode, base)
    most = work.requests_per_gpu or memory.max_batch
    if most < 1 or memory.free_bytes <= most * memory.buffer_bytes_per_request:
        holds = f"at most {memory.max_batch} fit" if memory.max_batch else "not one fits"
        raise InfeasibleError(
            f"decode: {max(most, 1)} requests of {base.context_tokens} tokens on {memory.gpu}: {holds}; "
            f"most of its memory goes to: {memory.limit}"
        )
    found = surface(work.decode, base, most)
    return (
        found.step_s,
        memory.free_bytes - most * memory.buffer_bytes_per_request,
        found.nic_busy_fraction,
        most,
        accepted_tokens(base),
        memory.cache_bytes_per_request / base.context_tokens,
    )
