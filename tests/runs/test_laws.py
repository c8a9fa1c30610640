"""Laws that scenarios of every kind keep, on random ones: bounds, bytes, harm that never helps, symmetry, repeatability."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
from drawn import (
    BALANCED,
    COMPUTE_HARM,
    EXPECTED,
    FACTORS,
    FLOWS,
    HARM,
    KERNEL_HARM,
    PASSES,
    SERVICES,
    STEPS,
    Drawn,
    collectives,
    law,
    slower_links,
)
from sim.cluster.hardware import load_hardware
from sim.cluster.topology import Cluster
from sim.cost.power import load_power
from sim.engine.step import run_step
from sim.runs import training
from sim.runs.forecast import forecast
from sim.trees import flatten

LESS = 1 - 1e-9
"""Sums in another order."""
NO_FABRIC = [name for name in HARM if name not in ("uplinks", "one NIC", "one rail")]


def timed(result: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Every simulated time of a result that has a bound, with it [s]."""
    metrics = result["metrics"]
    for part in (metrics, *(branch for branch in metrics.values() if isinstance(branch, dict))):
        if "lower_bound_s" not in part:
            continue
        if "accepted_tokens_per_step" in part:  # a bound of the time between tokens
            yield part["tpot_s"], part["lower_bound_s"]
        else:
            names = ("completion_time_s", "step_time_s", "makespan_s")
            yield next(part[name] for name in names if name in part), part["lower_bound_s"]


# --- time and bytes -------------------------------------------------------------------------------------------------


def keeps_bytes(result: dict[str, Any], cluster: Cluster) -> None:
    """What enters a switch leaves it (Kirchhoff), what leaves a GPU by PCIe leaves by its NIC, and no link is overfull."""
    links = result["links"]
    assert links
    for link in links.values():
        assert 0 <= link["utilisation_fraction"] <= 1 + 1e-9

    def carried(edges: Any) -> float:
        return sum(
            links.get(name, {"bytes": 0.0})["bytes"] for name in {edge["resource"] for *_, edge in edges}
        )

    graph = cluster.graph
    for name, data in graph.nodes(data=True):
        # GPUs and bare hosts make and take bytes; cables of spines and cores may be one resource of several switches.
        if data["kind"] in ("gpu", "spine", "core") or not (
            data["kind"] != "nic" or "gpu" in str(list(graph[name]))
        ):
            continue
        assert carried(graph.in_edges(name, data=True)) == pytest.approx(
            carried(graph.out_edges(name, data=True)), rel=1e-9, abs=1e-3
        ), name
    above = [
        (ends, edge) for *ends, edge in graph.edges(data=True)
        if {graph.nodes[end]["kind"] for end in ends} == {"leaf", "spine"}
    ]  # fmt: skip
    up = [(edge,) for (low, _), edge in above if graph.nodes[low]["kind"] == "leaf"]
    down = [(edge,) for (_, low), edge in above if graph.nodes[low]["kind"] == "leaf"]
    assert carried(up) == pytest.approx(carried(down), rel=1e-9, abs=1e-3)


def adds_up(drawn: Drawn, result: dict[str, Any]) -> None:
    """Where the time of a pass goes adds up to it; each second of each GPU has the power of what held it, and has it once.

    What is called a fraction is one, but for FLOPs over the BF16 peak, which a step in FP8 may beat; links of a class are as busy over spans of time as over all of it.
    """
    metrics = result["metrics"]
    fractions = {
        name: value
        for name, value in flatten(metrics).items()
        if name.endswith("_fraction") and not name.startswith("mfu_")
    }
    assert {name: value for name, value in fractions.items() if not 0 <= value <= 1 + 1e-9} == {}
    assert metrics.get("kv_occupancy_fraction", 0) <= metrics.get("kv_peak_fraction", 1)
    for name, over_time in result.get("timeline", {}).get("utilisation", {}).items():
        own = [link["utilisation_fraction"] for link in result["links"].values() if link["class"] == name]
        assert name == "time_s" or np.mean(over_time["mean"]) == pytest.approx(np.mean(own), rel=1e-5)
    span_s = metrics.get("makespan_s", metrics.get("step_time_s"))
    if "where" in result:
        assert sum(result["where"].values()) == pytest.approx(span_s, rel=1e-9)
        assert min(result["where"].values()) >= 0
    if span_s is None or drawn.hardware is None:
        return
    used, power = metrics["energy"], load_power().gpu
    parts = {part: used[f"{part}_kwh"] for part in ("tensor", "memory", "communication", "idle")}
    assert used["gpu_kwh"] == pytest.approx(sum(parts.values()), rel=1e-9)
    held = sum(spent / getattr(power, f"{part}_fraction") for part, spent in parts.items())
    whole = 8 * drawn.nodes * load_hardware(drawn.hardware).gpu.tdp_w * span_s / 3.6e6
    assert held >= whole * LESS
    assert held <= whole * (
        1 + 1e-9 if parts["idle"] else 1.01
    )  # a hidden transfer may end after what hides it


