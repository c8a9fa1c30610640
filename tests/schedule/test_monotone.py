"""A lone collective never ends earlier as a rate falls or a latency rises: any kernel, gate, skew, fabric and faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.faults import Fault
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Fabric, build
from sim.engine.executor import run_together
from sim.errors import InfeasibleError
from sim.schedule.collectives import Collective
from sim.workload.gating import Gate
from sim.workload.placement import contiguous
from sim.workload.traffic import Routing, route

H800 = load_hardware("h800")
NODES = 3
KERNELS: list[tuple[str, dict[str, Any]]] = [
    ("two_hop", {}), ("low_latency", {}), ("low_latency", {"nvlink": False}), ("flat", {"copies": "per_rank"}),
    ("flat", {"copies": "per_expert"}), ("nccl", {"pxn": False}), ("nccl", {"pxn": True}),
]  # fmt: skip
FREE = [Fabric(), Fabric(kind="multi_plane"), Fabric(kind="rail_only"), Fabric(nodes_per_leaf=1), Fabric(kind="three_tier", nodes_per_leaf=1)]  # fmt: skip
"""Fabrics whose uplinks do not bind."""
FABRICS = [
    *FREE, Fabric(nodes_per_leaf=2, oversubscription=8.0), Fabric(kind="three_tier", nodes_per_leaf=1, oversubscription=4.0),
    Fabric(kind="multi_plane", nodes_per_leaf=1, oversubscription=4.0),
]  # fmt: skip
GATES = [
    Gate("uniform"), Gate("zipf", exponent=0.7), Gate("zipf", exponent=1.5), Gate("dirichlet", alpha=0.1),
]  # fmt: skip

nodes, gpus = st.integers(0, NODES - 1), st.integers(0, 7)
rates = st.sampled_from([1.0, 0.9, 0.6, 0.5, 0.3, 0.1, 0.0])
faults = st.one_of(
    st.builds(lambda n, i, x: Fault("bandwidth", x, node=n, nic=i), nodes, gpus, rates),
    st.builds(lambda i, x: Fault("bandwidth", x, rail=i), gpus, rates),
    st.builds(lambda n, i, x: Fault("scale_up", max(x, 0.05), node=n, gpu=i), nodes, gpus, rates),
    st.builds(lambda n, i, x: Fault("hbm", max(x, 0.05), node=n, gpu=i), nodes, gpus, rates),
    st.builds(lambda n, i, x, way: Fault("bandwidth", x, link=f"node{n}/nic{i}/{way}"), nodes, gpus, rates, st.sampled_from(["tx", "rx"])),
)  # fmt: skip
collectives = st.tuples(
    st.sampled_from(KERNELS), st.sampled_from(["dispatch", "combine"]), st.sampled_from(FABRICS), st.sampled_from(GATES), st.integers(0, 3)
)  # fmt: skip
Case = tuple[tuple[str, dict[str, Any]], str, Fabric, Gate, int]


@lru_cache(maxsize=32)
def routing(gate: Gate, seed: int) -> Routing:
    rng = np.random.default_rng(seed)
    more = {"probabilities": rng.dirichlet(np.full(120, gate.alpha))} if gate.kind == "dirichlet" else {}
    return route(gate, contiguous(120, 8 * NODES), top_k=4, tokens_per_rank=32, ranks_per_node=8, rng=rng, sampling="tokens", **more)  # fmt: skip


def time_s(case: Case, broken: Sequence[Fault] = (), hardware: Any = H800) -> float:
    """Infinite where nothing can run."""
    (kernel, options), direction, fabric, gate, seed = case
    known = load_kernel(kernel)
    try:
        cluster = build(hardware, NODES, fabric, broken)
        x = Collective(cluster, known, direction, np.arange(8 * NODES), routing(gate, seed), 1e5, comm_sms=known.comm_sms, **options)  # fmt: skip
        return float(run_together(cluster, "x", [x]).transfers[0].rank_ends_s.max())
    except InfeasibleError:
        return np.inf


def check_rates(case: Case, broken: list[Fault], worse: float) -> None:
    """No faster than healthy; and where uplinks do not bind, the first fault worse than it is is no faster either."""
    first, *others = broken
    low = replace(
        first, fraction=min(worse if first.quantity == "bandwidth" else max(0.05, worse), first.fraction)
    )
    slower, slow, healthy = (
        time_s(case, given) for given in ([low, *others], broken, others if case[2] in FREE else [])
    )
    assert slow >= healthy * (1 - 1e-9)
    assert slower >= (slow if case[2] in FREE else healthy) * (1 - 1e-9)


def check_latencies(case: Case, broken: list[Fault], which: str, times: float) -> None:
    raised = {which: H800.parameter(which).value * times}
    if which == "fabric.same_leaf_latency":  # one across leaves is no shorter
        raised["fabric.cross_leaf_latency"] = max(raised[which], H800.fabric.cross_leaf_latency_s)
    later = load_hardware("h800", {key: f"{value * 1e6} us" for key, value in raised.items()})
    assert time_s(case, broken, later) >= time_s(case, broken) * (1 - 1e-12)


latencies = st.sampled_from(["fabric.same_leaf_latency", "fabric.cross_leaf_latency", "gpu.scale_up.latency"])


@settings(max_examples=15, deadline=None)
@given(collectives, st.lists(faults, min_size=1, max_size=2), rates)
def test_no_fault_makes_a_collective_faster(case: Case, broken: list[Fault], worse: float) -> None:
    check_rates(case, broken, worse)


@settings(max_examples=6, deadline=None)
@given(collectives, st.lists(faults, max_size=1), latencies, st.sampled_from([1.1, 1.3, 10.0]))
def test_no_latency_makes_a_collective_faster(
    case: Case, broken: list[Fault], which: str, times: float
) -> None:
    check_latencies(case, broken, which, times)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(collectives, st.lists(faults, min_size=1, max_size=4), rates)
def test_no_fault_among_many_makes_a_collective_faster(case: Case, broken: list[Fault], worse: float) -> None:
    check_rates(case, broken, worse)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(collectives, st.lists(faults, max_size=3), latencies, st.sampled_from([1.1, 1.3, 10.0, 1000.0]))
def test_no_latency_among_faults_makes_a_collective_faster(
    case: Case, broken: list[Fault], which: str, times: float
) -> None:
    check_latencies(case, broken, which, times)
