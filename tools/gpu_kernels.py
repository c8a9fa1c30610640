"""The kernels that `measure_gpu.py` times: what each draws as operands, and what it launches.

Shapes are DeepSeek-V3's or a sweep; `Case` holds one kernel on one shape. Operands are random: numbers that are all alike
cost less power, and then kernels run at a higher clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

MIB = 2.0**20
BF16, FP8, FP32 = torch.bfloat16, torch.float8_e4m3fn, torch.float32

Operands = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """A kernel on one shape: `make` draws its operands, of `size` bytes, `run` launches it on them."""

    make: Callable[[], Operands]
    run: Callable[..., object]
    size: float
    calls: int = 12
    graphed: bool = True


# --- operands ------------------------------------------------------------------------------------------------------


def bf16(*shape: int) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, device="cuda", dtype=BF16)


def fp8(*shape: int) -> torch.Tensor:
    """Normal numbers in E4M3."""
    return bf16(*shape).to(FP8)


def scales(*shape: int) -> torch.Tensor:
    """FP32 scales between a half and one and a half."""
    return torch.rand(*shape, device="cuda") + 0.5


def row_scales(rows: int, k: int) -> torch.Tensor:
    """Scales of blocks of 1 x 128, rows fastest, as cuBLASLt reads them."""
    return scales(k // 128, rows).T


def tile_scales(rows: int, k: int) -> torch.Tensor:
    """Scales of blocks of 128 x 128, padded to four along k."""
    return scales(-(-rows // 128), -(-(k // 128) // 4) * 4)[:, : k // 128]


def offsets(experts: int, m: int) -> torch.Tensor:
    """Last row of each expert and one."""
    return torch.arange(1, experts + 1, device="cuda", dtype=torch.int32) * m


# --- matrix multiplications: C[m, n] = A[m, k] B[n, k]^T, dW[n, k] = dY[t, n]^T X[t, k] ----------------------------


def gemm_bf16(m: int, n: int, k: int) -> Case:
    """In and out in BF16."""
    return Case(lambda: (bf16(m, k), bf16(n, k)), lambda a, b: a @ b.T, 2 * (m * k + n * k))


def gemm_fp8_rows(m: int, n: int, k: int) -> Case:
    """One scale a row of either operand."""
    return Case(
        lambda: (fp8(m, k), fp8(n, k), scales(m, 1), scales(1, n)),
        lambda a, b, x, y: torch._scaled_mm(a, b.T, scale_a=x, scale_b=y, out_dtype=BF16),
        m * k + n * k,
    )


def gemm_fp8_blocks(m: int, n: int, k: int) -> Case:
    """Scales of 1 x 128 by 128 x 128, DeepSeek-V3's."""
    one, tile = F.ScalingType.BlockWise1x128, F.ScalingType.BlockWise128x128
    return Case(
        lambda: (fp8(m, k), fp8(n, k), row_scales(m, k), tile_scales(n, k)),
        lambda a, b, x, y: F.scaled_mm(a, b.T, x, one, y.T, tile, output_dtype=BF16),
        m * k + n * k,
    )


def weight_bf16(t: int, n: int, k: int) -> Case:
    """The gradient in BF16."""
    return Case(lambda: (bf16(t, n), bf16(t, k)), lambda dy, x: dy.T @ x, 2 * t * (n + k))


def weight_bf16_added(t: int, n: int, k: int) -> Case:
    """The gradient in FP32, and added to where it is."""
    return Case(
        lambda: (bf16(t, n), bf16(t, k), torch.zeros(n, k, device="cuda")),
        lambda dy, x, dw: torch.addmm(dw, dy.T, x, out_dtype=FP32, out=dw),
        2 * t * (n + k) + 4 * n * k,
    )


def weight_fp8_blocks(t: int, n: int, k: int) -> Case:
    """Both operands with scales of 1 x 128 along t; the gradient in FP32."""
    one = F.ScalingType.BlockWise1x128
    return Case(
        lambda: (fp8(n, t), fp8(k, t), row_scales(n, t), row_scales(k, t)),
        lambda a, b, x, y: F.scaled_mm(a, b.T, x, one, y, one, output_dtype=FP32),
        t * (n + k),
    )