@law(3, drawn=st.one_of(collectives(), FLOWS, PASSES, STEPS))
def test_nothing_is_faster_than_its_bound_and_bytes_are_kept(drawn: Drawn) -> None:
    result = drawn.ran()
    pairs = list(timed(result))
    assert pairs
    for time_s, bound_s in pairs:
        assert time_s >= bound_s * LESS
    adds_up(drawn, result)
    if result["links"]:
        keeps_bytes(result, drawn.resolved().cluster())


@law(3, drawn=FLOWS)
def test_a_host_carries_the_bytes_of_its_flows_and_is_busy_with_their_headers_too(drawn: Drawn) -> None:
    rows = [line.split(",") for line in drawn.file.splitlines()[1:]]
    headers = float(drawn.fabric["wire_per_packet"].split()[0]) / 4096
    links = drawn.ran()["links"]
    for host in range(drawn.fabric["hosts"]):
        for column, way in ((1, "tx"), (2, "rx")):
            payload = sum(int(row[3]) for row in rows if int(row[column]) == host)
            link = links.get(f"host{host}/{way}", {"bytes": 0.0, "busy_s": 0.0})
            assert link["bytes"] == pytest.approx(payload, rel=1e-9)
            assert link["busy_s"] == pytest.approx(payload * headers / 50e9, rel=1e-9)


# --- harm -----------------------------------------------------------------------------------------------------------


def never_helps(drawn: Drawn, harmed: Drawn, *, times: bool) -> None:
    """Bounds rise, no time is below its own, and times rise where nothing competes."""
    result, worse = drawn.ran(), harmed.ran()
    adds_up(drawn, result)
    adds_up(harmed, worse)
    for (time_s, bound_s), (later_s, above_s) in zip(timed(result), timed(worse), strict=True):
        assert above_s >= bound_s * LESS
        assert time_s >= bound_s * LESS
        assert later_s >= above_s * LESS
        if times:
            assert later_s >= time_s * LESS


@law(6, drawn=collectives(), harm=st.sampled_from(sorted(HARM)), factor=FACTORS)
def test_no_harm_to_a_network_helps_a_lone_collective(drawn: Drawn, harm: str, factor: float) -> None:
    never_helps(drawn, HARM[harm](drawn, factor), times=True)


@law(3, drawn=collectives(max_nodes=3), harm=st.sampled_from(sorted(KERNEL_HARM)), factor=FACTORS)
def test_no_harm_to_kernels_helps_a_lone_collective(drawn: Drawn, harm: str, factor: float) -> None:
    never_helps(drawn, KERNEL_HARM[harm](drawn, factor), times=True)


@law(3, drawn=FLOWS, factor=FACTORS)
def test_slower_links_raise_the_bound_of_flows(drawn: Drawn, factor: float) -> None:
    never_helps(drawn, slower_links(drawn, factor), times=False)


@law(3, drawn=PASSES, harm=st.sampled_from([*NO_FABRIC, *COMPUTE_HARM]), factor=FACTORS)
def test_no_harm_lowers_the_bound_of_a_pass(drawn: Drawn, harm: str, factor: float) -> None:
    never_helps(drawn, (HARM | COMPUTE_HARM)[harm](drawn, factor), times=False)


