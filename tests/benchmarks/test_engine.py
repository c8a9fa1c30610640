"""How long the engine takes, once warm. Run with `pytest -o addopts= tests/benchmarks`; aims stand beside each case.

`build` makes the flows of a kernel, `drain` runs them through a fresh network from `transfer` to the last byte.
"""

from __future__ import annotations

import resource
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import simpy

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster, Fabric, build
from sim.engine.network import Network
from sim.schedule.collectives import Exchange
from sim.schedule.flows import Flows
from sim.workload.gating import Gate, popularity
from sim.workload.placement import contiguous
from sim.workload.traffic import route

CASES = {
    "two_hop-64-zipf": 2e-3,  # 512 flows
    "two_hop-64-uniform": 2e-3,
    "flat-256-uniform": 0.1,  # 65,280 flows
    "flat-256-zipf": 0.5,
    "flat-1024-uniform": 2.0,  # 1,047,552 flows, 1 GB
}


@lru_cache(maxsize=1)
def exchange(case: str) -> Exchange:
    """DeepSeek-V3's layer (256 experts, or one a rank) on H800, 4,096 tokens a rank."""
    name, ranks, kind = case.split("-")
    num_ranks = int(ranks)
    num_experts = max(256, num_ranks)
    gate = Gate("uniform") if kind == "uniform" else Gate("zipf", exponent=0.5)
    rng = np.random.default_rng(0)
    routing = route(
        gate, contiguous(num_experts, num_ranks), top_k=8, tokens_per_rank=4096, ranks_per_node=8, rng=rng,
        sampling="expected" if kind == "uniform" else "tokens", probabilities=popularity(gate, num_experts, rng),
    )  # fmt: skip
    kernel = load_kernel(name)
    cluster = build(load_hardware("h800"), num_ranks // 8, Fabric())
    return Exchange(
        cluster, kernel, "dispatch", np.arange(num_ranks), routing, 7472.0, comm_sms=kernel.comm_sms
    )


@lru_cache(maxsize=1)
def flows_of(case: str) -> Flows:
    return exchange(case).flows()


def drain(cluster: Cluster, flows: Flows) -> np.ndarray:
    env = simpy.Environment()
    finish = env.run(until=Network(env, cluster).transfer(flows))
    assert isinstance(finish, np.ndarray)
    return finish


def repeat(case: str) -> dict[str, int]:
    return {"two_hop": {"rounds": 200, "warmup_rounds": 5}}.get(
        case.split("-")[0], {"rounds": 5, "warmup_rounds": 1}
    )


@pytest.mark.parametrize("case", CASES)
def test_build(benchmark: Any, case: str) -> None:
    benchmark.pedantic(exchange(case).flows, **repeat(case))


@pytest.mark.parametrize("case", CASES)
def test_drain(benchmark: Any, case: str) -> None:
    flows, cluster = flows_of(case), exchange(case).cluster
    finish = benchmark.pedantic(drain, (cluster, flows), **repeat(case))
    assert np.isfinite(finish).all()
    benchmark.extra_info |= {
        "aim_s": CASES[case],
        "num_flows": flows.num_flows,
        "num_entries": len(flows.resource),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
