"""Kinds of NICs: they change what a kernel reaches of a line, how many messages it sends, and latencies; expected values by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.nics import load_nic
from sim.errors import InputError
from sim.runs.run import run_document

GATE = {"kind": "uniform", "sampling": "expected"}


def run(tmp_path: Path, workload: dict[str, Any], fidelity: str = "closed_form", **override: Any) -> Any:
    """The metrics of 2 nodes of H100 with an override."""
    tree = {
        "name": "nics",
        "cluster": {"hardware": "h100", "nodes": 2, "override": override},
        "fidelity": fidelity,
        "workload": workload,
    }
    if "gate" in workload:
        tree["model"] = "deepseek-v3"
    (tmp_path / "nics.yaml").write_text(yaml.safe_dump(tree))
    return run_document(documents.load(tmp_path / "nics.yaml"))["metrics"]


def tokens(kind: str, num: int = 4096) -> dict[str, Any]:
    return {"kind": "all_to_all", "tokens_per_rank": num, "gate": GATE, "kernel": {"kind": kind}}


def test_the_shipped_kinds_are_the_promised_ones() -> None:
    assert tuple(documents.shipped("hardware/nics")) == ("cx7_ib", "cx7_roce", "efa_v2")


@pytest.mark.parametrize("kernel", ["two_hop", "low_latency", "nccl"])
def test_the_kind_that_kernels_were_measured_with_changes_nothing(tmp_path: Path, kernel: str) -> None:
    named = run(tmp_path, tokens(kernel, 64), "flow", **{"nic.kind": "cx7_ib"})
    assert named["dispatch"] == run(tmp_path, tokens(kernel, 64), "flow")["dispatch"]


def test_ethernet_adds_its_switches_and_nothing_else(tmp_path: Path) -> None:
    """3.6 us within a leaf where InfiniBand has 2.8."""
    ib, roce = (run(tmp_path, tokens("two_hop"), **{"nic.kind": kind}) for kind in ("cx7_ib", "cx7_roce"))
    for direction in ("dispatch", "combine"):
        assert roce[direction]["time_s"] - ib[direction]["time_s"] == pytest.approx(0.8e-6, rel=1e-6)


def test_small_messages_are_bound_by_their_rate(tmp_path: Path) -> None:
    """8 copies a token, half of them to the other node, one message each, at 2.1 million a second."""
    few, many = (
        run(tmp_path, tokens("low_latency", num), **{"nic.kind": "efa_v2"})["dispatch"]["time_s"]
        for num in (128, 256)
    )
    assert many - few == pytest.approx(128 * 8 / 2 / 2.1e6, rel=0.15)  # and half of the NVLink time
    free = {
        "nic.kind": "efa_v2",
        "nic.bandwidth": "100 Gb/s",
    }  # 7408 B x 2.1 M/s = 15.6 GB/s: the line binds now
    slow = run(tmp_path, tokens("low_latency", 128), **free)["dispatch"]["time_s"]
    faster = run(tmp_path, tokens("low_latency", 128), **free | {"nic.kind": "cx7_ib"})["dispatch"]["time_s"]
    assert slow / faster == pytest.approx(0.97 / 0.95, rel=0.05)


def test_large_messages_reach_what_the_kind_reaches(tmp_path: Path) -> None:
    """An all-reduce over two nodes is bound by the NIC; its time without steps is in the ratio of what large writes reach."""
    work = {"kind": "collective", "op": "all_gather", "bytes_per_rank": "256 MB", "algorithm": "ring"}
    ib, efa = (run(tmp_path, work, **{"nic.kind": kind})["time_s"] for kind in ("cx7_ib", "efa_v2"))
    assert efa / ib == pytest.approx(0.97 / 0.95, rel=0.005)


def test_a_latency_written_by_itself_stands_over_that_of_the_kind() -> None:
    hardware = load_hardware("h100", {"nic.kind": "efa_v2", "fabric.same_leaf_latency": "1 us"})
    assert hardware.fabric.same_leaf_latency_s == pytest.approx(1e-6)
    assert hardware.fabric.cross_leaf_latency_s == pytest.approx(10e-6)
    assert hardware.parameter("fabric.same_leaf_latency").grade == "override"
    assert hardware.parameter("nic.kind.message_rate").grade == "assumed"


def test_a_kind_of_ones_own_is_one_file(tmp_path: Path) -> None:
    text = documents.shipped("hardware/nics")["cx7_ib"].read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("value: 0.97", "value: 0.485").replace("cx7_ib\n", "mine\n"))
    assert load_nic(path).reached_fraction == 0.485
    base, half = (
        run(tmp_path, tokens("two_hop"), **{"nic.kind": kind, "nic.bandwidth": "100 Gb/s"})["dispatch"]
        for kind in ("cx7_ib", str(path))
    )
    fixed = 50e-6
    assert half["time_s"] - fixed == pytest.approx(2 * (base["time_s"] - fixed), rel=0.001)


def test_an_unknown_kind_is_reported_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean efa_v2"):
        load_hardware("h100", {"nic.kind": "efa_v3"})
