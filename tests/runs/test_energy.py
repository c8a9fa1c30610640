"""The energy of a run, from what its result says it did, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.cluster.fabrics import Fabric, LeafSpine
from sim.cluster.sizes import switch_ports
from sim.cost.power import load_power
from sim.runs.energy import added_energy
from sim.runs.link_rows import link_rows
from sim.runs.run import run_document

P = load_power()
KWH = 3.6e6
STEP = """\
name: mine
cluster: {hardware: h800, nodes: 2, fabric: {kind: FABRIC}}
model: mixtral-8x7b
layout: {pp: 2, ep: 8}
workload:
  kind: training
  sequence_tokens: 2048
  microbatches: 8
  schedule: 1f1b
  precision: bf16
  recompute: full
  kernel: {kind: two_hop, comm_sms: 20}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
"""


def run(text: str) -> dict[str, Any]:
    return run_document(documents.loads(text, "mine.yaml"))


@pytest.fixture(scope="module")
def step() -> dict[str, Any]:
    return run(STEP.replace("FABRIC", "rail_optimized"))


def carried(result: dict[str, Any], *ends: str) -> float:
    return float(
        sum(
            row["bytes"] * row.get("alike", 1) for name, row in result["links"].items() if name.endswith(ends)
        )
    )


def test_gpus_of_a_step_draw_by_its_phases(step: dict[str, Any]) -> None:
    m, used = step["metrics"], step["metrics"]["energy"]
    bubble_s = m["phases_mean"]["bubble_s"]
    assert used["idle_kwh"] * KWH == pytest.approx(16 * 700 * P.gpu.idle_fraction * bubble_s)
    waits_s = used["communication_kwh"] * KWH / (16 * 700 * P.gpu.communication_fraction)
    moves_s = used["memory_kwh"] * KWH / (16 * 700 * P.gpu.memory_fraction)
    multiplies_s = used["tensor_kwh"] * KWH / (16 * 700 * P.gpu.tensor_fraction)
    assert waits_s + moves_s + multiplies_s + bubble_s == pytest.approx(m["step_time_s"])
    # The reductions are communication, but for the update; so is what operations wait for.
    assert m["exposed_comm_mean_s"] < waits_s < m["exposed_comm_mean_s"] + m["phases_mean"]["opt_s"]
    assert 0.05 < moves_s / multiplies_s < 0.6
    assert used["gpu_w"] == pytest.approx(used["gpu_kwh"] * KWH / 16 / m["step_time_s"])


def test_the_network_of_a_step_draws_by_ports_and_bytes(step: dict[str, Any]) -> None:
    t = step["metrics"]["step_time_s"]
    sent = carried(step, "/tx") - sum(
        row["bytes"] for name, row in step["links"].items() if name.endswith("/pcie/tx")
    )
    received = carried(step, "/rx") - sum(
        row["bytes"] for name, row in step["links"].items() if name.endswith("/pcie/rx")
    )
    up = carried(step, "/up", "/down")
    nics = 16 * P.nic.idle_w * t + (P.nic.full_w - P.nic.idle_w) * sent / 50e9
    ports = 48 * P.switch_port.idle_w * t  # of a NIC, of its uplink, and of a spine
    ports += (P.switch_port.full_w - P.switch_port.idle_w) * (received + up) / 50e9
    assert sent > 0
    assert step["metrics"]["energy"]["network_kwh"] * KWH == pytest.approx(nics + ports)


def test_hosts_the_building_and_tokens(step: dict[str, Any]) -> None:
    m, used = step["metrics"], step["metrics"]["energy"]
    assert used["host_kwh"] * KWH == pytest.approx(16 * P.host.per_gpu_w * m["step_time_s"])
    parts = used["gpu_kwh"] + used["network_kwh"] + used["host_kwh"]
    assert used["total_kwh"] == pytest.approx(parts * P.building.pue)
    assert used["per_token_j"] == pytest.approx(used["total_kwh"] * KWH / m["tokens_per_step"])
    assert used["low_kwh"] < used["total_kwh"] < used["high_kwh"]


def test_fewer_ports_take_less_power(step: dict[str, Any]) -> None:
    less = run(STEP.replace("FABRIC", "rail_only"))["metrics"]["energy"]
    assert less["network_kwh"] < 0.7 * step["metrics"]["energy"]["network_kwh"]


def test_ports_of_a_nic_by_fabric() -> None:
    def ports(kind: Any, nodes: int, oversubscription: float = 1.0) -> float:
        return switch_ports(Fabric(kind, oversubscription=oversubscription), nodes)

    assert ports("scale_up", 4) == 0
    assert ports("rail_only", 4) == ports("multi_plane", 32) == 1
    assert ports("multi_plane", 33) == ports("rail_optimized", 4) == 3
    assert ports("rail_optimized", 64, 2.0) == 2
    assert ports("three_tier", 64) == 5
    assert switch_ports(LeafSpine(64, 8, 4, 50e9), 64) == 2


def test_energies_of_parts_add_up_and_tokens_share_them() -> None:
    parts = [
        {"gpu_kwh": 1.0, "total_kwh": 1.5, "gpu_w": 3.0},
        {"gpu_kwh": 2.0, "total_kwh": 2.5, "gpu_w": 5.0},
    ]
    added = {"gpu_kwh": 3.0, "total_kwh": 4.0, "gpu_w": 3.0 * KWH / 7200.0}
    assert added_energy(parts, 7200.0, 1000.0) == pytest.approx(added | {"per_token_j": 4.0 * KWH / 1000.0})
    assert added_energy(parts, 7200.0, 0.0) == pytest.approx(added)


@pytest.mark.parametrize(("more", "listed"), [(0, 4096), (1, 2)])
def test_4096_links_are_listed_one_by_one_and_more_as_one_of_each_kind(more: int, listed: int) -> None:
    num = 4096 + more
    cluster: Any = SimpleNamespace(
        capacity=np.ones(num), names=[f"link{i}" for i in range(num)], class_idx=np.zeros(num, dtype=np.int64)
    )
    kind = np.arange(num) % 2
    rows = link_rows(cluster, 1.0 + kind, 1.0 + kind, 10.0, [kind])
    assert len(rows) == listed
    assert sum(row.get("alike", 1) for row in rows.values()) == num
    assert rows["link1"]["bytes"] == 2.0
    assert rows["link1"]["utilisation_fraction"] == pytest.approx(0.2)


def test_flows_on_a_bare_fabric_take_the_power_of_its_network() -> None:
    result = run_document(documents.load(documents.find("flows-example", "scenarios", "scenario")))
    used, t = result["metrics"]["energy"], result["metrics"]["completion_time_s"]
    work = result["scenario"]["cluster"]["fabric"]
    assert used["gpu_kwh"] == used["host_kwh"] == 0
    least = work["hosts"] * (P.nic.idle_w + 3 * P.switch_port.idle_w) * t
    assert least < used["network_kwh"] * KWH < 1.6 * least


def test_a_lone_exchange_is_communication_all_along() -> None:
    result = run(
        "name: mine\nseed: 0\ncluster: {hardware: h800, nodes: 2}\nmodel: deepseek-v3\nlayout: {ep: 16}\n"
        "workload: {kind: all_to_all, tokens_per_rank: 256, gate: {kind: uniform, sampling: expected}, kernel: {kind: two_hop}}\n"
    )
    m, used = result["metrics"], result["metrics"]["energy"]
    mean_s = m["dispatch"]["time_s"] + m["combine"]["time_s"]
    assert used["communication_kwh"] * KWH == pytest.approx(16 * 700 * P.gpu.communication_fraction * mean_s)
    assert used["tensor_kwh"] == used["memory_kwh"] == 0
    assert used["per_token_j"] == pytest.approx(used["total_kwh"] * KWH / (16 * 256))
    nic_s = 16 * (m["dispatch"]["wire_nic_bytes"] + m["combine"]["wire_nic_bytes"]) / 50e9
    t = m["dispatch"]["completion_time_s"] + m["combine"]["completion_time_s"]
    on = 16 * (P.nic.idle_w + 3 * P.switch_port.idle_w) * t
    bytes_ = (P.nic.full_w - P.nic.idle_w + P.switch_port.full_w - P.switch_port.idle_w) * nic_s  # same leaf
    assert used["network_kwh"] * KWH == pytest.approx(on + bytes_)


DECODE = """\
name: mine
seed: 0
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
layout: {ep: 16}
workload:
  kind: decode
  requests_per_gpu: REQUESTS
  context_tokens: 2048
  gate: {kind: uniform, sampling: expected}
  kernel: {kind: low_latency}
"""


def test_decode_of_few_requests_is_memorys_and_a_token_of_many_costs_less() -> None:
    few, many = (run(DECODE.replace("REQUESTS", str(count))) for count in (2, 16))
    for result in (few, many):
        m, used = result["metrics"], result["metrics"]["energy"]
        held_s = sum(
            used[f"{name}_kwh"] * KWH / (16 * 700 * getattr(P.gpu, f"{name}_fraction"))
            for name in ("tensor", "memory", "communication", "idle")
        )
        assert held_s == pytest.approx(m["step_time_s"])
        assert used["memory_kwh"] > used["tensor_kwh"]
        tokens = m["tokens_per_s_per_gpu"] * 16 * m["step_time_s"]
        assert used["per_token_j"] == pytest.approx(used["total_kwh"] * KWH / tokens)
    assert few["metrics"]["energy"]["per_token_j"] > 3 * many["metrics"]["energy"]["per_token_j"]
