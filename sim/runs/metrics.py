"""Metrics of collectives and flows: from records of what happened to the numbers of a result.

Instants first. A collective *starts* when its kernel starts on all ranks; a rank *ends* when its own sends are out and
its own receives are in. `time_s` is the mean over ranks of end - start (what DeepEP's benchmark prints),
`completion_time_s` the last rank's. Bytes are the mean rank's sends; `logical_*` counts as DeepEP's benchmark does,
local copies included (DeepEP tests/legacy), `wire_*` is what crosses a cable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.cluster.topology import CLASSES, Cluster
from sim.engine.records import Trace, TransferRecord
from sim.schedule import bounds
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows
from sim.schedule.record_sizes import headed_bytes
from sim.workload.traffic import payload_bytes


def collective_metrics(
    trace: Trace, collectives: Sequence[Collective], dtype: str | None, hidden: int
) -> dict[str, Any]:
    """Measure one dispatch or combine of all EP groups, whose trace has nothing else.

    `dtype` is None for a plain all-to-all.
    """
    metrics = timed(trace, collectives[0].cluster)
    return metrics | logical(collectives, metrics["time_s"], dtype, hidden)


def timed(trace: Trace, cluster: Cluster) -> dict[str, Any]:
    """Times of the ranks of a collective of all groups, their bound, what binds, and the bytes on cables."""
    times = np.concatenate([record.rank_ends_s - record.start_s for record in trace.transfers])
    flows = [record.flows for record in trace.transfers]
    binding, resource = binding_of(trace, cluster)
    return {
        "time_s": float(times.mean()),
        "completion_time_s": float(times.max()),
        "lower_bound_s": bounds.lower_bound_s(flows, cluster),
        "binding": binding,
        "binding_resource": resource,
        **_wire(flows, cluster, len(times)),
    }


def closed_form_metrics(collectives: Sequence[Collective], dtype: str | None, hidden: int) -> dict[str, Any]:
    """The same from arithmetic alone: the slowest group's closed form. Parameters as of `collective_metrics`."""
    time_s, binding = max(bounds.closed_form_s(collective) for collective in collectives)
    flows = [collective.flows() for collective in collectives]
    num_ranks = sum(len(collective.gpus) for collective in collectives)
    metrics = estimated(time_s, binding, flows, collectives[0].cluster, num_ranks)
    return metrics | logical(collectives, time_s, dtype, hidden)


def estimated(
    time_s: float, binding: str, flows: Sequence[Flows], cluster: Cluster, num_ranks: int
) -> dict[str, Any]:
    """The metrics of `timed` where the time comes from arithmetic; `num_ranks` are those of all groups."""
    return {
        "time_s": time_s,
        "completion_time_s": time_s,
        "lower_bound_s": bounds.lower_bound_s(list(flows), cluster),
        "binding": binding,
        "binding_resource": None,
        **_wire(flows, cluster, num_ranks),
    }


def _wire(groups: Sequence[Flows], cluster: Cluster, num_ranks: int) -> dict[str, float]:
    """Bytes that a mean rank puts on each kind of cable [bytes]."""
    crossed = np.zeros(len(cluster.names))
    for flows in groups:
        crossed += flows.bytes_by_resource(len(crossed))
    cables = {"wire_nic_bytes": cluster.nic_tx, "wire_nvlink_bytes": cluster.egress}
    return {key: float(crossed[np.unique(rows[rows >= 0])].sum() / num_ranks) for key, rows in cables.items()}


def logical(
    collectives: Sequence[Collective], time_s: float, dtype: str | None, hidden: int
) -> dict[str, float]:
    """Bandwidths as benchmarks print them [bytes/s].

    DeepEP normal: RDMA counts every distinct node of a token, the own one included, NVLink every distinct rank;
    payload without headers. DeepEP low latency: every (token, expert) selection as a whole record. Plain, where
    `dtype` is None: algbw and busbw as nccl-tests define them, the own part included.

    References
    ----------
    deepseek-ai/DeepEP, tests/legacy; NVIDIA/nccl-tests, doc/PERFORMANCE.md.
    """
    first = collectives[0]
    if dtype is None:
        algbw = first.record_bytes * len(first.gpus) / time_s
        return {
            "algbw_bytes_per_s": algbw,
            "busbw_bytes_per_s": algbw * (len(first.gpus) - 1) / len(first.gpus),
        }
    routings = [collective.routing for collective in collectives]
    nodes = float(np.mean([r.nodes_per_token for r in routings]))
    ranks = float(np.mean([r.ranks_per_token for r in routings]))
    tokens, top_k = routings[0].tokens_per_rank, routings[0].top_k
    payload = tokens * payload_bytes(dtype, hidden)
    selections = tokens * top_k * headed_bytes(first.direction, payload_bytes(dtype, hidden), top_k)
    return {
        "logical_rdma_bytes_per_s": payload * nodes / time_s,
        "logical_nvlink_bytes_per_s": payload * ranks / time_s,
        "logical_selection_bytes_per_s": selections / time_s,
        "ranks_per_token": ranks,
        "nodes_per_token": nodes,
    }


