"""A training step on the whole cluster: fabrics and faults move it the way a hand calculation says.

One microbatch goes down four pipeline ranks, a node each, and comes back: six sends in a row, which nothing hides. So
the step grows by six times what each send takes longer.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from balanced import SCENARIO
from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.engine.step import run_step
from sim.errors import InfeasibleError
from sim.runs import training
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.schedule import programs, reductions
from sim.schedule.collectives import HEADERS
from sim.schedule.training import tasks

BYTES = 4096 * 4096 * 2.0
SENDS = 6
NCCL, NIC = load_kernel("nccl"), 50e9
SEND_S = BYTES / (NIC * NCCL.nic_efficiency_fraction)


@lru_cache(maxsize=64)
def ran(fabric: str = "{kind: rail_optimized}", faults: str = "[]") -> dict[str, Any]:
    return run_document(documents.loads(SCENARIO.format(fabric=fabric, faults=faults), "mine.yaml"))


def longer_s(**changes: str) -> float:
    """How much longer all but the optimizer takes than on a healthy, non-blocking fabric [s]."""
    times = [
        one["metrics"]["step_time_s"] - max(one["timeline"]["optimizer_s"]) for one in (ran(**changes), ran())
    ]
    return times[0] - times[1]


@pytest.mark.parametrize("kind", ["rail_optimized", "three_tier", "fat_tree"])
@pytest.mark.parametrize("ratio", [2, 4, 8, 100])
def test_an_oversubscribed_leaf_carries_its_part_of_a_nic(kind: str, ratio: int) -> None:
    """A node a leaf: its one NIC a rail has 1/ratio of a NIC upwards, of which headers take their part."""
    uplink = NIC / ratio
    slower = max(SEND_S, BYTES * HEADERS / uplink)
    got = longer_s(fabric=f"{{kind: {kind}, nodes_per_leaf: 1, oversubscription: {ratio}}}")
    latency = longer_s(fabric=f"{{kind: {kind}, nodes_per_leaf: 1}}")
    if (
        kind == "three_tier"
    ):  # cores are oversubscribed again, and their uplinks pooled over the rails of a pod
        slower = max(slower, 8 * BYTES * HEADERS / (8 * uplink / ratio))
    assert got - latency == pytest.approx(SENDS * (slower - SEND_S), rel=1e-9)


def test_sends_within_a_leaf_do_not_meet_its_uplinks() -> None:
    assert longer_s(fabric="{kind: rail_optimized, oversubscription: 100}") == pytest.approx(0, abs=1e-12)
    assert longer_s(fabric="{kind: rail_only}") == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("part", [0.8, 0.5])
def test_a_slow_nic_slows_the_sends_of_its_lane_both_ways(part: float) -> None:
    """Node 1 receives, sends on, and does both again for gradients: four of six sends; the last lane counts."""
    got = longer_s(faults=f"[{{node: 1, nic: 3, bandwidth: {part * 400:g} Gb/s}}]")
    assert got == pytest.approx(4 * SEND_S * (1 / part - 1), rel=1e-6)


def test_a_slow_rail_slows_every_send() -> None:
    assert longer_s(faults="[{rail: 2, bandwidth: 200 Gb/s}]") == pytest.approx(SENDS * SEND_S, rel=1e-6)


def test_the_next_rail_carries_the_bytes_of_a_dead_one() -> None:
    """NIC 3 sends for two lanes, which share it: both take twice as long."""
    assert longer_s(faults="[{rail: 2, bandwidth: 0 Gb/s}]") == pytest.approx(SENDS * SEND_S, rel=1e-3)
    healthy, dead = ran()["links"], ran(faults="[{rail: 2, bandwidth: 0 Gb/s}]")["links"]
    assert "node1/nic2/tx" not in dead
    for nic, times in ((3, 2), (4, 1)):
        whole = times * healthy[f"node1/nic{nic}/tx"]["bytes"]
        assert dead[f"node1/nic{nic}/tx"]["bytes"] == pytest.approx(whole, rel=1e-6)


def test_a_gpu_at_half_clock_makes_its_group_compute_twice_as_long() -> None:
    """One GPU or all of the node: the others wait for it at every all-to-all, so both cost the compute of the stage."""
    step = training.Step.from_scenario(
        resolve(documents.loads(SCENARIO.format(fabric="{}", faults="[]"), "mine.yaml"))
    )
    compute = sum(programs.compute_s(task.program) for task in step.plan.tasks[1])
    alone, together = (longer_s(faults=f"[{{node: 1, {gpu}clock: 50 %}}]") for gpu in ("gpu: 3, ", ""))
    assert together == pytest.approx(alone, rel=1e-9)
    # Weight gradients run beside one of the all-to-alls, which hid a part of them before.
    assert 0.9 * compute < together <= compute * (1 + 1e-9)
    waits = [
        ran(faults=f"[{{node: 0, {gpu}clock: 50 %}}]")["metrics"]["barrier_wait_s"]
        for gpu in ("gpu: 3, ", "")
    ]
    assert waits[0] > 0
    assert waits[1] == pytest.approx(0, abs=1e-12)


def test_a_node_that_nobody_reaches_is_infeasible() -> None:
    dead = ", ".join(f"{{node: 1, nic: {nic}, bandwidth: 0 Gb/s}}" for nic in range(8))
    with pytest.raises(InfeasibleError, match="no living rail joins node"):
        ran(faults=f"[{dead}]")


def test_bytes_of_the_step_are_those_of_its_sends_collectives_and_reductions() -> None:
    """A microbatch's activations leave every NIC but the last pipeline rank's, gradients every one but the first's."""
    links = ran()["links"]
    reduced = [name for name in links if name.endswith("nic0/tx")]
    assert len(reduced) == 4
    # One node a pipeline rank: gradients are reduced over NVLink alone.
    assert [links[f"node{n}/nic0/tx"]["bytes"] for n in range(4)] == pytest.approx(
        [BYTES, 2 * BYTES, 2 * BYTES, BYTES]
    )
    sent = sum(link["bytes"] for name, link in links.items() if name.endswith("/tx") and "nic" in name)
    taken = sum(link["bytes"] for name, link in links.items() if name.endswith("/rx") and "nic" in name)
    assert sent == pytest.approx(taken)
    for link in links.values():
        assert 0 < link["utilisation_fraction"] <= 1 + 1e-9


