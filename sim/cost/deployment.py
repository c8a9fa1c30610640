"""Memory of a GPU that serves: weights by format and EP, cache, communication buffers, and the batch that is left.

References
----------
Cache and weights: arXiv 2505.09343, section 2.1; buffers of the low-latency kernels: DeepEP csrc/config.hpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim import units
from sim.errors import DoesNotFitError
from sim.workload.attention import GQA, MLA, Attention
from sim.workload.formats import FORMATS, PRODUCTS, Precision
from sim.workload.layout import Layout
from sim.workload.model import Model, cache_bytes, layer_parameters, parameters
from sim.workload.stages import Stage

_BF16 = FORMATS["bf16"].element_bytes


@dataclass(frozen=True, slots=True)
class Footprint:
    """Contents of one GPU's memory [bytes], before any request, and for each request."""

    routed_experts_bytes: float
    shared_experts_bytes: float
    attention_bytes: float
    dense_bytes: float
    gates_bytes: float
    ends_bytes: float
    reserve_bytes: float
    graphs_bytes: float
    buffers_bytes: float
    cache_bytes_per_request: float
    buffer_bytes_per_request: float
    capacity_bytes: float
    gpu: str
    tp: int = 1
    """GPUs that share each request; a request for each of them is what `cache_bytes_per_request` is of."""

    @property
    def weights_bytes(self) -> float:
        """All weights."""
        return (
            self.routed_experts_bytes
            + self.shared_experts_bytes
            + self.attention_bytes
            + self.dense_bytes
            + self.gates_bytes
            + self.ends_bytes
        )

    @property
    def free_bytes(self) -> float:
        """Memory left for requests [bytes]; negative where the weights do not fit."""
        taken = self.weights_bytes + self.reserve_bytes + self.graphs_bytes + self.buffers_bytes
        return self.capacity_bytes - taken

    @property
    def bytes_per_request(self) -> float:
        """Cache and buffers of one request."""
        return self.cache_bytes_per_request + self.buffer_bytes_per_request

    @property
    def max_batch(self) -> int:
        """Requests that fit on a GPU; 0 where not one does."""
        return max(0, math.floor(self.free_bytes / self.bytes_per_request))

    @property
    def max_of_a_group(self) -> int:
        """Requests that fit on a TP group, which may be fewer than its GPUs."""
        return max(0, math.floor(self.free_bytes * self.tp / self.bytes_per_request))

    @property
    def limit(self) -> str:
        """The largest part of the memory: the one that a larger batch would have to make smaller."""
        return max(self.parts(self.max_batch).items(), key=lambda item: item[1])[0]

    def parts(self, requests: float) -> dict[str, float]:
        """Name -> bytes with that many requests."""
        return {
            "routed experts": self.routed_experts_bytes,
            "shared experts": self.shared_experts_bytes,
            "attention": self.attention_bytes,
            "dense layers": self.dense_bytes,
            "gates": self.gates_bytes,
            "embedding and head": self.ends_bytes,
            "reserve": self.reserve_bytes,
            "graphs and activations": self.graphs_bytes,
            "communication buffers": self.buffers_bytes + requests * self.buffer_bytes_per_request,
            "cache": requests * self.cache_bytes_per_request,
        }


