"""The prefill or decode workload of a scenario, checked against its model and cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from typing import Annotated, Any, Literal

from pydantic import Field

from sim import limits
from sim.cluster.faults import QUANTITIES
from sim.cluster.kernels import Kernel
from sim.cost.curves import load_curves
from sim.errors import InputError
from sim.scenario import layouts, sizes
from sim.scenario.afd import AfdSpec, Disaggregated, disaggregated
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.precision import CacheDtype, CombineDtype, DispatchDtype, PrecisionKey, precision_of
from sim.scenario.routing import (
    NCCL,
    GateSpec,
    KernelSpec,
    PlacementSpec,
    UniformGate,
    gate_of,
    kernel_of,
    placement_of,
)
from sim.scenario.values import Count, CpComm, EachOr, Index, SpreadSpec, WorkloadSpec
from sim.schemas import Fraction, Size, written
from sim.workload.formats import Precision
from sim.workload.gates import Gate
from sim.workload.layout import Layout

_AT = ("workload",)
_DRAWN_LAYERS = 4
_PROMPTS = 4


class DeployedSpec(WorkloadSpec):
    """Keys that prefill and decode share."""

    overlap: Literal["auto"] | bool = "auto"
    """Two microbatches, the all-to-alls of one next to compute of the other; false: one batch, every all-to-all waited for;
    auto: the faster of the two."""
    gate: GateSpec = UniformGate(kind="uniform")
    kernel: KernelSpec = NCCL
    """The all-to-all kernel; only a model with one expert can do without."""
    placement: PlacementSpec = PlacementSpec()
    skew: SpreadSpec = SpreadSpec()
    """How unlike ranks are that wait for one another; 0 for both: alike."""
    drawn_layers: Count | None = None
    """Layers with a routing of their own, taken in turn (1 where the gate samples nothing); 4 or all recorded when left out."""
    dispatch_dtype: DispatchDtype = "fp8"
    combine_dtype: CombineDtype = "bf16"
    precision: PrecisionKey = None
    """Number formats of weights and GEMMs: left out those of the model's file, else FP8 where the GPU has it. Embedding, head and
    gate are BF16."""
    kv_dtype: CacheDtype | None = None
    fused_gate: bool = True
    """One launch from the gate's logits to the experts of a token; false: some thirty small ones, as in training."""
    shared_experts: Literal["split", "whole"] = "split"
    """Under TP: split by their width, and reduced like a dense block; whole: on every rank for its own tokens, nothing to reduce (SGLang
    with DeepEP; vLLM with sequence-parallel experts)."""
    gemm_generation: str = "march_2025"
    reserve: Fraction = written("10 %")
    """Part of HBM that neither weights nor cache may use (assumed: driver, communicator, allocator, and `graphs`)."""
    graphs: Size = written("2 GB")
    """CUDA graphs and activations (assumed): inside the reserve, which is no smaller."""


class PrefillSpec(DeployedSpec):
    """Prompts into the cache, and the first token of each."""

    kind: Literal["prefill"]
    prompt_tokens: Count = 4096
    prompts_per_gpu: Count | None = None
    """Prompts computed together on each GPU, in both microbatches; `prompt_tokens` or `chunk_tokens` of each a pass. 4 where `prompts` is left out too."""
    prompts: Count | None = None
    """Instead of `prompts_per_gpu`: of the whole deployment, fewer than GPUs allowed. Ranks of TP and CP share a prompt."""
    chunk_tokens: Count | None = None
    """Tokens of a prompt in one pass; the whole prompt when left out."""
    cp_comm: CpComm = "all_gather"
    cached_tokens: Index = 0
    """Tokens of a prompt whose keys and values are there already: attended to, not computed."""

    @property
    def pass_tokens(self) -> int:
        """Tokens of a prompt in one pass [count]."""
        return self.chunk_tokens or self.prompt_tokens - self.cached_tokens


class DecodeSpec(DeployedSpec):
    """Steps that give each request its next tokens."""

    kind: Literal["decode"]
    requests_per_gpu: Count | None = None
    """When left out the most that memory allows, with two microbatches the even number below: half of them in each."""
    requests: Count | None = None
    """Instead of `requests_per_gpu`: of the whole deployment, fewer than GPUs allowed."""
    context_tokens: Count
    """Mean tokens of a request in the cache."""
    tokens_per_step: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    """Tokens of a request that one step verifies: 2 with one speculated token (MTP)."""
    acceptance: EachOr[Fraction] = written("80 %")
    """Speculated tokens that are right, over all whose predecessors are: one value, or one for each in its place, [80 %, 60 %]; nothing
    to accept at one token a step."""
    afd: AfdSpec | None = None
    """Attention and experts on pools of their own; on the same GPUs when left out."""


