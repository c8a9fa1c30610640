"""The prefill or decode workload of a scenario, checked against its model and cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sim.cost.curves import load_curves
from sim.errors import InputError
from sim.scenario.descriptions import Inference
from sim.scenario.draft import Draft
from sim.scenario.routing import (
    GateSpec,
    KernelSpec,
    PlacementSpec,
    UniformGate,
    gate_of,
    kernel_of,
    placement_of,
)
from sim.scenario.values import Branch, Count, Index
from sim.schemas import quantity
from sim.workload import layout as layouts

_AT = ("workload",)


def inference_of(draft: Draft, spec: PrefillSpec | DecodeSpec) -> Inference:
    """The workload; problems join the draft's."""
    assert draft.model is not None
    assert draft.hardware is not None
    layout = _layout(draft)
    ep = layout.ep if layout else draft.asked.ep or draft.num_ranks
    kernel, comm_sms, options = kernel_of(draft, spec.kernel)
    if comm_sms >= draft.hardware.gpu.sms:
        wanted = f"fewer than the {draft.hardware.gpu.sms} SMs of the GPU"
        draft.problem((*_AT, "kernel", "comm_sms"), str(comm_sms), wanted)
    gate = gate_of(draft, spec.gate, max(1, ep // draft.gpus_per_node))
    if layout:
        placement_of(draft, spec.placement, ep)
    generations = load_curves().gemm.generations
    if spec.gemm_generation not in generations:
        wanted = f"one of: {', '.join(generations)}"
        draft.problem((*_AT, "gemm_generation"), f"'{spec.gemm_generation}'", wanted)
    if isinstance(spec, PrefillSpec):
        _prompts(draft, spec)
    elif spec.tokens_per_step > 1 and not draft.model.num_mtp_layers:
        wanted = f"1: {draft.model.name} has no module that speculates"
        draft.problem((*_AT, "tokens_per_step"), str(spec.tokens_per_step), wanted)
    if not 0 <= spec.reserve < 1:
        draft.problem((*_AT, "reserve"), f"{spec.reserve:.0%}", "0 % or more, and less than 100 %")
    if isinstance(spec, DecodeSpec) and not 0 <= spec.acceptance <= 1:
        draft.problem((*_AT, "acceptance"), f"{spec.acceptance:.0%}", "0 % to 100 %")
    if draft.problems or gate is None or layout is None:
        raise InputError(())  # the draft has them
    draft.layout = {name: getattr(layout, name) for name in ("ep", "tp", "dp")}
    return Inference(
        kind=spec.kind,
        layout=layout,
        overlap=spec.overlap,
        gate=gate,
        sampling=spec.gate.sampling,
        kernel=kernel,
        comm_sms=comm_sms,
        options=options,
        placement=spec.placement.kind,
        redundant_experts=spec.placement.redundant_experts,
        drawn_layers=spec.drawn_layers,
        dispatch_dtype=spec.dispatch_dtype,
        combine_dtype=spec.combine_dtype,
        precision=spec.precision,
        kv_dtype=spec.kv_dtype,
        fused_gate=spec.fused_gate,
        generation=spec.gemm_generation,
        reserve_fraction=spec.reserve,
        graphs_bytes=spec.graphs,
        requests=spec.requests_per_gpu if isinstance(spec, DecodeSpec) else spec.prompts_per_gpu,
        context_tokens=spec.context_tokens if isinstance(spec, DecodeSpec) else spec.prompt_tokens,
        step_tokens=spec.tokens_per_step if isinstance(spec, DecodeSpec) else _pass_tokens(spec),
        cached_tokens=0 if isinstance(spec, DecodeSpec) else spec.cached_tokens,
        acceptance_fraction=spec.acceptance if isinstance(spec, DecodeSpec) else 0.0,
    )


def _layout(draft: Draft) -> layouts.Layout | None:
    """EP over all ranks by default, attention data-parallel but for TP; None where it has problems."""
    asked, num_ranks, per_node = draft.asked, draft.num_ranks, draft.gpus_per_node
    assert draft.model is not None
    for key in ("pp", "cp"):
        if getattr(asked, key) not in (None, 1):
            draft.problem(("layout", key), str(getattr(asked, key)), "1: a deployment has EP, TP and DP only")
    ep, tp = asked.ep or num_ranks, asked.tp or 1
    if num_ranks % ep:
        divisors = ", ".join(str(d) for d in range(1, num_ranks + 1) if num_ranks % d == 0)
        draft.problem(("layout", "ep"), str(ep), f"a divisor of the {num_ranks} ranks: {divisors}")
    elif ep % per_node and per_node % ep:
        draft.problem(("layout", "ep"), str(ep), f"a multiple or a divisor of the {per_node} GPUs of a node")
    if tp > per_node or ep % tp or draft.model.attention.num_heads % tp:
        wanted = f"a divisor of EP, of the {draft.model.attention.num_heads} heads, at most {per_node} GPUs of a node"
        draft.problem(("layout", "tp"), str(tp), wanted)
    elif asked.dp not in (None, num_ranks // tp):
        draft.problem(
            ("layout", "dp"), str(asked.dp), f"{num_ranks // tp}, the ranks over TP, or leave it out"
        )
    return None if draft.problems else layouts.derive(num_ranks, ep=ep, tp=tp)


def _prompts(draft: Draft, spec: PrefillSpec) -> None:
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
    if spec.overlap and spec.prompts_per_gpu % 2:
        wanted = "an even number, half of them in each microbatch; or 'overlap: false'"
        draft.problem((*_AT, "prompts_per_gpu"), str(spec.prompts_per_gpu), wanted)


def _pass_tokens(spec: PrefillSpec) -> int:
    return spec.chunk_tokens or spec.prompt_tokens - spec.cached_tokens


class DeployedSpec(Branch):
    """What prefill and decode share: one EP group of a deployment, and what it is made of."""

    overlap: bool = True
    """Two microbatches, the exchanges of one beside compute of the other; false: one batch, every exchange waited for."""
    gate: GateSpec = UniformGate(kind="uniform")
    kernel: KernelSpec
    placement: PlacementSpec = PlacementSpec()
    drawn_layers: Count = 4
    """Layers with a routing of their own, taken in turn (1 where the gate samples nothing)."""
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16", "fp8", "logfmt10"] = "bf16"
    precision: Literal["fp8", "bf16"] = "fp8"
    """Of weights and GEMMs; embedding, head and gate are BF16."""
    kv_dtype: Literal["bf16", "fp8"] = "bf16"
    fused_gate: bool = True
    """One kernel from the gate's logits to the experts of a token; false: some thirty small ones, as in training."""
    gemm_generation: str = "march_2025"
    reserve: quantity("fraction") = "10 %"  # type: ignore[valid-type]
    """Of HBM, kept from weights and cache (assumed: driver, communicator, allocator)."""
    graphs: quantity("bytes", 0) = "2 GB"  # type: ignore[valid-type]
    """CUDA graphs and activations (assumed)."""


class PrefillSpec(DeployedSpec):
    """Prompts into the cache, and the first token of each."""

    kind: Literal["prefill"]
    prompt_tokens: Count = 4096
    prompts_per_gpu: Count = 4
    """Prompts computed together on each GPU, in both microbatches; `prompt_tokens` or `chunk_tokens` of each a pass."""
    chunk_tokens: Count | None = None
    """Tokens of a prompt in one pass; the whole prompt when left out."""
    cached_tokens: Index = 0
    """Tokens of a prompt whose keys and values are there already: attended to, not computed."""


class DecodeSpec(DeployedSpec):
    """Steps that give each request its next tokens."""

    kind: Literal["decode"]
    requests_per_gpu: Count | None = None
    """When left out the most that memory allows, with two microbatches the even number below: half of them in each."""
    context_tokens: Count
    """Mean tokens of a request in the cache."""
    tokens_per_step: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    """Tokens of a request that one step verifies: 2 with one speculated token (MTP)."""
    acceptance: quantity("fraction") = "80 %"  # type: ignore[valid-type]
    """How often a speculated token is right; nothing to accept at one token a step."""
