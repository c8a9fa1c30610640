"""The least that users of a deployment can wait, from FLOPs and bytes at datasheet rates; no simulated time is in it.

- A first token comes no sooner than the GPU (or TP group) that has the prompt can compute its attention, shared experts and
  dense layers, every launch at the dense peak of its format, and no sooner than it can read the weights of these once. Tokens
  found in a cache are attended to, not computed. Routed experts are elsewhere, and not in it.
- A step takes no less than reading these weights and the caches of one request, as long as its prompt, at the rate of HBM.
- A run lasts from its first arrival to the last end that follows, and no less than all its prompts on all GPUs that prefill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.cost import prefill
from sim.cost import serving_kernels as kernels
from sim.cost.prefill import PrefillBatch
from sim.cost.serving_kernels import DecodeBatch
from sim.cost.work import Part, dense_peaks, hbm_bytes, least_s
from sim.engine.serving_lives import ServingTrace
from sim.runs.pass_needs import processor_of
from sim.runs.pass_plan import PassPlan
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.workload.requests import Requests

Floats = NDArray[np.float64]

_STEP = 16  # tokens between prompts that are bounded
_TOKENS = 1024  # FLOPs of a projection are in proportion to tokens


@dataclass(frozen=True, slots=True)
class Bound:
    """Bounds of every request, [num_requests] [s], and of all prompts together [s]."""

    ttft_s: Floats
    step_s: Floats
    tpot_s: Floats
    prompts_s: Floats

    def makespan_s(self, asked: Requests, trace: ServingTrace, ended: NDArray[np.bool_]) -> float:
        """From the first arrival to the last end [s]; 0 where nothing ended."""
        if not ended.any():
            return 0.0
        own = asked.arrival_s + self.ttft_s + trace.steps * self.step_s
        last = float(own[ended].max() - asked.arrival_s[0])
        return max(last, float(self.prompts_s[ended].sum()))


def bound_of(work: Serving, asked: Requests, trace: ServingTrace) -> Bound:
    """Bound the times of every request of a run, given the tokens found in caches, and the steps that speculation left."""
    prompts = np.maximum(1, asked.prompt_tokens // _STEP * _STEP)  # not more than it has
    cached = np.minimum(-(-trace.cached_tokens // _STEP) * _STEP, prompts - 1)
    rows = np.stack([prompts, cached], axis=1)
    unlike, which = np.unique(rows, axis=0, return_inverse=True)
    ttft = _Prompts(work.prefill)
    compute_s = np.array([ttft.compute_s(int(new), int(old)) for new, old in unlike])[which.ravel()]
    lengths, which = np.unique(prompts, return_inverse=True)
    step_s = _steps_s(work.seats, lengths)[which]
    later = np.maximum(asked.output_tokens - 1, 1)
    gpus = work.spec.prefill.instances * work.prefill.num_ranks
    return Bound(
        ttft_s=np.maximum(compute_s, ttft.weights_s),
        step_s=step_s,
        tpot_s=step_s * trace.steps / later,
        prompts_s=compute_s * ttft.shared / gpus,
    )


class _Prompts:
    """Least times of prompts on the GPU, or the ranks of TP and CP, that have them."""

    def __init__(self, scenario: Scenario) -> None:
        base = scenario.workload
        assert isinstance(base, Inference)
        self.plan = PassPlan(scenario, base.one_batch(), 1)
        tp, self.p = base.layout.tp, processor_of(self.plan)
        self.shared = tp * base.layout.cp
        self.peaks = dense_peaks(self.plan.hardware.gpu)
        self.kinds = _layer_kinds(self.plan)
        least = (
            sum(least_s(x, self.peaks) for x in self._parts(_TOKENS, kind)) * n
            for kind, n in self.kinds.items()
        )
        self.token_s = sum(least) / _TOKENS / self.shared
        read = sum(hbm_bytes(part) * n for kind, n in self.kinds.items() for part in self._parts(1, kind))
        self.weights_s = read / tp / self.plan.hardware.gpu.hbm.bandwidth_bytes_per_s

    def _parts(self, tokens: int, kind: int) -> list[Part]:
        """Launches of a layer that a rank has to itself, its core left out."""
        model, p, dense = self.plan.model, self.p, self.plan.model.is_dense(kind)

        def batch(part: str) -> PrefillBatch:
            return replace(self.plan.prefill_batch(part), sequences=1, new_tokens=tokens, tp=1)

        parts = [prefill.prefill_attention(p, model, batch("attention"), kind, gated=not dense, core_s=0.0)]
        if not dense:
            parts.append(prefill.prefill_shared(p, model, batch("shared")))
        elif model.layer(kind).mlp == "dense":
            parts.append(prefill.prefill_dense(p, model, batch("dense")))
        return parts

    def compute_s(self, prompt_tokens: int, cached_tokens: int) -> float:
        """FLOPs of a prompt over their peaks [s]."""
        new = prompt_tokens - cached_tokens
        whole = self.plan.prefill_batch("attention")
        batch = replace(whole, sequences=1, new_tokens=new, cached_tokens=cached_tokens, tp=1)
        cores = 0.0
        for kind, n in self.kinds.items():
            launches = prefill.attention_core(self.p, self.plan.model, batch, kind)
            cores += n * least_s(
                {x.name: x for x in launches if x.name != prefill.KV_UP}, self.peaks
            )  # which a rank could keep
        return new * self.token_s + cores / self.shared


def _layer_kinds(plan: PassPlan) -> dict[int, int]:
    """First layer of each kind -> how many are like it."""
    count: dict[int, int] = {}
    for layer in range(plan.model.num_layers):
        count[plan.layer_kind(layer)] = count.get(plan.layer_kind(layer), 0) + 1
    return count


def _steps_s(scenario: Scenario, lengths: NDArray[np.int64]) -> Floats:
    """Least time of a step by the tokens of a request's prompt, [num_lengths] [s]."""
    base = scenario.workload
    assert isinstance(base, Inference)
    plan = PassPlan(scenario, base.one_batch(), 1)
    rate = plan.hardware.gpu.hbm.bandwidth_bytes_per_s

    def read_bytes(context_tokens: float) -> float:
        each = 1 / (plan.layout.tp * plan.layout.cp)

        def batch(part: str) -> DecodeBatch:
            return replace(plan.decode_batch(part), requests=each, queries=1, context_tokens=context_tokens)

        return sum(
            n * hbm_bytes(part)
            for kind, n in _layer_kinds(plan).items()
            for part in _decode_parts(plan, batch, kind)
        )

    return np.array([read_bytes(float(tokens)) for tokens in lengths]) / rate


def _decode_parts(plan: PassPlan, batch: Callable[[str], DecodeBatch], kind: int) -> list[Part]:
    """Launches of a layer in decode that a rank has to itself."""
    p, model, dense = processor_of(plan), plan.model, plan.model.is_dense(kind)
    parts = [
        kernels.decode_attention_0(p, model, batch("attention"), kind),
        kernels.decode_attention_1(p, model, batch("attention"), kind, gated=not dense),
    ]
    if not dense:
        parts.append(kernels.decode_shared(p, model, batch("shared")))
    elif model.layer(kind).mlp == "dense":
        parts.append(kernels.decode_dense(p, model, batch("dense")))
    return parts
