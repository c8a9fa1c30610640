"""Prefill and decode on the whole cluster: fabrics and faults move a pass the way a hand calculation says.

One batch goes through 59 layers with experts, part after part: whatever an all-to-all takes longer, the pass takes 59 times.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any

import pytest

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.runs.run import run_document
from sim.schedule.collectives import HEADERS, record_bytes

CLUSTER = "cluster: {{hardware: h800, nodes: {nodes}, fabric: {fabric}, faults: {faults}}}"
SCENARIO = """\
name: mine
{cluster}
model: deepseek-v2
layout: {{ep: {ep}}}
workload:
  {kind}
  {overlap}
  gate: {{kind: uniform, sampling: expected}}
  kernel: {kernel}
"""
KINDS = {
    "prefill": "kind: prefill\n  skew: {{kernel_jitter: 0, gpu_spread: 0}}\n  prompt_tokens: 512\n  prompts_per_gpu: 2",
    "decode": "kind: decode\n  skew: {{kernel_jitter: 0, gpu_spread: 0}}\n  requests_per_gpu: 64\n  context_tokens: 1024",
    "all_to_all": "kind: all_to_all\n  tokens_per_rank: {tokens}",
}
TOKENS = {"prefill": 1024, "decode": 64}
KERNELS = {
    "two_hop": "{kind: two_hop, comm_sms: 24}",
    "low_latency": "{kind: low_latency}",
    "flat": "{kind: flat, copies: per_rank}",
    "nccl": "{kind: nccl}",
}
LAYERS, HIDDEN, TOP_K, EXPERTS = 59, 5120, 6, 160
FABRIC = load_hardware("h800").fabric
NIC = 50e9


@lru_cache(maxsize=128)
def ran(
    kind: str,
    kernel: str,
    fabric: str = "{}",
    faults: str = "[]",
    nodes: int = 2,
    ep: int = 16,
    overlap: bool = False,
    tokens: int = 0,
) -> dict[str, Any]:
    text = SCENARIO.format(
        cluster=CLUSTER.format(nodes=nodes, fabric=fabric, faults=faults),
        ep=ep,
        kind=KINDS[kind].format(tokens=tokens),
        overlap="" if kind == "all_to_all" else f"overlap: {str(overlap).lower()}",
        kernel=KERNELS[kernel],
    )
    return run_document(documents.loads(text, "mine.yaml"))


def longer_s(kind: str, kernel: str, one: dict[str, Any], other: dict[str, Any]) -> float:
    """How much longer a pass takes with the changes `one` than with `other` [s]."""
    times = [ran(kind, kernel, **changes)["metrics"]["step_time_s"] for changes in (one, other)]
    return times[0] - times[1]


def missed(experts: int) -> float:
    """Part of the tokens that choose none of so many experts [fraction]."""
    return comb(EXPERTS - experts, TOP_K) / comb(EXPERTS, TOP_K)


def away_bytes(kind: str, kernel: str, ep: int = 16) -> float:
    """Bytes that a GPU sends to one other node in a dispatch and a combine: copies by node, by rank, or by expert."""
    nodes = ep // 8
    copies = 8 * (1 - missed(EXPERTS // ep))
    if kernel == "two_hop":
        copies = 1 - missed(EXPERTS // nodes)
    if kernel == "low_latency":
        copies = TOP_K / nodes
    sizes = [
        record_bytes(kernel, *what, HIDDEN, TOP_K) for what in (("dispatch", "fp8"), ("combine", "bf16"))
    ]
    return TOKENS[kind] * copies * sum(sizes)


both = pytest.mark.parametrize("kind", ["prefill", "decode"])
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@both
@every_kernel
@pytest.mark.parametrize(
    ("fabric", "faults"),
    [
        ("{}", "[]"),
        ("{kind: rail_optimized, nodes_per_leaf: 3, oversubscription: 8}", "[]"),
        ("{kind: multi_plane}", "[{rail: 2, bandwidth: 0 Gb/s}]"),
        ("{kind: rail_optimized, routing: ecmp, nodes_per_leaf: 1}", "[{node: 2, nic: 1, bandwidth: 25 %}]"),
        ("{kind: rail_optimized, nodes_per_leaf: 2, oversubscription: 8}, use_nodes: [3, 0, 2, 1]", "[]"),
        ("{}, override: {nic.per_gpu: 0.5}", "[{node: 2, nic: 1, bandwidth: 60 %}]"),
    ],
)
def test_an_exchange_of_a_pass_is_the_lone_all_to_all(
    kind: str, kernel: str, fabric: str, faults: str
) -> None:
    """Of two EP groups at once; the slower one is shown."""
    where = {"fabric": fabric, "faults": faults, "nodes": 4}
    shown = ran(kind, kernel, **where)["exchanges"]
    alone = ran("all_to_all", kernel, **where, tokens=TOKENS[kind])["metrics"]
    for name in ("dispatch", "combine"):
        assert shown[name]["longest_s"] == pytest.approx(alone[name]["completion_time_s"], rel=1e-9)


@both
@every_kernel
def test_an_oversubscribed_leaf_carries_what_leaves_its_node(kind: str, kernel: str) -> None:
    """A node a leaf: its NIC of a rail has 1/ratio of a NIC upwards, of which headers take their part."""
    changes = [
        {"fabric": f"{{kind: rail_optimized, nodes_per_leaf: 1, oversubscription: {ratio}}}"}
        for ratio in (100, 50)
    ]
    expected = LAYERS * away_bytes(kind, kernel) * HEADERS * 50 / NIC
    assert longer_s(kind, kernel, *changes) == pytest.approx(expected, rel=1e-9)
    assert longer_s(kind, kernel, {"fabric": "{kind: rail_only}"}, {"fabric": "{kind: multi_plane}"}) == 0.0


@both
def test_groups_that_meet_on_a_leaf_share_its_uplinks(kind: str) -> None:
    """Leaves of three nodes, groups of four: the second leaf sends one node's bytes to three others, and two nodes' to two each."""
    changes = [
        {
            "fabric": f"{{kind: rail_optimized, nodes_per_leaf: 3, oversubscription: {ratio}}}",
            "nodes": 12,
            "ep": 32,
        }
        for ratio in (100, 50)
    ]
    expected = LAYERS * (3 + 2 * 2) * away_bytes(kind, "two_hop", 32) * HEADERS * 50 / (3 * NIC)
    assert longer_s(kind, "two_hop", *changes) == pytest.approx(expected, rel=1e-9)


@both
def test_hashed_uplinks_make_a_pass_as_long_as_the_fullest_of_them(kind: str) -> None:
    fabric = "{{kind: rail_optimized, nodes_per_leaf: 1, oversubscription: 20, routing: {}}}"
    pooled, hashed = (ran(kind, "nccl", fabric=fabric.format(how)) for how in ("adaptive", "ecmp"))
    busy = [
        max(link["busy_s"] for link in found["links"].values() if link["class"] == "leaf_uplink")
        for found in (pooled, hashed)
    ]
    times = [found["metrics"]["step_time_s"] for found in (pooled, hashed)]
    assert times[1] - times[0] == pytest.approx(busy[1] - busy[0], rel=1e-9)


@both
def test_without_cables_between_rails_bytes_take_nvlink_first(kind: str) -> None:
    """A receiver's rail is another one for seven of eight; and nobody pays for the way over a spine."""
    joined, apart = (
        ran(kind, "flat", fabric=f"{{kind: {name}}}") for name in ("rail_optimized", "rail_only")
    )
    bytes_ = [found["links"]["node0/gpu3/scale_up/egress"]["bytes"] for found in (joined, apart)]
    assert bytes_[1] - bytes_[0] == pytest.approx(LAYERS * away_bytes(kind, "flat") * 7 / 8, rel=1e-9)
    saved = 2 * LAYERS * (FABRIC.cross_leaf_latency_s - FABRIC.same_leaf_latency_s)
    slow = (
        "[" + ", ".join(f"{{rail: {rail}, bandwidth: 10 %}}" for rail in range(8)) + "]"
    )  # so that NICs bind
    times = [
        ran(kind, "flat", fabric=f"{{kind: {name}}}", faults=slow)["metrics"]["step_time_s"]
        for name in ("rail_optimized", "rail_only")
    ]
    assert times[0] - times[1] == pytest.approx(saved, rel=1e-6)


