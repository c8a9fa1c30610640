"""Names of GPU kernels, and what they tell of what a kernel does.

Why this way: a profiler trace has thousands of mangled C++ names and no word on what they compute. Names change with
every library release, so the rules are one ordered table of patterns, first match wins; what matches none is
`unknown` and stays visible, never folded into a class that seems near.

A kind says what bounds the kernel: `sm` (tensor cores and registers: time follows the SMs it has), `memory` (HBM: time
hardly does), `transfer` (bytes between GPUs), `wait` (a barrier of an exchange: its time is other ranks' lateness).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Bound = Literal["sm", "memory", "transfer", "wait"]


@dataclass(frozen=True, slots=True)
class KernelName:
    """The meaning of the name of a kernel."""

    kind: str
    """A key of `BOUNDS`."""
    dtype: str = ""
    """Number format of a GEMM, if the name shows it: fp8, bf16, fp16, fp32."""
    cached: bool = False
    """A dispatch that reuses the layout of an earlier one."""

    @property
    def bound(self) -> Bound:
        """The resource that bounds it."""
        return BOUNDS[self.kind]

    @property
    def label(self) -> str:
        """Kind and dtype in one word: `gemm_fp8`, `dispatch_cached`."""
        return "_".join(word for word in (self.kind, self.dtype, "cached" if self.cached else "") if word)


BOUNDS: Mapping[str, Bound] = {
    "attention_forward": "sm",
    "attention_backward": "sm",
    "grouped_gemm": "sm",  # one GEMM a local expert, in one kernel
    "wgrad_gemm": "sm",  # adds into the gradient of a weight
    "gemm": "sm",
    "dispatch": "transfer",
    "combine": "transfer",
    "collective": "transfer",  # of a collective library: all-reduce, all-gather, send
    "notify": "wait",  # exchange of counts before a dispatch: a barrier
    "barrier": "wait",
    "layout": "memory",  # counts tokens by rank before a dispatch
    "attention_fixup": "memory",  # what an attention backward prepares and converts around its main kernel
    "cast": "memory",
    "transpose": "memory",
    "norm": "memory",
    "swiglu": "memory",
    "rotary": "memory",
    "permute": "memory",  # tokens to the order of experts and back
    "gate": "memory",
    "loss": "memory",
    "optimizer": "memory",
    "reduce": "memory",
    "scatter": "memory",
    "copy": "memory",
    "elementwise": "memory",
    "setup": "memory",  # descriptors for a GEMM that follows
    "memcpy": "memory",
    "memset": "memory",
    "unknown": "memory",
}
COMMUNICATION_BOUNDS: frozenset[Bound] = frozenset({"transfer", "wait"})

_RULES: tuple[tuple[str, str], ...] = (
    # Exchanges of experts, before anything whose pattern occurs in their parameter types.
    (r"cached_notify|notify_dispatch|notify_combine|::notify", "notify"),
    (r"get_dispatch_layout|dispatch_layout", "layout"),
    (
        r"(internode|intranode|internode_ll|hybrid|ep)::(\w+::)*(dispatch|\w*dispatch_(impl|kernel))\b",
        "dispatch",
    ),
    (
        r"(internode|intranode|internode_ll|hybrid|ep)::(\w+::)*(combine|\w*combine_(impl|kernel))\b",
        "combine",
    ),
    (r"(internode|intranode|internode_ll|ep)::(\w+::)*(barrier|clean_low_latency|\w*sync\w*)", "barrier"),
    (r"nccl(Dev)?Kernel|ncclKernel|nvshmem\w*(collective|alltoall|reduce|broadcast)|rccl", "collective"),
    (r"nvshmem\w*barrier|nvshmem\w*sync", "barrier"),
    # Attention: the small kernels around a backward carry its name, so they come first.
    (
        r"FlashAttnBwd(Pre|Post)process|flash_bwd_(dot_do_o|convert_dq)|bwd_(pre|post)process|convert_dq",
        "attention_fixup",
    ),
    (
        r"(?i)FlashAttnBwd|flash_bwd|fmha\w*bwd|fmha\w*backward|sdpa\w*(bprop|bwd)|attention\w*backward",
        "attention_backward",
    ),
    (
        r"(?i)compute_attn_ws|FlashAttnFwd|flash_fwd|flash\w*mla|fmha|sdpa\w*(fprop|fwd)|(flash|attention)\w*forward",
        "attention_forward",
    ),
    # Kernels beside GEMMs that live in a GEMM library's namespace.
    (r"fill_tensormaps|tensormap|set_group_offsets", "setup"),
    (r"(gemm|cublas)\w*(::\w+)*::(utils::)?transpose", "transpose"),
    (r"splitKreduce|split_k_reduce", "reduce"),
    # Sparse-layer bookkeeping.
    (
        r"expand_to_fused|reduce_fused|fused_mapping|count_expert|moe_(un)?permute|(un)?permute_kernel|moe_align",
        "permute",
    ),
    (r"(?i)topk|unique_group_indices|aux_fi|moe\w*(gating|router)|sigmoid|softmax_topk", "gate"),
    # GEMMs.
    (r"\w*fp8\w*_acc::GemmKernel|(?i:wgrad)\w*|k_grouped\w*gemm", "wgrad_gemm"),
    (
        r"(?i)m_grouped|grouped_?gemm\w*impl|GroupProblemShape|MGrouped|GemmType\)[12]|grouped_gemm_kernel",
        "grouped_gemm",
    ),
    (r"(?i)gemm|nvjet|cublasLt|xmma|cutlass\w*::kernel::\w*universal", "gemm"),
    # Memory-bound operations; what also casts or transposes is named after the heavier part.
    (r"(?i)swiglu|silu|glu_", "swiglu"),
    (
        r"(?i)cast_and_transpose|per_(token|channel|block)\w*cast|cast_to_fp8|cast_back|quantize|scaled_cast",
        "cast",
    ),
    (r"(?i)transpose", "transpose"),
    (r"(?i)layer_?norm|rms_?norm|ln_(fwd|bwd)", "norm"),
    (r"(?i)rotary|rope", "rotary"),
    (r"(?i)cross_entropy|nll_loss|log_softmax|softmax", "loss"),
    (r"(?i)adam|multi_tensor_apply|l2norm", "optimizer"),
    (r"(?i)memcpy", "memcpy"),
    (r"(?i)memset", "memset"),
    (
        r"(?i)scatter_gather|scatter|gather|index_(put|select|add)|indexing|embedding|sort|cumsum|scan",
        "scatter",
    ),
    (r"reduce_kernel", "reduce"),
    (r"(?i)copy", "copy"),
    (r"(?i)elementwise|FillFunctor|distribution_|triton_(poi|red|per)", "elementwise"),
)
_COMPILED = tuple((re.compile(pattern), kind) for pattern, kind in _RULES)
_CACHED = re.compile(r"internode::dispatch<\w+, \d+, true\b")
_DTYPES = (
    ("fp8", re.compile(r"(?i)fp8|e4m3|e5m2")),
    ("bf16", re.compile(r"(?i)bf16|bfloat16")),
    ("fp16", re.compile(r"(?i)fp16|f16f16|hgemm|half|_h\d+_")),
    ("fp32", re.compile(r"(?i)sgemm|tf32|f32f32|float")),
)
_WITH_DTYPE = frozenset({"gemm", "grouped_gemm", "wgrad_gemm"})


@lru_cache(maxsize=16384)
def name_kernel(name: str) -> KernelName:
    """Return what a kernel does, by its demangled name; of the kind `unknown` where no rule knows it."""
    kind = next((kind for pattern, kind in _COMPILED if pattern.search(name)), "unknown")
    dtype = (
        next((word for word, pattern in _DTYPES if pattern.search(name)), "") if kind in _WITH_DTYPE else ""
    )
    return KernelName(kind, dtype, cached=kind == "dispatch" and bool(_CACHED.search(name)))


def short_name(name: str, width: int = 96) -> str:
    """Return a kernel's name without return type and parameters, for tables."""
    name = name.removeprefix("void ")
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and i > 0:
            name = name[:i]
            break
    return name if len(name) <= width else name[: width - 3] + "..."
