"""Reductions of a training step: ZeRO at its end and around its layers, tensor and context parallelism inside its layers.

All are rings or their hierarchical form. The times below have the links to themselves and are bounds and estimates; a step puts
the `Phase`s on the network, but for those inside an overlapped pair, which stay a time of its compute.

    reduce-scatter or all-gather of S bytes over n ranks: S (n - 1) / n over each rank's link.

Hierarchical over g GPUs a node and m nodes: S (g - 1) / g over scale-up, then (S / g) (m - 1) / m over the NIC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cluster.topology import Ints
from sim.cost.optimizer import WEIGHT_BYTES, Optimizer
from sim.workload.layout import Layout
from sim.workload.stages import StageParameters


@dataclass(frozen=True, slots=True)
class Links:
    """Rates that reductions achieve, of one GPU and in one direction.

    Parameters
    ----------
    scale_up_bytes_per_s, nic_bytes_per_s, hbm_bytes_per_s : float [bytes/s]
        Rates of the scale-up link, of the GPU's NICs and of HBM.
    gpus_per_node : int [count]
    latency_s : float [s]
        Fixed time of one phase.
    flag_s : float [s]
        Time of a store through scale-up, one way.
    """

    scale_up_bytes_per_s: float
    nic_bytes_per_s: float
    hbm_bytes_per_s: float
    gpus_per_node: int
    latency_s: float
    flag_s: float = 0.0

    @classmethod
    def achieved(cls, hardware: Hardware, kernel: Kernel) -> Links:
        """Rates that a kernel generation (NCCL's) achieves on a hardware profile."""
        peak = cls.peak(hardware)
        return cls(
            scale_up_bytes_per_s=peak.scale_up_bytes_per_s * kernel.scale_up_efficiency_fraction["dispatch"],
            nic_bytes_per_s=peak.nic_bytes_per_s
            * hardware.nic_reach.fraction(kernel.nic_efficiency_fraction, peak.nic_bytes_per_s),
            hbm_bytes_per_s=peak.hbm_bytes_per_s * hardware.gpu.hbm.efficiency_fraction,
            gpus_per_node=peak.gpus_per_node,
            latency_s=kernel.latency_s.over_nic["dispatch"]
            + kernel.beyond_s(
                hardware.gpu.scale_up.latency_s, hardware.fabric.same_leaf_latency_s, uses_nic=True
            ),
            flag_s=hardware.gpu.scale_up.latency_s,
        )

    @classmethod
    def peak(cls, hardware: Hardware) -> Links:
        """Rates of the datasheet, without latency."""
        up = hardware.gpu.scale_up
        of_gpu = hardware.nic_bytes_per_s / hardware.gpus_per_nic  # while all GPUs of a NIC send
        return cls(
            scale_up_bytes_per_s=up.bandwidth_bytes_per_s,
            nic_bytes_per_s=of_gpu or up.bandwidth_bytes_per_s,
            hbm_bytes_per_s=hardware.gpu.hbm.bandwidth_bytes_per_s,
            gpus_per_node=up.domain,
            latency_s=0.0,
        )


def scatter_s(links: Links, total_bytes: float, num_ranks: int, near: int | None = None) -> float:
    """Time of a reduce-scatter, or of an all-gather, as a ring or in its hierarchical form.

    Parameters
    ----------
    links : Links
    total_bytes : float
        Bytes of the whole buffer [bytes].
    num_ranks : int
        Ranks that take part [count].
    near : int, optional
        Those on each node; as many as a node has GPUs where left out [count].

    Returns
    -------
    float
        The time [s].

    Notes
    -----
    Over g ranks a node and m nodes, S (g - 1) / g bytes cross scale-up, then (S / g) (m - 1) / m the NIC.

    Examples
    --------
    >>> links = Links(100e9, 50e9, 1e12, gpus_per_node=8, latency_s=0.0)
    >>> scatter_s(links, 8e9, 8)
    0.07
    """
    if num_ranks <= 1 or total_bytes <= 0:
        return 0.0
    near = min(num_ranks, near or links.gpus_per_node)
    far = -(-num_ranks // near)
    scale_up = total_bytes * (near - 1) / near / links.scale_up_bytes_per_s
    nic = total_bytes / near * (far - 1) / far / links.nic_bytes_per_s
    return links.latency_s * ((near > 1) + (far > 1)) + scale_up + nic


@dataclass(frozen=True, slots=True)
class HeldParameters:
    """Parameters that a GPU holds [count]: those of its experts, and all others, of them those of embedding and head."""

    dense: float
    experts: float
    tables: float = 0.0

    def shard(self, layout: Layout) -> float:
        """Count the parameters whose optimizer states the GPU keeps [count]."""
        return self.dense / (layout.dp * layout.cp) + self.experts / layout.expert_dp

    def once_a_step(self, sharded: bool) -> HeldParameters:
        """Those that are reduced or gathered once a step: all, or embedding and head where layers are in every microbatch."""
        return HeldParameters(self.tables, 0.0, self.tables) if sharded else self

    def parts(self, layout: Layout) -> tuple[float, float]:
        """Count those of its shard in matrices, and in embedding and head [count]."""
        tables = self.tables / (layout.dp * layout.cp)
        return self.shard(layout) - tables, tables


def held(count: StageParameters, layout: Layout) -> HeldParameters:
    """Parameters that a GPU holds of the stages of its pipeline rank.

    Parameters
    ----------
    count : StageParameters
        Parameters of these stages.
    layout : Layout

    Returns
    -------
    HeldParameters
    """
    tables = (count.embedding + count.head) / layout.tp
    return HeldParameters(count.layers / layout.tp + tables, count.experts / (layout.ep * layout.etp), tables)


def optimizer_s(
    links: Links,
    parameters: HeldParameters,
    layout: Layout,
    optimizer: Optimizer = Optimizer(),  # noqa: B008
    *,
    copies: int = 1,
) -> float:
    """Time of ZeRO-1 of one rank: gradients scattered, the shard updated, weights (BF16) gathered.

    Parameters
    ----------
    links : Links
        Links of the rank's own.
    parameters : HeldParameters
    layout : Layout
    optimizer : Optimizer, optional
        DeepSeek-V3's where left out. What `shard` does in every microbatch is not in it.
    copies : int [count]
        Pipeline ranks that hold each stage.

    Returns
    -------
    float
        The time [s].

    Notes
    -----
    Experts are reduced over `expert_dp` ranks, everything else over DP x CP ranks. Two copies of a stage then add up their shards.
    """
    nodes = links.gpus_per_node
    near = {"dense": layout.near(nodes, "dp", "cp"), "experts": layout.near(nodes, "expert_dp")}
    num = {"dense": layout.dp * layout.cp, "experts": layout.expert_dp}
    reduced = parameters.once_a_step(optimizer.shards_gradients)
    gathered = parameters.once_a_step(optimizer.shards_weights)
    moved = 0.0
    for what in num:
        gradients, shard = (
            optimizer.gradient_bytes * getattr(reduced, what),
            getattr(parameters, what) / num[what],
        )
        moved += scatter_s(links, gradients, num[what], near[what])
        moved += scatter_s(links, WEIGHT_BYTES * getattr(gathered, what), num[what], near[what])
        if copies > 1 and shard:
            one_node = layout.near(nodes, "pp") == layout.pp
            rate = links.scale_up_bytes_per_s if one_node else links.nic_bytes_per_s
            moved += links.latency_s + optimizer.gradient_bytes * shard / rate
    return moved + update_s(links, *parameters.parts(layout), optimizer)


def update_s(
    links: Links,
    matrices: float,
    tables: float = 0.0,
    optimizer: Optimizer = Optimizer(),  # noqa: B008
) -> float:
    """Time of an update at the rate of HBM.

    Parameters
    ----------
    links : Links
    matrices, tables : float
        Parameters that the rank updates [count].
    optimizer : Optimizer, optional
        DeepSeek-V3's where left out.

    Returns
    -------
    float
        The time [s].
    """
    return optimizer.update_bytes(matrices, tables) / links.hbm_bytes_per_s


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One phase of a hierarchical reduce-scatter or all-gather: what it reduces, and who follows whom.

    Parameters
    ----------
    what : str
        "dense" or "experts" of the optimizer, "tp", "cp" or "etp" inside layers.
    num, near : int [count]
        Ranks of one reduction, and how many of them share a node.
    inside : bool
        True inside the nodes, False between them.
    following : int, [num_ranks]
        The rank that each rank sends to.
    share : float [fraction]
        Part of the bytes reduced that it is of.
    copies : bool
        True between pipeline ranks that hold the same stage.
    """

    what: str
    num: int
    near: int
    inside: bool
    following: Ints
    share: float = 1.0
    copies: bool = False

    @property
    def name(self) -> str:
        """Its name on a timeline."""
        return f"{self.what}{' copies' if self.copies else ''} {'inside nodes' if self.inside else 'between nodes'}"

    @property
    def fraction(self) -> float:
        """Bytes that each rank sends, over all steps of the ring, per byte reduced."""
        far = -(-self.num // self.near)
        return self.share * ((self.near - 1) / self.near if self.inside else (far - 1) / far / self.near)


def phases(layout: Layout, gpus_per_node: int) -> list[Phase]:
    """List the phases of one reduce-scatter of all gradients, in order; an all-gather of all weights has the same.

    Parameters
    ----------
    layout : Layout
    gpus_per_node : int
        GPUs of one scale-up domain [count].

    Returns
    -------
    list of Phase
    """
    return _phases(layout, gpus_per_node, {"dense": ("dp", "cp"), "experts": ("expert_dp",)})


def copy_phases(layout: Layout, gpus_per_node: int) -> list[Phase]:
    """List the phases in which the two pipeline ranks that hold the same stages (DualPipe) add up their shards of gradients.

    Each GPU sends half of its shard, and half of the sums.
    """
    stages, following = layout.stages(), np.empty(layout.num_ranks, dtype=np.int64)
    following[stages] = stages[::-1]
    near = 2 if layout.near(gpus_per_node, "pp") == layout.pp else 1
    shared = {"dense": layout.dp * layout.cp, "experts": layout.expert_dp}
    return [
        Phase(what, 2, near, near == 2, following, share=2.0 / num, copies=True)
        for what, num in shared.items()
    ]


def layer_phases(layout: Layout, gpus_per_node: int) -> list[Phase]:
    """List the phases of TP's reduction of a block's output, of CP's gathering of keys and values, and of ETP's of experts' tokens.

    Parameters
    ----------
    layout : Layout
    gpus_per_node : int
        GPUs of one scale-up domain [count].

    Returns
    -------
    list of Phase
        Empty where none splits anything.
    """
    asked = ("tp", "cp", "etp") if layout.gathers_experts else ("tp", "cp")
    return _phases(layout, gpus_per_node, {name: (name,) for name in asked})


def _phases(layout: Layout, gpus_per_node: int, asked: Mapping[str, tuple[str, ...]]) -> list[Phase]:
    in_order = []
    for what, dimensions in asked.items():
        groups, near = layout.groups(*dimensions), layout.near(gpus_per_node, *dimensions)
        num = groups.shape[1]
        for inside in (True, False):
            if near > 1 if inside else -(-num // near) > 1:
                following = np.empty(layout.num_ranks, dtype=np.int64)
                following[groups] = groups[:, _next(num, near, inside)]
                in_order.append(Phase(what, num, near, inside, following))
    return in_order


def _next(num: int, near: int, inside: bool) -> Ints:
    """Place in its group of the member that each one sends to, [num]."""
    place = np.arange(num)
    node, index = place // near, place % near
    if inside:
        return np.asarray(node * near + (index + 1) % np.minimum(near, num - node * near))
    beyond = (node + 1) % -(-num // near) * near + index
    return np.where(beyond < num, beyond, index)


def tensor_parallel_s(links: Links, activation_bytes: float, tp: int, near: int | None = None) -> float:
    """Time of one all-reduce of a block's output: scatter and gather.

    Parameters
    ----------
    links : Links
    activation_bytes : float
        Output of the block [bytes].
    tp, near : int
        Ranks that share it, and those of them on each node, as in `scatter_s` [count].

    Returns
    -------
    float
        The time [s].
    """
    return 2 * scatter_s(links, activation_bytes, tp, near)