@both
@pytest.mark.parametrize("kernel", ["two_hop", "flat"])
def test_a_slow_nic_slows_every_exchange_of_its_group_by_its_own_bytes(kind: str, kernel: str) -> None:
    """It is used, as a neighbour at 10 % would take longer with the bytes of both."""
    others = ["{node: 0, bandwidth: 10 %}"]
    others += [f"{{node: 1, nic: {nic}, bandwidth: 10 %}}" for nic in range(8) if nic != 3]
    slow = [f"{{node: 1, nic: 3, bandwidth: {part} %}}" for part in (6, 8)]
    changes = [{"faults": f"[{', '.join([*others, fault])}]"} for fault in slow]
    achieved = NIC * load_kernel(kernel if kernel == "flat" else "deepep_v1_2025_04").nic_efficiency_fraction
    expected = LAYERS * away_bytes(kind, kernel) * (1 / 0.06 - 1 / 0.08) / achieved
    assert longer_s(kind, kernel, *changes) == pytest.approx(expected, rel=1e-9)


@both
@pytest.mark.parametrize("kernel", ["two_hop", "flat"])
def test_the_next_rail_carries_the_bytes_of_a_dead_one_with_its_own(kind: str, kernel: str) -> None:
    slow = [f"{{rail: {rail}, bandwidth: 5 %}}" for rail in range(8)]  # so that NICs bind
    dead = [*slow[:7], "{rail: 7, bandwidth: 0 Gb/s}"]
    changes = [{"faults": f"[{', '.join(faults)}]"} for faults in (dead, slow)]
    achieved = NIC * load_kernel(kernel if kernel == "flat" else "deepep_v1_2025_04").nic_efficiency_fraction
    expected = LAYERS * away_bytes(kind, kernel) * 20 / achieved
    if kernel == "two_hop":  # whose bytes else keep to their rails
        expected += 2 * LAYERS * (FABRIC.cross_leaf_latency_s - FABRIC.same_leaf_latency_s)
    assert longer_s(kind, kernel, *changes) == pytest.approx(expected, rel=1e-6)