def grouped_bf16(experts: int, m: int, n: int, k: int) -> Case:
    """One GEMM of `m` rows for each expert, in one kernel."""
    ends = offsets(experts, m)
    return Case(
        lambda: (bf16(experts * m, k), bf16(experts, n, k)),
        lambda a, b: torch._grouped_mm(a, b.transpose(-2, -1), offs=ends),
        2 * experts * (m * k + n * k),
    )


def grouped_fp8_rows(experts: int, m: int, n: int, k: int) -> Case:
    """The same with one scale a row of either operand."""
    ends = offsets(experts, m)
    return Case(
        lambda: (fp8(experts * m, k), fp8(experts, n, k), scales(experts * m), scales(experts, n)),
        lambda a, b, x, y: torch._scaled_grouped_mm(a, b.transpose(-2, -1), x, y, offs=ends, out_dtype=BF16),
        experts * (m * k + n * k),
    )


# --- attention: one causal sequence through cuDNN ------------------------------------------------------------------


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The forward pass."""
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def qkv(tokens: int, heads: int, qk: int, v: int) -> Operands:
    """Queries, keys and values of one sequence."""
    return bf16(1, heads, tokens, qk), bf16(1, heads, tokens, qk), bf16(1, heads, tokens, v)


def attention_forward(tokens: int, heads: int, qk: int, v: int) -> Case:
    """The forward core."""
    size = 4.0 * heads * tokens * (qk + v)
    return Case(lambda: qkv(tokens, heads, qk, v), attend, size, calls=6, graphed=False)


def attention_backward(tokens: int, heads: int, qk: int, v: int) -> Case:
    """All that autograd launches for the backward pass."""

    def make() -> Operands:
        given = tuple(one.requires_grad_() for one in qkv(tokens, heads, qk, v))
        return attend(*given), bf16(1, heads, tokens, v), *given

    def run(out: torch.Tensor, grad: torch.Tensor, *given: torch.Tensor) -> object:
        return torch.autograd.grad(out, given, grad, retain_graph=True)

    return Case(make, run, 8.0 * heads * tokens * (qk + v), calls=3, graphed=False)


# --- memory: `mib` are bytes read and written ----------------------------------------------------------------------


def streaming(
    shapes: Callable[[int], tuple[tuple[int, ...], ...]], run: Callable[..., object]
) -> Callable[[float], Case]:
    """A kernel that moves bytes; `shapes` gives its BF16 operands from the bytes to move."""

    def case(mib: float) -> Case:
        given = shapes(int(mib * MIB))
        return Case(lambda: tuple(bf16(*one) for one in given), run, mib * MIB, calls=20)

    return case


def _rectangles(moved: int) -> tuple[tuple[int, ...], ...]:
    power = (moved // 4).bit_length() - 1
    rows, columns = 1 << power // 2, 1 << power - power // 2
    return (rows, columns), (columns, rows)


STREAMING: dict[str, Callable[[float], Case]] = {
    "copy": streaming(lambda b: ((b // 4,),) * 2, lambda x, y: y.copy_(x)),
    "scale": streaming(lambda b: ((b // 4,),) * 2, lambda x, y: torch.mul(x, 1.5, out=y)),
    "add": streaming(lambda b: ((b // 6,),) * 3, lambda x, y, z: torch.add(x, y, out=z)),
    "read": streaming(lambda b: ((b // 2,),), lambda x: x.sum()),
    "cast": streaming(lambda b: ((b // 3,),), lambda x: x.to(FP8)),
    "norm": streaming(
        lambda b: ((b // 4 // 8192, 8192), (8192,)), lambda x, w: torch.rms_norm(x, (8192,), w)
    ),
    "transpose": streaming(_rectangles, lambda x, y: y.copy_(x.T)),
}