def flow_metrics(trace: Trace, cluster: Cluster) -> dict[str, Any]:
    """Measure a list of bare flows from the first release to the last finish.

    The trace has one transfer, which holds them all.
    """
    record = trace.transfers[0]
    begin = float(record.flows.release_s[record.flows.after < 0].min())
    binding, resource = binding_of(trace, cluster)
    return {
        "completion_time_s": float(record.finish_s.max()) - begin,
        "lower_bound_s": bounds.lower_bound_s([record.flows], cluster),
        "binding": binding,
        "binding_resource": resource,
    }


def binding_of(trace: Trace, cluster: Cluster) -> tuple[str, str | None]:
    """Find what bound a collective: class and name of the resource full longest on the path of the flow that ended last.

    `latency` and None where none was full for longer than latencies took.
    """
    last = max(trace.transfers, key=lambda record: float(record.rank_ends_s.max()))
    if last.flows.num_flows == 0:
        return "latency", None
    row, saturated_s = _longest(last, trace)
    if row < 0 or saturated_s <= last.fixed_s + float(last.flows.latency_s.max()):
        return "latency", None
    return CLASSES[int(cluster.class_idx[row])], cluster.names[row]


def _longest(last: TransferRecord, trace: Trace) -> tuple[int, float]:
    finish = last.finish_s
    latest = np.flatnonzero(finish >= finish.max() * (1 - 1e-12))
    rows = np.concatenate(
        [last.flows.resource[last.flows.start[f] : last.flows.start[f + 1]] for f in latest]
    )
    if len(rows) == 0:
        return -1, 0.0
    row = int(rows[np.argmax(trace.saturated_s[rows])])
    return row, float(trace.saturated_s[row])


def links(trace: Trace, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Per resource that carried anything: bytes on the wire, line time, utilisation, and how long it was full [s].

    `busy_s` is the time that its bytes take at the rate that kernels reach of it (the data sheet's times their
    efficiency), `utilisation_fraction` that over the time of the run; bounds, which are at the data sheet's
    rate, are shorter.
    """
    num = len(cluster.names)
    carried, used = np.zeros(num), np.zeros(num)
    for record in trace.transfers:
        carried += record.flows.bytes_by_resource(num)
        used += record.flows.line_by_resource(num)
    begin = min((record.start_s for record in trace.transfers), default=0.0)
    elapsed = trace.end_s - begin
    busy = np.divide(used, cluster.capacity, out=np.zeros(num), where=cluster.capacity > 0)
    return {
        cluster.names[row]: {
            "class": CLASSES[int(cluster.class_idx[row])],
            "bytes": float(carried[row]),
            "busy_s": float(busy[row]),
            "utilisation_fraction": float(busy[row] / elapsed) if elapsed > 0 else 0.0,
            "saturated_s": float(trace.saturated_s[row]),
        }
        for row in np.flatnonzero(used > 0)
    }


def utilisation(trace: Trace, cluster: Cluster, num_bins: int = 120) -> dict[str, Any]:
    """Utilisation, as in `links`, over equal spans of time and by class of resources; empty where nothing moved.

    `time_s` is the middle of each span [num_bins]; each class has its `mean` and `busiest` resource [num_bins].
    """
    begin = min((record.start_s for record in trace.transfers), default=0.0)
    if not trace.stretches or trace.end_s <= begin:
        return {}
    edges = np.linspace(begin, trace.end_s, num_bins + 1)
    width = edges[1] - edges[0]
    area = np.zeros((num_bins, len(cluster.names)))
    for stretch in trace.stretches:
        low = np.clip((stretch.start_s[:, None] - edges[None, :-1]) / width, 0.0, 1.0)
        high = np.clip((stretch.end_s[:, None] - edges[None, :-1]) / width, 0.0, 1.0)
        area[:, stretch.rows] += (high - low).T @ stretch.used.astype(float)
    share = np.divide(area, cluster.capacity, out=np.zeros_like(area), where=cluster.capacity > 0)
    ever = area.max(axis=0) > 0
    series: dict[str, Any] = {"time_s": (edges[:-1] + width / 2).tolist()}
    for i, name in enumerate(CLASSES):
        used = share[:, ever & (cluster.class_idx == i)]
        if used.size:
            series[name] = {"mean": used.mean(axis=1).tolist(), "busiest": used.max(axis=1).tolist()}
    return series
