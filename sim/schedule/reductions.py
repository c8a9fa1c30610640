"""Reductions of a training step: ZeRO-1 at its end, tensor and context parallelism inside its layers.

All are rings or their hierarchical form, in bytes over what the links achieve; nothing else uses the links then.

    reduce-scatter or all-gather of S bytes over n ranks: S (n - 1) / n over each rank's link.

Hierarchical over g GPUs a node and m nodes: S (g - 1) / g over scale-up, then (S / g) (m - 1) / m over the NIC.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel

_ADAM_BYTES = 4 + 2 * (4 + 4) + 2
"""HBM bytes per parameter of its shard: gradient read, master weight and both moments read and written, weight written."""


@dataclass(frozen=True, slots=True)
class Links:
    """What reductions achieve: rates of one GPU in one direction [bytes/s], and its place."""

    scale_up_bytes_per_s: float
    nic_bytes_per_s: float
    hbm_bytes_per_s: float
    gpus_per_node: int
    latency_s: float

    @classmethod
    def of(cls, hardware: Hardware, kernel: Kernel) -> Links:
        """From a profile and the kernel generation that moves the bytes (NCCL's)."""
        peak = cls.peak(hardware)
        return cls(
            scale_up_bytes_per_s=peak.scale_up_bytes_per_s * kernel.scale_up_efficiency_fraction["dispatch"],
            nic_bytes_per_s=peak.nic_bytes_per_s * kernel.nic_efficiency_fraction,
            hbm_bytes_per_s=peak.hbm_bytes_per_s * hardware.gpu.hbm.efficiency_fraction,
            gpus_per_node=peak.gpus_per_node,
            latency_s=kernel.latency.over_nic["dispatch"],
        )

    @classmethod
    def peak(cls, hardware: Hardware) -> Links:
        """What the datasheet allows, without latency."""
        up, nic = hardware.gpu.scale_up, hardware.nic
        return cls(
            scale_up_bytes_per_s=up.bandwidth_bytes_per_s,
            nic_bytes_per_s=nic.bandwidth_bytes_per_s * nic.per_gpu if nic else up.bandwidth_bytes_per_s,
            hbm_bytes_per_s=hardware.gpu.hbm.bandwidth_bytes_per_s,
            gpus_per_node=up.domain,
            latency_s=0.0,
        )


def scatter_s(links: Links, total_bytes: float, num_ranks: int, stride: int = 1) -> float:
    """Reduce-scatter (or all-gather) of `total_bytes` over `num_ranks` ranks that stand `stride` apart [s]."""
    if num_ranks <= 1 or total_bytes <= 0:
        return 0.0
    near = min(num_ranks, max(1, links.gpus_per_node // stride))
    far = -(-num_ranks // near)
    scale_up = total_bytes * (near - 1) / near / links.scale_up_bytes_per_s
    nic = total_bytes / near * (far - 1) / far / links.nic_bytes_per_s
    return links.latency_s * ((near > 1) + (far > 1)) + scale_up + nic


def optimizer_s(
    links: Links,
    *,
    dense_parameters: float,
    expert_parameters: float,
    dp: int,
    expert_dp: int,
    ep: int,
    dense_stride: int = 1,
) -> float:
    """ZeRO-1 of one rank [s]: gradients (BF16) scattered, the shard updated, weights (BF16) gathered.

    `dense_parameters` and `expert_parameters` [count] are those the rank holds; experts are reduced over `expert_dp`
    ranks that stand `ep` apart, everything else over `dp`.
    """
    dense, experts = 2.0 * dense_parameters, 2.0 * expert_parameters
    moved = 2 * scatter_s(links, dense, dp, dense_stride) + 2 * scatter_s(links, experts, expert_dp, ep)
    shard = dense_parameters / dp + expert_parameters / expert_dp
    return moved + shard * _ADAM_BYTES / links.hbm_bytes_per_s


def tensor_parallel_s(links: Links, activation_bytes: float, tp: int) -> float:
    """One all-reduce of a block's output over `tp` neighbouring ranks [s]: scatter and gather."""
    return 2 * scatter_s(links, activation_bytes, tp)


def context_parallel_s(links: Links, kv_bytes: float, cp: int, tp: int) -> float:
    """Keys and values of the other parts of a sequence, gathered for one attention block [s]."""
    return scatter_s(links, kv_bytes, cp, tp)
