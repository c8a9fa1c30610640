"""Machines: a chip in a node, profiles taken apart, and GPUs that nothing but PCIe joins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sim
from sim import documents
from sim.cluster import topology
from sim.cluster.hardware import list_hardware, load_hardware
from sim.errors import InputError

CHIPS, NODES = (documents.shipped(f"hardware/{kind}") for kind in ("chips", "nodes"))


@pytest.mark.parametrize("name", list_hardware())
def test_a_profile_is_its_own_chip_in_its_own_node(name: str) -> None:
    whole, made = load_hardware(name), load_hardware({"chip": name, "node": name})
    assert (made.gpu, made.nic, made.fabric, made.cost) == (whole.gpu, whole.nic, whole.fabric, whole.cost)
    assert {row.path: row.value for row in made.parameters} == {
        row.path: row.value for row in whole.parameters
    }


def test_a_scenario_on_parts_of_a_profile_gives_what_the_profile_gives() -> None:
    settings: dict[str, Any] = {"expect": {}, "variants": {}}
    parts = {"cluster.hardware": {"chip": "h800", "node": "h800"}}
    whole, made = sim.run("deepep-ep16-h800", settings), sim.run("deepep-ep16-h800", settings | parts)
    assert made["metrics"] == whole["metrics"]


@pytest.mark.parametrize("chip", CHIPS)
def test_every_shipped_chip_stands_in_a_node(chip: str) -> None:
    has_links = "scale_up" in documents.load(CHIPS[chip]).tree["gpu"]
    made = load_hardware({"chip": chip, "node": "hgx-8nic" if has_links else "pcie-8"})
    assert made.gpu.scale_up.over_pcie == (not has_links)
    assert made.name == f"{chip}-{'hgx-8nic' if has_links else 'pcie-8'}"


@pytest.mark.parametrize(("node", "gigabytes"), [
    ("hgx-8nic", 50.0), ("dgx-4nic", 25.0), ("hgx-8x200", 25.0), ("hgx-8x100", 12.5), ("hgx-4x100", 6.25),
    ("hgx-8x800", 100.0), ("oam-8nic", 50.0), ("pcie-8", 25.0), ("cloudmatrix-384", 50.0), ("cloudmatrix-768", 25.0),
])  # fmt: skip
def test_every_shipped_node_gives_a_gpu_its_share_of_nics(node: str, gigabytes: float) -> None:
    made = load_hardware({"chip": "h100", "node": node})
    assert made.nic_bytes_per_s / made.gpus_per_nic / 1e9 == pytest.approx(gigabytes)
    assert set(NODES) >= {node}


@pytest.mark.parametrize(
    ("chip", "node"), [("h800", "dgx-4nic"), ("a800", "hgx-8x100"), ("a100", "hgx-4x100")]
)
def test_an_all_to_all_across_nodes_takes_its_bytes_over_the_nics_that_a_node_has(
    chip: str, node: str
) -> None:
    """Of 256 MiB a GPU sends half to the other node: 8 GPUs x 128 MiB over the NICs of a node, at best."""
    made = load_hardware({"chip": chip, "node": node})
    found = sim.run({
        "name": "nics", "cluster": {"hardware": {"chip": chip, "node": node}, "nodes": 2},
        "workload": {"kind": "collective", "op": "all_to_all", "bytes_per_rank": "256 MiB"},
    })["metrics"]  # fmt: skip
    least = 8 * 128 * 2**20 / (made.nics_per_node * made.nic_bytes_per_s)
    assert least < found["time_s"] < 1.3 * least
    assert found["binding"] == "nic"


def test_switches_of_an_a800_add_nothing_up() -> None:
    assert load_hardware({"chip": "a800", "node": "hgx-8x100"}).gpu.scale_up.reduces_in_switch is None


@pytest.mark.parametrize(
    ("name", "gpus"), [("mi300x", 8), ("mi325x", 8), ("mi355x", 8), ("cloudmatrix384-dies", 16)]
)
def test_machines_of_other_makers_run_a_small_all_to_all_and_a_decode(name: str, gpus: int) -> None:
    """A GPU keeps its own part of 64 MiB; a step reads no fewer bytes than its weights hold."""
    made = load_hardware(name)
    cluster = {"hardware": name, "nodes": 1, "gpus": gpus}
    found = sim.run({
        "name": "small", "cluster": cluster, "workload": {"kind": "collective", "op": "all_to_all", "bytes_per_rank": "64 MiB"},
    })["metrics"]  # fmt: skip
    least = 64 * 2**20 * (gpus - 1) / gpus / made.gpu.scale_up.bandwidth_bytes_per_s
    assert least < found["time_s"] < 2 * least
    step = sim.run({
        "name": "small", "cluster": cluster, "model": "qwen3-30b-a3b", "fidelity": "closed_form",
        "workload": {
            "kind": "decode", "requests_per_gpu": 16, "context_tokens": 1024, "drawn_layers": 1, "precision": "bf16",
            "gate": {"kind": "uniform", "sampling": "expected"}, "kernel": {"kind": "low_latency"},
        },
    })["metrics"]  # fmt: skip
    weights = 48 * 3 * 2048 * 768 * 2 * 128 / gpus
    assert step["step_time_s"] > weights / made.gpu.hbm.bandwidth_bytes_per_s


def test_a_package_of_two_dies_has_what_both_have() -> None:
    whole, die = (load_hardware(name) for name in ("cloudmatrix384", "cloudmatrix384-dies"))
    for path in (
        "gpu.dense_flops.bf16",
        "gpu.hbm.capacity",
        "gpu.hbm.bandwidth",
        "gpu.scale_up.bandwidth",
        "nic.bandwidth",
    ):
        assert whole.parameter(path).value == 2 * die.parameter(path).value
    assert 2 * whole.gpu.scale_up.domain == die.gpu.scale_up.domain


def test_half_the_nics_take_twice_as_long_where_nics_bind() -> None:
    settings: dict[str, Any] = {"expect": {}, "variants": {}, "cluster.nodes": 8}
    times = [
        sim.run("deepep-ep64-h800", settings | {"cluster.hardware": {"chip": "h100", "node": node}})[
            "metrics"
        ]["dispatch"]
        for node in ("hgx-8nic", "dgx-4nic")
    ]
    assert [found["binding"] for found in times] == ["nic", "nic"]
    assert times[1]["time_s"] / times[0]["time_s"] == pytest.approx(2.0, rel=0.05)


def test_without_scale_up_bytes_of_peers_and_of_nics_share_the_pcie_link() -> None:
    made = load_hardware({"chip": "rtx-pro-6000", "node": "pcie-8"})
    cluster = topology.build(made, 2, topology.Fabric())
    assert cluster.egress.tolist() == cluster.pcie_tx.tolist()
    assert cluster.ingress.tolist() == cluster.pcie_rx.tolist()
    assert set(cluster.capacity[cluster.egress]) == {64e9}
    assert not [name for name in cluster.names if "scale_up" in name]


def test_an_all_to_all_of_a_pcie_node_takes_its_bytes_over_the_link() -> None:
    """Each of 8 GPUs keeps an eighth of 64 MiB and sends the rest at 64 GB/s, at best."""
    found = sim.run({
        "name": "pcie", "cluster": {"hardware": {"chip": "rtx-pro-6000", "node": "pcie-8"}, "nodes": 1},
        "workload": {"kind": "collective", "op": "all_to_all", "bytes_per_rank": "64 MiB"},
    })["metrics"]  # fmt: skip
    least = 64 * 2**20 * 7 / 8 / 64e9
    assert least < found["time_s"] < 2.0 * least
    assert found["binding"] == "pcie"


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ({"chip": "rtx-pro-6000", "node": "hgx-8nic"}, "rtx-pro-6000 has no scale-up links"),
        ({"chip": "gb300", "node": "pcie-8"}, "wanted gpu.scale_up, or for a node that sends over PCIe gpu.pcie.bandwidth"),
        ({"chip": "h801", "node": "hgx-8nic"}, "h801"),
        ({"chip": "h800"}, "the key 'node'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_one_clear_problem(hardware: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sim.run("deepep-ep16-h800", {"expect": {}, "variants": {}, "cluster.hardware": hardware})


def test_an_override_may_take_the_links_of_a_profile_away() -> None:
    made = load_hardware("h100", {"gpu.scale_up": None, "gpu.pcie.domain": 8, "gpu.pcie.latency": "2 us"})
    assert (made.gpu.scale_up.bandwidth_bytes_per_s, made.gpu.scale_up.domain) == (64e9, 8)
    with pytest.raises(InputError, match=r"over PCIe gpu.pcie.latency, gpu.pcie.domain"):
        load_hardware("h100", {"gpu.scale_up": None})
    with pytest.raises(
        InputError, match=r"'domain'; wanted no such key: GPUs send to one another over scale-up"
    ):
        load_hardware("h100", {"gpu.pcie.domain": 8})


def test_paths_of_ones_own_parts_are_read(tmp_path: Path) -> None:
    for kind, name in (("chips", "h20-141g"), ("nodes", "dgx-4nic")):
        shipped = documents.shipped(f"hardware/{kind}")[name]
        (tmp_path / f"{kind}.yaml").write_text(Path(shipped).read_text())
    made = load_hardware({"chip": "chips.yaml", "node": "nodes.yaml"}, near=tmp_path)
    assert made.gpu == load_hardware({"chip": "h20-141g", "node": "dgx-4nic"}).gpu
