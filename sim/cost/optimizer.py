"""Optimizer of a training run: bytes of its states, bytes and time of an update.

Every parameter has a BF16 weight, a gradient, an FP32 master weight and moments: two in AdamW, one in Muon, whose matrices it
orthogonalises by five steps of Newton-Schulz; embedding and head are AdamW's in either. Of n ranks with the same parameters

    zero1: each keeps and updates a part of the states; gradients are scattered and weights gathered once a step
    zero2: gradients are kept in parts too, so they are scattered after every microbatch
    zero3: weights too, so each layer's are gathered before its forward and again before its backward

With `offload: cpu` states are the host's: gradients go there over PCIe, its memory sets the rate, and weights come back.

References
----------
ZeRO, arXiv 1910.02054; ZeRO-Offload, arXiv 2101.06840. Muon: K. Jordan (2024), and at scale arXiv 2502.16982.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sim.cluster.hardware import Hardware
from sim.cost.attention_launches import projections
from sim.cost.compute import Processor, gemm_s
from sim.errors import InfeasibleError
from sim.workload.layout import Layout
from sim.workload.model import Model
from sim.workload.shape import Layer
from sim.workload.stages import Stage

NEWTON_SCHULZ_STEPS = 5
HOST_BYTES_PER_S = 0.8 * 614e9 / 8
"""Rate of host memory for each GPU [bytes/s]: four fifths (assumed) of two sockets of eight DDR5-4800 channels, for eight GPUs."""
_BYTES = {"bf16": 2.0, "fp32": 4.0}
WEIGHT_BYTES = 2.0
"""Size of a weight, BF16 [bytes]."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Kind, formats and places of the optimizer's states; the defaults are DeepSeek-V3's.

    Parameters
    ----------
    kind : str
        "adamw" or "muon".
    moments, gradients : str
        "bf16" or "fp32"; gradients are summed up, kept and reduced in their format.
    master : str
        "fp32".
    shard : str
        "zero1", "zero2" or "zero3".
    offload : str
        "none" or "cpu".
    overlap : bool
        Reductions run next to compute as far as they have room there: those of a step beside the last backward and the first
        forward, those of layers beside the layer before.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    moments: Literal["bf16", "fp32"] = "bf16"
    master: Literal["fp32"] = "fp32"
    gradients: Literal["fp32", "bf16"] = "fp32"
    shard: Literal["zero1", "zero2", "zero3"] = "zero1"
    offload: Literal["none", "cpu"] = "none"
    overlap: bool = False

    @property
    def gradient_bytes(self) -> float:
        """Size of a gradient [bytes]."""
        return _BYTES[self.gradients]

    @property
    def shards_gradients(self) -> bool:
        """Each rank keeps the gradients of its own part alone."""
        return self.shard != "zero1"

    @property
    def shards_weights(self) -> bool:
        """Each rank keeps the weights of its own part alone."""
        return self.shard == "zero3"

    def state_bytes(self, matrices: float, tables: float) -> float:
        """Size of master weights and moments [bytes] of parameters in matrices, and in embedding and head [count]."""
        master, moment = _BYTES[self.master], _BYTES[self.moments]
        moments = 1 if self.kind == "muon" else 2
        return (master + moments * moment) * matrices + (master + 2 * moment) * tables

    def update_bytes(self, matrices: float, tables: float) -> float:
        """Bytes that an update moves: gradients read, states read and written, weights written."""
        once = (self.gradient_bytes + WEIGHT_BYTES) * (matrices + tables)
        return once + 2 * self.state_bytes(matrices, tables)


def newton_schulz_flops(rows: int, columns: int) -> float:
    """Count the FLOPs to orthogonalise one matrix.

    Parameters
    ----------
    rows, columns : int

    Returns
    -------
    float [FLOP]

    Notes
    -----
    For m <= n, in each step A = X X^T (2 m^2 n), B = b A + c A A (2 m^3), X = a X + B X (2 m^2 n).
    """
    m, n = sorted((rows, columns))
    return NEWTON_SCHULZ_STEPS * (4.0 * m * m * n + 2.0 * m**3)


def newton_schulz_s(p: Processor, model: Model, stages: Sequence[Stage], layout: Layout) -> float:
    """Time in which the slowest of the ranks that share the matrices of some stages orthogonalises its part [s].

    Notes
    -----
    A matrix is not cut further than TP and ETP cut it: ranks take whole ones, and none ends before the costliest. In BF16.
    """
    shared = {"dense": layout.dp * layout.cp, "experts": layout.expert_dp}
    total, worst = dict.fromkeys(shared, 0.0), dict.fromkeys(shared, 0.0)
    for stage in stages:
        for layer, number in stage.kinds(model, stage.num_mtp).items():
            for what, rows, columns, count in _matrices(model, layer, layout):
                m, n = sorted((rows, columns))
                each = gemm_s(p, m, m, n, "bf16") + gemm_s(p, m, m, m, "bf16") + gemm_s(p, m, n, m, "bf16")
                total[what] += NEWTON_SCHULZ_STEPS * each * count * number
                worst[what] = max(worst[what], NEWTON_SCHULZ_STEPS * each)
    return sum(max(total[what] / num, worst[what]) for what, num in shared.items())


def _matrices(model: Model, layer: Layer, layout: Layout) -> Iterable[tuple[str, int, int, int]]:
    """List the matrices of a layer on one GPU: who shares them, rows, columns, number."""
    d, up, tp = model.hidden, model.up_matrices, layout.tp
    if layer.attention:
        for _, n, k in projections(layer.attention, d):
            yield "dense", -(-n // tp), k, 1
    widths = [("dense", model.dense_hidden if layer.mlp == "dense" else 0, d, tp, 1)]
    if layer.mlp == "experts":
        held = max(1, model.num_experts // layout.ep)
        widths += [
            ("dense", model.shared_width, d, tp, 1),
            ("experts", model.expert_hidden, model.routed_width, layout.etp, held),
        ]
    for what, width, side, cut, count in widths:
        if width:
            yield what, -(-width // cut), side, (up + 1) * count


def offload_s(hardware: Hardware, optimizer: Optimizer, matrices: float, tables: float) -> float:
    """Time of an update on the host: gradients over PCIe, the update at the rate of its memory, weights back [s].

    With `overlap` the three run in a pipeline of chunks, and the longest counts. InfeasibleError without a PCIe
    link to the host.
    """
    if hardware.gpu.pcie is None:
        raise InfeasibleError(
            f"offload: cpu needs a PCIe link between GPU and host; {hardware.title} has none"
        )
    rate = hardware.gpu.pcie.bandwidth_bytes_per_s
    parts = (
        optimizer.gradient_bytes * (matrices + tables) / rate,
        optimizer.update_bytes(matrices, tables) / HOST_BYTES_PER_S,
        WEIGHT_BYTES * (matrices + tables) / rate,
    )
    return max(parts) if optimizer.overlap else sum(parts)