@pytest.mark.parametrize(
    "settings",
    [
        ["layout={pp: 8, ep: 8}"],
        ["layout={pp: 4, ep: 8, tp: 2}"],
        ["layout={pp: 2, ep: 16}", "model=mixtral-8x22b", "workload.microbatches=8"],
        ["layout={pp: 4, ep: 8, cp: 2}"],
    ],
)
def test_reductions_on_an_idle_fabric_take_their_closed_form(settings: list[str]) -> None:
    more = [
        "cluster.override={gpu.hbm.capacity: 10 TB}",
        "workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}",
    ]
    if "mixtral-8x22b" in " ".join(settings):
        settings = ["layout={pp: 4, ep: 8}", "cluster.nodes=16"]
    step = training.Step.from_scenario(resolve(read("mixtral-training", [*more, *settings])))
    ran = run_step(step.reducing)
    for record in ran.records:
        expected = reductions.optimizer_s(step.links, step.parameters[record.pipeline_rank], step.work.layout)
        assert float(record.end_s.max()) == pytest.approx(expected, rel=1e-9)


# --- TP and CP inside layers ---------------------------------------------------------------------------------------


def wide(**changes: str) -> dict[str, Any]:
    """Two pipeline ranks of two nodes, over which TP16 reduces every block."""
    text = SCENARIO.format(**{"fabric": "{nodes_per_leaf: 1}", "faults": "[]"} | changes)
    return run_document(
        documents.loads(text.replace("{pp: 4, ep: 8}", "{pp: 2, ep: 8, tp: 16}"), "mine.yaml")
    )


