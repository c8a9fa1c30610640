"""The least time of a training step: what its fullest pipeline rank must do, at datasheet rates.

A rank has three things that do one thing at a time, and the busiest of them bounds the step:

- its compute stream: FLOPs over dense peak, forward and backward, what is computed again not counted; and its reductions
  under TP and CP, which wait in the layers;
- its communication stream: every all-to-all at the bound of its own busiest link;
- its NIC: bytes of all all-to-alls (of the mean rank) and of what it sends along the pipeline.

It cannot begin before a microbatch has come through the stages in front of its first one, and once it has sent its last
gradient, that has to go through the stages below: both as chains of compute, collectives and sends. The optimizer comes
after all of it. No latency, no efficiency, and nothing that depends on how a schedule places its bubbles. Routed loads
count at their mean, speeds and launches without jitter: skew adds waits to that, but for draws that happen to be light.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.cluster.hardware import Gpu
from sim.cluster.topology import Floats
from sim.cost import ends
from sim.cost import layers as ops
from sim.cost.launches import Launch, Phase, RankBatch
from sim.cost.work import dense_peaks
from sim.schedule import bounds
from sim.schedule.collectives import Collective
from sim.schedule.operations import CODES, WEIGHT_PARTS, Pipeline
from sim.schedule.stage_times import ChunkWork
from sim.workload.formats import PRODUCTS
from sim.workload.model import Model
from sim.workload.shape import firsts
from sim.workload.stages import Stage


@dataclass(frozen=True, slots=True)
class Least:
    """Least times of one microbatch on each stage [s], [num_stages] each, and of one send [s]."""

    f: Floats  # compute of a forward
    b: Floats  # of a backward without its weight part
    w: Floats  # of the weight part
    collectives: Floats  # a forward's all-to-alls, and a backward's
    nic: Floats  # what these take of the NIC
    send: float


def least(
    work: ChunkWork,
    stages: Sequence[Stage],
    gpu: Gpu,
    collectives: Mapping[str, Collective],
    *,
    slowdown: Mapping[str, float],
    inside_s: Mapping[str, float],
    send_s: float,
    measured_fraction: Mapping[str, float],
) -> Least:
    """Least times of every stage.

    Parameters
    ----------
    work : ChunkWork
    stages : sequence of Stage
    gpu : Gpu
    collectives : mapping
        Dispatch and combine of one EP group; not looked at where a group is one rank.
    slowdown : mapping
        Time of a collective next to compute over its time alone; where it is below 1, so is the bound.
    inside_s : mapping [s]
        Phase ("attn(F)", "mlp(F)" of a dense layer, "experts(F)") -> its reductions under TP, CP and ETP at datasheet rates.
    send_s : float [s]
        One activation to the next stage over the datasheet rate of the link.
    measured_fraction : mapping
        Phase -> measured over modelled time, where times are measured; what was measured below the peak of this GPU stays.

    Returns
    -------
    Least
    """
    f, b, w = _compute_s(work, stages, gpu, measured_fraction)
    num_layers = np.array([len(stage.layers) + stage.num_mtp for stage in stages])
    num_experts = np.array([stage.num_expert_layers for stage in stages])
    inside = {
        half: num_layers * inside_s.get(f"attn({half})", 0.0)
        + (num_layers - num_experts) * inside_s.get(f"mlp({half})", 0.0)
        + num_experts * inside_s.get(f"experts({half})", 0.0)
        for half in "FB"
    }
    both = nic = 0.0
    if work.layout.ep > 1:
        alone = [_collective_s(collective) for collective in collectives.values()]
        less = [min(1.0, slowdown[name]) for name in collectives]
        both = sum(link * fraction for (link, _), fraction in zip(alone, less, strict=True))
        nic = sum(port for _, port in alone)
    return Least(
        f=f + inside["F"],
        b=b + inside["B"],
        w=w,
        collectives=num_experts * both,
        nic=num_experts * nic,
        send=send_s,
    )


def rank_bounds_s(pipeline: Pipeline, least: Least) -> Floats:
    """Least time from the start of the step until a rank, and all that must follow what it did, has ended.

    Parameters
    ----------
    pipeline : Pipeline
    least : Least

    Returns
    -------
    float, [num_ranks]
        The times [s].
    """
    table, last = pipeline.table, pipeline.num_stages - 1
    f, b = table.forward[:, 1], table.backward[:, 1]
    is_f, is_w = f >= 0, np.isin(table.kind, [CODES[kind] for kind in ("B", "FB", *WEIGHT_PARTS)])
    is_b = (b >= 0) & ~np.isin(table.kind, [CODES[kind] for kind in WEIGHT_PARTS])
    up = _hops(pipeline, f, table.forward[:, 2], is_f & (f < last), +1)
    down = _hops(pipeline, b, table.backward[:, 2], is_b & (b > 0), -1)

    def picked(stage_s: Floats, stage: npt.NDArray[np.int32], there: npt.NDArray[np.bool_]) -> Floats:
        return np.where(there, stage_s[stage], 0.0)

    # What an operation sends goes out before the next one begins.
    sends = least.send * np.concatenate([[0.0], (up * 1.0 + down)[:-1]])
    sends[table.first[:-1]] = 0.0
    queues = np.stack(
        [
            picked(least.f, f, is_f) + picked(least.b, b, is_b) + picked(least.w, b, is_w),
            picked(least.collectives, f, is_f) + picked(least.collectives, b, is_b),
            picked(least.nic, f, is_f) + picked(least.nic, b, is_b) + sends,
        ]
    )
    # Chains: forward through the stages before each one, and back through them.
    hop = least.send * (np.diff(pipeline.holders, axis=0) != 0).all(axis=1)
    fill = _before(least.f + least.collectives, hop)
    drain = _before(least.b + least.collectives, hop)
    least_s = []
    for rank in range(pipeline.num_ranks):
        i, j = table.first[rank : rank + 2].tolist()
        until = int(np.flatnonzero(is_b[i:j])[-1]) + 1  # its last gradient
        before, rest = queues[:, i : i + until].sum(axis=1), queues[:, i + until : j].sum(axis=1)
        after = drain[b[i + until - 1]]
        least_s.append(float(fill[f[i]] + (before + np.maximum(rest, after)).max()))
    return np.array(least_s)


def _hops(
    pipeline: Pipeline,
    stage: npt.NDArray[np.int32],
    microbatch: npt.NDArray[np.int32],
    there: npt.NDArray[np.bool_],
    way: int,
) -> npt.NDArray[np.bool_]:
    """True where an operation's neighbour stage stands on another rank, [num_operations]."""
    late = (microbatch >= pipeline.num_microbatches // 2).astype(int)
    own = pipeline.holders[np.where(there, stage, 0), late]
    other = pipeline.holders[np.where(there, stage + way, 0), late]
    moves: npt.NDArray[np.bool_] = there & (own != other)
    return moves


def _before(stage_s: Floats, hop_s: Floats) -> Floats:
    """Sum over the stages before each one and the hops between, [num_stages]."""
    return np.concatenate([[0.0], np.cumsum(stage_s[:-1] + hop_s)])


# --- stages -------------------------------------------------------------------------------------------------


def _collective_s(collective: Collective) -> tuple[float, float]:
    """Bound of an all-to-all, and what the NIC of its mean rank is busy with it [s]."""
    cluster, flows = collective.cluster, collective.flows()
    nic = cluster.nic_tx[collective.gpus] if collective.uses_nic else np.zeros(0, dtype=int)
    busy = flows.bytes_by_resource(len(cluster.names))[nic] / cluster.capacity[nic]
    return bounds.lower_bound_s([flows], cluster), float(busy.mean()) if len(busy) else 0.0


def _compute_s(
    work: ChunkWork, stages: Sequence[Stage], gpu: Gpu, measured_fraction: Mapping[str, float]
) -> Floats:
    """FLOPs of one rank for one microbatch over the dense peak of their formats [s], [F B W, num_stages]."""
    model, batch = work.model, work.batch()

    @functools.cache
    def layer(dense: bool, layer_idx: int) -> Floats:
        total = np.zeros(len(ops.PHASES))
        for name, flops_s in _layer_s(work.split_model, batch, gpu, dense, layer_idx).items():
            fraction = 1.0 if dense else min(1.0, measured_fraction.get(name, 1.0))
            total["FBW".index(name[-2])] += fraction * flops_s
        return total

    def plain(launches: Callable[[Model, RankBatch, Phase], list[Launch]]) -> Floats:
        shared = batch.tp * batch.cp
        return np.array([_flops_s(launches(model, batch, phase), gpu) / shared for phase in ops.PHASES])

    kinds = firsts(model)
    head, join = plain(ends.head), plain(ends.mtp_projection)
    columns = []
    for stage in stages:
        total = stage.num_head_passes * head + stage.num_mtp * join
        for number in (*stage.layers, *range(model.num_layers, model.num_layers + stage.num_mtp)):
            dense = number < model.num_layers and model.is_dense(number)
            total = total + layer(dense, kinds[number])
        columns.append(total)
    return np.array(columns).T


@functools.lru_cache(maxsize=1024)
def _layer_s(model: Model, batch: RankBatch, gpu: Gpu, dense: bool, layer_idx: int) -> Mapping[str, float]:
    """Phase -> FLOPs of a rank over dense peak, of a layer [s]."""
    phases = ops.layer_phases(model, batch, dense=dense, layer_idx=layer_idx)
    return {name: _flops_s(launches, gpu) for name, launches in phases.items()}


def _flops_s(launches: Iterable[Launch], gpu: Gpu) -> float:
    peak = dense_peaks(gpu)
    return sum(launch.count * launch.flops / peak[PRODUCTS[launch.dtype].roof] for launch in launches)