@dataclass(frozen=True, slots=True)
class Inference(Workload):
    """A deployment that prefills or decodes, ready to be planned."""

    spec: PrefillSpec | DecodeSpec
    layout: Layout
    gate: Gate
    sampling: str
    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]
    formats: Precision
    requests: int | None  # of a GPU: prompts of a prefill; None for as many as fit, or as `total` makes
    context_tokens: int  # of a request in the cache; of a whole prompt
    step_tokens: int  # of a request, computed at once
    cached_tokens: int  # of a prompt
    total: int | None = None  # requests of the whole deployment, where it is they that are given
    apart: Disaggregated | None = (
        None  # the pools of attention and of experts, where these are not on the same GPUs
    )

    @property
    def shared_tp(self) -> int:
        """Ranks that split the shared experts between them [count]."""
        return 1 if self.spec.shared_experts == "whole" else self.layout.tp

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """Both pools, where attention and experts are apart."""
        return (self.apart.attention, self.apart.experts) if self.apart else ()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The one kernel."""
        return (self.kernel,)

    @property
    def stated_price_usd(self) -> float | None:
        """The mean of both pools, where attention and experts are apart."""
        return self.apart.price_usd if self.apart else None

    @property
    def drawn_layers(self) -> int:
        """Layers with a routing of their own, if the model has so many [count]."""
        return self.spec.drawn_layers or len(self.gate.layers) or _DRAWN_LAYERS

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Chance that each token speculated in a step is right, given those before it; nothing is speculated in a prefill."""
        if not isinstance(self.spec, DecodeSpec):
            return ()
        asked = self.spec.acceptance
        return tuple(asked) if isinstance(asked, list) else (asked,) * (self.step_tokens - 1)

    @property
    def accepted_tokens(self) -> float:
        """Tokens that a step gives a request on average: 1 + a1 + a1 a2 + ... for those speculated and accepted [count]."""
        return float(sum(accumulate(self.acceptance, mul, initial=1.0)))

    def one_batch(self) -> Inference:
        """The same deployment without a second microbatch: every collective is waited for."""
        return replace(self, spec=self.spec.model_copy(update={"overlap": False}))

    @property
    def ways(self) -> tuple[Inference, ...]:
        """The deployment in one batch and, where it may, in two that overlap."""
        if not self.spec.overlap or self.layout.pp > 1:
            return (self.one_batch(),)
        return self.one_batch(), replace(self, spec=self.spec.model_copy(update={"overlap": True}))