@law(3, drawn=STEPS, harm=st.sampled_from([*HARM, *COMPUTE_HARM]), factor=FACTORS)
def test_no_harm_lowers_the_bound_of_a_step(drawn: Drawn, harm: str, factor: float) -> None:
    """Told before it runs; that no step beats it is a law of its own."""
    harmed = (HARM | COMPUTE_HARM)[harm](drawn, factor)
    bound_s, above_s = (forecast(each.resolved()).best["step_time_s"] for each in (drawn, harmed))
    assert above_s >= bound_s * LESS


@law(1, many=100, drawn=SERVICES, harm=st.sampled_from([*NO_FABRIC, *COMPUTE_HARM]), factor=FACTORS)
def test_no_harm_lowers_the_bound_of_a_service(drawn: Drawn, harm: str, factor: float) -> None:
    never_helps(drawn, (HARM | COMPUTE_HARM)[harm](drawn, factor), times=False)


# --- tokens ---------------------------------------------------------------------------------------------------------


def with_more(drawn: Drawn, key: str, more: int) -> Drawn:
    return replace(drawn, workload=drawn.workload | {key: drawn.workload[key] + more})


@law(3, drawn=collectives(gates=EXPECTED, plain=False), more=st.sampled_from([1, 16, 1000]))
def test_more_tokens_never_take_a_collective_less_time(drawn: Drawn, more: int) -> None:
    never_helps(drawn, with_more(drawn, "tokens_per_rank", more), times=True)


TILE = 128
"""Rows of a tile: a GEMM of a row more may choose other tiles, and end sooner."""


@law(3, drawn=PASSES, tiles=st.sampled_from([1, 2, 9]))
def test_a_tile_of_tokens_more_never_takes_a_pass_less_time(drawn: Drawn, tiles: int) -> None:
    key = "requests_per_gpu" if drawn.workload["kind"] == "decode" else "prompt_tokens"
    never_helps(drawn, with_more(drawn, key, tiles * 2 * TILE), times=True)


@law(3, drawn=STEPS, tiles=st.sampled_from([1, 2, 9]))
def test_a_tile_of_tokens_more_never_takes_a_step_less_time(drawn: Drawn, tiles: int) -> None:
    balanced = replace(drawn, workload=drawn.workload | {"skew": BALANCED}, slow={})
    never_helps(balanced, with_more(balanced, "sequence_tokens", tiles * TILE), times=True)


# --- symmetry -------------------------------------------------------------------------------------------------------


def same(drawn: Drawn, other: Drawn) -> None:
    """All metrics but names of resources are equal."""
    found, expected = (flatten(one.ran()["metrics"]) for one in (other, drawn))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


RAILS = st.permutations(range(8))