def footprint(
    model: Model,
    *,
    experts_per_rank: int,
    num_physical_experts: int,
    layout: Layout,
    shared_tp: int,
    stage: Stage,
    precision: Precision,
    context_tokens: float,
    buffered_tokens_per_request: float,
    buffers_bytes: float,
    record_bytes: float,
    with_mtp: bool,
    capacity_bytes: float,
    reserve_fraction: float,
    graphs_bytes: float,
    gpu: str,
) -> Footprint:
    """Memory of one GPU of a pipeline stage of a deployment, before any request, and for each request.

    Parameters
    ----------
    model : Model
    experts_per_rank, num_physical_experts : int [count]
        Replicas on a GPU, and in the EP group, of one layer.
    layout : Layout
        TP cuts attention, dense layers, embedding and head; each of its ranks keeps the down-projections and
        the latents (MLA), or key-value heads that it has to repeat, of the whole group. ETP cuts routed experts.
    shared_tp : int [count]
        Ranks that split the shared experts between them.
    stage : Stage
        Layers that the GPU holds; it keeps their cache for the requests of all PP stages.
    precision : Precision
        Formats of the weights of each part, and of the cache.
    context_tokens : float [tokens]
        Of a request.
    buffered_tokens_per_request : float [tokens]
        Tokens of a request in one low-latency collective; 0 for other kernels.
    buffers_bytes : float [bytes]
        Communication buffers that no request adds to.
    record_bytes : float [bytes]
        Dispatch and combine record together.
    with_mtp : bool
        The deployment also holds the multi-token-prediction modules.
    capacity_bytes : float [bytes]
        Memory of the GPU.
    reserve_fraction : float
        Part of the capacity that is left free, graphs included.
    graphs_bytes : float [bytes]
        CUDA graphs and activations; where they are more than the reserve, they are the reserve.
    gpu : str
        Name of the GPU, for messages.

    Returns
    -------
    Footprint

    Notes
    -----
    Low-latency buffers: 2 (double) x physical experts x tokens x (dispatch + combine record), for the most tokens that a rank
    sends in one collective. The up-projections of absorbed MLA are kept in BF16.

    References
    ----------
    Cache and weights: arXiv 2505.09343, section 2.1; buffers: DeepEP csrc/config.hpp.
    """
    count = parameters(model)
    extra = stage.num_mtp if with_mtp else 0
    own_bytes = {part: PRODUCTS[name].weights.element_bytes for part, name in precision.parts.items()}
    held = [
        (layer_parameters(model, layer), layer.attention, n) for layer, n in stage.kinds(model, extra).items()
    ]
    moe, d, tp = stage.num_moe + extra, model.hidden, layout.tp
    table = stage.embedding or (stage.head and (model.tied_embeddings or extra > 0))
    ends = (count.embedding if table else 0) + (count.head if stage.head else 0)
    reserve = reserve_fraction * capacity_bytes
    cache = cache_bytes(
        model, context_tokens, precision.cache.element_bytes, layers=stage.kinds(model, extra), tp=tp
    )
    return Footprint(
        routed_experts_bytes=experts_per_rank * count.expert * own_bytes["experts"] * moe / layout.etp,
        shared_experts_bytes=sum(n * own.shared for own, _, n in held) * own_bytes["shared"] / shared_tp,
        attention_bytes=sum(
            n * _attention_bytes(own.attention, a, d, own_bytes["attention"], tp) for own, a, n in held
        ),
        dense_bytes=sum(n * own.dense_ffn for own, _, n in held) * own_bytes["dense"] / tp,
        gates_bytes=moe * count.gate * _BF16,
        ends_bytes=ends * _BF16 / tp + extra * 2 * d * d * own_bytes["dense"],
        reserve_bytes=max(0.0, reserve - graphs_bytes),
        graphs_bytes=graphs_bytes,
        buffers_bytes=buffers_bytes,
        cache_bytes_per_request=cache * layout.pp,
        buffer_bytes_per_request=2.0 * num_physical_experts * buffered_tokens_per_request * record_bytes,
        capacity_bytes=capacity_bytes,
        gpu=gpu,
        tp=tp,
    )


def _attention_bytes(count: float, a: Attention | None, hidden: int, size: float, tp: int) -> float:
    """Weights of a layer's attention on one rank of a TP group: what has no heads, or too few, is held by several."""
    if isinstance(a, MLA):  # projected down for all heads at once
        whole: float = ((a.q_lora_rank or 0) + a.kv_lora_rank + a.qk_rope_head_dim) * hidden
        return whole * size + ((count - whole) * size + _kept_in_bf16(a) * (_BF16 - size)) / tp
    if isinstance(a, GQA):
        kv, low = a.kv_width * hidden, (a.q_lora_rank or 0) * hidden
        return (count - kv - low) * size / tp + low * size + kv * size / min(tp, a.num_kv_heads)
    return count * size / tp


def _kept_in_bf16(a: Attention | None) -> int:
    """Weights of absorbed MLA that decode multiplies in BF16: the up-projections of keys and values."""
    return a.kv_lora_rank * a.num_heads * (a.qk_nope_head_dim + a.v_head_dim) if isinstance(a, MLA) else 0


def require_batch(held: Footprint, requests: float, what: str) -> None:
    """Check that so many requests fit on a GPU.

    Parameters
    ----------
    held : Footprint
    requests : float [count]
    what : str
        Subject of the message, such as "64 requests a GPU need".

    Raises
    ------
    DoesNotFitError
        With the biggest parts, and the largest batch that fits.
    """
    if held.free_bytes >= requests * held.bytes_per_request:
        return
    parts = sorted(held.parts(requests).items(), key=lambda item: -item[1])
    biggest = ", ".join(f"{name} {units.show(size, 'bytes', 3)}" for name, size in parts[:4])
    needed = sum(size for _, size in parts)
    most = f"at most {held.max_batch} a GPU fit" if held.max_batch else "not one fits"
    if not held.max_batch and held.max_of_a_group:
        most = f"at most {held.max_of_a_group} a TP group of {held.tp} GPUs fit: say how many with 'requests'"
    raise DoesNotFitError(
        f"{what} {units.show(needed, 'bytes', 3)} of the {units.show(held.capacity_bytes, 'bytes', 3)} "
        f"of {held.gpu}: {biggest}; {most}",
        needed_bytes=needed,
        capacity_bytes=held.capacity_bytes,
        parts=dict(parts),
    )