@both
@pytest.mark.parametrize("kernel", ["two_hop", "low_latency"])
def test_a_gpu_at_half_clock_makes_its_group_wait_for_its_compute(kind: str, kernel: str) -> None:
    """Others wait at a barrier, or for its bytes: either way every part takes twice as long."""
    spent = ran(kind, kernel)["where"]
    compute = sum(seconds for part, seconds in spent.items() if part not in ("waits", "last_rank"))
    for gpu in ("gpu: 3, ", ""):
        slow = {"faults": f"[{{node: 1, {gpu}clock: 50 %}}]"}
        assert longer_s(kind, kernel, slow, {}) == pytest.approx(compute, rel=1e-9)


@both
@every_kernel
def test_other_groups_change_nothing_on_a_fabric_that_blocks_nobody(kind: str, kernel: str) -> None:
    for overlap in (True, False):
        one, four = (ran(kind, kernel, nodes=nodes, overlap=overlap) for nodes in (2, 8))
        for name, value in one["metrics"].items():
            if name == "energy":  # of four times as many GPUs
                assert four["metrics"][name]["per_token_j"] == pytest.approx(value["per_token_j"], rel=0.02)
                continue
            assert four["metrics"][name] == (
                value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
            )


@both
@every_kernel
def test_bytes_of_a_pass_are_those_of_its_exchanges(kind: str, kernel: str) -> None:
    links = ran(kind, kernel)["links"]
    sent, taken = (
        sum(link["bytes"] for name, link in links.items() if "/nic" in name and name.endswith(end))
        for end in ("/tx", "/rx")
    )
    assert sent == pytest.approx(taken) == pytest.approx(16 * LAYERS * away_bytes(kind, kernel))
    for link in links.values():
        assert 0 < link["utilisation_fraction"] <= 1 + 1e-9