@law(
    3,
    drawn=collectives(routings=("adaptive",), plain=False).filter(lambda drawn: drawn.nodes != 3),
    nodes=st.permutations(range(4)),
    rails=RAILS,
    seed=st.integers(0, 99),
)
def test_renaming_nodes_and_rails_changes_no_collective(
    drawn: Drawn, nodes: list[int], rails: list[int], seed: int
) -> None:
    """Tokens, experts and slow NICs move with their ranks; nodes that share a leaf go on sharing one.

    A slow NIC's bytes may go over the next one, so with one rails keep their names.
    """
    if drawn.slow:
        rails = list(range(8))
    ep, tokens, num_experts, top_k = 8 * drawn.nodes, 4, 128, 4
    if drawn.fabric["nodes_per_leaf"] == 2:
        nodes = [node ^ 1 for node in range(4)]
    nodes = [node for node in nodes if node < drawn.nodes]
    place = np.array([node * 8 + rail for node in nodes for rail in rails])
    rng = np.random.default_rng(seed)
    likes = rng.dirichlet(np.full(num_experts, 0.5))
    ids = np.array([rng.choice(num_experts, top_k, replace=False, p=likes) for _ in range(ep * tokens)])
    per_rank = num_experts // ep
    moved = np.empty((ep, tokens, top_k), dtype=int)
    moved[place] = (place[ids // per_rank] * per_rank + ids % per_rank).reshape(moved.shape)
    work = drawn.workload | {"tokens_per_rank": tokens, "gate": {"kind": "trace", "file": "drawn.csv"}}
    plain = replace(drawn, model="gpt-oss-120b", layout={"ep": ep}, workload=work, file=table(ids))
    slow = {divmod(int(place[8 * node + nic]), 8): part for (node, nic), part in drawn.slow.items()}
    same(plain, replace(plain, slow=slow, file=table(moved.reshape(-1, top_k))))


def table(ids: np.ndarray) -> str:
    return "\n".join(",".join(map(str, row)) for row in ids.tolist()) + "\n"


@law(
    3,
    drawn=FLOWS.filter(lambda drawn: drawn.fabric["routing"] == "adaptive"),
    order=st.permutations(range(12)),
)
def test_renaming_hosts_of_a_leaf_changes_no_flow(drawn: Drawn, order: list[int]) -> None:
    hosts, per_leaf = drawn.fabric["hosts"], drawn.fabric["hosts_per_leaf"]
    place = sorted(range(hosts), key=lambda host: (host // per_leaf, order[host]))
    head, *rows = drawn.file.splitlines()
    moved = [
        [n, str(place[int(a)]), str(place[int(b)]), *more]
        for n, a, b, *more in (row.split(",") for row in rows)
    ]
    other = replace(drawn, file="\n".join([head, *map(",".join, moved)]) + "\n")
    for one, two in zip(drawn.ran()["flow_completion"], other.ran()["flow_completion"], strict=True):
        assert one == pytest.approx(two, rel=1e-9)


@law(3, drawn=STEPS, nic=st.integers(0, 7), other=st.integers(1, 3))
def test_a_slow_nic_costs_a_balanced_step_the_same_on_every_rail(drawn: Drawn, nic: int, other: int) -> None:
    """Where a group has all NICs of its nodes, so that no idle one can be borrowed."""
    assume(drawn.layout.get("ep", 1) % 8 == 0)
    even = replace(drawn, workload=drawn.workload | {"skew": BALANCED})
    same(replace(even, slow={(1, nic): 0.6}), replace(even, slow={(1, nic ^ other): 0.6}))


# --- repetition -----------------------------------------------------------------------------------------------------

PROGRAM = """
import json, pickle, sys
from sim.trees import flatten
for drawn in pickle.load(open(sys.argv[1], "rb")):
    result = drawn.ran()
    print(json.dumps([flatten(result["metrics"]), {n: link["bytes"] for n, link in result["links"].items()}]))
"""


@pytest.mark.slow
def test_results_hang_neither_on_hash_seeds_nor_on_the_compiler(tmp_path: Path) -> None:
    """To the bit over hash seeds; without the compiler to the ninth digit, since it may fuse a product and a sum."""
    drawn: list[Drawn] = []

    @settings(max_examples=300)
    @given(one=st.one_of(collectives(max_nodes=2), FLOWS, PASSES, STEPS))
    def collect(one: Drawn) -> None:
        drawn.append(one)

    collect()
    (tmp_path / "drawn").write_bytes(pickle.dumps(drawn))

    def ran(**environment: str) -> str:
        paths = os.pathsep.join(
            [str(Path(sim.__file__).parents[1]), str(Path(__file__).parents[1] / "support")]
        )
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "drawn")]
        env = os.environ | {"PYTHONPATH": paths} | environment
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    first, second, plain = ran(PYTHONHASHSEED="0"), ran(PYTHONHASHSEED="1"), ran(NUMBA_DISABLE_JIT="1")
    assert len(first.splitlines()) == len(drawn) >= 300
    assert first == second
    for compiled, read in zip(first.splitlines(), plain.splitlines(), strict=True):
        for found, expected in zip(json.loads(compiled), json.loads(read), strict=True):
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@law(3, drawn=STEPS)
def test_a_folded_step_is_the_step_of_every_lane_by_itself(drawn: Drawn) -> None:
    """Speeds that differ in the eleventh digit leave nothing alike; the step is the same to the ninth."""
    plan = training.Step.from_scenario(drawn.resolved()).plan
    unlike = plan.speed * (1 + 1e-11 * np.arange(plan.speed.size).reshape(plan.speed.shape))
    folded, apart = run_step(plan), run_step(replace(plan, speed=unlike))
    assert sum(map(len, apart.network.folded.lanes)) == plan.num_groups * plan.lanes
    for one, each in zip(folded.records, apart.records, strict=True):
        assert one.end_s == pytest.approx(each.end_s, rel=1e-8)
    assert folded.bytes == pytest.approx(apart.bytes, rel=1e-9, abs=1e-3)
