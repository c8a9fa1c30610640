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
from typing import Any

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
    """Least times of a microbatch on each stage [s], [num_stages] each, and of one send [s].

    Compute may be of each microbatch of a rank, [num_stages, num_microbatches].
    """

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
        f=f + inside["F"][:, None],
        b=b + inside["B"][:, None],
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
    f_of, b_of = table.forward[:, 2], table.backward[:, 2]
    is_f, is_w = f >= 0, np.isin(table.kind, [CODES[kind] for kind in ("B", "FB", *WEIGHT_PARTS)])
    is_b = (b >= 0) & ~np.isin(table.kind, [CODES[kind] for kind in WEIGHT_PARTS])
    up = _hops(pipeline, f, table.forward[:, 2], is_f & (f < last), +1)
    down = _hops(pipeline, b, table.backward[:, 2], is_b & (b > 0), -1)

    def each_microbatch(stage_s: Floats) -> Floats:
        each = stage_s.reshape(len(stage_s), -1)
        return np.broadcast_to(each, (len(stage_s), pipeline.num_microbatches))

    def picked(
        stage_s: Floats,
        stage: npt.NDArray[np.int32],
        number: npt.NDArray[np.int32],
        there: npt.NDArray[np.bool_],
    ) -> Floats:
        return np.where(there, each_microbatch(stage_s)[stage, number], 0.0)

    # What an operation sends goes out before the next one begins.
    sends = least.send * np.concatenate([[0.0], (up * 1.0 + down)[:-1]])
    sends[table.first[:-1]] = 0.0
    queues = np.stack(
        [
            picked(least.f, f, f_of, is_f) + picked(least.b, b, b_of, is_b) + picked(least.w, b, b_of, is_w),
            picked(least.collectives, f, f_of, is_f) + picked(least.collectives, b, b_of, is_b),
            picked(least.nic, f, f_of, is_f) + picked(least.nic, b, b_of, is_b) + sends,
        ]
    )
    # Chains: forward through the stages before each one, and back through them.
    hop = least.send * (np.diff(pipeline.holders, axis=0) != 0).all(axis=1)
    fill = _before(each_microbatch(least.f) + each_microbatch(least.collectives), hop[:, None])
    drain = _before(each_microbatch(least.b) + each_microbatch(least.collectives), hop[:, None])
    least_s = []
    for rank in range(pipeline.num_ranks):
        i, j = table.first[rank : rank + 2].tolist()
        until = int(np.flatnonzero(is_b[i:j])[-1]) + 1  # its last gradient
        before, rest = queues[:, i : i + until].sum(axis=1), queues[:, i + until : j].sum(axis=1)
        end = i + until - 1
        after = drain[b[end], b_of[end]]
        least_s.append(float(fill[f[i], f_of[i]] + (before + np.maximum(rest, after)).max()))
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
    """Sum over the stages before each one and the hops between, [num_stages, num_microbatches]."""
    return np.concatenate([np.zeros((1, stage_s.shape[1])), np.cumsum(stage_s[:-1] + hop_s, axis=0)])


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
    """FLOPs of one rank over the dense peak of their formats [s], [F B W, num_stages, microbatches or 1].

    With packed documents those of the rank that computes most in all microbatches, or of the mean where all are even.
    """
    model, batch, documents = work.model, work.batch(), work.documents

    @functools.cache
    def layer(dense: bool, layer_idx: int) -> Floats:
        total = np.zeros((len(ops.PHASES), *(documents.shape if documents else (1,))))
        for name, flops_s in _layer_s(work.split_model, batch, gpu, dense, layer_idx).items():
            fraction = 1.0 if dense else min(1.0, measured_fraction.get(name, 1.0))
            total["FBW".index(name[-2])] += fraction * flops_s
        return total

    def plain(launches: Callable[[Model, RankBatch, Phase], list[Launch]]) -> Floats:
        shared = batch.tp * batch.cp
        each = np.array([_flops_s(launches(model, batch, phase), gpu) / shared for phase in ops.PHASES])
        return each.reshape(-1, *([1] * (3 if documents else 1)))

    kinds = firsts(model)
    head, join = plain(ends.head), plain(ends.mtp_projection)
    columns = []
    for stage in stages:
        total: Floats = stage.num_head_passes * head + stage.num_mtp * join
        for number in (*stage.layers, *range(model.num_layers, model.num_layers + stage.num_mtp)):
            dense = number < model.num_layers and model.is_dense(number)
            total = total + layer(dense, kinds[number])
        columns.append(total)
    if documents is None:
        return np.stack(columns, axis=1)
    times = np.stack(np.broadcast_arrays(*columns, np.zeros((1, *documents.shape)))[:-1], axis=1)
    if documents.even:
        return np.asarray(times.mean(axis=(2, 3, 4)))[..., None]
    ranks = times.reshape(*times.shape[:2], -1, times.shape[-1])
    fullest: Floats = ranks[:, :, ranks.sum(axis=(0, 1, 3)).argmax()]
    return fullest


@functools.lru_cache(maxsize=1024)
def _layer_s(model: Model, batch: RankBatch, gpu: Gpu, dense: bool, layer_idx: int) -> Mapping[str, Any]:
    """Phase -> FLOPs of a rank over dense peak, of a layer [s]."""
    phases = ops.layer_phases(model, batch, dense=dense, layer_idx=layer_idx)
    return {name: _flops_s(launches, gpu) for name, launches in phases.items()}


def _flops_s(launches: Iterable[Launch], gpu: Gpu) -> Any:
    peak = dense_peaks(gpu)
    return sum(launch.count * launch.flops / peak[PRODUCTS[launch.dtype].roof] for launch in launches)
