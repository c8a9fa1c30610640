"""Writes layer_pairs.json: a small profiler trace of two layer pairs with invented, round times.

Nothing in it was measured. Kernel names are those of public libraries and of the published training trace, cut short;
grids have the shape of 4,096 tokens on a GPU of 132 SMs of which 20 communicate. `python tests/data/make_layer_pairs.py`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("layer_pairs.json")
NUM_LAYERS = 2
GAP_US = 2  # between kernels of a stream
ZERO_US = 1_700_000_000_000_000
CPU, AUTOGRAD = 901, 902
COMPUTE, SECOND, COMM = 7, 23, 27

Event = dict[str, Any]


class Kernel(NamedTuple):
    """A kernel of the synthetic timeline."""

    name: str
    time_us: int
    grid: Sequence[int]
    bound: str = "memory"


GEMM = "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::fp8_ptp128c::GemmKernel>(Params)"
GROUPED = "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::m_grouped_fp8_ptp128c::GemmKernel>(Params)"
WGRAD = "void cutlass::device_kernel<dpsk::grouped_gemm::cuda::fp8_dptp128c_acc::GemmKernel>(Params)"
CAST = "void cuda::per_token_cast_to_fp8_with_channels<__nv_bfloat16, 128>(__nv_bfloat16 const*, int)"
SM = "sm"

PHASES: dict[str, tuple[Kernel, ...]] = {
    "attn(F)": (
        Kernel(
            "void layer_norm::ln_fwd_kernel<layer_norm::Kernel_traits<7168u> >(FwdParams)", 100, (396, 1, 1)
        ),
        Kernel(CAST, 50, (4096, 1, 1)),
        Kernel(GEMM, 600, (112, 1, 1), SM),
        Kernel(
            "void flash::compute_attn_ws<Flash_fwd_kernel_traits<192, 128> >(Params)", 1200, (32, 128, 1), SM
        ),
        Kernel(GEMM, 900, (2, 56, 1), SM),
        Kernel("void at::native::sbtopk::gatherTopK<float, unsigned int, 2>(TensorInfo)", 60, (4096, 1, 1)),
    ),
    "mlp(B)": (
        Kernel(CAST, 200, (32768, 1, 1)),
        Kernel(GROUPED, 900, (1, 112, 1), SM),
        Kernel("void cuda::swiglu_forward_backward_with_weight_impl<__nv_bfloat16>(int)", 400, (16384, 1, 1)),
        Kernel(GROUPED, 2000, (1, 112, 1), SM),
        Kernel("void cuda::reduce_fused_impl<__nv_bfloat16>(int4 const*)", 300, (30000, 1, 1)),
    ),
    "mlp(W)": (
        Kernel(WGRAD, 800, (112, 1, 1), SM),
        Kernel("void cuda::per_channel_cast_and_transpose<256, 128>(void const*)", 300, (56, 256, 1)),
        Kernel(WGRAD, 1400, (2, 56, 1), SM),
    ),
    "mlp(F)": (
        Kernel("cuda::expand_to_fused_with_scales_impl(int4 const*, int4*)", 200, (2000, 1, 1)),
        Kernel(GROUPED, 1700, (1, 112, 1), SM),
        Kernel(CAST, 150, (30720, 1, 1)),
        Kernel(GROUPED, 950, (1, 112, 1), SM),
    ),
    "attn(B)": (
        Kernel(
            "void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float> >(int)",
            40,
            (2048, 1, 1),
        ),
        Kernel(GEMM, 900, (112, 1, 1), SM),
        Kernel(
            "void cutlass::device_kernel<flash::FlashAttnBwdPreprocess<Sm90> >(Params)", 270, (64, 128, 1)
        ),
        Kernel(
            "void cutlass::device_kernel<flash::FlashAttnBwd<CollectiveMainloopBwd<2> > >(Params)",
            3600,
            (32, 128, 1),
            SM,
        ),
        Kernel(
            "void cutlass::device_kernel<flash::FlashAttnBwdPostprocessConvertdQ<Sm90> >(Params)",
            220,
            (64, 128, 1),
        ),
        Kernel(GEMM, 500, (112, 1, 1), SM),
    ),
    "attn(W)": (Kernel(WGRAD, 1500, (112, 1, 1), SM), Kernel(WGRAD, 700, (2, 56, 1), SM)),
}
BESIDE = (
    Kernel(WGRAD, 700, (112, 1, 1), SM),
    Kernel(WGRAD, 600, (2, 56, 1), SM),
)  # of mlp(W), on the second stream
BESIDE_AFTER_US = 900  # from the start of mlp(W): the first of them runs beside the cast
NOTIFY = "void dpsk::ep::internode::cached_notify<false>(int, int)"
EXCHANGES: dict[str, tuple[Kernel, ...]] = {
    "combine(B)": (
        Kernel(CAST, 50, (4096, 1, 1)),
        Kernel(NOTIFY, 200, (20, 1, 1), "wait"),
        Kernel(
            "void dpsk::ep::internode::dispatch<false, 8, true, 8>(int4*, float*)",
            1800,
            (20, 1, 1),
            "transfer",
        ),
    ),
    "dispatch(F)": (
        Kernel("void dpsk::ep::cuda::get_dispatch_layout<256, 32, 8>(long const*)", 80, (16, 1, 1)),
        Kernel("void dpsk::ep::internode::notify_dispatch<false, 8>(int const*)", 300, (9, 1, 1), "wait"),
        Kernel(
            "void dpsk::ep::internode::dispatch<false, 8, false, 8>(int4*, float*)",
            3200,
            (20, 1, 1),
            "transfer",
        ),
    ),
    "dispatch(B)": (
        Kernel(NOTIFY, 150, (20, 1, 1), "wait"),
        Kernel(
            "void dpsk::ep::internode::combine<false, 8, __nv_bfloat16>(int4*)", 4000, (20, 1, 1), "transfer"
        ),
    ),
    "combine(F)": (
        Kernel(NOTIFY, 250, (20, 1, 1), "wait"),
        Kernel(
            "void dpsk::ep::internode::combine<false, 8, __nv_bfloat16>(int4*)", 4200, (20, 1, 1), "transfer"
        ),
    ),
}
LAUNCH_ORDER = (
    "combine(B)", "attn(F)", "mlp(B)", "dispatch(F)", "dispatch(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)", "combine(F)",
)  # fmt: skip


def lasts_us(kernels: Sequence[Kernel]) -> int:
    """First to last kernel of a run without waits."""
    return sum(one.time_us for one in kernels) + GAP_US * (len(kernels) - 1)


def build() -> dict[str, Any]:
    """The trace document."""
    gpu: list[Event] = []
    launches: list[tuple[str, int]] = []

    def run(layer: int, name: str, kernels: Sequence[Kernel], stream: int, start_us: int) -> int:
        now = start_us
        for one in kernels:
            correlation = len(gpu) + 1
            launches.append((f"{layer} {name}", correlation))
            args = {"device": 0, "stream": stream, "correlation": correlation, "grid": list(one.grid)}
            gpu.append(
                {"ph": "X", "cat": "kernel", "name": one.name, "pid": 0, "tid": stream, "ts": ZERO_US + now,
                 "dur": one.time_us, "args": args}
            )  # fmt: skip
            now += one.time_us + GAP_US
        return now - GAP_US

    free = comm = 0
    for layer in range(NUM_LAYERS):
        before = comm if layer else 0  # combine(B) of a later layer runs beside attn(W) of the one before
        attn_w_us = free - lasts_us(PHASES["attn(W)"]) if layer else 0
        comm = run(layer, "combine(B)", EXCHANGES["combine(B)"], COMM, max(before, attn_w_us) + GAP_US)
        attn_f = run(layer, "attn(F)", PHASES["attn(F)"], COMPUTE, free + GAP_US)
        dispatch_f = run(layer, "dispatch(F)", EXCHANGES["dispatch(F)"], COMM, max(attn_f, comm) + 1)
        mlp_b = run(layer, "mlp(B)", PHASES["mlp(B)"], COMPUTE, max(attn_f, comm) + GAP_US)
        dispatch_b = run(layer, "dispatch(B)", EXCHANGES["dispatch(B)"], COMM, max(mlp_b, dispatch_f) + 1)
        mlp_w = run(layer, "mlp(W)", PHASES["mlp(W)"], COMPUTE, mlp_b + GAP_US)
        run(layer, "mlp(W)", BESIDE, SECOND, mlp_b + GAP_US + BESIDE_AFTER_US)
        mlp_f = run(layer, "mlp(F)", PHASES["mlp(F)"], COMPUTE, max(mlp_w, dispatch_f) + GAP_US)
        joined = max(mlp_f, dispatch_b)
        comm = run(layer, "combine(F)", EXCHANGES["combine(F)"], COMM, joined + 1)
        attn_b = run(layer, "attn(B)", PHASES["attn(B)"], COMPUTE, joined + GAP_US)
        free = run(layer, "attn(W)", PHASES["attn(W)"], COMPUTE, max(attn_b, comm) + GAP_US)
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "Synthetic GPU", "numSms": 132}],
        "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 64},
        "traceEvents": _launching(launches) + gpu,
        "traceName": "synthetic_layer_pairs.json",
    }


def _launching(launches: Sequence[tuple[str, int]]) -> list[Event]:
    """The CPU's side: named ranges around the launches, backward ones launched by the autograd thread."""
    events: list[Event] = []
    now = ZERO_US - 5000
    first = now
    for layer in range(NUM_LAYERS):
        for name in LAUNCH_ORDER:
            opened = now
            thread = AUTOGRAD if name.endswith("(B)") else CPU
            for mine, correlation in launches:
                if mine == f"{layer} {name}":
                    now += 3
                    args = {"correlation": correlation}
                    events.append(
                        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": CPU, "tid": thread,
                         "ts": now, "dur": 2, "args": args}
                    )  # fmt: skip
            now += 5
            events.append(
                {"ph": "X", "cat": "user_annotation", "name": name, "pid": CPU, "tid": CPU, "ts": opened,
                 "dur": now - opened}
            )  # fmt: skip
            now += 1
    around = {
        "ph": "X",
        "cat": "user_annotation",
        "pid": CPU,
        "tid": CPU,
        "ts": first - 1,
        "dur": now - first + 2,
    }
    return [{**around, "name": "ProfilerStep#1"}, *events]


def text() -> str:
    """The file, an event a line."""
    document = build()
    events = ",\n".join(json.dumps(event) for event in document.pop("traceEvents"))
    head = json.dumps(document, indent=0)
    return f'{head[:-2]},\n"traceEvents": [\n{events}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
