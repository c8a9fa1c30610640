"""Parts of a cluster and NICs that GPUs share: a job that has some of the GPUs, and a NIC that has some of a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.parts import part_of
from sim.cluster.paths import leg
from sim.cluster.topology import Fabric, build
from sim.errors import InputError
from sim.runs.run import run_document
from sim.scenario.resolve import resolve

EXCHANGE = """\
name: mine
cluster: {{hardware: {hardware}, nodes: {nodes}{part}}}
model: deepseek-v3
layout: {{ep: {ep}}}
workload:
  kind: all_to_all
  tokens_per_rank: {tokens}
  gate: {{kind: {gate}}}
  kernel: {{kind: {kernel}{options}}}
"""
ORDINARY: dict[str, Any] = {
    "hardware": "h800", "nodes": 2, "part": "", "ep": 16, "tokens": 4096, "gate": "deepep_benchmark",
    "kernel": "two_hop", "options": ", comm_sms: 24",
}  # fmt: skip


def metrics_of(**asked: Any) -> dict[str, Any]:
    text = EXCHANGE.format(**ORDINARY | asked)
    metrics: dict[str, Any] = run_document(documents.loads(text, "mine.yaml"))["metrics"]
    return metrics


def problems(**asked: Any) -> str:
    with pytest.raises(InputError) as caught:
        resolve(documents.loads(EXCHANGE.format(**ORDINARY | asked), "mine.yaml"))
    return "\n".join(map(str, caught.value.problems))


def test_a_job_takes_equally_many_gpus_of_as_few_nodes_as_hold_them() -> None:
    assert part_of(3, 8).gpus.tolist() == list(range(24))
    assert part_of(3, 8, gpus=12).gpus.tolist() == [*range(6), *range(8, 14)]
    assert part_of(4, 8, use_nodes=[3, 1]).gpus.tolist() == [*range(24, 32), *range(8, 16)]
    assert part_of(4, 8, gpus=4, use_nodes=[0, 3]).gpus.tolist() == [0, 1, 24, 25]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("gpus: 17", ["cluster.gpus: got 17", "at most 16", "2 nodes of 8 GPUs"]),
        ("gpus: 13", ["cluster.gpus: got 13", "equally many GPUs on each of 2 nodes", "12 or 14"]),
        ("use_nodes: [0, 2]", ["cluster.use_nodes: got node 2", "nodes 0 to 1", "the cluster has 2 nodes"]),
        ("use_nodes: [1, 1]", ["got node 1 twice", "each once"]),
        ("use_nodes: []", ["got no node"]),
        ("gpus: some", ["cluster.gpus", "'some'"]),
        ("use_nodes: [1], gpus: 9", ["at most 8: use_nodes names 1 of 8 GPUs"]),
    ],
)
def test_a_part_that_does_not_fit_is_one_message_with_counts(part: str, words: list[str]) -> None:
    told = problems(part=f", {part}", ep=8)
    for word in words:
        assert word in told


def test_an_ep_that_does_not_divide_a_rack_is_told_of_the_part_that_it_divides() -> None:
    told = problems(hardware="gb200-nvl72", nodes=1, ep=64)
    assert "72; or 'cluster.gpus: 64', and the other 8 idle" in told


def test_64_gpus_of_a_rack_of_72_are_as_fast_as_a_rack_of_64() -> None:
    rack = {"hardware": "gb200-nvl72", "nodes": 1, "ep": 64, "gate": "uniform"}
    part = metrics_of(**rack, part=", gpus: 64")
    assert part["dispatch"]["time_s"] == pytest.approx(542e-6, rel=2e-3)
    assert part["combine"]["time_s"] == pytest.approx(1.02e-3, rel=2e-3)
    assert part["dispatch"]["binding"] == "copy_sms"
    assert part == metrics_of(**rack, part=", override: {gpu.scale_up.domain: 64}")


@pytest.mark.parametrize(
    ("kernel", "options"),
    [("two_hop", ", comm_sms: 24"), ("low_latency", ""), ("flat", ", comm_sms: 24"), ("nccl", "")],
)
@pytest.mark.parametrize("nodes", ["[0, 3]", "[3, 1]"])
def test_nodes_that_are_not_next_to_each_other_are_as_fast_on_one_leaf(
    kernel: str, options: str, nodes: str
) -> None:
    asked = {"kernel": kernel, "options": options, "tokens": 128}
    apart, near = metrics_of(**asked, nodes=4, part=f", use_nodes: {nodes}"), metrics_of(**asked)
    for direction in ("dispatch", "combine"):
        for name in ("time_s", "lower_bound_s", "wire_nic_bytes", "wire_nvlink_bytes"):
            assert apart[direction][name] == pytest.approx(near[direction][name], rel=1e-9)


def test_nodes_on_two_leaves_pay_the_spine() -> None:
    """4 nodes on 2 leaves: 0 and 1 share one, 0 and 3 do not; a dispatch along rails takes 0.9 us more."""
    asked = {"nodes": 4, "tokens": 1}
    leaves = ", fabric: {kind: rail_optimized, nodes_per_leaf: 2}, use_nodes: "
    near, far = (
        metrics_of(**asked, part=leaves + nodes)["dispatch"]["completion_time_s"]
        for nodes in ("[0, 1]", "[0, 3]")
    )
    assert far - near == pytest.approx(0.9e-6, rel=0.2)


# --- NICs that GPUs share -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nics", ["nic.per_gpu: 0.5", "nic.per_node: 4"])
def test_two_gpus_that_share_a_nic_have_half_of_it_each(nics: str) -> None:
    """30.5 MB x 2 / (50 GB/s x 0.9) + 50 us, and 58.7 MB likewise."""
    shared = metrics_of(part=f", override: {{{nics}}}")
    assert shared["dispatch"]["time_s"] == pytest.approx(1.41e-3, rel=5e-3)
    assert shared["combine"]["time_s"] == pytest.approx(2.66e-3, rel=5e-3)
    assert shared["dispatch"]["logical_rdma_bytes_per_s"] == pytest.approx(42.9e9, rel=5e-3)
    assert shared["combine"]["logical_rdma_bytes_per_s"] == pytest.approx(43.9e9, rel=5e-3)
    assert shared["dispatch"]["binding"] == "nic"
    slow = metrics_of(part=", override: {nic.bandwidth: 200 Gb/s}")
    assert shared["dispatch"]["wire_nic_bytes"] == pytest.approx(slow["dispatch"]["wire_nic_bytes"])
    assert shared["dispatch"]["time_s"] == pytest.approx(slow["dispatch"]["time_s"], rel=5e-3)


def test_a_gpu_whose_neighbour_is_silent_has_the_whole_nic() -> None:
    cluster = build(load_hardware("h800", {"nic.per_gpu": 0.5}), 2, Fabric())
    assert cluster.nic_tx[0] == cluster.nic_tx[1] != cluster.nic_tx[2]
    assert cluster.capacity[cluster.nic_tx[0]] == 50e9
    assert cluster.leaf[0] == cluster.leaf[1] == cluster.leaf[8] != cluster.leaf[2]


def test_a_dead_nic_takes_both_of_its_gpus_off_the_fabric() -> None:
    hardware = load_hardware("h800", {"nic.per_node": 4})
    scenario = resolve(
        documents.loads(
            EXCHANGE.format(
                **ORDINARY
                | {"part": ", override: {nic.per_node: 4}, faults: [{node: 0, nic: 1, bandwidth: 0 B/s}]"}
            ),
            "mine.yaml",
        )
    )
    alive = build(hardware, 2, Fabric(), scenario.faults).nic_alive
    assert np.flatnonzero(~alive).tolist() == [2, 3]
    wrong = problems(part=", override: {nic.per_node: 4}, faults: [{rail: 4, bandwidth: 0 B/s}]")
    assert "0 to 3: a node has 4 NICs" in wrong


def test_bytes_for_a_plane_leave_by_a_gpu_of_its_nic_without_a_hop_where_they_can() -> None:
    cluster = build(load_hardware("h800", {"nic.per_gpu": 0.5}), 2, Fabric("multi_plane"))
    found = leg(cluster, np.array([0, 0, 0]), np.array([8, 9, 10]), np.ones(3))
    assert found.via_src.tolist() == [0, 0, 2]


def test_nics_and_gpus_that_do_not_share_out_are_refused() -> None:
    for override, words in (
        ("{nic.per_node: 3}", ["nic.per_node", "the 8 GPUs of a node"]),
        ("{nic.per_gpu: 0.1}", ["nic.per_gpu", "makes 0.8"]),
        ("{nic.per_gpu: 2, nic.per_node: 4}", ["both 'per_gpu' and 'per_node'"]),
    ):
        told = problems(part=f", override: {override}")
        for word in words:
            assert word in told
    two = metrics_of(part=", override: {nic.per_gpu: 2}")["dispatch"]["lower_bound_s"]
    assert two == metrics_of(part=", override: {nic.per_node: 16}")["dispatch"]["lower_bound_s"]
