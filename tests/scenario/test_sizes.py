"""Sizes: what is a product of numbers is counted while a scenario is resolved, and refused with count, limit and keys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from command import Moesim
from sim import documents, limits
from sim.errors import EXIT_INFEASIBLE, InfeasibleError
from sim.limits import Limit
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings

PLAIN: dict[str, Any] = {
    "name": "x",
    "cluster": {"hardware": "h800", "nodes": 1},
    "model": "deepseek-v3",
    "layout": {"ep": 8},
    "workload": {
        "kind": "all_to_all",
        "tokens_per_rank": 64,
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "two_hop"},
    },
}
LEAVES: dict[str, Any] = {
    "name": "x",
    "cluster": {
        "fabric": {
            "kind": "leaf_spine",
            "hosts": 131072,
            "hosts_per_leaf": 1,
            "spines": 131072,
            "link": "400 Gb/s",
            "routing": "ecmp",
        }
    },
    "workload": {"kind": "flows", "file": "flows.csv"},
}
TRAINING = "v3-training-h800"


def told(base: Any, *settings: str) -> str:
    """What is said of a scenario with settings, in no time."""
    begun = time.process_time()
    with pytest.raises(InfeasibleError) as caught:
        scenarios.resolve(scenario_settings.read(base, settings))
    assert time.process_time() - begun < 2
    return str(caught.value)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("tree", "count", "keys"),
    [
        (LEAVES, 131072 * 131072, "x cluster.fabric.spines 131,072"),
        (
            {**PLAIN, "cluster": {**PLAIN["cluster"], "override": {"gpu.scale_up.domain": 1_000_000_000}}},
            1_000_000_000,
            "cluster.nodes 1 x gpu.scale_up.domain 1,000,000,000",
        ),
    ],
    ids=["leafspine", "domain1e9"],
)
def test_what_could_never_be_built_is_refused_before_work(
    moesim: Moesim, command: str, tree: dict[str, Any], count: int, keys: str
) -> None:
    Path("flows.csv").write_text("flow_id,src,dst,bytes,start_us\n1,0,8,1000000,0\n2,8,0,1000000,0\n")
    Path("x.yaml").write_text(json.dumps(tree))
    said = moesim(command, "x.yaml")
    assert said.code == EXIT_INFEASIBLE
    assert keys in said.err
    assert f"= {count:,} " in said.err
    assert "the limit is " in said.err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("base", "settings", "limit", "count", "keys"),
    [
        (PLAIN, ["cluster.nodes=100000", "cluster.override={gpu.scale_up.domain: 16}"], limits.BUILT_GPUS, 1_600_000,
         "cluster.nodes 100,000 x gpu.scale_up.domain 16"),
        (PLAIN, ["cluster.nodes=1024", "cluster.fabric={oversubscription: 0.001, nodes_per_leaf: 1000}"], limits.CABLES,
         16_000_000, "uplinks 1,000,000 of each (cluster.fabric.nodes_per_leaf / oversubscription)"),
        (PLAIN, ["cluster.nodes=4096", "cluster.fabric={kind: three_tier, nodes_per_leaf: 1, oversubscription: 0.005}"],
         limits.CABLES, 4096 * 9 * 200, "leaves 32,768"),
        (PLAIN, ["cluster.nodes=1024", "layout.ep=8192", "workload.placement={kind: eplb, redundant_experts: 7936}"],
         limits.PAIRS, 8192**2, "EP groups 1 x layout.ep 8,192 squared"),
        (PLAIN, ["workload.tokens_per_rank=10000000", "workload.gate.sampling=tokens"], limits.DRAWN, 80_000_000,
         "layout.ep 8 x tokens_per_rank 10,000,000"),
        (PLAIN, ["cluster.nodes=1000", "workload.tokens_per_rank=1000000", "workload.gate.sampling=tokens"], limits.SCORES,
         8 * 10**6 * 1000 * 256, "x draws 1,000 x experts 256"),
        (TRAINING, ["workload.microbatches=131072", "layout={pp: 61, ep: 64}", "cluster.nodes=488", "workload.schedule=1f1b"],
         limits.OPERATIONS, 3 * 61 * 131072, "layout.pp 61 x workload.microbatches 131,072"),
        (TRAINING, ["workload.microbatches=8192", "cluster.nodes=12288", "workload.skew.groups=all"], limits.CELLS, 96 * 62 * 8192 * 64,
         "EP groups 96 (ranks / pp / ep) x layers 62 x workload.microbatches 8,192 x layout.ep 64"),
        ("v3-prefill-ep32", ["workload.prompt_tokens=1048576", "workload.chunk_tokens=8"], limits.PASSES, 131072,
         "prompt_tokens 1,048,576 to compute / chunk_tokens 8"),
        ("v3-decode-ep128", ["workload.placement={kind: eplb, redundant_experts: 131072}", "model.num_experts=131072",
                             "model.num_groups=1", "model.top_groups=1", "workload.gate={kind: uniform}"], limits.CELLS, 131072 * 131073, "experts 131,072 x (1 + "),
    ],
)  # fmt: skip
def test_a_product_of_numbers_is_counted(
    base: Any, settings: list[str], limit: Limit, count: int, keys: str
) -> None:
    said = told(base, *settings)
    assert keys in said
    assert f"= {count:,} {limit.noun}; the limit is {limit.most:,}: {limit.reason}" in said


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        (TRAINING, []),
        (TRAINING, ["cluster.nodes=12288"]),
        (TRAINING, ["cluster.nodes=12288", "workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"]),
        (PLAIN, ["cluster.nodes=128", "layout.ep=1024", "workload.kernel={kind: flat}", "workload.gate.sampling=tokens",
                 "workload.tokens_per_rank=4096", "workload.placement={kind: eplb, redundant_experts: 768}"]),
        (PLAIN, ["cluster.nodes=10000"]),
        (PLAIN, ["cluster.nodes=131072"]),
    ],
    ids=["2,048 GPUs", "98,304 GPUs", "98,304 balanced GPUs", "1,024 x 1,024 pairs", "10,000 nodes", "131,072 nodes"],
)  # fmt: skip
def test_honest_sizes_resolve(base: Any, settings: list[str]) -> None:
    scenarios.resolve(scenario_settings.read(base, settings))


@pytest.mark.slow
def test_many_small_groups_take_time_in_proportion_to_their_number() -> None:
    """Groups that share no link are solved apart: 8 times the nodes once took 64 times as long."""

    def seconds(nodes: int) -> float:
        scenario = scenarios.resolve(scenario_settings.read(PLAIN, [f"cluster.nodes={nodes}"]))
        begun = time.process_time()
        run_scenario(scenario)
        return time.process_time() - begun

    seconds(8)  # compiles
    assert seconds(1600) < 20 * max(seconds(200), 0.2)


def test_a_sweep_of_too_many_runs_is_refused() -> None:
    from sim.sweeps.file import sweep_of

    tree = {
        "name": "many",
        "base": PLAIN,
        "axes": {
            "workload.tokens_per_rank": {"from": 1, "to": 10000, "step": 1},
            "seed": {"from": 1, "to": 900, "step": 1},
        },
        "objectives": {"dispatch.time_s": "minimise"},
        "replicas": 2,
    }
    with pytest.raises(
        InfeasibleError, match=r"points 9,000,000 x replicas 2 = 18,000,000 points of a sweep"
    ):
        sweep_of(documents.loads(json.dumps(tree), "many.yaml"))


def test_every_limit_says_what_it_means() -> None:
    """One table: each limit is a number with a sentence below it, or a `Limit` with its noun and its reason."""
    lines = Path(limits.__file__).read_text(encoding="utf-8").splitlines()
    plain = [
        i for i, line in enumerate(lines) if line[:1].isupper() and " = " in line and "Limit(" not in line
    ]
    assert plain
    assert all(lines[i + 1].startswith('"""') for i in plain)
    assert all(one.noun and one.reason for one in vars(limits).values() if isinstance(one, Limit))