def without_optimizer_s(result: dict[str, Any]) -> float:
    return float(result["metrics"]["step_time_s"]) - max(result["timeline"]["optimizer_s"])


BLOCKS = (
    32 * 3
)  # attention of each layer: forward, forward again, and backward; whole experts return a rank's own tokens
BETWEEN = (
    2 * BYTES / 16
)  # scattered and gathered, an eighth of it over each NIC, half of that to the other node


def test_reductions_of_tp_over_nodes_meet_the_leaf_that_is_oversubscribed() -> None:
    """As do the two sends of a sixteenth of the activations."""
    times = [
        without_optimizer_s(wide(fabric=f"{{nodes_per_leaf: 1, oversubscription: {o}}}")) for o in (4, 8)
    ]
    per_byte = HEADERS * (8 - 4) / NIC
    assert times[1] - times[0] == pytest.approx((BLOCKS * BETWEEN + 2 * BYTES / 16) * per_byte, rel=1e-6)


def test_a_slow_nic_slows_the_reductions_of_tp_on_its_rail() -> None:
    """Of 16 layers of the first stage, both ways; and the sends there and back."""
    slower = without_optimizer_s(wide(faults="[{node: 1, nic: 3, bandwidth: 300 Gb/s}]"))
    per_byte = (4 / 3 - 1) / (NIC * NCCL.nic_efficiency_fraction)
    expected = (BLOCKS / 2 * BETWEEN + 2 * BYTES / 16) * per_byte
    assert slower - without_optimizer_s(wide()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "layout",
    [
        "{pp: 4, ep: 8, tp: 2}", "{pp: 4, ep: 8, tp: 2, cp: 2}", "{pp: 4, ep: 1, tp: 4}",
        "{pp: 4, ep: 4, tp: 2, etp: 2}", "{pp: 4, ep: 1, tp: 1, etp: 4}",
    ],
)  # fmt: skip
def test_reductions_inside_layers_on_an_idle_fabric_take_their_closed_form(layout: str) -> None:
    """And their bytes are on the links, which a time in the compute stream leaves out."""
    settings = [
        f"layout={layout}",
        "workload.schedule=1f1b",
        "workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}",
        "cluster.override={gpu.hbm.capacity: 10 TB}",
    ]
    step = training.Step.from_scenario(resolve(read("mixtral-training", settings)))
    times_s, carried = [], []
    for plan in (step.plan, replace(step.plan, tasks=tasks(step.pipeline, step.times, lambda name: 0.0))):
        ran = run_step(plan)
        times_s.append(max(float(record.end_s.max()) for record in ran.records))
        carried.append(float(ran.bytes.sum()))
    assert times_s[0] == pytest.approx(times_s[1], rel=1e-9)
    work, (tp, cp) = step.work, (step.work.layout.tp, step.work.layout.cp)
    output = (
        work.microbatch_tokens / cp * 6144 * 2 * 2 * (tp - 1) / tp
    )  # of Mixtral 8x22B, scattered and gathered
    keys_values = work.microbatch_tokens * 2 * (8 // tp) * 128 * 2 * (cp - 1) / cp
    # Attention, and experts that are split, forward and backward; keys and values once forward and twice backward.
    a_layer = (4 if work.layout.etp == tp > 1 and work.layout.ep == 1 else 2) * output + 3 * keys_values
    if (
        work.layout.gathers_experts
    ):  # what came to the ranks of ETP, gathered and scattered, forward and backward
        received = work.microbatch_tokens / (tp * cp) * step.routing.ranks_per_token
        a_layer += 4 * received * (work.layout.etp - 1) * 6144 * 2
    sent = work.layout.num_ranks * 56 / work.layout.pp * work.num_microbatches * a_layer
    assert carried[0] - carried[1] == pytest.approx(2 * sent, rel=1e-9)  # out of a GPU, and into the next


def test_the_h800_is_what_the_hand_calculations_take_it_for() -> None:
    nic = load_hardware("h800").nic
    assert nic is not None
    assert nic.bandwidth_bytes_per_s * nic.per_gpu == NIC