def inference_of(draft: Draft, spec: PrefillSpec | DecodeSpec) -> Inference:
    """Resolve a prefill or decode workload; InputError, empty, where the draft holds the problems."""
    assert draft.model is not None
    assert draft.hardware is not None
    if isinstance(spec, DecodeSpec) and spec.afd is not None:
        apart = disaggregated(draft, spec.afd, spec.kernel.kind, overlap=spec.overlap is True)
        experts = apart.experts.workload
        assert isinstance(experts, Inference)
        return replace(experts, spec=spec.model_copy(update={"overlap": False}), apart=apart)
    layout = layouts.deployed(draft)
    ep = layout.ep if layout else draft.asked.ep or draft.num_ranks
    precision = precision_of(draft, spec.precision, kv=spec.kv_dtype)
    kernel, comm_sms, options = kernel_of(draft, spec.kernel)
    if comm_sms >= draft.hardware.gpu.sms:
        wanted = f"fewer than the {draft.hardware.gpu.sms} SMs of the GPU"
        draft.problem((*_AT, "kernel", "comm_sms"), str(comm_sms), wanted)
    near = layout.near(draft.gpus_per_node, "ep") if layout else draft.gpus_per_node
    gate = gate_of(draft, spec.gate, max(1, ep // near))
    if layout:
        placement_of(draft, spec.placement, ep)
    generations = load_curves().gemm.generations
    if spec.gemm_generation not in generations:
        wanted = f"one of: {', '.join(generations)}"
        draft.problem((*_AT, "gemm_generation"), f"'{spec.gemm_generation}'", wanted)
    if isinstance(spec, PrefillSpec):
        layouts.check_ring(draft, spec.cp_comm)
        spec = _prompts(draft, spec, layout)
    elif spec.requests is not None and spec.requests_per_gpu is not None:
        wanted = "one of them: requests of the whole deployment, or of each GPU"
        draft.problem((*_AT, "requests"), f"{spec.requests} next to requests_per_gpu", wanted)
    elif spec.tokens_per_step > 1 and not draft.model.num_mtp_layers:
        wanted = f"1: {draft.model.name} has no module that speculates"
        draft.problem((*_AT, "tokens_per_step"), str(spec.tokens_per_step), wanted)
    if layout and layout.pp > 1 and spec.overlap is True:
        wanted = "false: the microbatches of a pipeline are on different stages, and each waits for its all-to-alls"
        draft.problem((*_AT, "overlap"), "true next to layout.pp", wanted)
    for key, deviation in spec.skew:
        if not 0 <= deviation <= 1:
            draft.problem((*_AT, "skew", key), f"{deviation:.0%}", "a deviation of 0 to 100 %")
    if not 0 <= spec.reserve < 1:
        draft.problem((*_AT, "reserve"), f"{spec.reserve:.0%}", "0 % or more, and less than 100 %")
    if isinstance(spec, DecodeSpec):
        _acceptance(draft, spec)
    if draft.problems or gate is None or layout is None:
        raise InputError(())  # the draft has them
    odd = isinstance(spec, PrefillSpec) and _together(spec, layout) % 2
    if spec.overlap == "auto" and (layout.pp > 1 or odd):
        spec = spec.model_copy(update={"overlap": False})
    draft.layout = layouts.written(layout, "ep", "tp", "dp")
    return Inference(
        spec=spec,
        layout=layout,
        gate=gate,
        sampling=spec.gate.sampling,
        kernel=kernel,
        comm_sms=comm_sms,
        options=options,
        formats=precision,
        **_load(spec),
    )


def _acceptance(draft: Draft, spec: DecodeSpec) -> None:
    at, each = (*_AT, "acceptance"), isinstance(spec.acceptance, list)
    asked = spec.acceptance if isinstance(spec.acceptance, list) else [spec.acceptance]
    for i, chance in enumerate(asked):
        if not 0 <= chance <= 1:
            draft.problem((*at, i) if each else at, f"{chance:.0%}", "0 % to 100 %")
    if each and len(asked) != spec.tokens_per_step - 1:
        wanted = f"{spec.tokens_per_step - 1}: one for each token that is speculated, of the {spec.tokens_per_step} a step verifies"
        draft.problem(at, f"{len(asked)} values", wanted)


def _load(spec: PrefillSpec | DecodeSpec) -> dict[str, Any]:
    """Requests of a GPU, and of each the tokens in the cache or of the whole prompt, those computed at once, and those cached."""
    if isinstance(spec, DecodeSpec):
        return {
            "requests": spec.requests_per_gpu,
            "total": spec.requests,
            "context_tokens": spec.context_tokens,
            "step_tokens": spec.tokens_per_step,
            "cached_tokens": 0,
        }
    return {
        "requests": spec.prompts_per_gpu,
        "total": spec.prompts,
        "context_tokens": spec.prompt_tokens,
        "step_tokens": spec.pass_tokens,
        "cached_tokens": spec.cached_tokens,
    }


def _together(spec: PrefillSpec, layout: Layout | None) -> int:
    """Prompts that a GPU, or the ranks that share them, compute at once [count]."""
    return spec.prompts_per_gpu or math.ceil((spec.prompts or 1) / (layout.dp if layout else 1))


def _prompts(draft: Draft, spec: PrefillSpec, layout: Layout | None) -> PrefillSpec:
    """The specification with the prompts of a GPU where none are named; problems are added to the draft."""
    if spec.prompts is None and spec.prompts_per_gpu is None:
        draft.derived["prompts_per_gpu"] = _PROMPTS
        spec = spec.model_copy(update={"prompts_per_gpu": _PROMPTS})
    elif spec.prompts is not None and spec.prompts_per_gpu is not None:
        wanted = "one of them: prompts of the whole deployment, or of each GPU"
        draft.problem((*_AT, "prompts"), f"{spec.prompts} next to prompts_per_gpu", wanted)
    new = spec.prompt_tokens - spec.cached_tokens
    if new < 1:
        draft.problem(
            (*_AT, "cached_tokens"),
            str(spec.cached_tokens),
            f"less than the prompt's {spec.prompt_tokens} tokens",
        )
    elif spec.chunk_tokens and new % spec.chunk_tokens:
        draft.problem(
            (*_AT, "chunk_tokens"), str(spec.chunk_tokens), f"a divisor of the {new} tokens to compute"
        )
    if spec.overlap is True and _together(spec, layout) % 2:
        key = "prompts_per_gpu" if spec.prompts is None else "prompts"
        wanted = "an even number, half of them in each microbatch; or 'overlap: false'"
        draft.problem((*_AT, key), str(getattr(spec, key)), wanted)
    return spec


def _count(scenario: Scenario, work: Inference) -> None:
    assert scenario.model is not None
    assert scenario.hardware is not None
    if work.apart:
        return  # each pool was counted as a scenario of its own
    spec, ep = work.spec, work.layout.ep
    sizes.require_nodes(scenario, scenario.num_nodes, "the nodes of the cluster")
    even = work.sampling == "expected" and work.gate.is_exchangeable
    draws = 1 if even else min(work.drawn_layers, scenario.model.num_layers) * (2 if spec.overlap else 1)
    sizes.require_pairs(scenario.num_ranks // ep, ep, draws)
    sizes.require_replicas(scenario.model.num_experts, spec.placement.redundant_experts)
    if isinstance(spec, PrefillSpec):
        new = work.context_tokens - work.cached_tokens
        keys = f"prompt_tokens {new:,} to compute / chunk_tokens {work.step_tokens:,}"
        limits.require(new // work.step_tokens, limits.PASSES, keys)
    if work.sampling == "tokens" and work.requests is not None:
        tokens = max(1, work.requests * work.step_tokens // (2 if spec.overlap else 1))
        draws = min(work.drawn_layers, scenario.model.num_layers)
        sizes.require_draws(ep, tokens, draws, scenario.model.num_experts)


RESOLVER = Resolver(
    {"prefill": PrefillSpec, "decode": DecodeSpec},
    inference_of,
    faults=QUANTITIES,
    windows=True,
    divides=lambda spec: isinstance(spec, DecodeSpec) and spec.afd is not None,
    count=_count,
)
