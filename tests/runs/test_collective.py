"""Collectives as scenarios: groups, bandwidths as nccl-tests count them, both fidelities, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from figures import group, mean_error, rows
from sim import documents
from sim.engine.records import Trace
from sim.errors import InputError
from sim.runs import metrics as measure
from sim.runs.forecast import forecast
from sim.runs.run import run_scenario
from sim.scenario.resolve import resolve
from sim.workload.layout import Layout

SIZE = 2**28


def scenario(op: str = "all_reduce", nodes: int = 2, layout: str = "{}", **more: Any) -> Any:
    work = {"op": op, "bytes_per_rank": f"{SIZE} B", **more}
    fidelity, hardware = work.pop("fidelity", "flow"), work.pop("hardware", "h100")
    body = ", ".join(f"{key}: {value}" for key, value in work.items())
    return resolve(
        documents.loads(
            f"name: x\nfidelity: {fidelity}\ncluster: {{hardware: {hardware}, nodes: {nodes}}}\n"
            f"layout: {layout}\nworkload: {{kind: collective, {body}}}\n",
            "mine.yaml",
        )
    )


def metrics(*args: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_scenario(scenario(*args, **more))["metrics"]
    return found


def refused(*args: Any, **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        scenario(*args, **more)
    return str(caught.value)


def test_a_run_in_which_nothing_moves_has_no_utilisation_over_its_time() -> None:
    assert measure.utilisation(Trace(end_s=1.0), scenario().cluster()) == {}


# --- groups --------------------------------------------------------------------------------------------------------


def test_groups_are_those_of_the_layout() -> None:
    layout = Layout(pp=2, ep=4, tp=2, dp=4, cp=2)
    wanted = {
        "tp": [range(r, r + 2) for r in range(0, 32, 2)],
        "dp": [range(p + r, p + 16, 4) for p in (0, 16) for r in range(4)],
        "ep": [range(r, r + 4) for r in range(0, 32, 4)],
        "expert_dp": [range(p + r, p + 16, 4) for p in (0, 16) for r in range(4)],
        "cp": [range(r + t, r + 4, 2) for r in range(0, 32, 4) for t in range(2)],
        "pp": [range(r, 32, 16) for r in range(16)],
        "world": [range(32)],
    }  # fmt: skip
    for name, ranks in wanted.items():
        assert sorted(layout.groups(name).tolist()) == sorted(map(list, ranks)), name


def test_all_groups_of_a_kind_run_at_once_and_those_inside_nodes_do_not_meet() -> None:
    one = metrics(nodes=1, layout="{tp: 8}", group="tp")
    four = run_scenario(scenario(nodes=4, layout="{tp: 8}", group="tp"))
    assert four["metrics"]["time_s"] == pytest.approx(one["time_s"], rel=1e-12)
    assert len(four["timeline"]["kernels"][0]["rank_ends_s"]) == 32
    assert {row["class"] for row in four["links"].values()} == {"scale_up"}
    assert len(four["links"]) == 2 * 32


def test_pipeline_neighbours_send_over_their_own_nics() -> None:
    """Two stages of eight: each pair moves 2 x 1/2 S over one NIC each way, at 0.888 of 50 GB/s, after two steps."""
    got = metrics(layout="{pp: 2}", group="pp", algorithm="ring")
    assert got["time_s"] == pytest.approx(8.4e-6 + 2 * 14e-6 + SIZE / (0.888 * 50e9), rel=1e-9)
    assert got["wire_nic_bytes"] == SIZE


# --- bandwidths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "buffers", "bus"),
    [("all_gather", 16, 15 / 16), ("reduce_scatter", 1, 15 / 16), ("all_reduce", 1, 2 * 15 / 16),
     ("broadcast", 1, 1), ("all_to_all", 1, 15 / 16)],
)  # fmt: skip
def test_bandwidths_are_those_that_nccl_tests_print(op: str, buffers: int, bus: float) -> None:
    """doc/PERFORMANCE.md: S is the whole buffer, of an all-gather what a rank has after it."""
    got = metrics(op)
    assert got["algbw_bytes_per_s"] == pytest.approx(buffers * SIZE / got["time_s"])
    assert got["busbw_bytes_per_s"] == pytest.approx(got["algbw_bytes_per_s"] * bus)
    assert 0 < got["lower_bound_s"] <= got["completion_time_s"]


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_reduce", "broadcast", "all_to_all"])
def test_closed_form_and_flows_agree_on_healthy_links(op: str) -> None:
    flow, closed = metrics(op, nodes=4), metrics(op, nodes=4, fidelity="closed_form")
    assert closed["time_s"] == pytest.approx(flow["time_s"], rel=0.02)
    for key in ("lower_bound_s", "wire_nic_bytes", "wire_nvlink_bytes", "algorithm", "protocol"):
        assert closed[key] == flow[key]


def test_an_all_to_all_is_the_plain_exchange_of_the_all_to_all_kind() -> None:
    plain = sim.run("nccl-multi-plane", settings=("variants={}",))["metrics"]["exchange"]
    got = metrics("all_to_all", nodes=8, hardware="h800", bytes_per_rank="1 GiB")
    joined = sim.run("nccl-multi-plane", settings=("variants={}", "cluster.fabric.kind=rail_optimized"))
    assert got["time_s"] == joined["metrics"]["exchange"]["time_s"]
    assert got["algbw_bytes_per_s"] == pytest.approx(plain["algbw_bytes_per_s"], rel=1e-6)


def test_a_forecast_is_what_no_run_betters() -> None:
    prepared = forecast(scenario(nodes=2))
    got = prepared.run()
    assert prepared.best["time_s"] == got["lower_bound_s"] <= got["time_s"]
    assert prepared.best["busbw_bytes_per_s"] >= got["busbw_bytes_per_s"]


def test_a_faulty_rail_is_in_a_run_and_not_in_the_choice_of_the_way() -> None:
    healthy = sim.run("nccl-all-reduce", settings=("variants={}", "cluster.nodes=4"))
    slow = sim.run(
        "nccl-all-reduce",
        settings=("variants={}", "cluster.nodes=4", "cluster.faults=[{rail: 2, bandwidth: 30 GB/s}]"),
    )
    assert slow["metrics"]["algorithm"] == healthy["metrics"]["algorithm"] == "nvls"
    assert slow["metrics"]["binding"] == "nic"
    # two trees of four nodes leave at most 2 S / 8 on a NIC
    assert slow["metrics"]["time_s"] == pytest.approx(2 * 2**30 / 8 / (0.888 * 30e9), rel=0.05)


def test_what_the_shipped_scenario_expects_comes_true() -> None:
    runs = sim.run("nccl-all-reduce")["variants"]
    got = {name: run["metrics"] for name, run in runs.items()}
    leaned = {row["key"] for row in runs["h800-node"]["provenance"]["leaned_on"]}
    assert "nvls.scale_up_efficiency_fraction" in leaned
    assert got["h800-node"]["time_s"] / got["h100-node"]["time_s"] == pytest.approx(450 / 200, rel=0.01)
    assert (got["h800-ring"]["binding"], got["h100-ring"]["binding"]) == ("scale_up", "nic")


# --- published -----------------------------------------------------------------------------------------------------


def test_nccl_on_eight_h100_is_within_8_percent_from_half_a_kilobyte_to_half_a_gigabyte() -> None:
    found = rows("nccl_8gpu")
    assert len(found) == 32
    assert mean_error(found) <= 0.08
    assert mean_error([row for row in found if row["use"] == "validation"]) <= 0.11


def test_the_cut_link_of_an_h800_holds_sums_in_the_switch_as_people_report() -> None:
    (row,) = [row for row in group("nccl_8gpu")["rows"] if row["id"] == "h800-nvls"]
    assert abs(row["error_fraction"]) <= 0.08


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"algorithm": "tree", "op": "all_gather"}, "got 'tree'; wanted one that all_gather has in such groups: auto, ring"),
        ({"algorithm": "nvls", "hardware": "a100"}, "got 'nvls'; wanted one that all_reduce has in such groups: auto, ring, tree"),
        ({"group": "tp"}, "workload.group: got tp, a group of one rank"),
        ({"bytes_per_rank": "0 B"}, "workload.bytes_per_rank: got 0 B; wanted more than 0"),
        ({"op": "all_reduse"}, "did you mean all_reduce?"),
    ],
)  # fmt: skip
def test_a_wrong_collective_is_refused_in_one_message(more: dict[str, Any], words: str) -> None:
    assert words in refused(**{"op": "all_reduce", **more})


def test_a_model_has_no_part_in_a_collective() -> None:
    text = "name: x\ncluster: {hardware: h100, nodes: 1}\nmodel: deepseek-v3\n"
    with pytest.raises(InputError, match="model: got deepseek-v3; wanted none"):
        resolve(
            documents.loads(
                text + "workload: {kind: collective, op: broadcast, bytes_per_rank: 1 MB}\n", "mine.yaml"
            )
        )


def test_two_ranks_of_a_group_on_every_node_share_its_rings() -> None:
    """A DP group of stride 4 has two GPUs a node: two channels, each over NICs of its own rail."""
    got = run_scenario(scenario("reduce_scatter", nodes=2, layout="{tp: 4}", group="dp"))
    nic = [row["bytes"] for name, row in got["links"].items() if name.endswith("/tx") and "nic" in name]
    assert np.array(nic) == pytest.approx(np.full(16, SIZE * 3 / 4 / 2))
